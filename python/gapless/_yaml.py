"""YAML 1.2 for recipes: plain data in, plain data out, nothing executed, and errors that name the line."""

from __future__ import annotations

import io
import math
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


def _check_plain(value: Any, what: str, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise RecipeError(
                    f"{what}: {where or 'the document'} has the key {key!r}; keys must be words (quote it?)"
                )
            _check_plain(inner, what, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check_plain(inner, what, f"{where}[{i}]")
    elif not isinstance(value, _PLAIN):
        raise RecipeError(f"{what}: {where} is {value!r} (a {type(value).__name__}): quote it if it is text")


def load(text: str, what: str = "recipe") -> Any:
    """Return the plain data (dict, list, str, int, float, bool, None) that `text` says.

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
    _check_plain(value, what, "")
    return value


def load_value(text: str, what: str) -> Any:
    """Return the value of one ``-o key=value``; an empty one is the empty string."""
    return load(text, what) if text.strip() else ""


def dump(value: Any) -> str:
    """Return `value` (plain data) as YAML that `load` reads back exactly."""
    out = io.StringIO()
    _emitter().dump(value, out)
    return out.getvalue()


def _emitter() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """Floats that keep every bit and stay floats; short lists on one line."""

    def represent_float(self: Any, value: float) -> Any:
        if not math.isfinite(value):
            text = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        else:
            text = repr(value)
            if "e" in text and "." not in text:
                text = text.replace("e", ".0e", 1)
        return self.represent_scalar("tag:yaml.org,2002:float", text)

    Representer.add_representer(float, represent_float)
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.version = None
    yaml.default_flow_style = None
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 160
    return yaml
