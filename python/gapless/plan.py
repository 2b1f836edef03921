"""Plans: a network, a loss and an optimizer compiled for a batch size; one call is one training step."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gapless import _core
from gapless.losses import Loss
from gapless.nn.module import Module
from gapless.nn.net import Net
from gapless.optim import Optimizer

__all__ = ["Plan", "Step", "compile", "memory"]


class Step(NamedTuple):
    """What a training step gives.

    Attributes
    ----------
    loss : float
        The batch's loss, which the gradients are of.
    losses : numpy.ndarray
        float32 (n), one per sample.
    pred : numpy.ndarray
        int32 (n), the class of the largest logit.
    """

    loss: float
    losses: NDArray[np.float32]
    pred: NDArray[np.int32]


class _Group(NamedTuple):
    patterns: tuple[str, ...]
    changes: dict[str, float]

    def has(self, name: str) -> bool:
        return any(
            name == p or name.startswith(p + ".") or fnmatch.fnmatchcase(name, p) for p in self.patterns
        )


class Plan:
    """A compiled network. Made by `gapless.compile`.

    Attributes
    ----------
    net : Net
        The network; its store holds the weights that `step` trains.
    loss : Loss or None
    optimizer : Optimizer or None
    batch : int
        Largest batch.
    steps : int
        Steps taken by this plan.
    """

    def __init__(
        self,
        net: Net,
        loss: Loss | None,
        optimizer: Optimizer | None,
        batch: int,
        *,
        input_shape: Sequence[int] | None = None,
        precision: str = "fast",
        kernels: str | None = None,
        mean: ArrayLike | None = None,
        std: ArrayLike | None = None,
        groups: Sequence[Mapping[str, Any]] | None = None,
        decay_norm_and_bias: bool = True,
        input_dtype: str = "float32",
        training: bool | None = None,
        recompute: Sequence[str] = (),
        measure: bool = False,
    ) -> None:
        self.net = net
        self.loss = loss
        self.optimizer = optimizer
        self.steps = 0
        self.training = loss is not None if training is None else training
        if self.training and net.is_part and optimizer is not None:
            raise ValueError(
                "this module is a part of a larger one whose weights are already in use; compile the whole, "
                "and freeze the rest (requires_grad = False)"
            )
        self._groups = _parse_groups(groups, optimizer)
        self._decay_all = decay_norm_and_bias
        if optimizer is not None and not measure:
            self._assign_groups()
        self._hyper: tuple[Any, NDArray[np.float64]] | None = None
        self._options: dict[str, Any] = {
            "batch": batch,
            "precision": precision,
            "kernels": kernels,
            "mean": _numbers(mean),
            "std": _numbers(std),
            "loss": None if loss is None else (loss.name, loss.config()),
            "optimizer": None if optimizer is None else optimizer.name,
            "recompute": net.layers(recompute, "recompute"),
            "measure": measure,
        }
        self._graph = net.graph(input_shape)
        self._plans: dict[tuple[str, bool], _core.Plan] = {}
        self._last = self._plan(input_dtype, self.training)

    def _plan(self, dtype: str, training: bool) -> _core.Plan:
        """One of the core's plans; each is made when it is first used.

        Images come as uint8 (n, H, W, C) or float32 (n, C, H, W), and evaluation has a graph of its own.
        """
        key = (dtype, training)
        if key not in self._plans:
            options = {
                **self._options,
                "training": training,
                "optimizer": self._options["optimizer"] if training else None,
            }
            self._plans[key] = _core.Plan(self._graph, self.net.store, input_dtype=dtype, **options)
        if training or not self.training:
            self._last = self._plans[key]  # what gradients() and describe() tell of
        return self._plans[key]

    def _ready(self, x: ArrayLike, training: bool) -> tuple[_core.Plan, NDArray[Any]]:
        a = np.asarray(x)
        if a.dtype == np.float64:
            a = a.astype(np.float32)
        if a.dtype not in (np.uint8, np.float32):
            raise TypeError(f"x must be uint8 (n, H, W, C) or float32 (n, C, H, W), got {a.dtype}")
        return self._plan(a.dtype.name, training), a

    # -- groups of weights --

    def _assign_groups(self) -> None:
        rows = 1 if self._decay_all else 2  # the second of a pair: no weight decay
        for e in self.net.entries():
            index = next((k for k, g in enumerate(self._groups) if g.has(e["name"])), 0)
            self.net.store.set_group(e["name"], index * rows + (rows - 1 if e["norm_or_bias"] else 0))

    def hyper(self, **changes: float) -> NDArray[np.float64]:
        """The table of hyper-parameters of a step: a row per group, a column per parameter of the optimizer.

        A group's own ``lr`` keeps its ratio to the optimizer's when `changes` has another ``lr`` (a
        schedule's).
        """
        if self.optimizer is None:
            if changes:
                raise TypeError(f"the plan has no optimizer that would take {', '.join(changes)}")
            return np.zeros((1, 1))
        key = tuple(changes.items())
        if self._hyper is None or self._hyper[0] != key:
            self._hyper = (key, self._hyper_table(changes))
        return self._hyper[1]

    def _hyper_table(self, changes: dict[str, float]) -> NDArray[np.float64]:
        assert self.optimizer is not None
        table = []
        for group in self._groups:
            own = dict(group.changes)
            if "lr" in own and "lr" in changes and self.optimizer.lr:
                own["lr"] = own["lr"] / self.optimizer.lr * changes["lr"]
            optimizer = self.optimizer.replace(**{**changes, **own})
            table.append(optimizer.hyper())
            if not self._decay_all:
                table.append(
                    (
                        optimizer.replace(weight_decay=0.0)
                        if "weight_decay" in optimizer.config()
                        else optimizer
                    ).hyper()
                )
        return np.array(table, dtype=np.float64)

    # -- running --

    def step(
        self,
        x: ArrayLike,
        y: ArrayLike | tuple[ArrayLike, ArrayLike],
        *,
        epoch: int = 0,
        step: int | None = None,
        ids: ArrayLike | None = None,
        seed: int = 0,
        ema_decay: float | None = None,
        clip_norm: float | None = None,
        **hyper: float,
    ) -> Step:
        """One training step: forward, loss, backward, check, update.

        Parameters
        ----------
        x : array
            float32 (n, C, H, W), or uint8 images (n, H, W, C); n up to the plan's batch.
        y : array
            Integer classes (n), or float32 soft targets (n, K), or ``(values, offsets)``.
        epoch, ids, seed
            Coordinates of the random draws (Dropout): epoch, number of each sample, the run's seed.
            Without `ids` samples are numbered ``step * batch + position``.
        step : int, optional
            Number of this step; counted from 0 when left out.
        ema_decay : float, optional
            Also moves the running average of the weights: ``ema = d * ema + (1 - d) * w``.
        clip_norm : float, optional
            Bounds the L2 norm of all gradients together.
        **hyper
            Parameters of the optimizer for this step: ``lr=…``.

        Returns
        -------
        Step

        Raises
        ------
        NonFiniteError
            A loss or gradient is not finite; nothing was written.
        RuntimeError
            Another thread is using this plan.
        """
        if not self.training:
            raise ValueError("this plan was compiled without a loss: it has no step")
        plan, a = self._ready(x, training=True)
        number = self.steps if step is None else int(step)
        if ids is None:
            ids = np.arange(len(a), dtype=np.int64) + number * plan.batch
        targets: Any = y
        if not isinstance(y, tuple):
            targets = np.asarray(y)
            if targets.dtype == np.float64:
                targets = targets.astype(np.float32)
        losses, pred, mean = plan.step(
            a,
            targets,
            hyper=self.hyper(**hyper),
            epoch=epoch,
            step=number,
            ids=np.asarray(ids, dtype=np.int64),
            seed=seed,
            ema_decay=-1.0 if ema_decay is None else ema_decay,
            clip_norm=0.0 if clip_norm is None else clip_norm,
        )
        self.steps = number + 1
        return Step(mean, losses, pred)

    def forward(self, x: ArrayLike) -> Any:
        """Evaluation forward: float32 logits, or a tuple when the network has several outputs."""
        plan, a = self._ready(x, training=False)
        outputs = plan.forward(a)
        return outputs[0] if len(outputs) == 1 else outputs

    __call__ = forward

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.int32], Any]:
        """Per-sample plain loss, prediction, and outputs of the evaluation forward."""
        plan, a = self._ready(x, training=False)
        losses, pred, outputs = plan.evaluate(a, np.asarray(y))
        return losses, pred, outputs[0] if len(outputs) == 1 else outputs

    # -- looking inside --

    @property
    def batch(self) -> int:
        return int(self._options["batch"])

    @property
    def kernel_set(self) -> str:
        return self._last.kernel_set

    @property
    def store(self) -> _core.Store:
        return self.net.store

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the last step's gradients by name; frozen weights are left out."""
        return self._last.gradients()

    def describe(self) -> list[dict[str, Any]]:
        """A row per op after fusion: op, layer, shapes, what was chosen, multiply-accumulates."""
        return self._last.describe()

    def profile(self) -> list[dict[str, Any]]:
        """Where the time of this plan's calls went since the last ``profile()``, which this one begins anew.

        The first call begins the timing, so its rows are zero. A row per op, in the order of `describe`:
        op, layer, choice, and ``forward_seconds``, ``backward_seconds``, ``derive_seconds`` (weights
        repacked after an update); then a row ``loss`` and a row ``update`` (checks, running statistics,
        optimizer), in ``forward_seconds``. While it is timed, an evaluation goes op by op, each op over all
        threads; else each thread takes images of its own through all ops (the same bits, and faster).
        """
        return self._last.profile()

    def memory(self) -> dict[str, int]:
        """Bytes by use; `gapless.memory` tells them without making a plan.

        Returns
        -------
        dict
            ``total`` is what the plan and the network take: ``arena`` (one block that all values, gradients,
            repacked weights and scratch share, each for as long as it is needed), ``weights`` and ``slots``
            (the optimizer's). ``alive`` is what lives in the arena at once at most. ``gradients``
            (of weights), ``derived`` (repacked weights), ``saved`` and ``workspace`` lie in the arena too,
            not all at the same time. A running average of the weights (EMA) takes ``weights`` once more.
        """
        return self._last.memory()

    def __repr__(self) -> str:
        return f"Plan({self.net!r}, {self.loss!r}, {self.optimizer!r}, batch={self.batch})"


def _numbers(values: ArrayLike | None) -> tuple[float, ...] | None:
    return (
        None
        if values is None
        else tuple(float(v) for v in np.atleast_1d(np.asarray(values, dtype=np.float64)))
    )


def _parse_groups(groups: Sequence[Mapping[str, Any]] | None, optimizer: Optimizer | None) -> list[_Group]:
    """Group 0 is all that no other one names."""
    made = [_Group((), {})]
    for k, group in enumerate(groups or ()):
        if optimizer is None:
            raise ValueError("groups need an optimizer")
        if "params" not in group:
            raise ValueError(
                f"groups[{k}]: params must say which weights: names, prefixes or patterns "
                "('fc', 'layer*.bn*')"
            )
        patterns = group["params"]
        changes = {key: value for key, value in group.items() if key != "params"}
        optimizer.replace(**changes)  # names and ranges
        made.append(_Group((patterns,) if isinstance(patterns, str) else tuple(patterns), changes))
    return made


def compile(
    net: Net | Module,
    loss: Loss | None,
    optimizer: Optimizer | None,
    batch_shape: Sequence[int],
    *,
    precision: str = "fast",
    kernels: str | None = None,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    groups: Sequence[Mapping[str, Any]] | None = None,
    decay_norm_and_bias: bool = True,
    input_dtype: str = "float32",
    recompute: Sequence[str] = (),
) -> Plan:
    """Compile a network for a batch size.

    Parameters
    ----------
    net : Module or Net
        A module's own weights are trained: its ``state_dict()`` shows them.
    loss : Loss or None
        None: forward only.
    optimizer : Optimizer or None
        None: steps make gradients and update nothing.
    batch_shape : (N, C, H, W) or (N, F)
        N is the largest batch; smaller ones run on the same plan.
    precision : {'fast', 'precise'}
        fast: Winograd's F(4x4, 3x3) and Strassen's halves where they pay. Error, of the largest element: 3x3
        up to 2.5e-6 forward, 1x1 up to 1e-6; precise: 4e-7.
    kernels : str, optional
        A kernel set: ``"avx512"``, ``"avx2"``, ``"neon"``, ``"blas"``, ``"ref"``; the best one when left out.
    mean, std : float or sequence of float, optional
        Normalisation, applied while the input is read; of pixels in [0, 1] for uint8 images.
    groups : sequence of dict, optional
        ``{"params": "fc", "lr": 0.1}``: weights (names, prefixes, patterns) with hyper-parameters of their
        own.
    decay_norm_and_bias : bool, default True
        False: no weight decay for biases and normalisation layers.
    input_dtype : {'float32', 'uint8'}
        What the plan is made for at once; the other is made when it is first fed.
    recompute : sequence of str, optional
        Layers whose values are not kept for backward but made again, one named layer (or group of layers)
        at a time: less memory, a second forward of them, the same bits. Names (``"layer1"``) or patterns
        (``"layer*.*"``: block by block, which leaves little more than the blocks' outputs).

    Returns
    -------
    Plan

    Examples
    --------
    >>> import numpy as np
    >>> import gapless as gl
    >>> net = gl.models.lenet(num_classes=3, image_size=8)
    >>> plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1), (4, 1, 8, 8))
    >>> x, y = np.ones((4, 1, 8, 8), np.float32), np.array([0, 1, 2, 0])
    >>> first = plan.step(x, y).loss
    >>> plan.step(x, y, lr=0.05).loss < first
    True
    """
    return _make(
        net,
        loss,
        optimizer,
        batch_shape,
        precision=precision,
        kernels=kernels,
        mean=mean,
        std=std,
        groups=groups,
        decay_norm_and_bias=decay_norm_and_bias,
        input_dtype=input_dtype,
        recompute=recompute,
    )


def memory(
    net: Net | Module,
    loss: Loss | None,
    optimizer: Optimizer | None,
    batch_shape: Sequence[int],
    *,
    precision: str = "fast",
    kernels: str | None = None,
    input_dtype: str = "float32",
    recompute: Sequence[str] = (),
) -> dict[str, int]:
    """Bytes that `compile` with the same arguments would take, allocating none of them.

    Parameters
    ----------
    net, loss, optimizer, batch_shape, precision, kernels, input_dtype, recompute
        As in `compile`. The network itself exists: ``weights`` are allocated already.

    Returns
    -------
    dict
        As `Plan.memory`.

    Examples
    --------
    >>> import gapless as gl
    >>> net = gl.models.resnet18(num_classes=10, stem="cifar")
    >>> parts = net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1), (128, 3, 32, 32)
    >>> full = gl.memory(*parts)["total"]
    >>> gl.memory(*parts, recompute=["layer*.*"])["total"] < 0.8 * full
    True
    """
    plan = _make(
        net,
        loss,
        optimizer,
        batch_shape,
        precision=precision,
        kernels=kernels,
        input_dtype=input_dtype,
        recompute=recompute,
        measure=True,
    )
    return plan.memory()


def _make(
    net: Net | Module,
    loss: Loss | None,
    optimizer: Optimizer | None,
    batch_shape: Sequence[int],
    **options: Any,
) -> Plan:
    shape = tuple(int(size) for size in batch_shape)
    if len(shape) not in (2, 4) or min(shape) < 1:
        raise ValueError(f"batch_shape must be (N, C, H, W) or (N, F), sizes >= 1, got {shape}")
    for value, kind, name in ((loss, Loss, "loss"), (optimizer, Optimizer, "optimizer")):
        if value is not None and not isinstance(value, kind):
            raise TypeError(
                f"{name} must be an object of gapless.{'losses' if kind is Loss else 'optim'}, got {value!r}"
            )
    made = net.net(shape[1:]) if isinstance(net, Module) else net
    return Plan(made, loss, optimizer, shape[0], input_shape=shape[1:], **options)
