"""The loader: order, start in mid-epoch, errors, threads, cache, forks, interruption."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from data_fixtures import Plain, image_folder, picture

import gapless.data as gd
from gapless.data.loader import memory_available
from gapless.errors import DataError, ShapeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GAPLESS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def files(tmp_path):
    return gd.folder(image_folder(tmp_path, {"a": 20, "b": 20}, kind="JPEG"))


def _all(loader):
    with loader:
        batches = list(loader)
    return (
        np.concatenate([b.x for b in batches]),
        np.concatenate([b.y for b in batches]),
        np.concatenate([b.ids for b in batches]),
    )


def _loading():
    return [t for t in threading.enumerate() if t.name.startswith("gapless-load") and t.is_alive()]


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 7, 40, 100])
@pytest.mark.parametrize("cache", [False, None, 5000])
def test_order_is_exactly_the_indices(files, threads, batch, cache):
    order = np.random.default_rng(0).permutation(40)
    x, y, ids = _all(gd.Loader(files, order, Plain(), batch, epoch=2, seed=5, threads=threads, cache=cache))
    assert ids.tolist() == order.tolist()
    assert y.tolist() == files.labels[order].tolist()
    want = Plain().run([files.load(int(i)) for i in order], order, 2, 5)
    assert np.array_equal(x, want)
    assert x.dtype == np.uint8
    assert not _loading()


def test_start_in_mid_epoch_gives_the_rest(files):
    order = np.random.default_rng(1).permutation(40)
    whole = _all(gd.Loader(files, order, Plain(), 8, epoch=1))
    rest = _all(gd.Loader(files, order, Plain(), 8, epoch=1, start=16))
    assert all(np.array_equal(a[16:], b) for a, b in zip(whole, rest, strict=True))
    with gd.Loader(files, order, Plain(), 8, start=40) as nothing:
        assert len(nothing) == 0
        assert list(nothing) == []


def test_last_batch_is_short_or_left_out(files):
    sizes = lambda drop: [len(b) for b in gd.Loader(files, range(40), None, 16, drop_last=drop)]
    assert sizes(False) == [16, 16, 8]
    assert sizes(True) == [16, 16]
    assert len(gd.Loader(files, range(40), None, 16, drop_last=True)) == 2


def test_arguments_are_checked(files):
    for options, words in (
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"batch_size": 4, "start": 41}, "start must be in 0..40"),
        ({"batch_size": 4, "threads": 0}, "threads must be >= 1"),
        ({"batch_size": 4, "indices": [40]}, "indices must be in 0..39"),
        ({"batch_size": 4, "indices": [-1]}, "indices must be in 0..39"),
        ({"batch_size": 4, "cache": -1}, "cache must be"),
    ):
        args = {"data": files, "indices": range(40), "pipeline": None} | options
        with pytest.raises(ValueError, match=words):
            gd.Loader(**args)


def test_unreadable_file_is_an_error_at_its_batch_and_names_it(files, tmp_path):
    (tmp_path / "a" / "a_0013.jpg").write_bytes(b"gone bad")
    loader = gd.Loader(files, range(40), Plain(), 5, threads=3, cache=False)
    assert next(loader).ids.tolist() == [0, 1, 2, 3, 4]
    assert next(loader).ids.tolist() == [5, 6, 7, 8, 9]
    with pytest.raises(DataError, match=r"a_0013\.jpg: .*was readable when the data was opened"):
        next(loader)
    assert list(loader) == []
    assert not _loading()


def test_file_of_another_size_is_an_error(files, tmp_path):
    from data_fixtures import encoded

    (tmp_path / "a" / "a_0001.jpg").write_bytes(encoded(picture(1, 20, 20), "JPEG"))
    with (
        pytest.raises(DataError, match="20×20 pixels, but 16×12 when the data was opened"),
        gd.Loader(files, range(40), Plain(), 5, cache=False) as loader,
    ):
        next(loader)


def test_error_of_a_pipeline_reaches_the_consumer(files):
    class Bad:
        def run(self, images, ids, epoch, seed):
            if 17 in ids:
                raise ZeroDivisionError("in the pipeline")
            return Plain().run(images, ids, epoch, seed)

    seen = []
    with pytest.raises(ZeroDivisionError, match="in the pipeline"):  # noqa: PT012
        for batch in gd.Loader(files, range(40), Bad(), 10, threads=2):
            seen += batch.ids.tolist()
    assert seen == list(range(10))
    assert not _loading()


def test_images_of_several_sizes_need_a_pipeline():
    data = gd.arrays([picture(i, 10 + i % 3, 12) for i in range(9)], [0, 1, 2] * 3)
    with pytest.raises(ShapeError, match="give a pipeline"):
        list(gd.Loader(data, range(9), None, 4))
    assert len(_all(gd.Loader(data, range(9), Plain(), 4))[0]) == 9


def test_large_pictures_are_worked_on_in_pieces(monkeypatch):
    import gapless.data.loader as module

    pieces = []

    class Counting(Plain):
        def run(self, images, ids, epoch, seed):
            pieces.append(len(images))
            return super().run(images, ids, epoch, seed)

    data = gd.arrays(np.stack([picture(i) for i in range(20)]), [0, 1] * 10)
    whole = _all(gd.Loader(data, range(20), Counting(), 20))
    assert pieces == [20]
    monkeypatch.setattr(module, "_PIECE", 3 * 12 * 16 * 3)
    parts = _all(gd.Loader(data, range(20), Counting(), 20))
    assert pieces[1:] == [3] * 6 + [2]
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_cache_is_filled_once_and_keeps_its_limit(files, monkeypatch):
    reads = []
    real = files._reader.read
    monkeypatch.setattr(files._reader, "read", lambda i: reads.append(i) or real(i))
    first = _all(gd.Loader(files, range(40), Plain(), 8))
    assert len(reads) == 40
    second = _all(gd.Loader(files, range(40), Plain(), 8))
    assert len(reads) == 40
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    one = 12 * 16 * 3
    _all(gd.Loader(files, range(40), Plain(), 8, threads=1, cache=10 * one))
    assert len(files._cache) == 10
    assert files._cache.bytes <= 10 * one
    assert not files.load(0).flags.writeable


def test_what_lies_in_memory_is_not_cached_again():
    data = gd.digits()
    _all(gd.Loader(data, range(100), None, 10))
    assert data._cache is None


def test_batches_do_not_share_memory_with_the_data():
    data = gd.digits()
    with gd.Loader(data, range(4), None, 1) as loader:
        for batch in loader:
            batch.x[:] = 255
    assert data.load(0).max() < 255 or data.load(0).min() < 255
    assert data.load(0)[0, 0, 0] == 0


def test_prefetch_is_bounded(files):
    seen = []

    class Slow(Plain):
        def run(self, images, ids, epoch, seed):
            seen.append(int(ids[0]))
            return super().run(images, ids, epoch, seed)

    with gd.Loader(files, range(40), Slow(), 1, threads=2, prefetch=3) as loader:
        next(loader)
        time.sleep(0.3)
        assert len(seen) <= 1 + 2 + 3


def test_forgotten_loader_ends_its_threads(files):
    loader = gd.Loader(files, range(40), Plain(), 2, threads=3)
    next(loader)
    assert _loading()
    del loader
    gc.collect()
    deadline = time.monotonic() + 5
    while _loading() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _loading()


def test_exception_in_the_loop_ends_the_threads(files):
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="in the loop"),
        gd.Loader(files, range(40), Plain(), 2, threads=3) as loader,
    ):
        for _ in loader:
            raise RuntimeError("in the loop")
    assert not _loading()
    loader.close()
    assert list(loader) == []


@pytest.fixture
def sigint():
    """Python's own handler: a job started in the background begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_keyboard_interrupt_while_waiting_for_a_slow_batch():
    started = threading.Event()

    class Slow(Plain):
        def run(self, images, ids, epoch, seed):
            started.set()
            time.sleep(1.5)
            return super().run(images, ids, epoch, seed)

    data = gd.digits()

    def strike():
        started.wait(5)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=strike, daemon=True).start()
    began = time.monotonic()
    loader = gd.Loader(data, range(100), Slow(), 10, threads=2)
    with pytest.raises(KeyboardInterrupt):
        next(loader)
    assert time.monotonic() - began < 1.0
    loader.close()
    assert not _loading()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_before_and_within_loading(files):
    """A forked child can go on with a loader of its parent's, and make its own; neither hangs."""
    loader = gd.Loader(files, range(40), Plain(), 4, threads=2)
    first = next(loader)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own warning of forks with threads
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            rest = [i for b in loader for i in b.ids.tolist()]
            own = [i for b in gd.Loader(files, range(40), Plain(), 4, threads=2) for i in b.ids.tolist()]
            os.write(write, b"ok" if rest == list(range(4, 40)) and own == list(range(40)) else b"no")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        assert f.read() == b"ok"
    os.waitpid(pid, 0)
    assert first.ids.tolist() == [0, 1, 2, 3]
    assert [i for b in loader for i in b.ids.tolist()] == list(range(4, 40))


def test_process_ends_with_a_loader_left_open(tmp_path):
    image_folder(tmp_path, {"a": 10, "b": 10})
    code = (
        f"import gapless.data as gd; d = gd.folder({str(tmp_path)!r}); "
        "l = gd.Loader(d, range(20), None, 2); next(l); print('end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "end"), done.stderr


def test_caller_function_runs_in_one_thread_at_a_time_unless_allowed():
    inside, most = [0], [0]

    def load(i):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        inside[0] -= 1
        return picture(i)

    for parallel, limit in ((False, 1), (True, 4)):
        most[0] = 0
        data = gd.from_callable(range(24), load, labels=[0, 1] * 12, parallel=parallel, threads=4)
        _all(gd.Loader(data, range(24), None, 3, threads=4, cache=False))
        assert most[0] <= limit
        if parallel:
            assert most[0] > 1


def test_memory_available_is_sensible():
    assert 1 << 20 < memory_available() < 1 << 50
