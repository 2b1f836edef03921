"""W1: what was evaluated is not the trained network: its weights were not loaded."""

from __future__ import annotations

from ...metrics import wilson
from ..case import Case
from ..outputs import Outputs
from ..preparing import PASSES, sample_size, searched
from ..result import Remedy, Result
from ..stats import Estimate
from ..subject import NetSubject
from ..table import check
from ..verdict import FLAT, beats_guessing, names_matter, opinion, renamed_accuracy
from .resolution import best_size

__all__ = ["untrained"]

BLANK = 0.97  # entropy of the outputs, of log K, that no trained network has that was right in training
_REMEDY = Remedy(
    "Load the weights by their path and strictly (every name and shape must match), and compare the hash of "
    "what was loaded with the file's; then evaluate again."
)


def _cost(case: Case) -> float:
    if case.subject is None or case.saved is not None:
        return 0.0
    return case.passes(PASSES, most=sample_size(case))


@check(
    "W1",
    "untrained",
    "the trained weights were not loaded",
    measure="accuracy that training showed minus validation accuracy of what was evaluated",
    needs=["outputs"],
    cost=_cost,
    threshold=0.05,
    explains=[
        *("C4", "L2", "L3", "G1", "G3", "P1", "P2", "P3", "C1", "B1", "B2", "S3", "W2"),
    ],
    reference="PaddleClas #3203, #2763: initial weights were scored; PyTorch #141256: keys dropped silently",
)
def untrained(case: Case) -> Result:
    """Looks for the signature of a network that has seen no label.

    Its accuracy is that of guessing, and it has no opinion: outputs are almost uniform. Classes in another
    order leave opinions, and a renaming that makes them right (C1); a wrong preprocessing leaves opinions
    too, or the model brings its accuracy back with another one (P1, where there is a model). For a
    checkpoint of gapless the digest of the weights decides.
    """
    same = _weights_are_the_records(case)
    if same:
        return Result.clear("the weights are those of the record, by their digest")
    out = case.outputs("val")
    numbers = {**opinion(out), "accuracy": out.accuracy, "majority": out.majority}
    numbers |= {"p_guessing": beats_guessing(out), "p_names": names_matter(out, case.seed)}
    rate = f"{100 * out.accuracy:.1f} % against {100 * out.majority:.1f} % by naming one class always"
    reference, whose = _reference(case)
    at_chance = numbers["p_guessing"] >= 0.01 or numbers["p_names"] >= 0.05
    # an image may look like its class to a network that has learned nothing, but to no certainty
    blank = numbers.get("entropy", 0.0) >= BLANK and reference is not None and reference > out.accuracy + 0.2
    if not (at_chance or blank):
        return Result.clear(f"better than guessing: {rate}", evidence=numbers)
    if len(out) < 20 or out.majority > 0.95:
        return Result.undecided(f"too few samples outside one class: {rate}", evidence=numbers)
    if reference is not None and reference <= wilson(int(out.right.sum()), len(out))[1] + 0.05:
        return Result.clear(f"no better than guessing ({rate}), but {whose} was not either", evidence=numbers)
    mended = _mended(case, reference, out)
    if mended is not None:
        return Result.clear(f"no better than guessing ({rate}), but {mended}", evidence=numbers)
    flat, why = _has_no_opinion(case, numbers)
    if not flat:
        return Result.undecided(
            f"no better than guessing ({rate}), but {why}: a preprocessing that the network does not know, "
            "labels that do not belong to the images, or weights that were not loaded",
            evidence=numbers,
        )
    e = _points(out, reference)
    shown = f"; {whose} was {100 * reference:.1f} %" if reference is not None else ""
    more = "" if case.logged is not None else ", or never learned"
    return Result.found(
        f"no better than guessing ({rate}), and {why}{shown}: these are weights that were not loaded{more}",
        e,
        evidence=numbers,
        remedy=_REMEDY,
    )


def _weights_are_the_records(case: Case) -> bool:
    """Whether the network holds the very weights that a checkpoint's record scored."""
    if case.saved is None or not isinstance(case.subject, NetSubject):
        return False
    known = {r.get("digests", {}).get("weights") for r in case.saved.records.values()}
    return not known or case.subject.net.digest() in known


def _mended(case: Case, reference: float | None, out: Outputs) -> str | None:
    """What brings back most of what is missing, which no untrained network has."""
    missing = (out.majority + 0.2 if reference is None else reference) - out.accuracy
    best = searched(case) if case.subject is not None else None
    if best is not None and best.accuracy - best.base > missing / 2:
        return "another preprocessing brings accuracy back"
    sized = best_size(case) if case.subject is not None else None
    if sized is not None and sized.estimate is not None and sized.estimate.points > missing / 2:
        return "another input size brings accuracy back"
    return None


def _has_no_opinion(case: Case, numbers: dict[str, float]) -> tuple[bool, str]:
    """Whether that is the signature of an untrained network, and what says so."""
    k = case.outputs("val").num_classes
    flat = numbers.get("entropy", 0.0) >= FLAT
    if case.subject is not None:
        best = searched(case)
        numbers["accuracy_of_best_preprocessing"] = best.accuracy if best is not None else numbers["accuracy"]
        alike = renamed_accuracy(case.outputs("val"))
        if not flat and alike > 0.5 * (case.logged or 1.0):
            return False, f"another order of classes makes {100 * alike:.0f} % right"
        return True, "no preprocessing that was tried makes it better"
    if "entropy" in numbers:
        text = f"entropy of its outputs is {numbers['entropy']:.2f} of the greatest"
        if numbers["entropy"] >= FLAT:
            return True, f"it has no opinion ({text}, mean confidence {numbers['confidence']:.2f})"
        return False, f"it is sure of what it says ({text})"
    share = numbers["share_of_commonest_prediction"]
    if share > max(0.5, 1.5 / k):
        return True, f"{100 * share:.0f} % of its predictions are one class"
    return False, "its predictions spread over the classes"


def _reference(case: Case) -> tuple[float | None, str]:
    if case.logged is not None:
        return case.logged, "what training logged"
    if "train outputs" in case.facts:
        train = case.outputs("train")
        if beats_guessing(train) < 0.01:
            return train.accuracy, "accuracy on training samples"
    return None, ""


def _points(out: Outputs, reference: float | None) -> Estimate:
    """Reference minus accuracy. The trained weights may validate worse than they trained, so the interval
    reaches down to half of that; without a reference, to anything that would have been told from guessing."""
    from scipy.stats import binomtest

    right, n = int(out.right.sum()), len(out)
    low, high = out.interval
    if reference is None:
        least = max(high, out.majority) - out.accuracy
        p = float(binomtest(right, n, min(out.majority + 0.1, 0.999), alternative="less").pvalue)
        points = max((1 - out.accuracy) / 2, least)
        return Estimate(points, min(least, points), max(1 - low, points), min(1.0, 2 * p))
    p = float(binomtest(right, n, min(reference, 1 - 1e-9), alternative="less").pvalue)
    points = reference - out.accuracy
    return Estimate(points, points / 2, max(reference - low, points), min(1.0, 2 * p))
