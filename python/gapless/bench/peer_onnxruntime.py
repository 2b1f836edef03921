"""onnxruntime's side of a benchmark: evaluation of the same net, all graph optimizations on.

Runs under any Python that has onnxruntime; imports nothing of gapless.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_file
import onnxruntime
import worker


def prepare(command: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    with open(command["graph"], encoding="utf-8") as file:
        document = json.load(file)
    with np.load(command["weights"]) as file:
        written = onnx_file.model(document, dict(file))
    with np.load(command["batch"]) as file:
        x = file["x"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = command["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    facts = {"version": f"onnxruntime {onnxruntime.__version__}"}
    return lambda: session.run(["y"], {"x": x})[0], facts


if __name__ == "__main__":
    worker.serve(prepare)
