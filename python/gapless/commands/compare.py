"""``gapless compare``: two records or checkpoints, sample by sample."""

from __future__ import annotations

import argparse

from .words import OK, Parser, common, print_json

__all__ = ["HELP", "options", "run"]

HELP = "compare two records: paired test, interval, and what differs"


def options(p: Parser) -> None:
    """Its words."""
    kinds = "a checkpoint, a run's folder, or a table of outputs"
    p.add_argument("a", metavar="A", help=kinds)
    p.add_argument("b", metavar="B", help="the other one")
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    import gapless

    if arguments.threads is not None:
        gapless.set_num_threads(arguments.threads)
    found = gapless.compare(arguments.a, arguments.b)
    if arguments.json:
        print_json(found.to_dict())
    else:
        print(found)
    return OK
