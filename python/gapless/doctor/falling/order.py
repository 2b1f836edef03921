"""The waterfall of a run: the order of its steps, each a counterfactual on the recorded batches.

Steps up to the deployed weights are on the same samples, so they are paired. To add one that is on the same
samples, add a row to `LADDER`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EvaluationMismatch, GaplessError
from ..believed import believed_labels
from ..case import Case, OverBudgetError
from ..leaks import copied
from ..replay import Mode, Replay, Weights, replay_of
from ..retraining import folds_within, out_of_fold
from ..stats import Z95
from . import interaction
from .outside import JOINT, of_outputs
from .steps import Bools, Count, Step, Waterfall, absent, between, prior, same, to_others

__all__ = ["LADDER", "Rung", "of_run", "waterfall"]

#: Manifest index → the class that a training sample really has, for those whose label is thought wrong.
TrueLabels = Mapping[int, int]


class Ladder:
    """What the rungs see: the replay, the weights, and what is known of wrong labels.

    Attributes
    ----------
    replay : Replay
    final, deployed : mapping
        The weights that the last step left, and those that the checkpoint's record scored.
    kind : str
        ``"raw"`` or ``"ema"``: which the deployed ones are.
    truth : (n,) int64 or None
        Classes to score against from the rung "labels" on.
    """

    def __init__(self, replay: Replay, true_labels: TrueLabels | None) -> None:
        saved = replay.saved
        self.replay, self.kind, self.deployed = replay, saved.weights_kind, saved.scored()
        raw = saved.weights("raw")
        self.final: Weights = self.deployed if raw is None else raw
        self.final_kind = self.kind if raw is None else "raw"
        self.truth: NDArray[np.int64] | None = None
        if true_labels is not None:
            said = zip(replay.ids.tolist(), replay.labels.tolist(), strict=True)
            self.truth = np.array([true_labels.get(i, given) for i, given in said], np.int64)

    def right(self, mode: Mode) -> Bools:
        """Final weights in a mode."""
        return self.replay.passed(self.final_kind, self.final, mode).right

    def precise(self, mode: Mode) -> Bools:
        """Final weights with the statistics of the replayed batches as they were trained on."""
        gathered = self.replay.passed(self.final_kind, self.final, Mode()).gathered
        assert gathered is not None
        weights = gathered.into(self.final)
        return self.replay.passed(f"{self.final_kind} precise", weights, mode).right

    def against_truth(self, kind: str, weights: Weights) -> Bools:
        """By the evaluation pipeline, against the believed labels where there are any."""
        passed = self.replay.passed(kind, weights, EVALUATED)
        return passed.right if self.truth is None else passed.predictions == self.truth


GENERALISATION = "generalisation: held-out samples of the training distribution"
SHIFT = "shift: validation is another distribution"
BATCH, RUNNING = Mode(False), Mode(False, "running")
STILL, EVALUATED = Mode(False, "running", "still"), Mode(False, "running", "evaluation")


@dataclass(frozen=True)
class Rung:
    """A step on the same samples.

    Attributes
    ----------
    key, name : str
    there : callable
        Ladder → why the step is 0 for this run, or "" where it is to be measured.
    right : callable
        Ladder → which samples are right after it.
    """

    key: str
    name: str
    there: Callable[[Ladder], str]
    right: Callable[[Ladder], Bools]


def _unless(held: Callable[[Ladder], bool], why: str) -> Callable[[Ladder], str]:
    return lambda ladder: "" if held(ladder) else why


#: In forward order. Mixed targets (mixup, cutmix) and drop-path get their rows here when they exist: the
#: first between "moving" and "dropout", the second beside "dropout".
LADDER: tuple[Rung, ...] = (
    Rung(
        "moving",
        "weights that moved during the epoch",
        lambda _: "",
        lambda x: x.right(Mode()),
    ),
    Rung(
        "dropout",
        "dropout off",
        _unless(lambda x: x.replay.dropout, "the network has no dropout"),
        lambda x: x.right(BATCH),
    ),
    Rung(
        "batch-noise",
        "BatchNorm: batch statistics to precise ones",
        _unless(lambda x: x.replay.norm, "no BatchNorm took its batch's statistics"),
        lambda x: x.precise(RUNNING),
    ),
    Rung(
        "stale",
        "BatchNorm: precise statistics to the running ones",
        _unless(lambda x: x.replay.norm, "no BatchNorm took its batch's statistics"),
        lambda x: x.right(RUNNING),
    ),
    Rung(
        "augmentation",
        "augmentation off",
        _unless(lambda x: x.replay.draws, "the training pipeline draws nothing"),
        lambda x: x.right(STILL),
    ),
    Rung(
        "evaluation",
        "training geometry to the evaluation pipeline",
        lambda _: "",
        lambda x: x.right(EVALUATED),
    ),
    Rung(
        "labels",
        "training labels that are wrong",
        _unless(lambda x: x.truth is not None, "no training label is held for wrong"),
        lambda x: x.against_truth(x.final_kind, x.final),
    ),
    Rung(
        "weights",
        "deployed weights instead of the last step's",
        _unless(lambda x: x.kind != x.final_kind, "the deployed weights are those of the last step"),
        lambda x: x.against_truth(x.kind, x.deployed),
    ),
)


def waterfall(case: Case, *, true_labels: TrueLabels | None = None) -> Waterfall | None:
    """The steps that this case allows; None where there is no number to begin or to end with.

    Parameters
    ----------
    case : Case
    true_labels : mapping, optional
        Manifest index → class, for training samples whose label is known to be wrong; by default those that
        check label-noise finds.
    """
    if "outputs" not in case.facts:
        return None
    replay = replay_of(case)
    if replay is not None:
        return of_run(case, replay, believed_labels(case) if true_labels is None else true_labels)
    fall = of_outputs(case)
    if fall is None or case.saved is None:
        return fall
    why = "no whole epoch was trained" if case.logged is None else "the data are not the run's own"
    return Waterfall(fall.first, fall.last, fall.steps, [*fall.notes, f"{why}: no epoch can be replayed"])


def of_run(case: Case, replay: Replay, true_labels: TrueLabels | None = None) -> Waterfall:
    """From the accuracy that training logged to the stand-alone validation accuracy."""
    val = case.outputs("val")
    first, steps, notes = _start(case, replay)
    ladder = Ladder(replay, true_labels)
    now = replay.recorded
    try:
        for rung in LADDER:
            now = _climb(ladder, rung, now, steps)
        notes += interaction.notes(case, ladder.final_kind, ladder.final, replay)
        notes += _left_out(replay)
        steps += _other_images(case, ladder, now)
        steps.append(_from_the_file(case, notes))
    except OverBudgetError:
        notes.append("the budget did not reach the steps that are missing: they are in one bar together")
    except NotReplayableError as e:
        notes.append(str(e))
    end = Count.of(val.right)
    at = _at(first, steps)
    if at != end.share:
        low, high = val.interval
        name = "all that is left together: not measured"
        rest = Step(name, at - end.share, float(at) - high, float(at) - low, "", "rest", at, end.share)
        steps.append(rest)
    return Waterfall(first, end.share, steps, notes)


class NotReplayableError(GaplessError):
    """A pass could not be made; what was measured before it stands."""


def _at(first: Fraction, steps: list[Step]) -> Fraction:
    return first - sum((s.points for s in steps), Fraction(0))


def _start(case: Case, replay: Replay) -> tuple[Fraction, list[Step], list[str]]:
    """The first number, the steps from it to the recorded batches that are replayed, and what there is to
    say."""
    whole = Count(*replay.logged)
    first, steps, notes = whole.share, [], []
    if case.logged is not None and case.logged != whole.right / whole.n:
        first = Fraction(case.logged).limit_denominator(10**9)
        low, high = first - whole.share, first - whole.share
        name = "the figure given against what the run logged"
        steps.append(Step(name, low, float(low), float(high), "", "given", first, whole.share))
    sample = Count.of(replay.recorded)
    if sample.n < whole.n:
        steps.append(_sampled(whole, sample))
    position = replay.saved.state
    missing = position["step"] - (replay.epoch + 1) * math.ceil(replay.whole / replay.recipe["batch_size"])
    if missing > 0:
        notes.append(
            f"the checkpoint is {missing} steps into epoch {replay.epoch + 2}: what they changed is in the "
            "step of weights that moved"
        )
    return first, steps, notes


def _sampled(whole: Count, sample: Count) -> Step:
    """Batches were chosen at random: the interval is that of a sample without replacement."""
    p = float(whole.share)
    half = Z95 * math.sqrt(p * (1 - p) / sample.n * (1 - sample.n / whole.n))
    points = whole.share - sample.share
    says = f"{sample.n:,} of {whole.n:,} samples were replayed, whole batches chosen at random"
    low, high = min(-half, float(points)), max(half, float(points))
    return Step("choice of batches", points, low, high, says, "sampling", whole.share, sample.share)


def _climb(ladder: Ladder, rung: Rung, now: Bools, steps: list[Step]) -> Bools:
    """Add one rung's step."""
    why = rung.there(ladder)
    if why:
        steps.append(absent(rung.key, rung.name, Count.of(now).share, why))
        return now
    try:
        after = rung.right(ladder)
    except OverBudgetError:
        raise
    except GaplessError as e:
        raise NotReplayableError(f"{rung.name}: could not be measured: {e}") from e
    steps.append(same(rung.key, rung.name, now, after))
    return after


