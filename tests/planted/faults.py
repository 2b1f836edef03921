"""The table of faults: what is planted, which check names it, where it does not exist, and its true size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .bed import Bed, Setup
from .truth import Truth

__all__ = ["FAULTS", "NOT_PLANTED", "PAIRS", "Fault", "Pair", "fault", "named"]

Plant = Callable[[Bed, Setup], Setup]


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes
    ----------
    name : str
    check : str
        Id of the check that is to name it.
    place : {"data", "recipe", "model", "outputs"}
        Where it is planted.
    plant : callable
        (bed, setup) → setup with the fault.
    truth : callable
        (bed, setup without it, setup with it) → its size in the measure of the check's row.
    not_on : dict of str to str
        Image sets on which it does not exist → why.
    undo : callable or None
        Planted setup → the same without this fault, where that is not the setup that it was planted in.
    slow : bool
        Left out of the slice that CI runs.
    """

    name: str
    check: str
    place: str
    plant: Plant
    truth: Truth
    not_on: Mapping[str, str] = field(default_factory=dict)
    undo: Callable[[Setup], Setup] | None = None
    slow: bool = False

    def without(self, before: Setup, planted: Setup) -> Setup:
        """The counterfactual: what was planted in, or what `undo` makes of the planted one."""
        return self.undo(planted) if self.undo is not None else before


@dataclass(frozen=True)
class Pair:
    """Two independent faults at once; each one's truth is measured in the presence of the other."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.first} + {self.second}"


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    check: str,
    place: str,
    truth: Truth,
    *,
    not_on: Mapping[str, str] | None = None,
    undo: Callable[[Setup], Setup] | None = None,
    slow: bool = False,
) -> Callable[[Plant], Plant]:
    """Add a planter to the table."""

    def add(plant: Plant) -> Plant:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, check, place, plant, truth, dict(not_on or {}), undo, slow)
        return plant

    return add


def named(word: str) -> list[Fault]:
    """Faults of that name, or of the check with that id."""
    found = [f for f in FAULTS.values() if word in (f.name, f.check)]
    if not found:
        raise SystemExit(f"there is no fault {word!r}; there are {', '.join(sorted(FAULTS))}")
    return found


#: Checks without a fault of their own here, and why.
NOT_PLANTED = {
    "R1": "its cause is a defect of gapless itself; tests/py/test_resume.py holds it to the bit",
    "M1": "what choosing adds on a few dozen samples is smaller than what so few samples resolve",
    "G5": "too few images are G1's cause (few-images); the learning curve is the consequence",
}

#: Of independent causes; where one of the two does not exist on a set, the pair does not either.
PAIRS = (
    Pair("labels-wrong-in-train", "exact-duplicates"),
    Pair("labels-wrong-in-val", "border-tells-class"),
    Pair("classes-shifted", "exact-duplicates"),
    Pair("classes-permuted", "labels-wrong-in-val"),
    Pair("no-255", "labels-wrong-in-train"),
    Pair("bgr", "exact-duplicates"),
    Pair("ema-lag", "exact-duplicates"),
    Pair("stale-batchnorm", "labels-wrong-in-val"),
    Pair("val-darker", "labels-wrong-in-train"),
    Pair("odd-files", "ema-lag"),
)

from . import data_faults, door_faults, training_faults  # noqa: E402, F401  (they fill the table)
