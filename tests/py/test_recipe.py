"""Recipes: YAML and Python say the same, nothing unknown passes, other tools' keys are answered, defaults
say why."""

from __future__ import annotations

import doctest
import importlib
import json
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gapless as gl
from gapless import _peers, _sections, _yaml, schedule
from gapless.data.pipeline import RandomInEvaluationError
from gapless.errors import RecipeError
from gapless.recipe import KEYS, Recipe, build_net, build_optimizer, build_pipeline, resolve

DESIGN = """
data:      {folder: flowers/, split: [0.8, 0.1, 0.1]}
model:     {name: resnet18, stem: cifar}
train:     [RandomResizedCrop: {size: 224, scale: [0.2, 1.0]}, RandomHorizontalFlip]
eval:      [Resize: 256, CenterCrop: 224]
loss:      {name: CrossEntropy, label_smoothing: 0.1}
optimizer: {name: SGD, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 4e-5}
schedule:  {name: Cosine, warmup_epochs: 5}
epochs:    90
batch_size: 128
seed:      0
"""


class FakeData:
    """What resolve() reads of data, without any pictures."""

    def __init__(self, size=(8, 8), n_train=1438, n_val=359, classes=10, channels=1, smallest=None, **more):
        self.spec = {"digits": True}
        self.size = size if smallest is None else None
        self.max_size, self.min_size = size, smallest or size
        self.num_classes, self.channels = classes, channels
        self.splits = {"train": range(n_train), "val": range(n_train, n_train + n_val), **more}


@pytest.mark.parametrize("module", ["recipe", "_peers", "_yaml"])
def test_doctests(module):
    result = doctest.testmod(
        importlib.import_module(f"gapless.{module}"), optionflags=doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert result.attempted > 0
    assert result.failed == 0


# ---- YAML and Python ----


def test_the_design_s_example_says_the_same_in_yaml_and_in_python():
    from_yaml = Recipe.from_yaml(DESIGN)
    from_python = gl.Recipe(
        data={"folder": "flowers/", "split": [0.8, 0.1, 0.1]},
        model={"name": "resnet18", "stem": "cifar"},
        train=[gl.augment.RandomResizedCrop(224, scale=(0.2, 1.0)), gl.augment.RandomHorizontalFlip()],
        eval=[gl.augment.Resize(256), gl.augment.CenterCrop(224)],
        loss=gl.losses.CrossEntropy(label_smoothing=0.1),
        optimizer=gl.optim.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=4e-5),
        schedule=gl.schedule.Cosine(warmup_epochs=5),
        epochs=90,
        batch_size=128,
        seed=0,
    )
    assert from_yaml == from_python
    assert from_yaml.digest == from_python.digest
    assert build_optimizer(from_yaml.optimizer) == gl.optim.SGD(
        lr=0.1, momentum=0.9, nesterov=True, weight_decay=4e-5
    )


def test_round_trips_are_exact(tmp_path):
    recipe = Recipe.from_yaml(DESIGN)
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    recipe.save(tmp_path / "r.yaml")
    assert Recipe.from_yaml(tmp_path / "r.yaml").to_dict() == recipe.to_dict()
    assert tuple(recipe.to_dict()) == KEYS


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(WORDS, PLAIN, max_size=5))
def test_yaml_gives_back_exactly_what_was_written(value):
    again = _yaml.load(_yaml.dump(value)) or {}
    assert again == value
    assert repr(again) == repr(value), "1 and 1.0 and True are not the same"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from("ab:-[]{}&*!|>%@`'\"#, \n\t\\0123456789.e?~"), max_size=60))
