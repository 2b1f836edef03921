"""The pictures and tables of a run's folder; all of them from what the saved file gives, none of them able
to end a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import EvaluationMismatch
from ..evaluation import evaluate

if TYPE_CHECKING:
    from ..record import EvalRecord
    from .loop import Trainer
    from .run import Run

__all__ = ["draw_batch", "draw_labels", "write_results"]


def draw_labels(trainer: Trainer) -> None:
    """``labels.png``: images of each class in each split."""
    data, path = trainer.data, trainer.folder / "labels.png"
    counts = {name: data.counts(name).tolist() for name in data.splits}
    trainer.files.picture("labels.png", lambda report: report.labels(counts, path, classes=data.classes))


def draw_batch(trainer: Trainer, batch: Any) -> None:
    """``train_batch0.png``: the first batch as it is fed."""
    data, path = trainer.data, trainer.folder / "train_batch0.png"
    trainer.files.picture(
        "train_batch0.png", lambda report: report.batch(batch.x, batch.y, path, classes=data.classes)
    )


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
    monitor, curves = trainer.recipe["monitor"], folder / "curves.png"
    files.picture("curves.png", lambda report: report.curves(trainer.history, curves, monitor=monitor))
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
    trainer.files.picture(
        "confusion.png", lambda report: report.confusion(matrix, path, classes=record.classes)
    )


def _draw_predictions(trainer: Trainer, record: EvalRecord, file: str) -> None:
    """The most confident errors; where there is none, the least sure right answers."""
    s, data = record.samples, trainer.data
    assert s is not None
    sure, path = s.probabilities.max(axis=1), trainer.folder / file

    def load(i: int) -> Any:
        return data.load(data.index_of(s.ids[i]))

    def draw(report: Any) -> None:
        report.predictions(load, s.labels, s.predictions, sure, path, classes=record.classes, ids=s.ids)

    trainer.files.picture(file, draw)
