"""The border between Python and C: nothing leaks, nothing hangs, whatever comes in."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc

import numpy as np
import pytest
from small import Tiny

import gapless as gl
from gapless import _core, nn

NET = Tiny().net((1, 8, 8), seed=0)
PLAN = gl.compile(NET, gl.losses.CrossEntropy(weight=[1.0] * 10), gl.optim.SGD(), (4, 1, 8, 8))
CORE = PLAN._last
X = np.zeros((4, 1, 8, 8), np.float32)
GOOD = {"hyper": PLAN.hyper(), "epoch": 0, "step": 0, "ids": np.arange(4), "seed": 0}
WEIGHTS = {"weight": [1.0] * 40}
SOFT = np.full((4, 10), 0.1, np.float32)


def graph(*nodes):
    g = _core.Graph((1, 8, 8))
    for node in nodes:
        g.add(*node)
    return g


# Each is run many times: results and errors alike must give back all that they took.
CALLS = {
    "describe": lambda: _core.describe(),
    "show_config": lambda: _core.show_config(),
    "check_config": lambda: _core.check_config("losses", "CrossEntropy", WEIGHTS),
    "check_config, unknown": lambda: _core.check_config("layers", "Conv2d", {"strides": 1}),
    "check_config, wrong kind": lambda: _core.check_config("layers", "Conv2d", {"stride": "a"}),
    "check_config, wrong pair": lambda: _core.check_config("layers", "Conv2d", {"stride": (1, 2, 3)}),
    "check_config, wrong number": lambda: _core.check_config(
        "losses", "CrossEntropy", {"weight": [1.0, "a"] * 20}
    ),
    "check_config, wrong choice": lambda: _core.check_config(
        "augments", "Resize", {"size": 8, "interpolation": "cubic"}
    ),
    "check_config, range": lambda: _core.check_config("layers", "Dropout", {"p": 2}),
    "philox": lambda: _core.philox(1, 2, 3, 4, 5, 100),
    "permutation": lambda: _core.permutation(100, 1, 2),
    "init_fill": lambda: _core.init_fill("normal", (3, 4), 1.0, 0, "a"),
    "init_fill, wrong": lambda: _core.init_fill("normal", (3, -4), 1.0, 0, "a"),
    "graph": lambda: graph(("ReLU", "a", 0, {}, [0]), ("Flatten", "b", 1, {}, [1])).shape(2),
    "graph, wrong shape": lambda: _core.Graph((1, 0, 3)),
    "graph, unknown layer": lambda: graph(("Relu", "a", 0, {}, [0])),
    "graph, wrong layer": lambda: graph(
        ("Conv2d", "a", 0, {"in_channels": 3, "out_channels": 1, "kernel_size": 1}, [0])
    ),
    "graph, wrong inputs": lambda: graph(("ReLU", "a", 0, {}, "0")),
    "graph, no value": lambda: graph(("ReLU", "a", 0, {}, [7])),
    "graph, index": lambda: NET.graph().shape(99),
    "entries": lambda: NET.store.entries(),
    "get": lambda: NET.store.get("fc.weight"),
    "get, unknown": lambda: NET.store.get("fc.wieght"),
    "get, no plane": lambda: NET.store.get("fc.weight", "slot3"),
    "set": lambda: NET.store.set("fc.bias", np.zeros(10, np.float32)),
    "set, wrong shape": lambda: NET.store.set("fc.bias", np.zeros(9, np.float32)),
    "set, wrong dtype": lambda: NET.store.set("fc.bias", np.zeros(10)),
    "flat": lambda: NET.store.flat(),
    "planes": lambda: NET.store.planes(),
    "store": lambda: _core.Store().seal(),
    "plan": lambda: _core.Plan(
        NET.graph(), NET.store, batch=1, loss=("CrossEntropy", {"weight": [1.0] * 10})
    ),
    "plan, wrong loss": lambda: _core.Plan(NET.graph(), NET.store, batch=1, loss=("CrossEntropy", WEIGHTS)),
    "plan, wrong option": lambda: _core.Plan(NET.graph(), NET.store, batch=1, kernels="sse"),
    "plan, wrong mean": lambda: _core.Plan(NET.graph(), NET.store, batch=1, mean=[0.5, 0.5], std=1.0),
    "step": lambda: CORE.step(X, np.zeros(4, np.int64), **GOOD),
    "step, soft": lambda: CORE.step(X, SOFT, **GOOD),
    "step, ragged": lambda: CORE.step(X, (SOFT.ravel(), np.arange(0, 41, 10)), **GOOD),
    "step, strided": lambda: CORE.step(X[:, :, ::-1], np.zeros(4, np.int32), **GOOD),
    "step, wrong x": lambda: CORE.step(X[:, :, 1:], np.zeros(4, np.int64), **GOOD),
    "step, wrong y": lambda: CORE.step(X, np.zeros(3, np.int64), **GOOD),
    "step, wrong class": lambda: CORE.step(X, np.full(4, 99), **GOOD),
    "step, wrong offsets": lambda: CORE.step(X, (SOFT.ravel(), np.arange(5)), **GOOD),
    "step, wrong hyper": lambda: CORE.step(X, np.zeros(4, np.int64), **{**GOOD, "hyper": np.zeros((1, 1))}),
    "step, wrong ids": lambda: CORE.step(X, np.zeros(4, np.int64), **{**GOOD, "ids": np.arange(3)}),
    "step, not finite": lambda: CORE.step(X * np.nan, np.zeros(4, np.int64), **GOOD),
    "evaluate": lambda: PLAN.evaluate(X, np.zeros(4, np.int64)),
    "forward": lambda: PLAN.forward(X),
    "gradients": lambda: CORE.gradients(),
    "describe plan": lambda: CORE.describe(),
    "memory": lambda: CORE.memory(),
    "pickle": lambda: nn.Conv2d(1, 1, 1).clone(),
}


def quietly(call):
    try:
        call()
    except Exception:  # errors are half of what is tested
        pass


def grown_by(call):
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        quietly(call)
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


@pytest.mark.parametrize("name", CALLS)
def test_calls_leak_nothing(name):
    call = CALLS[name]
    for _ in range(20):
        quietly(call)
    gc.collect()
    live = _core.memory_counters()[0]
    tracemalloc.start()
    try:
        growth = [
            grown_by(call) for _ in range(3)
        ]  # the interpreter's own caches grow too, but not every time
    finally:
        tracemalloc.stop()
    assert _core.memory_counters()[0] == live
    assert min(growth) < 200 * 8, f"{growth} bytes in 200 calls"  # less than one pointer a call


def test_types_are_not_made_by_hand_and_not_changed():
    for cls in (_core.Graph, _core.Store, _core.Plan, _core.Pipeline):
        with pytest.raises(TypeError):
            cls.extra = 1
        assert cls.__module__ == "gapless._core"
        assert cls.__doc__


def test_reference_cycles_through_plans_are_collected():
    class Holder(list):
        pass

    live = _core.memory_counters()[0]
    for _ in range(3):
        net = Tiny().net((1, 8, 8), seed=0)
        holder = Holder([net, gl.compile(net, None, None, (1, 1, 8, 8))])
        holder.append(holder)
        del net, holder
    gc.collect()
    assert _core.memory_counters()[0] == live


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_from_another_thread_do_not_hang():
    """Parent and child go on: the step that asks for the interpreter now and then does not wait for ever."""
    code = textwrap.dedent("""
        import os, threading, time
        import numpy as np
        import gapless as gl
        net = gl.models.create("resnet18", num_classes=10, input_shape=(3, 32, 32)).net((3, 32, 32), seed=0)
        plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(), (16, 3, 32, 32))
        x, y = np.ones((16, 3, 32, 32), np.float32), np.zeros(16, np.int64)
        small = gl.models.lenet(image_size=8)
        small(np.zeros((1, 1, 8, 8), np.float32))
        done, children = threading.Event(), []
        def forks():
            while not done.is_set():
                pid = os.fork()
                if pid == 0:
                    small(np.zeros((1, 1, 8, 8), np.float32))
                    os._exit(0)
                children.append(os.waitpid(pid, 0)[1])
                time.sleep(0.001)
        thread = threading.Thread(target=forks)
        thread.start()
        until = time.time() + 4
        while time.time() < until:
            plan.step(x, y)
        done.set()
        thread.join()
        assert children and not any(children), children
        print(len(children), "forks")
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "forks" in done.stdout


def test_many_threads_with_plans_of_their_own():
    expected = NET(X + 1)
    wrong: list[str] = []

    def work():
        net = Tiny().net((1, 8, 8), seed=0)
        for _ in range(20):
            if not np.array_equal(net(X + 1), expected):
                wrong.append("another result")

    NET.store.init(0)
    expected = NET(X + 1)
    threads = [threading.Thread(target=work) for _ in range(6)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert time.perf_counter() - began < 60
