"""What a run is between two steps, and how it goes into a checkpoint and comes back.

Nothing else has to be kept: every draw is a function of (seed, stream, epoch, sample, op), so the position
in the epoch is two numbers, and the learning rate follows from the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import CheckpointError
from ..evaluation import versions

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..nn import Net

__all__ = ["Position", "SampleTable", "net_tensors", "restore_net", "slot_names"]


@dataclass
class Position:
    """Where a run is; all of it is in the checkpoint's document ``state``.

    Attributes
    ----------
    epoch, batch : int
        Epochs finished; batches of the running epoch that were used. ``batch`` equal to the number of
        batches: the epoch's evaluation is still to come.
    step : int
        Updates made.
    best : dict or None
        ``epoch``, ``value`` and ``monitor`` of the best checkpoint.
    stale : int
        Evaluations since then.
    seconds, training_seconds : float
        All of the time so far, and that of steps alone.
    images : int
        Training images seen.
    finished, interrupted, stopped_early : bool
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    images: int = 0
    finished: bool = False
    interrupted: bool = False
    stopped_early: bool = False

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Position:
        """From a checkpoint's document ``state``."""
        values: dict[str, Any] = {}
        blank = cls()
        for name in cls.__dataclass_fields__:
            value: Any = state.get(name)
            kind = type(getattr(blank, name))
            if name == "best":
                good = value is None or (
                    isinstance(value, dict) and {"epoch", "value", "monitor"} == set(value)
                )
            else:
                good = type(value) is kind and (kind is bool or value >= 0)
            if not good:
                raise CheckpointError(
                    f"document 'state': {name} is {value!r}: not the state of a training run"
                )
            values[name] = value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class SampleTable:
    """For each epoch and training sample: its loss, and whether it was right, as it was fed.

    Attributes
    ----------
    index : (n,) int64
        Manifest indices of the training samples, rising.
    loss : list of (n,) float32
        NaN: not seen in that epoch.
    right : list of (n,) int8
        -1: not seen.
    """

    index: NDArray[np.int64]
    loss: list[NDArray[np.float32]] = field(default_factory=list)
    right: list[NDArray[np.int8]] = field(default_factory=list)

    def begin(self, epoch: int) -> None:
        """Make the row of an epoch, if it is not there."""
        while len(self.loss) <= epoch:
            self.loss.append(np.full(len(self.index), np.nan, np.float32))
            self.right.append(np.full(len(self.index), -1, np.int8))

    def note(self, epoch: int, ids: NDArray[np.int64], loss: NDArray[Any], right: NDArray[Any]) -> None:
        """Keep a batch's outputs."""
        at = np.searchsorted(self.index, ids)
        self.loss[epoch][at] = loss
        self.right[epoch][at] = right

    def seen(self, epoch: int) -> tuple[NDArray[np.float32], int]:
        """Losses of the samples seen in an epoch (in manifest order), and how many of them were right."""
        row = self.right[epoch]
        return self.loss[epoch][row >= 0], int(np.count_nonzero(row > 0))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """For the checkpoint and ``train_samples.npz``: index (n), loss and right (epochs, n)."""
        n = len(self.index)
        return {
            "index": self.index,
            "loss": np.stack(self.loss) if self.loss else np.zeros((0, n), np.float32),
            "right": np.stack(self.right) if self.right else np.zeros((0, n), np.int8),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], index: NDArray[np.int64]) -> SampleTable:
        """From a checkpoint's tensors; the training samples must be the same ones."""
        try:
            stored, loss, right = (tensors[f"gapless/train_samples/{k}"] for k in ("index", "loss", "right"))
        except KeyError as e:
            raise CheckpointError(f"tensor {e} is missing: this checkpoint cannot be resumed") from None
        if not np.array_equal(stored, index) or loss.shape != right.shape or loss.shape[1:] != index.shape:
            raise CheckpointError(
                "tensor 'gapless/train_samples/index': these are not the training samples of the run"
            )
        return cls(index, [row.copy() for row in loss], [row.copy() for row in right])


def slot_names(optimizer: str) -> list[str]:
    """The optimizer's state by torch's names: ``momentum_buffer``, ``exp_avg`` …"""
    rows: list[dict[str, Any]] = _core.describe()["optimizers"]
    row = next(r for r in rows if r["name"] == optimizer)
    slots = row["slots"]
    return [s if isinstance(s, str) else s["name"] for s in slots]


def net_tensors(net: Net, optimizer: str, kind: str, with_ema: bool) -> dict[str, NDArray[Any]]:
    """Every tensor of the net, by its name in a checkpoint: plain names are the weights of `kind`."""
    store = net.store
    names = [e["name"] for e in store.entries()]
    planes = store.planes()
    out = {n: store.get(n, "ema" if kind == "ema" else "master") for n in names}
    if with_ema:
        other = "raw" if kind == "ema" else "ema"
        out |= {f"{other}/{n}": store.get(n, "master" if other == "raw" else "ema") for n in names}
    trained = [e["name"] for e in store.entries() if e["kind"] == "param" and e["trainable"]]
    for i, slot in enumerate(slot_names(optimizer)):
        if f"slot{i}" in planes:
            out |= {f"optim/{slot}/{n}": store.get(n, f"slot{i}") for n in trained}
    return out


def restore_net(net: Net, saved: Checkpoint, optimizer: str) -> list[str]:
    """Put weights, EMA, slots and counts of updates back; what was restored, and what the file does not have.

    Every part is put back or named as absent; nothing is dropped in silence.
    """
    store, words = net.store, []
    for kind, plane in (("raw", "master"), ("ema", "ema")):
        weights = saved.weights(kind)
        if weights is None:
            words.append(f"{kind} weights: none stored")
            continue
        _put(store, weights, plane, [e["name"] for e in store.entries()])
        words.append(f"{kind} weights: {len(weights)} tensors")
    slots, wanted = saved.slots(), slot_names(optimizer)
    if set(slots) - set(wanted):
        raise CheckpointError(
            f"optimizer state {sorted(set(slots) - set(wanted))} is not that of {optimizer} ({wanted})"
        )
    for i, slot in enumerate(wanted):
        if slot in slots:
            trained = [e["name"] for e in store.entries() if e["kind"] == "param" and e["trainable"]]
            _put(store, slots[slot], f"slot{i}", trained)
            words.append(f"optimizer state {slot}: {len(slots[slot])} tensors")
        elif saved.state["step"] > 0:
            raise CheckpointError(
                f"optimizer state {slot!r} of {optimizer} is missing: this checkpoint cannot be resumed"
            )
    for name, count in saved.state["updates"].items():
        store.set_updates(name, count)
    return words


def _put(store: Any, arrays: Mapping[str, NDArray[Any]], plane: str, names: list[str]) -> None:
    if set(arrays) != set(names):
        odd = sorted(set(arrays) ^ set(names))
        raise CheckpointError(f"weights ({plane}): file and network do not agree on {odd[:5]}")
    for name in names:
        store.set(name, np.asarray(arrays[name], np.float32), plane)


def common_state(net: Net, position: Position) -> dict[str, Any]:
    """The parts of document ``state`` that follow from net and position."""
    return {
        **position.to_dict(),
        "updates": {e["name"]: int(e["updates"]) for e in net.store.entries() if e["kind"] == "param"},
        "versions": versions(),
    }
