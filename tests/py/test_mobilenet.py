"""MobileNets: published sizes, stems, first values, gates, heads for other classes, and that they learn.

Names, shapes and channels at every width are compared with torchvision's in tests/parity/test_catalogue.py.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import small
from picture_set import picture_set
from safetensors.numpy import save_file

import gapless as gl
from gapless import cli, models, nn
from gapless.errors import RecipeError

NAMES = ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"]
HEAD = {
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "mobilenet_v3_large": "classifier.3",
}


def nodes(net, layer, shape=(3, 32, 32)):
    return [node for node in net.trace(shape)["nodes"] if node["layer"] == layer]


# ---- sizes ----


@pytest.mark.parametrize(
    ("name", "width", "params", "macs"),
    [
        ("mobilenet_v2", 1.0, 3_504_872, 300_774_272),
        ("mobilenet_v2", 0.25, 1_519_112, 37_201_312),
        ("mobilenet_v2", 1.4, 6_108_776, 582_195_824),
        ("mobilenet_v3_small", 1.0, 2_542_856, 56_510_400),
        ("mobilenet_v3_large", 1.0, 5_483_032, 216_589_760),
    ],
)
def test_parameters_and_multiply_accumulates_are_the_published_ones(name, width, params, macs):
    """torchvision's weights pages say 3504872, 2542856, 5483032 parameters, and 0.30, 0.06, 0.22 GMACs."""
    summary = models.create(name, width=width).summary((3, 224, 224))
    assert (summary.params, summary.macs) == (params, macs)


@pytest.mark.parametrize("name", NAMES)
def test_the_stem_of_small_pictures_leaves_two_halvings_out(name):
    def halvings(size, **arguments):
        net = models.create(name, width=0.25, num_classes=3, **arguments)
        return sum(node["config"]["stride"] in (2, [2, 2]) for node in nodes(net, "Conv2d", (3, *size)))

    assert halvings((64, 64)) == halvings((224, 224), stem="cifar") == 3
    assert halvings((64, 65)) == halvings((32, 32), stem="imagenet") == 5
    assert halvings((32, 32), image_size=65) == 5
    rows = {r.name: r.shape for r in models.create(name, num_classes=3).summary((3, 32, 32)).rows}
    assert rows["avgpool"][1:] == (1, 1)
    assert [shape for layer, shape in rows.items() if layer.startswith("features")][-1][1:] == (4, 4)
    small, large = (models.create(name, stem=stem, width=0.25) for stem in ("cifar", "imagenet"))
    assert {k: v.shape for k, v in small.state_dict().items()} == {
        k: v.shape for k, v in large.state_dict().items()
    }


def test_any_size_runs_down_to_one_pixel():
    for name in NAMES:
        for size in ((1, 1), (5, 3), (33, 65)):
            net = models.create(name, width=0.1, num_classes=2, in_channels=1)
            x = np.random.default_rng(0).standard_normal((2, 1, *size), dtype=np.float32)
            assert np.isfinite(net(x)).all(), (name, size)


# ---- first values ----


@pytest.mark.parametrize("name", NAMES)
def test_first_values_are_torchvisions(name):
    net = models.create(name, num_classes=10)
    state = net.net((3, 32, 32), seed=0).state_dict()
    for key, value in state.items():
        if key.endswith(("bias", "running_mean")):
            assert not np.any(value), key
        elif value.ndim == 1:
            assert np.all(value == 1), key
        else:
            std = 0.01 if value.ndim == 2 else np.sqrt(2 / (value.shape[0] * value.shape[2] * value.shape[3]))
            assert value.std() == pytest.approx(std, rel=5 / np.sqrt(value.size)), key
            assert abs(value.mean()) <= 5 * std / np.sqrt(value.size), key
    norm = {"eps": 1e-5, "momentum": 0.1} if name == "mobilenet_v2" else {"eps": 1e-3, "momentum": 0.01}
    for node in nodes(net, "BatchNorm2d"):
        assert {k: node["config"][k] for k in norm} == pytest.approx(norm)
    assert [node["config"]["p"] for node in nodes(net, "Dropout")] == pytest.approx([0.2])
    other = models.create(name, dropout=0.5)
    assert [node["config"]["p"] for node in nodes(other, "Dropout")] == [0.5]


