"""Filling in what a recipe leaves open: each default follows from the data by a rule, and says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gapless import _sections, schedule
from gapless.errors import RecipeError

if TYPE_CHECKING:
    from gapless.recipe import Recipe

__all__ = ["Resolved", "resolve"]

SMALL = 64  # pixels: up to here a picture is fed at its own size
LARGE_SIZE = 128  # pixels: what larger pictures are fed at
BATCH = 32
LEAST_STEPS = 600
MOST_EPOCHS = 20  # where the data give 600 steps sooner
REFERENCE_BATCH = 256  # of scale_lr
CLEAN_SAMPLES = 2000
# Multiply-adds of one training step per pixel and image, roughly (3 x forward), and what fits into minutes.
# MobileNets wait for memory more than they multiply: what they take, counted as a resnet18's multiply-adds.
_COST = {"lenet": 5e3, "resnet8": 37e3, "resnet18": 110e3, "resnet50": 250e3}
_COST |= {"mobilenet_v2": 30e3, "mobilenet_v3_small": 8e3, "mobilenet_v3_large": 25e3}
_BUDGET = 8e12
# Of ImageNet's training set, what torchvision and timm use.
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass
class Resolved:
    """A recipe with nothing left open, and what follows from it.

    Attributes
    ----------
    recipe : Recipe
        Fully spelled out; what the run's recipe.yaml and the checkpoint hold.
    data : Data
        The opened data.
    reasons : list of str
        One line for each default that was filled in, to print.
    input_shape : tuple
        (C, H, W) that the network is fed.
    n_train, n_val : int
        Listed samples.
    steps_per_epoch, total_steps : int
        Optimizer steps.
    """

    recipe: Recipe
    data: Any
    reasons: list[str]
    input_shape: tuple[int, int, int]
    n_train: int
    n_val: int
    steps_per_epoch: int
    total_steps: int
    live: dict[str, Any] = field(default_factory=dict, repr=False)

    def optimizer(self) -> Any:
        """Return the optimizer object."""
        from gapless.recipe import build_optimizer

        return build_optimizer(self.recipe.optimizer or {})

    def loss(self) -> Any:
        """Return the loss object."""
        from gapless.recipe import build_loss

        return build_loss(self.recipe.loss or {})

    def schedule(self) -> schedule.Schedule:
        """Return the schedule."""
        return schedule.from_config(self.recipe.schedule or {})

    def pipeline(self, *, evaluation: bool) -> Any:
        """Return the training or the evaluation pipeline."""
        from gapless.recipe import build_pipeline

        return build_pipeline(
            (self.recipe.eval if evaluation else self.recipe.train) or [], evaluation=evaluation
        )

    def net(self) -> Any:
        """Return the network, with its first weights drawn from the recipe's seed (before `pretrained`)."""
        from gapless.recipe import build_net

        if "net" in self.live:
            return self.live["net"]
        return build_net(self.recipe.model or {}, self.input_shape, self.recipe.seed)

    def base_lr(self) -> float:
        """Return the optimizer's own learning rate, which the schedule bends."""
        return float((self.recipe.optimizer or {})["lr"])


def resolve(recipe: Recipe, data: Any = None) -> Resolved:
    """Fill in everything that `recipe` leaves open.

    Parameters
    ----------
    recipe : Recipe
        As it was written.
    data : Data, optional
        The opened data; by default what the recipe's `data` says is opened.
    """
    data = _open(recipe) if data is None else data
    reasons: list[str] = []
    n = {name: len(indices) for name, indices in data.splits.items()}
    if n.get("train", 0) == 0:
        raise RecipeError("data: the train split is empty; look at data.split, or at the folder")
    _check_classes(data)
    values = {key: getattr(recipe, key) for key in type(recipe).__struct_fields__}
    values = _sections_copy(values)
    values["data"] = _sections.plain(data.spec, "data")
    _fill_pipelines(values, data, reasons)
    shape = _input_shape(values, data)
    _fill_model(values, data, recipe, shape, reasons)
    _fill_length(values, n["train"], shape, reasons)
    steps_per_epoch = _steps(n["train"], values["batch_size"], values["drop_last"])
    total = steps_per_epoch * values["epochs"]
    _fill_optimization(values, recipe, reasons, steps_per_epoch, total)
    _fill_evaluation(values, data, n, reasons)
    live = _live_net(values, recipe, shape, reasons)
    full = type(recipe)(**values)
    full.live.update({k: v for k, v in recipe.live.items() if k in ("module", "net")})
    return Resolved(full, data, reasons, shape, n["train"], n.get("val", 0), steps_per_epoch, total, live)


