"""What a check returns: an outcome, points with their interval, evidence and a remedy."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .stats import Estimate

__all__ = ["OUTCOMES", "Finding", "Outcome", "Picture", "Remedy", "Result", "plain"]

Outcome = Literal["found", "clear", "undecided", "left out"]
OUTCOMES: tuple[Outcome, ...] = ("found", "clear", "undecided", "left out")


@dataclass(frozen=True)
class Remedy:
    """What to do about it.

    Attributes
    ----------
    text : str
        A sentence or two, in the imperative.
    change : dict
        The change to the recipe as data: key → new value, keys with dots as in ``-o``; empty where the
        remedy is not in the recipe (relabel these images, collect more).
    """

    text: str
    change: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A small image that is evidence: uint8 (H, W, C) or a drawn figure, and the line below it."""

    image: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Result:
    """What one check found out.

    Use the constructors `found`, `clear`, `undecided`, `tested` and `left_out`; they say what each outcome
    needs.

    Attributes
    ----------
    outcome : {"found", "clear", "undecided", "left out"}
    says : str
        One sentence with the numbers that decide.
    estimate : Estimate or None
        Points as a fraction, 95 % interval and p-value. What they are points *of* stands in the check's
        table row. Positive: it makes training look better than validation.
    evidence : dict
        Numbers, lists of sample ids: plain data.
    remedy : Remedy or None
    pictures : sequence of Picture
    samples_needed : int or None
        How many samples would decide what is undecided.
    explains : frozenset of str
        Ids of findings that follow from this one by its very numbers, whatever the table's rows say of them
        in general: they do not explain it in turn.
    """

    outcome: Outcome
    says: str
    estimate: Estimate | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedy: Remedy | None = None
    pictures: Sequence[Picture] = ()
    samples_needed: int | None = None
    explains: frozenset[str] = frozenset()

    @classmethod
    def found(
        cls,
        says: str,
        estimate: Estimate,
        *,
        remedy: Remedy,
        evidence: Mapping[str, Any] | None = None,
        pictures: Sequence[Picture] = (),
        explains: Collection[str] = (),
    ) -> Result:
        """The cause is there. `diagnose` still holds it to the threshold and to the whole family's error
        rate."""
        return cls(
            "found",
            says,
            estimate,
            dict(evidence or {}),
            remedy,
            tuple(pictures),
            explains=frozenset(explains),
        )

    @classmethod
    def clear(
        cls, says: str, estimate: Estimate | None = None, *, evidence: Mapping[str, Any] | None = None
    ) -> Result:
        """The cause is not there, or is smaller than matters; an estimate says how small."""
        return cls("clear", says, estimate, dict(evidence or {}))

    @classmethod
    def undecided(
        cls,
        says: str,
        estimate: Estimate | None = None,
        *,
        samples_needed: int | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> Result:
        """It cannot be told with these samples."""
        return cls("undecided", says, estimate, dict(evidence or {}), samples_needed=samples_needed)

    @classmethod
    def tested(
        cls,
        says: str,
        estimate: Estimate,
        *,
        remedy: Remedy,
        evidence: Mapping[str, Any] | None = None,
    ) -> Result:
        """Found where the estimate is 2 points at least with p below 5 %, else clear."""
        if estimate.points < 0.02 or estimate.p >= 0.05:
            return cls.clear(says, estimate, evidence=evidence)
        return cls.found(says, estimate, remedy=remedy, evidence=evidence)

    @classmethod
    def left_out(cls, says: str) -> Result:
        """It was not tried: something it needs is not there, or the budget does not reach."""
        return cls("left out", says)


@dataclass(frozen=True)
class Finding:
    """A cause over its threshold, with an interval that excludes 0.

    Attributes
    ----------
    id, slug : str
        ``"P3"``, ``"resolution"``.
    points, low, high : float
        Fractions with their 95 % interval; positive: it makes training look better than validation.
    measure : str
        What the points are points of.
    says : str
    evidence : dict
    remedy : Remedy
    pictures : sequence of Picture
    seconds : float
        What the check took.
    reference : str
    """

    id: str
    slug: str
    points: float
    low: float
    high: float
    measure: str
    says: str
    evidence: Mapping[str, Any]
    remedy: Remedy
    pictures: Sequence[Picture]
    seconds: float
    reference: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``; pictures are left out."""
        return {
            "id": self.id,
            "slug": self.slug,
            "points": self.points,
            "low": self.low,
            "high": self.high,
            "measure": self.measure,
            "says": self.says,
            "evidence": plain(self.evidence),
            "remedy": {"text": self.remedy.text, "change": plain(self.remedy.change)},
            "seconds": round(self.seconds, 3),
            "reference": self.reference,
        }

    def _repr_html_(self) -> str:
        from ..report.page import finding_html

        return finding_html(self)


def plain(value: Any) -> Any:
    """As JSON can hold it: arrays to lists, NumPy numbers to Python's, not-a-number to None, what is left to
    text.

    >>> plain({"a": np.float32(0.5), "b": np.arange(2), "c": float("nan")})
    {'a': 0.5, 'b': [0, 1], 'c': None}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
