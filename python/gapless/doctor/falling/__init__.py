"""The waterfall: from the accuracy that training logged to the stand-alone validation accuracy, in steps that
sum to the gap exactly.

Reading order: ``steps`` (what a step is), ``outside`` (with outputs alone), ``order`` (of a run),
``interaction``.
"""

from __future__ import annotations

from .order import of_run, waterfall
from .outside import of_outputs
from .steps import Step, Waterfall

__all__ = ["Step", "Waterfall", "of_outputs", "of_run", "waterfall"]
