"""``gapless train``: a recipe, or data and options, to a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .words import INTERRUPTED, OK, Parser, UsageError, common

if TYPE_CHECKING:
    from ..recipe import Recipe

__all__ = ["HELP", "options", "run"]

HELP = "train a model on your pictures"

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


def options(p: Parser) -> None:
    """Its words."""
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
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
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
        done = gapless.train(
            None,
            resume=arguments.resume,
            threads=arguments.threads,
            verbose=_verbosity(arguments),
            json=arguments.json,
        )
    else:
        recipe = _recipe(arguments.source, changes)
        done = gapless.train(
            recipe,
            arguments.out,
            threads=arguments.threads,
            verbose=_verbosity(arguments),
            json=arguments.json,
        )
    if arguments.quiet and not arguments.json and done.record is not None:
        print(f"{done.best}: {done.record.split} {done.record.line()}")
    return INTERRUPTED if done.interrupted else OK


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


def _verbosity(arguments: argparse.Namespace) -> int:
    return 0 if arguments.quiet else 1
