"""The command line: ``gapless train | eval | predict | info | bench``.

Exit codes: 0 done (and reproduced) · 1 the recorded samples gave another number · 2 bad input · 130
interrupted · 3 anything else (a defect: set GAPLESS_TRACEBACK=1 to see where). ``--json`` prints one JSON
document on standard output and nothing else; errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gapless import _peers
from gapless.errors import DataError, EvaluationMismatch, GaplessError

if TYPE_CHECKING:
    from gapless.recipe import Recipe

__all__ = ["main"]

OK, DIFFERS, BAD_INPUT, DEFECT, INTERRUPTED = 0, 1, 2, 3, 130

_EPILOG = """exit codes: 0 done · 1 the recorded samples gave another number · 2 bad input · 130 interrupted
Options of other tools are answered with what they are called here."""

# short options of train, and the recipe's key that each sets
_SHORTHANDS = {
    "model": "model.name",
    "epochs": "epochs",
    "lr": "optimizer.lr",
    "batch_size": "batch_size",
    "image_size": "image_size",
    "pretrained": "pretrained",
    "freeze": "freeze",
    "seed": "seed",
}


class UsageError(GaplessError):
    """A command line that is not valid."""


class _Parser(argparse.ArgumentParser):
    """Says what was meant instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (gapless {self.command} --help)".replace("gapless  ", "gapless "))

    @property
    def command(self) -> str:
        return self.prog.partition(" ")[2]

    def options(self) -> list[str]:
        return [o for action in self._actions for o in action.option_strings if o.startswith("--")]


def _explain_unknown(words: Sequence[str], parser: _Parser, given: Sequence[str]) -> str:
    """One line about words that the command does not have, among all those that were given."""
    said = []
    freezing = "--freeze" in given
    for word in words:
        name = word.split("=")[0]
        near = _peers.nearest(name.lstrip("-"), [o.lstrip("-") for o in parser.options()])
        hint = _peers.key_hint(name.lstrip("-").replace("-", "_"))
        if name.startswith("-") and near is not None:
            said.append(f"{name}: unknown option; did you mean --{near}?")
        elif name.startswith("-") and hint is not None:
            said.append(f"{name}: unknown option ({hint})")
        elif name.startswith("-"):
            said.append(f"{name}: unknown option; there are {', '.join(parser.options())}")
        elif freezing and not Path(word).exists():
            said.append(f"{word}: several names are written --freeze NAME,NAME,…")
        elif "=" in word:
            said.append(f"{word}: to change a key of the recipe write -o {word}")
        else:
            said.append(f"{word}: one argument too many")
    options = [text for word, text in zip(words, said, strict=True) if word.startswith("-")]
    return "; ".join(options or said)  # the word after an unknown option is its value


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    top = _Parser(
        prog="gapless",
        description="Train and evaluate image models, and trust the number.",
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    parsers: dict[str, _Parser] = {}

    def command(name: str, help: str, **kwargs: Any) -> _Parser:
        one = commands.add_parser(name, help=help, description=help, allow_abbrev=False, **kwargs)
        parsers[name] = one
        return one

    _train_options(command("train", "train a model on your pictures"))
    _eval_options(command("eval", "score a checkpoint, by default on the very samples of its record"))
    _predict_options(command("predict", "classify pictures with a checkpoint"))
    _info_options(command("info", "show what is in a checkpoint"))
    _bench_options(command("bench", "measure how fast training and evaluation are here"))
    return top, parsers


def _common(parser: _Parser, *, threads: bool = True) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on standard output, nothing else"
    )
    if threads:
        parser.add_argument(
            "--threads", type=_whole, metavar="N", help="for speed only: no number depends on it"
        )
    parser.add_argument("--quiet", action="store_true", help="warnings and the result only")


