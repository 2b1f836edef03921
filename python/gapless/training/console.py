"""What a run says: a banner, a bar that says *running*, a line per epoch, a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..data import Data
    from ..record import EvalRecord

__all__ = ["Console", "banner", "epoch_line", "final_table"]

TINY = 5  # images of a class below which a split is flagged


class Console:
    """Where a run's words go: standard output, or standard error when standard output is for JSON.

    Parameters
    ----------
    verbose : int
        0: warnings only.
    json : bool
        Keep standard output free.
    """

    def __init__(self, verbose: int = 1, json: bool = False) -> None:
        self.verbose = verbose
        self.stream: TextIO = sys.stderr if json else sys.stdout
        self._bar: Any = None

    def say(self, text: str = "") -> None:
        """One or more lines."""
        if self.verbose:
            self._write(text, self.stream)

    def warn(self, text: str) -> None:
        """A line that stands out, whatever `verbose` is."""
        self._write(f"WARNING: {text}", sys.stderr)

    def _write(self, text: str, stream: TextIO) -> None:
        line = text.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
        if self._bar is not None:
            self._bar.clear()
        stream.write(line + "\n")
        stream.flush()

    def begin_epoch(self, epoch: int, epochs: int, images: int, done: int) -> None:
        """Open the bar of an epoch, on a terminal."""
        if self.verbose and (sys.stderr.isatty() or "ipykernel" in sys.modules):  # a terminal or a notebook
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {postfix}"
            self._bar = tqdm(
                total=images,
                initial=done,
                desc=f"{epoch + 1}/{epochs}",
                leave=False,
                bar_format=form,
                file=sys.stderr,
            )

    def step(self, images: int, loss: float, correct: int, seen: int, lr: float, speed: float) -> None:
        """Move the bar. *running*: while the weights move, on augmented images; never an accuracy of a
        model."""
        if self._bar is not None:
            rate = correct / max(seen, 1)
            self._bar.set_postfix_str(
                f"loss {loss:.3f} | running {100 * rate:.1f} % ({correct}/{seen}) | lr {lr:.3g} | "
                f"{speed:.0f} img/s",
                refresh=False,
            )
            self._bar.update(images)

    def end_epoch(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def banner(
    data: Data, lists: Mapping[str, NDArray[np.int64]], parameters: tuple[int, int], facts: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Lines of what is about to be trained, and warnings.

    Parameters
    ----------
    data : Data
    lists : mapping
        Split → manifest indices.
    parameters : (trainable, total)
    facts : sequence of str
        Further lines.
    """
    lines, warnings = [], []
    parts = [f"{name} {len(indices)}" for name, indices in lists.items()]
    lines.append(f"data: {len(data.classes)} classes, {' + '.join(parts)} images")
    for name, indices in lists.items():
        count = np.bincount(data.labels[np.asarray(indices, np.int64)], minlength=len(data.classes))
        tiny = [f"{data.classes[i]} ({count[i]})" for i in np.flatnonzero((count > 0) & (count < TINY))]
        if tiny:
            warnings.append(f"split {name!r} has fewer than {TINY} images of {_some(tiny)}")
        if len(indices):
            span = f"{count.min()} to {count.max()} images a class"
            lines.append(f"  {name:<5} {span}, largest class {count.max() / len(indices):.3f}")
    lines += [f"  ! {note}" for note in data.notes]  # empty classes among them
    trainable, total = parameters
    share = "all" if trainable == total else f"{trainable:,}"
    lines.append(f"model: {total:,} parameters, {share} of them trained")
    return [*lines, *facts], warnings


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """One line per epoch: each number under its own name."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['train/running/loss']:.4f}"]
    parts.append(f"train/running {row['train/running/top1']:.4f}")
    if row.get("train/clean/top1") is not None:
        parts.append(f"train/clean {row['train/clean/top1']:.4f}")
    if row.get("val/top1") is not None:
        parts.append(f"val {row['val/top1']:.4f} [{row['val/low']:.3f}, {row['val/high']:.3f}]")
        parts.append(f"majority {row['val/majority']:.3f}")
    parts.append(f"lr {row['lr']:.3g}")
    parts.append(f"{row['images_per_second']:.0f} img/s")
    return "  ".join(parts) + ("  *" if row.get("best") else "")


def final_table(records: Mapping[str, EvalRecord]) -> list[str]:
    """The table at the end: clean train, val and, when asked, test, of the same weights."""
    lines = [f"{'':<12} {'top-1':>7}  {'95 % interval':<18} {'right':>13}  {'loss':>8}  majority"]
    for name, r in records.items():
        low, high = r.interval
        right = f"{r.correct[1]}/{r.n_scored}"
        lines.append(
            f"{name:<12} {r.top1:7.4f}  [{low:.4f}, {high:.4f}]   {right:>13}  {r.loss:8.4f}  "
            f"{r.majority:.4f}"
        )
    return lines


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
