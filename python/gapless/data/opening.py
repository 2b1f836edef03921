"""Opening data by a recipe's ``data`` section, or by the one word that the command line takes."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from gapless.data.assemble import assemble
from gapless.data.dataset import Data
from gapless.data.sources import LIVE, MODULES
from gapless.data.sources.cifar import looks_like_cifar
from gapless.data.sources.idx import installed, looks_like_idx
from gapless.data.sources.list_file import looks_like_list
from gapless.errors import DataError, RecipeError

__all__ = ["SPEC_KEYS", "check_spec", "open", "resolve"]

_COMMON = ("split", "val", "group_by", "seed", "channels", "on_unreadable", "max_pixels")
_SOURCE_OPTIONS = ("classes", "root", "encoding", "path_column", "label_column", "delimiter")
SPEC_KEYS = (*MODULES, *LIVE, *_COMMON, *_SOURCE_OPTIONS)  # every key that some spec may have
_TEXTS = ("root", "encoding", "path_column", "label_column", "delimiter")
_PATHS = ("folder", "list", "idx", "cifar", "root")


def open(
    spec: Mapping[str, Any] | str | os.PathLike[str],
    manifest: Mapping[str, Any] | None = None,
    base: str | os.PathLike[str] | None = None,
    *,
    progress: bool | None = None,
    threads: int | None = None,
    **override: Any,
) -> Data:
    """The data that a spec describes.

    Parameters
    ----------
    spec : mapping, or str
        ``{"folder": "flowers/", "split": [0.8, 0.1, 0.1]}``: exactly one of folder, list, digits, idx, cifar,
        and the options of the function of that name. Text is resolved as `resolve` does.
    manifest : mapping, optional
        What was recorded. Nothing is drawn then: samples and splits are the manifest's, and it is an error if
        samples are missing, unreadable, or have other pixels.
    base : path, optional
        What relative paths are relative to; default: the current folder.
    progress, threads
        As in `folder`.
    **override
        Options that take the place of those in the spec.

    Returns
    -------
    Data

    Raises
    ------
    RecipeError
        If a key is unknown; the nearest one is named.
    DataError
        If the data is not there, or not what the manifest records.

    Examples
    --------
    >>> data = open({"digits": True, "split": [0.5, 0.5]})
    >>> again = open(data.spec, data.manifest())
    >>> again.manifest_digest == data.manifest_digest
    True
    """
    if not isinstance(spec, Mapping):
        spec = _spec_of(os.fspath(spec), base)
    spec = {**spec, **override}
    source = check_spec(spec)
    if source in LIVE:
        raise DataError(
            f"data: came from {LIVE[source]}(…) of a program ({spec[source]!r}); make it again there "
            "and hand it over: "
            "evaluate(checkpoint, data=…), or Data.with_manifest(…) to compare it with what was recorded"
        )
    _check_types(source, spec)
    module = import_module(f"gapless.data.sources.{MODULES[source]}")
    own = {k: _absolute(k, v, base) for k, v in spec.items() if k != source and k not in _COMMON}
    listing = module.listing(_absolute(source, spec[source], base), **own)
    common = {k: _absolute(k, v, base) for k, v in spec.items() if k in _COMMON}
    if manifest is None and "manifest" in (common.get("split"), common.get("group_by")):
        raise DataError(
            "data: its split was recorded in a manifest, and is not drawn again; give the manifest"
        )
    if manifest is not None:  # they were at work when it was made
        for key in ("split", "val", "group_by"):
            common.pop(key, None)
    data = assemble(listing, manifest=manifest, progress=progress, threads=threads, **common)
    if manifest is not None:
        data.spec = {**listing.spec, **{k: _absolute(k, spec[k], base) for k in _COMMON if k in spec}}
    return data


def check_spec(spec: Mapping[str, Any]) -> str:
    """The source that a spec names, after checking that it knows all the keys.

    Examples
    --------
    >>> check_spec({"folder": "x", "splt": [0.8, 0.2]})
    Traceback (most recent call last):
    ...
    gapless.errors.RecipeError: data: unknown key 'splt'; did you mean 'split'?
    """
    known = [*MODULES, *LIVE]
    sources = [k for k in spec if k in known]
    if len(sources) > 1:
        raise RecipeError(f"data: {' and '.join(sources)}: only one source can be given")
    options: list[str] = list(_COMMON)
    if sources and sources[0] in MODULES:
        module = import_module(f"gapless.data.sources.{MODULES[sources[0]]}")
        options += list(inspect.signature(module.listing).parameters)[1:]
    for key in spec:
        if key in sources or key in options:
            continue
        near = difflib.get_close_matches(str(key), [*options, *([] if sources else known)], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(options)}"
        raise RecipeError(f"data: unknown key {key!r}; {hint}")
    if not sources:
        raise RecipeError(
            f"data: no source; expected one of {', '.join(MODULES)}, such as data: {{folder: flowers/}}"
        )
    return sources[0]


def _check_types(source: str, spec: Mapping[str, Any]) -> None:
    """The options that are text, where a file can hold anything."""
    for key, value in spec.items():
        if key in (*_TEXTS, *(() if source in ("list", "digits") else (source,))):
            if not isinstance(value, (str, os.PathLike)):
                raise RecipeError(f"data.{key}: expected text, got {value!r}")
        elif key == "list":
            values = value.values() if isinstance(value, Mapping) and value else [value]
            if not all(isinstance(v, (str, os.PathLike)) for v in values):
                raise RecipeError(f"data.list: expected a path, or a path per split, got {value!r}")


def _absolute(key: str, value: Any, base: str | os.PathLike[str] | None) -> Any:
    """Paths made absolute, so that what is stored means the same from any folder."""
    if key == "list" and isinstance(value, Mapping):
        return {k: _absolute("list", v, base) for k, v in value.items()}
    if key in ("split", "classes"):
        if not isinstance(value, (str, os.PathLike)) or value == "manifest":
            return value
    elif key not in _PATHS or not isinstance(value, (str, os.PathLike)):
        return value
    path = Path(base or ".") / os.path.expanduser(os.fspath(value))
    if key == "idx" and not path.exists():
        return os.fspath(value)  # may be the name of an installed set
    return os.path.abspath(path)


def _spec_of(text: str, base: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The spec that one word means."""
    path = Path(base or ".") / os.path.expanduser(text)
    if text == "digits" and not path.exists():
        return {"digits": True}
    if not path.exists() and installed(text) is not None:
        return {"idx": installed(text)}
    if path.is_dir():
        kind = "idx" if looks_like_idx(str(path)) else "cifar" if looks_like_cifar(str(path)) else "folder"
        lists = {k: path / f"{k}_list.txt" for k in ("train", "val", "test")} if kind == "folder" else {}
        if lists and lists["train"].is_file():  # as PaddleClas lays out its sets
            return {"list": {k: str(f.resolve()) for k, f in lists.items() if f.is_file()}}
        return {kind: os.path.abspath(path)}
    if path.is_file():
        if looks_like_list(str(path)):
            return {"list": os.path.abspath(path)}
        raise DataError(f"data: {path} is a file, but no list (.csv, .tsv, .txt) of pictures")
    near = difflib.get_close_matches(text, ["digits"], 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(
        f"data: there is no {os.path.abspath(path)}{hint}; expected 'digits', a folder of pictures, a "
        "list file, or a folder "
        "with IDX or CIFAR files"
    )


def resolve(text: str | os.PathLike[str], base: str | os.PathLike[str] | None = None, **options: Any) -> Data:
    """The data that one word means: ``digits``, a folder, a list file, an IDX or CIFAR folder.

    Parameters
    ----------
    text : str or path
    base : path, optional
        What a relative path is relative to.
    **options
        As the function for that kind of data takes, such as ``split=(0.9, 0.1)``.

    Returns
    -------
    Data

    Examples
    --------
    >>> resolve("digits").num_classes
    10
    """
    return open(os.fspath(text), base=base, **options)
