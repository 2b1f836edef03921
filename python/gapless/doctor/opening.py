"""Opening a case: a run of gapless, outputs of a model trained elsewhere, or that model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checkpoint as checkpoint_file
from ..data import loader
from ..errors import RecipeError
from . import outside, reading
from .case import Budget, Case
from .subject import FunctionSubject, NetSubject, permuted

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

__all__ = ["open_case", "open_model", "open_outputs", "open_run"]

_SHARE = 0.2  # of the budget that one pass of a caller's model over all samples may take


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
        if logged is not None:
            raise RecipeError("diagnose: logged belongs to a run, outputs or model, not to detector_losses")
        return _of_losses(detector_losses, [k for k, v in models.items() if v is not None], budget, seed)
    given = {"outputs": outputs, "model": model, "run": run_or_checkpoint}
    said = [k for k, v in given.items() if v is not None]
    if logged is not None and not isinstance(logged, int | float | np.number):
        raise RecipeError(f"logged: an accuracy is a fraction from 0 to 1, got {logged!r:.80}")
    if logged is not None and not 0 <= logged <= 1:
        hint = f"; did you mean {logged / 100:g}?" if 1 < logged <= 100 else ""
        raise RecipeError(f"logged: an accuracy is a fraction from 0 to 1, got {logged!r}{hint}")
    if len(said) != 1:
        raise RecipeError(
            "diagnose: give a run or checkpoint, or outputs=…, or model=… with preprocess=…"
            + (f"; got {' and '.join(said)}" if said else "")
        )
    others = {"train_outputs": train_outputs, "images": images, "train": train, "val": val}
    others |= {"preprocess": preprocess, "data": data, "classes": classes}
    _check_belongs(said[0], {k for k, v in others.items() if v is not None})
    if run_or_checkpoint is not None:
        return open_run(run_or_checkpoint, data, budget=budget, logged=logged, seed=seed)
    if outputs is not None:
        return open_outputs(
            outputs, train_outputs, budget=budget, logged=logged, images=images, classes=classes, seed=seed
        )
    return open_model(model, preprocess, train, val, budget=budget, logged=logged, classes=classes, seed=seed)


_BELONGS = {
    "run": {"data"},
    "outputs": {"train_outputs", "images", "classes"},
    "model": {"preprocess", "train", "val", "classes"},
}


def _check_belongs(what: str, given: set[str]) -> None:
    wrong = sorted(given - _BELONGS[what])
    if wrong:
        belongs = [k for k, v in _BELONGS.items() if wrong[0] in v]
        raise RecipeError(f"diagnose: {wrong[0]} belongs to {' or '.join(belongs)}, not to {what}")


def open_outputs(
    outputs: Any,
    train_outputs: Any = None,
    *,
    budget: Budget,
    logged: float | None = None,
    images: Any = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Case:
    """A model trained elsewhere, by what it said of validation and perhaps of training samples."""
    sources = {"val": outputs} | ({} if train_outputs is None else {"train": train_outputs})
    read = dict(zip(sources, reading.read_outputs(*sources.values(), classes=classes), strict=True))
    found = {k: r.outputs for k, r in read.items()}
    notes, data = [r.report for r in read.values()], None
    if images is not None:
        data, found, missing = outside.data_of_images(images, found)
        notes += missing + data.notes
        loader._attach_cache(data, None)
    case = Case(budget=budget, logged=logged, outputs=found, data=data, seed=seed)
    case.notes += notes
    return case


def open_model(
    model: Any,
    preprocess: Callable[[Any], Any] | None,
    train: Any,
    val: Any,
    *,
    budget: Budget,
    logged: float | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Case:
    """A model trained elsewhere, as a function of prepared images, with what prepares them."""
    if preprocess is None or val is None:
        raise RecipeError("diagnose: model=… needs preprocess=… (path → array) and val=… (samples)")
    functions = model if isinstance(model, Mapping) else {"model": model}
    if not functions or not all(callable(f) for f in (*functions.values(), preprocess)):
        raise RecipeError("diagnose: model and preprocess must be functions, or model a dict of them by name")
    data = outside.data_of_samples(train, val, classes)
    loader._attach_cache(data, None)  # checks look at the same images many times
    subjects = [FunctionSubject(f, preprocess, data.classes, str(k)) for k, f in functions.items()]
    case = Case(
        budget=budget,
        logged=logged,
        data=data,
        subject=subjects[0],
        others={s.name: s for s in subjects[1:]},
        seed=seed,
    )
    case.notes += data.notes
    _fit(case)
    return case


def _fit(case: Case) -> None:
    """Where one pass over all samples would take too much of the budget, a random part of them is used."""
    assert case.data is not None
    seconds = case.seconds_per_image()
    n = sum(map(len, case.data.splits.values()))
    most = int(_SHARE * case.budget.left / max(seconds, 1e-9))
    if n <= max(most, 256):
        return
    kept, share = {}, max(most, 256) / n
    for stream, (name, indices) in enumerate(case.data.splits.items()):
        few = max(64, int(share * len(indices)))
        kept[name] = indices[permuted(len(indices), case.seed, 0xD00 + stream)[:few]]
        if len(kept[name]) < len(indices):
            case.notes.append(
                f"{name}: {len(kept[name]):,} of {len(indices):,} samples are used, chosen at random: the "
                f"model takes {1000 * seconds:.0f} ms per image"
            )
    case.data = outside.only(case.data, kept)


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
        given=own and data is not None,
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
