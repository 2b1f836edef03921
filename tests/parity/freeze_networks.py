"""Writes data/resnet18_losses.json: PyTorch's losses in float64 and float32, for test_networks.py.

    python tests/parity/freeze_networks.py

Takes about a minute a seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from test_networks import BATCH, LR, STEPS, set_up, torch_losses_and_gradients, torch_twin

SEEDS = 13


def row(seed: int) -> dict:
    net, batches = set_up(seed)
    peer = torch_twin(net)
    exact, _ = torch_losses_and_gradients(peer, batches, torch.float64)
    single, _ = torch_losses_and_gradients(peer, batches, torch.float32)
    return {"seed": seed, "weights": net.digest(), "float64": exact, "float32": single}


if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "resnet18_losses.json"
    rows = [row(seed) for seed in range(SEEDS)]
    head = {"torch": torch.__version__, "batch": BATCH, "lr": LR, "steps": STEPS}
    lines = ",\n    ".join(map(json.dumps, rows))
    path.write_text(json.dumps(head)[:-1] + ',\n  "seeds": [\n    ' + lines + "\n  ]\n}\n")
