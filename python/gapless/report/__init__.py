"""Pictures and tables of a run. Every function takes plain arrays and dicts, and writes one file or returns
text.

Matplotlib is loaded by the first picture, and used through Figure objects only: no display, no global state,
nothing of the user's own plots is touched.
"""

from __future__ import annotations

from gapless.report import html
from gapless.report.batch import batch
from gapless.report.confusion import confusion, matrix_of
from gapless.report.curves import curves
from gapless.report.labels import labels
from gapless.report.predictions import predictions

__all__ = ["batch", "confusion", "curves", "html", "labels", "matrix_of", "predictions"]
