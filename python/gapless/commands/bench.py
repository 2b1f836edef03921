"""``gapless bench``: how fast this machine is."""

from __future__ import annotations

import argparse

from .words import Parser, common, print_json, whole

__all__ = ["HELP", "options", "run"]

HELP = "measure how fast training and evaluation are here"


def options(p: Parser) -> None:
    """Its words."""
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
    p.add_argument("--batch", type=whole, metavar="N", help="images per step, for every case")
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
    p.add_argument("--rounds", type=whole, default=7, metavar="N", help="rounds per side (default: 7)")
    p.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="seconds per round (default: 3), per layer and pass of kernels (0.3), of a profile (3)",
    )
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from gapless.bench import command

    return command.run(arguments, print_json)
