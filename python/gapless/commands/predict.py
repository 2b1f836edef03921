"""``gapless predict``: classify pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .words import OK, Parser, UsageError, common, print_json, whole

__all__ = ["HELP", "options", "run"]

HELP = "classify pictures with a checkpoint"


def options(p: Parser) -> None:
    """Its words."""
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run's folder")
    p.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, or folders of pictures")
    p.add_argument("--top", type=whole, default=1, metavar="K", help="show the K most probable classes")
    p.add_argument("--batch-size", type=whole, default=64, metavar="N", help="for speed and memory only")
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
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
        print_json(found.to_dict())
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
