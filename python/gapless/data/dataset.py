"""`Data`: samples with ids, labels, splits and pixels."""

from __future__ import annotations

import copy
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.data import decode
from gapless.data import manifest as manifests
from gapless.data.scan import pixel_digest
from gapless.data.sources import shorten
from gapless.errors import DataError

__all__ = ["DRAWN", "Data", "DataWarning", "Unreadable", "added_note", "raise_differences"]

_ORDER = ("train", "val", "test", "dev")


class DataWarning(UserWarning):
    """Something about the data that should be looked at; training goes on."""


@dataclass(frozen=True)
class Unreadable:
    """A listed sample whose pixels cannot be had.

    Attributes
    ----------
    id : str
    path : str
        The file, or the id where there is none.
    split : str
        The split that it would be in.
    reason : str
    """

    id: str
    path: str
    split: str
    reason: str


class Data:
    """Labelled images in splits: what `folder`, `list_file`, `arrays`, `idx`, … give.

    Positions in `ids` are the *manifest indices* by which samples are named everywhere.

    Attributes
    ----------
    spec : dict
        The ``data`` section of a recipe that says where the samples come from.
    classes : tuple of str
    ids : list of str
        Names of the samples, all different.
    labels : int64 array, shape (n,)
    splits : dict of str to int64 array
        Manifest indices of each split, rising; disjoint.
    channels : {1, 3}
    sizes : int64 array, shape (n, 2)
        Height and width of each image.
    digests : list of str
        Of each image's decoded pixels.
    unreadable : list of Unreadable
    ignored : dict of str to int
        Files that are no pictures by their extension: extension -> count.
    cross_duplicates : list of dict
        Images with equal pixels in different splits: ``{"ids": [...], "splits": [...]}``.
    notes : list of str
        What there is to say about the data before training, in full sentences.
    seed : int
        Of the split's draws.
    """

    def __init__(
        self,
        *,
        spec: dict[str, Any],
        classes: tuple[str, ...],
        ids: list[str],
        labels: NDArray[np.int64],
        parts: list[str],
        channels: int,
        sizes: NDArray[np.int64],
        digests: list[str],
        reader: Any,
        positions: NDArray[np.int64],
        paths: list[str] | None = None,
        unreadable: Iterable[Unreadable] = (),
        ignored: Mapping[str, int] | None = None,
        notes: Iterable[str] = (),
        seed: int = 0,
        columns: Mapping[str, list[str]] | None = None,
        drawn: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec, self.classes, self.ids, self.channels, self.sizes = spec, classes, ids, channels, sizes
        self.labels = labels.astype(np.int64)
        self.labels.flags.writeable = False
        self.digests, self.seed, self.notes = digests, seed, list(notes)
        self.unreadable, self.ignored = list(unreadable), dict(ignored or {})
        self.columns = dict(columns or {})
        self.drawn = dict(drawn or {})
        self.split_of = parts
        names = [*_ORDER, *sorted(set(parts) - set(_ORDER))]
        of = np.array(parts, dtype=object)
        self.splits = {k: np.flatnonzero(of == k).astype(np.int64) for k in names if k in set(parts)}
        self._reader, self._positions, self._paths = reader, positions, paths
        self._cache: Any = None  # decoded pixels, made by the loader
        self._verified = bytearray(len(ids))  # which samples were held to their digest when they were read
        self._index = {ident: i for i, ident in enumerate(ids)}
        self.cross_duplicates = _across(digests, ids, parts)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def max_size(self) -> tuple[int, int]:
        """The largest height and the largest width."""
        return (int(self.sizes[:, 0].max()), int(self.sizes[:, 1].max()))

    @property
    def min_size(self) -> tuple[int, int]:
        """The smallest height and the smallest width."""
        return (int(self.sizes[:, 0].min()), int(self.sizes[:, 1].min()))

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width, where all images are of one size."""
        return self.max_size if self.max_size == self.min_size else None

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, ident: object) -> bool:
        return ident in self._index

    def index_of(self, ident: str) -> int:
        """The manifest index of an id."""
        try:
            return self._index[ident]
        except KeyError:
            raise DataError(f"data: there is no sample {ident!r}") from None

    def path(self, index: int) -> str:
        """Where sample ``index`` is: its file, or its id."""
        if self._paths is None:
            return self.ids[index]
        return decode.printable(self._paths[int(self._positions[index])])

    def file(self, index: int) -> str | None:
        """The file of sample ``index`` as the system names it; None where there are no files."""
        return None if self._paths is None else self._paths[int(self._positions[index])]

    def load(self, index: int) -> NDArray[np.uint8]:
        """The pixels of a sample.

        Parameters
        ----------
        index : int
            Manifest index.

        Returns
        -------
        ndarray
            uint8 (H, W, `channels`); read-only where the data lies in memory.

        Raises
        ------
        DataError
            If it cannot be read, though it could when the data was opened; the message names it.
        """
        cache = self._cache
        if cache is not None:
            kept: NDArray[np.uint8] | None = cache.get(index)
            if kept is not None:
                return kept
        try:
            image = self._reader.read(int(self._positions[index]))
        except decode.DecodeError as e:
            raise DataError(
                f"{self.path(index)}: {e.reason}; it was readable when the data was opened"
            ) from e
        except (DataError, MemoryError):
            raise
        except Exception as e:
            raise DataError(f"{self.path(index)}: {type(e).__name__}: {e}") from e
        if image.shape[:2] != tuple(self.sizes[index]):
            h, w = self.sizes[index]
            raise DataError(
                f"{self.path(index)}: {image.shape[1]}×{image.shape[0]} pixels, but {w}×{h} when the "
                "data was opened; "
                "the samples must not change during a run"
            )
        if not (self._verified[index] or self.in_memory):
            # What the scan remembers of a file goes by its time and size, which an edit may keep.
            if pixel_digest(image) != self.digests[index]:
                raise DataError(
                    f"{self.path(index)}: other pixels than when the data was opened or recorded; the "
                    "samples must not change: restore it, or begin a new run"
                )
            self._verified[index] = 1
        image = decode.as_channels(image, self.channels)
        if cache is not None:
            cache.put(index, image)
        return image

    @property
    def in_memory(self) -> bool:
        """Whether the pixels lie in memory already."""
        return bool(getattr(self._reader, "in_memory", False))

    def counts(self, split: str | None = None) -> NDArray[np.int64]:
        """How many samples of each class a split has, or all splits together.

        Parameters
        ----------
        split : str, optional

        Returns
        -------
        int64 array, shape (num_classes,)
        """
        labels = self.labels if split is None else self.labels[self.indices(split)]
        return np.bincount(labels, minlength=self.num_classes).astype(np.int64)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Manifest indices of a split, or an error that names those there are."""
        if split not in self.splits:
            raise DataError(f"data: there is no split {split!r}; there are {shorten(self.splits) or 'none'}")
        return self.splits[split]

    def n_unreadable(self, split: str) -> int:
        """How many samples of a split were left out because they cannot be read."""
        return sum(u.split == split for u in self.unreadable)

    def mapped_to(self, classes: Sequence[str]) -> Data:
        """The same samples with labels that point into other classes, by name.

        Parameters
        ----------
        classes : sequence of str
            Such as a checkpoint has.

        Returns
        -------
        Data

        Raises
        ------
        DataError
            If a class that has samples is not among them.
        """
        import difflib

        wanted = tuple(classes)
        if wanted == self.classes:
            return self
        to = {c: k for k, c in enumerate(wanted)}
        counts = self.counts()
        unknown = [c for c, n in zip(self.classes, counts, strict=True) if c not in to and n]
        if unknown:
            near = difflib.get_close_matches(unknown[0], wanted, 1)
            hint = f"; did you mean {near[0]!r} by {unknown[0]!r}?" if near else ""
            raise DataError(
                f"data: {len(unknown)} class(es) are not known to the model: "
                f"{shorten(map(repr, unknown))}{hint}; the "
                f"model's {len(wanted)} classes are {shorten(map(repr, wanted))}"
            )
        table = np.array([to.get(c, 0) for c in self.classes], np.int64)
        other = copy.copy(self)
        other.classes = wanted
        other.labels = table[self.labels]
        other.labels.flags.writeable = False
        return other

    def with_channels(self, channels: int) -> Data:
        """The same samples with one (luma) or three channels."""
        if channels == self.channels:
            return self
        if channels not in (1, 3):
            raise DataError(f"channels: expected 1 or 3, got {channels!r}")
        other = copy.copy(self)
        other.channels, other._cache = channels, None
        return other

    def manifest(self) -> dict[str, Any]:
        """The manifest as plain data that JSON can hold."""
        return {
            "format": manifests.FORMAT,
            "classes": list(self.classes),
            "channels": self.channels,
            "samples": {
                "id": list(self.ids),
                "label": self.labels.tolist(),
                "split": list(self.split_of),
                "digest": list(self.digests),
            },
            "seed": self.seed,
            "drawn": self.drawn,
            "unreadable": [asdict(u) for u in self.unreadable],
            "ignored": dict(sorted(self.ignored.items())),
            "cross_duplicates": self.cross_duplicates,
        }

    @property
    def manifest_digest(self) -> str:
        """SHA-256 over the manifest's classes, channels and samples."""
        return manifests.digest(self.manifest())

    def differences(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """What differs between these samples and a manifest.

        Returns
        -------
        dict
            ``missing`` ids that are not here, ``changed`` ids with other pixels, ``relabelled`` ids of
            another class, ``added`` ids that the manifest does not have.
        """
        stored = manifests.check(manifest)
        samples, names = stored["samples"], stored["classes"]
        found: dict[str, list[str]] = {"missing": [], "changed": [], "relabelled": [], "added": []}
        for ident, label, pixels in zip(samples["id"], samples["label"], samples["digest"], strict=True):
            i = self._index.get(ident)
            if i is None:
                found["missing"].append(ident)
                continue
            if self.digests[i] != pixels:
                found["changed"].append(ident)
            if self.classes[self.labels[i]] != names[label]:
                found["relabelled"].append(ident)
        known = set(samples["id"])
        found["added"] = [i for i in self.ids if i not in known]
        return found

    def with_manifest(self, manifest: Mapping[str, Any]) -> Data:
        """These samples in the order, splits and classes of a manifest, if they are the same.

        Raises
        ------
        DataError
            If samples are missing, have other pixels, or belong to another class; the message names them.
        """
        stored = manifests.check(manifest)
        found = self.differences(stored)
        raise_differences(found, self)
        samples = stored["samples"]
        order = np.array([self._index[i] for i in samples["id"]], np.int64)
        notes = [n for n in self.notes if not n.startswith(DRAWN)]
        if found["added"]:
            notes.append(added_note(found["added"]))
        return Data(
            spec=self.spec,
            classes=tuple(stored["classes"]),
            ids=list(samples["id"]),
            labels=np.array(samples["label"], np.int64),
            parts=list(samples["split"]),
            channels=stored["channels"],
            sizes=self.sizes[order],
            digests=[self.digests[i] for i in order],
            reader=self._reader,
            positions=self._positions[order],
            paths=self._paths,
            unreadable=[Unreadable(**u) for u in stored.get("unreadable", ())],
            ignored=self.ignored,
            notes=notes,
            seed=int(stored.get("seed", 0)),
            columns={k: [v[i] for i in order] for k, v in self.columns.items()},
            drawn=stored.get("drawn"),
        )

    def __repr__(self) -> str:
        kind = next(iter(self.spec), "data")
        size = self.size
        low, high = self.min_size, self.max_size
        shape = f"{size[1]}×{size[0]}" if size else f"{low[1]}×{low[0]} to {high[1]}×{high[0]}"
        lines = [
            f"Data({kind}={self.spec.get(kind)!r}): {len(self):,} images, {self.num_classes} classes, "
            f"{shape}, {'grey' if self.channels == 1 else 'RGB'}"
        ]
        head, rows = self._table()
        shown = rows if len(rows) <= 24 else [*rows[:22], ["…"] + [""] * (len(head) - 1), rows[-1]]
        width = [max(len(str(r[k])) for r in [head, *shown]) for k in range(len(head))]
        for row in [head, *shown]:
            cells = [str(c).ljust(width[k]) if k == 0 else str(c).rjust(width[k]) for k, c in enumerate(row)]
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join(lines + [f"  ! {note}" for note in self.notes])

    def _table(self) -> tuple[list[str], list[list[str]]]:
        counts = {k: self.counts(k) for k in self.splits}
        rows = [
            [decode.printable(c), *(f"{counts[k][i]:,}" for k in counts)] for i, c in enumerate(self.classes)
        ]
        total = ["all", *(f"{len(self.splits[k]):,}" for k in counts)]
        return ["class", *counts], [*rows, total]

    def _repr_html_(self) -> str:
        head, rows = self._table()
        out = [f"<p><b>{html.escape(repr(self).splitlines()[0])}</b></p><table><thead><tr>"]
        out += [_cell("th", html.escape(h)) for h in head]
        out.append("</tr></thead><tbody>")
        shown = rows if len(rows) <= 60 else [*rows[:58], ["…"] + [""] * (len(head) - 1), rows[-1]]
        for row in shown:
            out.append(
                "<tr>" + _cell("th", html.escape(row[0])) + "".join(_cell("td", c) for c in row[1:]) + "</tr>"
            )
        out.append("</tbody></table>")
        if self.notes:
            out.append("<ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in self.notes) + "</ul>")
        return "".join(out)


DRAWN = "split: "  # begins the notes that are about a draw


def _cell(tag: str, text: str) -> str:
    return f"<{tag} style='text-align:{'left' if tag == 'th' else 'right'}'>{text}</{tag}>"


def _across(digests: Sequence[str], ids: Sequence[str], parts: Sequence[str]) -> list[dict[str, list[str]]]:
    """Groups of equal pixels that are in more than one split."""
    again = {d for d, n in Counter(digests).items() if n > 1}
    groups: dict[str, list[int]] = {}
    for i, d in enumerate(digests):
        if d in again:
            groups.setdefault(d, []).append(i)
    return [
        {"ids": [ids[i] for i in g], "splits": [parts[i] for i in g]}
        for g in groups.values()
        if len({parts[i] for i in g}) > 1
    ]


def raise_differences(found: Mapping[str, list[str]], data: Data | None) -> None:
    """A DataError that names what differs from a manifest, if anything does."""
    texts = []
    if found["missing"]:
        texts.append(
            f"{len(found['missing']):,} sample(s) of the manifest are missing: {shorten(found['missing'])}"
        )
    if found["changed"]:
        texts.append(
            f"{len(found['changed']):,} sample(s) have other pixels than recorded: "
            f"{shorten(found['changed'])}"
        )
    if found["relabelled"]:
        names = [
            f"{i} (now {data.classes[data.labels[data.index_of(i)]]})" if data else i
            for i in found["relabelled"]
        ]
        texts.append(f"{len(names):,} sample(s) belong to another class than recorded: {shorten(names)}")
    if texts:
        raise DataError(
            "data: not the samples that the manifest records: "
            + "; ".join(texts)
            + ". Restore them, or begin a new run, which draws its own split"
        )


def added_note(ids: Sequence[str]) -> str:
    """What to say of samples that a recorded split does not have."""
    what = "are here that the recorded split does not have; they are not used"
    return f"{len(ids):,} sample(s) {what}: {shorten(ids, 3)}"