def test_any_text_is_a_recipe_or_a_recipe_error(text):
    try:
        Recipe.from_dict(_yaml.load(text) or {})
    except RecipeError as error:
        said = str(error)
    else:
        said = "fine"
    assert said


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), PLAIN, max_size=3))
def test_any_value_is_accepted_or_a_recipe_error_that_names_its_key(plain):
    try:
        recipe, said = Recipe.from_dict(plain), None
    except RecipeError as error:
        recipe, said = None, str(error)
    if recipe is None:
        assert any(key in said for key in plain)
    else:
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nepochs: 2\n", "line 2.*duplicate"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("data: !!python/object/apply:os.system [ls]\n", "tags"),
        ("epochs: [1\n", "line"),
        ("epochs: 3\n---\nepochs: 4\n", "second document"),
        ("%YAML 1.1\n---\nepochs: 3\n", "directives"),
        ("[" * 60 + "\n", "levels deep"),
        ("seed: 2020-01-01\n", "quote it"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("epochs: three\n", "epochs: must be a whole number, got 'three'"),
        ("epochs: 1.5\n", "whole number"),
        ("epochs: true\n", "whole number"),
        ("epochs: 0\n", ">= 1"),
        ("seed: -1\n", ">= 0"),
        ("precision: amp\n", "one of fast, precise"),
        ("on_unreadable: skip\n", "one of leave_out, error"),
        ("ema: 1.5\n", r"ema.decay: must be in \[0, 1\)"),
        ("ema: {decya: 0.9}\n", "did you mean 'decay'"),
        ("monitor: accuracy\n", "did you mean 'val/top1'"),
        ("monitor: test/top1\n", "read once"),
        ("image_size: [1, 2, 3]\n", r"\(height, width\)"),
        ("image_size: [[], []]\n", r"image_size\[0\]: must be a whole number"),
        ("image_size: [[5, 6], [5, 6]]\n", r"image_size\[0\]: must be a whole number"),
        ("optimizer: {name: SGD, lr: -1}\n", "optimizer.lr: must be in"),
        ("optimizer: {name: SGD, lr: .nan}\n", "optimizer.lr: must be finite"),
        ("optimizer: {name: SGD, lr: fast}\n", "optimizer.lr: must be a number"),
        ("optimizer: [SGD]\n", "must be a name"),
        ("train: Resize\n", "must be a list"),
        ("train: [Resize]\n", "Resize needs size"),
        ("train: [{Resize: 1.5}]\n", "train.0..Resize.size: must be a whole number"),
        ("train: [{name: Resize, size: 8, interpolation: cubic}]\n", "did you mean 'bicubic'"),
        ("train: [{name: RandomResizedCrop, size: 8, scale: [1, 0.5]}]\n", "scale"),
        ("train: [{name: CenterCrop, size: 8, id: 1}, {name: CenterCrop, size: 8, id: 1}]\n", "same id"),
        ("train: [{Normalize: {mean: 0.5, std: 0.5}}, RandomHorizontalFlip]\n", "last op"),
        ("schedule: {name: Cosine, warmup_epochs: -1}\n", "warmup_epochs"),
        ("model: {graph: x.json, num_clases: 3}\n", "takes no parameters"),
    ],
)
def test_bad_text_is_one_clear_error(text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.from_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot read"):
        Recipe.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("monitor: 'é'\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="UTF-8"):
        Recipe.from_yaml(tmp_path / "latin.yaml")
    (tmp_path / "bad.yaml").write_text("epcohs: 3\n")
    with pytest.raises(RecipeError, match=r"bad\.yaml: epcohs: unknown key; did you mean 'epochs'"):
        Recipe.from_yaml(tmp_path / "bad.yaml")
    with pytest.raises(RecipeError, match="keywords only"):
        Recipe("r.yaml")


def test_numbers_keep_their_meaning():
    recipe = Recipe.from_yaml("optimizer: {name: SGD, lr: 1e-3}\nclip_norm: 1\nsave_every_seconds: 60\n")
    assert recipe.optimizer["lr"] == 1e-3
    assert isinstance(recipe.clip_norm, float)
    assert isinstance(recipe.save_every_seconds, float)
    assert Recipe(batch_size=np.int64(8), seed=np.int32(1)) == Recipe(batch_size=8, seed=1)


# ---- unknown keys (failure-cases 1, 2, 3, 4) ----

EVERYWHERE = {
    "PaddleClas": [
        "epoch",
        "learning_rate",
        "pretrained_model",
        "eval_during_train",
        "device",
        "class_num",
        "image_shape",
        "checkpoints",
        "output_dir",
        "save_interval",
        "print_batch_step",
        "use_shared_memory",
    ],
    "PyTorch": ["num_workers", "shuffle", "transforms", "criterion", "num_epochs", "weight_decay"],
    "timm": [
        "smoothing",
        "model_ema_decay",
        "warmup_lr",
        "img_size",
        "hflip",
        "clip_grad",
        "sched",
        "opt",
        "val_interval",
    ],
    "Keras": ["validation_split", "callbacks", "metrics", "steps_per_epoch", "use_ema"],
    "YOLOv5": ["lr0", "lrf", "imgsz", "noval", "workers", "nc"],
}


@pytest.mark.parametrize(("peer", "key"), [(p, k) for p, keys in EVERYWHERE.items() for k in keys])
def test_keys_of_other_tools_are_answered(peer, key):
    with pytest.raises(RecipeError, match="here it is") as caught:
        Recipe.from_dict({key: 1})
    assert str(caught.value).startswith(f"{key}: unknown key")
    with pytest.raises(RecipeError):
        Recipe(**{key: 1})


def test_every_answer_points_to_a_key_that_exists():
    for key, (_, here) in _peers._KEYS.items():
        first = here.split()[0].split(".")[0].rstrip(":,;()")
        prose = (
            "not",
            "always",
            "the",
            "follows",
            "train",
            "Normalize",
            "RandomHorizontalFlip",
            "interpolation",
            "RandomResizedCrop",
            "Dropout's",
            "train(verbose=…)",
            "train(callbacks=[…])",
        )
        options = ("--out", "--resume", "--threads", "--quiet")
        assert first in KEYS or first in options or here.startswith(prose), (key, here)


def test_every_answer_points_to_a_name_that_exists():
    there = {name for family in _sections.FAMILIES.values() for name in _sections.rows(family)}
    there |= {*_sections.rows("augments"), *schedule.names()}
    for name, (_, here) in _peers._NAMES.items():
        assert here.startswith("not ") or re.split("[ ,]", here)[0] in there, (name, here)


def test_case_01_a_misspelt_key_is_an_error_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'pretrained'"):
        Recipe.from_dict({"pretraned": "w.safetensors"})
    with pytest.raises(RecipeError, match="here it is called pretrained"):
        Recipe().override({"pretrained_model": "w.safetensors"})
    with pytest.raises(RecipeError, match="unknown key"):
        Recipe().override({"Global.pretrained_model": "w.safetensors"})
    with pytest.raises(RecipeError, match=r"did you mean 'optimizer\.lr'"):
        Recipe().override({"optimiser.lr": "0.1"})


def test_case_02_weights_have_one_name_and_the_others_are_refused():
    for other in ("checkpoints", "checkpoint", "weights", "pretrained_model", "initial_checkpoint"):
        with pytest.raises(RecipeError, match="pretrained: FILE"):
            Recipe.from_dict({other: "w.safetensors"})


def test_case_03_resuming_is_not_a_key_of_a_recipe():
    with pytest.raises(RecipeError, match="--resume RUN"):
        Recipe.from_dict({"resume": "runs/a"})


def test_case_04_no_section_drops_a_key():
    for text, place in [
        ("optimizer: {name: SGD, momentun: 0.9}", r"optimizer\.momentun: .*did you mean 'momentum'"),
        ("loss: {name: CrossEntropy, smoothing: 0.1}", r"loss\.smoothing: .*did you mean 'label_smoothing'"),
        ("schedule: {name: Cosine, warmup_epoch: 5}", r"schedule\.warmup_epoch: .*'warmup_epochs'"),
        ("model: {name: resnet8, widht: 16}", r"model\.widht: "),
        ("data: {folder: x, splt: [0.8, 0.2]}", r"splt.*did you mean 'split'"),
        ("train: [{name: RandomHorizontalFlip, prob: 1}]", r"train\[0\]\.RandomHorizontalFlip\.prob"),
        ("ema: {decay: 0.9, taw: 5}", r"ema\.taw: .*did you mean 'tau'"),
    ]:
        with pytest.raises(RecipeError, match=place):
            Recipe.from_yaml(text + "\n")


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("optimizer: Momentum", "SGD"),
        ("optimizer: adamw", "AdamW"),
        ("optimizer: RMSProp", "RMSprop"),
        ("loss: CELoss", "CrossEntropy"),
        ("loss: CrossEntropyLoss", "CrossEntropy"),
        ("schedule: CosineAnnealingLR", "Cosine"),
        ("schedule: Piecewise", "MultiStep"),
        ("train: [RandFlipImage]", "RandomHorizontalFlip"),
        ("train: [RandCropImage: {size: 224}]", "RandomResizedCrop"),
        ("eval: [ToTensor]", "not needed"),
        ("model: resnet81", "resnet8"),
    ],
)
def test_names_of_other_tools_are_answered(text, here):
    with pytest.raises(RecipeError, match=here):
        Recipe.from_yaml(text + "\n")


