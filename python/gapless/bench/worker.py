"""Our side of a benchmark, in a process of its own: a command per line in, a JSON line out.

    {"work": "train", "case": [...], "threads": 2, "weights": FILE, …}   ->  {"ready": true, "loss": …}
    {"seconds": 3.0}                                 ->  {"times": […], "peak_memory_bytes": …}
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(prepare: Callable[[dict[str, Any]], tuple[Callable[[], float], dict[str, Any]]]) -> None:
    """Answer commands until standard input ends; `prepare` gives the function that does one unit of work."""
    run, facts = prepare(json.loads(sys.stdin.readline()))
    began = time.perf_counter()
    loss = run()
    print(
        json.dumps({"ready": True, "loss": loss, "first_seconds": time.perf_counter() - began, **facts}),
        flush=True,
    )
    for line in sys.stdin:
        until = time.perf_counter() + float(json.loads(line)["seconds"])
        times: list[float] = []
        while not times or time.perf_counter() < until:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        print(json.dumps({"times": times, "peak_memory_bytes": peak_memory_bytes()}), flush=True)


def prepare(command: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    import gapless as gl
    from gapless.bench.cases import CLASSES, LR, MOMENTUM, WEIGHT_DECAY, Case

    case = Case(*command["case"])
    gl.set_num_threads(command["threads"])
    arguments: dict[str, Any] = {} if case.net == "lenet" else {"stem": case.stem}
    shape = (case.channels, case.size, case.size)
    model = gl.models.create(
        case.net, num_classes=CLASSES, in_channels=case.channels, input_shape=shape, **arguments
    )
    net = model.net(shape, seed=0)
    if command["save"]:
        np.savez(command["weights"], **net.state_dict())  # type: ignore[arg-type]  # numpy takes allow_pickle for any key
    else:
        with np.load(command["weights"]) as file:
            net.load_state_dict(dict(file))
    with np.load(command["batch"]) as file:
        x, y = file["x"], file["y"]
    if command["work"] == "eval":
        plan = gl.compile(net, None, None, (case.batch, *shape))
        return lambda: float(np.abs(plan.forward(x)).mean()), {"kernel_set": plan.kernel_set}
    optimizer = gl.optim.SGD(lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    plan = gl.compile(net, gl.losses.CrossEntropy(), optimizer, (case.batch, *shape))
    return lambda: float(plan.step(x, y).loss), {"kernel_set": plan.kernel_set}


if __name__ == "__main__":
    serve(prepare)
