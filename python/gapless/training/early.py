"""Early signs: what goes wrong is said once, in one line, at the step at which it shows.

Watching reads weights, gradients and records that are there anyway; it changes no bit of a run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics

if TYPE_CHECKING:
    from ..record import EvalRecord
    from .loop import Trainer

__all__ = ["SIGNS", "Watch", "softmax_floor"]

#: name → what it means
SIGNS = {
    "dead-layer": "no gradient reaches a layer",
    "dead-units": "no gradient reaches most units of a layer",
    "constant-input": "a BatchNorm's inputs do not vary",
    "large-updates": "updates are a large part of the weights",
    "small-updates": "updates are lost beside the weights",
    "guessing": "the loss is that of guessing after an epoch",
    "softmax-floor": "the loss stands where a second softmax holds it",
    "constant-output": "every image gets the same output",
    "saturated-output": "outputs are certain and wrong",
    "validation-above-training": "validation images are known better than training images",
    "plateau": "the loss stands still while the rate is large and will stay so",
}

EVERY = 50  # steps between looks at the weights
GRADIENTS = 4  # every so many looks, the gradients
LOOKS = 3  # looks (of weights, of gradients) in a row that a sign needs
_FIRST = (10, 20, 30, 40)  # steps of a look before: a rate that is too large shows at once
_TENSORS, _NUMBERS = 8, 4096  # what a look at the weights reads
# Update over weights. 1e-3 is usual with Adam; with momentum and rates that train well 0.01 to 0.06 were
# measured, once 0.12 at a single step, and 0.1 and more in a row only where the rate was ten times too large.
_LARGE, _SMALL = 0.08, 1e-5
_DEAD_UNITS = 0.9


def softmax_floor(classes: int) -> float:
    """The least cross-entropy of outputs that are probabilities already: ``log(1 + (K - 1) / e)``.

    >>> round(softmax_floor(2), 3), round(softmax_floor(29), 3)
    (0.313, 2.425)
    """
    return math.log(1 + (classes - 1) / math.e)


class Watch:
    """Looks at a run from time to time.

    Parameters
    ----------
    trainer : Trainer
        Its console and its ``events.jsonl`` (event ``sign``) are told.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        entries = [e for e in trainer.net.store.entries() if e["kind"] == "param" and e["trainable"]]
        weights = sorted((e for e in entries if len(e["shape"]) > 1), key=lambda e: e["offset"])
        some = weights[:: max(1, -(-len(weights) // _TENSORS))]
        self._parts = [(e["offset"], e["offset"] + min(e["count"], _NUMBERS)) for e in some]
        self._names = [e["name"] for e in entries]
        self._variances = [
            e["name"] for e in trainer.net.store.entries() if e["name"].endswith("running_var")
        ]
        self._before: list[NDArray[np.float32]] | None = None
        self._streaks: dict[str, int] = {}
        self._recent: list[float] = []
        self._most = 0.0  # largest rate so far
        labels = trainer.data.labels[trainer.index]
        share = np.bincount(labels, minlength=trainer.data.num_classes) / max(len(labels), 1)
        self._entropy = float(-np.sum(share[share > 0] * np.log(share[share > 0])))
        self._logits = trainer.loss[0] == "CrossEntropy"
        self._smoothed = bool(trainer.loss[1].get("label_smoothing"))
        self.said = self._said_before()

    def _said_before(self) -> set[str]:
        """What this run said before it was stopped."""
        said = set()
        try:
            for line in (self.trainer.folder / "events.jsonl").read_text("utf-8").splitlines():
                event = json.loads(line)
                if event.get("event") == "sign":
                    said.add(str(event["sign"]))
        except (OSError, ValueError, KeyError):
            pass
        return said

    def _say(self, sign: str, text: str) -> None:
        if sign in self.said:
            return
        self.said.add(sign)
        t = self.trainer
        t.console.warn(f"step {t.position.step}: {sign}: {text}")
        t.files.event("sign", sign=sign, step=t.position.step, epoch=t.position.epoch + 1, text=text)

    def _streak(self, sign: str, there: bool, looks: int = LOOKS) -> bool:
        """Whether a sign has been there at so many looks in a row."""
        self._streaks[sign] = self._streaks.get(sign, 0) + 1 if there else 0
        return self._streaks[sign] >= looks

    # -- around a step ----------------------------------------------------------------------------

    def before(self, step: int) -> None:
        """Before update number `step` (0 is the first)."""
        if (step + 1) % EVERY == 0 or step + 1 in _FIRST:
            flat = self.trainer.net.store.flat()
            self._before = [flat[a:b].copy() for a, b in self._parts]

    def after(self, loss: float, lr: float) -> None:
        """After an update, which had this loss and rate."""
        self._most = max(self._most, lr)
        self._recent.append(loss)
        if len(self._recent) > EVERY:
            del self._recent[0]
        if self._before is not None:
            self._updates(lr)
            self._before = None
            step = self.trainer.position.step
            if step % (EVERY * GRADIENTS) == 0 or step in (EVERY, 2 * EVERY, 3 * EVERY):
                self._gradients(loss)
                self._variance()

    def _updates(self, lr: float) -> None:
        """Update over weights, at the largest rate so far: a rate that falls makes updates small rightly."""
        flat, ratios = self.trainer.net.store.flat(), []
        for (a, b), old in zip(self._parts, self._before or (), strict=True):
            size = float(np.linalg.norm(old))
            if size > 0:
                ratios.append(float(np.linalg.norm(flat[a:b] - old)) / size)
        if not ratios or lr <= 0:
            return
        ratio = float(np.median(ratios))
        scaled = ratio * self._most / lr
        if self._streak("large-updates", ratio > _LARGE, 2):
            self._say(
                "large-updates",
                f"one update changes the weights by {100 * ratio:.0f} % (1 % is much); a smaller "
                f"optimizer.lr than {self._most:g} helps",
            )
        if self._streak("small-updates", 0 < scaled < _SMALL):
            self._say(
                "small-updates",
                f"one update changes the weights by {scaled:.0e} of their size (1e-3 is usual); a larger "
                f"optimizer.lr than {self._most:g} helps",
            )

    def _gradients(self, loss: float) -> None:
        if not loss > 1e-3:  # all is learned: gradients vanish rightly
            return
        gradients = self.trainer.plan.gradients()
        if not any(np.any(g) for g in gradients.values()):
            return
        dead, idle = [], []
        for name, g in gradients.items():
            none = not np.any(g)
            if self._streak(f"layer {name}", none):
                dead.append(name)
            if g.ndim > 1 and len(g) >= 4:
                still = ~np.any(g.reshape(len(g), -1), axis=1)
                if self._streak(f"units {name}", not none and float(still.mean()) >= _DEAD_UNITS):
                    idle.append((name, int(still.sum()), len(g)))
        if dead:
            self._say(
                "dead-layer",
                f"no gradient reaches {_some(dead)}; first weights, a ReLU that is never on, or a rate that "
                "is too large",
            )
        if idle:
            name, still_units, all_units = idle[0]
            self._say("dead-units", f"no gradient reaches {still_units} of {all_units} units of {name}")

    def _variance(self) -> None:
        for name in self._variances:
            values = self.trainer.net.store.get(name)
            if self._streak(f"variance {name}", float(np.mean(values < 1e-10)) >= _DEAD_UNITS):
                self._say("constant-input", f"{name} is 0: the inputs of this BatchNorm do not vary")

    # -- the end of an epoch ----------------------------------------------------------------------

    def epoch(
        self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], records: Mapping[str, EvalRecord]
    ) -> None:
        """After an epoch: its row, those of the epochs before, and its records (empty: none were made)."""
        self._guessing(row)
        self._floor(row)
        self._plateau([*rows, row])
        for name, record in records.items():
            self._outputs(name, record)
        self._above(records)

    def _guessing(self, row: Mapping[str, Any]) -> None:
        if not self._logits or len(self._recent) < EVERY or row["step"] < 2 * EVERY:
            return
        loss = float(np.mean(self._recent))
        if loss > 0.97 * self._entropy:
            self._say(
                "guessing",
                f"the loss of the last {EVERY} steps is {loss:.3f}, that of guessing {self._entropy:.3f}; "
                "gapless doctor (learning-rate, not-learning, misaligned-labels) finds out why",
            )

    def _floor(self, row: Mapping[str, Any]) -> None:
        floor = softmax_floor(self.trainer.data.num_classes)
        loss, right = row["train/running/loss"], row["train/running/top1"]
        if self._logits and not self._smoothed and right >= 0.95 and abs(loss / floor - 1) < 0.05:
            self._say(
                "softmax-floor",
                f"loss {loss:.3f} at {100 * right:.1f} % right is the least that outputs in [0, 1] can reach "
                f"({floor:.3f}): the loss takes logits, so leave the last activation out",
            )

    def _plateau(self, rows: Sequence[Mapping[str, Any]]) -> None:
        t = self.trainer
        if len(rows) < 6 or self._most <= 0 or getattr(t.schedule, "stateful", False):
            return
        losses = [r["train/running/loss"] for r in rows[-6:]]
        base = float(t.recipe["optimizer"]["lr"])
        final = t.schedule.value(t.total - 1, t.batches, t.total, base)
        still = min(losses[3:]) > 0.98 * min(losses[:3])
        known = rows[-1]["train/running/top1"] > 0.98
        if still and not known and final >= 0.3 * self._most:
            self._say(
                "plateau",
                f"the loss stands at {losses[-1]:.3f} since three epochs, and lr {self._most:g} does not "
                "fall before the end; a schedule that falls (Cosine) usually gains",
            )

    def _outputs(self, name: str, record: EvalRecord) -> None:
        s = record.samples
        if s is None or len(s.logits) < 20:
            return
        spread = float(s.logits.std(axis=0).max())
        if spread < 1e-4 * max(1.0, float(np.abs(s.logits).max())):
            self._say("constant-output", f"all {len(s.logits)} {name} images get the same output")
            return
        certain = metrics.softmax(s.logits).max(axis=1) > 0.9999
        wrong = float(np.mean(certain & (s.predictions != s.labels)))
        if self._streak(f"saturated {name}", wrong > 0.1, 2):
            self._say(
                "saturated-output",
                f"{100 * wrong:.0f} % of {name} images are wrong with a probability above 0.9999; the rate "
                "is too large, or labels are wrong",
            )

    def _above(self, records: Mapping[str, EvalRecord]) -> None:
        from ..doctor.stats import difference

        if not {"val", "train/clean"} <= set(records):
            return
        val, train = records["val"], records["train/clean"]
        if val.top1 <= train.top1:
            return
        e = difference(val.correct[1], val.n_scored, train.correct[1], train.n_scored)
        if e.low > 0 and e.p < 0.001:  # asked at every epoch
            self._say(
                "validation-above-training",
                f"validation {100 * val.top1:.1f} %, training images without augmentation "
                f"{100 * train.top1:.1f} %: wrong training labels, or splits that differ",
            )


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
