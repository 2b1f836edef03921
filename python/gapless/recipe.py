"""A recipe: one typed value that says everything that decides a run, the same in YAML and in Python.

``Recipe(...)`` takes live objects (data, a model, augmentations, an optimizer) or plain names and dicts;
what it keeps is plain data, checked at once: an unknown key is an error with the nearest name, and keys of
other tools are answered with what they are called here. What is left out is filled in by `resolve`, which
gives a reason for each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gapless import _peers, _sections, _yaml, schedule
from gapless.errors import GaplessError, RecipeError

__all__ = [
    "Recipe",
    "Resolved",
    "build_loss",
    "build_net",
    "build_optimizer",
    "build_pipeline",
    "build_schedule",
    "resolve",
]

DEFAULT_NAMES = {"optimizer": "SGD", "loss": "CrossEntropy", "schedule": "Cosine"}
_EMA_TAU = 2000.0  # steps; YOLOv5's ramp


_Side = Annotated[int, Meta(ge=1, le=65536)]


class _Fields(Struct, kw_only=True, forbid_unknown_fields=True):
    """Types and ranges of the keys; Recipe adds the meaning."""

    data: str | dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    image_size: Annotated[int, Meta(ge=1, le=65536)] | list[Annotated[int, Meta(ge=1, le=65536)]] | None = (
        None
    )
    train: list[dict[str, Any]] | None = None
    eval: list[dict[str, Any]] | None = None
    mix: list[dict[str, Any]] = []
    loss: dict[str, Any] | None = None
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    scale_lr: bool = False
    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    batch_size: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    precision: Literal["fast", "precise"] = "fast"
    ema: dict[str, float] | None = None
    pretrained: str | None = None
    freeze: list[str] = []
    recompute: list[str] = []
    decay_norm_and_bias: bool = True
    clip_norm: Annotated[float, Meta(gt=0)] | None = None
    drop_last: bool = False
    eval_every: Annotated[int, Meta(ge=1)] = 1
    monitor: str = "val/top1"
    early_stopping: Annotated[int, Meta(ge=1)] | None = None
    clean_samples: Annotated[int, Meta(ge=0)] | None = None
    topk: list[Annotated[int, Meta(ge=1)]] | None = None
    save_every_epochs: Annotated[int, Meta(ge=1)] | None = None
    save_every_seconds: Annotated[float, Meta(gt=0)] | None = 600.0
    keep_snapshots: bool = False
    test: bool = False
    on_unreadable: Literal["leave_out", "error"] = "leave_out"


KEYS: tuple[str, ...] = _Fields.__struct_fields__


class _Named(type(Struct)):  # type: ignore[misc]
    """Answers an unknown keyword as an unknown key of a file is answered."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if args:
            raise RecipeError(
                f"Recipe takes keywords only (data=…); a file is read by Recipe.from_yaml({args[0]!r})"
            )
        _check_keys(kwargs, "")
        return super().__call__(**kwargs)


