"""The checkpoint: one closed file that is enough to evaluate, predict, resume and export.

It is a safetensors file. Names without a slash are the weights that the record scored, so any other tool can
open them; the rest has a prefix:

==================  =================================================================================
``conv1.weight``    weights and BatchNorm statistics that ``records`` are about (raw or EMA)
``raw/…`` ``ema/…`` the other kind, where both exist
``optim/<slot>/…``  the optimizer's state
``gapless/…``       documents (recipe, graph, manifest, history, records, state): zlib-compressed JSON
``gapless/digest``  the last 32 bytes: SHA-256 over every byte before them
==================  =================================================================================

The header's one metadata key, ``gapless``, is canonical JSON: format version, where each document is and how
long, and a SHA-256 of every tensor. Reading executes nothing, imports nothing by name, and refuses whatever
does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._files import write_atomic
from ._layout import DTYPES, Entry, _short, canonical, make_header, parse_header, strict_json
from .errors import CheckpointError, DataError, GaplessError

__all__ = ["FORMAT", "Checkpoint", "CheckpointWriteError", "Packed", "fitting", "pack", "read", "write"]

FORMAT = 1
DOCUMENTS = ("recipe", "graph", "manifest", "history", "records", "state")
DOCUMENT_MAX = 1 << 29  # bytes of JSON that one document may unpack to
_CLOSING = "gapless/digest"
_PREFIXES = ("raw/", "ema/", "optim/", "gapless/")

Array = NDArray[Any]


class CheckpointWriteError(CheckpointError, OSError):
    """A checkpoint could not be saved (disk full, read-only, quota); what was there before is untouched."""

    def __init__(self, errno: int | None, message: str, filename: str = "") -> None:
        super().__init__(errno, message, filename)
        self.errno, self.strerror, self.filename = errno, message, filename

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass
class Checkpoint:
    """What is in a checkpoint file.

    Attributes
    ----------
    tensors : dict
        Every tensor by its name in the file, but for documents and digest.
    documents : dict
        ``recipe``, ``graph``, ``manifest``, ``history``, ``records``, ``state``: plain data.
    digest : str
        SHA-256 of the file's bytes before the closing digest, in hex; empty before the checkpoint was
        written.
    path : Path or None
        Where it was read from.
    """

    tensors: dict[str, Array] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    path: Path | None = None

    @property
    def weights_kind(self) -> str:
        """``"raw"`` or ``"ema"``: which weights the plain names are."""
        kind = self.state.get("weights_kind") if isinstance(self.state, dict) else None
        if kind not in ("raw", "ema"):
            raise CheckpointError(
                f"{self.path}: document 'state': weights_kind is {kind!r}, expected 'raw' or 'ema'"
            )
        return str(kind)

    def scored(self) -> dict[str, Array]:
        """Weights and statistics that the record scored, by layer name."""
        return {k: v for k, v in self.tensors.items() if not k.startswith(_PREFIXES)}

    def weights(self, kind: str | None = None) -> dict[str, Array] | None:
        """Weights and statistics by layer name; None when this kind was not stored.

        Parameters
        ----------
        kind : {"raw", "ema"}, optional
            Default: those that the record scored.
        """
        if kind is None or kind == self.weights_kind:
            return self.scored()
        return self._under(f"{kind}/")

    def slots(self) -> dict[str, dict[str, Array]]:
        """The optimizer's state: slot name → weight name → array."""
        out: dict[str, dict[str, Array]] = {}
        for name, array in (self._under("optim/") or {}).items():
            slot, _, weight = name.partition("/")
            out.setdefault(slot, {})[weight] = array
        return out

    def _under(self, prefix: str) -> dict[str, Array] | None:
        found = {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}
        return found or None

    def __getattr__(self, name: str) -> Any:
        if name in DOCUMENTS:
            documents = self.__dict__.get("documents", {})
            if name in documents:
                return documents[name]
            raise CheckpointError(
                f"checkpoint {self.__dict__.get('path') or ''}: has no {name}".replace("  ", " ")
            )
        raise AttributeError(name)


@dataclass(frozen=True)
class Packed:
    """A document as it is stored; made once by `pack` for what does not change from save to save."""

    data: bytes
    length: int


def pack(word: str, value: Any) -> Packed:
    """Compress a document.

    Parameters
    ----------
    word : str
        Its name, for the message when it cannot be stored.
    value : plain data
    """
    text = _document_text(word, value)
    return Packed(zlib.compress(text, 6), len(text))


