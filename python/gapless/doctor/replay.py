"""Replay: the batches of an epoch that was trained, fed again with any weights, in any mode.

Every draw of training is a function of (seed, epoch, sample, operation), so the very images of any epoch can
be made again, in the very batches, with the very dropout. A pass works on a network of its own: neither the
case's model nor a file is touched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import CheckpointError
from ..training.state import SampleTable
from .statistics import Gathered
from .still import Still

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..data import Data
    from ..data.pipeline import Pipeline
    from ..nn import Net
    from .case import Budget, Case

__all__ = ["Mode", "Passed", "Replay", "Weights", "is_own", "replay_of"]

Indices = NDArray[np.int64]
Weights = Mapping[str, NDArray[Any]]
_CACHE = 1 << 28  # bytes of replayed images that are kept for the next pass
_STREAM = 0x5EED  # of the choice of batches


@dataclass(frozen=True)
class Mode:
    """How the replayed samples go through the network.

    Attributes
    ----------
    dropout : bool
    norm : {"batch", "running"}
        What BatchNorm normalises with. Layers that were frozen in training always take running statistics.
    view : {"augmented", "still", "evaluation"}
        The training pipeline with its recorded draws, the same without draws, or the evaluation pipeline.
    """

    dropout: bool = True
    norm: Literal["batch", "running"] = "batch"
    view: Literal["augmented", "still", "evaluation"] = "augmented"


@dataclass(frozen=True)
class Passed:
    """What a pass gave, in the order of `Replay.ids`.

    Attributes
    ----------
    predictions : (n,) int64
    loss : (n,) float32
    right : (n,) bool
        Against the given labels.
    gathered : Gathered or None
        The batches' statistics, where BatchNorm normalised with them.
    """

    predictions: Indices
    loss: NDArray[np.float32]
    right: NDArray[np.bool_]
    gathered: Gathered | None


class Replay:
    """Recorded batches of the last whole epoch of a checkpoint.

    Parameters
    ----------
    saved : Checkpoint
    data : Data
        The checkpoint's own.
    budget : Budget
    most : int, optional
        About so many samples: whole batches, chosen at random. Default all.
    seed : int
        Of that choice.

    Attributes
    ----------
    epoch : int
        From 0.
    ids : (n,) int64
        Manifest indices of the samples, batch after batch.
    sizes : list of int
        Of the batches.
    recorded : (n,) bool
        Whether each was right when it was trained on.
    logged : (int, int)
        How many of all samples of the epoch were right, and how many there were.
    dropout, norm, draws : bool
        Whether the network has dropout, BatchNorm that takes its batch's statistics in training, and the
        pipeline random operations.
    """

    def __init__(
        self, saved: Checkpoint, data: Data, budget: Budget, *, most: int | None = None, seed: int = 0
    ) -> None:
        from ..data.pipeline import Pipeline

        self.saved, self.data, self.budget = saved, data, budget
        self.recipe: dict[str, Any] = saved.recipe
        self.pipeline = Pipeline(self.recipe["train"])
        self.eval_pipeline = Pipeline(self.recipe["eval"], evaluation=True)
        self.still = Still(self.pipeline)
        self.draws = self.pipeline.random
        index = np.sort(np.asarray(data.indices("train"), np.int64))
        table = SampleTable.of(saved.tensors, index)
        self.epoch, self.logged = _last_epoch(saved, table)
        batches = self._batches(index)
        self.whole = sum(len(b) for b in batches)
        batches = _chosen(batches, most, seed)
        self.sizes = [len(b) for b in batches]
        self.ids = np.concatenate(batches)
        self.labels = data.labels[self.ids]
        right = table.right[self.epoch][np.searchsorted(index, self.ids)]
        if (right < 0).any():
            raise CheckpointError(
                f"{saved.path}: {int((right < 0).sum())} samples of epoch {self.epoch + 1} are not in its "
                "table of training samples"
            )
        self.recorded = right > 0
        self._images: dict[str, list[NDArray[np.uint8]]] = {}
        self._passes: dict[Any, Passed] = {}
        nodes = saved.graph["nodes"]
        self.dropout = any(n["layer"] == "Dropout" and n["config"]["p"] > 0 for n in nodes)
        self.norms = self._live_norms()
        self.norm = bool(self.norms)

    def _batches(self, index: Indices) -> list[Indices]:
        """The epoch's batches, as training made them."""
        size, seed = self.recipe["batch_size"], self.recipe["seed"]
        order = index[_core.permutation(len(index), seed, self.epoch)]
        if self.recipe["drop_last"]:
            order = order[: len(order) // size * size]
        return [order[k : k + size] for k in range(0, len(order), size)]

    # -- networks ---------------------------------------------------------------------------------

    def net(self, *, dropout: bool = True) -> Net:
        """A network like the checkpoint's, of its own; without dropout all other draws stay as they are."""
        from ..nn import Net

        document = copy.deepcopy(self.saved.graph)
        for node in document["nodes"]:
            if node["layer"] == "Dropout" and not dropout:
                node["config"]["p"] = 0.0
            elif node["layer"] == "BatchNorm2d":
                node["config"]["momentum"] = 1.0  # after a step the running statistics are the batch's
        return Net(document, seed=None)

    def _live_norms(self) -> list[str]:
        """BatchNorm layers that took their batch's statistics in training."""
        net = self.net()
        if self.recipe["freeze"]:
            net.freeze(self.recipe["freeze"])
        learns = {e["name"] for e in net.entries() if e["kind"] == "param" and e["trainable"]}
        names = dict.fromkeys(n["name"] for n in net.document["nodes"] if n["layer"] == "BatchNorm2d")
        return [n for n in names if {f"{n}.weight", f"{n}.bias"} & learns]

    # -- images -----------------------------------------------------------------------------------

    def images(self, view: str) -> Iterable[NDArray[np.uint8]]:
        """uint8 (n, H, W, C) of each batch: with the recorded draws, standing still, or as evaluated. Kept
        for the next pass where they are small enough."""
        if view == "still" and not self.draws:
            view = "augmented"
        if view in self._images:
            return self._images[view]
        kept = sum(x.nbytes for batches in self._images.values() for x in batches)
        height, width = self._size()
        if kept + len(self.ids) * height * width * self.data.channels > _CACHE:
            return self._loaded(view)
        self._images[view] = list(self._loaded(view))
        return self._images[view]

    def _size(self) -> tuple[int, int]:
        size = self.recipe["image_size"]
        return (int(size[0]), int(size[1])) if isinstance(size, list) else (int(size), int(size))

    def _loaded(self, view: str) -> Iterator[NDArray[np.uint8]]:
        from ..data import Loader

        pipeline: Any = {
            "augmented": self.pipeline,
            "still": self.still,
            "evaluation": self.eval_pipeline,
        }[view]
        seed, size = self.recipe["seed"], self.recipe["batch_size"]
        with Loader(self.data, self.ids, pipeline, size, epoch=self.epoch, seed=seed) as loader:
            for batch in loader:
                self.budget.ask()
                yield batch.x

    # -- passes -----------------------------------------------------------------------------------

    def canonical(self, mode: Mode) -> Mode:
        """The same mode said in one way: what the run does not have is off."""
        return Mode(
            mode.dropout and self.dropout,
            mode.norm if self.norm else "running",
            "augmented" if mode.view == "still" and not self.draws else mode.view,
        )

    def passed(self, kind: str, weights: Weights, mode: Mode) -> Passed:
        """The replayed samples through `weights`, in a mode; made once for each `kind` (a name of the
        weights) and mode."""
        mode = self.canonical(mode)
        if (kind, mode) not in self._passes:
            evaluation = not mode.dropout and mode.norm == "running"
            self._passes[kind, mode] = (
                self._evaluated(weights, mode) if evaluation else self._trained(weights, mode)
            )
        return self._passes[kind, mode]

    def images_left(self, kind: str, mode: Mode) -> int:
        """What a pass would still cost, in images of an evaluation pass; batch statistics need a step."""
        mode = self.canonical(mode)
        if (kind, mode) in self._passes:
            return 0
        return len(self.ids) * (3 if mode.norm == "batch" else 1)

    def _plan(self, net: Net, pipeline: Pipeline, **more: Any) -> Any:
        loss = dict(self.recipe["loss"])
        return _core.Plan(
            net.graph(),
            net.store,
            batch=max(self.sizes),
            precision=self.recipe["precision"],
            mean=pipeline.mean,
            std=pipeline.std,
            input_dtype="uint8",
            loss=(loss.pop("name"), loss),
            **more,
        )

    def _evaluated(self, weights: Weights, mode: Mode) -> Passed:
        net = self.net(dropout=False)
        net.load_state_dict(weights, strict=True)
        plan = self._plan(net, self.eval_pipeline if mode.view == "evaluation" else self.pipeline)
        said, lost, at = [], [], 0
        for x in self.images(mode.view):
            self.budget.ask()
            loss, pred, _ = plan.evaluate(x, self.labels[at : at + len(x)])
            said.append(pred)
            lost.append(loss)
            at += len(x)
        return self._result(said, lost, None)

    def _trained(self, weights: Weights, mode: Mode) -> Passed:
        """In training mode. BatchNorm with running statistics is BatchNorm that is frozen; with the batch's,
        a step of learning rate 0 puts them where they can be read, and then the old ones are put back."""
        net = self.net(dropout=mode.dropout)
        net.load_state_dict(weights, strict=True)
        live = self.norms if mode.norm == "batch" else []
        keep = {f"{n}.{p}" for n in live for p in ("weight", "bias")}
        for e in net.entries():
            if e["kind"] == "param":
                net.store.set_trainable(e["name"], e["name"] in keep)
        if mode.norm == "batch" and self.recipe["freeze"]:
            net.freeze(self.recipe["freeze"])
        hyper = _standing_still()
        plan = self._plan(
            net,
            self.eval_pipeline if mode.view == "evaluation" else self.pipeline,
            training=True,
            optimizer="SGD" if live else None,
        )
        gathered = Gathered(net, live) if live else None
        said, lost, at = [], [], 0
        for number, x in enumerate(self.images(mode.view)):
            self.budget.ask()
            ids = self.ids[at : at + len(x)]
            loss, pred, _ = plan.step(
                x,
                self.labels[at : at + len(x)],
                hyper=hyper,
                epoch=self.epoch,
                step=number,
                ids=ids,
                seed=self.recipe["seed"],
            )
            said.append(pred)
            lost.append(loss)
            at += len(x)
            if gathered is not None:
                gathered.take(len(x))
        return self._result(said, lost, gathered)

    def _result(self, said: list[Any], lost: list[Any], gathered: Gathered | None) -> Passed:
        predictions = np.concatenate(said).astype(np.int64)
        return Passed(predictions, np.concatenate(lost), predictions == self.labels, gathered)


def replay_of(case: Case, most: int = 4000) -> Replay | None:
    """The case's replay, one for the waterfall and all checks; None where the case is not a run's that can be
    replayed (no run, other data, no whole epoch)."""

    def make() -> Replay | None:
        saved, data = case.saved, case.data
        if saved is None or data is None or "history" not in case.facts or not is_own(saved, data):
            return None
        if not _epochs(saved):
            return None
        return Replay(saved, data, case.budget, most=_affordable(case, most), seed=case.seed)

    found: Replay | None = case.keep("replay", make)
    return found


#: What the waterfall's passes cost, in evaluation passes: a pass with batch statistics goes back as well.
_PASSES = 14.0
_SHARE = 0.3


def _affordable(case: Case, most: int) -> int:
    """How many samples the waterfall's passes may take, so that checks have their time: `most`, halved until
    it fits, so that small differences in speed choose no other samples."""
    each = _PASSES * case.seconds_per_image()
    while most > 64 and most * each > _SHARE * case.budget.left:
        most //= 2
    return most


def is_own(saved: Checkpoint, data: Data) -> bool:
    """Whether these are the very samples and splits that the checkpoint was trained on."""
    samples = saved.manifest["samples"]
    return (
        list(data.ids) == list(samples["id"])
        and list(data.digests) == list(samples["digest"])
        and list(data.split_of) == list(samples["split"])
    )


def _epochs(saved: Checkpoint) -> list[dict[str, Any]]:
    return [r for r in saved.history if r.get("train/running/top1") is not None]


def _last_epoch(saved: Checkpoint, table: SampleTable) -> tuple[int, tuple[int, int]]:
    """The last whole epoch, from 0, and how many of its samples were right, of how many."""
    row = _epochs(saved)[-1]
    epoch = int(row["epoch"]) - 1
    said = (int(row["train/running/correct"]), int(row["train/running/n"]))
    losses, right = table.seen(epoch) if epoch < len(table.right) else (np.empty(0, np.float32), 0)
    if (right, len(losses)) != said:
        raise CheckpointError(
            f"{saved.path}: epoch {epoch + 1}: its history says {said[0]} of {said[1]} were right, its table "
            f"of training samples {right} of {len(losses)}"
        )
    return epoch, said


def _chosen(batches: list[Indices], most: int | None, seed: int) -> list[Indices]:
    """Whole batches of about `most` samples: a batch's statistics are those of its own images."""
    size = len(batches[0])
    wanted = len(batches) if most is None else max(1, round(most / size))
    if wanted >= len(batches):
        return batches
    picked = np.sort(_core.permutation(len(batches), seed, _STREAM)[:wanted])
    return [batches[int(k)] for k in picked]


def _standing_still() -> NDArray[np.float64]:
    """SGD that changes nothing: learning rate 0, no decay."""
    from .. import optim

    config = {**optim.SGD().config(), "lr": 0.0, "weight_decay": 0.0}
    return np.array([[float(v) for v in config.values()]], np.float64)
