"""``gapless check``: look at data and recipe before training."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import GaplessError
from .doctor import say, show
from .words import FOUND, OK, Parser, UsageError, common, print_json, seconds, whole, writable

__all__ = ["HELP", "options", "run"]

HELP = "look at data and recipe before training"


def options(p: Parser) -> None:
    """Its words."""
    p.add_argument(
        "source", nargs="?", metavar="DATA | RECIPE.yaml", help="what gapless train would be given"
    )
    p.add_argument("--yolo", metavar="data.yaml", help="instead: a detector's data in YOLO's form")
    p.add_argument("--image-size", type=whole, metavar="N", help="with --yolo: the side trained at (640)")
    p.add_argument(
        "--budget", type=seconds, default=60.0, metavar="S", help="seconds it may take (default: 60)"
    )
    p.add_argument("--html", metavar="FILE", help="write it as one self-contained page as well")
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    import gapless

    if (arguments.source is None) == (arguments.yolo is None):
        raise UsageError("check needs one of: data, a recipe, --yolo data.yaml")
    writable(arguments.html)
    if arguments.threads is not None:
        gapless.set_num_threads(arguments.threads)
    if arguments.yolo is not None:
        return _yolo(arguments)
    if arguments.image_size is not None:
        raise UsageError("--image-size belongs to --yolo; a recipe says its own")
    verbose = 0 if arguments.quiet else 1
    path = Path(arguments.source)
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            recipe = gapless.Recipe.from_yaml(path)
        except GaplessError:
            _refuse_yolo(path)
            raise
        found = gapless.check(recipe.data, recipe, budget=arguments.budget, verbose=verbose)
    else:
        found = gapless.check(arguments.source, None, budget=arguments.budget, verbose=verbose)
    return show(found, arguments)


def _refuse_yolo(path: Path) -> None:
    """A detector's data.yaml is told by keys that no recipe has."""
    from .. import _yaml

    try:
        document = _yaml.load(path.read_text("utf-8"), str(path), number_keys=True)
    except (GaplessError, OSError, ValueError):
        return  # the recipe's reader says what is wrong
    if isinstance(document, dict) and "names" in document and "train" in document:
        raise UsageError(f"{path} is a data.yaml of YOLO: give it as --yolo {path}")


def _yolo(arguments: argparse.Namespace) -> int:
    """Label errors are told one by one; any is exit code 1, for trainers drop or refuse such files."""
    from ..doctor import yolo

    labels = yolo.read(arguments.yolo, image_size=arguments.image_size or yolo.IMAGE_SIZE)
    found = yolo.check(labels, budget=arguments.budget, verbose=0 if arguments.quiet else 1)
    if arguments.json:
        print_json({**found.to_dict(), "yolo": labels.to_dict()})
        code = FOUND if found.findings else OK
    else:
        say(labels.text(brief=arguments.quiet))
        code = show(found, arguments)
    return FOUND if labels.problems else code