# ---- the gate ----


def test_squeeze_excitation_is_its_formula():
    gate = models.SqueezeExcitation(6, 4)
    rng = np.random.default_rng(0)
    w = {k: rng.standard_normal(v.shape).astype(np.float32) for k, v in gate.state_dict().items()}
    gate.load_state_dict(w)
    x = rng.standard_normal((3, 6, 5, 7)).astype(np.float32)
    hidden = np.maximum(x.mean((2, 3)) @ w["fc1.weight"][:, :, 0, 0].T + w["fc1.bias"], 0)
    scale = np.clip((hidden @ w["fc2.weight"][:, :, 0, 0].T + w["fc2.bias"]) / 6 + 0.5, 0, 1)
    assert scale.min() > 0 or scale.max() < 1, "neither all open nor all shut"
    np.testing.assert_allclose(gate(x), x * scale[:, :, None, None], rtol=1e-5, atol=1e-6)
    with_sigmoid = models.SqueezeExcitation(6, 4, gate=nn.Sigmoid)
    assert nodes(with_sigmoid, "Sigmoid", (6, 4, 4))


# ---- arguments ----


@pytest.mark.parametrize(
    ("width", "error", "message"),
    [
        (0, ValueError, r"width must be > 0 and <= 16, got 0"),
        (-0.5, ValueError, r"width must be > 0 and <= 16, got -0.5"),
        (float("nan"), ValueError, r"width must be > 0 and <= 16, got nan"),
        (1000, ValueError, r"width must be > 0 and <= 16, got 1000"),
        ("0.5", TypeError, r"width must be a number, got '0.5'"),
        (True, TypeError, r"width must be a number, got True"),
        (None, TypeError, r"width must be a number, got None"),
    ],
)
def test_a_wrong_width_is_refused_at_once(width, error, message):
    for name in NAMES:
        with pytest.raises(error, match=message):
            models.create(name, width=width)


def test_width_in_yaml_and_on_the_command_line(tmp_path, capsys):
    recipe = gl.Recipe.from_yaml("data: digits\nmodel: {name: mobilenet_v2, width: 0.25}\n")
    assert recipe.model == {"name": "mobilenet_v2", "width": 0.25}
    assert gl.Recipe().override({"model.name": "mobilenet_v2", "model.width": "0.25"}).model == recipe.model
    for width, said in {"0": "got 0", "-1": "got -1", "wide": "must be a number, got 'wide'"}.items():
        with pytest.raises(RecipeError, match=f"model: mobilenet_v2: width .*{said}"):
            gl.Recipe.from_yaml(f"data: digits\nmodel: {{name: mobilenet_v2, width: {width}}}\n")
        words = ["train", "digits", "--model", "mobilenet_v2", "-o", f"model.width={width}"]
        assert cli.main([*words, "--out", str(tmp_path / "none")]) == 2
        error = capsys.readouterr().err
        assert "model: mobilenet_v2: width must be" in error
        assert said in error
    assert not (tmp_path / "none").exists()
    with pytest.raises(RecipeError, match=r"model\.widht: .*did you mean 'width'"):
        gl.Recipe(model={"name": "mobilenet_v3_small", "widht": 0.5})


