"""What a model's ``forward`` sees: symbolic tensors, which record layers instead of computing numbers.

``forward`` is run once, on shapes. Whatever would need numbers (an `if` on values, NumPy on a tensor,
``float(x)``)
is an error that names the line, because a graph recorded from one branch would be silently wrong for the
other.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gapless import _core
from gapless.errors import ShapeError

if TYPE_CHECKING:
    from gapless.nn.module import Layer, Module

__all__ = ["Batch", "Symbolic", "Tracer", "caller"]

_HERE = str(Path(__file__).parent)


def caller() -> str:
    """``file:line`` of the nearest frame outside this package's own machinery."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _refuse(what: str, instead: str) -> NoReturn:
    raise TypeError(
        f"{caller()}: {what} while the network is traced: a tensor has a shape here but no values. {instead}"
    )


class Batch:
    """The batch size while tracing: known to be there, not how large."""

    def __repr__(self) -> str:
        return "N"

    def __index__(self) -> int:
        _refuse(
            "the batch size was used as a number",
            "Networks here take any batch; use flatten(1) or x.shape[1:].",
        )

    __int__ = __index__

    def __bool__(self) -> bool:
        _refuse("the batch size was asked for", "Networks here take any batch.")


N = Batch()


class Symbolic:
    """A value of the network: ``shape`` is ``(N, C, H, W)`` or ``(N, F)`` with the batch left open."""

    __slots__ = ("_tracer", "_value", "shape")

    def __init__(self, tracer: Tracer, value: int) -> None:
        self._tracer = tracer
        self._value = value
        self.shape: tuple[Any, ...] = (N, *tracer.graph.shape(value))

    def __repr__(self) -> str:
        return f"Symbolic{self.shape}"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def size(self, axis: int | None = None) -> Any:
        """As torch's: the shape, or one size of it."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        return len(self.shape)

    # -- what is recorded --

    def __add__(self, other: object) -> Symbolic:
        return self._binary("Add", "+", self, other)

    def __radd__(self, other: object) -> Symbolic:
        return self._binary("Add", "+", other, self)

    def __mul__(self, other: object) -> Symbolic:
        return self._binary("Mul", "*", self, other)

    def __rmul__(self, other: object) -> Symbolic:
        return self._binary("Mul", "*", other, self)

    def _binary(self, layer: str, sign: str, a: object, b: object) -> Symbolic:
        if not isinstance(a, Symbolic) or not isinstance(b, Symbolic):
            other = b if isinstance(a, Symbolic) else a
            raise TypeError(
                f"{caller()}: a tensor {sign} {type(other).__name__} is not a layer of gapless; "
                f"only tensor {sign} tensor is"
            )
        return self._tracer.record(layer, [a, b])

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Symbolic:
        """``x.flatten(1)``: everything but the batch in one axis."""
        if start_dim != 1 or end_dim not in (-1, self.ndim - 1):
            raise ShapeError(
                f"{caller()}: flatten must keep the batch: flatten(1), got flatten({start_dim}, {end_dim})"
            )
        return self._tracer.record("Flatten", [self])

    def reshape(self, *shape: Any) -> Symbolic:
        """Only what flattens: ``x.reshape(x.shape[0], -1)``."""
        sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        features = 1
        for size in self.shape[1:]:
            features *= size
        keeps_batch = len(sizes) == 2 and (isinstance(sizes[0], Batch) or sizes[0] == -1)
        if not keeps_batch or not (sizes[1] == -1 or sizes[1] == features) or sizes == (-1, -1):
            raise ShapeError(
                f"{caller()}: only reshape(N, -1) is known here (to {features} features), got reshape{sizes}"
            )
        return self._tracer.record("Flatten", [self])

    view = reshape

    def mean(self, axis: Any = None, keepdim: bool = False, *, dim: Any = None) -> Symbolic:
        """``x.mean((2, 3))``: the average of each channel over the image."""
        axes = dim if axis is None else axis
        if self.ndim != 4 or axes is None or sorted(a % 4 for a in axes) != [2, 3]:
            raise ShapeError(
                f"{caller()}: only the mean over the image is known here: x.mean((2, 3)), got axes {axes!r}"
            )
        pooled = self._tracer.record("AdaptiveAvgPool2d", [self], {"output_size": 1})
        return pooled if keepdim else pooled.flatten(1)

    def relu(self) -> Symbolic:
        return self._tracer.record("ReLU", [self])

    def sigmoid(self) -> Symbolic:
        return self._tracer.record("Sigmoid", [self])

    def tanh(self) -> Symbolic:
        return self._tracer.record("Tanh", [self])

    # -- what needs numbers --

    def __bool__(self) -> bool:
        _refuse(
            "a decision was taken on a tensor's values",
            "Decide on shapes or on settings of the module instead.",
        )

    def __float__(self) -> float:
        _refuse("a tensor was turned into a number", "Keep it a tensor.")

    def __int__(self) -> int:
        _refuse("a tensor was turned into a number", "Keep it a tensor.")

    def __index__(self) -> int:
        _refuse("a tensor was used as an index", "Keep it a tensor.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        _refuse("NumPy was applied to a tensor", "Use layers of gapless.nn, +, *, nn.cat and flatten.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        _refuse(
            f"NumPy ({ufunc.__name__}) was applied to a tensor", "Use layers of gapless.nn, +, * and nn.cat."
        )

    def __len__(self) -> int:
        _refuse("len() of a tensor was asked for", "Use x.shape[1:] for the sizes of one sample.")

    def __iter__(self) -> Any:
        _refuse("a tensor was iterated over", "Keep it whole.")

    def __getitem__(self, key: object) -> Any:
        _refuse("a part of a tensor was taken", "Slicing is not a layer of gapless.")

    def __hash__(self) -> int:
        return id(self)

    def _compare(self, other: object) -> bool:
        _refuse("a tensor was compared", "Decide on shapes or on settings of the module instead.")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _compare

    def _no_layer(self, *others: object) -> Any:
        _refuse("arithmetic that is not a layer was used", "Known are tensor + tensor and tensor * tensor.")

    __sub__ = __rsub__ = __truediv__ = __rtruediv__ = __pow__ = __neg__ = __matmul__ = __rmatmul__ = _no_layer
    __abs__ = __floordiv__ = __mod__ = __rpow__ = _no_layer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{caller()}: a tensor has no {name!r} while the network is traced; use layers of gapless.nn, "
            "+, *, nn.cat and flatten"
        )


def snake(name: str) -> str:
    """``AdaptiveAvgPool2d`` -> ``adaptive_avg_pool2d``; what a layer without a name of its own is called."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


