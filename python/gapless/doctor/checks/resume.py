"""R1: a run that was stopped and went on ends elsewhere than one that was not."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import checkpoint
from ...training.state import net_tensors, restore_net, slot_names
from ..case import Case
from ..result import Remedy, Result
from ..stats import share
from ..table import check
from ..trial import Trial, seconds_of

__all__ = ["resume"]

STEPS = 6  # half of them before the stop


@check(
    "R1",
    "resume",
    "training does not go on as if it had never stopped",
    measure="share of weights that differ after stopping and going on",
    needs=["recipe", "images"],
    cost=lambda case: 0.1 + seconds_of(case, images=2 * STEPS * _batch(case)),
    threshold=0.0,
    reference="YOLOv5 #292, PyTorch Lightning #17543: optimizer, averages or random state lost on resuming",
)
def resume(case: Case) -> Result:
    """Makes a few steps at once, and the same steps with a checkpoint written, read and restored in between:
    every weight, average and slot of the optimizer must be the same to the bit."""
    straight, stopped = Trial(case), Trial(case)
    batches = list(islice(straight.feed(), STEPS))
    half = len(batches) // 2
    for batch in batches:
        straight.update(batch)
    for batch in batches[:half]:
        stopped.update(batch)
    resumed = _through_a_file(case, stopped)
    for batch in batches[half:]:
        resumed.update(batch)
    if not (straight.finite and resumed.finite):
        return Result.undecided("training is not finite in its first steps: there is nothing to compare")
    differ, total = _differences(straight, resumed)
    numbers = {"steps": len(batches), "numbers_compared": total, "numbers_that_differ": differ}
    if not differ:
        said = f"{half} + {len(batches) - half} steps give the same {total:,} numbers as {len(batches)}"
        return Result.clear(said, share(0, total, 1.0), evidence=numbers)
    return Result.found(
        f"{differ:,} of {total:,} numbers differ after {half} + {len(batches) - half} steps",
        share(differ, total),
        evidence=numbers,
        remedy=Remedy("This is a defect of gapless: please report it; until then train without stopping."),
    )


def _batch(case: Case) -> int:
    size = case.recipe.batch_size if case.recipe is not None else None
    return int(size or 32)


def _through_a_file(case: Case, trial: Trial) -> Trial:
    name = trial.recipe["optimizer"]["name"]
    tensors = net_tensors(trial.net, name, trial.kind, trial.ema is not None)
    updates = {e["name"]: int(e["updates"]) for e in trial.net.store.entries() if e["kind"] == "param"}
    state = {"weights_kind": trial.kind, "updates": updates, "step": len(trial.losses)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "between.safetensors"
        checkpoint.write(file, tensors, {"state": state})
        saved = checkpoint.read(file)
    again = Trial(case)
    restore_net(again.net, saved, name)
    again.losses = list(trial.losses)  # the number of the next step
    return again


def _differences(a: Trial, b: Trial) -> tuple[int, int]:
    differ = total = 0
    for plane in ("master", *(("ema",) if a.ema else ()), *_slots(a)):
        x, y = _bits(a, plane), _bits(b, plane)
        differ += int(np.count_nonzero(x != y))
        total += len(x)
    return differ, total


def _slots(trial: Trial) -> list[str]:
    kept = [f"slot{i}" for i in range(len(slot_names(trial.recipe["optimizer"]["name"])))]
    return [s for s in kept if s in trial.net.store.planes()]


def _bits(trial: Trial, plane: str) -> NDArray[Any]:
    return trial.net.store.flat(plane).view(np.uint32)
