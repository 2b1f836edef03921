"""Classes made from the core's tables: signatures, documentation, errors, configs, stubs."""

from __future__ import annotations

import copy
import doctest
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gapless import _core, augment, losses, nn, optim
from gapless._registry import Configured, rows

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {"layers": nn, "losses": losses, "optimizers": optim, "augments": augment}
ROWS = [(family, row.name) for family in FAMILIES for row in rows(family).values()]


def class_of(family, name):
    return getattr(FAMILIES[family], name)


def example(family, name):
    return class_of(family, name)(*rows(family)[name].example_args())


def test_tables_have_what_the_first_version_promises():
    names = {family: set(rows(family)) for family in FAMILIES}
    assert {
        "Conv2d",
        "Linear",
        "BatchNorm2d",
        "GroupNorm",
        "ReLU",
        "ReLU6",
        "LeakyReLU",
        "Tanh",
        "Sigmoid",
    } <= names["layers"]
    assert {"SiLU", "Hardswish", "Hardsigmoid", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d"} <= names[
        "layers"
    ]
    assert {"Flatten", "Dropout", "Add", "Mul", "Concat"} <= names["layers"]
    assert "CrossEntropy" in names["losses"]
    assert {"SGD", "Adam", "AdamW"} <= names["optimizers"]
    assert {"Resize", "CenterCrop", "Pad", "RandomCrop", "RandomHorizontalFlip", "Normalize"} <= names[
        "augments"
    ]


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_signature_and_docstring_follow_the_row(family, name):
    cls, row = class_of(family, name), rows(family)[name]
    signature = inspect.signature(cls)
    assert set(signature.parameters) == {p.name for p in row.params}
    for p in row.params:
        expected = inspect.Parameter.empty if p.required else p.default
        assert signature.parameters[p.name].default == expected
        assert f"\n{p.name} : " in cls.__doc__
        assert p.doc, f"{name}.{p.name} has no documentation"
    assert row.doc.strip().splitlines()[0] in cls.__doc__
    assert "Agrees with" in cls.__doc__


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_example_of_the_docstring_runs(family, name):
    cls = class_of(family, name)
    tests = doctest.DocTestFinder(recurse=False).find(cls, name, globs={})
    assert tests
    assert tests[0].examples
    runner = doctest.DocTestRunner()
    assert runner.run(tests[0]).failed == 0


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_config_makes_an_equal_object(family, name):
    made = example(family, name)
    config = made.config()
    assert set(config) == {p.name for p in rows(family)[name].params}
    for again in (
        type(made).from_config(config),
        made.clone(),
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
    ):
        assert again == made
        assert hash(again) == hash(made)
        assert repr(again) == repr(made)
    assert type(made).from_config({"name": name, **config}) == made
    assert eval(repr(made), {name: type(made)}) == made


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_unknown_parameter_is_refused(family, name):
    with pytest.raises(TypeError, match=f"{name}: unknown parameter 'no_such_parameter'"):
        class_of(family, name)(*rows(family)[name].example_args(), no_such_parameter=1)


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_values_outside_the_range_are_refused(family, name):
    row = rows(family)[name]
    args = dict(zip([p.name for p in row.params if p.required], row.example_args(), strict=True))
    for p in row.params:
        wrong = []
        if p.lo is not None:
            wrong.append(p.lo if p.lo_open else p.lo - 1)
        if p.hi is not None:
            wrong.append(p.hi if p.hi_open else p.hi + 1)
        if p.kind in ("int", "pair", "ints"):
            wrong = [int(w) for w in wrong if abs(w) < 2**62]
        if p.kind in ("float", "floats"):
            wrong += [float("nan"), float("inf")]
        for value in wrong if p.kind not in ("bool", "enum") else []:
            with pytest.raises(ValueError, match=f"{name}: {p.name} must be"):
                class_of(family, name)(**{**args, p.name: value})
        if p.kind == "enum":
            with pytest.raises(ValueError, match=f"{name}: {p.name} must be one of"):
                class_of(family, name)(**{**args, p.name: "no such choice"})


@pytest.mark.parametrize(("family", "name"), ROWS)
def test_values_of_the_wrong_kind_are_refused(family, name):
    row = rows(family)[name]
    args = dict(zip([p.name for p in row.params if p.required], row.example_args(), strict=True))
    for p in row.params:
        for value in (object(), {}, *([] if p.optional else [None]), *([] if p.kind == "enum" else ["3"])):
            with pytest.raises(TypeError, match=f"{name}: {p.name} must be"):
                class_of(family, name)(**{**args, p.name: value})


def test_messages_name_the_nearest_parameter():
    with pytest.raises(TypeError, match="Conv2d: unknown parameter 'strides'; did you mean 'stride'"):
        nn.Conv2d(3, 16, 3, strides=2)
    with pytest.raises(
        TypeError,
        match=r"Conv2d: missing 'kernel_size'; write Conv2d\(in_channels, out_channels, kernel_size",
    ):
        nn.Conv2d(3, 16)
    with pytest.raises(TypeError, match="Conv2d: in_channels is given twice"):
        nn.Conv2d(3, 16, 3, in_channels=4)
    with pytest.raises(TypeError, match="Linear: takes at most 3 parameters, got 4"):
        nn.Linear(3, 16, True, 4)
    with pytest.raises(ValueError, match="Conv2d: groups must divide in_channels and out_channels"):
        nn.Conv2d(3, 16, 3, groups=2)


