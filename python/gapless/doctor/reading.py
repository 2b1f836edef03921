"""Reading outputs of a model that was trained elsewhere: CSV, text, npz, or arrays by name.

A table has a column of ids, one of targets, and logits, probabilities or predicted classes. Which column is
which is told by its name, and what scores are by their values too; what was understood is said in one line,
and what cannot be understood is an error with file and line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _peers
from ..data.sources import shorten
from ..data.sources.list_file import is_index
from ..errors import DataError
from ..record import EvalRecord
from . import _tables
from ._tables import Columns
from .outputs import Outputs

__all__ = ["Read", "inner", "is_simplex", "named_classes", "read_outputs"]

_MAX_CLASSES = 100_000


class Read(NamedTuple):
    """Outputs, and a line on what was found where.

    Attributes
    ----------
    outputs : Outputs
    report : str
        Counts, and which columns were taken for what.
    """

    outputs: Outputs
    report: str


@dataclass
class _Named:
    """Classes in order, and where they come from."""

    names: tuple[str, ...]
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.index = {c: k for k, c in enumerate(self.names)}


def read_outputs(*sources: Any, classes: Sequence[str] | None = None) -> list[Read]:
    """Outputs of one model on one or several lists of samples, with one order of classes for all of them.

    Parameters
    ----------
    *sources : path, mapping of arrays, Outputs or EvalRecord
        ``.npz``, ``.csv``, ``.tsv`` with a header, or text with columns apart by blanks. Columns, whatever
        their case: ``id path image file …`` (the sample), ``target label true y …`` (class index or name),
        ``prediction pred predicted …``, ``logit_0 …``, ``prob_0 …``, ``p_<class> …`` or the classes' own
        names. In npz files and mappings ``logits`` and ``probabilities`` may be (n, classes) arrays.
    classes : sequence of str, optional
        Names by output. Default: from the columns' names, else the names that occur, sorted, else numbers.

    Raises
    ------
    DataError
        With file and line: a column is missing, a number is not finite or not a number, a class is unknown,
        an id stands twice with different targets, rows have unequal lengths, there is no row, or too many.

    Examples
    --------
    >>> (read,) = read_outputs({"id": ["a", "b"], "target": [0, 1], "logits": [[2.0, 0.0], [1.5, 0.0]]})
    >>> read.outputs.accuracy, read.outputs.kind
    (0.5, 'logits')
    """
    given = None if classes is None else named_classes(classes)
    tables: list[Columns | Outputs] = [_open(s, given) for s in sources]
    named = _classes([t for t in tables if isinstance(t, Columns)], given)
    return [_as_read(t) if isinstance(t, Outputs) else _resolved(t, named) for t in tables]


def is_simplex(scores: NDArray[Any]) -> bool:
    """Whether every row is numbers from 0 to 1 that sum to 1, as far as written digits allow."""
    if scores.ndim != 2 or scores.shape[1] < 2 or not len(scores):
        return False
    room = max(1e-3, 5e-6 * scores.shape[1], min(0.05, 0.5001 * _step(scores) * scores.shape[1]))
    low, high = float(scores.min()), float(scores.max())
    return low >= -1e-6 and high <= 1 + 1e-6 and bool((np.abs(scores.sum(axis=1) - 1) <= room).all())


def _step(scores: NDArray[Any]) -> float:
    """The last digit that was written where all scores have two to four of them; 0 where they have more."""
    for step in (1e-2, 1e-3, 1e-4):
        if np.abs(scores - step * np.round(scores / step)).max() < 1e-7:
            return step
    return 0.0


def inner(p: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The probabilities whose softmax these are; None where they are not."""
    k = p.shape[1]
    if p.min() <= 0 or not is_simplex(p):
        return None
    z = np.log(p)
    q = z + (1 - z.sum(axis=1, keepdims=True)) / k
    # as exact as the digits that were written: an error d in p is d / p in q
    room = 2e-3 + 1e-6 / p
    return np.clip(q, 0, 1) if ((q >= -room) & (q <= 1 + room)).all() else None