def test_a_random_op_in_evaluation_is_a_type_error():
    with pytest.raises(RandomInEvaluationError, match="draws at random"):
        Recipe(eval=[gl.augment.RandomHorizontalFlip()])
    with pytest.raises(TypeError):
        Recipe.from_yaml("eval: [RandomHorizontalFlip]\n")


@pytest.mark.parametrize(
    "bad",
    [
        {"data": 5},
        {"model": 5},
        {"model": gl.models.ResNet},
        {"optimizer": gl.optim.SGD},
        {"train": [object()]},
        {"schedule": 3},
    ],
)
def test_things_that_are_not_what_they_should_be(bad):
    with pytest.raises(RecipeError):
        Recipe(**bad)


# ---- op ids ----


def test_op_ids_stay_when_an_op_is_removed_or_moved():
    recipe = Recipe(train=["RandomHorizontalFlip", {"RandomCrop": {"size": 8}}, {"CenterCrop": 8}])
    assert [op["id"] for op in recipe.train] == [0, 1, 2]
    fewer = Recipe(train=recipe.to_dict()["train"][1:])
    assert [(op["name"], op["id"]) for op in fewer.train] == [("RandomCrop", 1), ("CenterCrop", 2)]
    more = Recipe(train=[*fewer.to_dict()["train"], "RandomHorizontalFlip"])
    assert [op["id"] for op in more.train] == [1, 2, 3]
    assert [op["id"] for op in build_pipeline(more.train, evaluation=False).config()] == [1, 2, 3]
    with pytest.raises(RecipeError, match="id: must be a whole number"):
        Recipe(train=[{"name": "CenterCrop", "size": 8, "id": -1}])


