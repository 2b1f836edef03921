"""Data: where samples come from, their splits, their manifest, and loading them in batches.

`folder`, `list_file`, `arrays`, `digits`, `idx`, `cifar`, `from_callable` and `from_object` give a `Data`;
`open` and `resolve` find the right one for a recipe's ``data`` section or a word on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gapless.data.dataset import Data, DataWarning, Unreadable
from gapless.data.loader import Batch, Loader, PixelCache
from gapless.data.opening import SPEC_KEYS, check_spec, resolve
from gapless.data.opening import open as open  # not in __all__: a star import must not hide Python's own
from gapless.data.sources.arrays import arrays
from gapless.data.sources.callable import from_callable, from_object
from gapless.data.sources.cifar import cifar
from gapless.data.sources.digits import digits
from gapless.data.sources.folder import folder
from gapless.data.sources.idx import idx
from gapless.data.sources.list_file import list_file

if TYPE_CHECKING:
    from gapless.data.pipeline import Pipeline

__all__ = [
    "SPEC_KEYS",
    "Batch",
    "Data",
    "DataWarning",
    "Loader",
    "Pipeline",
    "PixelCache",
    "Unreadable",
    "arrays",
    "check_spec",
    "cifar",
    "digits",
    "folder",
    "from_callable",
    "from_object",
    "idx",
    "list_file",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name == "Pipeline":  # needs the C core; the rest does not
        from gapless.data.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
