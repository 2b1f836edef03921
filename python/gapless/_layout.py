"""The safetensors layout, written and read strictly: a header of lengths that are all checked, then plain
bytes.

A file is: 8 bytes (little-endian length of the header), the header (JSON, padded with spaces), the data. The
header maps each tensor's name to its dtype, shape and byte range in the data. The reader of the safetensors
library takes some files that this one refuses: duplicate keys, values that JSON does not know, entries with
unknown fields.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError

__all__ = ["DTYPES", "Entry", "canonical", "make_header", "parse_header", "strict_json"]

HEADER_MAX = 100_000_000  # the library's own limit
RANK_MAX = 8
NAME_MAX = 1024

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F16": np.dtype("<f2"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("bool"),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor's row in the header; `begin` and `end` count bytes from the beginning of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII, no NaN.

    >>> canonical({"b": 1, "a": [1.5, "é"]})
    '{"a":[1.5,"\\\\u00e9"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def strict_json(text: bytes, what: str) -> Any:
    """Parse JSON; a duplicate key, NaN, bad UTF-8 or too deep a nesting is a CheckpointError that names
    `what`."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) != len(items):
            seen: set[str] = set()
            twice = next(k for k, _ in items if k in seen or seen.add(k))  # type: ignore[func-returns-value]
            raise CheckpointError(f"{what}: key {_short(twice)} stands twice")
        return out

    def constant(word: str) -> NoReturn:
        raise CheckpointError(f"{what}: {word} is not a JSON value")

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as e:
        raise CheckpointError(f"{what}: byte {e.start} is not UTF-8") from None
    except json.JSONDecodeError as e:
        raise CheckpointError(f"{what}: not JSON at character {e.pos}: {e.msg}") from None
    except RecursionError:
        raise CheckpointError(f"{what}: nested too deeply") from None
    except CheckpointError:
        raise
    except ValueError as e:  # integers of thousands of digits
        raise CheckpointError(f"{what}: {e}") from None


def make_header(arrays: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """Length and header for `arrays`, in their order; the data follow without holes.

    Raises
    ------
    CheckpointError
        A dtype that the layout does not know, or a header beyond its limit.
    """
    rows: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, array in arrays.items():
        code = _CODES.get(array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype)
        if code is None:
            raise CheckpointError(
                f"tensor {_short(name)}: dtype {array.dtype} cannot be stored; use {sorted(DTYPES)}"
            )
        if name == "__metadata__" or not name or len(name) > NAME_MAX:
            raise CheckpointError(f"tensor {_short(name)}: not a name that can be stored")
        end = begin + array.nbytes
        rows[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    if len(text) > HEADER_MAX:
        raise CheckpointError(f"header: {len(text):,} bytes, at most {HEADER_MAX:,} are allowed")
    return struct.pack("<Q", len(text)) + text


def parse_header(head: bytes, size: int) -> tuple[dict[str, str], list[Entry], int]:
    """Check a header against the file's size.

    Parameters
    ----------
    head : bytes
        The beginning of the file, at least to the end of the header if the file has that much.
    size : int
        The file's size in bytes.

    Returns
    -------
    metadata, entries in the order of their bytes, place of the first byte of data

    Raises
    ------
    CheckpointError
        Naming the tensor or the byte.
    """
    if size < 8:
        raise CheckpointError(f"file of {size} bytes: the header's length (bytes 0 to 7) is cut off")
    length = struct.unpack_from("<Q", head)[0]
    if length > HEADER_MAX:
        raise CheckpointError(f"bytes 0 to 7: header of {length:,} bytes, at most {HEADER_MAX:,} are allowed")
    if 8 + length > size:
        raise CheckpointError(
            f"bytes 0 to 7: header of {length:,} bytes in a file of {size:,} bytes: cut off"
        )
    if length < 2 or head[8:9] != b"{":
        raise CheckpointError("byte 8: the header does not begin with '{'")
    rows = strict_json(head[8 : 8 + length], f"header (bytes 8 to {8 + length})")
    if not isinstance(rows, dict):
        raise CheckpointError("header: not a JSON object")
    metadata = rows.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError("header: __metadata__ must map words to words")
    entries = [_entry(name, row) for name, row in rows.items()]
    _check_ranges(entries, size - 8 - length)
    return metadata, sorted(entries, key=lambda e: (e.begin, e.end)), 8 + length


def _entry(name: str, row: Any) -> Entry:
    what = f"tensor {_short(name)}"
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise CheckpointError(f"{what}: not a name that can be stored")
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{what}: must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{what}: unknown dtype {_short(dtype)}, expected one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > RANK_MAX or not all(_is_count(d) for d in shape):
        raise CheckpointError(f"{what}: shape {_short(shape)} is not a list of at most {RANK_MAX} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(o) for o in offsets):
        raise CheckpointError(f"{what}: data_offsets {_short(offsets)} are not two byte positions")
    begin, end = offsets
    need = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != need:
        raise CheckpointError(
            f"{what}: {dtype} {shape} takes {need:,} bytes, its range {begin} to {end} holds {end - begin:,}"
        )
    return Entry(name, dtype, tuple(shape), begin, end)


def _check_ranges(entries: list[Entry], room: int) -> None:
    """Byte ranges must follow one another from 0 to the end of the file: no overlaps, no holes."""
    at = 0
    for e in sorted(entries, key=lambda e: (e.begin, e.end)):
        if e.begin != at:
            kind = "overlaps the tensor before it" if e.begin < at else "leaves a hole before it"
            raise CheckpointError(
                f"tensor {_short(e.name)}: begins at data byte {e.begin:,}, expected {at:,}: {kind}"
            )
        if e.end > room:
            raise CheckpointError(
                f"tensor {_short(e.name)}: ends at data byte {e.end:,}, but the file has only "
                f"{room:,}: the file is cut off"
            )
        at = e.end
    if at != room:
        raise CheckpointError(f"data byte {at:,}: {room - at:,} bytes behind the last tensor belong to none")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _short(value: Any) -> str:
    """repr, at most 80 characters: names come from files that somebody else wrote."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:76] + "…" + text[-1]