def test_pairs_and_numpy_scalars_are_taken():
    conv = nn.Conv2d(np.int64(3), 16, (3, 5), stride=[1, 2])
    assert conv.kernel_size == (3, 5)
    assert conv.config()["stride"] == [1, 2]
    assert nn.Conv2d(3, 16, (3, 3)) == nn.Conv2d(3, 16, 3)
    with pytest.raises(TypeError, match="kernel_size must be an int or a pair of ints"):
        nn.Conv2d(3, 16, (3, 3, 3))
    with pytest.raises(TypeError, match="out_channels must be an int, got True"):
        nn.Conv2d(3, True, 3)
    assert nn.Conv2d(3, 16, 3, bias=np.bool_(False)).config()["bias"] is False


def test_objects_cannot_be_changed_but_replaced():
    sgd = optim.SGD(lr=0.1, momentum=0.9)
    with pytest.raises(AttributeError, match=r"replace\(lr=…\)"):
        sgd.lr = 0.2
    with pytest.raises(AttributeError, match="cannot be changed"):
        del sgd.lr
    assert sgd.replace(lr=0.2) == optim.SGD(lr=0.2, momentum=0.9)
    assert sgd != optim.SGD(lr=0.2, momentum=0.9)
    assert sgd != optim.Adam(lr=0.1)
    assert sgd.lr == 0.1
    with pytest.raises(AttributeError, match="no attribute 'rate'"):
        sgd.rate  # noqa: B018


@pytest.mark.parametrize("given", [{}, {"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_goes_with_momentum_and_without_dampening(given):
    """As torch.optim.SGD: else nesterov would silently do nothing, or something else."""
    with pytest.raises(ValueError, match="nesterov must go with momentum > 0 and dampening = 0"):
        optim.SGD(lr=0.1, nesterov=True, **given)
    with pytest.raises(ValueError, match="nesterov"):
        optim.SGD(lr=0.1, momentum=0.9, nesterov=True).replace(**{"momentum": 0.0, **given})


def test_torch_spellings_are_understood():
    assert optim.Adam(betas=(0.8, 0.9)) == optim.Adam(beta1=0.8, beta2=0.9)
    assert optim.AdamW().replace(betas=[0.8, 0.9]).beta2 == 0.9
    with pytest.raises(TypeError, match="give betas, or beta1 and beta2"):
        optim.Adam(betas=(0.8, 0.9), beta1=0.8)
    with pytest.raises(TypeError, match="betas must be a pair"):
        optim.Adam(betas=0.9)
    assert nn.ReLU(inplace=True) == nn.ReLU()
    assert optim.Adam().slots[:2] == ("exp_avg", "exp_avg_sq")


def test_from_config_finds_the_class_by_name():
    assert losses.from_config({"name": "CrossEntropy", "label_smoothing": 0.1}).label_smoothing == 0.1
    assert optim.from_config({"name": "SGD", "lr": 0.5}) == optim.SGD(lr=0.5)
    with pytest.raises(ValueError, match="there is no 'Sgd'; there are"):
        optim.from_config({"name": "Sgd"})
    with pytest.raises(ValueError, match="loss: there is no None"):
        losses.from_config({})
    with pytest.raises(ValueError, match="the config is of 'Adam'"):
        optim.SGD.from_config({"name": "Adam"})


def test_class_weights_may_be_many():
    weight = [float(k) for k in range(1, 101)]
    loss = losses.CrossEntropy(weight=weight)
    assert loss.config()["weight"] == weight
    assert loss.clone() == loss


def test_check_config_fills_in_defaults():
    assert _core.check_config("layers", "LeakyReLU", None) == {"negative_slope": 0.01}
    with pytest.raises(TypeError, match="config must be a dict"):
        _core.check_config("layers", "ReLU", [])
    with pytest.raises(ValueError, match="layers: there is no 'Relu'"):
        _core.check_config("layers", "Relu", {})
    with pytest.raises(TypeError, match="parameter names must be str"):
        _core.check_config("layers", "ReLU", {1: 2})


def test_show_config_says_what_runs():
    config = _core.show_config()
    assert config["kernel_set"] in config["kernel_sets"]
    assert "ref" in config["kernel_sets"]
    assert config["threads"] == _core.get_num_threads()
    assert config["version"]
    assert config["compiler"]


def test_stubs_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "csrc" / "tools" / "gen_stubs.py", ROOT / "python", "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_stub_of_the_core_has_every_name():
    text = (ROOT / "python" / "gapless" / "_core.pyi").read_text()
    for name in dir(_core):
        if name.startswith("_"):
            continue
        member = getattr(_core, name)
        assert f"def {name}(" in text or f"class {name}:" in text, name
        if isinstance(member, type):
            body = text.split(f"class {name}:")[1].split("\nclass ")[0]
            for attribute in (a for a in vars(member) if not a.startswith("_")):
                assert f"def {attribute}(" in body, f"{name}.{attribute}"


@pytest.mark.parametrize(
    "module",
    [
        "gapless.optim",
        "gapless.losses",
        "gapless.plan",
        "gapless.nn.init",
        "gapless.nn.containers",
        "gapless.nn.functional",
        "gapless.nn.module",
        "gapless.models",
    ],
)
def test_doctests_of_modules(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_doctest_of_nn():
    assert doctest.testmod(nn).failed == 0


def test_configured_is_the_base_of_all():
    assert all(issubclass(class_of(family, name), Configured) for family, name in ROWS)
