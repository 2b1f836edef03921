"""Opening a case: a run of gapless, outputs of a model trained elsewhere, or that model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import checkpoint as checkpoint_file
from ..errors import RecipeError
from .case import Budget, Case
from .subject import NetSubject

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

__all__ = ["open_case", "open_run"]


def open_case(
    run_or_checkpoint: Any = None,
    data: Any = None,
    *,
    budget: Budget,
    outputs: Any = None,
    train_outputs: Any = None,
    logged: float | None = None,
    images: Any = None,
    model: Any = None,
    preprocess: Callable[[Any], Any] | None = None,
    train: Any = None,
    val: Any = None,
    classes: Sequence[str] | None = None,
    detector_losses: Any = None,
    seed: int = 0,
) -> Case:
    """The case that these arguments of `gapless.diagnose` describe; an error says what does not go
    together."""
    if detector_losses is not None:
        models = {"a run": run_or_checkpoint, "outputs": outputs, "model": model}
        return _of_losses(detector_losses, [k for k, v in models.items() if v is not None], budget, seed)
    given = {"outputs": outputs, "model": model, "run": run_or_checkpoint}
    said = [k for k, v in given.items() if v is not None]
    if logged is not None and not 0 <= logged <= 1:
        hint = f"; did you mean {logged / 100:g}?" if 1 < logged <= 100 else ""
        raise RecipeError(f"logged: an accuracy is a fraction from 0 to 1, got {logged!r}{hint}")
    if len(said) != 1:
        raise RecipeError(
            "diagnose: give a run or checkpoint, or outputs=…, or model=… with preprocess=…"
            + (f"; got {' and '.join(said)}" if said else "")
        )
    if run_or_checkpoint is not None:
        return open_run(run_or_checkpoint, data, budget=budget, logged=logged, seed=seed)
    raise RecipeError(f"diagnose: {said[0]} cannot be opened yet")


def _of_losses(table: Any, others: Sequence[str], budget: Budget, seed: int) -> Case:
    """A detector, by its losses image by image."""
    from . import detector_losses

    if others:
        raise RecipeError(f"diagnose: detector_losses and {' and '.join(others)} are different models")
    return Case(budget=budget, losses=detector_losses.read(table), seed=seed)


def open_run(
    run_or_checkpoint: Any, data: Any, *, budget: Budget, logged: float | None = None, seed: int = 0
) -> Case:
    """A run or checkpoint of gapless, on its own data or on others."""
    from .. import evaluation
    from ..data.pipeline import Pipeline
    from ..nn import Net
    from ..recipe import Recipe

    saved = checkpoint_file.read(evaluation.find_checkpoint(run_or_checkpoint))
    with checkpoint_file.fitting(saved):
        source, own = evaluation._data_of(saved, data)
        net = Net(saved.graph, seed=None)
        net.load_state_dict(saved.scored(), strict=True)
        pipeline = Pipeline(saved.recipe["eval"], evaluation=True)
        classes = tuple(saved.manifest["classes"])
        subject = NetSubject(net, pipeline, classes, saved.recipe["precision"], saved.weights_kind)
        recipe = Recipe.from_dict(dict(saved.recipe))
    case = Case(
        budget=budget,
        logged=_logged(saved) if logged is None and own else logged,
        data=source,
        subject=subject,
        saved=saved,
        recipe=recipe,
        seed=seed,
    )
    other = "raw" if saved.weights_kind == "ema" else "ema"
    weights = saved.weights(other)
    if weights is not None:
        case.others[other] = subject.with_weights(weights, other)
    return case


def _logged(saved: Checkpoint) -> float | None:
    """The accuracy that training logged in the epoch that the checkpoint ends."""
    rows = [r for r in saved.history if r.get("train/running/top1") is not None]
    if not rows:
        return None
    return float(rows[-1]["train/running/correct"] / rows[-1]["train/running/n"])
