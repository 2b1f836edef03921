"""Batches from background threads, in exactly the order asked for.

Each thread takes the next batch, reads and decodes its images (without the GIL), and runs the pipeline on
them; the consumer receives batch after batch in order. What a batch holds depends on the indices, epoch and
seed alone, never on threads, cache or timing.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gapless.data.dataset import Data
from gapless.data.scan import usable_cpus
from gapless.errors import DataError, ShapeError

__all__ = ["Batch", "Loader", "PixelCache", "memory_available"]

_PIECE = 1 << 25  # bytes of decoded pixels that a thread holds before it runs the pipeline on them
_CACHE_SHARE = 0.25  # of the memory that is free when the first batch is loaded


class RunsOnImages(Protocol):
    """What a loader needs of a pipeline."""

    def run(
        self, images: list[NDArray[np.uint8]], ids: NDArray[np.int64], epoch: int, seed: int
    ) -> NDArray[np.uint8]:
        """uint8 (n, H, W, C); each image by itself."""
        ...


@dataclass(slots=True)
class Batch:
    """Some samples, ready for a plan.

    Attributes
    ----------
    x : uint8 array, shape (n, H, W, C)
    y : int64 array, shape (n,)
        Classes.
    ids : int64 array, shape (n,)
        Manifest indices.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


