"""`compare`: two evaluations side by side, by a paired test where they share samples."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, DataError, RecipeError
from ..record import EvalRecord
from .outputs import Outputs
from .reading import read_outputs
from .result import plain
from .stats import Estimate, difference, paired, samples_for_paired

__all__ = ["Comparison", "compare"]

_FIELDS = ("split", "n_listed", "n_scored", "n_unreadable", "classes", "weights_kind", "mode", "kernel_set")


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    names : (str, str)
        Where the two come from.
    accuracy : (float, float)
    n : (int, int)
        Samples of each.
    common : int
        Samples of both, by id; the test is paired where there are any. 0: two lists of different samples.
    test : {"paired", "two proportions"}
    estimate : Estimate
        The second minus the first, on what was tested, with interval and p-value.
    gained, lost : int
        Common samples that only the second has right, only the first.
    changed : list of str
        Ids of those, at most 50.
    differs : dict of str to (value, value)
        Field by field, what differs between the two records: digests of weights, pipeline and data, kernel
        set, mode, versions. Empty where one side is outputs alone.
    relabelled : int
        Common samples with another target.
    same_list : bool or None
        Whether both are about the same samples with the same content, by digest; None where no digest says.
    """

    names: tuple[str, str]
    accuracy: tuple[float, float]
    n: tuple[int, int]
    common: int
    test: str
    estimate: Estimate
    gained: int = 0
    lost: int = 0
    changed: list[str] = field(default_factory=list)
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    relabelled: int = 0
    same_list: bool | None = None

    @property
    def line(self) -> str:
        """The finding in one sentence."""
        e = self.estimate
        rate = f"{100 * e.points:+.2f} points [{100 * e.low:+.2f}, {100 * e.high:+.2f}], p = {e.p:.3g}"
        if self.test == "paired":
            how = f"{self.common:,} common samples: {self.gained:,} gained, {self.lost:,} lost; exact McNemar"
        else:
            how = f"{self.n[0]:,} and {self.n[1]:,} samples, not paired"
        if e.p < 0.05 and e.excludes_zero:
            return f"{rate} ({how})"
        if self.test == "paired" and not self.gained and not self.lost:
            return f"no sample differs ({how})"
        return f"{rate} ({how}): could be chance{self._needed()}"

    def _needed(self) -> str:
        if self.test != "paired" or self.gained == self.lost:
            return ""
        need = samples_for_paired(self.estimate.points, (self.gained + self.lost) / self.common)
        return f"; about {need:,} samples would decide" if need > self.common else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what ``gapless compare --json`` prints."""
        return {
            "names": list(self.names),
            "accuracy": list(self.accuracy),
            "n": list(self.n),
            "common": self.common,
            "test": self.test,
            "points": self.estimate.points,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "p": self.estimate.p,
            "gained": self.gained,
            "lost": self.lost,
            "changed": list(self.changed),
            "relabelled": self.relabelled,
            "same_list": self.same_list,
            "differs": {k: plain(list(v)) for k, v in self.differs.items()},
        }

    def __repr__(self) -> str:
        lines = ["Comparison"]
        width = max(map(len, self.names))
        for name, rate, n in zip(self.names, self.accuracy, self.n, strict=True):
            lines.append(f"  {name.ljust(width)}  {rate:.4f} of {n:,}")
        lines.append(f"  {self.line}")
        if self.relabelled:
            lines.append(f"  {self.relabelled:,} common samples have another target")
        if self.same_list is False:
            lines.append("  the lists of samples are not the same")
        lines += [f"  {k}: {_brief(a)} | {_brief(b)}" for k, (a, b) in self.differs.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{rate:.4f}</td><td>{n:,}</td></tr>"
            for name, rate, n in zip(self.names, self.accuracy, self.n, strict=True)
        ]
        told = [
            f"<tr><th style='text-align:left'>{html.escape(k)}</th>"
            f"<td><code>{html.escape(_brief(a))}</code></td><td><code>{html.escape(_brief(b))}</code></td></tr>"
            for k, (a, b) in self.differs.items()
        ]
        return f"<table>{''.join(rows)}</table><p>{html.escape(self.line)}</p>" + (
            f"<table>{''.join(told)}</table>" if told else ""
        )


def compare(record_a: Any, record_b: Any, *, classes: Any = None) -> Comparison:
    """Whether two evaluations differ, by how much, and in which conditions.

    ``gapless compare RECORD RECORD`` on the command line is this: print ``repr``, with ``--json``
    ``to_dict()``; it is bad input where this raises a GaplessError.

    Parameters
    ----------
    record_a, record_b : EvalRecord, Outputs, mapping of arrays, or path
        What `gapless.evaluate` returned; outputs of any model; a table of outputs (``.csv``, ``.npz``,
        ``.txt``); a run's folder or checkpoint, which is evaluated; or a JSON file with a record.
    classes : sequence of str, optional
        Names by output, for tables that do not say them.

    Returns
    -------
    Comparison
        Paired by id where the two share samples (exact McNemar test), else a comparison of two rates.

    Examples
    --------
    >>> a = {"id": list("abcdef"), "target": [0, 1] * 3, "prediction": [0, 1, 0, 1, 1, 0]}
    >>> b = {"id": list("fedcba"), "target": [1, 0] * 3, "prediction": [1, 0, 1, 0, 1, 1]}
    >>> c = compare(a, b)
    >>> c.common, c.gained, c.lost, c.test
    (6, 2, 1, 'paired')
    """
    a, b = _side(record_a, classes), _side(record_b, classes)
    names = (a.name, b.name) if a.name != b.name else (f"{a.name} (first)", f"{b.name} (second)")
    differs: dict[str, tuple[Any, Any]] = {}
    same = None
    if a.record is not None and b.record is not None:
        differs, same = _differences(a.record, b.record)
    accuracy, n = (a.rate, b.rate), (a.n, b.n)
    if a.outputs is not None and b.outputs is not None:
        both = _paired(a.outputs, b.outputs)
        if both is not None:
            return Comparison(names, accuracy, n, differs=differs, same_list=same, **both)
    if a.classes and b.classes and set(a.classes) != set(b.classes):
        raise DataError(
            f"compare: {len(a.classes)} and {len(b.classes)} classes that are not the same ones, and no "
            "sample in common: nothing to compare"
        )
    e = difference(b.right, b.n, a.right, a.n)
    return Comparison(names, accuracy, n, 0, "two proportions", e, differs=differs, same_list=same)


@dataclass
class _Side:
    name: str
    right: int
    n: int
    classes: tuple[str, ...]
    outputs: Outputs | None
    record: EvalRecord | None

    @property
    def rate(self) -> float:
        return self.right / self.n


def _side(source: Any, classes: Any) -> _Side:
    if isinstance(source, EvalRecord):
        return _of_record(source, source.split)
    if isinstance(source, Outputs) or (hasattr(source, "items") and not isinstance(source, str)):
        return _of_outputs(read_outputs(source, classes=classes)[0].outputs)
    if isinstance(source, str | os.PathLike):
        path = Path(os.fspath(source))
        if path.suffix.lower() == ".json":
            return _of_record(_record_file(path), path.name)
        if path.suffix.lower() in (".csv", ".tsv", ".txt", ".npz"):
            return _of_outputs(read_outputs(path, classes=classes)[0].outputs)
    elif getattr(source, "best", None) is None:
        raise RecipeError(
            f"compare: expected a record, outputs, a run or a file, got {type(source).__name__}"
        )
    from .. import evaluation

    file = evaluation.find_checkpoint(source)
    return _of_record(evaluation.evaluate(file), f"{file.parent.name}/{file.name}")


def _of_record(record: EvalRecord, name: str) -> _Side:
    outputs = None if record.samples is None else Outputs.of_record(record)
    return _Side(name, record.correct[1], record.n_scored, record.classes, outputs, record)


def _of_outputs(out: Outputs) -> _Side:
    return _Side(out.source or "outputs", int(out.right.sum()), len(out), out.classes, out, None)


def _record_file(path: Path) -> EvalRecord:
    """The record in a JSON file, as ``gapless eval --json`` prints it, or the file of one split of a run."""
    try:
        if path.stat().st_size > 1 << 28:
            raise CheckpointError(f"{path}: too large for a record")
        data = json.loads(path.read_bytes())
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: not JSON ({e})") from e
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path}: not a record")
    return EvalRecord.from_dict(dict(data))


def _paired(a: Outputs, b: Outputs) -> dict[str, Any] | None:
    """The paired test on common ids, each once; None where there are none."""
    at = {ident: i for i, ident in reversed(list(enumerate(a.ids)))}
    seen: set[str] = set()
    pairs = []
    for j, ident in enumerate(b.ids):
        if ident in at and ident not in seen:
            seen.add(ident)
            pairs.append((at[ident], j))
    if not pairs:
        return None
    i, j = np.array(pairs, np.int64).T
    before, after = a.right[i], b.right[j]
    names_a, names_b = np.array(a.classes, object)[a.labels[i]], np.array(b.classes, object)[b.labels[j]]
    flipped = np.flatnonzero(before != after)
    return {
        "common": len(pairs),
        "test": "paired",
        "estimate": paired(before, after),
        "gained": int((after & ~before).sum()),
        "lost": int((before & ~after).sum()),
        "changed": [a.ids[k] for k in i[flipped][:50]],
        "relabelled": int((names_a != names_b).sum()),
    }


def _differences(a: EvalRecord, b: EvalRecord) -> tuple[dict[str, tuple[Any, Any]], bool | None]:
    out: dict[str, tuple[Any, Any]] = {}
    for name in _FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        if x != y:
            out[name] = (x, y)
    if a.blas != b.blas:
        out["blas"] = (a.blas, b.blas)
    for group, x, y in (("digests", a.digests, b.digests), ("versions", a.versions, b.versions)):
        for key in sorted({*x, *y}):
            if x.get(key) != y.get(key):
                out[f"{group}.{key}"] = (x.get(key), y.get(key))
    known = "data" in a.digests and "data" in b.digests
    return out, a.same_list(b) if known else None


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:16] + "…" if " " not in text else text[:37] + "…"