# ---- overrides ----


def test_overrides_are_typed():
    recipe = Recipe.from_yaml(DESIGN)
    changed = recipe.override(
        {
            "optimizer.lr": "5e-2",
            "epochs": "3",
            "train.RandomResizedCrop.scale": "[0.5, 1]",
            "train.1.p": "0.25",
            "eval.0.size": "128",
            "eval.1.size": "112",
            "ema": "0.99",
            "schedule.warmup_steps": "10",
            "data.split": "[0.5, 0.5]",
            "model.stem": "imagenet",
            "pretrained": "12",
            "freeze": "[layer1, layer2]",
            "recompute": "[layer*.*]",
        }
    )
    assert changed.optimizer == {**recipe.optimizer, "lr": 0.05}
    assert changed.epochs == 3
    assert changed.train[0]["scale"] == [0.5, 1.0]
    assert changed.train[1]["p"] == 0.25
    assert [op["size"] for op in changed.eval] == [128, 112]
    assert changed.ema == {"decay": 0.99, "tau": 2000.0}
    assert changed.schedule["warmup_steps"] == 10
    assert "warmup_epochs" not in changed.schedule
    assert changed.data["split"] == [0.5, 0.5]
    assert changed.model["stem"] == "imagenet"
    assert changed.pretrained == "12", "a path is text, whatever it looks like"
    assert changed.freeze == ["layer1", "layer2"]
    assert changed.recompute == ["layer*.*"]
    assert Recipe(data="digits", recompute="layer1").recompute == ["layer1"]
    assert recipe == Recipe.from_yaml(DESIGN), "the first recipe is unchanged"


