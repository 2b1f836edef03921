"""Pictures that repeat each other within one split: what S4 and S5 say of them.

Across splits copies flatter validation. Within one they cost something else: where copies carry different
labels, all but one of the labels are wrong; and a validation part that asks the same question several times
tells less than its number of samples says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .leaks import LISTED, first_of_pixels, pictured
from .result import Remedy, Result
from .stats import share

if TYPE_CHECKING:
    from ..data import Data
    from .case import Case

__all__ = ["NAMES", "Repeats", "equal_pairs", "grouped", "note_of", "repeats", "with_repeats"]

FEWER = 0.9  # effective share of validation's samples below which that is said of the whole diagnosis
NAMES = {"train": "training", "val": "validation"}
RELABEL = Remedy(
    "Look at the listed pairs: their pictures are the same and their labels are not, so one of each is "
    "wrong. Correct it, or take both out."
)


@dataclass(frozen=True)
class Repeats:
    """Groups of copies within one split.

    Attributes
    ----------
    split : str
    n : int
        Samples that were looked at.
    groups : list of list of int
        Manifest indices of samples that are copies of each other, two or more in each.
    contradicting : list of (int, int)
        Of each group whose labels differ: a sample of its commonest label with each one of another.
    """

    split: str
    n: int
    groups: list[list[int]]
    contradicting: list[tuple[int, int]]

    @property
    def surplus(self) -> int:
        """How many samples repeat an earlier one."""
        return sum(len(g) - 1 for g in self.groups)

    @property
    def effective(self) -> float:
        """How many different samples would tell accuracy as well: copies are answered alike, so the variance
        of a mean of n is that of ``n**2 / sum(m**2)``, m being the sizes of groups.

        >>> Repeats("val", 100, [[k, k + 50] for k in range(50)], []).effective
        50.0
        """
        squares = sum(len(g) ** 2 for g in self.groups) + self.n - sum(map(len, self.groups))
        return self.n**2 / max(squares, 1)


def repeats(data: Data, split: str, n: int, pairs: Iterable[tuple[int, int]]) -> Repeats:
    """What pairs of copies within a split make together."""
    groups = grouped(pairs)
    against = []
    for g in groups:
        labels = [int(data.labels[i]) for i in g]
        common = Counter(labels).most_common(1)[0][0]
        kept = g[labels.index(common)]
        against += [(kept, i) for i, k in zip(g, labels, strict=True) if k != common]
    return Repeats(split, n, groups, against)


def grouped(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Samples that pairs connect, directly or through others.

    >>> grouped([(1, 5), (2, 3), (5, 9)])
    [[1, 5, 9], [2, 3]]
    """
    above: dict[int, int] = {}

    def root(i: int) -> int:
        while above.setdefault(i, i) != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for a, b in pairs:
        one, two = sorted((root(a), root(b)))
        above[two] = one
    out: dict[int, list[int]] = {}
    for i in sorted(above):
        out.setdefault(root(i), []).append(i)
    return list(out.values())


def equal_pairs(data: Data, split: str) -> list[tuple[int, int]]:
    """Each sample of a split whose pixels an earlier one of it has, with the first that has them."""
    indices = data.indices(split).tolist()
    first = first_of_pixels(data, indices)
    return [(first[data.digests[i]], i) for i in indices if first[data.digests[i]] != i]


def with_repeats(
    case: Case, result: Result, within: Sequence[Repeats], word: str, every: Repeats | None = None
) -> Result:
    """A result about copies across splits, with what there is to say of those within them.

    Labels that contradict each other make it a finding where copies across splits do not matter more: its
    points are then the least share of the labels of one split that is wrong.

    Parameters
    ----------
    word : str
        How alike they are: ``"exactly"``, ``"nearly"``.
    every : Repeats, optional
        Copies of either kind within validation, for its effective number of samples; default: those of
        `within`.
    """
    data = case.data
    assert data is not None
    numbers: dict[str, Any] = dict(result.evidence)
    said = [result.says]
    for r in within:
        numbers[f"repeated_within_{r.split}"] = r.surplus
        numbers[f"contradicting_within_{r.split}"] = _named(data, r.contradicting)
        if r.surplus:
            said.append(_sentence(r, word))
    val = every or next((r for r in within if r.split == "val"), None)
    if val is not None and val.surplus:
        numbers["effective_val_n"] = round(val.effective, 1)
        said.append(f"with its copies validation counts as about {val.effective:,.0f} images")
    worst = max(within, key=lambda r: len(r.contradicting) / max(r.n, 1), default=None)
    told = replace(result, says="; ".join(said), evidence=numbers)
    if worst is None or not worst.contradicting:
        return told
    e = share(len(worst.contradicting), worst.n)
    if result.outcome == "found" and result.estimate is not None and abs(result.estimate.points) >= e.points:
        return told
    pictures = pictured(case, worst.contradicting)
    return Result.found(told.says, e, evidence=numbers, remedy=RELABEL, pictures=pictures)


def note_of(val: Repeats) -> str | None:
    """What a validation part with many copies means for every interval; None where they are few."""
    if val.effective >= FEWER * val.n:
        return None
    wider = (val.n / val.effective) ** 0.5
    return (
        f"validation's {val.n:,} images count as about {val.effective:,.0f}: {val.surplus:,} of them repeat "
        f"others, so intervals of its accuracy are {wider:.1f} times as wide as they are stated"
    )


def _sentence(r: Repeats, word: str) -> str:
    text = f"within {NAMES[r.split]} {r.surplus:,} of {r.n:,} images {word} repeat another one"
    if r.contradicting:
        n = len(r.contradicting)
        text += f", {n:,} of them with another label: at least so many labels are wrong"
    return text


def _named(data: Data, pairs: Sequence[tuple[int, int]]) -> list[list[str]]:
    """Ids and classes of both, of the first pairs."""
    return [
        [data.ids[i] for i in pair] + [data.classes[int(data.labels[i])] for i in pair]
        for pair in pairs[:LISTED]
    ]
