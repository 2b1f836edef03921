"""The parts of a recipe that name things: optimizer, loss, schedule, augmentations.

Whatever form they come in (an object, a name, ``{name: SGD, lr: 0.1}``, ``SGD: {lr: 0.1}``), what is kept is
one canonical form: a dict with the name and every parameter, checked against the core's tables.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gapless import _peers, schedule
from gapless.errors import RecipeError

__all__ = [
    "FAMILIES",
    "canonical_pipeline",
    "canonical_schedule",
    "canonical_section",
    "next_id",
    "plain",
    "rows",
]

# recipe key -> family in the core's tables
FAMILIES = {
    "optimizer": "optimizers",
    "loss": "losses",
    "train": "augments",
    "eval": "augments",
    "mix": "augments",
}


@functools.cache
def rows(family: str) -> dict[str, dict[str, Any]]:
    """Return the table of a family by name."""
    from gapless import _core

    return {row["name"]: row for row in _core.describe()[family]}


def plain(value: Any, where: str) -> Any:
    """Return `value` as plain data: tuples become lists, NumPy scalars numbers, paths text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "__fspath__"):
        return str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise RecipeError(
        f"{where}: a {type(value).__name__} cannot stand in a recipe: it holds names, numbers and lists"
    )


def canonical_section(family: str, value: Any, where: str, *, default: str | None = None) -> dict[str, Any]:
    """Return ``{"name": …, every parameter}`` for one thing of a family.

    With `default`, a dict without a name means the default's parameters; it stays partial (only what was
    said).
    """
    name, given = _split(family, value, where, default)
    if name is None:
        assert default is not None
        return _parameters(rows(family)[default], given, where, fill=False)
    table = rows(family)
    if name not in table:
        raise RecipeError(f"{where}: {_unknown(name, table)}")
    return {"name": name, **_parameters(table[name], given, f"{where}.{name}" if "[" in where else where)}


def _split(family: str, value: Any, where: str, default: str | None) -> tuple[str | None, Any]:
    """Take any form apart into name and parameters; the parameters may be a bare value for the first of
    them."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, type) and hasattr(value, "config"):
        raise RecipeError(f"{where}: got the class {value.__name__}; call it: {value.__name__}()")
    if not isinstance(value, Mapping):
        if hasattr(value, "config") and hasattr(value, "name"):
            return str(value.name), dict(value.config())
        raise RecipeError(f"{where}: must be a name, or a name with parameters, got {value!r}")
    given = dict(value)
    if "name" in given:
        name = given.pop("name")
        if not isinstance(name, str):
            raise RecipeError(f"{where}.name: must be a word, got {name!r}")
        return name, given
    table = rows(family)
    if len(given) == 1:
        (name, inner), *_ = given.items()
        own = default is not None and any(p["name"] == name for p in table[default]["params"])
        if default is None or name in table or (not own and (_peers.name_hint(name) or name[:1].isupper())):
            return name, {} if inner is None else inner
    if default is not None:
        return None, given
    raise RecipeError(f"{where}: needs a name, one of {', '.join(table)}")


def _unknown(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    hint = _peers.name_hint(name)
    near = _peers.nearest(name, known)
    if hint is not None:
        return f"unknown {name!r} ({hint})"
    if near is not None:
        return f"unknown {name!r}; did you mean {near!r}?"
    return f"unknown {name!r}; there are {', '.join(known)}"


def _parameters(row: Mapping[str, Any], given: Any, where: str, *, fill: bool = True) -> dict[str, Any]:
    params = row["params"]
    if not isinstance(given, Mapping):
        if not params:
            raise RecipeError(f"{where}: {row['name']} takes no parameters, got {given!r}")
        given = {params[0]["name"]: given}
    known = {p["name"]: p for p in params}
    for key in given:
        if key not in known:
            raise RecipeError(f"{where}.{key}: {_unknown_parameter(row['name'], key, known)}")
    checked = {}
    for p in params:
        if p["name"] in given:
            checked[p["name"]] = _value(p, given[p["name"]], f"{where}.{p['name']}")
        elif fill and p["required"]:
            raise RecipeError(f"{where}: {row['name']} needs {p['name']} ({p['doc']})")
        elif fill:
            checked[p["name"]] = _short(p, plain(p["default"], where))
    if fill:
        _check_together(row, checked, where)
    return checked


def _check_together(row: Mapping[str, Any], checked: Mapping[str, Any], where: str) -> None:
    """What ranges alone cannot say (a lower bound below an upper one) is the row's own code to check."""
    from gapless import _core

    family = next(f for f in ("optimizers", "losses", "augments") if rows(f).get(row["name"]) is row)
    try:
        _core.check_config(family, row["name"], {k: v for k, v in checked.items() if v is not None})
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}: {error}") from None


