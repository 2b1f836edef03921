"""Python classes made from the C core's tables: signature, documentation, repr and config come from a row.

A row is one C file (``csrc/layers/conv2d.c``); nothing about it is written again in Python. The objects are
plain, immutable values: what they hold is their config, and what checks a config is the row's own code in C.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Self

from gapless import _core

__all__ = ["Configured", "Param", "Row", "make_classes", "parameters_section", "rows"]

_ANNOTATION = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "pair": "int | tuple[int, int]",
    "enum": "str",
    "floats": "float | tuple[float, ...]",
    "ints": "int | tuple[int, ...]",
}


class Param:
    """One parameter of a row."""

    __slots__ = (
        "choices",
        "default",
        "doc",
        "hi",
        "hi_open",
        "kind",
        "lo",
        "lo_open",
        "name",
        "optional",
        "required",
    )

    name: str
    kind: str
    required: bool
    optional: bool
    default: Any
    lo: float | None
    hi: float | None
    lo_open: bool
    hi_open: bool
    choices: tuple[str, ...]
    doc: str

    def __init__(self, fields: Mapping[str, Any]) -> None:
        for key in self.__slots__:
            setattr(self, key, fields[key])

    @property
    def annotation(self) -> str:
        """Its type as a stub spells it."""
        if self.kind == "enum":
            text = f"Literal[{', '.join(repr(c) for c in self.choices)}]"
        else:
            text = _ANNOTATION[self.kind]
        return f"{text} | None" if self.optional else text

    @property
    def range_text(self) -> str:
        """Its range in words, or ''."""
        if self.kind in ("bool", "enum") or (self.lo is None and self.hi is None):
            return ""
        if self.hi is None:
            return f"{'>' if self.lo_open else '>='} {self.lo:g}"
        if self.lo is None:
            return f"{'<' if self.hi_open else '<='} {self.hi:g}"
        if self.lo == self.hi:
            return f"only {self.lo:g}"
        return f"{'(' if self.lo_open else '['}{self.lo:g}, {self.hi:g}{')' if self.hi_open else ']'}"

    @property
    def example(self) -> Any:
        """A value inside the range, for documentation and tests of a required parameter."""
        if not self.required:
            return self.default
        lo = 0.0 if self.lo is None else self.lo
        hi = math.inf if self.hi is None else self.hi
        if self.kind == "enum":
            return self.choices[0]
        if self.kind == "bool":
            return True
        if self.kind in ("float", "floats"):
            return (lo + hi) / 2 if math.isfinite(hi) else lo + 0.5
        return int(min(max(3 if self.kind == "pair" else 8, lo), hi))


class Row:
    """One row of a table: a layer, loss, optimizer or augmentation."""

    __slots__ = ("doc", "facts", "family", "name", "params")

    def __init__(self, family: str, fields: Mapping[str, Any]) -> None:
        self.family = family
        self.name: str = fields["name"]
        self.doc: str = fields["doc"]
        self.params = tuple(Param(p) for p in fields["params"])
        #: what only this family has: min_in and max_in, slots, random and last
        self.facts = {k: v for k, v in fields.items() if k not in ("name", "doc", "params")}

    def example_args(self) -> tuple[Any, ...]:
        """Values for the required parameters."""
        return tuple(p.example for p in self.params if p.required)

    def call_text(self) -> str:
        """How it is called: ``Conv2d(in_channels, …, stride=1, …)``."""
        parts = (p.name if p.required else f"{p.name}={p.default!r}" for p in self.params)
        return f"{self.name}({', '.join(parts)})"

    def signature(self) -> inspect.Signature:
        """The constructor's signature, without ``self``."""
        made, seen_default = [], False
        for p in self.params:
            seen_default |= not p.required
            kind = (
                inspect.Parameter.KEYWORD_ONLY
                if p.required and seen_default
                else inspect.Parameter.POSITIONAL_OR_KEYWORD
            )
            default = inspect.Parameter.empty if p.required else p.default
            made.append(inspect.Parameter(p.name, kind, default=default, annotation=p.annotation))
        made.sort(key=lambda p: p.kind)
        return inspect.Signature(made)


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, Row]]:
    return {family: {r["name"]: Row(family, r) for r in table} for family, table in _core.describe().items()}


def rows(family: str) -> dict[str, Row]:
    """Rows of ``"layers"``, ``"losses"``, ``"optimizers"`` or ``"augments"`` by name."""
    return _tables()[family]


def _plain(value: Any) -> Any:
    """A config's value as JSON and YAML spell it."""
    return list(value) if isinstance(value, tuple) else value


