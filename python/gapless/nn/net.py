"""A traced network: a graph document and the store that holds its weights; what plans are compiled from."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapless import _core
from gapless.errors import CheckpointError, ShapeError

__all__ = ["LoadReport", "Net", "Summary", "SummaryRow"]

_KINDS = {"raw": "master", "ema": "ema"}
_IGNORED = "num_batches_tracked"
_EVAL_BATCH = 64  # capacity of the plan behind net(x); results do not depend on it


class LoadReport(NamedTuple):
    """What became of each name when weights were loaded.

    Attributes
    ----------
    matched : list of str
        Taken over.
    missing : list of str
        In the network, not in what was loaded: they keep their values.
    unexpected : list of str
        Loaded, but not in the network.
    reshaped : list of str
        In both with another shape (a head for other classes): they keep their values.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} matched"]
        for name in ("missing", "unexpected", "reshaped"):
            names = getattr(self, name)
            parts.append(f"{len(names)} {name}" + (f" ({_some(names)})" if names else ""))
        return ", ".join(parts)


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _some(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _as_float32(name: str, value: ArrayLike) -> NDArray[np.float32]:
    if hasattr(value, "detach"):  # a torch tensor, also one that requires a gradient
        value = value.detach()
        if hasattr(value, "float"):
            value = value.float()  # bfloat16 has no NumPy type
    a = np.asarray(value)
    if a.dtype.kind not in "fiu" and a.dtype.name != "bfloat16":
        raise CheckpointError(f"{name}: weights must be numbers, got {a.dtype}")
    return np.ascontiguousarray(a, dtype=np.float32).reshape(a.shape)


def match_state(
    shapes: Mapping[str, tuple[int, ...]],
    state: Mapping[str, ArrayLike],
    *,
    strict: bool,
    reshaped: Iterable[str] = (),
) -> tuple[LoadReport, dict[str, NDArray[np.float32]]]:
    """Compares names and shapes; gives the report and the arrays to take over.

    `reshaped` names weights that may differ in shape. CheckpointError says all that is wrong.
    """
    given = {name: value for name, value in state.items() if name.rsplit(".", 1)[-1] != _IGNORED}
    arrays = {name: _as_float32(name, given[name]) for name in shapes if name in given}
    differ = [name for name, a in arrays.items() if a.shape != tuple(shapes[name])]
    allowed = set(reshaped)
    report = LoadReport(
        matched=[name for name in arrays if name not in differ],
        missing=[name for name in shapes if name not in given],
        unexpected=[name for name in given if name not in shapes],
        reshaped=[name for name in differ if name in allowed],
    )
    problems = [
        f"{n} has shape {arrays[n].shape}, expected {tuple(shapes[n])}" for n in differ if n not in allowed
    ]
    if strict and report.missing:
        problems.append(f"missing: {_some(report.missing)}")
    if strict and report.unexpected:
        problems.append(f"unexpected: {_some(report.unexpected)}{_prefix_hint(shapes, report.unexpected)}")
    if shapes and not report.matched and not problems:
        problems.append(
            f"none of its {len(given)} names is known here{_prefix_hint(shapes, report.unexpected)}"
        )
    if problems:
        raise CheckpointError("weights do not fit, nothing was loaded: " + "; ".join(problems))
    return report, {name: arrays[name] for name in report.matched}


def _prefix_hint(shapes: Mapping[str, Any], unexpected: Sequence[str]) -> str:
    """Says so when all names carry a prefix (``module.`` of DataParallel, ``model.`` of a wrapper)."""
    if not unexpected or "." not in unexpected[0]:
        return ""
    prefix = unexpected[0].split(".", 1)[0] + "."
    if all(n.startswith(prefix) for n in unexpected) and any(n[len(prefix) :] in shapes for n in unexpected):
        return f" (they begin with '{prefix}': take it off)"
    return ""


def check_input(x: ArrayLike) -> NDArray[np.float32]:
    """`x` of ``net(x)``: floats (N, C, H, W) or (N, F)."""
    a = np.asarray(x.detach() if hasattr(x, "detach") else x)
    if a.dtype.kind != "f":
        raise TypeError(
            f"net(x): x must be float32 in the network's own scale, got {a.dtype}; "
            "gl.load(checkpoint).predict(images) takes pictures and does the preprocessing"
        )
    if a.ndim not in (2, 4):
        hint = "; for one sample write net(x[None])" if a.ndim in (1, 3) else ""
        raise ShapeError(f"net(x): x must be (N, C, H, W) or (N, F), got shape {a.shape}{hint}")
    return np.ascontiguousarray(a, dtype=np.float32)


class SummaryRow(NamedTuple):
    """One layer of a summary."""

    name: str
    layer: str
    shape: tuple[int, ...]
    params: int
    macs: int


class Summary:
    """What a network is made of; prints as a table, and shows as one in a notebook.

    Attributes
    ----------
    rows : list of SummaryRow
    input_shape : tuple of int
    params, trainable, macs : int
        Totals; multiply-accumulates are those of one sample's forward.
    """

    def __init__(
        self, rows: list[SummaryRow], input_shape: tuple[int, ...], trainable: int, total: int
    ) -> None:
        self.rows = rows
        self.input_shape = input_shape
        self.trainable = trainable
        self.params = total
        self.macs = sum(row.macs for row in rows)

    def _cells(self) -> list[tuple[str, ...]]:
        head = ("name", "layer", "output", "parameters", "MACs")
        body = [
            (r.name, r.layer, "×".join(map(str, r.shape)), _count(r.params), _count(r.macs))
            for r in self.rows
        ]
        return [head, *body]

    def _totals(self) -> str:
        return (
            f"input {'×'.join(map(str, self.input_shape))}, {self.params:,} parameters "
            f"({self.trainable:,} trainable), {self.macs:,} multiply-accumulates per sample"
        )

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[k]) for row in cells) for k in range(5)]
        lines = []
        for row in cells:
            left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
            lines.append("  ".join(left + right).rstrip())
        lines.insert(1, "-" * max(len(line) for line in lines))
        return "\n".join([*lines, lines[1], self._totals()])

    def _repr_html_(self) -> str:
        head, *body = self._cells()
        th = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        tr = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body
        )
        return f"<table><tr>{th}</tr>{tr}</table><p>{html.escape(self._totals())}</p>"


