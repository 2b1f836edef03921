"""The pictures and tables of a run's folder; all of them from what the saved file gives, none of them able
to end a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EvaluationMismatch
from ..evaluation import evaluate

if TYPE_CHECKING:
    from ..record import EvalRecord
    from .loop import Trainer
    from .run import Run

__all__ = ["draw_batch", "draw_labels", "write_results"]

BATCH_SHOWN = 64
PREDICTIONS_SHOWN = 36


def draw_labels(trainer: Trainer) -> None:
    """``labels.png``: images of each class in each split."""
    data, path = trainer.data, trainer.folder / "labels.png"
    counts = {name: data.counts(name).tolist() for name in data.splits}
    trainer.files.picture("labels.png", lambda report: report.labels(counts, list(data.classes), path))


def draw_batch(trainer: Trainer, batch: Any) -> None:
    """``train_batch0.png``: the first batch as it is fed."""
    names = [trainer.data.classes[int(y)] for y in batch.y[:BATCH_SHOWN]]
    path = trainer.folder / "train_batch0.png"
    trainer.files.picture("train_batch0.png", lambda report: report.batch(batch.x[:BATCH_SHOWN], names, path))


def write_results(trainer: Trainer, run: Run) -> None:
    """Score the saved file once more, as anybody would; write what it gives.

    Raises
    ------
    RuntimeError
        The file gives another number than training recorded: the promise is broken, and that must not be
        silent.
    """
    files, folder = trainer.files, trainer.folder
    files.history(trainer.history)
    files.samples(trainer.samples, [trainer.data.ids[i] for i in trainer.index])
    files.picture("curves.png", lambda report: report.curves(trainer.history, folder / "curves.png"))
    if run.best is None:
        return
    for name in trainer.lists:
        try:
            record = evaluate(run.best, trainer.data, name)
        except EvaluationMismatch as e:
            raise RuntimeError(f"the saved file gives another number than training recorded: {e}") from e
        short = name.partition("/")[0]
        files.predictions(short, record)
        _draw_predictions(trainer, record, f"{short}_pred.png")
        if name == "val":
            _draw_confusion(trainer, record)


def _draw_confusion(trainer: Trainer, record: EvalRecord) -> None:
    matrix, path = record.confusion, trainer.folder / "confusion.png"
    classes = list(trainer.data.classes)
    trainer.files.picture("confusion.png", lambda report: report.confusion(matrix, classes, path))


def _draw_predictions(trainer: Trainer, record: EvalRecord, file: str) -> None:
    """The most confident errors first, then the least confident right ones."""
    s = record.samples
    assert s is not None
    sure = s.probabilities.max(axis=1)
    order = np.lexsort((np.where(s.rank > 0, -sure, sure), s.rank == 0))[:PREDICTIONS_SHOWN]
    classes, data, path = record.classes, trainer.data, trainer.folder / file
    truth = [classes[int(s.labels[i])] for i in order]
    said = [classes[int(s.predictions[i])] for i in order]
    names = [s.ids[i] for i in order]

    def draw(report: Any) -> None:
        images = [data.load(data.index_of(name)) for name in names]
        report.predictions(images, truth, said, sure[order], path, ids=names)

    trainer.files.picture(file, draw)
