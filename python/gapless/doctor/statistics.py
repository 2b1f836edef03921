"""Statistics of BatchNorm's inputs over many batches: what the running ones should be, and how batches
scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..nn import Net

__all__ = ["Gathered", "Layer"]

Floats = NDArray[np.float64]


class Layer:
    """Sums over batches for one BatchNorm layer.

    Attributes
    ----------
    name : str
    pixels : int
        Values per image and channel.
    batches, values : int
        Batches so far; values per channel so far.
    """

    def __init__(self, name: str, pixels: int, channels: int) -> None:
        self.name, self.pixels = name, pixels
        self.batches = self.values = 0
        self._sums = np.zeros((4, channels))  # of n·mean, of n·(biased var + mean²), of means, of means²

    def add(self, images: int, mean: Floats, unbiased: Floats) -> None:
        """A batch's statistics."""
        n = images * self.pixels
        biased = unbiased * (n - 1) / n
        self._sums += (n * mean, n * (biased + mean**2), mean, mean**2)
        self.batches, self.values = self.batches + 1, self.values + n

    @property
    def mean(self) -> Floats:
        """(C,) over all values of all batches."""
        return np.asarray(self._sums[0] / self.values)

    @property
    def variance(self) -> Floats:
        """(C,) over all values, unbiased: of the population, not the mean of the batches' variances."""
        biased = self._sums[1] / self.values - self.mean**2
        return np.asarray(np.maximum(biased, 0.0) * self.values / max(self.values - 1, 1))

    @property
    def scatter(self) -> Floats:
        """(C,) standard deviation of batch means."""
        if self.batches < 2:
            return np.zeros(self._sums.shape[1])
        spread = self._sums[3] / self.batches - (self._sums[2] / self.batches) ** 2
        return np.asarray(np.sqrt(np.maximum(spread, 0.0) * self.batches / (self.batches - 1)))


class Gathered:
    """Reads each batch's statistics out of a network whose BatchNorm has momentum 1, and puts the ones
    that were there back.

    Parameters
    ----------
    net : Net
    names : list of str
        Layers that take their batch's statistics.

    Attributes
    ----------
    layers : dict of str to Layer
        Layers used once. One that is used twice in the network shows only its last use, and is left out.
    """

    def __init__(self, net: Net, names: list[str]) -> None:
        nodes = net.document["nodes"]
        uses = [n["name"] for n in nodes]
        graph = net.graph()
        self._store, self.layers = net.store, {}
        self._buffers = {
            f"{name}.{part}": net.store.get(f"{name}.{part}")
            for name in names
            for part in ("running_mean", "running_var")
        }
        for k, node in enumerate(nodes):
            name = node["name"]
            if name in names and uses.count(name) == 1:
                shape = graph.shape(k + 1)
                self.layers[name] = Layer(name, int(np.prod(shape[1:])), shape[0])

    def take(self, images: int) -> None:
        """After a step over so many images."""
        for name, layer in self.layers.items():
            mean = self._store.get(f"{name}.running_mean").astype(np.float64)
            var = self._store.get(f"{name}.running_var").astype(np.float64)
            layer.add(images, mean, var)
        for name, value in self._buffers.items():
            self._store.set(name, value)

    def into(self, weights: Any) -> dict[str, NDArray[Any]]:
        """These weights with statistics of the population in place of the running ones (Wu and Johnson
        2021, "Precise BN")."""
        out = dict(weights)
        for name, layer in self.layers.items():
            out[f"{name}.running_mean"] = layer.mean.astype(np.float32)
            out[f"{name}.running_var"] = layer.variance.astype(np.float32)
        return out
