"""gapless: train and evaluate image models on CPUs, and trust the number.

The number that training printed is the number anybody gets from the saved file, bit for bit, at any batch size and
thread count. ``import gapless as gl`` loads NumPy and the C core; everything else is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gapless._core import get_num_threads, set_num_threads, show_config

if TYPE_CHECKING:
    from gapless import augment, data, errors, losses, models, nn, optim, schedule
    from gapless.evaluate import evaluate
    from gapless.plan import compile
    from gapless.predict import load
    from gapless.recipe import Recipe
    from gapless.record import EvalRecord
    from gapless.train import Run, train

__version__: str = show_config()["version"]

_MODULES = ("augment", "data", "errors", "losses", "models", "nn", "optim", "report", "schedule")
# public name -> module that has it
_NAMES = {
    "CheckpointError": "errors",
    "DataError": "errors",
    "EvalRecord": "record",
    "EvaluationMismatch": "errors",
    "GaplessError": "errors",
    "NonFiniteError": "errors",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "Run": "train",
    "ShapeError": "errors",
    "compile": "plan",
    "evaluate": "evaluate",
    "load": "predict",
    "train": "train",
}

__all__ = [
    "EvalRecord",
    "Recipe",
    "Run",
    "augment",
    "compile",
    "data",
    "errors",
    "evaluate",
    "get_num_threads",
    "load",
    "losses",
    "models",
    "nn",
    "optim",
    "schedule",
    "set_num_threads",
    "show_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"gapless.{name}")
    if name in _NAMES:
        # A function may share its module's name (`train`, `evaluate`): importing the module binds that name to the
        # module, so the function is bound over it afterwards.
        value = getattr(importlib.import_module(f"gapless.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gapless' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})
