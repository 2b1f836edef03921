"""scikit-learn's digits: 1,797 handwritten digits of 8×8 pixels, the data set that needs no download."""

from __future__ import annotations

import gzip
import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gapless.data.sources import Listing
from gapless.data.sources.arrays import ArrayReader
from gapless.errors import DataError

if TYPE_CHECKING:
    from gapless.data.dataset import Data

__all__ = ["digits", "listing"]


def digits(
    *,
    split: Any = None,
    val: float | None = None,
    group_by: Any = None,
    seed: int = 0,
    channels: int | None = None,
) -> Data:
    """The digits that scikit-learn brings along: 1,797 grey images of 8×8 pixels in 10 classes.

    Values 0..16 become ``floor(v * 255 / 16 + 0.5)``.

    Parameters
    ----------
    split, val, group_by, seed, channels
        As in `gapless.data.folder`.

    Returns
    -------
    Data

    Examples
    --------
    >>> data = digits()
    >>> len(data), data.num_classes, data.size, data.channels
    (1797, 10, (8, 8), 1)
    """
    from gapless.data.assemble import assemble

    return assemble(listing(), split=split, val=val, group_by=group_by, seed=seed, channels=channels)


def listing(value: Any = True) -> Listing:
    if value not in (True, None) and value != {}:
        raise DataError(f"digits: takes no path, expected `digits: true`, got {value!r}")
    table = _table()
    images = np.floor(table[:, :64] * (255 / 16) + 0.5).astype(np.uint8).reshape(-1, 8, 8, 1)
    return Listing(
        kind="digits",
        spec={"digits": True},
        ids=[f"{i:04d}" for i in range(len(images))],
        classes=tuple("0123456789"),
        labels=table[:, 64].astype(np.int64),
        reader=ArrayReader([images]),
    )


def _table() -> NDArray[np.float64]:
    """(1797, 65): pixels and label. Read from the file itself: importing scikit-learn takes a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("digits: needs scikit-learn, which brings them along: pip install scikit-learn")
    file = os.path.join(os.path.dirname(spec.origin), "datasets", "data", "digits.csv.gz")
    if os.path.exists(file):
        with gzip.open(file, "rt") as f:
            table = np.loadtxt(f, delimiter=",")
    else:
        from sklearn.datasets import load_digits

        got = load_digits()
        table = np.column_stack([got.data, got.target])
    if table.shape != (1797, 65) or table.min() < 0 or table[:, :64].max() > 16:
        raise DataError(f"digits: {file} is not the file that scikit-learn brings along")
    return np.asarray(table, np.float64)
