"""Case: everything that is known about a model and its data, and the one place where checks get more of it.

What is costly is computed when it is first asked for, kept, and counted against the budget. A fact that is
missing is missing in `facts`, so that a check that needs it is left out with its reason instead of failing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, GaplessError
from .outputs import Outputs
from .subject import NetSubject, Subject, permuted
from .table import FACTS

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..data import Data
    from ..evaluation import Scorer
    from ..recipe import Recipe
    from .detector_losses import DetectorLosses
    from .yolo_labels import YoloLabels

__all__ = ["Budget", "Case", "OverBudgetError", "first_word"]

Indices = NDArray[np.int64]


class OverBudgetError(GaplessError):
    """A check used up the time that was left; what it had found so far is not enough to say anything."""


class Budget:
    """Seconds that a diagnosis may take.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = float(seconds)
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds that are left, never below 0."""
        return max(0.0, self.seconds - self.spent)

    def ask(self) -> None:
        """Called between pieces of long work; raises `OverBudgetError` when the time is over."""
        if self.spent > self.seconds:
            raise OverBudgetError(
                f"the budget of {self.seconds:g} s is used up; a larger one reaches further"
            )


class Case:
    """What checks see.

    Attributes
    ----------
    budget : Budget
    logged : float or None
        Accuracy that training logged, a fraction.
    data : Data or None
        Images with labels and splits.
    subject : Subject or None
        The model, with the weights that are deployed.
    others : dict of str to Subject
        The same network with other weights (raw, EMA, last), by name; of models trained elsewhere, those
        behind the first.
    saved : Checkpoint or None
        The checkpoint under examination.
    recipe : Recipe or None
    yolo : YoloLabels or None
        A detector's labels.
    losses : DetectorLosses or None
        A detector's losses image by image.
    given : bool
        Whether the checkpoint's own data were handed over, instead of opened by what it says of them.
    seed : int
        Of every random choice that a check makes.
    notes : list of str
        What there is to say about the case as a whole.
    """

    def __init__(
        self,
        *,
        budget: Budget,
        logged: float | None = None,
        data: Data | None = None,
        outputs: Mapping[str, Outputs] | None = None,
        subject: Subject | None = None,
        others: Mapping[str, Subject] | None = None,
        saved: Checkpoint | None = None,
        recipe: Recipe | None = None,
        yolo: YoloLabels | None = None,
        losses: DetectorLosses | None = None,
        given: bool = False,
        seed: int = 0,
    ) -> None:
        self.budget, self.logged, self.data, self.subject = budget, logged, data, subject
        self.others = dict(others or {})
        self.saved, self.recipe, self.seed = saved, recipe, seed
        self.yolo, self.losses, self.given = yolo, losses, given
        self.notes: list[str] = []
        self._outputs = dict(outputs or {})
        self._kept: dict[Hashable, Any] = {}
        self._scorer: Scorer | None = None

    # -- what is there ----------------------------------------------------------------------------

    @property
    def facts(self) -> set[str]:
        """Which of `FACTS` hold."""
        data, have = self.data, set()
        splits = {k for k, v in data.splits.items() if len(v)} if data is not None else set()
        val = "val" in self._outputs
        scores = val and self._outputs["val"].scores is not None
        if val or (self.subject is not None and "val" in splits):
            have.add("outputs")
        if scores or (not val and "outputs" in have):
            have.add("scores")
        if "train" in self._outputs or (self.subject is not None and "train" in splits):
            have.add("train outputs")
        if data is not None:
            have.add("images")
        if {"train", "val"} <= splits:
            have.add("splits")
        if self.subject is not None:
            have.add("model")
            if "train" in splits:
                have.add("train images and model")
        if self.logged is not None:
            have.add("logged")
        if self.saved is not None:
            have |= {"run", "other weights"}
            if any(k.startswith("gapless/train_samples/") for k in self.saved.tensors):
                have |= {"history", "draws"}
        if self.others:
            have.add("other weights")
        if self.named("softer"):
            have.add("draws")
        if self.recipe is not None:
            have.add("recipe")
        if self.yolo is not None:
            have.add("yolo labels")
        if self.losses is not None:
            have.add("detector losses")
        assert have <= set(FACTS)
        return have

    def named(self, word: str) -> list[str]:
        """Other weights that a caller gave that name, with a number or more words behind it."""
        if self.saved is not None:
            return []
        return [k for k in self.others if first_word(k) == word]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by index."""
        if self.subject is not None:
            return self.subject.classes
        for outputs in self._outputs.values():
            return outputs.classes
        if self.data is not None:
            return self.data.classes
        raise DataError("doctor: there are no classes: neither outputs, nor a model, nor data")

    # -- outputs ----------------------------------------------------------------------------------

    def outputs(self, split: str = "val") -> Outputs:
        """Per-sample outputs of the deployed weights on a whole split, by the evaluation pipeline."""
        if split not in self._outputs:
            self._outputs[split] = self._score(split)
        return self._outputs[split]

    def _score(self, split: str) -> Outputs:
        if self.data is None or self.subject is None:
            raise DataError(f"doctor: there are no outputs of split {split!r}, and no model to make them")
        indices = self.data.indices(split)
        if self.saved is not None and isinstance(self.subject, NetSubject):
            return Outputs.of_record(self.scorer().score(indices, split))
        return self.outputs_of(self.subject, indices, split)

    def scorer(self) -> Scorer:
        """The one evaluation of the checkpoint, on the case's data."""
        if self._scorer is None:
            from ..evaluation import Scorer

            assert self.saved is not None
            assert self.data is not None
            self._scorer = Scorer.of_checkpoint(self.saved, self.data)
        return self._scorer

    def outputs_of(
        self,
        subject: Subject,
        indices: Sequence[int] | Indices,
        source: str = "",
        *,
        prepare: Callable[[Data, Sequence[int]], NDArray[np.float32]] | None = None,
        batch: int = 64,
    ) -> Outputs:
        """Outputs of any subject on samples, optionally with another preprocessing.

        Parameters
        ----------
        subject : Subject
        indices : sequence of int
            Manifest indices; the result is in their order.
        source : str
        prepare : callable, optional
            Data, indices → float32 (n, C, H, W); default: the subject's own.
        batch : int
            Images at once: no result depends on it.
        """
        data = self.data
        if data is None:
            raise DataError("doctor: there are no images")
        make = prepare or subject.prepared
        parts = []
        order = np.asarray(indices, np.int64)
        for at in range(0, len(order), batch):
            self.budget.ask()
            parts.append(subject.logits(make(data, order[at : at + batch].tolist())))
        return Outputs.of_logits(
            [data.ids[i] for i in order],
            data.labels[order],
            np.concatenate(parts),
            subject.classes,
            source,
        )

    def sample(self, split: str, most: int, stream: int = 0) -> Indices:
        """At most so many samples of a split, chosen at random and always the same; manifest order."""
        assert self.data is not None
        indices = self.data.indices(split)
        if len(indices) <= most:
            return indices
        order = permuted(len(indices), self.seed, 0xD0C0 + stream)
        return np.sort(indices[order[:most]])

    # -- what several checks share ----------------------------------------------------------------

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value under `key`, made once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def seconds_per_image(self) -> float:
        """Time of one image through decoding, preprocessing and the model: from a few images, once."""

        def measure() -> float:
            if self.subject is None or self.data is None or not len(self.data):
                return 0.0
            n = min(16, len(self.data))
            picked = list(range(n))
            self.subject.logits(self.subject.prepared(self.data, picked))  # plans, caches
            began = time.perf_counter()
            self.subject.logits(self.subject.prepared(self.data, picked))
            return (time.perf_counter() - began) / n

        return float(self.keep("seconds per image", measure))

    def passes(self, number: float, split: str = "val", most: int | None = None) -> float:
        """Expected seconds of so many passes over a split (at most `most` of its samples); for `cost`."""
        if self.data is None or split not in self.data.splits:
            return 0.0
        n = len(self.data.splits[split])
        return number * min(n, most or n) * self.seconds_per_image()


def first_word(name: str) -> str:
    """What a caller calls a model by, without a number or more words behind it.

    >>> first_word("Softer_2"), first_word("ema")
    ('softer', 'ema')
    """
    return re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]
