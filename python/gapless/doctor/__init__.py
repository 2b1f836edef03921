"""The doctor: why training and validation differ, measured.

`diagnose` opens a *case* (a run, or outputs, or a model trained elsewhere), runs the *checks* of the table in
order of cost within a budget, and returns a `Diagnosis`: findings by size, each with interval, evidence and
remedy, and the *waterfall*, whose steps sum to the gap exactly.

Reading order: ``result`` (what a check says), ``table`` (how a check joins), ``case`` (what a check sees),
``checks/`` (one file each), ``running`` (how findings are settled), ``falling`` (the waterfall) with
``replay`` (recorded batches again) and ``retraining``, ``diagnosis``.
"""

from __future__ import annotations

from .case import Budget, Case
from .comparing import Comparison, compare
from .diagnosis import Checked, Diagnosis
from .falling import Step, Waterfall
from .outputs import Outputs
from .reading import read_outputs
from .result import Finding, Picture, Remedy, Result
from .running import diagnose
from .stats import Estimate
from .table import FACTS, check, forget, named, rows

__all__ = [
    "FACTS",
    "Budget",
    "Case",
    "Checked",
    "Comparison",
    "Diagnosis",
    "Estimate",
    "Finding",
    "Outputs",
    "Picture",
    "Remedy",
    "Result",
    "Step",
    "Waterfall",
    "check",
    "compare",
    "diagnose",
    "forget",
    "named",
    "read_outputs",
    "rows",
]
