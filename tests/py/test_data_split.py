"""Splits: draws, shares, groups, stored splits, the manifest."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from data_fixtures import encoded, image_folder, picture
from hypothesis import given, settings
from hypothesis import strategies as st

import gapless.data as gd
from gapless.data import manifest as manifests
from gapless.data import split as splits
from gapless.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GAPLESS_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_draws_are_those_of_the_core():
    # the published vectors of Philox4x32-10: all zeros; and the core itself where it is built
    assert splits.philox_blocks(0, 0, np.array([0]))[0].tolist() == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]
    core = pytest.importorskip("gapless._core")
    if not hasattr(core, "philox"):
        pytest.skip("the core has no philox yet")
    rng = np.random.default_rng(0)
    for _ in range(20):
        seed = int(rng.integers(0, 1 << 63)) * 2 + 1
        stream, epoch, sample, op = (int(v) for v in rng.integers(0, 1 << 31, 4))
        want = np.asarray(core.philox(seed, stream % 7, epoch, sample, op, 8))
        got = [
            splits.philox_blocks(seed, stream % 7, np.array([sample]), epoch=epoch, op=op, draw=d)[0]
            for d in (0, 1)
        ]
        assert np.concatenate(got).tolist() == want.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=80),
    st.sampled_from([(0.8, 0.2), (0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (1.0,), (0.0, 1.0)]),
    st.integers(0, 1 << 63),
)
def test_stratified_shares(labels, fractions, seed):
    labels = np.array(labels, np.int64)
    named = splits.fractions_of(fractions)
    parts = splits.stratified(labels, named, seed)
    assert parts == splits.stratified(labels, named, seed)
    for c in np.unique(labels):
        mine = [p for p, k in zip(parts, labels, strict=True) if k == c]
        for name, share in named.items():
            n = mine.count(name)
            assert abs(n - share * len(mine)) < 2
            if len(mine) >= len(named):
                assert n >= 1


def test_another_seed_gives_another_split_and_one_sample_more_moves_few():
    labels = np.repeat(np.arange(4), 50)
    named = {"train": 0.8, "val": 0.2}
    one, two = splits.stratified(labels, named, 0), splits.stratified(labels, named, 1)
    assert one != two
    more = splits.stratified(np.append(labels, 3), named, 0)[:-1]
    assert sum(a != b for a, b in zip(one, more, strict=True)) <= 2


def test_split_is_the_same_in_another_process_and_hash_seed():
    code = (
        "import numpy as np, hashlib; from gapless.data import split as s;"
        "l = np.arange(500) % 7; g = [f'g{i // 9}' for i in range(500)]; f = s.fractions_of((.7, .2, .1));"
        "print(hashlib.sha256(repr((s.stratified(l, f, 5), s.grouped(l, g, f, 5))).encode()).hexdigest())"
    )
    import os

    outs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": h},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for h in ("0", "1", "77")
    }
    assert len(outs) == 1
    assert len(outs.pop().strip()) == 64


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ((0.8, 0.3), "add up to 1.1"),
        ((80, 20), "between 0 and 1"),
        ((0.5,), "add up to 0.5"),
        ({"train": 0.5, "holdout": 0.5}, "'holdout' is not a split"),
        (0.8, "expected up to four fractions"),
        ((0.2,) * 5, "expected up to four fractions"),
        ((float("nan"), 1.0), "between 0 and 1"),
        ((True, 0.0), "between 0 and 1"),
    ],
)
def test_fractions_that_are_wrong(split, words):
    with pytest.raises(DataError, match=words):
        gd.digits(split=split)


def test_groups_stay_together_and_shares_are_near():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    groups = [f"p{rng.integers(60)}" for _ in range(600)]
    parts = splits.grouped(labels, groups, {"train": 0.7, "val": 0.15, "test": 0.15}, 0)
    where = {}
    for g, p in zip(groups, parts, strict=True):
        assert where.setdefault(g, p) == p
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        for c in range(3):
            mine = [p for p, k in zip(parts, labels, strict=True) if k == c]
            assert abs(mine.count(name) / len(mine) - share) < 0.08


def test_group_by_pattern_function_values(tmp_path):
    for i in range(24):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"pat{i // 4}_{i}.png").write_bytes(encoded(picture(i)))
    by = [
        gd.folder(tmp_path, group_by=r"/(pat\d+)_"),
        gd.folder(tmp_path, group_by=lambda i: i.split("/")[1].split("_")[0]),
    ]
    by.append(gd.folder(tmp_path, group_by=[i.split("/")[1].split("_")[0] for i in by[0].ids]))
    assert len({d.manifest_digest for d in by}) == 1
    data = by[0]
    for g in range(6):
        assert len({p for i, p in zip(data.ids, data.split_of, strict=True) if f"pat{g}_" in i}) == 1
    assert data.spec["group_by"] == r"/(pat\d+)_"
    for bad, words in (
        ("patient", "not found in 24"),
        ("(", "no regular expression"),
        ([1, 2], "a group for each"),
        (5, "expected"),
    ):
        with pytest.raises(DataError, match=words):
            gd.folder(tmp_path, group_by=bad)
    with pytest.raises(DataError, match=r"1 group\(s\) cannot fill 2 splits"):
        gd.folder(tmp_path, group_by="pat")
    with pytest.raises(DataError, match="give the manifest"):
        gd.open(by[1].spec)
    assert gd.open(by[1].spec, by[1].manifest()).manifest_digest == data.manifest_digest


def test_given_groups_that_are_torn_are_told(tmp_path):
    image_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 3, "val/b": 3})
    with pytest.warns(gd.DataWarning, match="6 groups .group_by. are in more than one split"):
        gd.folder(tmp_path, group_by=r"[ab]_\d+")


def test_split_by_ids_and_by_a_stored_file(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5})
    first = gd.folder(tmp_path, split=(0.6, 0.4))
    ids = {k: [first.ids[i] for i in v] for k, v in first.splits.items()}
    second = gd.folder(tmp_path, split=ids)
    assert second.manifest_digest == first.manifest_digest
    (tmp_path / "split.json").write_text(json.dumps(first.manifest()))
    third = gd.folder(tmp_path, split=tmp_path / "split.json")
    assert third.manifest_digest == first.manifest_digest
    assert gd.open(third.spec).manifest_digest == first.manifest_digest
    for bad, words in (
        ({"train": first.ids, "val": [first.ids[0]]}, "splits must be disjoint"),
        ({"train": first.ids[:-1]}, r"1 sample\(s\) are in no split"),
        ({"train": [*first.ids, "gone"]}, r"1 id\(s\) of the split are not in the data"),
        ({"train": first.ids, "hold": []}, "expected lists of ids by split"),
        (str(tmp_path / "no.json"), "cannot be read"),
        (str(tmp_path / "a" / "a_0000.png"), "not JSON|cannot"),
    ):
        with pytest.raises(DataError, match=words):
            gd.folder(tmp_path, split=bad)


def test_manifest_is_json_and_its_digest_covers_what_decides(tmp_path):
    data = gd.folder(image_folder(tmp_path, {"a": 5, "b": 5}))
    stored = json.loads(json.dumps(data.manifest()))
    assert stored == data.manifest()
    assert manifests.digest(stored) == data.manifest_digest
    assert set(stored["samples"]) == {"id", "label", "split", "digest"}
    for change in (
        lambda m: m["classes"].reverse(),
        lambda m: m["samples"]["label"].reverse(),
        lambda m: m["samples"]["split"].reverse(),
        lambda m: m["samples"]["digest"].reverse(),
        lambda m: m.update(channels=1),
    ):
        other = json.loads(json.dumps(stored))
        change(other)
        assert manifests.digest(other) != data.manifest_digest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.update(format=2),
        lambda m: m.pop("classes"),
        lambda m: m["samples"].pop("digest"),
        lambda m: m["samples"]["id"].pop(),
        lambda m: m["samples"]["id"].__setitem__(0, m["samples"]["id"][1]),
        lambda m: m["samples"]["label"].__setitem__(0, 9),
        lambda m: m["samples"]["label"].__setitem__(0, "a"),
        lambda m: m.update(channels=2),
        lambda m: m.update(samples=[]),
        lambda m: m.update(unreadable=[{"id": "x"}]),
        lambda m: m.update(seed="x"),
    ],
)
def test_manifests_that_are_wrong_are_refused(tmp_path, spoil):
    data = gd.folder(image_folder(tmp_path, {"a": 3, "b": 3}))
    stored = data.manifest()
    spoil(stored)
    with pytest.raises(DataError, match="manifest:"):
        gd.open(data.spec, stored)
    with pytest.raises(DataError, match="manifest:"):
        gd.open(data.spec, [])


def test_reopened_data_are_what_they_were(tmp_path):
    data = gd.folder(image_folder(tmp_path, {"a": 10, "b": 10}), split=(0.5, 0.3, 0.2), seed=9)
    again = gd.open(data.spec, data.manifest())
    assert again.manifest() == data.manifest()
    assert again.spec == data.spec
    assert np.array_equal(again.load(7), data.load(7))


def test_live_data_compared_with_a_manifest(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 5), dtype=np.uint8)
    data = gd.arrays(x, [0, 1] * 10)
    stored = data.manifest()
    again = gd.arrays(x, [0, 1] * 10, split=(0.5, 0.5)).with_manifest(stored)
    assert again.manifest_digest == data.manifest_digest
    y = x.copy()
    y[4] += 1
    other = gd.arrays(y, [0, 1] * 10)
    assert other.differences(stored)["changed"] == ["4"]
    with pytest.raises(DataError, match=r"1 sample\(s\) have other pixels than recorded: 4"):
        other.with_manifest(stored)
    with pytest.raises(DataError, match=r"2 sample\(s\) of the manifest are missing: 18, 19"):
        gd.arrays(x[:18], [0, 1] * 9).with_manifest(stored)
    with pytest.raises(DataError, match=r"belong to another class than recorded: 3 \(now 0\)"):
        gd.arrays(x, [0, 1, 0, 0] + [0, 1] * 8).with_manifest(stored)


def test_seed_and_other_options_are_checked():
    for options, words in (
        ({"seed": -1}, "seed: expected"),
        ({"seed": 1.5}, "seed: expected"),
        ({"channels": 2}, "channels: expected 1"),
        ({"val": 0.1}, "say split="),
        ({"val": 1.5}, "val: expected a share"),
    ):
        with pytest.raises(DataError, match=words):
            gd.digits(**options)
