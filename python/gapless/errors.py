"""Exceptions that gapless raises; every one says what was wrong, where, what was expected, and what to do."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "EvaluationMismatch",
    "GaplessError",
    "NonFiniteError",
    "RecipeError",
    "ShapeError",
]


class GaplessError(Exception):
    """Base of all errors that gapless raises on purpose."""


class ShapeError(GaplessError, ValueError):
    """Shapes that do not fit; the message names the layer."""


class RecipeError(GaplessError, ValueError):
    """A recipe, option or parameter that is not valid; the message names the key and the nearest known
    one."""


class CheckpointError(GaplessError, ValueError):
    """A checkpoint that is damaged, foreign or does not fit; the message names the place in the file."""


class DataError(GaplessError, ValueError):
    """Data that cannot be used; the message names files and the option that decides."""


class NonFiniteError(GaplessError, ArithmeticError):
    """NaN or infinity during training; the message names layer, step and sample ids."""


class EvaluationMismatch(GaplessError):
    """The recorded samples gave another number.

    Attributes
    ----------
    record : EvalRecord
        What was measured now.
    differs : dict[str, tuple[Any, Any]]
        Field by field: recorded value, value now.
    """

    def __init__(self, message: str, record: Any, differs: dict[str, tuple[Any, Any]]) -> None:
        super().__init__(message)
        self.record = record
        self.differs = differs
