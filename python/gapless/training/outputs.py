"""A run's folder: its name, its tables and logs, its pictures. Only checkpoints must be there; pictures may
fail, loudly."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import write_atomic, write_text_atomic
from ..errors import RecipeError

if TYPE_CHECKING:
    from ..record import EvalRecord
    from .console import Console
    from .state import SampleTable

__all__ = ["Folder", "new_folder"]


def new_folder(out: str | os.PathLike[str] | None) -> Path:
    """Make a run's folder; one that exists and is not empty is left alone, and the next number taken.

    ``runs/flowers``, ``runs/flowers-2``, ``runs/flowers-3`` …; the link ``latest`` beside it points to it.
    """
    wanted = Path(out if out is not None else "runs/run")
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RecipeError(f"out: {wanted.parent} is a file, or lies below one; runs need a folder") from None
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            path.mkdir()
            break
        except FileExistsError:
            if path.is_dir() and not any(path.iterdir()):
                break
            number += 1
    path = path.resolve()
    _link(path)
    return path


def _link(path: Path) -> None:
    """Point ``latest`` to the newest run; where links are not allowed, or the name is taken, there is
    none."""
    link = path.parent / "latest"
    if link.exists() and not link.is_symlink():
        return
    temporary = path.parent / f".latest.{os.getpid()}"
    try:
        os.symlink(path.name, temporary)
        os.replace(temporary, link)
    except OSError:
        temporary.unlink(missing_ok=True)


class Folder:
    """Writes everything of a run that is not a checkpoint.

    Parameters
    ----------
    path : Path
    console : Console
        Gets the warnings.
    """

    def __init__(self, path: Path, console: Console) -> None:
        self.path, self.console = path, console

    def event(self, what: str, **facts: Any) -> None:
        """Add a line to ``events.jsonl``: what happened, and when."""
        line = json.dumps({"time": round(time.time(), 3), "event": what, **facts}, ensure_ascii=True) + "\n"
        self._try("events.jsonl", lambda: self._append("events.jsonl", line))

    def _append(self, name: str, text: str) -> None:
        with open(self.path / name, "a", encoding="utf-8") as f:
            f.write(text)

    def text(self, name: str, text: str) -> None:
        """Write a text file, wholly or not at all. Errors are the caller's: these files are needed."""
        write_text_atomic(self.path / name, text, durable=True)

    def history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``results.csv``: a line per epoch; an empty field is a number that was not measured."""
        columns = list(dict.fromkeys(k for row in rows for k in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
        self._try("results.csv", lambda: write_text_atomic(self.path / "results.csv", table.getvalue()))

    def samples(self, table: SampleTable, ids: Sequence[str]) -> None:
        """Write ``train_samples.npz``: ids (n), loss (epochs, n) and right (epochs, n) as the samples were
        fed."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"ids": np.array(ids), **table.tensors()}
        np.savez_compressed(buffer, **arrays)
        name = "train_samples.npz"
        self._try(name, lambda: write_atomic(self.path / name, [buffer.getvalue()], durable=False))

    def predictions(self, name: str, record: EvalRecord) -> None:
        """Write ``predictions_<name>.csv``: id, truth, prediction, its probability, loss, right."""
        s = record.samples
        if s is None:
            return
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["id", "label", "prediction", "probability", "probability_of_label", "loss", "right"])
        p = s.probabilities
        for i, sample in enumerate(s.ids):
            truth, said = int(s.labels[i]), int(s.predictions[i])
            row = [
                sample,
                record.classes[truth],
                record.classes[said],
                f"{p[i, said]:.6f}",
                f"{p[i, truth]:.6f}",
            ]
            writer.writerow([*row, repr(float(s.loss[i])), int(said == truth)])
        file = f"predictions_{name}.csv"
        self._try(file, lambda: write_text_atomic(self.path / file, table.getvalue()))

    def picture(self, name: str, draw: Callable[[Any], object]) -> None:
        """Draw a picture with `gapless.report`; a failure is a warning, never the end of a run."""

        def make() -> None:
            from .. import report

            draw(report)

        self._try(name, make)

    def _try(self, name: str, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as e:
            self.console.warn(
                f"{self.path / name} could not be written: {type(e).__name__}: {e}; the run goes on"
            )