def named_classes(classes: Any) -> tuple[str, ...]:
    """Class names in order, as a caller gave them."""
    if isinstance(classes, str | bytes | Set | Mapping) or not isinstance(classes, Iterable):
        raise DataError(f"classes: expected a list of class names, got {classes!r:.80}")
    names = tuple(str(c) for c in classes)
    if not names:
        raise DataError("classes: the list of class names is empty")
    if len(set(names)) != len(names):
        raise DataError(f"classes: named twice: {shorten(sorted({c for c in names if names.count(c) > 1}))}")
    return names


def _open(source: Any, classes: tuple[str, ...] | None) -> Columns | Outputs:
    if isinstance(source, Outputs):
        return source
    if isinstance(source, EvalRecord):
        return Outputs.of_record(source)
    if isinstance(source, str | os.PathLike):
        return _tables.of_file(os.fspath(source), classes)
    if hasattr(source, "items"):
        return _tables.of_arrays(dict(source.items()), "outputs", classes)
    raise DataError(f"outputs: expected a file, a mapping of arrays, or Outputs, got {type(source).__name__}")


def _as_read(outputs: Outputs) -> Read:
    name = outputs.source or "outputs"
    return Read(outputs, f"{name}: {len(outputs):,} samples of {outputs.num_classes} classes, {outputs.kind}")


# -- classes --------------------------------------------------------------------------------------


def _classes(tables: Sequence[Columns], given: tuple[str, ...] | None) -> _Named:
    """The classes of all tables together."""
    if given is not None:
        return _Named(given)
    texts = {v for t in tables for column in (t.target, t.prediction) if column is not None for v in column}
    for t in tables:
        if t.score_names is not None and _are_names(t.score_names, texts):
            return _Named(tuple(t.score_names))
    _refuse_numbers(tables)
    widths = {t.scores.shape[1] for t in tables if t.scores is not None}
    if _tables.all_indices(texts):
        top = max((int(v) for v in texts), default=0)
        count = max(widths) if widths else top + 1
        if count > _MAX_CLASSES or (not widths and count > 10 * len(texts) + 1000):
            raise DataError(
                f"outputs: class index {top} among {len(texts)} different ones; give names, or classes=[…]"
            )
        return _Named(tuple(str(k) for k in range(count)))
    if any(is_index(v) and v.startswith("-") for v in texts):
        raise DataError("outputs: negative class indices")
    if widths and len(texts) != max(widths):
        raise DataError(
            f"outputs: scores of {max(widths)} classes, and {len(texts)} names of classes "
            f"({shorten(sorted(texts), 5)}): give classes=[…] in the order of the scores"
        )
    return _Named(tuple(sorted(texts)))


def _are_names(columns: Sequence[str], texts: set[str]) -> bool:
    """Whether what columns of scores are called are the classes, not their positions: words are, and numbers
    that do not count from 0, unless targets and predictions do (``logit_1`` is the class 0 then)."""
    if not _tables.all_indices(columns):
        return True
    counted = [int(c) for c in columns]
    return counted != list(range(len(counted))) and texts <= set(columns)


def _refuse_numbers(tables: Sequence[Columns]) -> None:
    """A predicted number that is no index and no target is a score, not a class; not-a-number is a gap."""
    for t in tables:
        known = set(t.target)
        for what, column in (("target", t.target), ("prediction", t.prediction or [])):
            for i, value in enumerate(column):
                if value.lower() == "nan":
                    raise DataError(f"{t.where(i)}: no {what}: {value!r}")
                if value not in known and not is_index(value) and _tables.is_number(value):
                    raise DataError(
                        f"{t.where(i)}: {what} {value[:40]!r} is a number and no class; a probability "
                        "belongs into a column per class (prob_0, prob_1, …)"
                    )