def _count(n: int) -> str:
    return f"{n:,}" if n else ""


class Net:
    """A graph document with its weights.

    Parameters
    ----------
    document : dict
        As `Module.trace` and checkpoints give it.
    seed : int or None, default 0
        Initial weights are drawn with it; None leaves zeros, for weights that are loaded next.
    store : _core.Store, optional
        Weights to share instead of making a store.

    Attributes
    ----------
    document : dict
    store : _core.Store
    """

    def __init__(
        self, document: Mapping[str, Any], seed: int | None = 0, *, store: _core.Store | None = None
    ) -> None:
        self.document = dict(document)
        if self.document.get("format") != 1:
            raise CheckpointError(f"graph: format must be 1, got {self.document.get('format')!r}")
        self._graphs: dict[tuple[int, ...], _core.Graph] = {}
        self._plans: dict[tuple[Any, ...], _core.Plan] = {}
        self.graph()  # before the weights: layers that do not fit are refused before memory is taken for them
        self.store = self._new_store() if store is None else store
        if store is None and seed is not None:
            self.store.init(seed)
        owned = set(self.document["order"])
        self._entries = [e["name"] for e in self.store.entries() if e["layer"] in owned]
        #: the store holds weights of other networks too (this module is a part of a larger one)
        self.is_part = len(self._entries) != len(self.store.entries())

    def _new_store(self) -> _core.Store:
        nodes = {node["name"]: node for node in reversed(self.document["nodes"])}
        store = _core.Store()
        for name in self.document["order"]:
            if name not in nodes:
                raise CheckpointError(
                    f"graph: {name!r} is listed among the layers with weights, but no node has that name"
                )
            store.add(name, nodes[name]["layer"], nodes[name]["config"])
        store.seal()
        for name, (kind, arg) in self.document.get("init", {}).items():
            store.set_init(name, kind, arg)
        return store

    # -- what it is --

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` or ``(F,)`` of one sample, as traced."""
        return tuple(self.document["input"])

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the outputs for one sample."""
        graph = self.graph()
        return [graph.shape(value) for value in self.document["outputs"]]

    @property
    def num_classes(self) -> int:
        """Length of the first output, when that is a vector."""
        shape = self.output_shapes[0]
        if len(shape) != 1:
            raise ShapeError(f"the network gives {shape}, not a vector of classes")
        return shape[0]

    def graph(self, input_shape: Sequence[int] | None = None) -> _core.Graph:
        """The core's graph for an input shape; made once for each."""
        shape = self.input_shape if input_shape is None else tuple(int(size) for size in input_shape)
        if shape not in self._graphs:
            graph = _core.Graph(shape)
            for node in self.document["nodes"]:
                graph.add(node["layer"], node["name"], node["id"], node["config"], node["in"])
            graph.set_outputs(self.document["outputs"])
            self._graphs[shape] = graph
        return self._graphs[shape]

    def entries(self) -> list[dict[str, Any]]:
        """Facts on its weights and buffers, in order."""
        own = set(self._entries)
        return [e for e in self.store.entries() if e["name"] in own]

    def parameters_count(self) -> tuple[int, int]:
        """``(trainable, total)`` numbers of parameters; buffers are not counted, as in torch."""
        params = [e for e in self.entries() if e["kind"] == "param"]
        return sum(e["count"] for e in params if e["trainable"]), sum(e["count"] for e in params)

    def summary(self, input_shape: Sequence[int] | None = None) -> Summary:
        """Table of layers with output shapes, parameters and multiply-accumulates."""
        graph = self.graph(input_shape)
        counts: dict[str, int] = {}
        for e in self.entries():
            if e["kind"] == "param":
                counts[e["layer"]] = counts.get(e["layer"], 0) + e["count"]
        made = []
        for k, node in enumerate(self.document["nodes"]):
            params = counts.pop(node["name"], 0)  # a shared layer's weights count once
            made.append(SummaryRow(node["name"], node["layer"], graph.shape(k + 1), params, graph.macs(k)))
        trainable, total = self.parameters_count()
        return Summary(made, graph.shape(0), trainable, total)

    # -- weights --

    def _plane(self, kind: str) -> str:
        if kind not in _KINDS:
            raise ValueError(f"kind must be 'raw' or 'ema', got {kind!r}")
        return _KINDS[kind]

    def state_dict(self, kind: str = "raw") -> dict[str, NDArray[np.float32]]:
        """Copies of all weights and buffers in torch's order; ``kind="ema"``: their running averages."""
        plane = self._plane(kind)
        return {name: self.store.get(name, plane) for name in self._entries}

    def load_state_dict(
        self, state: Mapping[str, ArrayLike], strict: bool = True, kind: str = "raw"
    ) -> LoadReport:
        """Takes weights by name; nothing is changed when they do not fit. See `Module.load_state_dict`."""
        plane = self._plane(kind)
        shapes = {e["name"]: e["shape"] for e in self.entries()}
        report, values = match_state(shapes, state, strict=strict)
        for name, value in values.items():
            self.store.set(name, value, plane)
        return report

    def digest(self, plane: str = "master") -> str:
        """SHA-256 over names, shapes and bytes of a plane, in the store's order."""
        sha = hashlib.sha256()
        for e in self.entries():
            sha.update(f"{e['name']}\0{','.join(map(str, e['shape']))}\0".encode())
            sha.update(np.ascontiguousarray(self.store.get(e["name"], plane), dtype="<f4").tobytes())
        return sha.hexdigest()

    def freeze(self, prefixes: Iterable[str]) -> list[str]:
        """Freezes the parameters below these names (``"layer1"`` is ``layer1.…``, never ``layer10.…``).

        Returns
        -------
        list of str
            What is frozen now by this call.

        Raises
        ------
        ValueError
            A prefix that names nothing.
        """
        names = [e["name"] for e in self.entries() if e["kind"] == "param"]
        frozen: list[str] = []
        for prefix in [prefixes] if isinstance(prefixes, str) else list(prefixes):
            hit = [n for n in names if n == prefix or n.startswith(prefix + ".")]
            if not hit:
                heads = sorted({n.rsplit(".", k)[0] for n in names for k in range(1, n.count(".") + 1)})
                near = difflib.get_close_matches(prefix, heads, 1)
                raise ValueError(
                    f"freeze: nothing is called {prefix!r}; "
                    + (f"did you mean {near[0]!r}?" if near else f"there are {_some(heads)}")
                )
            frozen += [n for n in hit if n not in frozen]
        for name in frozen:
            self.store.set_trainable(name, False)
        return frozen

    def layers(self, patterns: Iterable[str], what: str = "layers") -> list[str]:
        """The layers and groups of layers that these names mean, in the network's order.

        Parameters
        ----------
        patterns : iterable of str
            Names (``"layer1"``, ``"layer1.0.conv1"``), or patterns that are matched part by part
            (``"layer*.*"``: every block of every stage).
        what : str
            Who asks; the first word of an error.

        Raises
        ------
        ValueError
            A pattern that names nothing.
        """
        names = [str(node["name"]) for node in self.document["nodes"]]
        heads = list(
            dict.fromkeys(".".join(n.split(".")[:k]) for n in names for k in range(1, n.count(".") + 2))
        )
        found: dict[str, None] = {}
        for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
            hit = [h for h in heads if h == pattern] or [h for h in heads if _matches(h, pattern)]
            if not hit:
                near = difflib.get_close_matches(pattern, heads, 1)
                raise ValueError(
                    f"{what}: no layer is called {pattern!r}; "
                    + (f"did you mean {near[0]!r}?" if near else f"there are {_some(heads)}")
                )
            found.update(dict.fromkeys(hit))
        return [h for h in heads if h in found]

    # -- running --

    def __call__(self, x: ArrayLike, *, precision: str = "fast", kernels: str | None = None) -> Any:
        """Evaluation forward.

        Parameters
        ----------
        x : array of float32, (N, C, H, W) or (N, F)
            In the network's own scale: nothing is normalised here.
        precision : str, default 'fast'
            ``"precise"`` computes every convolution directly.
        kernels : str, optional
            A kernel set by name.

        Returns
        -------
        numpy.ndarray, or a tuple of them
            float32, one per output. The same bits at any batch size and number of threads.
        """
        a = check_input(x)
        plan = self._plan(a.shape[1:], len(a), precision, kernels)
        parts = [plan.forward(a[k : k + plan.batch]) for k in range(0, len(a), plan.batch)]
        if not parts:
            graph = self.graph(a.shape[1:])
            outputs = tuple(np.zeros((0, *graph.shape(v)), np.float32) for v in self.document["outputs"])
        else:
            outputs = tuple(
                np.concatenate(column) if len(column) > 1 else column[0]
                for column in zip(*parts, strict=True)
            )
        return outputs[0] if len(outputs) == 1 else outputs

    def _plan(self, shape: Sequence[int], n: int, precision: str, kernels: str | None) -> _core.Plan:
        key = (tuple(shape), precision, kernels)
        batch = max(1, min(n, _EVAL_BATCH))
        plan = self._plans.get(key)
        if plan is None or plan.batch < batch:
            graph = self.graph(shape)
            plan = _core.Plan(
                graph, self.store, batch=batch, precision=precision, kernels=kernels, input_dtype="float32"
            )
            self._plans[key] = plan
        return plan

    def __getstate__(self) -> dict[str, Any]:
        planes = {p: self.store.flat(p).copy() for p in self.store.planes()}
        return {"document": self.document, "planes": planes, "entries": self.store.entries()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["document"], seed=None)  # type: ignore[misc]
        facts = {e["name"]: e for e in state["entries"]}
        for e in self.store.entries():
            kept = facts[e["name"]]
            for plane, flat in state["planes"].items():
                part = flat[kept["offset"] : kept["offset"] + kept["count"]]
                self.store.set(e["name"], part.reshape(kept["shape"]), plane)
            if e["kind"] == "param":
                self.store.set_trainable(e["name"], kept["trainable"])
            self.store.set_group(e["name"], kept["group"])
            self.store.set_updates(e["name"], kept["updates"])

    def __repr__(self) -> str:
        trainable, total = self.parameters_count()
        outputs = ", ".join("×".join(map(str, shape)) for shape in self.output_shapes)
        return (
            f"Net({'×'.join(map(str, self.input_shape))} -> {outputs}, {len(self.document['nodes'])} layers, "
            f"{total:,} parameters, {trainable:,} trainable)"
        )

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
