"""`assemble`: a `Data` from a source's listing, by scanning, splitting, and saying what is unusual."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.data import decode
from gapless.data import manifest as manifests
from gapless.data import split as splits
from gapless.data.dataset import DRAWN, Data, DataWarning, Unreadable, added_note, raise_differences
from gapless.data.scan import Scan, pixel_digest, scan
from gapless.data.sources import Listing, labels_from, shorten
from gapless.errors import DataError

__all__ = ["LEFT_OUT_SHARE", "VAL_SHARE", "assemble"]

LEFT_OUT_SHARE = 0.01  # of unreadable files, unless on_unreadable says otherwise
VAL_SHARE = 0.1  # of train, where a source brings train but no val
_ORDER = ("train", "val", "test", "dev")


def assemble(
    listing: Listing,
    *,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
    on_unreadable: str | float = "leave_out",
    max_pixels: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    threads: int | None = None,
) -> Data:
    """A `Data` from a listing: scan, split, and everything there is to say about it.

    With a manifest nothing is drawn: samples, order, classes and splits are the manifest's, and it is an
    error if they are not there any more.
    """
    share = _allowed(on_unreadable)
    seed = _checked_seed(seed)
    if channels not in (None, 1, 3):
        raise DataError(f"channels: expected 1 (grey) or 3 (RGB), got {channels!r}")
    if max_pixels is not None:
        if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
            raise DataError(f"max_pixels: expected a whole number of pixels, got {max_pixels!r}")
        if listing.paths is not None:
            listing.reader.max_pixels = max_pixels
    limit = max_pixels or decode.MAX_PIXELS
    if manifest is not None:
        stored = manifests.check(manifest)
        return _reopened(listing, stored, max_pixels=limit, progress=progress, threads=threads)
    found = scan(listing, max_pixels=limit, progress=progress, threads=threads)
    good = np.array([not r for r in found.reason], bool)
    labels = _labels(listing, found, good)
    parts, drawn, notes = _parts(listing, labels, split, val, group_by, seed)
    left_out = [
        Unreadable(listing.ids[i], _place(listing, i), parts[i], reason)
        for i, reason in enumerate(found.reason)
        if reason
    ]
    _judge(left_out, len(good), share, on_unreadable)
    keep = np.flatnonzero(good)
    if len(keep) == 0:
        raise DataError("data: not one sample can be read")
    _check_repeatable(listing, found, keep)
    deepest = int(found.size[keep, 2].max())
    data = Data(
        spec=listing.spec | _spec_of(split, val, group_by, seed, channels, on_unreadable, max_pixels, drawn),
        classes=listing.classes,
        ids=[listing.ids[i] for i in keep],
        labels=labels[keep],
        parts=[parts[i] for i in keep],
        channels=channels or deepest,
        sizes=found.size[keep, :2],
        digests=[found.digest[i] for i in keep],
        reader=listing.reader,
        positions=keep.astype(np.int64),
        paths=listing.paths,
        unreadable=left_out,
        ignored=listing.ignored,
        notes=[*listing.notes, *notes],
        seed=seed,
        columns={k: [v[i] for i in keep] for k, v in listing.columns.items()},
        drawn=drawn,
    )
    _describe(data, found, group_by, listing)
    return data


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
        raise DataError(f"seed: expected a whole number from 0 to 2^64 - 1, got {seed!r}")
    return int(seed)


def _allowed(on_unreadable: str | float) -> float:
    if on_unreadable == "leave_out":
        return LEFT_OUT_SHARE
    if on_unreadable == "error":
        return 0.0
    if (
        isinstance(on_unreadable, (int, float))
        and not isinstance(on_unreadable, bool)
        and 0 <= on_unreadable < 1
    ):
        return float(on_unreadable)
    raise DataError(
        f"on_unreadable: expected 'leave_out', 'error' or a share such as 0.05, got {on_unreadable!r}"
    )


def _place(listing: Listing, i: int) -> str:
    return decode.printable(listing.paths[i]) if listing.paths is not None else listing.ids[i]


def _labels(listing: Listing, found: Scan, good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Labels, also where they came with the pixels; an unreadable sample without label counts to class 0."""
    if listing.labels is not None:
        return listing.labels
    at = np.flatnonzero(good)
    values = [listing.reader.label(int(i)) for i in at]
    labels, names = labels_from(values, listing.classes or None, lambda k: f"sample {listing.ids[at[k]]}")
    listing.classes = names
    out = np.zeros(len(good), np.int64)
    out[at] = labels
    return out


