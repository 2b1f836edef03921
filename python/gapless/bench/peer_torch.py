"""PyTorch's side of a benchmark: the same nets, weights, batch and update, at PyTorch's best configuration.

Runs under any Python that has torch; imports nothing of gapless (its folder is on sys.path as a plain
folder). Configurations: channels_last or contiguous; eager, compiled, or for evaluation also frozen by
TorchScript. Always: fused SGD, denormals flushed, gradients set to None, inference mode for evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cases
import numpy as np
import torch
import worker
from torch import nn
from torch_nets import build


def load(case: cases.Case, path: str) -> nn.Module:
    """The twin with the weights of the file; every one must be used."""
    model = build(case)
    with np.load(path) as file:
        missing = model.load_state_dict({k: torch.from_numpy(file[k]) for k in file.files}, strict=False)
    wrong = [
        k for k in missing.missing_keys if not k.endswith("num_batches_tracked")
    ] + missing.unexpected_keys
    if wrong:
        raise SystemExit(f"peer: weights do not fit: {wrong[:5]}")
    return model


def evaluation(model: nn.Module, x: torch.Tensor, mode: str) -> Callable[[], Any]:
    model.eval()
    call: Any = torch.compile(model) if mode == "compile" else model
    if mode == "frozen":
        with torch.inference_mode():
            call = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, x)))

    def forward() -> Any:
        with torch.inference_mode():
            return call(x).numpy()

    return forward


def training(model: nn.Module, x: torch.Tensor, y: torch.Tensor, mode: str) -> Callable[[], Any]:
    call: Any = torch.compile(model) if mode == "compile" else model
    optimizer = torch.optim.SGD(
        model.parameters(), lr=cases.LR, momentum=cases.MOMENTUM, weight_decay=cases.WEIGHT_DECAY, fused=True
    )
    criterion = nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(call(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def prepare(command: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    torch.set_num_threads(command["threads"])
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    layout, mode = command["configuration"]
    model = load(cases.Case(*command["case"]), command["weights"])
    with np.load(command["batch"]) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    if layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    facts = {"version": f"torch {torch.__version__}", "preloaded": os.environ.get("LD_PRELOAD", "")}
    if command["work"] == "eval":
        return evaluation(model, x, mode), facts
    return training(model, x, y, mode), facts


if __name__ == "__main__":
    worker.serve(prepare)