def _left_out(replay: Replay) -> list[str]:
    if not replay.still.left_out:
        return []
    names = ", ".join(replay.still.left_out)
    return [f"augmentation off leaves {names} out: what it looks like standing still is not known"]


# -- other images -----------------------------------------------------------------------------------


def _other_images(case: Case, ladder: Ladder, now: Bools) -> list[Step]:
    """Held-out samples of the training distribution, validation without copies of training images (with
    training's proportions of classes, and with its own), and all of validation."""
    assert case.data is not None
    val = case.outputs("val")
    everything, train = Count.of(val.right), Count.of(now)
    copies = copied(case)
    fresh = ~copies if copies.any() and not copies.all() else np.ones(len(copies), bool)
    kept = Count.of(val.right[fresh])
    shifted = prior(val.labels[fresh], val.right[fresh], case.data.counts("train"))
    steps, folds = [], folds_within(case)
    if len(case.data.splits.get("dev", ())):
        dev = Count.of(case.outputs("dev").right)
        steps.append(between("generalisation", GENERALISATION, train, dev))
        steps += to_others("shift", SHIFT, dev, kept, shifted)
    elif folds and (held := _by_folds(case, ladder, folds)) is not None:
        step = same("generalisation", GENERALISATION, now, held)
        says = (
            f"{folds} folds, each trained anew on {folds - 1}/{folds} of the samples and scored on the "
            f"others (so a little too large); {step.says}"
        )
        steps.append(replace(step, says=says))
        steps += to_others("shift", SHIFT, Count.of(held), kept, shifted)
    else:
        steps += to_others("joint", JOINT, train, kept, shifted)
    steps.append(_leakage(everything, kept, int(np.count_nonzero(copies))))
    return steps