# -- writing ---------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], documents: Mapping[str, Any]) -> str:
    """Save a checkpoint, wholly or not at all, and read it back before returning.

    Parameters
    ----------
    path : path
        Its directory must exist. A file that is there is replaced at the last moment.
    tensors : mapping
        Arrays by name, with the prefixes of the module's docstring.
    documents : mapping
        Plain data that JSON can hold, or what `pack` made of them.

    Returns
    -------
    str
        The file's digest.

    Raises
    ------
    CheckpointWriteError
        The system refused (an OSError as well); names path and bytes needed. What was there before is
        untouched.
    CheckpointError
        Non-finite weights, values that cannot be stored, or a file that does not read back equal.

    Examples
    --------
    >>> import tempfile, os
    >>> import numpy as np
    >>> from gapless import checkpoint
    >>> with tempfile.TemporaryDirectory() as d:
    ...     f = os.path.join(d, "a.safetensors")
    ...     _ = checkpoint.write(f, {"fc.weight": np.eye(2, dtype="f4")}, {"state": {"weights_kind": "raw"}})
    ...     checkpoint.read(f).weights()["fc.weight"]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    target = Path(path)
    pieces, digest = _serialise(tensors, documents)
    total = sum(memoryview(p).nbytes for p in pieces)

    def verify(temporary: Path) -> None:
        again = _parse(_load(temporary), temporary, known=digest)
        if again.digest != digest:
            raise CheckpointError(
                f"{target}: read back as {again.digest[:16]}…, written as {digest[:16]}…: the disk "
                f"is not sound"
            )

    try:
        write_atomic(target, pieces, verify=verify)
    except OSError as e:
        if isinstance(e, CheckpointError):
            raise
        raise _write_error(target, total, e) from e
    return digest


def _write_error(target: Path, total: int, cause: OSError) -> CheckpointWriteError:
    free = ""
    with contextlib.suppress(OSError):
        s = os.statvfs(target.parent)
        free = f", {s.f_bavail * s.f_frsize:,} bytes are free there"
    kept = "the checkpoint that was there is untouched" if target.exists() else "nothing was left behind"
    message = (
        f"cannot save checkpoint {target}: {cause.strerror or cause}; it needs {total:,} "
        f"bytes{free}; {kept}. "
        "Nothing in memory was changed: make room or choose another place, and save again"
    )
    return CheckpointWriteError(cause.errno, message, str(target))


def _serialise(
    tensors: Mapping[str, Array], documents: Mapping[str, Any]
) -> tuple[list[bytes | memoryview], str]:
    """The file's pieces in order, and the digest that closes them."""
    arrays = {name: _storable(name, a) for name, a in tensors.items()}
    places: dict[str, Any] = {}
    for word, value in documents.items():
        packed = value if isinstance(value, Packed) else pack(word, value)
        arrays[f"gapless/{word}"] = np.frombuffer(packed.data, np.uint8)
        places[word] = {"tensor": f"gapless/{word}", "bytes": packed.length}
    # Wider types first, so that every tensor stands at a multiple of its item size.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))
    digests = {name: hashlib.sha256(_bytes(a)).hexdigest() for name, a in arrays.items()}
    arrays[_CLOSING] = np.zeros(32, np.uint8)
    meta = canonical({"format": FORMAT, "documents": places, "digests": digests})
    pieces: list[bytes | memoryview] = [make_header(arrays, {"gapless": meta})]
    del arrays[_CLOSING]
    pieces += [_bytes(a) for a in arrays.values()]
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return [*pieces, whole.digest()], whole.hexdigest()


def _storable(name: str, array: Array) -> Array:
    a = np.asarray(array)
    if name == _CLOSING:
        raise CheckpointError(f"tensor {_CLOSING!r} is made by the writer")
    if a.dtype.byteorder == ">":
        a = a.astype(a.dtype.newbyteorder("<"))
    if a.dtype.kind == "f" and not name.startswith("gapless/"):
        _refuse_non_finite(name, a)
    return a if a.flags.c_contiguous else np.ascontiguousarray(a).reshape(a.shape)


def _refuse_non_finite(name: str, a: Array) -> None:
    finite = np.isfinite(a)
    if not finite.all():
        at = np.unravel_index(int(np.argmin(finite)), a.shape)
        count = int(a.size - np.count_nonzero(finite))
        raise CheckpointError(
            f"tensor {_short(name)}: {count} of {a.size} values are not finite, the first at "
            f"{[int(i) for i in at]} ({a[at]}); "
            "a checkpoint holds finite weights only"
        )


