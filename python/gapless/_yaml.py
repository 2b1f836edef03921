"""YAML 1.2 for recipes: plain data in, plain data out, nothing executed, and errors that name the line."""

from __future__ import annotations

import io
import math
import re
from typing import Any

from gapless.errors import RecipeError

__all__ = ["dump", "load", "load_value"]

_MOST_BYTES = 4 << 20
_MOST_DEPTH = 40
_PLAIN = (str, int, float, bool, type(None))


def _parser() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    yaml.allow_duplicate_keys = False
    return yaml


def _check_events(text: str, what: str) -> None:
    """Refuse tags, anchors, deep nesting and more than one document before anything is built."""
    from ruamel.yaml import events

    depth = documents = 0
    for event in _parser().parse(io.StringIO(text)):
        line = event.start_mark.line + 1
        if isinstance(event, events.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise RecipeError(f"{what}, line {line}: a second document begins here; a recipe is one")
            if getattr(event, "version", None) not in (None, (1, 2)) or getattr(event, "tags", None):
                raise RecipeError(f"{what}, line {line}: % directives are not allowed: a recipe is YAML 1.2")
        if isinstance(event, events.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise RecipeError(
                f"{what}, line {line}: anchors and aliases (& and *) are not allowed: write the value out"
            )
        tag = getattr(event, "tag", None)
        if tag is not None and str(tag) != "!":
            raise RecipeError(f"{what}, line {line}: tags ({tag}) are not allowed: a recipe is plain data")
        if isinstance(event, (events.MappingStartEvent, events.SequenceStartEvent)):
            depth += 1
            if depth > _MOST_DEPTH:
                raise RecipeError(f"{what}, line {line}: nested more than {_MOST_DEPTH} levels deep")
        if isinstance(event, (events.MappingEndEvent, events.SequenceEndEvent)):
            depth -= 1


def _check_plain(value: Any, what: str, where: str, numbers: bool = False) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str) and not (numbers and type(key) is int):
                raise RecipeError(
                    f"{what}: {where or 'the document'} has the key {key!r}; keys must be words (quote it?)"
                )
            _check_plain(inner, what, f"{where}.{key}" if where else str(key), numbers)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_plain(inner, what, f"{where}[{i}]", numbers)
    elif not isinstance(value, _PLAIN):
        raise RecipeError(f"{what}: {where} is {value!r} (a {type(value).__name__}): quote it if it is text")


def load(text: str, what: str = "recipe", *, number_keys: bool = False) -> Any:
    """Return the plain data (dict, list, str, int, float, bool, None) that `text` says.

    `number_keys`: whole numbers may be keys, as in YOLO's ``names: {0: cat}``.

    Raises
    ------
    RecipeError
        Not YAML, a key twice, a tag, an alias, more than one document, or too large; the message has the
        line.

    Examples
    --------
    >>> load("lr: 1e-3\\nnesterov: no\\n")
    {'lr': 0.001, 'nesterov': 'no'}
    """
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > _MOST_BYTES:
        raise RecipeError(f"{what}: {len(text)} characters are too many for a recipe (at most {_MOST_BYTES})")
    try:
        _check_events(text, what)
        value = _parser().load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = " ".join(str(error.problem or error.context or "not YAML").split())
        raise RecipeError(f"{what}{place}: {problem}") from None
    except YAMLError as error:
        raise RecipeError(f"{what}: {' '.join(str(error).split())}") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        NotImplementedError,
        OverflowError,
    ) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{what}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise RecipeError(f"{what}: nested too deep") from None
    _check_plain(value, what, "", number_keys)
    return value


def load_value(text: str, what: str) -> Any:
    """Return the value of one ``-o key=value``; an empty one is the empty string."""
    return load(text, what) if text.strip() else ""


# ---- writing ----

_WIDTH = 108
# words that need no quotes; what begins with a digit, a sign or a point could be read as a number
_BARE = re.compile(r"[^\W\d][\w./+-]*(?: [\w./+-]+)*|/[\w./+-]*")
_OTHER = frozenset(
    ["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
)  # not text to some reader of YAML


def dump(value: Any) -> str:
    """Return `value` (plain data) as YAML that `load` reads back exactly.

    Examples
    --------
    >>> print(dump({"lr": 1e-5, "train": [{"name": "Resize", "size": [96, 128]}]}), end="")
    lr: 1.0e-05
    train:
    - {name: Resize, size: [96, 128]}
    """
    if isinstance(value, (dict, list)) and value:
        return "\n".join(_block(value, 0)) + "\n"
    return _flow(value) + "\n"


def _block(value: Any, indent: int) -> list[str]:
    """Lines of a mapping or list; what fits on a line and is not nested deep stays on it."""
    pad, lines = " " * indent, []
    if isinstance(value, dict):
        for key, inner in value.items():
            head = f"{pad}{_text(key)}:"
            if _fits(inner, indent + len(head)):
                lines.append(f"{head} {_flow(inner)}")
            elif _only_scalars(inner):
                lines += [head, *_wrapped(inner, indent + 2)]
            else:
                lines += [head, *_block(inner, indent + (0 if isinstance(inner, list) else 2))]
        return lines
    for inner in value:
        if _fits(inner, indent + 2):
            lines.append(f"{pad}- {_flow(inner)}")
        else:
            first, *rest = _wrapped(inner, indent + 2) if _only_scalars(inner) else _block(inner, indent + 2)
            lines += [f"{pad}- {first.lstrip()}", *rest]
    return lines


def _fits(value: Any, used: int) -> bool:
    if not isinstance(value, (dict, list)) or not value:
        return True
    inner = value.values() if isinstance(value, dict) else value
    if any(isinstance(v, dict) and v for v in inner):
        return False
    return used + len(_flow(value)) < _WIDTH


def _only_scalars(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(v, (dict, list)) for v in value)


def _wrapped(value: list[Any], indent: int) -> list[str]:
    """A long list of scalars, several on a line."""
    pad = " " * indent
    lines, now = [], pad + "["
    for k, item in enumerate(value):
        word = _flow(item) + ("]" if k == len(value) - 1 else ", ")
        if len(now) + len(word) > _WIDTH and now.strip():
            lines.append(now.rstrip())
            now = pad + " "
        now += word
    return [*lines, now.rstrip()]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return str(value) if isinstance(value, int) else _text(value)


def _float(value: float) -> str:
    """Every bit, and a point, so that it stays a float."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _OTHER and text.isprintable():
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