def _check_classes(data: Any) -> None:
    """A single class makes every answer right: most often the folder above the one that was meant."""
    if data.num_classes > 1:
        return
    folders = {i.rpartition("/")[0] for i in data.ids if i.count("/") > 1} if "folder" in data.spec else set()
    lie = ", ".join(sorted(folders)[:3])
    hint = f"; the pictures lie in {lie}: did you mean the folder that holds those?" if folders else ""
    raise RecipeError(
        f"data: 1 class ({data.classes[0]!r}), so every answer would be right; training needs 2 or more{hint}"
    )


def _sections_copy(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _sections.plain(v, k) for k, v in values.items()}


def _open(recipe: Recipe) -> Any:
    from gapless import data as module

    if "data" in recipe.live:
        return recipe.live["data"]
    spec = recipe.data
    if spec is None:
        raise RecipeError(
            "data: a recipe needs data: a folder, a list file, gl.data.arrays(X, y), … or 'digits'"
        )
    options: dict[str, Any] = {"on_unreadable": "error"} if recipe.on_unreadable == "error" else {}
    if isinstance(spec, str):
        return module.open(spec, **options)
    if "path" in spec:
        rest = {key: value for key, value in spec.items() if key != "path"}
        return module.open(str(spec["path"]), **rest, **options)
    return module.open(spec, **options)


