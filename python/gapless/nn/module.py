"""Modules: models written like torch.nn, traced once into a graph.

A module's attributes that are modules are its children; their dotted names are the names of the weights.
The weights
belong to the layers: they are made when they are first asked for, and `Module.net` gathers them into one
store.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapless import _core
from gapless._registry import Configured
from gapless.errors import ShapeError
from gapless.nn._symbolic import Symbolic, Tracer, caller, traced

if TYPE_CHECKING:
    from gapless.nn.net import LoadReport, Net, Summary

__all__ = ["Layer", "Module", "Parameter"]

# What torch's modules have and ours have no use for: what to do instead.
_ELSEWHERE = {
    "train": "a plan trains (gl.compile(net, loss, optimizer, batch_shape)); net(x) always evaluates",
    "eval": "net(x) is always the evaluation forward",
    "to": "gapless runs on CPUs, in float32",
    "cuda": "gapless runs on CPUs",
    "cpu": "gapless runs on CPUs, always",
    "half": "gapless computes in float32",
    "float": "gapless computes in float32, always",
    "zero_grad": "a plan's step makes its gradients anew",
    "backward": "a plan's step runs forward, loss, backward and update",
    "register_buffer": "only layers own weights and buffers",
    "register_parameter": "only layers own weights and buffers",
}


class _Drawn:
    """A store, and its version when its initial values had just been drawn (-1: it never held only those)."""

    __slots__ = ("store", "version")

    def __init__(self, store: _core.Store, version: int) -> None:
        self.store = store
        self.version = version


class _Home(NamedTuple):
    """Where a layer's weights are."""

    drawn: _Drawn
    name: str

    @property
    def store(self) -> _core.Store:
        return self.drawn.store


