"""L1: labels that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import classifier, features, noise
from ..case import Case
from ..outputs import Outputs
from ..repeats import NAMES
from ..result import Picture, Remedy, Result
from ..siblings import outputs_of_sibling, siblings
from ..stats import Estimate
from ..table import check

__all__ = ["label_noise", "probabilities"]

LEAST = 200  # samples below which nothing can be said
WEAK = 0.35  # of predictions wrong beside the noise, from which plain features cannot tell noise from doubt
MOST = 12_000
NOTABLE = 0.03

Doubles = NDArray[np.float64]


@check(
    "L1",
    "label-noise",
    "wrong labels",
    measure="share of training labels (or, where those are in order, of validation labels) that are wrong",
    needs=["images"],
    cost=lambda case: features.look_cost(case) + 4.0,
    threshold=NOTABLE,
    explains=["G1", "G2", "G3", "C4", "A1", "G5"],
    reference="Northcutt et al. 2021: Confident Learning; 2103.14749 (3.3 % on average in ten test sets)",
)
def label_noise(case: Case) -> Result:
    """Predicts each sample's class without having seen its label, and follows where predictions are sure.

    Where the picture leaves no doubt, disagreement is a wrong label: the rate of it towards the surest
    samples estimates how many are wrong; which ones is confident learning's ranking. That validation has any
    is tested by that rate, and by the same classifier's disagreement with training's labels (out of fold),
    which has the same doubtful pictures: twice the smaller p counts. Validation's judge is the better of
    plain features and the network; where it cannot decide, the other one may (for twice the p again).
    """
    data = case.data
    assert data is not None
    split = "train" if "train" in data.splits else next(iter(data.splits))
    parts: dict[str, tuple[NDArray[np.int64], Doubles, Estimate]] = {}
    numbers: dict[str, Any] = {}
    short = 0
    for name in dict.fromkeys([split, *(["val"] if "val" in data.splits else [])]):
        indices, p = probabilities(case, name)
        labels = data.labels[indices]
        if len(labels) < LEAST or len(np.unique(labels)) < 2:
            short = len(labels)
            break  # what has seen so few training images is no judge of validation's either
        e = noise.noise_share(p, labels)
        missed = float(np.mean(p.argmax(axis=1) != labels))
        numbers[name] = {
            "share": e.points,
            "low": e.low,
            "high": e.high,
            "p": e.p,
            "disagreement": missed,
            "n": len(labels),
        }
        if missed - e.points <= WEAK:
            parts[name] = (indices, p, e)
    if not parts:
        if numbers:
            return Result.undecided(
                "plain features say too little of these classes to tell wrong labels from doubtful pictures",
                evidence=numbers,
            )
        return Result.undecided(
            f"could not be decided with {short} samples; about {LEAST} would", samples_needed=LEAST
        )
    tested = {k: e._replace(p=min(1.0, e.p * len(parts))) for k, (_, _, e) in parts.items()}
    if split == "train" and "val" in parts:
        tested["val"] = _of_both_tests(case, tested["val"], len(parts))
    chosen = split if split in parts else "val"
    if chosen != "val" and "val" in parts:
        in_order = _stands(tested["val"]) and not _stands(tested[split])
        chosen = "val" if in_order or tested["val"].low > tested[split].high else split
    e = tested[chosen]
    if not _stands(e):
        open_ = [k for k in (chosen, *parts) if tested[k].points >= NOTABLE and tested[k].high >= 2 * NOTABLE]
        if not open_:
            return Result.clear(_says(chosen, e), e, evidence=numbers)
        e, needed = tested[open_[0]], 4 * len(parts[open_[0]][0])
        return Result.undecided(_says(open_[0], e), e, samples_needed=needed, evidence=numbers)
    pictures: list[Picture] = []
    for name, (at, q, _) in parts.items():
        listed, shown = _listed(case, at, q)
        numbers[name] |= listed
        pictures += shown if name == chosen else []
    return Result.found(
        _says(chosen, e),
        e,
        evidence=numbers,
        pictures=pictures,
        remedy=Remedy(
            "Look through evidence.suspects, the likeliest first, and relabel or drop what is wrong; until "
            "then label smoothing and earlier stopping keep the network from learning them by heart.",
            {"loss.label_smoothing": 0.1} if case.recipe is not None else {},
        ),
    )


def _says(split: str, e: Estimate) -> str:
    where, share = NAMES.get(split, split), f"about {100 * e.points:.1f} %"
    return f"{share} of {where}'s labels are wrong ({100 * e.low:.1f} to {100 * e.high:.1f})"


def _stands(e: Estimate) -> bool:
    return e.points >= NOTABLE and e.low > 0 and e.p < 0.01


def _of_both_tests(case: Case, best: Estimate, tests: int) -> Estimate:
    """Validation's estimate by its best judge, or where that decides nothing by the second one, if the best
    one's interval admits what that says. Twice the smaller of each one's p and the other test's counts."""
    more = tests * _more_than_in_training(case)
    first = best._replace(p=min(1.0, 2 * min(best.p, more)))
    second = None if _stands(first) else _second_judge(case, tests)
    if second is None or second.low > best.high:
        return first
    other = second._replace(p=min(1.0, 4 * min(second.p, more)))
    return other if _stands(other) else first


