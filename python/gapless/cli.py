"""The command line: ``gapless train | eval | predict | info | doctor | check | compare | bench``.

Exit codes: 0 done (and reproduced, or nothing found) · 1 the recorded samples gave another number, or there
are findings · 2 bad input · 130 interrupted · 3 anything else (a defect: set GAPLESS_TRACEBACK=1 to see
where). ``--json`` prints one JSON document on standard output and nothing else; errors are one line on
standard error. Each command is a module of ``gapless.commands``.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _peers
from .commands import bench, check, compare, doctor, evaluate, info, predict, train
from .commands.words import (
    BAD_INPUT,
    DEFECT,
    INTERRUPTED,
    OK,
    Parser,
    UsageError,
    explain_unknown,
    one_line,
    print_json,
)
from .errors import GaplessError

__all__ = ["main"]

_COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "info": info,
    "doctor": doctor,
    "check": check,
    "compare": compare,
    "bench": bench,
}

_EPILOG = """exit codes: 0 done, nothing found · 1 findings, or the recorded samples gave another number ·
2 bad input · 130 interrupted
Options of other tools are answered with what they are called here."""


def _parser() -> tuple[Parser, dict[str, Parser]]:
    top = Parser(
        prog="gapless",
        description="Train and evaluate image models, and trust the number.",
        epilog=_EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    parsers: dict[str, Parser] = {}
    for name, module in _COMMANDS.items():
        one = commands.add_parser(name, help=module.HELP, description=module.HELP, allow_abbrev=False)
        module.options(one)
        parsers[name] = one
    return top, parsers


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
        return _fail(one_line(error), BAD_INPUT, as_json, error)
    except Exception as error:
        if os.environ.get("GAPLESS_TRACEBACK") == "1":
            raise
        said = f"{one_line(error)} (a defect of gapless; GAPLESS_TRACEBACK=1 shows where)"
        return _fail(said, DEFECT, as_json, error)


def _run(words: list[str]) -> int:
    top, parsers = _parser()
    if words and not words[0].startswith("-") and words[0] not in parsers:
        raise UsageError(_unknown_command(words[0], list(parsers)))
    arguments, rest = top.parse_known_args(words)
    if rest:
        raise UsageError(explain_unknown(rest, parsers.get(arguments.command, top), words))
    if arguments.version:
        import gapless

        print(gapless.__version__)
        return OK
    if arguments.command is None:
        top.print_help(sys.stderr)
        return BAD_INPUT
    code: int = _COMMANDS[arguments.command].run(arguments)
    return code


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
        "diagnose": "doctor",
        "why": "doctor",
        "diff": "compare",
        "lint": "check",
        "validate-data": "check",
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
                reconfigure(encoding="utf-8")
            reconfigure(errors="backslashreplace")  # what only a surrogate needs in JSON, and is valid there


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"WARNING: {' '.join(str(message).split())}", file=sys.stderr)


def _drop_output() -> None:
    """The reader has gone: nothing more can be said on standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(said: str, code: int, as_json: bool, error: BaseException) -> int:
    print(f"gapless: {said}", file=sys.stderr)
    if as_json:
        try:
            print_json({"error": {"type": type(error).__name__.lstrip("_"), "message": said, "exit": code}})
        except OSError:  # the disk that standard output goes to is full: it was said on standard error
            _drop_output()
    return code
