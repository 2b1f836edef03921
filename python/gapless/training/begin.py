"""Beginning a run: from a recipe, from a checkpoint, or from a folder that has no checkpoint yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checkpoint as checkpoint_file
from ..errors import CheckpointError, DataError, RecipeError
from ..record import EvalRecord
from ..schedule import ReduceOnPlateau
from . import pictures
from .console import Console
from .loop import Trainer
from .outputs import new_folder
from .run import Run
from .state import Position, SampleTable, restore_net

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..data import Data
    from ..nn import Net
    from ..recipe import Recipe

__all__ = ["recipe_of", "resume", "start"]


def recipe_of(recipe: Any) -> Recipe:
    """A recipe in any of its forms."""
    from ..recipe import Recipe

    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return Recipe.from_dict(dict(recipe))
    return Recipe.from_yaml(recipe)


def start(recipe: Recipe, out: Any, console: Console, threads: int | None) -> Trainer:
    """A new run, in a new folder."""
    from ..nn import Net
    from ..recipe import resolve

    resolved = resolve(recipe)
    net: Net = resolved.net()
    if resolved.live.get("net") is net:  # the caller's net stays as it is
        given, net = net, Net(net.document, seed=None)
        net.load_state_dict(given.state_dict(), strict=True)
    plain = resolved.recipe.to_dict()
    report = _load_pretrained(net, plain, resolved.data)
    trainer = Trainer(plain, resolved.data, net, Path(), console, threads)
    trainer.settle(new_folder(out))  # now that everything fits
    for line in [*resolved.reasons, *report]:
        console.say(line)
    trainer.files.text("recipe.yaml", resolved.recipe.to_yaml())
    trainer.files.text("split.json", json.dumps(trainer.manifest, ensure_ascii=True, indent=0) + "\n")
    pictures.draw_labels(trainer)
    trainer.begin()
    return trainer


def resume(path: Path, recipe: Any, console: Console, threads: int | None) -> Trainer | Run:
    """Go on with a run; one that is finished is returned as it is."""
    from ..nn import Net

    folder = path.resolve() if path.is_dir() else path.resolve().parent
    file = path if path.is_file() else folder / "last.safetensors"
    given = recipe_of(recipe) if recipe is not None else None
    if not file.exists():
        return _from_the_beginning(folder, given, console, threads)
    saved = checkpoint_file.read(file)
    _check_resumable(saved, given)
    with checkpoint_file.fitting(saved):
        if saved.state["finished"]:
            console.say(f"{folder}: this run is finished ({saved.state['epoch']} epochs); nothing to do")
            return Run.open(folder)
        data = _reopen(saved.recipe["data"], saved.manifest, given)
        net = Net(saved.graph, seed=None)
        trainer = Trainer(saved.recipe, data, net, folder, console, threads)
        _restore(trainer, saved)
    return trainer


def _from_the_beginning(folder: Path, given: Recipe | None, console: Console, threads: int | None) -> Trainer:
    """A run that ended before its first checkpoint: its recipe, and its split, which is not drawn again."""
    from ..recipe import Recipe, build_net

    file, split = folder / "recipe.yaml", folder / "split.json"
    if not file.exists():
        raise CheckpointError(f"{folder}: neither last.safetensors nor recipe.yaml: not a run's folder")
    plain = Recipe.from_yaml(file).to_dict()
    manifest = json.loads(split.read_text("utf-8")) if split.exists() else None
    data = _reopen(plain["data"], manifest, given)
    size = plain["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    net: Net = build_net(plain["model"], (data.channels, height, width), plain["seed"])
    _load_pretrained(net, plain, data)
    trainer = Trainer(plain, data, net, folder, console, threads)
    console.say(f"{folder}: no checkpoint yet; starting from recipe.yaml")
    trainer.begin()
    return trainer


def _restore(trainer: Trainer, saved: Checkpoint) -> None:
    words = restore_net(trainer.net, saved, trainer.recipe["optimizer"]["name"])
    p = trainer.position = Position.of(saved.state)
    if (p.step, p.batch <= trainer.batches) != (p.epoch * trainer.batches + p.batch, True):
        raise CheckpointError(f"document 'state': step {p.step} is not epoch {p.epoch}, batch {p.batch}")
    p.interrupted = False
    trainer.samples = SampleTable.of(saved.tensors, trainer.index)
    trainer.history = list(saved.history)
    trainer.records = {k: EvalRecord.from_dict(v) for k, v in saved.records.items()}
    if isinstance(trainer.schedule, ReduceOnPlateau):
        trainer.schedule.load_state(saved.state["schedule"])
    if saved.state["clean"] != trainer.lists.get("train/clean", np.empty(0, np.int64)).tolist():
        raise CheckpointError("document 'state': the clean training samples are not those of this recipe")
    best = trainer.folder / "best.safetensors"
    if p.best is not None and not best.exists():
        raise CheckpointError(
            f"{best} is gone; it was of epoch {p.best['epoch']}: put it back, or train anew"
        )
    at = f"epoch {p.epoch + 1}, batch {p.batch} of {trainer.batches}, step {p.step} of {trainer.total}"
    trainer.console.say(f"resuming {trainer.folder} at {at}: {'; '.join(words)}")
    trainer.files.event("resume", epoch=p.epoch, batch=p.batch, step=p.step)
    trainer.files.history(trainer.history)  # rows beyond the checkpoint are dropped


def _load_pretrained(net: Net, recipe: Mapping[str, Any], data: Data) -> list[str]:
    """Weights of another file; nothing of it is dropped in silence, and the net must really have changed."""
    if not recipe["pretrained"]:
        return []
    from ..nn.pretrained import load_pretrained

    before = net.digest()
    report = load_pretrained(net, recipe["pretrained"], data.num_classes)
    if net.digest() == before:
        raise CheckpointError(f"pretrained: loading {recipe['pretrained']} did not change a single weight")
    return [f"pretrained: {recipe['pretrained']}: {report}"]


def _check_resumable(saved: Checkpoint, given: Recipe | None) -> None:
    missing = [d for d in checkpoint_file.DOCUMENTS if d not in saved.documents]
    if missing:
        raise CheckpointError(f"{saved.path}: has no {', '.join(missing)}: it can be evaluated, not resumed")
    if given is None:
        return
    from ..recipe import Recipe

    blank = Recipe()
    for key, own in saved.recipe.items():
        asked = getattr(given, key)
        if key not in ("data", "model") and asked not in (own, getattr(blank, key)):
            raise RecipeError(
                f"{key}: the run has {own!r}, the recipe given {asked!r}; a resumed run keeps its "
                f"own recipe: "
                "leave it out, or begin a new run"
            )


def _reopen(spec: Any, manifest: dict[str, Any] | None, given: Recipe | None) -> Data:
    """The run's data by its manifest; live data from the caller's recipe, which must be the same."""
    from .. import data as sources

    live: Data | None = given.live.get("data") if given is not None else None
    if live is None:
        try:
            return sources.open(spec, manifest=manifest)
        except DataError as e:
            raise DataError(f"{e}. A resumed run goes on with the very samples that it began with") from e
    return live.with_manifest(manifest) if manifest is not None else live
