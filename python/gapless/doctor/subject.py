"""Subject: a model under examination, with its preprocessing kept apart so that either can be varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import _core

if TYPE_CHECKING:
    from ..data import Data
    from ..data.pipeline import Pipeline
    from ..nn import Net

__all__ = ["NetSubject", "Subject"]

Floats = NDArray[np.float32]


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


def permuted(n: int, seed: int, stream: int) -> NDArray[np.int64]:
    """A fixed permutation for choosing samples: a function of (n, seed, stream), equal everywhere."""
    return np.asarray(_core.permutation(n, seed, stream), np.int64)
