"""EvalRecord: the one form in which an accuracy exists, made from per-sample outputs and counts."""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import metrics
from .errors import CheckpointError

__all__ = ["EvalRecord", "Samples"]

FORMAT = 1


@dataclass(frozen=True)
class Samples:
    """Per-sample outputs of an evaluation, in the order of the list that was scored.

    Attributes
    ----------
    ids : list of str
        Sample ids.
    labels, predictions : (n,) int64, int32
        True and predicted class.
    loss : (n,) float32
    rank : (n,) int64
        Classes before the true one; 0 is right.
    logits : (n, classes) float32
    """

    ids: list[str]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int32]
    loss: NDArray[np.float32]
    rank: NDArray[np.int64]
    logits: NDArray[np.float32]

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, classes) softmax of the logits."""
        return metrics.softmax(self.logits)

    def digest(self) -> str:
        """SHA-256 over ids, predictions and the bits of the losses."""
        h = hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogateescape"))
        for a, dtype in ((self.labels, "<i8"), (self.predictions, "<i4"), (self.loss, "<f4")):
            h.update(np.ascontiguousarray(a, dtype).tobytes())
        return h.hexdigest()


@dataclass(frozen=True)
class EvalRecord:
    """What `evaluate` found on a list of samples.

    Counts are whole numbers, the loss is the exactly rounded sum of per-sample losses over n; rates follow
    from them. Two records are of the same thing when their digests of weights, data and pipeline agree.

    Attributes
    ----------
    split : str
        ``"val"``, ``"test"``, ``"train"``, ``"train/clean"`` or ``"all"``.
    n_listed, n_scored, n_unreadable : int
        Samples on the list, scored (always equal), and left out of the data because no one can read them.
    correct : dict of int to int
        k → samples right at top-k.
    loss : float
    classes : tuple of str
    per_class : list of (n, correct)
        By class index.
    digests : dict
        SHA-256 of ``weights``, ``data``, ``pipeline`` and per-sample ``outputs``.
    weights_kind : {"raw", "ema"}
    mode : str
        Precision: ``"fast"``, ``"precise"``, …
    kernel_set, blas : str, str or None
        What computed it; `blas` is the core's name when the kernel set is ``blas``.
    versions : dict
    reproduced : {"exact", "within", None}
        Set by `evaluate`: against the record in the checkpoint.
    differs : dict
        Field → (recorded, now) for what differs from the recorded one.
    samples : Samples or None
        Per-sample outputs; not part of the JSON form.
    """

    split: str
    n_listed: int
    n_scored: int
    n_unreadable: int
    correct: dict[int, int]
    loss: float
    classes: tuple[str, ...]
    per_class: list[tuple[int, int]]
    digests: dict[str, str]
    weights_kind: str
    mode: str
    kernel_set: str
    blas: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    reproduced: Literal["exact", "within"] | None = None
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    samples: Samples | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, samples: Samples, *, split: str, classes: Sequence[str], topk: Sequence[int], **rest: Any
    ) -> EvalRecord:
        """Count: the record of per-sample outputs. `rest` are the fields that do not follow from them."""
        n, k = len(samples.ids), len(classes)
        right = samples.rank == 0
        if not np.array_equal(right, samples.predictions == samples.labels):
            raise RuntimeError(
                "predictions and logits disagree: the core and gapless.metrics break ties apart"
            )
        count = np.bincount(samples.labels, minlength=k)
        hits = np.bincount(samples.labels[right], minlength=k)
        digests = {**rest.pop("digests"), "outputs": samples.digest()}
        return cls(
            split=split,
            n_scored=n,
            correct=metrics.top_k_counts(samples.rank, metrics.check_topk(topk, k)),
            loss=metrics.mean(samples.loss),
            classes=tuple(classes),
            per_class=[(int(a), int(b)) for a, b in zip(count, hits, strict=True)],
            digests=digests,
            samples=samples,
            **rest,
        )

    # -- what follows from the counts -----------------------------------------------------------

    @property
    def top1(self) -> float:
        """Share of samples whose largest logit is the true class (ties: the lower index)."""
        return self.topk(1)

    def topk(self, k: int) -> float:
        """Share of samples whose true class is among the k largest logits."""
        return self.correct[k] / self.n_scored

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `top1`."""
        return metrics.wilson(self.correct[1], self.n_scored)

    @property
    def majority(self) -> float:
        """Share of the most frequent class: what guessing it always would reach."""
        return max(n for n, _ in self.per_class) / self.n_scored

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) counts, row = truth; needs `samples`."""
        if self.samples is None:
            raise ValueError(
                "confusion: this record was read from a file and has no per-sample outputs; "
                "evaluate() gives them"
            )
        return metrics.confusion(self.samples.labels, self.samples.predictions, len(self.classes))

    def metric(self, name: str) -> float:
        """The value that a monitor's name means: ``top1``, ``top5``, …, ``loss``.

        Raises
        ------
        KeyError
            No such metric here; names those that there are.
        """
        if name == "loss":
            return self.loss
        if name.startswith("top") and name[3:].isdigit() and int(name[3:]) in self.correct:
            return self.topk(int(name[3:]))
        have = ["loss", *(f"top{k}" for k in self.correct)]
        raise KeyError(f"no metric {name!r} in this record; there are {', '.join(have)}")

    # -- comparing ------------------------------------------------------------------------------

    def same_list(self, other: EvalRecord) -> bool:
        """Whether both are about the same samples with the same content and labels."""
        return self.digests.get("data") == other.digests.get("data")

    def differences(self, now: EvalRecord) -> dict[str, tuple[Any, Any]]:
        """Field by field, (here, in `now`), for every field that says what was measured and what came out."""
        out: dict[str, tuple[Any, Any]] = {}
        for name in (
            "n_listed",
            "n_scored",
            "n_unreadable",
            "correct",
            "loss",
            "classes",
            "per_class",
            "weights_kind",
            "mode",
        ):
            a, b = getattr(self, name), getattr(now, name)
            if a != b:
                out[name] = (a, b)
        for name in sorted({*self.digests, *now.digests}):
            a, b = self.digests.get(name), now.digests.get(name)
            if a != b:
                out[f"digests.{name}"] = (a, b)
        return out

    def _with(self, **fields: Any) -> EvalRecord:
        return replace(self, **fields)

    # -- forms ----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: counts, and rates as fractions (0.57, never percent)."""
        low, high = self.interval
        return {
            "format": FORMAT,
            "split": self.split,
            "n_listed": self.n_listed,
            "n_scored": self.n_scored,
            "n_unreadable": self.n_unreadable,
            **{f"top{k}": self.topk(k) for k in self.correct},
            "correct": {f"top{k}": n for k, n in self.correct.items()},
            "interval": [low, high],
            "majority": self.majority,
            "loss": self.loss,
            "per_class": [
                {"class": name, "n": n, "correct": c, "top1": c / n if n else None}
                for name, (n, c) in zip(self.classes, self.per_class, strict=True)
            ],
            "weights": self.weights_kind,
            "mode": self.mode,
            "kernel_set": self.kernel_set,
            "blas": self.blas,
            "digests": dict(self.digests),
            "metrics": dict(metrics.METRICS),
            "versions": dict(self.versions),
            "reproduced": self.reproduced,
            **({"differs": {k: list(v) for k, v in _plain(self.differs).items()}} if self.differs else {}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EvalRecord:
        """The record of `to_dict`'s plain data; rates must follow from the counts.

        Raises
        ------
        CheckpointError
            Another format or metric version, a missing field, or numbers that contradict each other.
        """
        try:
            if data["format"] != FORMAT:
                raise CheckpointError(f"record: format {data['format']!r}, this gapless knows {FORMAT}")
            if data["metrics"] != metrics.METRICS:
                raise CheckpointError(f"record: metrics {data['metrics']!r} are not ours, {metrics.METRICS}")
            _check_kinds(data)
            record = cls(
                split=data["split"],
                n_listed=data["n_listed"],
                n_scored=data["n_scored"],
                n_unreadable=data["n_unreadable"],
                correct={int(k.removeprefix("top")): int(n) for k, n in data["correct"].items()},
                loss=float(data["loss"]),
                classes=tuple(row["class"] for row in data["per_class"]),
                per_class=[(row["n"], row["correct"]) for row in data["per_class"]],
                digests=dict(data["digests"]),
                weights_kind=data["weights"],
                mode=data["mode"],
                kernel_set=data["kernel_set"],
                blas=data["blas"],
                versions=dict(data["versions"]),
                reproduced=data["reproduced"],
            )
            counted = (sum(n for n, _ in record.per_class), sum(c for _, c in record.per_class))
            if counted != (record.n_scored, record.correct[1]) or record.top1 != data["top1"]:
                raise CheckpointError("record: rates, counts and per-class counts contradict each other")
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as e:
            if isinstance(e, CheckpointError):
                raise
            raise CheckpointError(
                f"record: not the form of an evaluation record ({type(e).__name__}: {e})"
            ) from e
        return record

    def line(self) -> str:
        """``0.9861 [0.9679, 0.9941]  (355/360)``: rate, interval, counts."""
        low, high = self.interval
        return f"{self.top1:.4f} [{low:.4f}, {high:.4f}]  ({self.correct[1]}/{self.n_scored})"

    def __repr__(self) -> str:
        more = "".join(f", top{k} {self.topk(k):.4f}" for k in self.correct if k != 1)
        text = f"EvalRecord({self.split}: top1 {self.line()}{more}, loss {self.loss:.6g}"
        weights = self.digests.get("weights", "?")[:12]
        text += f", majority {self.majority:.4f}, {self.weights_kind} weights {weights}"
        text += f", {self.mode}/{self.kernel_set}"
        return text + (f", reproduced {self.reproduced})" if self.reproduced else ")")

    def _repr_html_(self) -> str:
        low, high = self.interval
        weights = self.digests.get("weights", "")[:16]
        rows = [("samples", f"{self.n_scored} of {self.n_listed} listed, {self.n_unreadable} unreadable")]
        rows += [
            (f"top-{k}", f"<b>{self.topk(k):.4f}</b> ({n}/{self.n_scored})") for k, n in self.correct.items()
        ]
        rows += [
            ("95 % interval of top-1", f"{low:.4f} to {high:.4f}"),
            ("majority line", f"{self.majority:.4f}"),
            ("loss", f"{self.loss:.6g}"),
            ("weights", f"{self.weights_kind}, <code>{html.escape(weights)}</code>"),
            ("computed by", html.escape(f"{self.mode} / {self.kernel_set}")),
            ("reproduced", html.escape(self.reproduced or "not compared with a record")),
        ]
        body = "".join(f"<tr><th style='text-align:left'>{a}</th><td>{b}</td></tr>" for a, b in rows)
        classes = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{c}/{n}</td><td>{f'{c / n:.3f}' if n else '–'}</td></tr>"
            for name, (n, c) in zip(self.classes, self.per_class, strict=True)
        )
        table = f"<table><tr><th>class</th><th>right</th><th>rate</th></tr>{classes}</table>"
        return (
            f"<table><caption><b>{html.escape(self.split)}</b></caption>{body}</table>"
            f"<details><summary>per class</summary>{table}</details>"
        )


def _plain(value: Any) -> Any:
    """Tuples to lists and integer keys to words, for JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _check_kinds(data: dict[str, Any]) -> None:
    """Words are words and counts are counts: a record comes from a file, which anybody may have written."""
    rows = data["per_class"]
    words = [data[key] for key in ("split", "weights", "mode", "kernel_set")] + [row["class"] for row in rows]
    counts = [data[key] for key in ("n_listed", "n_scored", "n_unreadable")]
    counts += [row[key] for row in rows for key in ("n", "correct")] + list(data["correct"].values())
    if not all(isinstance(word, str) for word in words):
        raise TypeError(f"a name is not text: {next(w for w in words if not isinstance(w, str))!r}")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError(
            f"a count is not a whole number: {next(c for c in counts if type(c) is not int or c < 0)!r}"
        )
    if not math.isfinite(data["loss"]):
        raise ValueError(f"loss {data['loss']!r}")