class Parameter:
    """A layer's weight by name: what ``conv.weight`` gives. Its numbers live in the network's store.

    Attributes
    ----------
    shape : tuple of int
    """

    __slots__ = ("_layer", "_suffix", "shape")

    def __init__(self, layer: Layer, suffix: str, shape: tuple[int, ...]) -> None:
        self._layer = layer
        self._suffix = suffix
        self.shape = shape

    def __repr__(self) -> str:
        return f"Parameter({self._layer.name}.{self._suffix}, shape={self.shape})"

    def numel(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    def numpy(self) -> NDArray[np.float32]:
        """A copy of its values now."""
        return self._layer._get(self._suffix)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        values = self.numpy()
        return values if dtype is None else values.astype(dtype)

    @property
    def requires_grad(self) -> bool:
        """Whether it learns. Set it before `gl.compile`."""
        return self._suffix not in self._layer._frozen

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self._layer._freeze(self._suffix, not on)


class Module:
    """Base of all models: assign layers in ``__init__``, connect them in ``forward``.

    Examples
    --------
    >>> from gapless import nn
    >>> class Small(nn.Module):
    ...     def __init__(self):
    ...         self.conv = nn.Conv2d(1, 8, 3, padding=1)
    ...         self.head = nn.Linear(8, 10)
    ...     def forward(self, x):
    ...         x = nn.relu(self.conv(x))
    ...         return self.head(x.mean((2, 3)))
    >>> net = Small()
    >>> list(net.state_dict())
    ['conv.weight', 'conv.bias', 'head.weight', 'head.bias']
    >>> import numpy as np
    >>> net(np.zeros((2, 1, 8, 8), np.float32)).shape
    (2, 10)
    """

    #: name and arguments in the catalogue, or None for a model of one's own
    catalogue: dict[str, Any] | None = None

    def forward(self, x: Any) -> Any:
        """Connects the layers. Run once, on symbolic tensors."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def build(self, input_shape: tuple[int, ...] | None) -> None:
        """Makes the layers that depend on the input's size; called once, before anything else needs them.

        `input_shape` is ``(C, H, W)``, or None when the weights are asked for before any input was seen.
        """

    # -- children --

    def __setattr__(self, name: str, value: object) -> None:
        children = self.__dict__.setdefault("_children", {})
        if isinstance(value, (list, tuple, dict)):
            inside = value.values() if isinstance(value, dict) else value
            if any(isinstance(v, Module) for v in inside):
                raise TypeError(
                    f"{caller()}: {name}: layers in a plain {type(value).__name__} are not seen; "
                    "use nn.ModuleList"
                )
        if isinstance(value, Module):
            children[name] = value
        else:
            children.pop(name, None)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self.__dict__.get("_children", {}).pop(name, None)
        object.__delattr__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in _ELSEWHERE:
            raise AttributeError(f"{type(self).__name__} has no {name!r}: {_ELSEWHERE[name]}")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def add_module(self, name: str, module: Module) -> None:
        """Same as ``self.name = module``."""
        if not name or "." in name:
            raise ValueError(f"a child's name must be a word without dots, got {name!r}")
        setattr(self, name, module)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Children in the order in which they were assigned."""
        self._build(None)
        yield from self.__dict__.get("_children", {}).items()

    def children(self) -> Iterator[Module]:
        yield from (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, depth first, by dotted name."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        yield from (module for _, module in self.named_modules())

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Calls ``function(module)`` on every module below, then on this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """As `named_modules`, of what is there already: makes nothing."""
        yield prefix, self
        for name, child in self.__dict__.get("_children", {}).items():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def _build(self, input_shape: tuple[int, ...] | None) -> None:
        if self.__dict__.get("_built", False):
            return
        object.__setattr__(self, "_built", True)
        try:
            self.build(input_shape)
        except BaseException:
            object.__setattr__(self, "_built", False)
            raise

    def _layers(self) -> list[tuple[str, Layer]]:
        """Layers that own weights, in the order of definition; a shared one counts where it comes first."""
        found: dict[int, tuple[str, Layer]] = {}
        for name, module in self.named_modules():
            if isinstance(module, Layer) and module.weight_facts():
                found.setdefault(id(module), (name, module))
        return list(found.values())

    # -- weights --

    def _settle(self) -> list[tuple[str, Layer]]:
        """Makes sure that every layer's weights exist."""
        layers = self._layers()
        if any(layer._home is None for _, layer in layers):
            self._gather(layers)
        return layers

    def _gather(self, layers: Sequence[tuple[str, Layer]]) -> _core.Store:
        """One store for these layers; what they already hold is kept, the rest is drawn (seed 0)."""
        store = _core.Store()
        for name, layer in layers:
            store.add(name, layer.name, layer.config())
        store.seal()
        for name, layer in layers:
            for suffix, (kind, arg) in layer._rules.items():
                store.set_init(_join(name, suffix), kind, arg)
        store.init(0)
        pristine = all(layer._is_pristine() for _, layer in layers)
        for name, layer in layers:
            for suffix in layer.weight_facts():
                kept = layer._kept(suffix)
                if kept is not None:
                    store.set(_join(name, suffix), kept)
                if suffix in layer._frozen:
                    store.set_trainable(_join(name, suffix), False)
        drawn = _Drawn(store, store.version if pristine else -1)
        for name, layer in layers:
            layer._move(_Home(drawn, name))
        return store

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Weights that can learn, by dotted name, in torch's order (buffers left out)."""
        for name, layer in self._layers():
            for suffix, facts in layer.weight_facts().items():
                if facts["kind"] == "param":
                    yield _join(name, suffix), Parameter(layer, suffix, facts["shape"])

    def parameters(self) -> Iterator[Parameter]:
        yield from (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Parameter]]:
        """Statistics that follow the data, by dotted name."""
        for name, layer in self._layers():
            for suffix, facts in layer.weight_facts().items():
                if facts["kind"] == "buffer":
                    yield _join(name, suffix), Parameter(layer, suffix, facts["shape"])

    def requires_grad_(self, on: bool = True) -> Self:
        """Thaws or freezes all parameters below this module. Call it before `gl.compile`."""
        for p in self.parameters():
            p.requires_grad = on
        return self

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all weights and buffers by dotted name, in torch's order."""
        return {
            _join(name, suffix): layer._get(suffix)
            for name, layer in self._settle()
            for suffix in layer.weight_facts()
        }

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> LoadReport:
        """Takes weights by name; nothing is changed when they do not fit.

        Parameters
        ----------
        state : mapping of str to array
            Float arrays or tensors by dotted name; ``num_batches_tracked`` is accepted and ignored.
        strict : bool, default True
            Every weight must be there, and nothing else. With False the report says what was left out;
            shapes must fit, and something must match, all the same.

        Returns
        -------
        LoadReport

        Raises
        ------
        CheckpointError
            Names that are missing or unexpected, or shapes that differ.
        """
        from gapless.nn.net import match_state

        owners = {_join(name, s): (layer, s) for name, layer in self._settle() for s in layer.weight_facts()}
        shapes = {key: layer.weight_facts()[suffix]["shape"] for key, (layer, suffix) in owners.items()}
        report, values = match_state(shapes, state, strict=strict)
        for key, value in values.items():
            layer, suffix = owners[key]
            layer._set(suffix, value)
        return report

    # -- tracing --

    def trace(self, input_shape: Sequence[int]) -> dict[str, Any]:
        """The graph document: nodes, outputs and the order of the weights, as data that JSON can hold."""
        shape = tuple(int(size) for size in input_shape)
        if len(shape) not in (1, 3):
            raise ShapeError(f"input_shape must be (C, H, W) or (F,) of one sample, got {tuple(input_shape)}")
        tracer = Tracer(shape, self)
        result = self(Symbolic(tracer, 0))
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        for y in outputs:
            if not isinstance(y, Symbolic):
                raise TypeError(f"{type(self).__name__}.forward must return tensors, got {type(y).__name__}")
        layers = self._layers()
        idle = [name for name, layer in layers if id(layer) not in tracer.used]
        if idle:
            raise ValueError(
                f"{type(self).__name__}: forward never uses {', '.join(idle)}; remove what has no effect"
            )
        document = {
            "format": 1,
            "input": list(shape),
            "nodes": tracer.nodes,
            "outputs": [y._value for y in outputs],
            "order": [name for name, _ in layers],
        }
        rules = {
            _join(name, s): [kind, arg] for name, layer in layers for s, (kind, arg) in layer._rules.items()
        }
        return {**document, "init": rules} if rules else document

    def net(self, input_shape: Sequence[int], seed: int | None = None) -> Net:
        """Traces the module for one input shape and gives the network that plans are compiled from.

        Parameters
        ----------
        input_shape : sequence of int
            ``(C, H, W)`` or ``(F,)`` of one sample.
        seed : int, optional
            Draws fresh initial weights, in a store of the network's own. Without it the network shares this
            module's weights: what a plan trains, ``state_dict()`` shows.

        Raises
        ------
        ValueError
            A seed was given, but this module holds weights that were loaded or trained: they would be lost
            in silence.
        """
        from gapless.nn.net import Net

        document = self.trace(input_shape)
        layers = self._layers()
        if seed is None:
            layers = self._settle()
            stores = {id(_home(layer).store) for _, layer in layers}
            store = _home(layers[0][1]).store if len(stores) == 1 else self._gather(layers)
            homes = {name: _home(layer).name for name, layer in layers}
            return Net(_renamed(document, homes), seed=None, store=store)
        if not all(layer._is_pristine() for _, layer in layers):
            raise ValueError(
                f"{type(self).__name__} holds weights that were loaded or trained, and net(seed={seed}) "
                "would start from others: leave the seed out, or save them and give pretrained=FILE"
            )
        net = Net(document, seed=seed)
        for name, layer in layers:
            for suffix in layer._frozen:
                net.store.set_trainable(_join(name, suffix), False)
        return net

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Inside ``forward``: records this module. Outside: evaluates float32 (N, C, H, W)."""
        tracer = traced(args)
        if tracer is None:
            return self._evaluate(*args, **kwargs)
        return self._record(tracer, args, kwargs)

    def _record(self, tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        first = args[0]
        self._build(tuple(first.shape[1:]) if isinstance(first, Symbolic) else None)
        tracer.path.append(tracer.name_of(self) or "")
        try:
            return self.forward(*args, **kwargs)
        finally:
            tracer.path.pop()

    def _evaluate(self, x: ArrayLike, **kwargs: Any) -> Any:
        from gapless.nn.net import check_input

        a = check_input(x)
        # Traced anew each time, because forward may depend on attributes; the plans behind it are kept.
        fresh = self.net(a.shape[1:])
        kept: Net | None = self.__dict__.get("_kept_net")
        if kept is None or kept.store is not fresh.store or kept.document != fresh.document:
            object.__setattr__(self, "_kept_net", fresh)
            kept = fresh
        return kept(a, **kwargs)

    # -- showing and copying --

    def summary(self, input_shape: Sequence[int]) -> Summary:
        """Table of layers with output shapes, parameters and multiply-accumulates; prints itself."""
        return self.net(input_shape).summary()

    def __repr__(self) -> str:
        children = self.__dict__.get("_children", {})
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in children.items()]
        return f"{type(self).__name__}(" + ("\n" + "\n".join(lines) + "\n" if lines else "") + ")"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_kept_net"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _join(layer: str, suffix: str) -> str:
    return f"{layer}.{suffix}" if layer else suffix


def _renamed(document: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The document with its layers called as in the store that holds their weights."""
    if all(old == new for old, new in names.items()):
        return document
    nodes = [{**node, "name": names.get(node["name"], node["name"])} for node in document["nodes"]]
    return {**document, "nodes": nodes, "order": [names[name] for name in document["order"]]}


def _home(layer: Layer) -> _Home:
    assert layer._home is not None
    return layer._home


class Layer(Configured, Module):
    """Base of the layers made from the C core's table: a config, and the weights that it declares."""

    # torch's hint about memory: plans decide that here
    _ignored: ClassVar[frozenset[str]] = frozenset({"inplace"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        state: dict[str, Any] = {"_home": None, "_rules": {}, "_frozen": set(), "_values": {}, "_facts": None}
        self.__dict__.update(state)

    _home: _Home | None
    # suffix -> (kind, argument): what replaces the row's own initial values
    _rules: dict[str, tuple[str, float]]
    _frozen: set[str]
    _values: dict[str, NDArray[np.float32]]  # of a copy or an unpickled layer, until it has a store
    _facts: dict[str, dict[str, Any]] | None

    def weight_facts(self) -> dict[str, dict[str, Any]]:
        """suffix -> {kind, shape, norm_or_bias} of the weights and buffers, in order."""
        if self._facts is None:
            entries: list[dict[str, Any]] = []
            if self._row.facts["weights"]:
                store = _core.Store()
                store.add("", self.name, self.config())
                entries = store.entries()
            self.__dict__["_facts"] = {e["name"]: e for e in entries}
        assert self._facts is not None
        return self._facts

    def forward(self, *inputs: Any) -> Any:
        raise NotImplementedError("a layer is recorded, never run")

    def _record(self, tracer: Tracer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if kwargs:
            raise TypeError(f"{caller()}: {self!r} takes tensors only, got {', '.join(kwargs)}")
        inputs: list[Any] = []
        for a in args:
            inputs.extend(a) if isinstance(a, (tuple, list)) else inputs.append(a)
        return tracer.call(self, inputs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_config" not in self.__dict__:
            raise AttributeError(name)
        facts = self.weight_facts().get(name)
        if facts is not None:
            return Parameter(self, name, facts["shape"])
        if name == "bias" and name in self._config:
            return None  # as torch says it; config() has the flag
        if name in _ELSEWHERE:
            raise AttributeError(f"{self.name} has no {name!r}: {_ELSEWHERE[name]}")
        return super().__getattr__(name)

    # -- weights --

    def _is_pristine(self) -> bool:
        """Only ever drawn, never loaded or trained."""
        if self._home is None:
            return not self._values
        return self._home.store.version == self._home.drawn.version

    def _kept(self, suffix: str) -> NDArray[np.float32] | None:
        if self._home is not None:
            return self._home.store.get(_join(self._home.name, suffix))
        return self._values.get(suffix)

    def _move(self, home: _Home) -> None:
        self.__dict__["_home"] = home
        self.__dict__["_values"] = {}

    def _get(self, suffix: str) -> NDArray[np.float32]:
        self._settle()
        return _home(self).store.get(_join(_home(self).name, suffix))

    def _set(self, suffix: str, value: NDArray[np.float32]) -> None:
        self._settle()
        _home(self).store.set(_join(_home(self).name, suffix), value)

    def _freeze(self, suffix: str, frozen: bool) -> None:
        (self._frozen.add if frozen else self._frozen.discard)(suffix)
        if self._home is not None:
            self._home.store.set_trainable(_join(self._home.name, suffix), not frozen)

    def _rule(self, suffix: str, kind: str, arg: float) -> None:
        """Replaces the rule for initial values; values that exist already are drawn anew."""
        self._rules[suffix] = (kind, arg)
        if self._home is None:
            self._values.pop(suffix, None)
            return
        store, entry = self._home.store, _join(self._home.name, suffix)
        store.set_init(entry, kind, arg)
        pristine = self._is_pristine()
        store.set(entry, _core.init_fill(kind, self.weight_facts()[suffix]["shape"], arg, 0, entry))
        if pristine:
            self._home.drawn.version = store.version

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in ("_kept_net", "_home", "_facts")}
        if not self._is_pristine() or self._home is not None:
            state["_values"] = {suffix: self._get(suffix) for suffix in self.weight_facts()}
        return {**state, "_home": None, "_facts": None}

    __repr__ = Configured.__repr__