def test_a_name_begins_its_section_anew():
    recipe = Recipe.from_yaml(DESIGN)
    assert recipe.override({"optimizer.lr": 0.5, "optimizer.name": "AdamW"}).optimizer["lr"] == 0.5
    assert recipe.override({"optimizer": "AdamW"}).optimizer["lr"] == 1e-3
    assert recipe.override({"optimizer.name": "SGD"}).optimizer == recipe.optimizer, (
        "the same name changes nothing"
    )
    assert recipe.override({"schedule": "{name: Step, step_size_epochs: 30}"}).schedule["gamma"] == 0.1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.lr", "__import__('os').system('true')", "must be a number"),
        ("optimizer.lr", "", "must be a number"),
        ("epochs", "1e2", "whole number"),
        ("epochs.x", "1", "no parts"),
        ("optimizer.lr.x", "1", "one level deep"),
        ("train.9.size", "1", "no such op"),
        ("train.Resize.size", "1", "no such op"),
        ("train.0", "1", "train.OP.KEY"),
        ("mix.0.alpha", "1", "empty"),
        ("optimizer.learning_rate", "1", "here it is called optimizer.lr"),
        ("lr", "1", "here it is called optimizer.lr"),
        ("batch", "1", "here it is called batch_size"),
        ("epochs", "!!int 3", "tags"),
    ],
)
def test_bad_overrides(path, value, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_yaml(DESIGN).override({path: value})


def test_overrides_reach_what_is_not_written_out_yet():
    recipe = Recipe(data="digits").override({"optimizer.lr": "0.05", "data.split": "[0.5, 0.5]"})
    assert recipe.data == {"path": "digits", "split": [0.5, 0.5]}
    full = resolve(recipe)
    assert full.recipe.optimizer["lr"] == 0.05
    assert full.recipe.optimizer["momentum"] == 0.9, "the rest is the default's"
    assert full.n_train == pytest.approx(full.n_val, abs=10)
    with pytest.raises(RecipeError, match="image_size"):
        Recipe(data="digits").override({"train.0.size": "9"})


@pytest.mark.parametrize("change", [{"optimizer.momentum": "0"}, {"optimizer.dampening": "0.1"}])
def test_nesterov_cannot_be_set_beside_what_it_excludes(change):
    with pytest.raises(RecipeError, match=r"optimizer.*nesterov must go with momentum > 0"):
        Recipe.from_yaml(DESIGN).override(change)
    # The default's own nesterov gives way: nobody asked for it.
    full = resolve(Recipe(data="digits").override(change))
    assert full.recipe.optimizer["nesterov"] is False


# ---- defaults ----


def test_small_pictures_are_fed_as_they_are():
    full = resolve(Recipe(), FakeData())
    r = full.recipe
    assert r.model == {"name": "resnet8", "num_classes": 10}
    assert (r.image_size, r.batch_size, r.epochs) == (8, 32, 20)
    assert [op["name"] for op in r.train] == ["RandomCrop", "Normalize"]
    assert [op["name"] for op in r.eval] == ["Normalize"]
    assert full.input_shape == (1, 8, 8)
    assert full.total_steps == 20 * 45 >= 600
    assert r.topk == [1, 5]
    assert r.clean_samples == 359
    assert full.reasons, "each default says why"
    for key in ("model", "image_size", "train", "eval", "batch_size", "epochs", "optimizer", "schedule"):
        assert any(reason.startswith(f"{key}:") for reason in full.reasons), key


def test_large_pictures_are_cropped_at_random():
    full = resolve(Recipe(), FakeData(size=(480, 640), smallest=(30, 40), channels=3, n_train=800, n_val=100))
    r = full.recipe
    assert r.model == {"name": "mobilenet_v2", "width": 0.5, "num_classes": 10}
    assert "model: mobilenet_v2 width=0.5, because pictures are larger than 64 px" in full.reasons
    assert (r.image_size, r.batch_size) == (128, 32)
    assert full.net().input_shape == (3, 128, 128)
    assert [op["name"] for op in r.train] == ["RandomResizedCrop", "Normalize"]
    assert [op["name"] for op in r.eval] == ["Resize", "CenterCrop", "Normalize"]
    assert (r.eval[0]["size"], r.eval[1]["size"]) == (146, 128)
    assert full.total_steps >= 600


def test_a_narrow_net_gets_more_epochs_where_time_is_short():
    """What fits into minutes: half the width, twice the epochs."""
    data = FakeData(size=(480, 640), channels=3, n_train=8000, n_val=100)
    lengths = [
        resolve(Recipe(model={"name": "mobilenet_v2", "width": width}), data).recipe.epochs
        for width in (1.0, 0.5, 0.25)
    ]
    assert lengths == [3, 4, 8]


def test_one_image_size_moves_both_pipelines():
    data = FakeData(size=(480, 640), channels=3)
    r = resolve(Recipe(image_size=96), data).recipe
    assert (r.train[0]["size"], r.eval[0]["size"], r.eval[1]["size"]) == (96, 110, 96)
    tiny = resolve(Recipe(image_size=32), data).recipe
    assert [op["name"] for op in tiny.train] == ["RandomResizedCrop", "Normalize"], "pictures decide"
    small = resolve(Recipe(image_size=[12, 16]), FakeData()).recipe
    assert small.image_size == [12, 16]
    assert small.eval[1]["size"] == [12, 16]
    with pytest.raises(RecipeError, match="image_size: it is 96, but the eval pipeline gives 112"):
        resolve(Recipe(image_size=96, eval=[{"CenterCrop": 112}]), data)


def test_a_written_pipeline_decides_the_size_of_the_other():
    data = FakeData(size=(480, 640), channels=3)
    full = resolve(Recipe(eval=[{"Resize": 256}, {"CenterCrop": 224}]), data)
    assert full.recipe.image_size == 224
    assert full.recipe.train[0]["size"] == 224
    with pytest.raises(RecipeError, match="train pipeline gives 64"):
        resolve(Recipe(eval=[{"CenterCrop": 224}], train=[{"RandomCrop": 64}]), data)


def test_small_pictures_of_several_sizes_get_one():
    full = resolve(Recipe(), FakeData(size=(20, 28), smallest=(16, 16)))
    assert full.recipe.image_size == 28
    assert [op["name"] for op in full.recipe.eval] == ["Resize", "CenterCrop", "Normalize"]


def test_normalize_is_one_for_both():
    mine = gl.augment.Normalize(mean=0.3, std=0.2)
    r = resolve(Recipe(train=[mine]), FakeData()).recipe
    assert r.eval[-1]["mean"] == r.train[-1]["mean"] == 0.3
    with pytest.raises(RecipeError, match="Normalize differs"):
        resolve(Recipe(train=[mine], eval=[gl.augment.Normalize(mean=0.5, std=0.2)]), FakeData())


@pytest.mark.parametrize("data", [FakeData(), FakeData(size=(480, 640), channels=3, n_train=800, n_val=90)])
@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"ema": 0.99, "scale_lr": True},
        {"schedule": lambda t: 1 / (1 + t), "epochs": 2},
        {"schedule": gl.schedule.ReduceOnPlateau()},
        {"image_size": 32, "optimizer": {"lr": 0.3}},
    ],
)
def test_a_resolved_recipe_resolves_to_itself_and_travels(recipe, data):
    full = resolve(Recipe(**recipe), data)
    again = resolve(full.recipe, data)
    assert again.recipe == full.recipe
    assert again.reasons == []
    assert Recipe.from_yaml(full.recipe.to_yaml()) == full.recipe
    assert full.schedule().series(full.steps_per_epoch, full.total_steps, full.base_lr())


