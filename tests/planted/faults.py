"""The table of faults, filled by its siblings, and the pairs."""

from __future__ import annotations

from dataclasses import dataclass

from . import data_faults, door_faults, training_faults  # noqa: F401  (they fill the table)
from .fault import FAULTS, Fault, fault

__all__ = ["FAULTS", "NOT_PLANTED", "PAIRS", "Fault", "Pair", "fault", "named"]


@dataclass(frozen=True)
class Pair:
    """Two independent faults at once; each one's truth is measured in the presence of the other."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.first} + {self.second}"


def named(word: str) -> list[Fault]:
    """Faults of that name, or of the check with that id."""
    found = [f for f in FAULTS.values() if word in (f.name, f.check)]
    if not found:
        raise SystemExit(f"there is no fault {word!r}; there are {', '.join(sorted(FAULTS))}")
    return found


#: Checks without a fault of their own here, and why.
NOT_PLANTED = {
    "R1": "its cause is a defect of gapless itself; tests/py/test_resume.py holds it to the bit",
    "P2": "inputs differ because they are prepared otherwise (P1) or look otherwise (S3): those are planted",
    "B3": "nets this small cope with the shifted variance: it costs -2 to +1 points on these sets",
    "M1": "what choosing adds on a few dozen samples is smaller than what so few samples resolve",
    "G2": "its cause is wrong labels, which L1 names; that they were learned by heart is the consequence",
    "G5": "too few images are G1's cause (few-images); the learning curve is the consequence",
}

#: Of independent causes; where one of the two does not exist on a set, the pair does not either.
PAIRS = (
    Pair("border-tells-class", "labels-wrong-in-val"),
    Pair("labels-wrong-in-train", "odd-files"),
    Pair("classes-shifted", "labels-wrong-in-train"),
    Pair("no-255", "labels-wrong-in-train"),
    Pair("twice-255", "labels-wrong-in-train"),
    Pair("bgr", "labels-wrong-in-train"),
    Pair("ema-lag", "labels-wrong-in-val"),
    Pair("ema-lag", "odd-files"),
    Pair("stale-batchnorm", "odd-files"),
    Pair("ordered-split", "odd-files"),
    Pair("other-shares", "odd-files"),
)