def _train_options(p: _Parser) -> None:
    kinds = "digits, a folder with a folder per class, a list file, an IDX or CIFAR folder"
    p.add_argument("source", nargs="?", metavar="RECIPE.yaml | DATA", help=f"a recipe, or data: {kinds}")
    p.add_argument("--out", metavar="DIR", help="the run's folder (a number is added where it exists)")
    example = "-o optimizer.lr=0.05 -o train.0.size=96"
    p.add_argument(
        "-o",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change a key of the recipe, VALUE in YAML: {example}",
    )
    p.add_argument("--resume", metavar="RUN", help="go on with a run; takes no data and no other key")
    p.add_argument("--model", metavar="NAME", help="-o model.name=NAME")
    p.add_argument("--epochs", metavar="N", help="-o epochs=N")
    p.add_argument("--lr", metavar="X", help="-o optimizer.lr=X")
    p.add_argument("--batch-size", metavar="N", help="-o batch_size=N")
    p.add_argument(
        "--image-size", metavar="N", help="-o image_size=N (or HxW): both default pipelines follow"
    )
    p.add_argument("--pretrained", metavar="FILE", help="-o pretrained=FILE (.safetensors) to begin from")
    p.add_argument("--freeze", metavar="NAME,…", help="-o freeze=[NAME, …]: layers that stay as they are")
    p.add_argument("--seed", metavar="N", help="-o seed=N")
    _common(p)


def _eval_options(p: _Parser) -> None:
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run's folder")
    p.add_argument("data", nargs="?", metavar="DATA", help="other data; classes are matched by name")
    p.add_argument("--split", metavar="NAME", help="val, test, train, … (default: the one that was recorded)")
    p.add_argument(
        "--batch-size", type=_whole, metavar="N", help="for speed and memory only: no number depends on it"
    )
    _common(p)


def _predict_options(p: _Parser) -> None:
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run's folder")
    p.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or folders of pictures")
    p.add_argument("--top", type=_whole, default=1, metavar="K", help="show the K most probable classes")
    p.add_argument("--batch-size", type=_whole, default=64, metavar="N", help="for speed and memory only")
    _common(p)


def _info_options(p: _Parser) -> None:
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run's folder")
    _common(p, threads=False)


def _bench_options(p: _Parser) -> None:
    p.add_argument(
        "work",
        nargs="?",
        default="train",
        choices=("train", "eval", "kernels"),
        help="what is timed: a training step (default), an evaluation, or each layer alone by pass",
    )
    p.add_argument(
        "--case",
        action="append",
        metavar="NET@SIZE",
        help="lenet@28, mobilenet_v2x0.25@224, resnet18@32:8 (batch 8); may be given again; "
        "all: those that speed is judged by, others: more sizes and batches",
    )
    p.add_argument("--batch", type=_whole, metavar="N", help="images per step, for every case")
    p.add_argument(
        "--peer", metavar="NAME", help="torch, keras, paddle or onnxruntime: measured in the same minutes"
    )
    p.add_argument("--peer-python", metavar="PATH", help="the interpreter that has the peer")
    p.add_argument(
        "--peer-configuration",
        metavar="WORDS",
        help="channels_last,eager: try only the peer's configurations with these words",
    )
    p.add_argument("--scaling", action="store_true", help="also against one thread")
    p.add_argument("--profile", action="store_true", help="instead: where the time of a step goes, op by op")
    p.add_argument("--rounds", type=_whole, default=7, metavar="N", help="rounds per side (default: 7)")
    p.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="seconds per round (default: 3), per layer and pass of kernels (0.3), of a profile (3)",
    )
    _common(p)