def _second_judge(case: Case, tests: int) -> Estimate | None:
    """What plain features say of validation, where a network is the better judge. A network that errs where
    it is sure, as averaged or badly trained ones do, cannot tell its mistakes from wrong labels: the less
    right judge may know better when it does not know."""
    data, p = case.data, _by_features(case)
    assert data is not None
    if p is None or probabilities(case, "val")[1] is p:
        return None
    labels = data.labels[features.looked_both(case)[1].indices]
    e = noise.noise_share(p, labels)
    if float(np.mean(p.argmax(axis=1) != labels)) - e.points > WEAK:
        return None
    return e._replace(p=min(1.0, e.p * tests))


def probabilities(case: Case, split: str) -> tuple[NDArray[np.int64], Doubles]:
    """Manifest indices and class probabilities by a classifier that did not see these samples' labels.

    Validation by the network, with whichever weights of the run, where that does better than plain features:
    it is held out for both.
    """

    def make() -> tuple[NDArray[np.int64], Doubles]:
        data = case.data
        assert data is not None
        if split == "val" and "train" in data.splits:
            return _of_validation(case)
        looked = features.look(case, split)
        x, _ = features.whitened(looked.matrix, looked.matrix[:1])
        rows = np.arange(len(x))
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng([case.seed, 1]).permutation(len(rows))[:MOST])
        indices = looked.indices[rows]
        if len(rows) < 20:
            return indices, np.full((len(rows), data.num_classes), 1 / data.num_classes)
        p = classifier.out_of_fold(
            x[rows], data.labels[indices], data.num_classes, case.seed, ask=case.budget.ask
        )
        return indices, p

    pair: tuple[NDArray[np.int64], Doubles] = case.keep(("probabilities", split), make)
    return pair


def _by_features(case: Case) -> Doubles | None:
    """Class probabilities of validation by the classifier that plain features of training made; None where
    there is nothing to make it of, or to use it on."""

    def make() -> Doubles | None:
        data = case.data
        assert data is not None
        train, val = features.looked_both(case)
        x, other = features.standard(case)
        rows = np.arange(len(x))
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng([case.seed, 1]).permutation(len(rows))[:MOST])
        if len(rows) < 20 or not len(val.indices):
            return None
        labels = data.labels[train.indices[rows]]
        return classifier.predicted(x[rows], labels, other, data.num_classes, case.seed)

    made: Doubles | None = case.keep("validation by features", make)
    return made


def _of_validation(case: Case) -> tuple[NDArray[np.int64], Doubles]:
    data = case.data
    assert data is not None
    indices = features.looked_both(case)[1].indices
    labels, p = data.labels[indices], _by_features(case)
    if p is None:
        return indices, np.full((len(labels), data.num_classes), 1 / data.num_classes)
    best = float(np.mean(p.argmax(axis=1) == labels))
    for out in _of_networks(case):
        q, own = out.probabilities, float(np.mean(out.right))
        if q is not None and len(out) >= len(labels) and own > best:
            at = {ident: i for i, ident in enumerate(out.ids)}
            p, best = q[[at[data.ids[i]] for i in indices]], own
    return indices, p


def _more_than_in_training(case: Case) -> float:
    """p-value against: the classifier on plain features disagrees with validation's labels no more than with
    training's. Of each, the half of which it is surer."""
    from scipy.stats import fisher_exact

    data, p = case.data, _by_features(case)
    assert data is not None
    if p is None:
        return 1.0
    at, q = probabilities(case, "train")
    val = features.looked_both(case)[1].indices
    table = []
    for scores, labels in ((p, data.labels[val]), (q, data.labels[at])):
        sure = np.argsort(-noise.sureness(scores), kind="stable")[: max(1, len(labels) // 2)]
        wrong = int(np.count_nonzero(scores[sure].argmax(axis=1) != labels[sure]))
        table.append([wrong, len(sure) - wrong])
    return float(fisher_exact(table, alternative="greater")[1])


def _of_networks(case: Case) -> Iterator[Outputs]:
    """What the network says of validation, with the weights under examination and with the run's others:
    where those are averaged or chosen badly, the others are the better judge."""
    if "outputs" not in case.facts:
        return
    yield case.outputs("val")
    if case.data is not None and case.saved is not None:
        for name in siblings(case):
            yield outputs_of_sibling(case, name, case.data.indices("val"))


def _listed(case: Case, indices: NDArray[np.int64], p: Doubles) -> tuple[dict[str, Any], list[Picture]]:
    """The suspects as plain data, and pictures of the first."""
    data = case.data
    assert data is not None
    found = noise.suspects(p, data.labels[indices])
    at = indices[found.rows]
    rows = [
        {"id": data.ids[i], "given": data.classes[int(data.labels[i])], "looks like": data.classes[int(b)]}
        for i, b in zip(at[:50], found.better[:50], strict=True)
    ]
    shown = [
        Picture(
            features.thumbnail(data, int(i)),
            f"{data.ids[i]}: given {data.classes[int(data.labels[i])]}, looks like {data.classes[int(b)]}",
        )
        for i, b in zip(at[:24], found.better[:24], strict=True)
    ]
    return {"suspects": rows, "suspects_count": len(found.rows), "confident_joint": found.joint}, shown
