"""``gapless eval``: score a checkpoint and compare with its record."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..errors import EvaluationMismatch
from .words import DIFFERS, OK, Parser, common, one_line, print_json, whole

__all__ = ["HELP", "options", "run"]

HELP = "score a checkpoint, by default on the very samples of its record"


def options(p: Parser) -> None:
    """Its words."""
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run's folder")
    p.add_argument("data", nargs="?", metavar="DATA", help="other data; classes are matched by name")
    p.add_argument("--split", metavar="NAME", help="val, test, train, … (default: the one that was recorded)")
    p.add_argument(
        "--batch-size", type=whole, metavar="N", help="for speed and memory only: no number depends on it"
    )
    common(p)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
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
        print(f"gapless: {one_line(error)}", file=sys.stderr)
        if arguments.json:
            print_json({**error.record.to_dict(), "reproduced": None, "message": one_line(error)})
        else:
            _show_record(error.record, arguments.quiet)
        return DIFFERS
    if arguments.json:
        print_json(record.to_dict())
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