def _unknown_parameter(owner: str, key: str, known: Mapping[str, Any]) -> str:
    near = _peers.nearest(str(key), known)
    if near is not None:
        return f"{owner} has no such parameter; did you mean {near!r}?"
    hint = _peers.key_hint(str(key))
    if hint is not None:
        return f"{owner} has no such parameter ({hint})"
    return f"{owner} has no such parameter; it takes {', '.join(known) or 'none'}"


def _short(p: Mapping[str, Any], value: Any) -> Any:
    """One number for a list of one and for a square pair, so that one meaning has one spelling."""
    if isinstance(value, list) and value:
        if p["kind"] in ("floats", "ints") and len(value) == 1:
            return value[0]
        if p["kind"] == "pair" and len(value) == 2 and value[0] == value[1]:
            return value[0]
    return value


def _value(p: Mapping[str, Any], value: Any, where: str) -> Any:
    """Check one parameter's value by its kind and range; return its canonical form."""
    value = plain(value, where)
    kind = p["kind"]
    if value is None:
        if p["optional"]:
            return None
        raise RecipeError(f"{where}: must be {_KINDS[kind]}, got nothing (null)")
    if kind == "bool":
        if not isinstance(value, bool):
            raise RecipeError(f"{where}: must be true or false, got {value!r}")
        return value
    if kind == "enum":
        if value not in p["choices"]:
            near = _peers.nearest(str(value), p["choices"])
            hint = f"; did you mean {near!r}?" if near else ""
            raise RecipeError(f"{where}: must be one of {', '.join(p['choices'])}, got {value!r}{hint}")
        return value
    many = isinstance(value, list)
    if many and (kind in ("int", "float") or (kind == "pair" and len(value) != 2) or not value):
        raise RecipeError(f"{where}: must be {_KINDS[kind]}, got {value!r}")
    cast = _real if kind in ("float", "floats") else _whole
    numbers = [
        cast(p, v, f"{where}[{i}]" if many else where) for i, v in enumerate(value if many else [value])
    ]
    return _short(p, numbers if many else numbers[0])


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "enum": "a word",
    "pair": "one whole number or a pair of them",
    "floats": "a number or a list of numbers",
    "ints": "a whole number or a list of them",
}


