"""Pictures and tables of a run, and a diagnosis as text and page. Every other function takes plain arrays and
dicts, and writes one file or returns text.

Matplotlib is loaded by the first picture, and used through Figure objects only: no display, no global state,
nothing of the user's own plots is touched.
"""

from __future__ import annotations

from gapless.report import html
from gapless.report.batch import batch
from gapless.report.confusion import confusion, matrix_of
from gapless.report.curves import curves
from gapless.report.labels import labels
from gapless.report.page import diagnosis_html, diagnosis_page, finding_html
from gapless.report.predictions import predictions
from gapless.report.text import transcript
from gapless.report.waterfall import waterfall, waterfall_png

__all__ = [
    "batch",
    "confusion",
    "curves",
    "diagnosis_html",
    "diagnosis_page",
    "finding_html",
    "html",
    "labels",
    "matrix_of",
    "predictions",
    "transcript",
    "waterfall",
    "waterfall_png",
]