def _by_folds(case: Case, ladder: Ladder, folds: int) -> Bools | None:
    """Which of the replayed samples models are right on that were trained without them; None where the recipe
    cannot be trained again, or not in time."""
    ids = ladder.replay.ids
    try:
        said = case.keep(("out of fold", folds), lambda: out_of_fold(case, ids, folds))
    except GaplessError as e:
        case.notes.append(f"generalisation was not measured by folds: {e}")
        return None
    truth = ladder.replay.labels if ladder.truth is None else ladder.truth
    return np.asarray(said == truth)


def _leakage(everything: Count, kept: Count, copies: int) -> Step:
    name = "leakage: exact copies of training images in validation"
    if not copies:
        return absent("leakage", name, everything.share, "no validation image is a copy of a training image")
    points = kept.share - everything.share
    if kept is everything:
        why = "every validation image is a copy of a training image: what new ones would give is not known"
        return absent("leakage", name, everything.share, why)
    says = f"{copies} of {everything.n:,} validation images; counted, not estimated"
    at = float(points)
    return Step(name, points, at, at, says, "leakage", kept.share, everything.share, 0.0)


def _from_the_file(case: Case, notes: list[str]) -> Step:
    """The file read afresh, a new network, and the one evaluation: nothing may be between that and what the
    case says. Where the record in the file is another, that is said; the file's weights are what counts."""
    from ... import evaluation

    saved, own = case.saved, Count.of(case.outputs("val").right)
    assert saved is not None
    again: Any
    try:
        again = evaluation.evaluate(saved.path, case.data, "val")
        record = "and so does the record in it" if again.reproduced else "it has no record of these samples"
    except EvaluationMismatch as e:
        again, record = e.record, "but its record is another"
        notes.append(f"the record in the file is not what its weights give: {e}")
    if (again.correct[1], again.n_scored) != (own.right, own.n):
        raise RuntimeError(
            f"{saved.path}: {again.correct[1]} of {again.n_scored} right from the file, {own.right} of "
            f"{own.n} from memory: this is a bug of gapless, please report it"
        )
    name = "file, process, pipeline, class order, metric"
    return absent("file", name, own.share, f"the file, read again, gives the same {own.right}; {record}")
