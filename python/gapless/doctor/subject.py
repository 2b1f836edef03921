"""Subject: a model under examination, with its preprocessing kept apart so that either can be varied."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..data.sources import shorten
from ..errors import DataError, GaplessError, ShapeError

if TYPE_CHECKING:
    from ..data import Data
    from ..data.pipeline import Pipeline
    from ..nn import Net

__all__ = ["FunctionSubject", "NetSubject", "Subject"]

Floats = NDArray[np.float32]
KEPT = 1 << 28  # bytes of prepared samples that a subject keeps


class Subject(Protocol):
    """What checks ask of a model, whoever trained it.

    Attributes
    ----------
    name : str
    classes : tuple of str
        By output.
    """

    name: str
    classes: tuple[str, ...]

    def prepared(self, data: Data, indices: Sequence[int]) -> Floats:
        """(n, C, H, W): samples as the model is fed, by its own evaluation preprocessing."""
        ...

    def logits(self, x: Floats) -> Floats:
        """(n, classes) of prepared inputs, in evaluation mode."""
        ...


class NetSubject:
    """A net of gapless with its evaluation pipeline.

    Parameters
    ----------
    net : Net
    pipeline : Pipeline
    classes : sequence of str
    precision : str
    name : str
    """

    def __init__(
        self,
        net: Net,
        pipeline: Pipeline,
        classes: Sequence[str],
        precision: str = "fast",
        name: str = "model",
    ) -> None:
        self.net, self.pipeline, self.classes = net, pipeline, tuple(classes)
        self.precision, self.name = precision, name

    def prepared(self, data: Data, indices: Sequence[int]) -> Floats:
        images = [data.load(int(i)) for i in indices]
        x = self.pipeline(images)
        if x.dtype == np.uint8:  # no Normalize: the net is fed pixels in [0, 1]
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
        return np.asarray(x, np.float32)

    def logits(self, x: Floats) -> Floats:
        out: Any = self.net(np.ascontiguousarray(x, np.float32), precision=self.precision)
        return np.asarray(out[0] if isinstance(out, tuple) else out, np.float32)

    def with_weights(self, weights: dict[str, NDArray[Any]], name: str) -> NetSubject:
        """The same network with other weights, in a net of its own."""
        from ..nn import Net

        net = Net(self.net.document, seed=None)
        net.load_state_dict(weights, strict=True)
        return NetSubject(net, self.pipeline, self.classes, self.precision, name)


class FunctionSubject:
    """A model of any library, as two functions: what prepares an image, and what scores prepared ones.

    Parameters
    ----------
    function : callable
        float32 (N, C, H, W) → (N, classes) logits; NumPy arrays or torch tensors come back alike. A
        ``torch.nn.Module`` is called with a tensor and without gradients, in the mode that it is in.
    preprocess : callable
        Path → float32 (C, H, W). Where data lie in memory it is given the uint8 (H, W, C) image instead.
    classes : sequence of str
        By output.
    name : str
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        preprocess: Callable[[Any], Any],
        classes: Sequence[str],
        name: str = "model",
    ) -> None:
        self.function, self.preprocess = function, preprocess
        self.classes, self.name = tuple(classes), name
        self._data: Data | None = None
        self._kept: dict[int, Floats] = {}  # what was prepared: many checks ask for the same samples
        self._room = KEPT

    def prepared(self, data: Data, indices: Sequence[int]) -> Floats:
        if data is not self._data:
            self._data, self._kept, self._room = data, {}, KEPT if self._room >= 0 else -1
        missing = [int(i) for i in indices if int(i) not in self._kept]
        if len(missing) == len(indices):
            x = self.prepared_anew(data, indices)
        else:
            new = dict(zip(missing, self.prepared_anew(data, missing), strict=True)) if missing else {}
            x = np.stack([new[int(i)] if int(i) in new else self._kept[int(i)] for i in indices])
        for i, one in zip(indices, x, strict=True):
            if one.nbytes <= self._room and int(i) not in self._kept:
                self._kept[int(i)] = one.copy()
                self._room -= one.nbytes
        return x

    def keep_nothing(self) -> None:
        """From now on prepare every sample whenever it is asked for: its preprocessing draws at random."""
        self._kept, self._room = {}, -1

    def prepared_anew(self, data: Data, indices: Sequence[int]) -> Floats:
        """As `prepared`, by calling the preprocessing."""
        parts: list[Floats] = []
        for i in indices:
            given, what = data.file(int(i)) or data.load(int(i)), f"preprocess: {data.path(int(i))}"
            x = _called(self.preprocess, given, f"{what}:")
            if x.ndim != 3 or not x.size:
                raise ShapeError(f"{what}: expected an array (C, H, W), got shape {x.shape}")
            if x.shape[2] in (1, 3, 4) and min(x.shape[:2]) > 4:
                raise ShapeError(
                    f"{what}: expected an array (C, H, W), got {x.shape}, which looks like (H, W, C): "
                    "end with .transpose(2, 0, 1), and let the model's function undo it where it must"
                )
            if parts and x.shape != parts[0].shape:
                raise ShapeError(
                    f"preprocess: {data.path(int(i))} becomes {x.shape}, others {parts[0].shape}; "
                    "the network is fed images of one size"
                )
            if not np.isfinite(x).all():
                raise DataError(f"preprocess: {data.path(int(i))} becomes numbers that are not finite")
            parts.append(x)
        return np.stack(parts)

    def logits(self, x: Floats) -> Floats:
        x = np.ascontiguousarray(x, np.float32)
        torch = sys.modules.get("torch")  # never imported here: whoever passes a module has done so
        what = f"{self.name}: for an input of {x.shape}"
        if torch is not None and isinstance(self.function, torch.nn.Module):
            with torch.no_grad():
                y = _called(self.function, torch.from_numpy(x), f"{what},")
        else:
            y = _called(self.function, x, f"{what},")
        if y.shape != (len(x), len(self.classes)):
            raise ShapeError(
                f"{what} expected logits {(len(x), len(self.classes))}, one per class, got {y.shape}; "
                f"classes are {shorten(self.classes, 5)}: say others with classes=[…]"
            )
        return y


def _called(function: Callable[[Any], Any], given: Any, what: str) -> Floats:
    """float32 of the array or tensor that a caller's function gives; `what` begins a message."""
    try:
        value = function(given)
    except (GaplessError, MemoryError):
        raise
    except Exception as e:
        raise DataError(f"{what} raised {type(e).__name__}: {e}") from e
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError) as e:
        raise ShapeError(f"{what} expected an array of numbers, got {type(value).__name__}") from e


def permuted(n: int, seed: int, stream: int) -> NDArray[np.int64]:
    """A fixed permutation for choosing samples: a function of (n, seed, stream), equal everywhere."""
    return np.asarray(_core.permutation(n, seed, stream), np.int64)
