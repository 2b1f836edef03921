"""Trial: a copy of a run that a check may train as it likes; nothing of it touches the run or the disk.

It is the training loop's own set-up (pipeline, loss, optimizer, schedule, groups, order of samples), so a
trial of the whole recipe gives the very weights that training by that recipe gives: a counterfactual run
differs from the real one in what was changed, and in nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .. import checkpoint as checkpoint_file
from ..errors import NonFiniteError
from ..training.console import Console
from ..training.loop import Trainer
from .case import OverBudgetError
from .outputs import Outputs
from .stats import Z95, Estimate, paired

if TYPE_CHECKING:
    from ..data import Data
    from ..data.loader import Batch
    from ..nn import Net
    from ..recipe import Recipe, Resolved
    from .case import Case

__all__ = [
    "Retrained",
    "Trial",
    "first_weights",
    "plain_recipe",
    "resolved",
    "retrained",
    "seconds_of",
    "seconds_of_retraining",
    "whole_history",
    "widened",
]

# What a step costs, roughly, so that the length of a trial is a function of the case and not of the clock:
# multiply-adds per second of two cores, and what each image and each step takes beside them.
_RATE, _PER_IMAGE, _PER_STEP = 1.5e10, 4e-5, 1e-3


def resolved(case: Case) -> Resolved:
    """The case's recipe with nothing left open, on the case's data; made once."""

    def make() -> Resolved:
        from ..recipe import resolve

        assert case.recipe is not None
        assert case.data is not None
        return resolve(case.recipe, case.data)

    made: Resolved = case.keep("resolved recipe", make)
    return made


def plain_recipe(case: Case) -> dict[str, Any]:
    """The recipe as plain data: as the run stored it, else resolved."""
    if case.saved is not None:
        return dict(case.saved.recipe)
    return resolved(case).recipe.to_dict()


def first_weights(case: Case) -> dict[str, NDArray[np.float32]]:
    """Weights and statistics at step 0: drawn from the recipe's seed, then the pretrained file."""
    return _first_of_seed(case, plain_recipe(case)["seed"])


def _first_of_seed(case: Case, seed: int) -> dict[str, NDArray[np.float32]]:
    made: dict[str, NDArray[np.float32]] = case.keep(
        ("first weights", seed), lambda: _begun(case, seed).state_dict()
    )
    return made


def _begun(case: Case, seed: int) -> Net:
    from ..nn import Net
    from ..nn.pretrained import load_pretrained

    recipe = plain_recipe(case)
    if case.saved is not None:
        net = Net(case.saved.graph, seed=seed)
    else:
        given: Net = resolved(case).net()
        net = Net(given.document, seed=None)
        net.load_state_dict(given.state_dict(), strict=True)
    if recipe["pretrained"] and Path(recipe["pretrained"]).exists():
        assert case.data is not None
        load_pretrained(net, recipe["pretrained"], case.data.num_classes)
    return net


def whole_history(case: Case) -> list[dict[str, Any]]:
    """The run's rows to its end: the best checkpoint's own end with its epoch, the last one's beside it go
    on."""

    def make() -> list[dict[str, Any]]:
        saved = case.saved
        assert saved is not None
        last = saved.path.parent / "last.safetensors" if saved.path is not None else None
        if last is not None and last != saved.path and last.exists():
            newest = checkpoint_file.read(last)
            own, later = list(saved.history), list(newest.history)
            if newest.recipe == saved.recipe and later[: len(own)] == own:
                return later
        return list(saved.history)

    rows: list[dict[str, Any]] = case.keep("whole history", make)
    return rows


def seconds_of(case: Case, epochs: float | None = None, images: int | None = None) -> float:
    """Expected seconds of training on so many epochs (default: the recipe's), or on so many images."""
    if case.recipe is None or case.data is None or not len(case.data.splits.get("train", ())):
        return 0.0
    recipe = plain_recipe(case)

    def macs() -> int:
        from ..nn import Net

        net = Net(case.saved.graph, seed=None) if case.saved is not None else resolved(case).net()
        return int(net.summary().macs)

    each = 3.0 * int(case.keep("multiply-adds per image", macs)) / _RATE + _PER_IMAGE
    n: int = images if images is not None else 0
    if images is None:
        n = round(len(case.data.splits["train"]) * (recipe["epochs"] if epochs is None else epochs))
    return n * each + math.ceil(n / int(recipe["batch_size"])) * _PER_STEP