# ---- pipelines ----


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of one number, a pair, or nothing known."""
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[1])
    return int(size), int(size)


def _short(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _fill_pipelines(values: dict[str, Any], data: Any, reasons: list[str]) -> None:
    written = {key: values[key] is not None for key in ("train", "eval")}
    size = _decide_size(values, data, reasons)
    for key in ("train", "eval"):
        if not written[key]:
            values[key], said = _default_pipeline(key, size, data)
            reasons.append(f"{key}: {said}")
    _fill_normalize(values, data, reasons)
    for key in ("train", "eval"):
        values[key] = _sections.canonical_pipeline(values[key], key)
        out = _output_size(values[key], data)
        if out is not None and out != size:
            raise RecipeError(
                f"image_size: it is {_short(size)}, but the {key} pipeline gives {_short(out)}: change the "
                f"pipeline's sizes, or leave {key} out, so that it follows from image_size"
            )
    values["image_size"] = _short(size)


def _decide_size(values: dict[str, Any], data: Any, reasons: list[str]) -> tuple[int, int]:
    """The size that the network is fed: as asked, as the written pipelines give it, or by the rule."""
    if values["image_size"] is not None:
        return _pair(values["image_size"])
    for key in ("eval", "train"):
        out = _output_size(values[key], data) if values[key] is not None else None
        if out is not None:
            if values["train"] is None or values["eval"] is None:
                reasons.append(f"image_size: {_short(out)}, what the {key} pipeline gives")
            return out
    largest = max(_pair(data.max_size))
    if largest <= SMALL:
        if data.size is not None:
            own = _pair(data.size)
            reasons.append(f"image_size: {_short(own)}, the pictures' own size (all are at most {SMALL} px)")
            return own
        reasons.append(
            f"image_size: {largest}, the longest side of all pictures (all are at most {SMALL} px)"
        )
        return largest, largest
    reasons.append(f"image_size: {LARGE_SIZE}, because pictures are up to {largest} px and this is a CPU")
    return LARGE_SIZE, LARGE_SIZE


def _output_size(ops: list[dict[str, Any]] | None, data: Any) -> tuple[int, int] | None:
    """The one size that a pipeline gives, or None where it follows the picture."""
    now: tuple[int, int] | None = _pair(data.size) if data.size is not None else None
    for op in ops or ():
        size = op.get("size")
        if op["name"] in ("CenterCrop", "RandomCrop", "RandomResizedCrop"):
            now = _pair(size)
        elif op["name"] == "Resize":
            if isinstance(size, list):
                now = _pair(size)
            elif now is not None:
                now = _resized(now, int(size or 0))
        elif op["name"] == "Pad":
            now = None if now is None else _padded(now, op["padding"])
    return now


def _resized(now: tuple[int, int], shorter: int) -> tuple[int, int] | None:
    return (shorter, shorter) if now[0] == now[1] else None


def _padded(now: tuple[int, int], padding: Any) -> tuple[int, int]:
    sides = padding if isinstance(padding, list) else [padding]
    left, top, right, bottom = {1: lambda p: p * 4, 2: lambda p: p * 2, 4: lambda p: p}[len(sides)](sides)
    return now[0] + top + bottom, now[1] + left + right


def _default_pipeline(key: str, size: tuple[int, int], data: Any) -> tuple[list[dict[str, Any]], str]:
    own = None if data.size is None else _pair(data.size)
    side = _short(size)
    if max(_pair(data.max_size)) <= SMALL:
        padding = max(1, min(size) // 8)
        fit: list[dict[str, Any]] = []
        if own != size:
            fit = [{"name": "Resize", "size": min(size)}, {"name": "CenterCrop", "size": side}]
        if key == "eval":
            return fit, "as they are" if not fit else f"resized and cropped to {side}"
        crop = {"name": "RandomCrop", "size": side, "padding": padding}
        return [*fit[:1], crop], f"crop to {side} after {padding} px of padding (flips only when asked for)"
    if key == "eval":
        short = round(max(size) * 8 / 7)
        return (
            [{"name": "Resize", "size": short}, {"name": "CenterCrop", "size": side}],
            f"shorter side to {short}, then the central {side} (8 : 7, as 256 : 224)",
        )
    return (
        [{"name": "RandomResizedCrop", "size": side}],
        f"a random part of the picture, resized to {side} (flips only when asked for)",
    )


def _fill_normalize(values: dict[str, Any], data: Any, reasons: list[str]) -> None:
    """Both pipelines end with the same Normalize: given once or twice alike, or the default."""
    ends = {}
    for key in ("train", "eval"):
        last = values[key][-1] if values[key] else None
        if last is not None and last["name"] == "Normalize":
            ends[key] = {k: v for k, v in last.items() if k != "id"}
    if len(ends) == 2 and ends["train"] != ends["eval"]:
        raise RecipeError(
            f"eval: Normalize differs between train ({ends['train']}) and eval ({ends['eval']}): the network "
            "would see other numbers than it was trained on; write it once (the other pipeline takes it over)"
        )
    if ends:
        common = next(iter(ends.values()))
    elif data.channels == 1:
        common = {"name": "Normalize", "mean": 0.5, "std": 0.25}
    else:
        common = {"name": "Normalize", "mean": _MEAN, "std": _STD}
    for key in ("train", "eval"):
        if key not in ends:
            values[key] = [*values[key], {**common, "id": None}]
            values[key][-1].pop("id")
    if not ends:
        reasons.append(f"Normalize: mean {common['mean']}, std {common['std']}, as usual for pictures")


def _input_shape(values: dict[str, Any], data: Any) -> tuple[int, int, int]:
    h, w = _pair(values["image_size"])
    return int(data.channels), h, w


# ---- model ----


def _fill_model(
    values: dict[str, Any], data: Any, recipe: Recipe, shape: tuple[int, int, int], reasons: list[str]
) -> None:
    model = dict(values["model"] or {})
    if "graph" in model:
        return
    classes = int(data.num_classes)
    if "name" not in model:
        small = max(_pair(data.max_size)) <= SMALL and max(shape[1:]) <= SMALL
        model = {**_default_model(small), **model}
        why = f"every picture is at most {SMALL} px" if small else f"pictures are larger than {SMALL} px"
        reasons.append(f"model: {_say_model(model)}, because {why}")
    said = model.get("num_classes")
    if said is not None and said != classes:
        raise RecipeError(
            f"model.num_classes: is {said}, but the data have {classes} classes: "
            "leave it out, or look at the data's folder"
        )
    model["num_classes"] = classes
    values["model"] = model


def _default_model(small: bool) -> dict[str, Any]:
    if small:
        return {"name": "resnet8"}
    return {"name": "mobilenet_v2", "width": 0.5}


def _say_model(model: Mapping[str, Any]) -> str:
    return str(model["name"]) + "".join(f" {k}={v}" for k, v in model.items() if k != "name")


def _live_net(
    values: dict[str, Any], recipe: Recipe, shape: tuple[int, int, int], reasons: list[str]
) -> dict[str, Any]:
    """Trace a live module now, so that the recipe can hold its graph; weights that it holds are where we
    begin."""
    if "net" in recipe.live:
        return {"net": recipe.live["net"]}
    module = recipe.live.get("module")
    if module is None:
        return {}
    try:
        net = module.net(shape, values["seed"])
    except ValueError:
        net = module.net(shape)
        reasons.append("model: begins with the weights that the given module holds")
    if "graph" in (values["model"] or {}):
        values["model"] = {"graph": net.document}
    return {"net": net}


# ---- length and optimization ----


def _steps(n_train: int, batch: int, drop_last: bool) -> int:
    steps = n_train // batch if drop_last else -(-n_train // batch)
    if steps == 0:
        raise RecipeError(
            f"batch_size: {batch} is more than the {n_train} training samples, and drop_last leaves nothing: "
            "make it smaller"
        )
    return steps


def _fill_length(
    values: dict[str, Any], n_train: int, shape: tuple[int, int, int], reasons: list[str]
) -> None:
    if values["batch_size"] is None:
        values["batch_size"] = BATCH
        reasons.append(f"batch_size: {BATCH}, many steps even on little data")
    if values["epochs"] is not None:
        return
    steps = _steps(n_train, values["batch_size"], values["drop_last"])
    model = values["model"] or {}
    cost = _COST.get(str(model.get("name")), _COST["resnet18"]) * model.get("width", 1.0)
    cost *= shape[1] * shape[2] * n_train
    least = math.ceil(LEAST_STEPS / steps)
    fits = max(1, int(_BUDGET / cost))
    epochs = max(least, min(MOST_EPOCHS, fits))
    values["epochs"] = epochs
    if epochs == least and least > min(MOST_EPOCHS, fits):
        why = f"the fewest that give {LEAST_STEPS} steps ({steps} per epoch)"
    elif epochs == MOST_EPOCHS:
        why = f"enough for a first look ({epochs * steps} steps)"
    else:
        why = f"what trains in minutes ({epochs * steps} steps)"
    reasons.append(f"epochs: {epochs}, {why}")


def _fill_optimization(
    values: dict[str, Any], recipe: Recipe, reasons: list[str], steps_per_epoch: int, total: int
) -> None:
    epochs = values["epochs"]
    said = values["optimizer"] or {}
    if "name" not in said:
        small = max(_pair(values["image_size"])) <= SMALL
        lr = 0.01 if values["pretrained"] else 0.1 if small else 0.05
        usual = {"lr": lr, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
        if said.get("momentum") == 0 or said.get("dampening"):
            usual["nesterov"] = False  # it cannot go with these, and nobody asked for it
        chosen = {"name": "SGD", **usual, **said}
        values["optimizer"] = chosen
        why = "a gentle start from trained weights" if values["pretrained"] else "usual with BatchNorm"
        shown = ", ".join(f"{k} {chosen[k]}" for k in ("lr", "momentum", "weight_decay"))
        reasons.append(f"optimizer: SGD, {shown}: {why}")
    if values["scale_lr"]:
        _scale_lr(values, reasons)
    if values["loss"] is None or "name" not in values["loss"]:
        values["loss"] = {"name": "CrossEntropy", **(values["loss"] or {})}
    live = recipe.live.get("schedule")
    if live is not None:
        values["schedule"] = live.tabulate(steps_per_epoch, total)
    elif values["schedule"] is None or "name" not in values["schedule"]:
        given = values["schedule"] or {}
        warm = {} if "warmup_steps" in given else {"warmup_epochs": min(1.0, epochs / 10)}
        values["schedule"] = {"name": "Cosine", **warm, **given}
        decay: dict[str, Any] = dict(values["schedule"] or {})
        warm_up = decay.get("warmup_epochs")
        after = f" after {warm_up:g} epoch{'s' * (warm_up != 1)} of warm-up" if warm_up else ""
        reasons.append(f"schedule: Cosine to {decay.get('final', 0.0):g}{after}")
    made = schedule.from_config(values["schedule"])
    made.check(steps_per_epoch, total)


def _scale_lr(values: dict[str, Any], reasons: list[str]) -> None:
    """Apply linear scaling once; the stored recipe has the rate that is used."""
    section = _sections.canonical_section("optimizers", values["optimizer"], "optimizer")
    before, batch = section["lr"], values["batch_size"]
    section["lr"] = before * batch / REFERENCE_BATCH
    values["optimizer"], values["scale_lr"] = section, False
    reasons.append(f"optimizer.lr: {section['lr']:g} = {before:g} × {batch} / {REFERENCE_BATCH} (scale_lr)")


# ---- evaluation ----


def _fill_evaluation(values: dict[str, Any], data: Any, n: Mapping[str, int], reasons: list[str]) -> None:
    classes = int(data.num_classes)
    if values["topk"] is None:
        values["topk"] = [k for k in (1, 5) if k <= classes and (k < classes or k == 1)]
    for k in values["topk"]:
        if k > classes:
            raise RecipeError(f"topk: {k} is more than the {classes} classes: each answer would be right")
    if 1 not in values["topk"]:
        values["topk"] = [1, *values["topk"]]
    if n.get("val", 0) == 0 and values["monitor"].startswith("val/"):
        raise RecipeError(
            "data: the val split is empty, and monitor needs it: give data.split a second fraction"
        )
    split, _, metric = values["monitor"].rpartition("/")
    if split not in n and split not in ("train/clean",):
        raise RecipeError(f"monitor: the data have no split {split!r}; there are {', '.join(n)}")
    if metric.startswith("top") and int(metric[3:]) not in values["topk"]:
        if int(metric[3:]) > classes:
            raise RecipeError(
                f"monitor: {metric} is more than the {classes} classes; did you mean 'val/top1'?"
            )
        values["topk"] = sorted({*values["topk"], int(metric[3:])})
    if values["clean_samples"] is None:
        values["clean_samples"] = min(n.get("val", 0), n["train"], CLEAN_SAMPLES)
        reasons.append(f"clean_samples: {values['clean_samples']} training samples, scored like validation")
