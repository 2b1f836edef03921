"""gapless among others: import cost, fork and spawn, other threads, a second OpenBLAS in the process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import gapless as gl


def python(code, timeout=60):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    heavy = "matplotlib sklearn scipy PIL simplejpeg msgspec ruamel safetensors tqdm jinja2 torch pandas"
    code = f"import sys, gapless; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert python(code) == "[]"


def test_import_costs_little_more_than_numpy():
    code = "import numpy, time; t = time.perf_counter(); import gapless; print(time.perf_counter() - t)"
    assert (
        min(float(python(code)) for _ in range(3)) < 0.5
    )  # the aim is 0.05; a test must not fail on a slow day


def test_public_names_are_all_there():
    for name in gl.__all__:
        assert getattr(gl, name) is not None
    assert callable(gl.train)
    assert callable(gl.evaluate)


def test_functions_stay_functions_whatever_was_imported_first():
    code = (
        "import gapless as gl, importlib, pkgutil\n"
        "for m in pkgutil.walk_packages(gl.__path__, 'gapless.'):\n"
        "    if '__main__' not in m.name and 'peer_' not in m.name: importlib.import_module(m.name)\n"
        "print(callable(gl.train), callable(gl.evaluate), callable(gl.load), callable(gl.compile))"
    )
    assert python(code) == "True True True True"


WORK = """
import numpy as np, gapless as gl
gl.set_num_threads(3)
net = gl.models.lenet(num_classes=10, in_channels=1).net((1, 28, 28), seed=0)
x = np.random.default_rng(0).standard_normal((8, 1, 28, 28), dtype=np.float32)
def work(_=None):
    return net(x).tobytes()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("before", [False, True])
def test_processes_agree_and_do_not_hang(tmp_path, method, before):
    script = tmp_path / "work.py"
    script.write_text(
        WORK
        + f"""
if __name__ == "__main__":
    import multiprocessing as mp
    {"first = work()" if before else "pass"}
    with mp.get_context({method!r}).Pool(2) as pool:
        there = pool.map(work, range(4))
    assert set(there) == {{work()}}
    print("same")
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "same", done.stderr[-3000:]


def test_other_threads_run_while_the_core_works():
    net = gl.models.resnet18(num_classes=10).net((3, 32, 32), seed=0)
    x = np.random.default_rng(0).standard_normal((32, 3, 32, 32), dtype=np.float32)
    net(x)
    done, stalls = threading.Event(), []

    def tick():
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            stalls.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    began = time.perf_counter()
    net(x)
    took = time.perf_counter() - began
    done.set()
    ticker.join()
    # The GIL is free during the call: the ticker ran many times in it. (The 10 ms of the promise is a
    # benchmark's figure.)
    assert len(stalls) > took / 0.02


def test_another_openblas_in_the_process_changes_nothing():
    pytest.importorskip("scipy")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    import scipy.linalg

    scipy.linalg.cho_factor(np.eye(4))
    net = gl.models.lenet(num_classes=10, in_channels=1).net((1, 28, 28), seed=0)
    x = np.random.default_rng(0).standard_normal((4, 1, 28, 28), dtype=np.float32)
    plain = net(x)
    assert not any("gapless" in (info.get("filepath") or "") for info in threadpoolctl.threadpool_info())
    with threadpoolctl.threadpool_limits(1):
        assert np.array_equal(net(x), plain)