def _judge(left_out: list[Unreadable], n: int, share: float, option: str | float) -> None:
    if not left_out:
        return
    names = shorten((f"{u.path} ({u.reason})" for u in left_out), 10)
    if len(left_out) > share * n + 1e-9:
        reason = (
            "on_unreadable='error'"
            if share == 0
            else f"more than the {share:.3g} of all that may be left out"
        )
        raise DataError(
            f"data: {len(left_out):,} of {n:,} samples cannot be read ({reason}, "
            f"on_unreadable={option!r}): {names}. "
            "Repair or remove them, or allow a share, such as on_unreadable="
            f"{min(0.99, np.ceil(100 * len(left_out) / n) / 100):.2g}"
        )
    text = f"{len(left_out):,} of {n:,} samples cannot be read and are LEFT OUT, not replaced: {names}"
    warnings.warn(text, DataWarning, stacklevel=4)


def _check_repeatable(listing: Listing, found: Scan, keep: NDArray[np.int64]) -> None:
    """A function that gives other pixels when asked again would make every recorded number a chance."""
    if listing.kind not in ("callable", "object"):
        return
    for i in (int(keep[0]), int(keep[len(keep) // 2]), int(keep[-1])):
        if pixel_digest(listing.reader.read(i)) != found.digest[i]:
            raise DataError(
                f"data: sample {listing.ids[i]} has other pixels when it is loaded again; augmentation "
                "belongs into "
                "the recipe's training pipeline, the source must give the same image every time"
            )


def _parts(
    listing: Listing, labels: NDArray[np.int64], split: Any, val: float | None, group_by: Any, seed: int
) -> tuple[list[str], dict[str, Any], list[str]]:
    """The split of each listed sample, how it came about, and what to say of it."""
    groups = _groups(listing, group_by)
    if val is not None and (isinstance(val, bool) or not isinstance(val, (int, float)) or not 0 <= val < 1):
        raise DataError(f"val: expected a share of train from 0 to below 1, got {val!r}")
    if isinstance(split, Mapping) and (
        "samples" in split or any(not isinstance(v, (int, float)) for v in split.values())
    ):
        return _stored_parts(listing, split), {"by": "manifest"}, []
    if isinstance(split, (str, bytes)) or hasattr(split, "__fspath__"):
        return _stored_parts(listing, manifests.load_split(split)), {"by": "manifest"}, []
    if listing.given is not None:
        if split is not None:
            raise DataError(
                f"split: the {listing.kind} brings its own splits "
                f"({shorten(sorted(set(listing.given)))}); leave split= "
                "out, or say val=0.1 to take val from train"
            )
        return _given_parts(listing, labels, val, groups, seed)
    if val is not None:
        raise DataError(
            f"val: only where the source brings a train split of its own; say split=({1 - val:g}, {val:g})"
        )
    fractions = splits.DEFAULT if split is None else splits.fractions_of(split)
    drawn = {"by": "fraction", "fractions": dict(fractions), "grouped": groups is not None, "seed": seed}
    if groups is not None:
        return splits.grouped(labels, groups, fractions, seed), drawn, []
    return splits.stratified(labels, fractions, seed), drawn, []


def _given_parts(
    listing: Listing, labels: NDArray[np.int64], val: float | None, groups: list[str] | None, seed: int
) -> tuple[list[str], dict[str, Any], list[str]]:
    parts = list(listing.given or [])
    drawn: dict[str, Any] = {"by": "source"}
    if "val" in parts:
        if val:
            raise DataError("val: the source has a val split of its own; leave val= out")
        return parts, drawn, []
    share = VAL_SHARE if val is None else val
    train = np.array([i for i, p in enumerate(parts) if p == "train"], np.int64)
    if len(train) < 2 or share == 0:
        return parts, drawn, []
    fractions = {"train": 1 - share, "val": float(share)}
    if groups is None:
        names = splits.stratified(labels[train], fractions, seed, train)
    else:
        names = splits.grouped(labels[train], [groups[i] for i in train], fractions, seed)
    for i, name in zip(train, names, strict=True):
        parts[i] = name
    note = f"{DRAWN}there is no val; {share:.3g} of train was taken, stratified, seed {seed} (val=0: none)"
    return (
        parts,
        drawn | {"val": share, "grouped": groups is not None, "seed": seed},
        [note] if val is None else [],
    )


def _stored_parts(listing: Listing, stored: Mapping[str, Any]) -> list[str]:
    for name, ids in stored.items():
        if "samples" not in stored and (
            splits.canonical_split(str(name)) != name or isinstance(ids, str) or not isinstance(ids, Iterable)
        ):
            raise DataError(f"split: expected lists of ids by split (train, val, test, dev), got {name!r}")
    of = manifests.ids_by_split(stored)
    missing = [i for i in listing.ids if i not in of]
    gone = sorted(set(of) - set(listing.ids))
    if missing or gone:
        texts = []
        if missing:
            texts.append(f"{len(missing):,} sample(s) are in no split: {shorten(missing, 5)}")
        if gone:
            texts.append(f"{len(gone):,} id(s) of the split are not in the data: {shorten(gone, 5)}")
        raise DataError("split: " + "; ".join(texts))
    return [of[i] for i in listing.ids]


def _groups(listing: Listing, group_by: Any) -> list[str] | None:
    """The group of each sample, as text."""
    if group_by is None:
        return None
    if isinstance(group_by, str):
        if group_by in listing.columns:
            return listing.columns[group_by]
        return _groups_by_pattern(listing, group_by)
    if callable(group_by):
        function: Callable[[str], Any] = group_by
        return [str(function(i)) for i in listing.ids]
    values = [str(v) for v in group_by] if isinstance(group_by, (Sequence, np.ndarray)) else []
    if len(values) != len(listing.ids):
        raise DataError(
            "group_by: expected a function of the id, a regular expression, a column's name, or a "
            "group for each of the "
            f"{len(listing.ids):,} samples, got {type(group_by).__name__}"
        )
    return values


def _groups_by_pattern(listing: Listing, text: str) -> list[str]:
    known = f"; columns are {shorten(listing.columns, 30)}" if listing.columns else ""
    try:
        pattern = re.compile(text)
    except re.error as e:
        raise DataError(f"group_by: {text!r} is no regular expression ({e}){known}") from e
    groups, without = [], []
    for ident in listing.ids:
        m = pattern.search(ident)
        if m is None:
            without.append(ident)
        else:
            groups.append(m.group(1) if pattern.groups and m.group(1) is not None else m.group(0))
    if without:
        raise DataError(
            f"group_by: {text!r} is not found in {len(without):,} of {len(listing.ids):,} ids: "
            f"{shorten(without, 5)}{known}"
        )
    return groups


def _spec_of(
    split: Any,
    val: Any,
    group_by: Any,
    seed: int,
    channels: Any,
    on_unreadable: Any,
    max_pixels: Any,
    drawn: Any,
) -> dict[str, Any]:
    """The options as a recipe spells them, defaults filled in where they decide the split."""
    out: dict[str, Any] = {}
    if drawn.get("by") == "fraction":
        fractions = drawn["fractions"]
        usual = list(fractions) == list(_ORDER[: len(fractions)])
        out["split"] = list(fractions.values()) if usual else dict(fractions)
    elif isinstance(split, (str, bytes)) or hasattr(split, "__fspath__"):
        out["split"] = os.path.abspath(os.fsdecode(split))
    elif drawn.get("by") == "manifest":
        out["split"] = "manifest"
    if val is not None or "val" in drawn:
        out["val"] = drawn.get("val", 0)
    if group_by is not None:
        out["group_by"] = group_by if isinstance(group_by, str) else "manifest"
    if drawn.get("by") == "fraction" or "val" in drawn:
        out["seed"] = seed
    for key, value, default in (
        ("channels", channels, None),
        ("on_unreadable", on_unreadable, "leave_out"),
        ("max_pixels", max_pixels, None),
    ):
        if value != default:
            out[key] = value
    return out


def _reopened(
    listing: Listing, stored: dict[str, Any], *, max_pixels: int, progress: bool | None, threads: int | None
) -> Data:
    """The data of a manifest: only its samples are looked at, and all of them must be as they were."""
    samples = stored["samples"]
    at = {ident: i for i, ident in enumerate(listing.ids)}
    missing = [i for i in samples["id"] if i not in at]
    raise_differences({"missing": missing, "changed": [], "relabelled": []}, None)
    order = [at[i] for i in samples["id"]]
    part = Listing(
        kind=listing.kind,
        spec=listing.spec,
        ids=[listing.ids[i] for i in order],
        classes=listing.classes,
        labels=None if listing.labels is None else listing.labels[order],
        reader=_Chosen(listing.reader, order),
        paths=None if listing.paths is None else [listing.paths[i] for i in order],
        root=listing.root,
        ignored=listing.ignored,
        columns={k: [v[i] for i in order] for k, v in listing.columns.items()},
    )
    found = scan(part, max_pixels=max_pixels, progress=progress, threads=threads)
    bad = [f"{part.ids[i]} ({r})" for i, r in enumerate(found.reason) if r]
    if bad:
        raise DataError(
            f"data: {len(bad):,} sample(s) of the manifest cannot be read any more: {shorten(bad)}. "
            "Restore them; samples "
            "are never left out of a recorded set"
        )
    labels = _labels(part, found, np.ones(len(order), bool))
    live = Data(
        spec=listing.spec,
        classes=part.classes,
        ids=part.ids,
        labels=labels,
        parts=list(samples["split"]),
        channels=stored["channels"],
        sizes=found.size[:, :2],
        digests=found.digest,
        reader=part.reader,
        positions=np.arange(len(order), dtype=np.int64),
        paths=part.paths,
        ignored=listing.ignored,
        notes=listing.notes,
        columns=part.columns,
    )
    data = live.with_manifest(stored)
    known = set(samples["id"]) | {u.id for u in data.unreadable}
    added = [i for i in listing.ids if i not in known]
    if added:
        data.notes.append(added_note(added))
    if data.unreadable:
        data.notes.append(
            f"{len(data.unreadable):,} samples were unreadable when the split was recorded, and stay left out"
        )
    return data


class _Chosen:
    """Some samples of another reader."""

    def __init__(self, reader: Any, order: list[int]) -> None:
        self.reader, self.order = reader, order
        self.in_memory = bool(getattr(reader, "in_memory", False))

    def read(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.reader.read(self.order[index])
        return image

    def label(self, index: int) -> Any:
        return self.reader.label(self.order[index])


def _describe(data: Data, found: Scan, group_by: Any, listing: Listing) -> None:
    """Notes on everything unusual; warnings where a number could mislead."""
    notes, loud = data.notes, []
    if data.unreadable:
        notes.append(f"{len(data.unreadable):,} samples cannot be read and are left out (Data.unreadable)")
    if data.ignored:
        kinds = shorten(
            f"{n:,} {ext}" for ext, n in sorted(data.ignored.items(), key=lambda p: (-p[1], p[0]))
        )
        notes.append(f"{sum(data.ignored.values()):,} files are no pictures by their extension: {kinds}")
    for bit, text in decode.FLAG_TEXT.items():
        n = int(((found.flags & bit) != 0).sum())
        if n:
            notes.append(f"{n:,} image(s) {text}")
    loud += _class_notes(data)
    if data.cross_duplicates:
        n = sum(len(g["ids"]) for g in data.cross_duplicates)
        pairs = shorten((" = ".join(g["ids"][:3]) for g in data.cross_duplicates), 3)
        loud.append(
            f"{n:,} images in {len(data.cross_duplicates):,} groups of equal pixels are in more than "
            f"one split: {pairs}; "
            "numbers on val and test are too good by them"
        )
    two = _two_labels(data)
    if two:
        loud.append(f"{len(two):,} groups of equal pixels have different labels: {shorten(two, 3)}")
    if group_by is not None:
        loud += _group_notes(data, _groups(listing, group_by), listing)
    notes += loud
    for text in loud:
        warnings.warn(f"data: {text}", DataWarning, stacklevel=4)


def _class_notes(data: Data) -> list[str]:
    total = data.counts()
    loud = []
    empty = [c for c, n in zip(data.classes, total, strict=True) if n == 0]
    if empty:
        text = (
            f"{len(empty)} of {data.num_classes} classes have no samples at all: {shorten(map(repr, empty))}"
        )
        if empty == ["0"] and data.classes == tuple(str(k) for k in range(data.num_classes)):
            text += "; labels begin at 1: subtract 1, or give classes="
        loud.append(text)
    for part in data.splits:
        lacking = [c for c, n, t in zip(data.classes, data.counts(part), total, strict=True) if n == 0 and t]
        if lacking:
            loud.append(
                f"{part} lacks {len(lacking)} of {data.num_classes} classes: {shorten(map(repr, lacking))}"
            )
    return loud


def _two_labels(data: Data) -> list[str]:
    first: dict[str, int] = {}
    found = []
    for i, d in enumerate(data.digests):
        j = first.setdefault(d, i)
        if data.labels[i] != data.labels[j]:
            found.append(
                f"{data.ids[j]} ({data.classes[data.labels[j]]}) = {data.ids[i]} "
                f"({data.classes[data.labels[i]]})"
            )
    return found


def _group_notes(data: Data, groups: list[str] | None, listing: Listing) -> list[str]:
    """Groups that stand in two splits: possible where the splits were given."""
    of = dict(zip(listing.ids, groups or [], strict=True))
    seen: dict[str, set[str]] = {}
    for ident, part in zip(data.ids, data.split_of, strict=True):
        seen.setdefault(of[ident], set()).add(part)
    torn = sorted(g for g, p in seen.items() if len(p) > 1)
    return [f"{len(torn):,} groups (group_by) are in more than one split: {shorten(torn, 5)}"] if torn else []
