"""Records come from counts: ties, k, intervals and JSON say exactly what they mean."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from gapless import metrics
from gapless.errors import CheckpointError, RecipeError
from gapless.record import EvalRecord, Samples


def samples(n: int = 50, k: int = 7, seed: int = 0) -> Samples:
    r = np.random.default_rng(seed)
    logits = r.integers(-3, 4, (n, k)).astype(np.float32)  # many ties
    labels = r.integers(0, k, n)
    return Samples(
        ids=[f"s{i}" for i in range(n)],
        labels=labels,
        predictions=logits.argmax(1).astype(np.int32),  # NumPy's argmax gives the first among equals
        loss=r.exponential(size=n).astype(np.float32),
        rank=metrics.ranks(logits, labels),
        logits=logits,
    )


def record(s: Samples, **change: Any) -> EvalRecord:
    rest: dict[str, Any] = {
        "split": "val",
        "classes": [f"c{i}" for i in range(s.logits.shape[1])],
        "topk": [1, 5],
        "n_listed": len(s.ids),
        "n_unreadable": 0,
        "digests": {"weights": "w" * 64, "data": "d" * 64, "pipeline": "p" * 64},
        "weights_kind": "raw",
        "mode": "fast",
        "kernel_set": "avx2",
        "versions": {"gapless": "0"},
    }
    return EvalRecord.of(s, **{**rest, **change})


def test_ties_go_to_the_lower_index() -> None:
    logits = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], np.float32)
    assert metrics.ranks(logits, np.array([0, 1, 2, 0])).tolist() == [0, 1, 2, 0]


def test_ranks_agree_with_a_stable_sort() -> None:
    s = samples(400, 9)
    order = np.argsort(-s.logits, axis=1, kind="stable")
    assert np.array_equal(np.argmax(order == s.labels[:, None], axis=1), s.rank)


def test_top_k_beyond_the_classes_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"from 1 to the number of classes \(2\), got 5"):
        record(samples(10, 2))
    with pytest.raises(RecipeError, match="got 0"):
        metrics.check_topk([0], 3)
    r = record(samples(10, 5))
    assert r.topk(5) == 1.0


def test_wilson_against_the_closed_form_and_its_edges() -> None:
    z = 1.959963984540054
    for n in (1, 7, 100, 10_000):
        for c in {0, 1, n // 3, n}:
            low, high = metrics.wilson(c, n)
            assert 0 <= low <= c / n <= high <= 1
            for edge in (low, high):  # each end solves (p - c/n)² = z² p (1-p) / n
                if 0 < edge < 1:
                    assert math.isclose((edge - c / n) ** 2, z * z * edge * (1 - edge) / n, rel_tol=1e-9)
    assert metrics.wilson(0, 9)[0] == 0.0
    assert metrics.wilson(9, 9)[1] == 1.0


def test_the_loss_does_not_depend_on_order() -> None:
    s = samples(1000)
    shuffled = np.random.default_rng(3).permutation(s.loss)
    assert metrics.mean(s.loss) == metrics.mean(shuffled) == math.fsum(map(float, s.loss)) / 1000


def test_counts() -> None:
    s = samples()
    r = record(s)
    assert r.correct[1] == int((s.logits.argmax(1) == s.labels).sum())
    assert r.n_scored == r.n_listed == 50
    assert [n for n, _ in r.per_class] == np.bincount(s.labels, minlength=7).tolist()
    assert sum(c for _, c in r.per_class) == r.correct[1] == int(np.trace(r.confusion))
    assert r.confusion.sum() == 50
    assert r.majority == np.bincount(s.labels).max() / 50
    assert r.metric("top5") == r.topk(5)
    assert r.metric("loss") == r.loss
    with pytest.raises(KeyError, match="there are loss, top1, top5"):
        r.metric("accuracy")


def test_a_core_that_breaks_ties_otherwise_is_noticed() -> None:
    s = samples()
    last = (6 - s.logits[:, ::-1].argmax(1)).astype(np.int32)
    wrong = Samples(s.ids, s.labels, last, s.loss, s.rank, s.logits)
    with pytest.raises(RuntimeError, match="break ties"):
        record(wrong)


def test_json_round_trip_with_rates_as_fractions() -> None:
    r = record(samples())
    data = json.loads(json.dumps(r.to_dict(), allow_nan=False))
    again = EvalRecord.from_dict(data)
    assert again == r
    assert again.to_dict() == r.to_dict()
    assert 0 <= data["top1"] <= 1
    assert data["top1"] == data["correct"]["top1"] / data["n_scored"]
    assert data["interval"] == list(r.interval)
    assert data["reproduced"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"metrics": {"top1": 2}},
        {"top1": 0.99},
        {"n_scored": 49},
        {"correct": {"top5": 3}},
        {"per_class": []},
        {"digests": None},
        {"loss": "x"},
    ],
)
def test_contradicting_records_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="record:"):
        EvalRecord.from_dict({**record(samples()).to_dict(), **change})


def test_differences_name_the_fields() -> None:
    s = samples()
    a = record(s)
    assert a.differences(record(s)) == {}
    changed = Samples(s.ids, s.labels, s.predictions, np.nextafter(s.loss, np.float32(9)), s.rank, s.logits)
    assert set(a.differences(record(changed))) == {"loss", "digests.outputs"}
    assert set(a.differences(record(s, mode="precise"))) == {"mode"}
    assert a.same_list(record(s))
    assert not a.same_list(record(s, digests={"data": "e"}))


def test_reprs_say_what_matters() -> None:
    r = record(samples(), classes=[*"abcdef", "<花>"])
    assert f"{r.correct[1]}/50" in repr(r)
    assert "raw weights" in repr(r)
    page = r._repr_html_()
    assert "&lt;花&gt;" in page
    assert f"{r.top1:.4f}" in page
