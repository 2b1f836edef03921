"""Fusion, from outside: GAPLESS_FUSE leaves rules out, and nothing but the rounding changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gapless as gl

RULES = [
    *("dead", "join", "act", "bn_sums", "bn_apply", "gate", "join_back", "bn_fixed", "pool_act", "pixels"),
    *("inplace", "share"),
]
MODELS = ["lenet", "resnet8", "resnet18"]

# Three steps and an evaluation of each model, and what its two plans are made of.
SCRIPT = """
import hashlib, json, sys
import numpy as np
import gapless as gl

def case(name):
    channels, side, batch = {"lenet": (1, 16, 8), "resnet8": (3, 32, 6), "resnet18": (3, 32, 4)}[name]
    options = {"norm": True, "in_channels": 1, "image_size": 16} if name == "lenet" else {}
    net = gl.models.create(name, num_classes=10, **options).net((channels, side, side), seed=3)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3 * batch, channels, side, side), dtype=np.float32)
    y = rng.integers(0, 10, 3 * batch)
    shape, sgd = (batch, *x.shape[1:]), gl.optim.SGD(lr=0.0005)
    plan = gl.compile(net, gl.losses.CrossEntropy(), sgd, shape, precision="precise")
    losses = []
    for k in range(3):
        n = batch - (k == 2)  # the last is short
        losses += plan.step(x[k * batch : k * batch + n], y[k * batch : k * batch + n]).losses.tolist()
    evaluation = gl.compile(net, None, None, shape, precision="precise")
    weights = [net.state_dict()[k].tobytes() for k in sorted(net.state_dict())]
    return {
        "losses": losses,
        "weights": hashlib.sha256(b"".join(weights)).hexdigest(),
        "logits": evaluation.forward(x[:batch]).ravel().tolist(),
        "training": [[r["op"], r["layer"], r["choice"]] for r in plan.describe()],
        "evaluation": [[r["op"], r["layer"], r["choice"]] for r in evaluation.describe()],
    }

print(json.dumps({name: case(name) for name in sys.argv[1:]}))
"""


def run(*models, rules=None):
    environment = {k: v for k, v in os.environ.items() if k != "GAPLESS_FUSE"}
    if rules is not None:
        environment["GAPLESS_FUSE"] = rules
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *models], env=environment, capture_output=True, text=True, timeout=300
    )


def results(*models, rules=None):
    done = run(*models, rules=rules)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plain():
    return results(*MODELS, rules="-all")


def assert_agree(got, want):
    for name, one in got.items():
        for what in ("losses", "logits"):
            a, b = np.array(one[what]), np.array(want[name][what])
            assert np.isfinite(a).all()
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max(), (name, what, np.abs(a - b).max())


def test_fused_networks_learn_as_plain_ones(plain):
    fused = results(*MODELS)
    assert_agree(fused, plain)
    for name in MODELS:
        # What a step computes first is the same bits: nothing in forward is rounded elsewhere.
        assert fused[name]["losses"][:4] == plain[name]["losses"][:4]


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_each_rule_may_be_left_out(plain, rule):
    assert_agree(results("lenet", "resnet8", rules=f"-{rule}"), plain)


def test_masks_on_store_keep_every_bit():
    """The sums are the same ones, made elsewhere: three steps leave the same weights."""
    with_rule, without = results(*MODELS), results(*MODELS, rules="-join_back")
    for name in MODELS:
        for what in ("losses", "weights", "logits"):
            assert with_rule[name][what] == without[name][what], (name, what)
        masks = [r for r in with_rule[name]["training"] if "masks its input's gradient" in r[2]]
        # Of every block but the last, and of the stem, which no pool follows at 32 pixels.
        assert len(masks) == {"lenet": 0, "resnet8": 3, "resnet18": 8}[name]
        assert sum("gradient comes masked" in r[2] for r in with_rule[name]["training"]) == len(masks)
        assert not any("mask" in r[2] for r in without[name]["training"])


def ops(rows):
    return [op for op, _, _ in rows]


def test_the_plan_says_what_was_fused(plain):
    fused = results("resnet8")["resnet8"]
    training, evaluation = fused["training"], fused["evaluation"]
    convolutions = [choice for op, _, choice in training if op == "conv"]
    assert len(convolutions) == 9  # stem, three blocks of two, two shortcuts
    assert all("sums on store" in choice for choice in convolutions)
    assert sum("norm + act on load" in choice for choice in convolutions) == 3  # the second of each block
    assert "moments" not in ops(training)
    assert "act" not in ops(training)
    assert "add" not in ops(training)
    joins = [choice for op, _, choice in training if op == "affine"]
    assert sum("residual" in choice for choice in joins) == 3
    assert sum("residual with its own" in choice for choice in joins) == 2
    assert all("norm + act on store" in choice for op, _, choice in evaluation if op == "conv")
    assert not {"affine", "act", "add"} & set(ops(evaluation))
    bare = plain["resnet8"]
    assert not any(
        "load" in choice or "store" in choice for _, _, choice in bare["training"] + bare["evaluation"]
    )
    assert {"moments", "norm", "affine", "act", "add"} <= set(ops(bare["training"]))
    assert {"affine", "act", "add"} <= set(ops(bare["evaluation"]))


def test_evaluation_bits_are_those_of_the_plain_network(plain):
    """Weights from the same file: then even the last bit is the same."""
    net = gl.models.resnet8(num_classes=10).net((3, 32, 32), seed=5)
    x = np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)
    code = (
        "import sys, numpy as np, gapless as gl\n"
        "net = gl.models.resnet8(num_classes=10).net((3, 32, 32), seed=5)\n"
        "x = np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)\n"
        "sys.stdout.buffer.write(gl.compile(net, None, None, x.shape).forward(x).tobytes())\n"
    )
    environment = {**os.environ, "GAPLESS_FUSE": "-all"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert gl.compile(net, None, None, x.shape).forward(x).tobytes() == done.stdout


@pytest.mark.parametrize("rules", ["-bogus", "join", "-join,-bn", "-"])
def test_a_wrong_rule_is_refused_with_the_list_of_rules(rules):
    done = run("lenet", rules=rules)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert "GAPLESS_FUSE" in message
    assert f"'{rules.split(',')[-1]}'" in message
    for rule in [*RULES, "all"]:
        assert f"-{rule}" in message


def test_evaluation_does_not_depend_on_the_batch_or_the_place_in_it():
    net = gl.models.resnet8(num_classes=10).net((3, 20, 20), seed=5)
    x = np.random.default_rng(0).standard_normal((64, 3, 20, 20), dtype=np.float32)
    whole = gl.compile(net, None, None, x.shape).forward(x)
    assert np.isfinite(whole).all()
    assert np.ptp(whole) > 0
    for batch in (1, 2, 3, 7, 16, 33):
        plan = gl.compile(net, None, None, (batch, *x.shape[1:]))
        parts = [plan.forward(x[k : k + batch]) for k in range(0, 64, batch)]
        np.testing.assert_array_equal(np.concatenate(parts), whole, err_msg=f"batches of {batch}")
    order = np.random.default_rng(1).permutation(64)
    np.testing.assert_array_equal(gl.compile(net, None, None, x.shape).forward(x[order]), whole[order])