def test_a_run_by_the_command_line_is_reproduced(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "digits", "--model", "mobilenet_v2", "-o", "model.width=0.25", "-o", "clean_samples=0"]
    assert cli.main([*words, "--epochs", "1", "--out", str(out), "--quiet"]) == 0
    assert gl.Recipe.from_yaml((out / "recipe.yaml").read_text()).model["width"] == 0.25
    capsys.readouterr()
    assert cli.main(["eval", str(out / "best.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reproduced"] == "exact"


@pytest.mark.slow
def test_a_bare_folder_of_large_pictures_trains_at_half_width(tmp_path, capsys):
    """Nothing said but the folder and, to be quick, the epochs."""
    folder = picture_set(tmp_path / "pictures", ("stripes", "dots"), 24)
    out = tmp_path / "run"
    with small.no_pictures():
        assert cli.main(["train", str(folder), "--epochs", "1", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr())
    assert "mobilenet_v2 width=0.5, because pictures are larger than 64 px" in said
    recipe = gl.Recipe.from_yaml((out / "recipe.yaml").read_text())
    assert recipe.model == {"name": "mobilenet_v2", "width": 0.5, "num_classes": 2}
    assert (recipe.image_size, recipe.batch_size) == (128, 32)
    assert [op["name"] for op in recipe.train] == ["RandomResizedCrop", "Normalize"]
    assert gl.evaluate(out).reproduced == "exact"


# ---- fine-tuning ----


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_come_in_with_a_new_head(tmp_path, name):
    """Of an ImageNet stem, as torchvision's files are, into the net for small pictures."""
    file = tmp_path / "w.safetensors"
    given = models.create(name, width=0.25, num_classes=7).net((3, 96, 96), seed=1).state_dict()
    counters = {"features.0.1.num_batches_tracked": np.array(5)}
    save_file({**{k: np.ascontiguousarray(v) for k, v in given.items()}, **counters}, str(file))
    net = models.create(name, width=0.25, num_classes=3).net((3, 32, 32), seed=2)
    head = net.state_dict()[f"{HEAD[name]}.weight"]
    report = nn.load_pretrained(net, file)
    assert report.reshaped == [f"{HEAD[name]}.weight", f"{HEAD[name]}.bias"]
    assert not report.missing
    assert not report.unexpected
    state = net.state_dict()
    assert np.array_equal(state[f"{HEAD[name]}.weight"], head)
    for key in report.matched:
        assert np.array_equal(state[key], given[key]), key
    wider = models.create(name, width=0.5, num_classes=3).net((3, 32, 32), seed=2)
    with pytest.raises(gl.errors.CheckpointError, match=r"has shape"):
        nn.load_pretrained(wider, file)


@pytest.mark.parametrize("name", NAMES)
def test_freezing_by_name(name):
    net = models.create(name, width=0.25, num_classes=3).net((3, 32, 32), seed=0)
    frozen = net.freeze(["features"])
    left = {e["name"] for e in net.entries() if e["kind"] == "param" and e["name"] not in frozen}
    assert left
    assert all(k.startswith("classifier.") for k in left)
    one = models.create(name, width=0.25, num_classes=3).net((3, 32, 32), seed=0)
    taken = one.freeze(["features.1", "features.0.0"])
    assert "features.0.0.weight" in taken
    assert not any(k.startswith(("features.10", "features.0.1")) for k in taken), "whole names"


def test_a_frozen_net_trains_its_head_alone():
    net = models.mobilenet_v3_small(num_classes=3, width=0.25).net((3, 16, 16), seed=0)
    net.freeze(["features"])
    before = net.state_dict()
    plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1), (4, 3, 16, 16))
    plan.step(np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32), [0, 1, 2, 0])
    moved = {k for k, v in net.state_dict().items() if not np.array_equal(v, before[k])}
    assert moved
    assert all(k.startswith("classifier.") for k in moved), moved


# ---- learning ----


def squares(n, size, seed):
    """Pictures of noise with a bright square in one of four corners: the class."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.3, (n, 3, size, size)).astype(np.float32)
    y = rng.integers(0, 4, n)
    half = size // 2
    for k, label in enumerate(y):
        top, left = divmod(int(label), 2)
        x[k, :, top * half : (top + 1) * half, left * half : (left + 1) * half] += 1
    return x, y


@pytest.mark.parametrize(
    ("name", "width", "size"), [("mobilenet_v2", 0.25, 32), ("mobilenet_v3_small", 1.0, 72)]
)
def test_it_learns(name, width, size):
    x, y = squares(128, size, seed=0)
    net = models.create(name, width=width, num_classes=4).net((3, size, size), seed=0)
    plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.05, momentum=0.9), (32, 3, size, size))
    losses = [
        float(plan.step(x[k : k + 32], y[k : k + 32], epoch=epoch, step=4 * epoch + k // 32).loss)
        for epoch in range(6)
        for k in range(0, 128, 32)
    ]
    assert losses[0] == pytest.approx(np.log(4), abs=0.1), "a head of small weights knows nothing"
    assert np.mean(losses[-4:]) < 0.5 * losses[0], losses