class Tracer:
    """Records layers into a core graph (which checks every shape) and into a document."""

    def __init__(self, input_shape: Sequence[int], root: Module) -> None:
        self.graph = _core.Graph(tuple(int(size) for size in input_shape))
        self.nodes: list[dict[str, Any]] = []
        self.used: set[int] = set()  # id() of the layers that forward called
        self.path: list[str] = []  # names of the modules that are being called
        self._root = root
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()

    def name_of(self, module: Module) -> str | None:
        """Dotted name of a module of this network; None: it is not one of its parts."""
        if id(module) not in self._names:  # modules may be made while others are called
            for name, known in self._root._walk():
                self._names.setdefault(id(known), name)
            self._taken.update(self._names.values())
        return self._names.get(id(module))

    def record(
        self, layer: str, inputs: Sequence[Symbolic], config: dict[str, Any] | None = None
    ) -> Symbolic:
        """A layer that has no object of its own: ``+``, ``flatten``."""
        return self._add(layer, self._free_name(snake(layer)), config or {}, inputs)

    def call(self, layer: Layer, inputs: Sequence[object]) -> Symbolic:
        """Records a layer object."""
        for x in inputs:
            if not isinstance(x, Symbolic):
                raise TypeError(f"{caller()}: {layer!r} takes tensors, got {type(x).__name__}")
        tensors = [x for x in inputs if isinstance(x, Symbolic)]
        name = self.name_of(layer)
        if name is None and layer.weight_facts():
            raise TypeError(
                f"{caller()}: {layer!r} has weights but is not an attribute of the module, so they would be "
                "lost: assign it in __init__ (self.name = …), or put it into nn.Sequential or nn.ModuleList"
            )
        self.used.add(id(layer))
        return self._add(
            layer.name, self._free_name(snake(layer.name)) if name is None else name, layer.config(), tensors
        )

    def _free_name(self, stem: str) -> str:
        base = ".".join(part for part in (self.path[-1] if self.path else "", stem) if part)
        name, k = base, 1
        while name in self._taken:
            name, k = f"{base}_{k}", k + 1
        self._taken.add(name)
        return name

    def _add(self, layer: str, name: str, config: dict[str, Any], inputs: Sequence[Symbolic]) -> Symbolic:
        for x in inputs:
            if x._tracer is not self:
                raise TypeError(f"{caller()}: {name}: a tensor of another trace was kept and used again")
        # The node's number is the op coordinate of its draws, so that a Dropout used twice drops twice.
        node = len(self.nodes)
        values = [x._value for x in inputs]
        try:
            value = self.graph.add(layer, name, node, config, values)
        except (ShapeError, ValueError) as error:
            raise type(error)(f"{error} (called at {caller()})") from None
        full = _core.check_config("layers", layer, config)
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in full.items()}
        self.nodes.append({"layer": layer, "name": name, "id": node, "config": plain, "in": values})
        return Symbolic(self, value)


def traced(values: Sequence[object]) -> Tracer | None:
    """The tracer behind the first symbolic value, also inside lists."""
    for v in values:
        if isinstance(v, Symbolic):
            return v._tracer
        if isinstance(v, (tuple, list)):
            found = traced(v)
            if found is not None:
                return found
    return None


def functional(layer: str, **defaults: Any) -> Callable[..., Symbolic]:
    """A function that records a layer without weights: ``nn.relu(x)``."""

    def function(x: Symbolic, **config: Any) -> Symbolic:
        if not isinstance(x, Symbolic):
            raise TypeError(
                f"{caller()}: {snake(layer)} takes the tensors of a module's forward, got {type(x).__name__}"
            )
        return x._tracer.record(layer, [x], {**defaults, **config})

    function.__name__ = function.__qualname__ = snake(layer)
    function.__doc__ = f"`{layer}` as a function, inside a module's ``forward``."
    return function
