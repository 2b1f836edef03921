"""The catalogue: names, shapes, stems, heads, initial values."""

from __future__ import annotations

import numpy as np
import pytest

import gapless as gl
from gapless import models, nn


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_catalogue_lists_and_creates():
    mobilenets = ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]
    assert models.list_models() == ["lenet", *mobilenets, "resnet18", "resnet50", "resnet8"]
    assert models.list_models("resnet*") == ["resnet18", "resnet50", "resnet8"]
    for name in models.list_models():
        net = models.create(name, num_classes=7, input_shape=(3, 32, 32))
        assert net.catalogue["name"] == name
        assert net.net((3, 32, 32), seed=None).num_classes == 7
        arguments = {k: v for k, v in net.catalogue.items() if k != "name"}
        again = models.create(name, **arguments)
        assert again.trace((3, 32, 32)) == net.trace((3, 32, 32))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("resnet19", {}, ValueError, "there is no 'resnet19'; did you mean 'resnet18'? There are lenet"),
        ("vgg", {}, ValueError, "there is no 'vgg'; there are lenet"),
        ("resnet18", {"width": 2}, TypeError, "resnet18: unknown argument 'width'"),
        ("resnet18", {"stems": "cifar"}, TypeError, "did you mean 'stem'"),
        ("resnet18", {"stem": "small"}, ValueError, "stem must be one of 'auto', 'cifar', 'imagenet'"),
        (
            "resnet18",
            {"input_shape": (3, 32, 32), "in_channels": 1},
            ValueError,
            "in_channels is 1, but input_shape has 3",
        ),
        ("resnet18", {"input_shape": (32, 32)}, ValueError, r"input_shape must be \(C, H, W\)"),
        ("lenet", {"num_classes": 0, "image_size": 8}, ValueError, "Linear: out_features must be"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, error, message):
    with pytest.raises(error, match=message.replace("?", r"\?")):
        models.create(name, **arguments).state_dict()


def test_lenet_is_the_recipes():
    net = models.lenet(image_size=28)
    shapes = {k: v.shape for k, v in net.state_dict().items()}
    assert shapes == {
        "conv1.weight": (32, 1, 3, 3), "conv1.bias": (32,), "conv2.weight": (64, 32, 3, 3), "conv2.bias": (64,),  # noqa: E501
        "fc1.weight": (128, 64 * 7 * 7), "fc1.bias": (128,), "fc2.weight": (10, 128), "fc2.bias": (10,),
    }  # fmt: skip
    assert "bn1.running_mean" in models.lenet(image_size=28, norm=True).state_dict()
    assert models.lenet()(np.zeros((2, 1, 20, 12), np.float32)).shape == (2, 10)
    with pytest.raises(ValueError, match="depends on the size of the images: give image_size=28"):
        models.lenet().state_dict()
    with pytest.raises(ValueError, match="at least 4 x 4 pixels"):
        models.lenet(image_size=3).state_dict()


def test_resnets_have_torchvisions_number_of_parameters():
    assert count(models.resnet18()) == 11_689_512
    assert count(models.resnet50()) == 25_557_032
    assert count(models.resnet8(stem="cifar")) == 78_042


def test_stem_follows_the_size():
    def stem(**kwargs):
        return models.resnet8(**kwargs).trace((3, 64, 64))["nodes"][0]["config"]["kernel_size"]

    assert stem(image_size=64) == 3
    assert stem(image_size=65) == 7
    assert stem(image_size=(32, 96)) == 7
    assert stem(stem="imagenet") == 7
    assert stem(stem="cifar") == 3
    assert stem() == 3
    assert models.resnet8().trace((3, 65, 65))["nodes"][0]["config"]["kernel_size"] == 7
    assert models.resnet8().state_dict()["conv1.weight"].shape == (
        16,
        3,
        7,
        7,
    )  # torchvision's, when nothing is known


def test_stem_inside_another_module_follows_what_reaches_it():
    class Wrapped(nn.Module):
        def __init__(self):
            self.backbone = models.resnet8(num_classes=4)

        def forward(self, x):
            return self.backbone(nn.MaxPool2d(2)(x))

    net = Wrapped().net((3, 100, 100), seed=0)
    assert net.state_dict()["backbone.conv1.weight"].shape == (16, 3, 3, 3)


def test_shapes_through_resnet18():
    cifar = {r.name: r.shape for r in models.resnet18(num_classes=10).summary((3, 32, 32)).rows}
    assert cifar["layer1.1.conv2"] == (64, 32, 32)
    assert cifar["layer4.0.downsample.0"] == (512, 4, 4)
    assert cifar["fc"] == (10,)
    summary = models.resnet18().summary((3, 224, 224))
    assert {r.name: r.shape for r in summary.rows}["layer4.1.conv2"] == (512, 7, 7)
    assert summary.macs == 1_814_073_344  # as fvcore and torchvision's documentation count it


def test_initial_values_are_torchvisions():
    state = models.resnet18(num_classes=10, stem="cifar").net((3, 32, 32), seed=0).state_dict()
    w = state["layer2.0.conv2.weight"]
    assert w.std() == pytest.approx(np.sqrt(2 / (128 * 9)), rel=0.01)
    assert abs(w.mean()) < 1e-3
    assert np.all(state["layer2.0.bn2.weight"] == 1)
    assert not np.any(state["layer2.0.bn2.bias"])
    assert np.abs(state["fc.weight"]).max() <= 1 / np.sqrt(512)
    zero = models.resnet50(stem="cifar", zero_init_residual=True).net((3, 32, 32), seed=0).state_dict()
    assert not np.any(zero["layer3.2.bn3.weight"])
    assert np.all(zero["layer3.2.bn2.weight"] == 1)


def test_every_model_takes_a_step():
    for name in models.list_models():
        net = models.create(name, num_classes=3, input_shape=(3, 16, 16))
        plan = gl.compile(net, gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.01), (4, 3, 16, 16))
        x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
        assert np.isfinite(plan.step(x, [0, 1, 2, 0]).loss)