class Recipe(_Fields, kw_only=True, forbid_unknown_fields=True, dict=True, metaclass=_Named):
    """Everything that decides a run.

    Parameters
    ----------
    data : Data or dict or str
        What `gapless.data.folder` and its siblings give, the same as a dict, or a path (or ``"digits"``).
    model : nn.Module or dict or str
        A module, a name from `gapless.models.list_models`, ``{name: resnet18, …}`` or ``{graph: FILE}``.
    image_size : int or (int, int)
        The size that the network is fed; both default pipelines follow from it.
    train, eval : list
        Augmentations of training and of evaluation. No op of `eval` may draw at random.
    mix : list
        Augmentations that mix the samples of a batch.
    loss, optimizer, schedule : object, dict or str
        ``gl.optim.SGD(lr=0.1)`` or ``{name: SGD, lr: 0.1}``; a dict without a name changes the default's
        parameters.
    scale_lr : bool
        Multiply the learning rate by batch_size / 256 (Goyal et al. 2017).
    epochs, batch_size, seed : int
        Length of the run, images per step, and the one seed of every random draw.
    precision : {"fast", "precise"}
        Named modes of arithmetic; evaluation repeats the mode.
    ema : float or {decay, tau}
        Average of the weights, with decay ramped as ``decay * (1 - exp(-step / tau))``.
    pretrained : path
        A .safetensors file to begin from; a head of another number of classes is made anew.
    freeze : list of str
        Names (or beginnings of names) of layers that stay as they are.
    recompute : list of str
        Layers whose values backward makes again instead of keeping them: less memory, more time, the same
        bits. Names ("layer1") or patterns ("layer*.*").
    decay_norm_and_bias : bool
        Weight decay on BatchNorm's parameters and biases too (as torch.optim does).
    clip_norm : float
        Largest norm of the whole gradient.
    drop_last : bool
        Leave out the last batch of an epoch where it is short.
    eval_every : int
        Epochs between evaluations.
    monitor : str
        The number that chooses the best checkpoint: "val/top1", "val/top5", "val/loss".
    early_stopping : int
        Evaluations without a better number after which training stops.
    clean_samples : int
        Training samples that evaluate() scores for train/clean; default min(validation size, 2000), 0 is off.
    topk : list of int
        The k of the top-k rates.
    save_every_epochs, save_every_seconds : int, float
        Snapshots for resuming.
    keep_snapshots : bool
        Keep each snapshot instead of the last one only.
    test : bool
        Evaluate the test split once, after training.
    on_unreadable : {"leave_out", "error"}
        What to do about unreadable files (beyond 1 % it is an error in any case).

    Examples
    --------
    >>> recipe = Recipe(data="digits", optimizer={"name": "SGD", "lr": 0.1}, epochs=3)
    >>> recipe.optimizer["momentum"]
    0.0
    >>> Recipe(data="digits", epcohs=3)
    Traceback (most recent call last):
    gapless.errors.RecipeError: epcohs: unknown key; did you mean 'epochs'?
    """

    def __post_init__(self) -> None:
        self._take_data()
        self._take_model()
        for key in ("optimizer", "loss"):
            value = getattr(self, key)
            if value is not None:
                default = DEFAULT_NAMES[key]
                setattr(
                    self,
                    key,
                    _sections.canonical_section(_sections.FAMILIES[key], value, key, default=default),
                )
        self._take_schedule()
        for key in ("train", "eval", "mix"):
            value = getattr(self, key)
            if value is not None:
                setattr(self, key, _sections.canonical_pipeline(value, key))
        self._take_numbers()
        _convert(self)
        _check_monitor(self.monitor)

    @property
    def live(self) -> dict[str, Any]:
        """Objects that were given in place of plain data, by kind; never stored."""
        live: dict[str, Any] = self.__dict__.setdefault("_live", {})
        return live

    # ---- taking live objects ----

    def _take_data(self) -> None:
        data = self.data
        if hasattr(data, "__fspath__"):
            self.data = str(data)
        elif isinstance(data, Mapping):
            spec: dict[str, Any] = _sections.plain(data, "data")
            _check_data_keys(spec)
            self.data = spec
        elif data is not None and not isinstance(data, str):
            if not hasattr(data, "spec"):
                raise RecipeError(
                    f"data: got {data!r}; give what gapless.data.folder(), arrays(), … give, "
                    "a dict ({folder: PATH}) or a path"
                )
            self.live["data"] = data
            self.data = _sections.plain(data.spec, "data")

    def _take_model(self) -> None:
        model = self.model
        if isinstance(model, type):
            raise RecipeError(f"model: got the class {model.__name__}; call it: {model.__name__}()")
        if isinstance(model, str):
            model = {"name": model}
        elif model is not None and not isinstance(model, Mapping):
            model = self._take_module(model)
        if model is not None:
            self.model = _canonical_model(_sections.plain(model, "model"))

    def _take_module(self, module: Any) -> dict[str, Any]:
        if hasattr(module, "document"):  # a traced net
            self.live["net"] = module
            return {"graph": module.document}
        if not hasattr(module, "net"):
            raise RecipeError(
                f"model: got a {type(module).__name__}; give an nn.Module, a name, or {{name: …}}"
            )
        self.live["module"] = module
        said = getattr(module, "catalogue", None)
        return dict(said) if said else {"graph": {}}

    def _take_schedule(self) -> None:
        value: Any = self.schedule
        if value is None:
            return
        if callable(value) and not isinstance(value, (type, schedule.Schedule)):
            value = schedule.Lambda(value)
        if isinstance(value, schedule.Lambda) and callable(value.values):
            self.live["schedule"] = value
            self.schedule = {"name": "Lambda", "values": []}
            return
        self.schedule = _sections.canonical_schedule(value, "schedule", default=DEFAULT_NAMES["schedule"])

    def _take_numbers(self) -> None:
        if self.ema is not None:
            self.ema = _canonical_ema(self.ema)
        if hasattr(self.pretrained, "__fspath__"):
            self.pretrained = os.fspath(self.pretrained)  # type: ignore[arg-type]
        if isinstance(self.freeze, str):
            self.freeze = [self.freeze]
        if isinstance(self.recompute, str):
            self.recompute = [self.recompute]
        if isinstance(self.topk, int) and not isinstance(self.topk, bool):
            self.topk = [self.topk]
        size = self.image_size
        if isinstance(size, (list, tuple)):
            if len(size) != 2:
                raise RecipeError(f"image_size: must be one number or (height, width), got {list(size)!r}")
            same = size[0] == size[1] and not isinstance(size[0], (list, tuple))  # no sides: refused below
            self.image_size = size[0] if same else list(size)
        if self.save_every_seconds is not None and isinstance(self.save_every_seconds, int):
            self.save_every_seconds = float(self.save_every_seconds)
        for key in ("freeze", "recompute", "topk", "image_size", "epochs", "batch_size", "seed", "clip_norm"):
            setattr(self, key, _sections.plain(getattr(self, key), key))

    # ---- plain data ----

    def to_dict(self) -> dict[str, Any]:
        """Return every key as plain data, in the order of the fields: ``Recipe.from_dict(r.to_dict()) ==
        r``."""
        if "schedule" in self.live:
            raise RecipeError(
                "schedule: a function cannot be stored before the length of the run is known: "
                "resolve(recipe) first, or give Lambda the list of its values"
            )
        if self.model is not None and self.model.get("graph") == {}:
            raise RecipeError(
                "model: a module is stored as its graph, which is traced by resolve(recipe): call that first"
            )
        return {key: _copy(getattr(self, key)) for key in KEYS}

    def to_yaml(self) -> str:
        """Return the recipe as YAML that `from_yaml` reads back exactly; what is not said is left out."""
        said = {k: v for k, v in self.to_dict().items() if v is not None or _DEFAULTS[k] is not None}
        return _yaml.dump(said)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe as YAML."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `to_dict`."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], *, what: str = "recipe") -> Recipe:
        """Make a recipe from plain data."""
        if not isinstance(plain, Mapping):
            raise RecipeError(f"{what}: must be a mapping (key: value), got {plain!r}")
        _check_keys(plain, "")
        return cls(**{key: _copy(value) for key, value in plain.items()})

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str]) -> Recipe:
        """Read a recipe from a file, or from the text itself (which has a line break or a colon and a blank).

        Examples
        --------
        >>> Recipe.from_yaml("data: digits\\nepochs: 2\\n").epochs
        2
        """
        if isinstance(source, str) and ("\n" in source or ": " in source or source.lstrip().startswith("{")):
            return cls.from_dict(_yaml.load(source) or {})
        path = Path(source)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise RecipeError(f"{path}: cannot read the recipe: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: a recipe is UTF-8 text; byte {error.start} is not") from None
        value = _yaml.load(text, str(path))
        try:
            return cls.from_dict({} if value is None else value)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """Return a recipe with some keys changed, as ``-o a.b=c`` does; values given as text are read as
        YAML.

        A name (``optimizer.name=AdamW``, ``optimizer=AdamW``) begins that section anew. Ops of a pipeline are
        found by name or by place: ``train.RandomResizedCrop.scale=[0.5, 1]``, ``train.0.size=96``.

        Examples
        --------
        >>> Recipe(optimizer={"name": "SGD", "lr": 0.1}).override({"optimizer.lr": "5e-2"}).optimizer["lr"]
        0.05
        """
        tree: dict[str, Any] = {key: _copy(getattr(self, key)) for key in KEYS}
        # A name begins its section anew, so names go first, wherever they stand.
        order = sorted(changes, key=lambda path: not (path.endswith(".name") or "." not in path))
        for path in order:
            _set(tree, path, changes[path])
        if self.live:
            tree = self._put_live_back(tree)
        made = type(self)(**tree)
        return made

    def _put_live_back(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Hand live objects on where their section was not changed."""
        names = {"data": "data", "module": "model", "net": "model", "schedule": "schedule"}
        for live, key in names.items():
            if live in self.live and tree[key] == getattr(self, key):
                tree[key] = self.live[live]
        return tree

    def __repr__(self) -> str:
        said = {k: getattr(self, k) for k in KEYS if getattr(self, k) != _DEFAULTS[k]}
        return f"Recipe({', '.join(f'{k}={_brief(v)}' for k, v in said.items())})"

    def _repr_html_(self) -> str:
        from gapless.report import html

        said = {k: getattr(self, k) for k in KEYS if getattr(self, k) is not None}
        return str(html.table(("key", "value"), [(k, _brief(v)) for k, v in said.items()], title="Recipe"))


_DEFAULTS = {
    f.name: f.default if f.default is not msgspec.NODEFAULT else [] for f in msgspec.structs.fields(_Fields)
}


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copy(v) for v in value]
    return value


# ---- checks ----


def _check_keys(keys: Mapping[str, Any], where: str) -> None:
    for key in keys:
        if key not in KEYS:
            raise RecipeError(f"{where}{key}: {_unknown_key(str(key))}")


def _unknown_key(key: str) -> str:
    head, _, tail = key.partition(".")
    if tail and (near := _peers.nearest(head, KEYS)) is not None:
        return f"unknown key; did you mean {f'{near}.{tail}'!r}?"
    if tail and tail in KEYS:
        return f"unknown key; did you mean {tail!r}?"
    hint = _peers.key_hint(key)
    near = _peers.nearest(key, KEYS)
    if hint is not None:
        return f"unknown key ({hint})"
    if near is not None:
        return f"unknown key; did you mean {near!r}?"
    return f"unknown key; a recipe has {', '.join(KEYS)}"


def _check_data_keys(spec: Mapping[str, Any]) -> None:
    """Check the data section's keys; ``path`` (a word to resolve, with options beside it) is the recipe's
    own."""
    from gapless import data as module

    rest = {key: value for key, value in spec.items() if key != "path"}
    for key in rest:
        hint = _peers.key_hint(key)
        if key not in module.SPEC_KEYS and hint is not None and _peers.nearest(key, module.SPEC_KEYS) is None:
            raise RecipeError(f"data.{key}: unknown key ({hint})")
    module.check_spec({"folder": spec["path"], **rest} if "path" in spec else rest)


def _canonical_model(model: dict[str, Any]) -> dict[str, Any]:
    if "graph" in model:
        extra = [k for k in model if k not in ("graph", "num_classes")]
        if extra:
            raise RecipeError(f"model.{extra[0]}: a stored graph takes no parameters; it is as it was traced")
        return model
    if "name" not in model and len(model) == 1:
        ((key, inner),) = model.items()
        if isinstance(inner, dict) or inner is None:
            model = {"name": key, **(inner or {})}
    name = model.get("name")
    if name is None:
        return model
    if not isinstance(name, str):
        raise RecipeError(f"model.name: must be a word, got {name!r}")
    known = _model_names()
    if known and name not in known:
        near = _peers.nearest(name, known)
        said = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        raise RecipeError(f"model.name: unknown {name!r}; {said}")
    takes = _model_parameters(name)
    for key in model:
        if takes and key != "name" and key not in takes:
            near = _peers.nearest(key, takes)
            hint = _peers.key_hint(key)
            said = f"did you mean {near!r}?" if near else hint or f"it takes {', '.join(takes)}"
            raise RecipeError(f"model.{key}: {name} has no such parameter; {said}")
    arguments = {k: v for k, v in model.items() if k != "name"}
    _check_model(name, arguments)
    return {"name": name, **arguments}


def _check_model(name: str, arguments: dict[str, Any]) -> None:
    """Say now, before any picture is read, what the model thinks of its arguments; makes no layers yet."""
    from gapless import models

    try:
        models.create(name, **arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model: {name}: {error}") from None


def _model_names() -> list[str]:
    try:
        from gapless import models
    except ImportError:
        return []
    return list(models.list_models())


def _model_parameters(name: str) -> list[str]:
    import inspect

    from gapless import models

    make = getattr(models, name, None)
    if make is None:
        return []
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _canonical_ema(value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        for key in value:
            if key not in ("decay", "tau"):
                near = _peers.nearest(str(key), ("decay", "tau"))
                raise RecipeError(
                    f"ema.{key}: unknown key; "
                    + (f"did you mean {near!r}?" if near else "it has decay and tau")
                )
        if "decay" not in value:
            raise RecipeError("ema: needs decay")
        decay, tau = value["decay"], value.get("tau", _EMA_TAU)
    else:
        decay, tau = value, _EMA_TAU
    for key, number in (("decay", decay), ("tau", tau)):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise RecipeError(f"ema.{key}: must be a number, got {number!r}")
    if not 0 <= decay < 1:
        raise RecipeError(f"ema.decay: must be in [0, 1), got {decay!r}")
    if not 0 <= tau < float("inf"):
        raise RecipeError(f"ema.tau: must be in [0, inf), got {tau!r}")
    return {"decay": float(decay), "tau": float(tau)}


def _convert(recipe: Recipe) -> None:
    """Check the types and ranges of every key, and take the converted values (an int where a float is
    meant)."""
    plain = {key: getattr(recipe, key) for key in KEYS}
    for key, value in plain.items():
        try:
            checked = msgspec.convert({key: value}, _Fields)
        except msgspec.ValidationError as error:
            said, _, place = str(error).partition(" - at ")
            at = place.strip("`").removeprefix("$.") or key
            raise RecipeError(f"{at}: {_in_words(said, key)}, got {value!r}") from None
        setattr(recipe, key, getattr(checked, key))


_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "a mapping (key: value)",
}  # fmt: skip
_CHOICES = {"precision": "fast, precise", "on_unreadable": "leave_out, error"}


def _in_words(said: str, key: str) -> str:
    """Turn msgspec's message into words: ``Expected `int | null`, got `str``` into "must be a whole
    number"."""
    if key in _CHOICES:
        return f"must be one of {_CHOICES[key]}"
    expected = said.split("`")[1::2][:1]
    kinds = [
        _WORDS.get(kind, kind) for kind in (expected[0] if expected else "").split(" | ") if kind != "null"
    ]
    bound = (
        said.rpartition("` ")[2] if said.startswith("Expected") and "` " in said and "got" not in said else ""
    )
    return f"must be {' or '.join(kinds) or said}{' ' + bound if bound else ''}"


def _check_monitor(monitor: str) -> None:
    split, _, metric = monitor.rpartition("/")
    if split == "test":
        raise RecipeError(
            "monitor: the test split is read once, after training, and chooses nothing; monitor 'val/…'"
        )
    good = metric == "loss" or (metric.startswith("top") and metric[3:].isdigit() and int(metric[3:]) > 0)
    if not split or not good:
        hint = "val/loss" if "loss" in monitor else "val/top1"
        raise RecipeError(
            f"monitor: must be SPLIT/top<k> or SPLIT/loss, got {monitor!r}; did you mean {hint!r}?"
        )


# ---- overrides ----

_TEXT_KEYS = ("pretrained", "monitor", "precision", "on_unreadable")


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one dotted path of a recipe's plain form."""
    head, *rest = path.split(".")
    if head not in KEYS:
        raise RecipeError(f"{path}: {_unknown_key(path)}")
    if isinstance(value, str) and not (head in _TEXT_KEYS and value not in ("null", "~", "")):
        value = _yaml.load_value(value, f"-o {path}")
    if not rest:
        tree[head] = value
        return
    if head in ("train", "eval", "mix"):
        _set_op(tree, head, rest, value, path)
        return
    if head not in ("data", "model", "optimizer", "loss", "schedule", "ema"):
        raise RecipeError(f"{path}: {head} is one value and has no parts")
    if len(rest) != 1:
        raise RecipeError(f"{path}: {head} has parts one level deep ({head}.KEY)")
    (key,) = rest
    if head == "data" and isinstance(tree["data"], str):
        tree["data"] = {"path": tree["data"]}
    if head == "ema" and tree["ema"] is None:
        tree["ema"] = {}
    section = tree[head]
    if key == "name" and head != "data":
        if section is None or section.get("name") != value:
            tree[head] = {"name": value}
        return
    tree[head] = {**(section or {}), key: value}
    _drop_twin(tree[head], key)


def _drop_twin(section: dict[str, Any], key: str) -> None:
    """Of two keys that say the same thing in other units, the one that was just set counts."""
    twins = (("warmup_epochs", "warmup_steps"), ("milestones", "milestones_epochs"),
             ("step_size", "step_size_epochs"), ("total_iters", "total_epochs"))  # fmt: skip
    for pair in twins:
        if key in pair:
            other = pair[1 - pair.index(key)]
            if other in section:
                section[other] = None


def _set_op(tree: dict[str, Any], head: str, rest: list[str], value: Any, path: str) -> None:
    ops = tree[head]
    if not ops:
        raise RecipeError(
            f"{path}: {head} is empty or made from image_size; write the pipeline out: -o {head}=[…]"
        )
    where, *key = rest
    if len(key) != 1:
        raise RecipeError(f"{path}: say {head}.OP.KEY, where OP is a name or a place (0, 1, …)")
    if where.isdigit():
        places = [int(where)] if int(where) < len(ops) else []
    else:
        places = [i for i, op in enumerate(ops) if op["name"] == where]
    if len(places) != 1:
        there = ", ".join(f"{i}: {op['name']}" for i, op in enumerate(ops))
        raise RecipeError(
            f"{path}: {'more than one' if places else 'no'} such op in {head}; there are {there}"
        )
    ops[places[0]] = {**ops[places[0]], key[0]: value}


# ---- building ----


def _build(module: str, section: Mapping[str, Any]) -> Any:
    import importlib

    made = importlib.import_module(f"gapless.{module}")
    values = {k: v for k, v in section.items() if k not in ("name", "id")}
    return getattr(made, section["name"])(**values)


def build_optimizer(section: Mapping[str, Any] | str) -> Any:
    """Return the optimizer object that a recipe's section describes."""
    return _build("optim", _sections.canonical_section("optimizers", section, "optimizer"))


def build_loss(section: Mapping[str, Any] | str) -> Any:
    """Return the loss object that a recipe's section describes."""
    return _build("losses", _sections.canonical_section("losses", section, "loss"))


def build_schedule(section: Mapping[str, Any] | str) -> schedule.Schedule:
    """Return the schedule that a recipe's section describes."""
    return schedule.from_config(section)


def build_pipeline(ops: list[dict[str, Any]], *, evaluation: bool) -> Any:
    """Return the data.pipeline.Pipeline that a recipe's list describes."""
    from gapless.data.pipeline import Pipeline

    return Pipeline(
        _sections.canonical_pipeline(ops, "eval" if evaluation else "train"), evaluation=evaluation
    )


def build_net(model: Mapping[str, Any], input_shape: tuple[int, ...], seed: int | None) -> Any:
    """Return the nn.Net (graph and weights) that a recipe's model section describes."""
    from gapless import models
    from gapless.nn.net import Net

    if "graph" in model:
        document, place = model["graph"], "model.graph"
        if isinstance(document, str):
            document, place = _read_graph(document), f"model.graph: {document}"
        try:
            return Net(document, seed=seed)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            what = str(error) if isinstance(error, GaplessError) else f"{type(error).__name__}: {error}"
            raise RecipeError(f"{place}: not the graph of a network: {what}") from error
    values = {k: v for k, v in model.items() if k != "name"}
    try:
        return models.create(model["name"], input_shape=input_shape, **values).net(input_shape, seed)
    except TypeError as error:
        raise RecipeError(f"model: {model['name']}: {error}") from None


def _read_graph(path: str) -> Any:
    """Return the graph document of a JSON file, or of a checkpoint."""
    if path.endswith(".safetensors"):
        from gapless import checkpoint

        return checkpoint.read(path).graph
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"model.graph: cannot read {path}: {said}") from None


from gapless._resolve import Resolved, resolve  # noqa: E402  (needs Recipe)