def _indices(t: Columns, column: list[str], what: str, named: _Named) -> NDArray[np.int64]:
    """Class indices of a column of names or indices; as names where all of the table are names of classes."""
    known, count = named.index, len(named.names)
    by_name = {*t.target, *(t.prediction or ())} <= set(known)
    out = np.empty(len(column), np.int64)
    for i, value in enumerate(column):
        if by_name:
            out[i] = known[value]
        elif is_index(value):
            out[i] = int(value)
            if not 0 <= out[i] < count:
                raise DataError(f"{t.where(i)}: {what} {value} is outside 0..{count - 1}")
        elif value in known:
            out[i] = known[value]
        else:
            near = _peers.nearest(value, list(named.names))
            hint = f"did you mean {near!r}?" if near else f"classes are {shorten(named.names, 8)}"
            raise DataError(f"{t.where(i)}: {what} {value[:80]!r} is no class; {hint}")
    return out


# -- one table ------------------------------------------------------------------------------------


def _resolved(t: Columns, named: _Named) -> Read:
    labels = _indices(t, t.target, "target", named)
    said = None if t.prediction is None else _indices(t, t.prediction, "prediction", named)
    scores = None if t.scores is None else _ordered(t, named)
    repeats = _repeats(t, labels)
    kind = "none"
    if scores is not None:
        kind = _kind(t, scores)
    if said is None:
        assert scores is not None
        said = scores.argmax(axis=1).astype(np.int64)
    outputs = Outputs(list(t.ids), labels, said, scores, kind, named.names, os.path.basename(t.file))
    parts = [f"{outputs.source}: {len(outputs):,} samples of {len(named.names)} classes", t.read_as]
    if scores is not None:
        called = f" (called {t.called}, but rows sum to 1)" if kind == "logits" and is_simplex(scores) else ""
        parts.append(f"scores are {kind}{called}")
    if repeats:
        parts.append(f"{repeats:,} rows repeat an id")
    if t.unused:
        parts.append(f"not used: {shorten(t.unused, 6)}")
    return Read(outputs, "; ".join(parts))


def _ordered(t: Columns, named: _Named) -> NDArray[np.float64]:
    """Scores with a column per class, in the classes' order."""
    assert t.scores is not None
    count = len(named.names)
    if t.scores.shape[1] != count:
        raise DataError(f"{t.file}: scores of {t.scores.shape[1]} classes, expected {count}")
    names = t.score_names
    if names is None or tuple(names) == named.names or _tables.all_indices(names):
        return t.scores
    unknown = [c for c in names if c not in named.index]
    if unknown:
        raise DataError(
            f"{t.file}: a column of scores for {unknown[0]!r}, which is no class; classes are "
            f"{shorten(named.names, 8)}"
        )
    return np.ascontiguousarray(t.scores[:, [names.index(c) for c in named.names]])


def _kind(t: Columns, scores: NDArray[np.float64]) -> str:
    """What scores are: by their name, and by their values where the name leaves it open."""
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise DataError(f"{t.where(int(bad[0]))}: scores are not finite ({len(bad):,} such rows)")
    if t.called == "logits":
        return "logits"
    if is_simplex(scores):
        return "probabilities"
    if t.called == "probabilities":
        off = np.abs(scores.sum(axis=1) - 1) + 2 * (scores.min(axis=1) < -1e-6)
        i = int(off.argmax())
        raise DataError(
            f"{t.where(i)}: probabilities must lie in 0..1 and sum to 1, got a row from "
            f"{scores[i].min():.4g} to {scores[i].max():.4g} with sum {scores[i].sum():.4g}; "
            "call them logits if that is what they are"
        )
    return "logits"


def _repeats(t: Columns, labels: NDArray[np.int64]) -> int:
    """How many rows repeat an id; one that stands twice with different targets is an error."""
    first: dict[str, int] = {}
    count = 0
    for i, ident in enumerate(t.ids):
        before = first.setdefault(ident, i)
        if before == i:
            continue
        count += 1
        if labels[before] != labels[i]:
            raise DataError(
                f"{t.where(i)}: id {ident[:80]!r} stands in {t.where(before)} too, with another target"
            )
    return count
