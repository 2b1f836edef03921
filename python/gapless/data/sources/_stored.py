"""Reads arrays, texts, numbers, lists and dicts out of Python's object streams, and nothing else.

CIFAR's "python version" comes in that format. Python's own reader calls whatever a file names; this one is a
table of the opcodes that build plain data. A file may name only the few things of which NumPy arrays are
made, and naming them runs our own code, not what the name means elsewhere. Anything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gapless.errors import DataError

__all__ = ["read_stored"]

_MARK = object()


class _RefusedError(Exception):
    pass


class _Named:
    """One of the names that may stand in a file."""

    def __init__(self, what: str) -> None:
        self.what = what


class _Array:
    """An array under construction; `BUILD` fills it."""

    def __init__(self) -> None:
        self.value: np.ndarray[Any, Any] | None = None


class _Dtype:
    def __init__(self, code: str) -> None:
        if code.lstrip("<>=|") not in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", "b1"):
            raise _RefusedError(f"arrays of {code!r}")
        self.dtype = np.dtype(code)


_NAMES = {
    **{f"{m}._reconstruct": "reconstruct" for m in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{f"{m}._frombuffer": "frombuffer" for m in ("numpy.core.numeric", "numpy._core.numeric")},
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",  # how old versions of the format write b""
    "builtins.bytes": "bytes",
}


def read_stored(data: bytes, name: str) -> Any:
    """The one object in `data`.

    Parameters
    ----------
    data : bytes
    name : str
        What to call the file in an error.

    Raises
    ------
    DataError
        If the file is damaged, or names anything but plain data.

    Examples
    --------
    >>> read_stored(b"}X\\x01\\x00\\x00\\x00aK\\x05s.", "x")
    {'a': 5}
    """
    try:
        return _finished(_Machine(data).run(), [2 * len(data) + 1000])
    except _RefusedError as e:
        raise DataError(
            f"{name}: refused: it holds {e}; only arrays, bytes, texts, numbers, lists and dicts are read"
        ) from e
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError, UnicodeError) as e:
        raise DataError(f"{name}: damaged: {type(e).__name__}: {e}") from e


def _finished(value: Any, budget: list[int]) -> Any:
    """Arrays in the place of what was under construction; the budget stops streams that never end."""
    budget[0] -= 1
    if budget[0] < 0:
        raise _RefusedError("the same lists within each other, over and over")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        return value.value
    if isinstance(value, list):
        return [_finished(v, budget) for v in value]
    if isinstance(value, tuple):
        return tuple(_finished(v, budget) for v in value)
    if isinstance(value, dict):
        return {_key(k): _finished(v, budget) for k, v in value.items()}
    if isinstance(value, (_Named, _Dtype)) or value is _MARK:
        raise _RefusedError("a name where data is expected")
    return value


def _key(key: Any) -> Any:
    if not isinstance(key, (str, bytes, int)):
        raise _RefusedError(f"a dict key of type {type(key).__name__}")
    return key


class _Machine:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def take(self, n: int) -> bytes:
        if n < 0 or self.at + n > len(self.data):
            raise ValueError(f"ends within an item, at byte {len(self.data)}")
        piece = self.data[self.at : self.at + n]
        self.at += n
        return piece

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise ValueError("ends within a line")
        piece = self.data[self.at : end]
        self.at = end + 1
        return piece

    def uint(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")

    def since_mark(self) -> list[Any]:
        for k in range(len(self.stack) - 1, -1, -1):
            if self.stack[k] is _MARK:
                items = self.stack[k + 1 :]
                del self.stack[k:]
                return items
        raise ValueError("no mark")

    def run(self) -> Any:
        while True:
            op = self.take(1)
            if op == b".":
                if len(self.stack) != 1:
                    raise ValueError(f"{len(self.stack)} objects at the end, expected one")
                return self.stack.pop()
            action = _OPS.get(op)
            if action is None:
                raise _RefusedError(f"the operation {op!r} at byte {self.at - 1}")
            action(self)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, module: str, attribute: str) -> None:
        what = _NAMES.get(f"{module}.{attribute}")
        if what is None:
            raise _RefusedError(f"the name {module}.{attribute}")
        self.push(_Named(what))

    def stack_global(self) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self.name(str(module), str(attribute))

    def reduce(self) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, _Named) or not isinstance(args, tuple):
            raise _RefusedError("a call")
        self.push(_CALLS[called.what](*args) if called.what in _CALLS else _refuse_call(called))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Array):
            target.value = _fill(*state)
        elif isinstance(target, _Dtype):
            order = state[1]
            order = order.decode("ascii") if isinstance(order, bytes) else order
            if order not in ("<", ">", "|", "=") or any(s is not None for s in state[2:5]):
                raise _RefusedError("a structured array")
            target.dtype = np.dtype(str(order) + target.dtype.str[1:])
        else:
            raise _RefusedError("the state of an object")

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("appends to something that is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("sets items of something that is no dict")
        for k, v in zip(items[::2], items[1::2], strict=True):
            target[_key(k)] = v


def _refuse_call(called: _Named) -> Any:
    raise _RefusedError(f"a call of {called.what}")


def _reconstruct(kind: Any, _shape: Any, _code: Any) -> _Array:
    if not isinstance(kind, _Named) or kind.what != "ndarray":
        raise _RefusedError("an array of another kind")
    return _Array()


def _dtype(code: Any, *_flags: Any) -> _Dtype:
    return _Dtype(code.decode("ascii") if isinstance(code, bytes) else str(code))


def _encode(text: Any, codec: Any) -> bytes:
    """How Python 3 writes bytes in old versions of the format."""
    if not isinstance(text, str) or codec not in ("latin1", b"latin1"):
        raise _RefusedError("a text codec")
    return text.encode("latin-1")


def _no_bytes(*args: Any) -> bytes:
    if args:
        raise _RefusedError("a call of bytes")
    return b""


def _fill(_version: Any, shape: Any, dtype: Any, fortran: Any, content: Any) -> np.ndarray[Any, Any]:
    if isinstance(content, str):  # written by Python 2, read as text
        content = content.encode("latin-1")
    return _from_bytes(content, dtype, shape, "F" if fortran else "C")


def _from_bytes(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    if (
        not isinstance(content, (bytes, bytearray))
        or not isinstance(dtype, _Dtype)
        or order not in ("C", "F")
    ):
        raise _RefusedError("an array of objects")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise ValueError(f"shape {shape!r}")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise ValueError(f"{len(content)} bytes for an array of shape {shape}")
    a = np.frombuffer(bytes(content), dtype.dtype).reshape(shape, order=order)
    return a.astype(a.dtype.newbyteorder("="), copy=False)


_CALLS: dict[str, Callable[..., Any]] = {
    "reconstruct": _reconstruct,
    "frombuffer": _from_bytes,
    "dtype": _dtype,
    "encode": _encode,
    "bytes": _no_bytes,
}


def _int_line(m: _Machine) -> Any:
    text = m.line()
    if text in (b"00", b"01"):
        return text == b"01"
    if len(text) > 40:
        raise ValueError("a number of more than 40 digits")
    return int(text.rstrip(b"L"))


def _long(m: _Machine, size: int) -> int:
    if size > 64:
        raise ValueError("a number of more than 64 bytes")
    return int.from_bytes(m.take(size), "little", signed=True)


def _old_text(piece: bytes) -> str:
    return piece.decode("latin-1")


def _quoted(m: _Machine) -> str:
    text = m.line().strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"') or b"\\" in text:
        raise _RefusedError("a quoted text with escapes")
    return _old_text(text[1:-1])


def _pushes(get: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.push(get(m))


def _last(n: int) -> Callable[[_Machine], None]:
    def pack(m: _Machine) -> None:
        items = m.stack[-n:]
        if len(items) < n:
            raise IndexError("too few objects for a tuple")
        del m.stack[-n:]
        m.push(tuple(items))

    return pack


def _put(m: _Machine, key: int) -> None:
    m.memo[key] = m.stack[-1]


def _two(m: _Machine) -> list[Any]:
    value, key = m.stack.pop(), m.stack.pop()
    return [key, value]


def _dict_of(m: _Machine) -> None:
    items = m.since_mark()
    m.push({})
    m.set_items(items)


def _global(m: _Machine) -> None:
    module, attribute = m.line().decode("ascii"), m.line().decode("ascii")
    m.name(module, attribute)


def _float(m: _Machine) -> float:
    return float(np.frombuffer(m.take(8), ">f8")[0])


# Python 2's str is read as latin-1 text; where it is an array's content, `_fill` turns it back into bytes.
_OPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda m: _check_version(m.uint(1)),
    b"\x95": lambda m: _check_frame(m.uint(8)),
    b"(": lambda m: m.push(_MARK),
    b"0": lambda m: _drop(m.stack.pop()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _pushes(_int_line),
    b"L": _pushes(_int_line),
    b"J": _pushes(lambda m: int.from_bytes(m.take(4), "little", signed=True)),
    b"K": _pushes(lambda m: m.uint(1)),
    b"M": _pushes(lambda m: m.uint(2)),
    b"\x8a": _pushes(lambda m: _long(m, m.uint(1))),
    b"\x8b": _pushes(lambda m: _long(m, m.uint(4))),
    b"F": _pushes(lambda m: float(m.line())),
    b"G": _pushes(_float),
    b"S": _pushes(_quoted),
    b"T": _pushes(lambda m: _old_text(m.take(m.uint(4)))),
    b"U": _pushes(lambda m: _old_text(m.take(m.uint(1)))),
    b"X": _pushes(lambda m: m.take(m.uint(4)).decode("utf-8")),
    b"\x8c": _pushes(lambda m: m.take(m.uint(1)).decode("utf-8")),
    b"\x8d": _pushes(lambda m: m.take(m.uint(8)).decode("utf-8")),
    b"V": _pushes(lambda m: m.line().decode("raw-unicode-escape")),
    b"B": _pushes(lambda m: m.take(m.uint(4))),
    b"C": _pushes(lambda m: m.take(m.uint(1))),
    b"\x8e": _pushes(lambda m: m.take(m.uint(8))),
    b"\x96": _pushes(lambda m: m.take(m.uint(8))),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.since_mark()),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.since_mark()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": _last(1),
    b"\x86": _last(2),
    b"\x87": _last(3),
    b"}": lambda m: m.push({}),
    b"d": _dict_of,
    b"s": lambda m: m.set_items(_two(m)),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"p": lambda m: _put(m, int(m.line())),
    b"q": lambda m: _put(m, m.uint(1)),
    b"r": lambda m: _put(m, m.uint(4)),
    b"\x94": lambda m: _put(m, len(m.memo)),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.uint(1)]),
    b"j": lambda m: m.push(m.memo[m.uint(4)]),
    b"c": _global,
    b"\x93": _Machine.stack_global,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}


def _check_version(version: int) -> None:
    if version > 5:
        raise ValueError(f"version {version} of the format")


def _check_frame(size: int) -> None:
    del size  # frames only say how much may be read at once


def _drop(value: Any) -> None:
    del value
