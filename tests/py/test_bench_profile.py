"""Where a plan's time goes: `Plan.profile`."""

import time

import numpy as np
import pytest

import gapless as gl

TIMES = ("forward_seconds", "backward_seconds", "derive_seconds")


def made(loss=True):
    net = gl.models.lenet(num_classes=4, image_size=16)
    arguments = (gl.losses.CrossEntropy(), gl.optim.SGD(lr=0.1)) if loss else (None, None)
    return gl.compile(net, *arguments, (8, 1, 16, 16))


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 1, 16, 16), dtype=np.float32), np.arange(8) % 4


def test_profile_rows_follow_describe_then_loss_and_update():
    plan = made()
    rows = plan.profile()
    ops = [(row["op"], row["layer"], row["choice"]) for row in plan.describe()]
    assert [(r["op"], r["layer"], r["choice"]) for r in rows] == [*ops, ("loss", "", ""), ("update", "", "")]
    assert all(row[key] == 0 for row in rows for key in TIMES)


def test_profile_accounts_for_the_step_and_begins_anew():
    plan = made()
    x, y = batch()
    plan.step(x, y)
    plan.profile()
    began = time.perf_counter()
    for _ in range(3):
        plan.step(x, y)
    wall = time.perf_counter() - began
    rows = plan.profile()
    spent = sum(row[key] for row in rows for key in TIMES)
    assert 0 < spent <= wall
    conv = [row for row in rows if row["op"] == "conv"]
    assert conv
    assert all(row["forward_seconds"] > 0 and row["backward_seconds"] > 0 for row in conv)
    assert rows[-1]["forward_seconds"] > 0  # the update
    assert all(row[key] == 0 for row in plan.profile() for key in TIMES)


def test_profile_of_evaluation_has_no_backward():
    plan = made(loss=False)
    plan.profile()
    plan.forward(batch()[0])
    rows = plan.profile()
    assert sum(row["forward_seconds"] for row in rows) > 0
    assert all(row["backward_seconds"] == 0 for row in rows)


def test_profile_changes_no_bit():
    x, y = batch()
    plain, timed = made(), made()
    timed.profile()
    assert [plain.step(x, y).loss for _ in range(3)] == [timed.step(x, y).loss for _ in range(3)]


def test_profile_survives_a_failed_allocation():
    plan = made()
    gl._core.memory_fail_after(1)
    try:
        with pytest.raises(MemoryError):
            plan.profile()
    finally:
        gl._core.memory_fail_after(0)
    assert plan.profile()