def _document_text(word: str, value: Any) -> bytes:
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as e:
        raise CheckpointError(f"document {word!r} cannot be stored as JSON: {e}") from e
    if len(text) > DOCUMENT_MAX:
        raise CheckpointError(
            f"document {word!r}: {len(text):,} bytes of JSON, at most {DOCUMENT_MAX:,} are allowed"
        )
    return text


def _bytes(a: Array) -> memoryview:
    return memoryview(a.reshape(-1).view(np.uint8).data) if a.size else memoryview(b"")


# -- reading ---------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; damage, foreign files and whatever does not fit are refused with the place named.

    The closing digest is checked first, over every byte before it; then the header against the file's size;
    then each tensor's digest; then documents are unpacked, to no more than their stated length.

    Raises
    ------
    CheckpointError
        What is wrong, where, and what to do.
    FileNotFoundError
        There is no such file.
    """
    place = Path(path)
    blob = _load(place)
    try:
        return _parse(blob, place)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error.__cause__


@contextlib.contextmanager
def fitting(saved: Any) -> Iterator[None]:
    """Inside, something is made of a checkpoint's documents: whatever does not fit is a CheckpointError that
    names ``saved.path``.

    A file may be whole and still say nonsense: a layer that does not exist, a pipeline that is a number.
    """
    try:
        yield
    except (CheckpointError, DataError, MemoryError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as e:
        what = str(e) if isinstance(e, GaplessError) else f"{type(e).__name__}: {e}"
        raise CheckpointError(f"{saved.path}: what its documents say does not fit: {what}") from e


def _load(place: Path) -> Array:
    with open(place, "rb", buffering=0) as f:
        status = os.fstat(f.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{place}: not a regular file")
        blob = np.empty(status.st_size, np.uint8)
        view, at = memoryview(blob.data), 0
        while at < len(view):
            n = f.readinto(view[at:])
            if not n:
                raise CheckpointError(f"{place}: the file shrank to {at:,} bytes while it was read")
            at += n
    return blob


def _parse(blob: Array, place: Path, known: str = "") -> Checkpoint:
    """Check and take apart. A file whose digest is `known` has the tensors that were written: theirs need no
    check."""
    size = blob.size
    if size < 8 + 2 + 32:
        raise CheckpointError(f"only {size} bytes: not a checkpoint, or cut off at byte {size}")
    digest = hashlib.sha256(blob[:-32].data).digest()
    if digest != blob[-32:].tobytes():
        raise _diagnose(blob)
    metadata, entries, data = _header(blob)
    meta = _meta(metadata, entries)
    for e in entries[:-1] if digest.hex() != known else ():
        if _digest_of(blob, data, e) != meta["digests"][e.name]:
            raise CheckpointError(
                f"tensor {_short(e.name)} (bytes {data + e.begin:,} to {data + e.end:,}): digest differs"
            )
    blob.flags.writeable = False  # the arrays are views of it
    arrays = {
        e.name: blob[data + e.begin : data + e.end].view(DTYPES[e.dtype]).reshape(e.shape)
        for e in entries[:-1]
    }
    documents = {word: _document(word, where, arrays) for word, where in meta["documents"].items()}
    for where in meta["documents"].values():
        del arrays[where["tensor"]]
    for name, a in arrays.items():
        if a.dtype.kind == "f" and not name.startswith("gapless/"):
            _refuse_non_finite(name, a)
        if a.dtype.kind == "b" and a.size and a.view(np.uint8).max() > 1:
            raise CheckpointError(f"tensor {_short(name)}: a BOOL that is neither 0 nor 1")
    return Checkpoint(arrays, documents, digest.hex(), place)


def _header(blob: Array) -> tuple[dict[str, str], list[Entry], int]:
    length = int(blob[:8].view("<u8")[0])
    return parse_header(blob[: 8 + min(length, blob.size)].tobytes(), blob.size)


def _meta(metadata: dict[str, str], entries: list[Entry]) -> dict[str, Any]:
    """The `gapless` key: format, places of documents, digests; each checked against the tensors that are
    there."""
    if "gapless" not in metadata:
        raise CheckpointError(
            "header: no 'gapless' key: a safetensors file that another tool wrote; its weights can "
            "be used with pretrained=FILE"
        )
    if set(metadata) != {"gapless"}:
        raise CheckpointError(f"header: unknown metadata {_short(sorted(set(metadata) - {'gapless'}))}")
    meta: dict[str, Any] = strict_json(
        metadata["gapless"].encode("utf-8", "surrogatepass"), "header key 'gapless'"
    )
    version = meta.get("format") if isinstance(meta, dict) else None
    if type(version) is not int:
        raise CheckpointError("header key 'gapless': no format number")
    if version != FORMAT:
        raise CheckpointError(
            f"header key 'gapless': format {version}, this gapless reads {FORMAT}: install a newer one"
        )
    if set(meta) != {"format", "documents", "digests"} or not all(
        isinstance(meta[k], dict) for k in ("documents", "digests")
    ):
        raise CheckpointError(
            "header key 'gapless': must hold format, documents and digests, and nothing else"
        )
    if not entries or entries[-1].name != _CLOSING or (entries[-1].dtype, entries[-1].shape) != ("U8", (32,)):
        raise CheckpointError(f"the last tensor must be {_CLOSING!r}, U8 [32]")
    names = {e.name for e in entries[:-1]}
    if set(meta["digests"]) != names:
        odd = sorted(set(meta["digests"]) ^ names)[0]
        raise CheckpointError(f"header key 'gapless': digests and tensors do not agree on {_short(odd)}")
    for word, where in meta["documents"].items():
        if word not in DOCUMENTS:
            raise CheckpointError(
                f"header key 'gapless': unknown document {_short(word)}, expected {', '.join(DOCUMENTS)}"
            )
        if (
            not isinstance(where, dict)
            or where.get("tensor") != f"gapless/{word}"
            or where["tensor"] not in names
            or set(where) != {"tensor", "bytes"}
        ):
            raise CheckpointError(f"document {word!r}: must be the tensor 'gapless/{word}' and its length")
        if type(where["bytes"]) is not int or not 0 < where["bytes"] <= DOCUMENT_MAX:
            raise CheckpointError(
                f"document {word!r}: length {_short(where['bytes'])}, expected 1 to {DOCUMENT_MAX:,}"
            )
    return meta


def _document(word: str, where: dict[str, Any], arrays: dict[str, Array]) -> Any:
    packed = arrays[where["tensor"]]
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise CheckpointError(f"tensor {where['tensor']!r}: a document is U8 of one dimension")
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(packed.tobytes(), where["bytes"] + 1)
    except zlib.error as e:
        raise CheckpointError(f"tensor {where['tensor']!r}: not zlib data: {e}") from None
    if len(text) != where["bytes"] or not unpack.eof or unpack.unused_data:
        raise CheckpointError(
            f"tensor {where['tensor']!r}: does not unpack to the {where['bytes']:,} bytes that the "
            f"header states"
        )
    return strict_json(text, f"tensor {where['tensor']!r}")


def _digest_of(blob: Array, data: int, e: Entry) -> str:
    return hashlib.sha256(blob[data + e.begin : data + e.end].data).hexdigest()


def _diagnose(blob: Array) -> CheckpointError:
    """The closing digest does not fit: say which place is at fault, as far as the bytes tell."""
    start = blob[:8].tobytes()
    if start.startswith(b"PK\x03\x04") or start[:2] == b"\x80\x02":
        return CheckpointError(
            "byte 0: a PyTorch or zip file, not a checkpoint; save its weights as safetensors first"
        )
    if start.isascii() and start.decode("ascii").isprintable():
        return CheckpointError(f"not a checkpoint: it begins like a text, with {start.decode('ascii')!r}")
    try:
        metadata, entries, data = _header(blob)
        meta = _meta(metadata, entries)
    except CheckpointError as error:
        return CheckpointError(f"damaged or not a checkpoint of gapless: {error}")
    bad = [e for e in entries[:-1] if _digest_of(blob, data, e) != meta["digests"][e.name]]
    if bad:
        first = bad[0]
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        return CheckpointError(
            f"damaged: tensor {_short(first.name)} (bytes {data + first.begin:,} to {data + first.end:,}) "
            f"differs from its digest{more}; "
            "take another copy"
        )
    return CheckpointError(
        f"damaged: every tensor fits its digest, but not the file: the header (bytes 0 to {data:,}) or "
        f"{_CLOSING!r} (the last 32 bytes) was changed; take another copy"
    )