def test_linear_scaling_is_applied_once_and_said():
    full = resolve(Recipe(optimizer={"lr": 0.8}, batch_size=64, scale_lr=True), FakeData())
    assert full.base_lr() == pytest.approx(0.2)
    assert any("0.2 = 0.8 × 64 / 256" in reason for reason in full.reasons)
    assert not full.recipe.scale_lr


@pytest.mark.parametrize(
    ("recipe", "data", "message"),
    [
        ({"topk": [1, 20]}, {}, "topk: 20 is more than the 10 classes"),
        ({"monitor": "val/top11"}, {}, "did you mean 'val/top1'"),
        ({"monitor": "dev/top1"}, {}, "no split 'dev'"),
        ({"model": {"name": "resnet8", "num_classes": 3}}, {}, "is 3, but the data have 10"),
        ({"batch_size": 4000, "drop_last": True}, {}, "leaves nothing"),
        ({"schedule": {"name": "Cosine", "warmup_epochs": 9}, "epochs": 3}, {}, "warm-up takes 405 steps"),
        ({}, {"n_val": 0}, "val split is empty"),
        ({}, {"n_train": 0}, "train split is empty"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(recipe, data, message):
    with pytest.raises(RecipeError, match=message):
        resolve(Recipe(**recipe), FakeData(**data))


def test_topk_keeps_what_the_classes_allow():
    assert resolve(Recipe(), FakeData(classes=2)).recipe.topk == [1]
    assert resolve(Recipe(topk=[3]), FakeData()).recipe.topk == [1, 3]
    assert resolve(Recipe(monitor="val/top3"), FakeData()).recipe.topk == [1, 3, 5]


def test_a_recipe_without_data_says_what_to_give():
    with pytest.raises(RecipeError, match="or 'digits'"):
        resolve(Recipe())


def test_a_module_of_one_s_own_becomes_its_graph():
    class Tiny(gl.nn.Module):
        def __init__(self):
            self.conv = gl.nn.Conv2d(1, 4, 3, padding=1)
            self.pool = gl.nn.AdaptiveAvgPool2d(1)
            self.flat = gl.nn.Flatten()
            self.fc = gl.nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.flat(self.pool(self.conv(x))))

    recipe = Recipe(data="digits", model=Tiny(), epochs=1)
    with pytest.raises(RecipeError, match="resolve"):
        recipe.to_dict()
    full = resolve(recipe)
    assert full.recipe.model["graph"]["nodes"]
    stored = Recipe.from_yaml(full.recipe.to_yaml())
    assert stored == full.recipe
    assert resolve(stored).net().digest() == full.net().digest(), (
        "the recipe alone gives the same first weights"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read .*: Expecting"),
        ("[" * 100_000, "cannot read "),
        ("null", "not the graph of a network"),
        ("[1]", "not the graph of a network"),
        ('"x"', "not the graph of a network"),
        ('{"format": 2}', "format must be 1, got 2"),
        ('{"format": 1}', "not the graph of a network: KeyError: 'input'"),
        ('{"format": 1, "nodes": 3, "order": []}', "not the graph of a network"),
    ],
)
def test_a_graph_s_file_that_is_none_is_named(tmp_path, text, said):
    file = tmp_path / "net.json"
    file.write_text(text)
    with pytest.raises(RecipeError, match=f"^model.graph: .*{said}") as error:
        build_net({"graph": str(file)}, (1, 8, 8), 0)
    assert str(file) in str(error.value)


def test_a_graph_comes_from_a_json_file(tmp_path):
    net = gl.models.lenet(num_classes=10, in_channels=1).net((1, 8, 8), seed=0)
    file = tmp_path / "net.json"
    file.write_text(json.dumps(net.document))
    full = resolve(Recipe(data="digits", model={"graph": str(file)}, epochs=1, seed=0))
    assert full.net().digest() == net.digest()
    with pytest.raises(RecipeError, match=r"cannot read .*none\.json: No such file"):
        resolve(Recipe(data="digits", model={"graph": str(tmp_path / "none.json")}, epochs=1)).net()


def test_a_catalogue_model_given_as_an_object_is_stored_by_name():
    recipe = Recipe(data="digits", model=gl.models.create("resnet8", num_classes=10, input_shape=(1, 8, 8)))
    assert recipe.model["name"] == "resnet8"
    full = resolve(recipe)
    assert resolve(Recipe.from_yaml(full.recipe.to_yaml())).net().digest() == full.net().digest()


def test_weights_that_a_module_holds_are_where_the_run_begins():
    module = gl.models.resnet8(num_classes=10, in_channels=1)
    state = {k: v + 1 for k, v in module.net((1, 8, 8), 3).state_dict().items()}
    module.load_state_dict(state)
    full = resolve(Recipe(data="digits", model=module, epochs=1))
    begun = full.net().state_dict()
    assert all(np.array_equal(begun[k], v) for k, v in state.items())
    assert any("weights that the given module holds" in reason for reason in full.reasons)


def test_a_function_as_schedule_is_tabulated_when_the_length_is_known():
    recipe = Recipe(data="digits", schedule=lambda t: math.exp(-t / 100), epochs=1)
    with pytest.raises(RecipeError, match="length of the run"):
        recipe.to_yaml()
    full = resolve(recipe)
    assert len(full.recipe.schedule["values"]) == full.total_steps
    assert isinstance(full.schedule(), schedule.Lambda)


def test_repr_and_html_are_safe():
    recipe = Recipe(data={"folder": "<script>"}, epochs=3)
    assert "epochs=3" in repr(recipe)
    assert "<script>" not in recipe._repr_html_()


def test_sections_know_every_row_of_the_tables():
    for family, owner in (("optimizers", gl.optim), ("losses", gl.losses), ("augments", gl.augment)):
        for name, row in _sections.rows(family).items():
            if any(p["required"] for p in row["params"]):
                continue
            made = getattr(owner, name)()
            assert _sections.canonical_section(family, made, "x") == _sections.canonical_section(
                family, name, "x"
            )
