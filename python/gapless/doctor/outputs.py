"""Outputs: what a model said of some samples, wherever it was trained; the least that the doctor needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..errors import DataError
from ..record import EvalRecord

__all__ = ["Outputs"]


@dataclass(frozen=True)
class Outputs:
    """Per-sample outputs.

    Attributes
    ----------
    ids : list of str
    labels : (n,) int64
        True classes.
    predictions : (n,) int64
    scores : (n, classes) float64 or None
        Logits or probabilities, as `kind` says; None where only the predicted class is known.
    kind : {"logits", "probabilities", "none"}
    classes : tuple of str
        Names by index.
    source : str
        Where they come from, for messages.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    scores: NDArray[np.float64] | None
    kind: str
    classes: tuple[str, ...]
    source: str = ""

    def __post_init__(self) -> None:
        n, k = len(self.ids), len(self.classes)
        if n == 0:
            raise DataError(f"outputs{self._where}: there is no sample")
        if self.labels.shape != (n,) or self.predictions.shape != (n,):
            raise DataError(
                f"outputs{self._where}: {n} ids, {len(self.labels)} targets and "
                f"{len(self.predictions)} predictions"
            )
        for name, values in (("target", self.labels), ("prediction", self.predictions)):
            if values.min() < 0 or values.max() >= k:
                bad = int(values.min() if values.min() < 0 else values.max())
                raise DataError(f"outputs{self._where}: {name} {bad} is outside 0..{k - 1}")
        if self.scores is not None:
            if self.scores.shape != (n, k):
                raise DataError(f"outputs{self._where}: scores are {self.scores.shape}, expected {(n, k)}")
            bad_rows = np.flatnonzero(~np.isfinite(self.scores).all(axis=1))
            if len(bad_rows):
                raise DataError(
                    f"outputs{self._where}: scores of {len(bad_rows)} samples are not finite, the first is "
                    f"{self.ids[bad_rows[0]]!r}"
                )

    @property
    def _where(self) -> str:
        return f" {self.source}" if self.source else ""

    @classmethod
    def of_record(cls, record: EvalRecord) -> Outputs:
        """From what `gapless.evaluate` returns."""
        s = record.samples
        if s is None:
            raise DataError("outputs: this record was read from a file and has no per-sample outputs")
        return cls(
            list(s.ids),
            s.labels.astype(np.int64),
            s.predictions.astype(np.int64),
            s.logits.astype(np.float64),
            "logits",
            record.classes,
            record.split,
        )

    @classmethod
    def of_logits(
        cls, ids: Sequence[str], labels: Any, logits: Any, classes: Sequence[str], source: str = ""
    ) -> Outputs:
        """From logits; the predicted class is the largest one's, the lower index among equals."""
        scores = np.asarray(logits, np.float64)
        return cls(
            list(ids),
            np.asarray(labels, np.int64),
            scores.argmax(axis=1).astype(np.int64),
            scores,
            "logits",
            tuple(classes),
            source,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether each prediction is the target."""
        return np.asarray(self.predictions == self.labels)

    @property
    def accuracy(self) -> float:
        """Share that is right."""
        return float(np.count_nonzero(self.right)) / len(self)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return metrics.wilson(int(np.count_nonzero(self.right)), len(self))

    @property
    def majority(self) -> float:
        """What guessing the most frequent class would reach."""
        return float(np.bincount(self.labels).max()) / len(self)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) counts; row = target."""
        return metrics.confusion(self.labels, self.predictions, self.num_classes)

    @cached_property
    def probabilities(self) -> NDArray[np.float64] | None:
        """(n, classes), or None where only predictions are known."""
        if self.scores is None or self.kind == "probabilities":
            return self.scores
        return metrics.softmax(self.scores).astype(np.float64)
