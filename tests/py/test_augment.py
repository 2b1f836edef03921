"""Augmentation classes and pipelines: configs, coordinates of draws, refusals, hostile pictures."""

from __future__ import annotations

import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gapless
from gapless import augment
from gapless.data.pipeline import Pipeline, RandomInEvaluationError
from gapless.errors import RecipeError, ShapeError

TRAIN = [
    augment.RandomResizedCrop(16),
    augment.RandomCrop(16, padding=2),
    augment.RandomHorizontalFlip(),
    augment.Normalize((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
]


def pictures(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*rng.integers(1, 70, 2), 3), dtype=np.uint8) for _ in range(n)]


# ---- the classes ----


def test_classes_hold_their_config() -> None:
    crop = augment.RandomResizedCrop(224, scale=(0.2, 1.0))
    assert repr(crop) == "RandomResizedCrop(224, scale=(0.2, 1.0))"
    assert crop.config()["scale"] == [0.2, 1.0]
    assert augment.from_config({"name": "RandomResizedCrop", **crop.config()}) == crop
    assert augment.RandomCrop.random
    assert not augment.Resize.random
    assert augment.Normalize.last
    assert not augment.Resize.last


@pytest.mark.parametrize("name", sorted(set(augment.__all__) - {"Augment"}))
def test_config_survives_json(name: str) -> None:
    cls = getattr(augment, name)
    op = cls(*cls._row.example_args())
    assert augment.from_config(json.loads(json.dumps({"name": name, **op.config()}))) == op
    assert pickle.loads(pickle.dumps(op)) == op


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: augment.RandomResizedCrop(8, scale=(1.0, 0.5)), "scale"),
        (lambda: augment.RandomResizedCrop(8, scale=(0.5,)), "scale"),
        (lambda: augment.RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio"),
        (lambda: augment.Resize(0), "size"),
        (lambda: augment.Resize((1, 2, 3)), "size"),
        (lambda: augment.Resize((8, 8), max_size=9), "max_size"),
        (lambda: augment.Resize(8, max_size=8), "max_size"),
        (lambda: augment.Resize(8, interpolation="cubic"), "interpolation"),
        (lambda: augment.Pad((1, 2, 3)), "padding"),
        (lambda: augment.Pad(-1), "padding"),
        (lambda: augment.Pad(1, fill=256), "fill"),
        (lambda: augment.RandomHorizontalFlip(1.5), "p"),
        (lambda: augment.Normalize(0.5, 0.0), "std"),
        (lambda: augment.Normalize((0.5, 0.5), 1.0), "mean"),
        (lambda: augment.RandomHorizontalFlip(float("nan")), "p"),
    ],
)
def test_bad_parameters_are_named(make: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make()


# ---- pipelines as values ----


def test_evaluation_refuses_randomness_by_type() -> None:
    for op in TRAIN[:3]:
        with pytest.raises(TypeError, match=f"{op.name} draws at random.*use") as caught:
            Pipeline([op], evaluation=True)
        assert isinstance(caught.value, RandomInEvaluationError)
        assert isinstance(caught.value, RecipeError)
    pipe = Pipeline([augment.Resize(20), augment.CenterCrop(16), TRAIN[3]], evaluation=True)
    assert not pipe.random


def test_numbers_are_kept_and_filled() -> None:
    pipe = Pipeline(
        [{"name": "RandomHorizontalFlip", "id": 5}, "RandomHorizontalFlip", {"RandomCrop": {"size": 4}}]
    )
    assert pipe.ids == (5, 6, 7)
    again = Pipeline.from_config(json.loads(json.dumps(pipe.config())))
    assert again == pipe
    assert again.digest == pipe.digest
    assert hash(again) == hash(pipe)
    assert pickle.loads(pickle.dumps(pipe)) == pipe


def test_digest_follows_what_matters() -> None:
    a = Pipeline([augment.RandomCrop(8), augment.CenterCrop(8)])
    assert a.digest != Pipeline([augment.RandomCrop(9), augment.CenterCrop(8)]).digest
    assert a.digest != Pipeline([{"name": "RandomCrop", "size": 8, "id": 3}, augment.CenterCrop(8)]).digest
    first = {"name": "RandomCrop", "size": 8, "id": 0}
    assert (
        a.digest == Pipeline([first, {"name": "CenterCrop", "size": 8, "id": 9}]).digest
    )  # it draws nothing


@pytest.mark.parametrize(
    "ops",
    [
        [augment.Normalize(0.5, 0.5), augment.CenterCrop(8)],
        [{"name": "CenterCrop", "size": 8, "id": 1}, {"name": "Resize", "size": 8, "id": 1}],
        [{"name": "CenterCorp", "size": 8}],
        [{"name": "CenterCrop", "size": 8, "id": -1}],
        [{"name": "CenterCrop", "size": 8, "id": 2**32}],
        ["CenterCrop"] * 65,
    ],
)
def test_bad_pipelines(ops: list[Any]) -> None:
    with pytest.raises((RecipeError, TypeError)):
        Pipeline(ops)


def test_class_instead_of_object() -> None:
    with pytest.raises(TypeError, match="call it"):
        Pipeline([augment.CenterCrop])  # type: ignore[list-item]


def test_mean_and_std() -> None:
    assert Pipeline(TRAIN).mean == (0.5, 0.4, 0.3)
    assert Pipeline(TRAIN).std == (0.2, 0.25, 0.3)
    assert Pipeline(TRAIN[:2]).mean is None
    assert Pipeline([augment.Normalize(0.5, 0.25)]).std == 0.25


def test_output_shape() -> None:
    assert Pipeline([augment.Resize(256), augment.CenterCrop(224)]).output_shape(375, 500, 3) == (
        224,
        224,
        3,
        True,
    )
    assert Pipeline([augment.Resize(256)]).output_shape(375, 500, 3) == (256, 341, 3, False)
    assert Pipeline([augment.CenterCrop(8), augment.Pad(2)]).output_shape(3, 4, 1) == (12, 12, 1, True)
    assert Pipeline([]).output_shape(3, 4, 1) == (3, 4, 1, False)


# ---- draws ----


def test_draws_are_a_function_of_their_coordinates() -> None:
    pipe = Pipeline(TRAIN[:3])
    x = [np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)] * 30
    ids = np.arange(30)
    first = pipe.run(x, ids, 0, 0)
    np.testing.assert_array_equal(first, pipe.run(x, ids, 0, 0))
    assert len({one.tobytes() for one in first}) == 30  # by sample
    for other in (pipe.run(x, ids, 1, 0), pipe.run(x, ids, 0, 1), pipe.run(x, ids + 30, 0, 0)):
        assert not any((a == b).all() for a, b in zip(first, other, strict=True))
    order = np.random.default_rng(2).permutation(30)
    np.testing.assert_array_equal(pipe.run(x, ids[order], 0, 0), first[order])


