"""The manifest: which samples there are, their labels, splits and pixels, as plain data.

A run and a checkpoint keep it.

A split is drawn once. From then on the manifest says it, and opening the data again compares what is there
now with what it says; it never draws again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from gapless.data.sources import shorten
from gapless.errors import DataError

__all__ = ["FORMAT", "canonical", "check", "digest", "load_split"]

FORMAT = 1
_COLUMNS = ("id", "label", "split", "digest")


def canonical(value: Any) -> bytes:
    """The one spelling of plain data as JSON: keys sorted, no blanks, ASCII.

    Examples
    --------
    >>> canonical({"b": 1, "a": [1.5, "é"]})
    b'{"a":[1.5,"\\\\u00e9"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over what decides numbers: classes, channels, and each sample's id, label, split and pixels."""
    part = {k: manifest[k] for k in ("format", "classes", "channels", "samples")}
    return hashlib.sha256(canonical(part)).hexdigest()


def check(manifest: Any) -> dict[str, Any]:
    """The manifest, if it is one that can be used; a DataError that names the place if not."""

    def fail(text: str) -> DataError:
        return DataError(f"manifest: {text}")

    if not isinstance(manifest, Mapping):
        raise fail(f"expected a mapping, got {type(manifest).__name__}")
    if manifest.get("format") != FORMAT:
        raise fail(f"format {manifest.get('format')!r}; this version reads format {FORMAT}")
    classes, samples = manifest.get("classes"), manifest.get("samples")
    if not isinstance(classes, (list, tuple)) or not all(isinstance(c, str) for c in classes):
        raise fail("classes: expected a list of names")
    if manifest.get("channels") not in (1, 3):
        raise fail(f"channels: expected 1 or 3, got {manifest.get('channels')!r}")
    if not isinstance(samples, Mapping) or any(
        not isinstance(samples.get(c), (list, tuple)) for c in _COLUMNS
    ):
        raise fail(f"samples: expected the lists {', '.join(_COLUMNS)}")
    lengths = {c: len(samples[c]) for c in _COLUMNS}
    if len(set(lengths.values())) != 1:
        raise fail(f"samples: lists of different lengths: {lengths}")
    for column, kind in (("id", str), ("split", str), ("digest", str), ("label", int)):
        if not all(type(v) is kind for v in samples[column]):
            raise fail(f"samples.{column}: expected a list of {kind.__name__}")
    if len(set(samples["id"])) != len(samples["id"]):
        raise fail("samples.id: an id is there twice: the splits would not be disjoint")
    if not all(0 <= k < len(classes) for k in samples["label"]):
        raise fail(f"samples.label: out of range 0..{len(classes) - 1}")
    bad = manifest.get("unreadable", [])
    fields = {"id", "path", "split", "reason"}
    if not isinstance(bad, (list, tuple)) or any(not isinstance(u, Mapping) or set(u) != fields for u in bad):
        raise fail("unreadable: expected a list of mappings with id, path, split, reason")
    if type(manifest.get("seed", 0)) is not int or not isinstance(manifest.get("drawn", {}), Mapping):
        raise fail("seed or drawn: expected a whole number and a mapping")
    return dict(manifest)


def load_split(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A stored split: a manifest, or ``{"train": [ids], "val": [ids]}``."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as f:
            got = json.load(f)
    except OSError as e:
        raise DataError(f"split: {name} cannot be read: {e.strerror}") from e
    except ValueError as e:
        raise DataError(f"split: {name} is not JSON: {e}") from e
    if not isinstance(got, dict):
        raise DataError(f"split: {name} holds {type(got).__name__}; expected a manifest or ids by split")
    return got


def ids_by_split(stored: Mapping[str, Any]) -> dict[str, str]:
    """id -> split, from a manifest or from lists of ids; an id in two splits is an error."""
    if "samples" in stored:
        samples = check(stored)["samples"]
        pairs = list(zip(samples["id"], samples["split"], strict=True))
        pairs += [(u["id"], u["split"]) for u in stored.get("unreadable", ())]
    else:
        pairs = [(str(i), name) for name, ids in stored.items() for i in ids]
    found: dict[str, str] = {}
    twice = []
    for ident, name in pairs:
        if found.setdefault(ident, name) != name:
            twice.append(f"{ident} ({found[ident]} and {name})")
    if twice:
        raise DataError(
            f"split: {len(twice):,} id(s) in two splits: {shorten(twice, 5)}; splits must be disjoint"
        )
    return found
