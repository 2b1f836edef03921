"""gapless among others: import cost, fork and spawn, other threads, a second OpenBLAS in the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import small

import gapless as gl


def python(code, timeout=60):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    heavy = "matplotlib sklearn scipy PIL simplejpeg msgspec ruamel safetensors tqdm jinja2 torch pandas"
    code = f"import sys, gapless; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert python(code) == "[]"


def test_import_costs_at_most_50_ms_above_numpy():
    """Of processor time: a crowded machine makes no import dearer."""
    clock = "t = time.process_time(); import gapless; print(time.process_time() - t)"
    assert min(float(python(f"import numpy, time; {clock}")) for _ in range(3)) < 0.05


def test_public_names_are_all_there():
    for name in gl.__all__:
        assert getattr(gl, name) is not None
    assert callable(gl.train)
    assert callable(gl.evaluate)


def test_functions_stay_functions_whatever_was_imported_first():
    code = (
        "import gapless as gl, importlib, pkgutil\n"
        "for m in pkgutil.walk_packages(gl.__path__, 'gapless.'):\n"
        "    if not any(part in m.name for part in ('__main__', 'peer_', 'torch_nets')):\n"
        "        importlib.import_module(m.name)\n"
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
    assert len(stalls) > took / 0.02  # the GIL is free during the call: the ticker ran many times in it


def longest_stall(folder):
    """Seconds for which training kept another thread from running, at most, between first and last step.

    A gap between two ticks counts without the ticker's own wait for a processor, and only as far as the
    training thread really ran in it: what other processes take is nothing that a GIL could give.
    """
    first, last, done = threading.Event(), threading.Event(), threading.Event()
    training = time.pthread_getcpuclockid(threading.get_ident())
    stalls = []

    def tick():
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat", "rb", buffering=0) as waits:

            def clocks():
                waits.seek(0)
                waited = int(waits.read().split()[1]) / 1e9
                return time.perf_counter() - waited, time.clock_gettime(training)

            first.wait()
            before = clocks()
            while not last.is_set():
                time.sleep(0.0005)
                now = clocks()
                stalls.append(min(now[0] - before[0], now[1] - before[1]))
                before = clocks()
        done.set()

    class Steps:
        def on_step(self, info):
            first.set()
            if info["step"] == 135:
                last.set()

    threading.Thread(target=tick, daemon=True).start()
    recipe = gl.Recipe(data="digits", epochs=3)  # of 45 steps; evaluations and checkpoints between
    with small.no_pictures():
        gl.train(recipe, out=folder, callbacks=[Steps()], verbose=0)
    assert done.wait(10)
    assert len(stalls) > 100
    return max(stalls)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="needs Linux's scheduler statistics")
def test_training_stalls_no_other_thread_for_more_than_10_ms(tmp_path):
    """Pictures are left out: matplotlib is Python code, which holds the GIL as any such code does."""
    stalls = []
    while min(stalls, default=1.0) > 0.010:
        assert len(stalls) < 5, f"another thread stood still for {stalls} s"
        stalls.append(longest_stall(tmp_path / str(len(stalls))))


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