def test_removing_an_operation_changes_no_other_draw() -> None:
    whole = Pipeline(TRAIN[:3])
    fewer = Pipeline([op for op in whole.config() if op["name"] != "RandomCrop"])
    x, ids = pictures(40), np.arange(40)
    for a, b in zip(whole.drawn(x, ids, 3, 9), fewer.drawn(x, ids, 3, 9), strict=True):
        assert set(a) == {0, 1, 2}
        assert set(b) == {0, 2}
        assert {k: v for k, v in a.items() if k != 1} == b


def test_threads_and_batches_change_nothing() -> None:
    pipe, x, ids = Pipeline(TRAIN), pictures(23), np.arange(23) * 7
    before = gapless.get_num_threads()
    try:
        gapless.set_num_threads(1)
        raw, fed = pipe.run(x, ids, 4, 2), pipe(x, ids, 4, 2)
        for threads in (2, 3, 7):
            gapless.set_num_threads(threads)
            np.testing.assert_array_equal(pipe.run(x, ids, 4, 2), raw)
            np.testing.assert_array_equal(pipe(x, ids, 4, 2), fed)
    finally:
        gapless.set_num_threads(before)
    for k in range(23):
        np.testing.assert_array_equal(pipe.run(x[k : k + 1], ids[k : k + 1], 4, 2)[0], raw[k])


