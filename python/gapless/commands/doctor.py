"""``gapless doctor``: why training and validation differ."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .words import BAD_INPUT, FOUND, OK, Parser, UsageError, common, print_json, seconds, writable

__all__ = ["HELP", "options", "run", "say", "show"]

HELP = "measure why training and validation differ"

# options that say something about `--outputs` only
_OF_OUTPUTS = ("train_outputs", "images")
_TABLES = (".csv", ".tsv", ".npz")


def options(p: Parser) -> None:
    """Its words."""
    p.add_argument("run", nargs="?", metavar="RUN | CHECKPOINT", help="a run's folder or a .safetensors file")
    p.add_argument("data", nargs="?", metavar="DATA", help="other data than the checkpoint's own")
    table = "CSV, npz or text with id or path, target, and logits, probabilities or prediction"
    p.add_argument(
        "--outputs", metavar="FILE", help=f"a model trained elsewhere, by its validation outputs: {table}"
    )
    p.add_argument("--train-outputs", metavar="FILE", help="the same of training images")
    p.add_argument("--logged", type=_fraction, metavar="X", help="the accuracy that training showed: 0.99")
    p.add_argument("--images", metavar="ROOT", help="the folder of the images that --outputs names")
    p.add_argument(
        "--detector-losses",
        metavar="FILE",
        help="a detector's losses by image: CSV with id, images, pipeline, box, obj, cls, n_pos, n_cells",
    )
    p.add_argument(
        "--check",
        action="append",
        metavar="SLUG",
        help="run only this check (resolution, class-order, …); may be given again",
    )
    p.add_argument(
        "--budget", type=seconds, default=120.0, metavar="S", help="seconds it may take (default: 120)"
    )
    p.add_argument("--html", metavar="FILE", help="write it as one self-contained page as well")
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    import gapless

    _check(arguments)
    if arguments.threads is not None:
        gapless.set_num_threads(arguments.threads)
    words = [w.strip() for given in arguments.check or () for w in given.split(",") if w.strip()]
    more = {"detector_losses": arguments.detector_losses} if arguments.detector_losses else {}
    found = gapless.diagnose(
        arguments.run,
        arguments.data,
        outputs=arguments.outputs,
        train_outputs=arguments.train_outputs,
        logged=arguments.logged,
        images=arguments.images,
        budget=arguments.budget,
        checks=words or None,
        verbose=0 if arguments.quiet else 1,
        **more,
    )
    return show(found, arguments)


def show(found: Any, arguments: argparse.Namespace, **more: Any) -> int:
    """Print a diagnosis as the options say, write the page, and give the exit code.

    `more` joins the JSON document.
    """
    failed = False
    if getattr(arguments, "html", None):
        from .._files import write_text_atomic

        try:
            write_text_atomic(arguments.html, found.to_html())
        except OSError as e:  # what was measured is not lost for want of a page
            print(f"WARNING: {arguments.html}: not written: {e.strerror or e}", file=sys.stderr)
            failed = True
    if arguments.json:
        print_json({**found.to_dict(), **more})
    else:
        say(found.text(brief=arguments.quiet))
    if failed:
        return BAD_INPUT
    return FOUND if found.findings else OK


def say(text: str) -> None:
    """Print, without what the terminal cannot show."""
    from ..report.text import in_ascii

    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")  # there may be no standard output
    except UnicodeEncodeError:
        text = in_ascii(text)
    print(text)


def _check(arguments: argparse.Namespace) -> None:
    """What does not go together, in the words of the command line."""
    openers = {
        "RUN": arguments.run,
        "--outputs": arguments.outputs,
        "--detector-losses": arguments.detector_losses,
    }
    given = [name for name, value in openers.items() if value is not None]
    if not given:
        raise UsageError("doctor needs a run, a checkpoint, --outputs FILE or --detector-losses FILE")
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different models: give one of them")
    if arguments.run is not None and arguments.run.lower().endswith(_TABLES):
        raise UsageError(
            f"{arguments.run} is no run; a table of outputs is given as --outputs {arguments.run}"
        )
    if arguments.detector_losses is not None and arguments.logged is not None:
        raise UsageError("--logged belongs to a run or --outputs FILE, not to --detector-losses")
    writable(arguments.html)
    if arguments.outputs is None:
        for name in _OF_OUTPUTS:
            if getattr(arguments, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} belongs to --outputs FILE")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a fraction like 0.99, got {text!r}") from None
    if not 0 <= value <= 1:
        hint = f"; did you mean {value / 100:g}?" if 1 < value <= 100 else ""
        raise argparse.ArgumentTypeError(f"an accuracy is a fraction from 0 to 1, got {text}{hint}")
    return value