class PixelCache:
    """Decoded images in memory, until a number of bytes is reached; shared by all loaders of a `Data`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._images: dict[int, NDArray[np.uint8]] = {}

    def get(self, index: int) -> NDArray[np.uint8] | None:
        """The image, if it is here."""
        return self._images.get(index)

    def put(self, index: int, image: NDArray[np.uint8]) -> None:
        """Keeps an image while there is room; threads that put at once may pass the limit by one each."""
        if self.bytes + image.nbytes <= self.limit and index not in self._images:
            image = np.ascontiguousarray(image)
            image.flags.writeable = False
            self._images[index] = image
            self.bytes += image.nbytes

    def __len__(self) -> int:
        return len(self._images)


class Loader:
    """Iterates over batches of a data set.

    Parameters
    ----------
    data : Data
    indices : sequence of int
        Manifest indices in the order in which they are wanted.
    pipeline : object with ``run(images, ids, epoch, seed)``, or None
        None: the images as they are, which must then be of one size.
    batch_size : int
    epoch, seed : int
        Handed to the pipeline.
    start : int
        Position in ``indices`` at which to begin, in samples: a whole number of batches when resuming within
        an epoch.
    threads : int, optional
        Background threads; default: one per CPU, at most 8.
    cache : int or bool, optional
        Bytes of decoded pixels kept in memory for the next epochs; default: a quarter of the free memory;
        False: none. Samples that lie in memory anyway are not kept twice.
    drop_last : bool
        Leave out a last batch that is not full.
    prefetch : int
        Batches that may lie ready beyond one per thread.

    Raises
    ------
    DataError
        At the batch it belongs to, when a sample cannot be read; the message names it. The loader is closed
        then.

    Examples
    --------
    >>> import gapless.data
    >>> data = gapless.data.digits()
    >>> with Loader(data, data.splits["val"], None, 100) as batches:
    ...     sizes = [len(b) for b in batches]
    >>> sizes, sum(sizes) == len(data.splits["val"])
    ([100, 100, 100, 59], True)
    """

    def __init__(
        self,
        data: Data,
        indices: Sequence[int] | NDArray[np.integer],
        pipeline: RunsOnImages | None,
        batch_size: int,
        *,
        epoch: int = 0,
        seed: int = 0,
        start: int = 0,
        threads: int | None = None,
        cache: int | bool | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
    ) -> None:
        order = np.asarray(indices, np.int64).reshape(-1)
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size must be >= 1, got {batch_size}")
        if not 0 <= start <= len(order):
            raise ValueError(f"Loader: start must be in 0..{len(order)}, got {start}")
        if threads is not None and threads < 1:
            raise ValueError(f"Loader: threads must be >= 1, got {threads}")
        if len(order) and (order.min() < 0 or order.max() >= len(data)):
            raise ValueError(
                f"Loader: indices must be in 0..{len(data) - 1}, got {order.min()}..{order.max()}"
            )
        last = len(order) - len(order) % batch_size if drop_last else len(order)
        bounds = [(a, min(a + batch_size, last)) for a in range(start, last, batch_size)]
        if drop_last:
            bounds = [(a, b) for a, b in bounds if b - a == batch_size]
        _attach_cache(data, cache)
        count = min(threads or min(usable_cpus(), 8), max(len(bounds), 1))
        self._work = _Work(data, order, pipeline, bounds, epoch, seed, count, count + max(prefetch, 0))
        self._finalizer = weakref.finalize(self, _Work.stop, self._work)

    def __len__(self) -> int:
        """Batches in all, from ``start`` on."""
        return len(self._work.bounds)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self._work.next()
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """Stop the threads and forget what was prefetched; more calls do nothing."""
        self._work.stop()
        self._work.join()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Work:
    """What loader and threads share: threads hold this, so that a forgotten loader ends them."""

    def __init__(
        self,
        data: Data,
        order: NDArray[np.int64],
        pipeline: RunsOnImages | None,
        bounds: list[tuple[int, int]],
        epoch: int,
        seed: int,
        n_threads: int,
        window: int,
    ) -> None:
        self.data, self.order, self.pipeline, self.bounds = data, order, pipeline, bounds
        self.epoch, self.seed, self.n_threads, self.window = epoch, seed, n_threads, window
        self.given = 0  # batches that the consumer has
        self.stopped = False
        self._begin()

    def _begin(self) -> None:
        """Threads start at the first batch, and anew in a forked child, which has none of its parent's."""
        self.pid = os.getpid()
        self.changed = threading.Condition()
        self.taken = self.given  # batches that threads took
        self.ready: dict[int, Batch | BaseException] = {}
        self.threads: list[threading.Thread] = []

    def next(self) -> Batch | None:
        if self.pid != os.getpid():
            self._begin()
        if self.stopped or self.given >= len(self.bounds):
            return None
        if not self.threads:
            self.threads = [
                threading.Thread(target=self._serve, name=f"gapless-load-{k}", daemon=True)
                for k in range(self.n_threads)
            ]
            for t in self.threads:
                t.start()
        with self.changed:
            while self.given not in self.ready:
                if not any(t.is_alive() for t in self.threads):
                    raise RuntimeError("Loader: its threads have ended; was the interpreter shutting down?")
                self.changed.wait(1.0)
            got = self.ready.pop(self.given)
            self.given += 1
            self.changed.notify_all()
        if isinstance(got, BaseException):
            self.stop()
            self.join()
            raise got
        return got

    def stop(self) -> None:
        self.stopped = True
        if self.pid != os.getpid():
            return
        with self.changed:
            self.ready.clear()
            self.changed.notify_all()

    def join(self) -> None:
        if self.pid != os.getpid():
            return
        for t in self.threads:
            if t is not threading.current_thread():
                t.join(10.0)  # a caller's own function may hang; it is a daemon thread then
        self.threads = [t for t in self.threads if t.is_alive()]

    def _serve(self) -> None:
        while True:
            with self.changed:
                while not self.stopped and self.taken >= self.given + self.window:
                    self.changed.wait()
                if self.stopped or self.taken >= len(self.bounds):
                    return
                number = self.taken
                self.taken += 1
            try:
                got: Batch | BaseException = self._batch(*self.bounds[number])
            except _StoppedError:
                return
            except BaseException as e:
                got = e
            with self.changed:
                if self.stopped:
                    return
                self.ready[number] = got
                self.changed.notify_all()
                if isinstance(got, BaseException):
                    return

    def _batch(self, start: int, end: int) -> Batch:
        ids = self.order[start:end].copy()
        x: NDArray[np.uint8] | None = None
        done, held = 0, 0
        images: list[NDArray[np.uint8]] = []
        for k, index in enumerate(ids):
            if self.stopped:
                raise _StoppedError
            images.append(self.data.load(int(index)))
            held += images[-1].nbytes
            if held < _PIECE and k + 1 < len(ids):
                continue
            part = self._run(images, ids[done : k + 1])
            if len(part) == len(ids):
                x = part
            else:
                if x is None:
                    x = np.empty((len(ids), *part.shape[1:]), np.uint8)
                if x.shape[1:] != part.shape[1:]:
                    raise ShapeError(
                        f"Loader: the pipeline gives {_size(part)} for sample "
                        f"{self.data.ids[int(ids[done])]} and "
                        f"{_size(x)} for sample {self.data.ids[int(ids[0])]}; images of a batch must "
                        "be of one size: "
                        "end the pipeline with a crop or a resize to a fixed size"
                    )
                x[done : k + 1] = part
            done, held, images = k + 1, 0, []
        assert x is not None
        return Batch(np.ascontiguousarray(x), self.data.labels[ids], ids)

    def _run(self, images: list[NDArray[np.uint8]], ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self.pipeline is not None:
            return self.pipeline.run(images, ids, self.epoch, self.seed)
        first = images[0].shape
        for image, index in zip(images, ids, strict=True):
            if image.shape != first:
                raise ShapeError(
                    f"Loader: sample {self.data.ids[int(index)]} is {image.shape[1]}×{image.shape[0]}, "
                    "sample "
                    f"{self.data.ids[int(ids[0])]} is {first[1]}×{first[0]}; give a pipeline that "
                    "makes them of one size"
                )
        return np.stack(images)


class _StoppedError(Exception):
    pass


def _size(x: NDArray[np.uint8]) -> str:
    return f"{x.shape[2]}×{x.shape[1]}×{x.shape[3]}"


def _attach_cache(data: Data, cache: int | bool | None) -> None:
    """The cache belongs to the data, so that the next epoch's loader finds what this one decoded."""
    if cache is False or data.in_memory:
        data._cache = None
    elif cache is None or cache is True:
        if data._cache is None:
            data._cache = PixelCache(int(memory_available() * _CACHE_SHARE))
    elif not isinstance(cache, (int, np.integer)) or cache < 0:
        raise DataError(f"Loader: cache must be a number of bytes or False, got {cache!r}")
    elif data._cache is None or data._cache.limit != cache:
        data._cache = PixelCache(int(cache))


def memory_available() -> int:
    """Bytes that can still be used, as far as the system and the container's limit say."""
    found = []
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            for line in f:
                if line.startswith("MemAvailable:"):
                    found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            with open(limit, encoding="ascii") as f, open(used, encoding="ascii") as g:
                found.append(max(0, int(f.read()) - int(g.read())))
        except (OSError, ValueError):
            continue
    if not found:
        try:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
        except (ValueError, OSError, AttributeError):
            found.append(1 << 30)
    return min(found)