def test_many_threads_may_share_a_pipeline() -> None:
    pipe, x, ids = Pipeline(TRAIN), pictures(8), np.arange(8)
    expected = pipe.run(x, ids, 0, 0)
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(30):
            if not (pipe.run(x[k : k + 1], ids[k : k + 1], 0, 0)[0] == expected[k]).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_labels_say_what_was_drawn() -> None:
    pipe, x = Pipeline(TRAIN), [np.zeros((40, 50, 3), np.uint8)] * 20
    lines = pipe.labels(x, np.arange(20))
    assert all(line.startswith("crop ") for line in lines)
    assert any(line.endswith("flipped") for line in lines)
    assert not all(line.endswith("flipped") for line in lines)


def test_flip_probability() -> None:
    n = 4000
    x = [np.zeros((1, 2, 1), np.uint8)] * n
    flips = sum(
        ops[0]["flipped"] for ops in Pipeline([augment.RandomHorizontalFlip(0.3)]).drawn(x, np.arange(n))
    )
    assert abs(flips / n - 0.3) < 4 * (0.21 / n) ** 0.5


# ---- what the network is fed ----


def test_call_gives_floats_after_normalize_else_bytes() -> None:
    x, ids = pictures(5), np.arange(5)
    pipe = Pipeline(TRAIN)
    raw, fed = pipe.run(x, ids, 1, 2), pipe(x, ids, 1, 2)
    assert fed.dtype == np.float32
    assert fed.shape == (5, 3, 16, 16)
    mean, std = np.array(pipe.mean).reshape(3, 1, 1), np.array(pipe.std).reshape(3, 1, 1)
    np.testing.assert_allclose(fed, (raw.transpose(0, 3, 1, 2) / 255 - mean) / std, rtol=0, atol=1e-6)
    assert Pipeline(TRAIN[:3])(x, ids).dtype == np.uint8


def test_call_without_ids_only_where_nothing_is_random() -> None:
    assert Pipeline([augment.CenterCrop(8)])(pictures(3)).shape == (3, 8, 8, 3)
    with pytest.raises(ValueError, match="ids"):
        Pipeline([augment.RandomCrop(8)])(pictures(3))


