"""A fault: what is planted, which check names it, where it does not exist, and its true size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .bed import Bed, Setup
from .truth import Truth

__all__ = ["FAULTS", "Fault", "fault"]

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
