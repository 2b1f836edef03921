"""What every command shares: its parser, its exit codes, and how it prints one JSON document."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import _peers
from ..errors import GaplessError

__all__ = [
    "BAD_INPUT",
    "DEFECT",
    "DIFFERS",
    "FOUND",
    "INTERRUPTED",
    "OK",
    "Parser",
    "UsageError",
    "common",
    "explain_unknown",
    "one_line",
    "print_json",
    "seconds",
    "whole",
    "writable",
]

OK, DIFFERS, BAD_INPUT, DEFECT, INTERRUPTED = 0, 1, 2, 3, 130
FOUND = 1  # of doctor and check: there are findings


class UsageError(GaplessError):
    """A command line that is not valid."""


class Parser(argparse.ArgumentParser):
    """Says what was meant instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (gapless {self.command} --help)".replace("gapless  ", "gapless "))

    @property
    def command(self) -> str:
        return self.prog.partition(" ")[2]

    def options(self) -> list[str]:
        return [o for action in self._actions for o in action.option_strings if o.startswith("--")]


def explain_unknown(words: Sequence[str], parser: Parser, given: Sequence[str]) -> str:
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


def whole(text: str) -> int:
    """A whole number of at least 1, for ``type=``."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def seconds(text: str) -> float:
    """A time, for ``type=``."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be seconds, got {text!r}") from None
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"must be seconds above 0, got {text}")
    return value


def writable(file: str | None) -> None:
    """Refuse a file that cannot be written before the work is done, not after."""
    if file is None:
        return
    path = Path(file)
    if path.is_dir():
        raise UsageError(f"{file} is a folder; give the file to write")
    if path.exists() and not path.is_file():
        raise UsageError(f"{file} is a device or a pipe; give a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{file}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{file}: the folder {path.parent} cannot be written to")


def common(parser: Parser, *, threads: bool = True) -> None:
    """Options that every command has."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on standard output, nothing else"
    )
    if threads:
        parser.add_argument(
            "--threads", type=whole, metavar="N", help="for speed only: no number depends on it"
        )
    parser.add_argument("--quiet", action="store_true", help="warnings and the result only")


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, MemoryError):
        return f"{str(error) or 'not enough memory'}; a smaller batch_size or image_size needs less"
    if isinstance(error, OSError) and not isinstance(error, GaplessError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def print_json(document: Any) -> None:
    """The one document on standard output."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)