def test_fed_floats_have_the_bits_of_the_first_layer() -> None:
    core = gapless._core
    pipe, x = Pipeline([augment.CenterCrop(9), TRAIN[3]]), pictures(4)
    graph, store = core.Graph((3, 9, 9)), core.Store()
    config = {"in_channels": 3, "out_channels": 3, "kernel_size": 1, "bias": False}
    store.add("conv", "Conv2d", config)
    store.seal()
    store.set("conv.weight", np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    node = graph.add("Conv2d", "conv", 0, config, [0])
    graph.set_outputs([node])
    plan = core.Plan(graph, store, batch=4, precision="precise", mean=pipe.mean, std=pipe.std)
    (fused,) = plan.forward(pipe.run(x, np.arange(4)))
    np.testing.assert_array_equal(fused, pipe(x))


# ---- pictures that are hard ----


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 90),
    w=st.integers(1, 90),
    c=st.sampled_from([1, 3]),
    oh=st.integers(1, 60),
    ow=st.integers(1, 60),
    sample=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 2**32 - 1),
    seed=st.integers(0, 2**64 - 1),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "box", "lanczos"]),
)
def test_any_picture_gives_the_promised_size(
    h: int, w: int, c: int, oh: int, ow: int, sample: int, epoch: int, seed: int, interpolation: str
) -> None:
    image = np.full((h, w, c), 77, np.uint8)
    pipe = Pipeline(
        [
            augment.Resize(7, interpolation=interpolation),
            augment.Pad(1, padding_mode="edge"),
            augment.RandomResizedCrop((oh, ow), interpolation=interpolation),
            augment.RandomCrop((ow, oh), pad_if_needed=True, padding_mode="reflect"),
            augment.CenterCrop((oh, ow)),
        ][(0 if max(h, w) < 8 * min(h, w) else 1) :]
    )
    out = pipe.run([image], [sample], epoch, seed)[0]
    assert out.shape == (oh, ow, c) == pipe.output_shape(h, w, c)[:3]
    assert set(np.unique(out)) <= {0, 77}  # 0: CenterCrop's padding


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (5000, 1, 1), (2, 3, 3)])
def test_extreme_shapes(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 200, np.uint8)
    for op in (augment.RandomResizedCrop(33), augment.Resize((33, 33), interpolation="lanczos")):
        assert (Pipeline([op]).run([image], [0]) == 200).all()


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError),
        (np.zeros((4, 4, 2), np.uint8), ShapeError),
        (np.zeros((4, 4, 4), np.uint8), ShapeError),
        (np.zeros((0, 4, 3), np.uint8), ShapeError),
        (np.zeros((4, 4, 3, 1), np.uint8), ShapeError),
        (np.zeros(4, np.uint8), ShapeError),
        ("a.jpg", TypeError),
        (None, TypeError),
    ],
)
def test_bad_pictures(image: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Pipeline([augment.CenterCrop(4)]).run([image], [0])


def test_errors_name_the_sample() -> None:
    big, small = np.zeros((40, 40, 3), np.uint8), np.zeros((9, 40, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"sample 31.*RandomCrop.*pad_if_needed"):
        Pipeline([augment.RandomCrop(20)]).run([big, small, big], [30, 31, 32])
    with pytest.raises(ShapeError, match=r"sample 31.*one size"):
        Pipeline([augment.Resize(20)]).run([big, small], [30, 31])
    with pytest.raises(ShapeError, match=r"sample 31.*channels"):
        Pipeline([augment.CenterCrop(4)]).run([big, small[..., :1]], [30, 31])
    with pytest.raises(ShapeError, match=r"sample 5.*mean.*1 channels"):
        Pipeline([TRAIN[3]])([small[..., :1]], [5])
    with pytest.raises(ShapeError, match=r"sample 8.*at most"):
        Pipeline([augment.Resize(60000)]).run([np.zeros((1, 4000, 1), np.uint8)], [8])


@pytest.mark.parametrize(
    ("ids", "epoch", "seed"), [([-1], 0, 0), ([2**32], 0, 0), ([0], -1, 0), ([0], 2**32, 0), ([0, 1], 0, 0)]
)
def test_bad_coordinates(ids: list[int], epoch: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"id|epoch"):
        Pipeline([augment.CenterCrop(4)]).run([np.zeros((4, 4, 3), np.uint8)], ids, epoch, seed)


def test_negative_seed_is_refused() -> None:
    with pytest.raises((ValueError, OverflowError)):
        Pipeline([augment.CenterCrop(4)]).run([np.zeros((4, 4, 3), np.uint8)], [0], 0, -1)


def test_views_and_out() -> None:
    base = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    view, pipe = base[::-1, ::2], Pipeline([augment.CenterCrop(8)])
    expected = pipe.run([np.ascontiguousarray(view)], [0])
    np.testing.assert_array_equal(pipe.run([view], [0]), expected)
    out = np.empty((1, 8, 8, 3), np.uint8)
    assert pipe.run([view], [0], out=out) is out
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(ShapeError, match="out"):
        pipe.run([view], [0], out=np.empty((1, 8, 9, 3), np.uint8))
    gray = pipe.run([base[..., 0]], [0])
    np.testing.assert_array_equal(gray, pipe.run([base[..., :1]], [0]))


def test_allocation_failures_leave_nothing_behind() -> None:
    core = gapless._core
    x, ids = pictures(6), np.arange(6)
    for k in range(1, 200):
        live = core.memory_counters()[0]
        core.memory_fail_after(k)
        try:
            pipe = Pipeline(TRAIN)
            pipe.run(x, ids)
        except MemoryError:
            pass
        else:
            break
        finally:
            core.memory_fail_after(0)
            pipe = None
        assert core.memory_counters()[0] <= live
    assert 3 < k < 199