class Configured:
    """Base of the classes made from rows: an immutable value that is its config.

    Attributes
    ----------
    name : str
        The row's name, as recipes and checkpoints spell it.
    """

    name: ClassVar[str]
    __signature__: ClassVar[inspect.Signature]
    _row: ClassVar[Row]
    #: keywords that other libraries take and that change no number here
    _ignored: ClassVar[frozenset[str]] = frozenset()
    _config: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        row = self._row
        if len(args) > len(row.params):
            raise TypeError(f"{row.name}: takes at most {len(row.params)} parameters, got {len(args)}")
        given = {p.name: value for p, value in zip(row.params, args, strict=False)}
        for key, value in self._translate(kwargs).items():
            if key in given:
                raise TypeError(f"{row.name}: {key} is given twice")
            if key not in self._ignored:
                given[key] = value
        missing = [p.name for p in row.params if p.required and p.name not in given]
        # An unknown name is the better message when both are wrong: it is often the missing one, misspelt.
        if missing and all(any(p.name == key for p in row.params) for key in given):
            names = ", ".join(map(repr, missing))
            raise TypeError(f"{row.name}: missing {names}; write {row.call_text()}")
        object.__setattr__(self, "_config", _core.check_config(row.family, row.name, given))

    @classmethod
    def _translate(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Other spellings of the row's parameters (``betas=``), where a family has some."""
        return kwargs

    def config(self) -> dict[str, Any]:
        """All parameters, by name: numbers, booleans, strings, None and lists, as JSON and YAML hold them."""
        return {key: _plain(value) for key, value in self._config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """An object with this config; what is left out has its default.

        A key ``name`` is accepted when it is this class's own name.
        """
        given = dict(config)
        name = given.pop("name", cls.name) if not any(p.name == "name" for p in cls._row.params) else cls.name
        if name != cls.name:
            raise ValueError(f"{cls.name}: the config is of {name!r}")
        return cls(**given)

    def clone(self) -> Self:
        """Another object with the same config."""
        return type(self).from_config(self.config())

    def replace(self, **changes: Any) -> Self:
        """Another object with some parameters changed."""
        return type(self).from_config({**self.config(), **self._translate(changes)})

    def __getattr__(self, name: str) -> Any:
        config = self.__dict__.get("_config", {})
        if name in config:
            return config[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"{type(self).__name__} cannot be changed; make another one with .replace({name}=…)"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Configured):
            return NotImplemented
        return type(self) is type(other) and self._config == other._config

    def __hash__(self) -> int:
        return hash((type(self), tuple(self._config.items())))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self._repr_parts())})"

    def _repr_parts(self) -> Iterator[str]:
        positional = True
        for p in self._row.params:
            value = self._config[p.name]
            if p.required:
                yield repr(value) if positional else f"{p.name}={value!r}"
            else:
                positional = False
                if value != p.default:
                    yield f"{p.name}={value!r}"

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._config})


def parameters_section(row: Row) -> str:
    """The ``Parameters`` section of a row's docstring, or ''."""
    if not row.params:
        return ""
    lines = ["Parameters", "----------"]
    for p in row.params:
        default = "" if p.required else f", default {p.default!r}"
        lines.append(f"{p.name} : {p.annotation}{default}")
        text = p.doc[:1].upper() + p.doc[1:]
        if p.range_text:
            text += f"; {p.range_text}"
        lines.append(f"    {text}.")
    return "\n".join(lines) + "\n"


def docstring(row: Row, module: str) -> str:
    """A numpydoc docstring: the row's own text, its parameters, an example that runs."""
    head, _, body = row.doc.strip().partition("\n\n")
    args = ", ".join(repr(a) for a in row.example_args())
    notes = f"\nNotes\n-----\n{body.strip()}\n" if body.strip() else ""
    parameters = parameters_section(row)
    call = f"{row.name}({args})"
    example = f"Examples\n--------\n>>> from {module} import {row.name}\n>>> {call}\n{call}\n"
    return "\n".join(
        part
        for part in (head + "\n", parameters + notes if parameters else notes.lstrip("\n"), example)
        if part
    )


def make_classes(family: str, base: type[Any], module: str) -> dict[str, type[Any]]:
    """Make one class per row of a family, derived from `base`, living in `module` (where pickle finds it).

    `base` must derive from `Configured`.
    """
    made: dict[str, type[Any]] = {}
    for row in rows(family).values():
        body = {
            "__doc__": docstring(row, module),
            "__module__": module,
            "__qualname__": row.name,
            "__signature__": row.signature(),
            "name": row.name,
            "_row": row,
        }
        made[row.name] = type(row.name, (base,), body)
    return made