# ---- running ----


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``gapless``; by default the process's own.

    Examples
    --------
    >>> main(["info", "no_such_file.safetensors"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    _steady_output(as_json)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(words)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, as_json, KeyboardInterrupt())
    except BrokenPipeError:
        _drop_output()
        return OK
    except (GaplessError, OSError, ValueError, TypeError, MemoryError) as error:
        if os.environ.get("GAPLESS_TRACEBACK") == "1":
            raise
        return _fail(_one_line(error), BAD_INPUT, as_json, error)
    except Exception as error:
        if os.environ.get("GAPLESS_TRACEBACK") == "1":
            raise
        said = f"{_one_line(error)} (a defect of gapless; GAPLESS_TRACEBACK=1 shows where)"
        return _fail(said, DEFECT, as_json, error)


def _run(words: list[str]) -> int:
    top, parsers = _parser()
    if words and not words[0].startswith("-") and words[0] not in parsers:
        raise UsageError(_unknown_command(words[0], list(parsers)))
    arguments, rest = top.parse_known_args(words)
    if rest:
        raise UsageError(_explain_unknown(rest, parsers.get(arguments.command, top), words))
    if arguments.version:
        import gapless

        print(gapless.__version__)
        return OK
    if arguments.command is None:
        top.print_help(sys.stderr)
        return BAD_INPUT
    run = {"train": _train, "eval": _eval, "predict": _predict, "info": _info, "bench": _bench}[
        arguments.command
    ]
    return run(arguments)


def _unknown_command(word: str, known: list[str]) -> str:
    same = {
        "evaluate": "eval",
        "test": "eval",
        "val": "eval",
        "validate": "eval",
        "infer": "predict",
        "fit": "train",
        "resume": "train --resume",
        "finetune": "train --pretrained",
        "benchmark": "bench",
        "show": "info",
    }
    meant = same.get(word.lower()) or _peers.nearest(word, known)
    if meant is None and (Path(word).exists() or word == "digits" or word.endswith((".yaml", ".yml"))):
        meant = f"train {word}"
    said = f"did you mean 'gapless {meant}'?" if meant else f"there are {', '.join(known)}"
    return f"{word}: unknown command; {said}"


def _steady_output(as_json: bool) -> None:
    """JSON is UTF-8 whatever the locale; a terminal that lacks a character shows its number instead of
    dying."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            if as_json and stream is sys.stdout:
                reconfigure(encoding="utf-8", errors="surrogatepass")
            else:
                reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"WARNING: {' '.join(str(message).split())}", file=sys.stderr)


def _drop_output() -> None:
    """The reader has gone: nothing more can be said on standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"{str(error) or 'not enough memory'}; a smaller batch_size or image_size needs less"
    if isinstance(error, OSError) and not isinstance(error, GaplessError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(said: str, code: int, as_json: bool, error: BaseException) -> int:
    print(f"gapless: {said}", file=sys.stderr)
    if as_json:
        _print_json({"error": {"type": type(error).__name__.lstrip("_"), "message": said, "exit": code}})
    return code


def _print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)


def _verbosity(arguments: argparse.Namespace) -> int:
    return 0 if arguments.quiet else 1


# ---- train ----


def _train(arguments: argparse.Namespace) -> int:
    import gapless

    changes = _changes(arguments)
    if arguments.resume is not None:
        given = [w for w in (arguments.source, arguments.out) if w is not None] + list(changes)
        if given:
            raise UsageError(
                "--resume stands alone: a run goes on by its own recipe, on its own data, in its own folder; "
                f"leave out {', '.join(given)}"
            )
        if not Path(arguments.resume).exists():
            raise UsageError(f"--resume {arguments.resume}: there is no such run")
        run = gapless.train(
            None,
            resume=arguments.resume,
            threads=arguments.threads,
            verbose=_verbosity(arguments),
            json=arguments.json,
        )
    else:
        recipe = _recipe(arguments.source, changes)
        run = gapless.train(
            recipe,
            arguments.out,
            threads=arguments.threads,
            verbose=_verbosity(arguments),
            json=arguments.json,
        )
    if arguments.quiet and not arguments.json and run.record is not None:
        print(f"{run.best}: {run.record.split} {run.record.line()}")
    return INTERRUPTED if run.interrupted else OK


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect what -o and the short options say, each key once."""
    changes: dict[str, Any] = {}
    said: dict[str, str] = {}
    for word in arguments.overrides:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"-o {word}: must be KEY=VALUE, for example -o optimizer.lr=0.05")
        _put(changes, said, key.strip(), value, f"-o {key.strip()}")
    for option, key in _SHORTHANDS.items():
        value = getattr(arguments, option)
        if value is not None:
            _put(changes, said, key, _shorthand(option, value), f"--{option.replace('_', '-')}")
    return changes


def _put(changes: dict[str, Any], said: dict[str, str], key: str, value: Any, where: str) -> None:
    if key in changes:
        raise UsageError(f"{key} is given twice ({said[key]} and {where})")
    changes[key], said[key] = value, where


def _shorthand(option: str, value: str) -> Any:
    if option == "freeze":
        return [name.strip() for name in value.split(",") if name.strip()]
    if option == "image_size" and "x" in value.lower():
        return f"[{value.lower().replace('x', ', ')}]"
    return value


def _recipe(source: str | None, changes: dict[str, Any]) -> Recipe:
    from gapless.recipe import Recipe

    if source is None:
        if "data" not in changes and not any(key.startswith("data.") for key in changes):
            raise UsageError("train needs a recipe or data: gapless train digits, gapless train FOLDER, …")
        return Recipe().override(changes)
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return Recipe.from_yaml(path).override(changes)
    if path.suffix.lower() == ".safetensors":
        raise UsageError(
            f"{source} is a checkpoint: to go on with its run say --resume RUN, to begin from it --pretrained"
        )
    if path.is_dir() and any((path / f"{name}.safetensors").exists() for name in ("best", "last")):
        raise UsageError(f"{source} is a run's folder: to go on with it say gapless train --resume {source}")
    return Recipe(data=source).override(changes)


# ---- eval ----


def _eval(arguments: argparse.Namespace) -> int:
    import gapless

    try:
        record = gapless.evaluate(
            arguments.checkpoint,
            arguments.data,
            arguments.split,
            arguments.batch_size,
            arguments.threads,
            verbose=0,
        )
    except EvaluationMismatch as error:
        print(f"gapless: {_one_line(error)}", file=sys.stderr)
        if arguments.json:
            _print_json({**error.record.to_dict(), "reproduced": None, "message": _one_line(error)})
        else:
            _show_record(error.record, arguments.quiet)
        return DIFFERS
    if arguments.json:
        _print_json(record.to_dict())
    else:
        _show_record(record, arguments.quiet)
    return OK


def _show_record(record: Any, quiet: bool) -> None:
    print(f"{record.split}: top-1 {record.line()}, loss {record.loss:.6g}, majority {record.majority:.4f}")
    if quiet:
        return
    for k in record.correct:
        if k != 1:
            print(f"  top-{k} {record.topk(k):.4f} ({record.correct[k]}/{record.n_scored})")
    print(f"  {record.n_scored} of {record.n_listed} listed samples scored, {record.n_unreadable} unreadable")
    worst = [(c / n, name, c, n) for name, (n, c) in zip(record.classes, record.per_class, strict=True) if n]
    for rate, name, right, n in sorted(worst)[:10]:
        print(f"  {rate:.4f} ({right}/{n})  {name}")
    if len(worst) > 10:
        print(f"  … and {len(worst) - 10} better classes")
    weights = record.digests.get("weights", "")[:16]
    print(f"  {record.weights_kind} weights {weights}, {record.mode}, {record.kernel_set} kernels")
    said = {
        "exact": "reproduced: exactly the recorded number",
        "within": "reproduced: within the mode's tolerance",
        None: "not compared: the checkpoint has no record of these samples",
    }[record.reproduced]
    if record.differs and record.reproduced is None:
        said = f"NOT reproduced; differs: {', '.join(record.differs)}"
    print(f"  {said}")


# ---- predict ----


def _predict(arguments: argparse.Namespace) -> int:
    import gapless

    if arguments.threads is not None:
        gapless.set_num_threads(arguments.threads)
    model = gapless.load(arguments.checkpoint)
    if arguments.top > len(model.classes):
        raise UsageError(
            f"--top: must be at most {len(model.classes)}, the number of classes, got {arguments.top}"
        )
    found = model.predict(_pictures(arguments.images), batch_size=arguments.batch_size)
    if arguments.json:
        _print_json(found.to_dict())
        return OK
    for name, best in zip(found.ids, found.top(arguments.top), strict=True):
        print(f"{name}: " + ", ".join(f"{label} ({p:.4f})" for label, p in best))
    return OK


def _pictures(words: Sequence[str]) -> list[str]:
    """Files as they are named; folders give the pictures below them, in order."""
    from gapless.data.decode import EXTENSIONS

    found: list[str] = []
    for word in words:
        path = Path(word)
        if not path.is_dir():
            if not path.exists():
                raise DataError(f"{word}: there is no such file")
            found.append(word)
            continue
        files = sorted(p for p in path.rglob("*") if p.is_file())
        pictures = [str(p) for p in files if p.suffix.lower() in EXTENSIONS]
        if not pictures:
            raise DataError(f"{word}: no pictures ({', '.join(sorted(EXTENSIONS))}) in this folder")
        if len(pictures) < len(files):
            print(f"{word}: {len(files) - len(pictures)} other files left out", file=sys.stderr)
        found += pictures
    return found


# ---- info ----


def _info(arguments: argparse.Namespace) -> int:
    from gapless import checkpoint
    from gapless.evaluation import find_checkpoint

    saved = checkpoint.read(find_checkpoint(arguments.checkpoint))
    with checkpoint.fitting(saved):
        facts = _facts(saved)
        lines = _facts_lines(facts, arguments.quiet)
    if arguments.json:
        _print_json(facts)
    else:
        print("\n".join(lines))
    return OK


def _facts(saved: Any) -> dict[str, Any]:
    """What a checkpoint holds, as plain data."""
    documents = saved.documents
    recipe, manifest = documents.get("recipe") or {}, documents.get("manifest") or {}
    weights = saved.weights() if "state" in documents else None
    state = documents.get("state") or {}
    held = {kind: bool(state) and bool(saved.weights(kind)) for kind in ("raw", "ema")}
    parts = {**held, "optimizer": sorted(saved.slots())}
    samples = manifest.get("samples") or {}
    splits: dict[str, int] = {}
    for name in samples.get("split", ()):
        splits[name or "none"] = splits.get(name or "none", 0) + 1
    numbers = ("epoch", "batch", "step", "finished", "interrupted", "seconds")
    return {
        "path": str(saved.path),
        "digest": saved.digest,
        "weights": state.get("weights_kind"),
        "tensors": len(weights or {}),
        "values": int(sum(array.size for array in (weights or {}).values())),
        "model": {k: v for k, v in (recipe.get("model") or {}).items() if k != "graph"}
        or "a graph of one's own",
        "input": (documents.get("graph") or {}).get("input"),
        "classes": list(manifest.get("classes", ())),
        "splits": splits,
        "parts": parts,
        "documents": sorted(documents),
        "position": {key: state[key] for key in numbers if key in state},
        "records": documents.get("records") or {},
        "epochs": len(documents.get("history") or ()),
        "recipe": recipe,
    }


def _facts_lines(facts: dict[str, Any], quiet: bool) -> list[str]:
    """The facts as people read them."""
    model = facts["model"]
    if isinstance(model, dict):
        rest = ", ".join(f"{key} {value}" for key, value in model.items() if key != "name")
        model = f"{model.get('name')}" + (f" ({rest})" if rest else "")
    shape = "×".join(str(side) for side in facts["input"] or ())
    names = facts["classes"]
    shown = ", ".join(names[:8]) + (f", … {len(names) - 8} more" if len(names) > 8 else "")
    lines = [
        f"{facts['path']}",
        f"  model      {model}, input {shape}",
        f"  weights    {facts['weights']}: {facts['tensors']} tensors, {facts['values']:,} values",
        f"  classes    {len(names)}: {shown}",
        f"  samples    {', '.join(f'{name} {n:,}' for name, n in facts['splits'].items())}",
    ]
    for name, record in facts["records"].items():
        low, high = record["interval"]
        counts = f"({record['correct']['top1']}/{record['n_scored']})"
        rate = f"top-1 {record['top1']:.4f} [{low:.4f}, {high:.4f}]  {counts}"
        lines.append(f"  {name:<11}{' ' * (len(name) > 10)}{rate}, loss {record['loss']:.6g}")
    parts = facts["parts"]
    held = [name for name in ("raw", "ema") if parts[name]]
    held += [f"optimizer ({', '.join(parts['optimizer'])})"] if parts["optimizer"] else []
    missing = [name for name in ("raw", "ema") if not parts[name]]
    missing += [] if parts["optimizer"] else ["optimizer"]
    absent = f"; not: {', '.join(missing)}" if missing else ""
    lines.append(f"  holds      {', '.join([*held, *facts['documents']])}{absent}")
    if facts["position"]:
        said = {**facts["position"], "seconds": round(facts["position"].get("seconds", 0), 1)}
        lines.append(f"  position   {', '.join(f'{k} {v}' for k, v in said.items())}")
    lines.append(f"  digest     {facts['digest']}")
    if not quiet and facts["recipe"]:
        from gapless import _yaml

        recipe = {
            k: v for k, v in facts["recipe"].items() if v is not None and not (k == "model" and "graph" in v)
        }
        lines += ["  recipe", *(f"    {line}" for line in _yaml.dump(recipe).splitlines())]
    return lines


# ---- bench ----


def _bench(arguments: argparse.Namespace) -> int:
    from gapless.bench import command

    return command.run(arguments, _print_json)