class Trial(Trainer):
    """A run that is made to find something out.

    Parameters
    ----------
    case : Case
        With data and a recipe; its budget is asked between steps.
    changes : mapping, optional
        Changes to the recipe, as `Recipe.override` takes them.
    weights : dict of str to array, optional
        Where it begins; default: where the run began.
    index : (n,) array of int64, optional
        Training samples (manifest indices); default: the train split.
    plain_start : bool
        Begin from the layers' own kind of first weights, whatever initial values the network asks for.
    data : Data, optional
        Other splits of the same samples.

    Attributes
    ----------
    losses : list of float
        Of each step so far.
    finite : bool
        Whether training is still going: False once a loss or gradient was not finite.
    """

    def __init__(
        self,
        case: Case,
        changes: Mapping[str, Any] | None = None,
        *,
        weights: Mapping[str, NDArray[np.float32]] | None = None,
        index: NDArray[np.int64] | None = None,
        plain_start: bool = False,
        data: Data | None = None,
    ) -> None:
        from ..nn import Net
        from ..recipe import Recipe

        assert case.data is not None
        recipe: Recipe = Recipe.from_dict(plain_recipe(case))
        spelled = recipe.override({"test": False, **(changes or {})}).to_dict()
        document = dict(case.saved.graph if case.saved is not None else resolved(case).net().document)
        if plain_start:
            document["init"] = {}
        net = Net(document, seed=spelled["seed"] if plain_start else None)
        if not plain_start:
            first = _first_of_seed(case, spelled["seed"]) if weights is None else weights
            net.load_state_dict(first, strict=True)
        super().__init__(spelled, case.data if data is None else data, net, Path(), Console(0), None)
        self.case = case
        if index is not None:
            self._restrict(np.sort(np.asarray(index, np.int64)))
        self._begin_average()
        self.losses: list[float] = []
        self.finite = True

    def _restrict(self, index: NDArray[np.int64]) -> None:
        self.index = index
        self.batches = self._batches()
        self.total = self.batches * self.recipe["epochs"]
        self.schedule.check(self.batches, self.total)
        self.plan = self._plan(min(self.recipe["batch_size"], len(index)))

    def feed(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, in the order and with the augmentation that training has."""
        from ..data import Loader

        seed, size = self.recipe["seed"], self.recipe["batch_size"]
        order = self.index[_core.permutation(len(self.index), seed, epoch)][: self.batches * size]
        with Loader(self.data, order, self.pipeline, size, epoch=epoch, seed=seed) as loader:
            for batch in loader:
                self.case.budget.ask()
                yield batch

    def update(self, batch: Batch, lr: float | None = None, epoch: int = 0) -> tuple[float, int]:
        """One step of training on a batch: its mean loss, and how many were right.

        `lr` takes the place of the schedule's. Once something is not finite, `finite` is False and the loss
        not a number; the weights are those before that step.
        """
        step = len(self.losses)
        try:
            _, said, mean = self._update(batch, self._lr(step) if lr is None else lr, epoch, step)
        except NonFiniteError:
            self.finite = False
            return math.nan, 0
        self.losses.append(float(mean))
        return float(mean), int(np.count_nonzero(said == batch.y))

    def train(self, steps: int | None = None, seconds: float = math.inf) -> Trial:
        """Train by the recipe, to its end or for so many steps; ends sooner where it is not finite.

        OverBudgetError where it takes longer than so many seconds.
        """
        most = self.total if steps is None else min(steps, self.total)
        began = time.monotonic()
        for epoch in range(self.recipe["epochs"]):
            for batch in self.feed(epoch):
                if len(self.losses) >= most or not self.finite:
                    return self
                if time.monotonic() - began > seconds:
                    raise OverBudgetError(f"training again took more than the {seconds:.0f} s set aside")
                self.update(batch, epoch=epoch)
        return self

    def outputs(self, split: str = "val") -> Outputs:
        """Outputs of the weights that training would deploy, by the evaluation pipeline; the first class for
        every sample where a network has gone beyond all numbers."""
        self.scorer.load(self.net.state_dict(self.kind), self.kind)
        indices = self.data.indices(split)
        try:
            return Outputs.of_record(self.scorer.score(indices, split, stop=self._late))
        except NonFiniteError:
            labels, ids = self.data.labels[indices], [self.data.ids[i] for i in indices]
            none = np.zeros(len(ids), np.int64)
            return Outputs(ids, labels, none, None, "none", self.data.classes, split)

    def _late(self) -> bool:
        self.case.budget.ask()
        return False

    def moved(self, before: Mapping[str, NDArray[np.float32]]) -> float:
        """Length of the way from other weights to these, over the length of those (parameters only)."""
        way = size = 0.0
        for e in self.net.entries():
            if e["kind"] == "param":
                old = np.asarray(before[e["name"]], np.float64)
                way += float(np.sum((self.net.store.get(e["name"]) - old) ** 2))
                size += float(np.sum(old**2))
        return math.sqrt(way / size) if size > 0 else 0.0


@dataclass(frozen=True)
class Retrained:
    """Validation outputs with and without a change to the recipe.

    Attributes
    ----------
    before, after : Outputs
    whole : bool
        The whole recipe was run with the change, and `before` is the run itself; else both are short runs on
        a part of the training samples.
    finite : bool
        Whether training with the change stayed finite.
    images : int
        Training images that each run saw.
    """

    before: Outputs
    after: Outputs
    whole: bool
    finite: bool
    images: int

    @property
    def estimate(self) -> Estimate:
        """Accuracy that the change gives, on the same samples.

        Two runs that differ in a seed only differ in accuracy too: the interval and the p-value allow for it.
        """
        return widened(paired(self.before.right, self.after.right), SPREAD if self.whole else 2 * SPREAD)

    @property
    def said(self) -> str:
        """How it was measured, to go into a sentence."""
        return "trained again" if self.whole else f"both trained on {self.images} images for a short time"


#: standard deviation of accuracy between runs that differ in the seed alone
SPREAD = 0.01
_SHARE, _SHORT_EPOCHS = 0.15, 4
_MOST, _MOST_BEFORE = 15.0, 4.0  # seconds; before training less, since nobody has waited for anything yet


def _limit(case: Case) -> float:
    """Seconds that one retraining may take."""
    return min(_MOST if case.saved is not None else _MOST_BEFORE, _SHARE * case.budget.seconds)


def seconds_of_retraining(case: Case) -> float:
    """Expected seconds of `retrained`."""
    whole = seconds_of(case)
    return whole if whole <= _limit(case) else 2 * _limit(case)


def retrained(
    case: Case,
    changes: Mapping[str, Any],
    *,
    index: NDArray[np.int64] | None = None,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
    plain_start: bool = False,
) -> Retrained:
    """Train by the recipe with some changes: all of it, where that takes a few seconds, else a part.

    Parameters
    ----------
    case : Case
    changes : mapping
        As `Recipe.override` takes them.
    index, weights, plain_start
        As in `Trial`, of the run with the change.

    Raises
    ------
    OverBudgetError
        The budget has not as much left.
    """
    recipe = plain_recipe(case)
    more = changes.get("epochs", recipe["epochs"]) / recipe["epochs"]
    whole = seconds_of(case) * (more + (case.saved is None)) <= _limit(case)
    needed = seconds_of(case) * (more + (case.saved is None)) if whole else 2 * _limit(case)
    if needed > case.budget.left:
        raise OverBudgetError(
            f"to measure it takes about {math.ceil(needed)} s more; {case.budget.left:.0f} s are left"
        )
    part, short = (None, {}) if whole else _part(case)
    if whole and case.saved is not None:
        before = case.outputs("val")
    else:
        before = Trial(case, short, index=part).train().outputs()
    if index is not None:
        part = index if part is None else np.intersect1d(part, index)
    if not whole and "epochs" in changes:
        changes = {**changes, "epochs": max(1, round(short["epochs"] * more))}
    after = Trial(case, {**short, **changes}, index=part, weights=weights, plain_start=plain_start)
    after.train()
    return Retrained(before, after.outputs(), whole, after.finite, len(after.index))


def _part(case: Case) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The training samples and the changes of a short run."""
    recipe = plain_recipe(case)
    epochs = min(_SHORT_EPOCHS, recipe["epochs"])
    n = len(case.data.splits["train"]) if case.data is not None else 0
    share = _limit(case) / seconds_of(case, epochs)
    part = case.sample("train", max(int(n * min(share, 1.0)), 8 * recipe["batch_size"]), 0x7A1)
    return part, {"epochs": epochs, "schedule": {"name": "Cosine"}}


def widened(e: Estimate, spread: float) -> Estimate:
    """The estimate with a further, independent standard deviation in its interval and its p-value.

    >>> wide = widened(Estimate(0.1, 0.08, 0.12, 0.0001), 0.02)
    >>> round(wide.low, 3), round(wide.high, 3), wide.p < 0.001
    (0.056, 0.144, True)
    """
    half = max(e.high - e.points, e.points - e.low)
    wide = math.hypot(half, Z95 * spread)
    p = math.erfc(abs(e.points) * Z95 / wide / math.sqrt(2)) if wide > 0 else e.p
    return Estimate(e.points, e.points - wide, e.points + wide, max(e.p, p))
