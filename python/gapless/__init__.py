"""gapless: train and evaluate image models on CPUs, and trust the number.

The number that training printed is the number anybody gets from the saved file, bit for bit, at any batch
size and thread count. ``import gapless as gl`` loads NumPy and the C core; everything else is loaded when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gapless._core import get_num_threads, set_num_threads, show_config

if TYPE_CHECKING:
    from gapless import augment, data, doctor, errors, losses, models, nn, optim, schedule
    from gapless.doctor import Comparison, Diagnosis, compare, diagnose
    from gapless.doctor.before import check
    from gapless.evaluation import evaluate
    from gapless.plan import compile, memory
    from gapless.predict import load
    from gapless.recipe import Recipe
    from gapless.record import EvalRecord
    from gapless.training import Run, train

__version__: str = show_config()["version"]

_MODULES = ("augment", "data", "doctor", "errors", "losses", "models", "nn", "optim", "report", "schedule")
# public name -> module that has it
_NAMES = {
    "CheckpointError": "errors",
    "Comparison": "doctor",
    "DataError": "errors",
    "Diagnosis": "doctor",
    "EvalRecord": "record",
    "EvaluationMismatch": "errors",
    "GaplessError": "errors",
    "NonFiniteError": "errors",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "Run": "training",
    "ShapeError": "errors",
    "compare": "doctor",
    "check": "doctor.before",
    "compile": "plan",
    "diagnose": "doctor",
    "evaluate": "evaluation",
    "load": "predict",
    "memory": "plan",
    "train": "training",
}

__all__ = [
    "Comparison",
    "Diagnosis",
    "EvalRecord",
    "Recipe",
    "Run",
    "augment",
    "check",
    "compare",
    "compile",
    "data",
    "diagnose",
    "doctor",
    "errors",
    "evaluate",
    "get_num_threads",
    "load",
    "losses",
    "memory",
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
        # No public function shares its module's name: importing a submodule binds that name in the package.
        value = getattr(importlib.import_module(f"gapless.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gapless' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})