def _whole(p: Mapping[str, Any], value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecipeError(f"{where}: must be a whole number, got {value!r}")
    _range(p, value, where)
    return value


def _real(p: Mapping[str, Any], value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecipeError(f"{where}: must be a number, got {value!r}")
    if not math.isfinite(value):
        raise RecipeError(f"{where}: must be finite, got {value!r}")
    _range(p, value, where)
    return float(value)


def _range(p: Mapping[str, Any], value: float, where: str) -> None:
    low, high = p["lo"], p["hi"]
    below = low is not None and (value < low or (p["lo_open"] and value == low))
    above = high is not None and (value > high or (p["hi_open"] and value == high))
    if below or above:
        left = "(-inf" if low is None else f"{'(' if p['lo_open'] else '['}{low:g}"
        right = "inf)" if high is None else f"{high:g}{')' if p['hi_open'] else ']'}"
        raise RecipeError(f"{where}: must be in {left}, {right}, got {value!r}")


def next_id(ops: Sequence[Mapping[str, Any]]) -> int:
    """Return the smallest id above all that are in use: a removed op's number is not given again."""
    return max((int(op["id"]) for op in ops if op.get("id") is not None), default=-1) + 1


def canonical_pipeline(value: Any, where: str) -> list[dict[str, Any]]:
    """Return a pipeline as a list of ``{"name", "id", every parameter}``.

    An id is an op's fixed number in the recipe: its random draws depend on it, not on its place in the list,
    so that removing one op changes no other op's draws. Ops without one get the next free numbers, in order.
    """
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        if hasattr(value, "config") and not isinstance(value, (str, Mapping)):  # a Pipeline object
            inner = value.config()
            value = inner if isinstance(inner, list) else [value]
        else:
            raise RecipeError(f"{where}: must be a list of augmentations, got {value!r}")
    ops: list[dict[str, Any]] = []
    for i, item in enumerate(value):
        ident = None
        if isinstance(item, Mapping) and "id" in item:
            item = dict(item)
            ident = item.pop("id")
            if isinstance(ident, bool) or not isinstance(ident, int) or not 0 <= ident < 2**16:
                raise RecipeError(f"{where}[{i}].id: must be a whole number in [0, 65535], got {ident!r}")
        section = canonical_section("augments", item, f"{where}[{i}]")
        ops.append({"name": section.pop("name"), "id": ident, **section})
    taken = [op["id"] for op in ops if op["id"] is not None]
    if len(set(taken)) != len(taken):
        raise RecipeError(f"{where}: two ops have the same id; each needs its own number")
    for op in ops:
        if op["id"] is None:
            op["id"] = next_id(ops)
    _check_order(ops, where)
    return ops


def _check_order(ops: Sequence[Mapping[str, Any]], where: str) -> None:
    table = rows("augments")
    for i, op in enumerate(ops):
        row = table[op["name"]]
        if row.get("last") and i != len(ops) - 1:
            raise RecipeError(f"{where}[{i}]: {op['name']} must be the last op of the pipeline")
        if row.get("random") and where == "eval":
            from gapless.data.pipeline import RandomInEvaluationError

            raise RandomInEvaluationError(
                f"{where}[{i}]: {op['name']} draws at random, and evaluation must not: leave it to train"
            )


def canonical_schedule(value: Any, where: str, *, default: str | None = None) -> dict[str, Any]:
    """Return ``{"name": …, every parameter}`` of a schedule; partial without a name, as in
    `canonical_section`."""
    if callable(value) and not isinstance(value, (type, schedule.Schedule)):
        value = schedule.Lambda(value)
    if isinstance(value, schedule.Schedule):
        return _said(value)
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: must be a schedule's name, or a name with parameters, got {value!r}")
    given = {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if "name" not in given and len(given) == 1:
        ((key, inner),) = given.items()
        own = default is not None and key in schedule.parameters(default)
        if key in schedule.names() or (not own and (_peers.name_hint(key) or key[:1].isupper())):
            given = {"name": key, **(inner or {})} if isinstance(inner, (Mapping, type(None))) else given
    partial = "name" not in given
    if partial and default is None:
        raise RecipeError(f"{where}: needs a name, one of {', '.join(schedule.names())}")
    name = given.get("name", default)
    if name not in schedule.names():
        raise RecipeError(f"{where}.name: {_unknown(str(name), schedule.names())}")
    known = schedule.parameters(name)
    accepted = {*known, "name", "warmup_epochs", "warmup_steps", "warmup_start", "inside"}
    for key in given:
        if key not in accepted:
            raise RecipeError(f"{where}.{key}: {_unknown_parameter(name, key, dict.fromkeys(known))}")
    made = schedule.from_config({**given, "name": name})
    return given if partial else _said(made)


def _said(made: schedule.Schedule) -> dict[str, Any]:
    return {"name": made.name, **{key: value for key, value in made.config().items() if value is not None}}
