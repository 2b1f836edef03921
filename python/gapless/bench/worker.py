"""Our side of a benchmark, in a process of its own: a command per line in, a JSON line out.

    {"work": "train", "case": [...], "threads": 2, "weights": FILE, …}   ->  {"ready": true, "loss": …}
    {"seconds": 3.0}                                 ->  {"times": […], "peak_memory_bytes": …}

`serve` is the peers' side too; what is below it is ours.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SHOWN = 64  # outputs that an evaluation shows, for the comparison of both sides


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far.

    Linux's ru_maxrss begins with that of the process which started this one; VmHWM does not.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(prepare: Callable[[dict[str, Any]], tuple[Callable[[], Any], dict[str, Any]]]) -> None:
    """Answer commands until standard input ends.

    `prepare` gives the function that does one unit of work, and facts. The work gives its loss, or the
    outputs of an evaluation. Whatever libraries print on standard output goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run, facts = prepare(json.loads(sys.stdin.readline()))
    began = time.perf_counter()
    result = run()
    took = time.perf_counter() - began
    said: dict[str, Any] = {"loss": float(np.abs(result).mean())}
    if np.ndim(result):
        said["outputs"] = [float(v) for v in np.asarray(result).ravel()[:SHOWN]]
    first = took + facts.pop("setup_seconds", 0.0)
    print(json.dumps({"ready": True, "first_seconds": first, **said, **facts}), file=answers, flush=True)
    gc.collect()
    gc.disable()
    last = took
    for line in sys.stdin:
        seconds = float(json.loads(line)["seconds"])
        if last < seconds / 4:
            run()  # what the other side did to the caches is not this side's fault
        until = time.perf_counter() + seconds
        times: list[float] = []
        while not times or time.perf_counter() < until:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        last = times[-1]
        print(
            json.dumps({"times": times, "peak_memory_bytes": peak_memory_bytes()}), file=answers, flush=True
        )


def need_net(case: Any) -> None:
    """ValueError where this version of gapless has no such model."""
    from gapless.models import list_models

    if case.net not in list_models():
        raise ValueError(
            f"case: gapless has no model {case.net!r} yet; there are: {', '.join(list_models())}"
        )


def make_net(case: Any) -> Any:
    """The case's network with its first weights; without Dropout, so that both sides compute the same."""
    import gapless as gl
    from gapless.bench.cases import CLASSES

    need_net(case)
    arguments: dict[str, Any] = {} if case.net == "lenet" else {"stem": case.stem}
    if case.net.startswith("mobilenet"):
        arguments |= {"width": case.width, "dropout": 0.0}
    shape = (case.channels, case.size, case.size)
    model = gl.models.create(
        case.net, num_classes=CLASSES, in_channels=case.channels, input_shape=shape, **arguments
    )
    return model.net(shape, seed=0)


def make_plan(net: Any, case: Any, work: str) -> Any:
    """The plan that is timed: a training step with SGD and momentum, or the evaluation's forward."""
    import gapless as gl
    from gapless.bench.cases import LR, MOMENTUM, WEIGHT_DECAY

    shape = (case.batch, case.channels, case.size, case.size)
    if work == "eval":
        return gl.compile(net, None, None, shape)
    optimizer = gl.optim.SGD(lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    return gl.compile(net, gl.losses.CrossEntropy(), optimizer, shape)


def prepare(command: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    import gapless as gl
    from gapless.bench.cases import Case

    case = Case(*command["case"])
    gl.set_num_threads(command["threads"])
    net = make_net(case)
    if command.get("save"):
        np.savez(command["weights"], **net.state_dict())
        with open(command["graph"], "w", encoding="utf-8") as file:
            json.dump(net.document, file)
    with np.load(command["batch"]) as batch:
        x, y = batch["x"], batch["y"]
    began = time.perf_counter()
    plan = make_plan(net, case, command["work"])
    facts = {
        "kernel_set": plan.kernel_set,
        "version": gl.__version__,
        "setup_seconds": time.perf_counter() - began,
    }
    if command["work"] == "eval":
        return lambda: plan.forward(x), facts
    return lambda: float(plan.step(x, y).loss), facts


if __name__ == "__main__":
    serve(prepare)
