"""Complaints about other tools, as regression tests; the numbers are those of the list of failure cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from data_fixtures import encoded, image_folder, picture
from PIL import Image

import gapless.data as gd
from gapless.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GAPLESS_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_case_10_labels_and_split_are_the_same_in_a_new_process_directory_and_hash_seed(tmp_path):
    """keras#13165: the label map was rebuilt differently in each session."""
    image_folder(tmp_path / "set", {"b": 9, "a": 9, "10": 9, "9": 9})
    code = "import gapless.data as gd, sys; d = gd.folder(sys.argv[1]); print(d.classes, d.manifest_digest)"
    outs = set()
    for seed, where in (("0", tmp_path), ("1", tmp_path / "set"), ("99", os.sep)):
        path = os.path.relpath(tmp_path / "set", where)
        env = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path if p),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, path], cwd=where, env=env, capture_output=True, text=True, check=True
        )
        outs.add(done.stdout)
    assert len(outs) == 1
    assert outs.pop().startswith("('10', '9', 'a', 'b')")


def test_case_12_the_split_of_ordered_samples_is_stratified_and_recorded():
    """keras#8346: validation_split was the tail of an ordered array."""
    x = np.random.default_rng(0).integers(0, 256, (100, 4, 4), dtype=np.uint8)
    data = gd.arrays(x, np.repeat(np.arange(5), 20))
    assert data.counts("val").tolist() == [4] * 5
    assert data.counts("train").tolist() == [16] * 5
    assert data.manifest()["drawn"] == {
        "by": "fraction", "fractions": {"train": 0.8, "val": 0.2}, "grouped": False, "seed": 0
    }  # fmt: skip


def test_case_13_splits_are_disjoint_whatever_the_seeds(tmp_path):
    """AutoECM#13: train and val were made with different seeds, and overlapped."""
    image_folder(tmp_path, {"a": 15, "b": 15})
    for seed in range(5):
        data = gd.folder(tmp_path, split=(0.6, 0.2, 0.2), seed=seed)
        joined = np.concatenate(list(data.splits.values()))
        assert sorted(joined.tolist()) == list(range(30))
    stored = data.manifest()
    stored["samples"]["id"][0] = stored["samples"]["id"][1]
    with pytest.raises(DataError, match="would not be disjoint"):
        gd.open(data.spec, stored)


def test_case_14_a_split_is_never_drawn_again(tmp_path):
    """torchani#443: a restart drew the split anew, and validation samples were trained on."""
    image_folder(tmp_path, {"a": 15, "b": 15})
    data = gd.folder(tmp_path, seed=1)
    stored = json.loads(json.dumps(data.manifest()))
    again = gd.open(
        {**data.spec, "seed": 2, "split": [0.5, 0.5]}, stored
    )  # even when the spec says something else
    assert again.splits.keys() == data.splits.keys()
    assert all(np.array_equal(again.splits[k], data.splits[k]) for k in data.splits)
    image_folder(tmp_path, {"a": 18, "b": 15}, first=100)  # new files, and others changed
    with pytest.raises(DataError, match=r"30 sample\(s\) have other pixels"):
        gd.open(data.spec, stored)


def test_case_14_samples_that_came_later_are_told_and_not_used(tmp_path):
    image_folder(tmp_path, {"a": 15, "b": 15})
    data = gd.folder(tmp_path)
    (tmp_path / "a" / "later.png").write_bytes(encoded(picture(500)))
    again = gd.open(data.spec, data.manifest())
    assert again.ids == data.ids
    assert any("1 sample(s) are here that the recorded split does not have" in n for n in again.notes)
    os.remove(tmp_path / "b" / "b_0003.png")
    with pytest.raises(DataError, match=r"1 sample\(s\) of the manifest are missing: b/b_0003\.png"):
        gd.open(data.spec, data.manifest())


def test_case_15_a_random_operation_in_an_evaluation_pipeline_is_a_type_error():
    """keras-preprocessing#218: augmentation was applied to the validation part."""
    from gapless import augment

    with pytest.raises(TypeError):
        gd.Pipeline([augment.RandomHorizontalFlip()], evaluation=True)


def test_case_16_batches_carry_ids_and_labels_join_on_them():
    """keras#11427: predictions in shuffled order were compared with labels in file order."""
    data = gd.digits()
    order = np.random.default_rng(3).permutation(len(data))[:200]
    with gd.Loader(data, order, None, 33, threads=3) as loader:
        for batch in loader:
            assert np.array_equal(batch.y, data.labels[batch.ids])
            assert all(np.array_equal(x, data.load(int(i))) for x, i in zip(batch.x, batch.ids, strict=True))


def test_case_18_class_indices_come_from_all_splits_and_travel_by_name(tmp_path):
    """timm#957, ultralytics#13936: each split numbered the classes that it happened to have."""
    image_folder(tmp_path, {"train/a": 4, "train/b": 4, "train/c": 4, "val/a": 2, "val/c": 2})
    with pytest.warns(gd.DataWarning, match="val lacks 1 of 3 classes: 'b'"):
        data = gd.folder(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.counts("val").tolist() == [2, 0, 2]
    image_folder(tmp_path / "later", {"c": 3, "a": 3}, first=200)
    later = gd.folder(tmp_path / "later", split={"test": 1.0})
    assert later.labels.tolist() == [0, 0, 0, 1, 1, 1]
    mapped = later.mapped_to(data.classes)
    assert mapped.labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert mapped.classes == data.classes
    image_folder(tmp_path / "strange", {"a": 3, "C": 3}, first=300)
    with pytest.raises(DataError, match=r"1 class\(es\) are not known to the model: 'C'"):
        gd.folder(tmp_path / "strange").mapped_to(data.classes)


def test_case_18_a_stored_order_of_classes_survives_other_folders(tmp_path):
    image_folder(tmp_path, {"b": 5, "c": 5})
    data = gd.folder(tmp_path)
    stored = data.manifest()
    (tmp_path / "a").mkdir()  # a new folder that sorts before the others
    assert gd.open(data.spec, stored).labels.tolist() == data.labels.tolist()
    assert gd.open(data.spec, stored).classes == ("b", "c")


def test_case_19_numeric_folders_have_one_order_and_it_is_stored(tmp_path):
    """torchvision#714, timm#222: "10" before "2", or after it."""
    image_folder(tmp_path, {str(k): 3 for k in (0, 1, 2, 10, 11)})
    data = gd.folder(tmp_path)
    assert data.classes == ("0", "1", "10", "11", "2")
    assert data.manifest()["classes"] == list(data.classes)
    natural = gd.folder(tmp_path, classes=["0", "1", "2", "10", "11"])
    assert natural.mapped_to(data.classes).labels.tolist() == data.labels.tolist()


def test_case_20_labels_that_begin_at_one_are_told(tmp_path):
    """mlcommons/inference#550: labels off by one by a background class."""
    x = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    with pytest.warns(gd.DataWarning, match="no samples at all: '0'; labels begin at 1"):
        gd.arrays(x, [1, 2, 3] * 10)
    with pytest.raises(DataError, match=r"out of range 0\.\.2: 3"):
        gd.arrays(x, [1, 2, 3] * 10, classes=["a", "b", "c"])


def test_case_21_test_is_never_taken_for_validation(tmp_path):
    """ultralytics#1677: without val/, the test folder chose the best epoch."""
    image_folder(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 5, "test/b": 5})
    data = gd.folder(tmp_path)
    assert all(data.ids[i].startswith("train/") for i in data.splits["val"])
    assert all(data.ids[i].startswith("test/") for i in data.splits["test"])


def test_case_25_exif_is_applied_wherever_a_file_is_read(tmp_path):
    """ultralytics#23630: honoured for one file, ignored for a list."""
    image_folder(tmp_path, {"a": 5, "b": 5})
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(picture(60)).save(tmp_path / "a" / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "list.txt").write_text(
        "".join(f"{c}/{c}_{i:04d}.png {c}\n" for c in "ab" for i in range(5)) + "a/turned.jpg a\n"
    )
    from gapless.data.decode import decode, read

    raw = (tmp_path / "a" / "turned.jpg").read_bytes()
    one = gd.folder(tmp_path)
    two = gd.list_file(tmp_path / "list.txt")
    three = gd.from_callable(["x"] + list("123"), lambda i: (raw if i == "x" else picture(int(i)), 0))
    four = gd.from_callable(
        [0, 1], lambda i: (Image.open(tmp_path / "a" / "turned.jpg") if i else picture(3), 0)
    )
    want = decode(raw)
    assert want.shape == (16, 12, 3)
    got = [
        read(tmp_path / "a" / "turned.jpg"),
        one.load(one.index_of("a/turned.jpg")),
        two.load(two.index_of("a/turned.jpg")),
        three.load(0),
        four.load(1),
    ]
    assert all(np.array_equal(g, want) for g in got)


def test_case_34_an_edited_label_list_is_read_again(tmp_path):
    """yolov5#306: a label cache outlived the labels."""
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encoded(picture(i)))
        os.utime(tmp_path / f"{i}.png", ns=(10**18, 10**18))
    file = tmp_path / "list.txt"
    file.write_text("".join(f"{i}.png {'ab'[i % 2]}\n" for i in range(8)))
    before = os.stat(file).st_mtime_ns
    first = gd.list_file(file)
    file.write_text("".join(f"{i}.png {'ba'[i % 2]}\n" for i in range(8)))
    os.utime(file, ns=(before, before))
    second = gd.list_file(file)
    assert second.labels.tolist() == [1 - k for k in first.labels.tolist()]
    assert second.digests == first.digests
    with pytest.raises(DataError, match="belong to another class than recorded"):
        gd.open(first.spec, first.manifest())


def test_case_34_an_edit_that_keeps_size_and_time_is_noticed_when_the_file_is_read(tmp_path):
    """yolov5#306 again: what is remembered of a file goes by its size and time, and both can be kept."""
    image_folder(tmp_path, {"a": 5, "b": 5}, kind="BMP")
    for file in tmp_path.rglob("*.bmp"):
        os.utime(file, ns=(10**18, 10**18))
    manifest = gd.folder(tmp_path).manifest()
    edited = tmp_path / "a" / "a_0002.bmp"
    with open(edited, "r+b") as f:
        f.seek(100)
        byte = f.read(1)[0]
        f.seek(100)
        f.write(bytes([byte ^ 255]))
    os.utime(edited, ns=(10**18, 10**18))
    data = gd.open({"folder": str(tmp_path)}, manifest)
    with pytest.raises(DataError, match=r"a_0002\.bmp: other pixels than when the data was opened"):
        data.load(data.ids.index("a/a_0002.bmp"))
    assert data.load(data.ids.index("a/a_0001.bmp")).shape == (12, 16, 3)


def test_case_36_unreadable_files_are_counted_and_never_replaced(tmp_path):
    """PaddleClas#2168: two evaluations differed, because an unreadable file became another one by chance."""
    image_folder(tmp_path, {"a": 150, "b": 150})
    (tmp_path / "a" / "bad1.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    (tmp_path / "b" / "bad2.png").write_bytes(b"")
    found = []
    for _ in range(2):
        with pytest.warns(gd.DataWarning, match="2 of 302 samples cannot be read"):
            data = gd.folder(tmp_path)
        with gd.Loader(data, data.splits["val"], None, 16) as loader:
            found.append([b.x.tobytes() for b in loader])
        assert len(data) == 300
        assert sum(data.n_unreadable(k) for k in data.splits) == 2
    assert found[0] == found[1]


def test_case_41_equal_pixels_in_two_splits_are_counted_named_and_recorded(tmp_path):
    """RIAWELC#2: every test image was a training image too."""
    image_folder(tmp_path, {"train/a": 6, "train/b": 6, "val/a": 3, "val/b": 3})
    same = picture(0)  # the pixels of train/a/a_0000.png
    (tmp_path / "val" / "a" / "copy.bmp").write_bytes(encoded(same, "BMP"))  # another format, the same pixels
    with pytest.warns(
        gd.DataWarning, match=r"2 images in 1 groups of equal pixels are in more than one split.*copy\.bmp"
    ):
        data = gd.folder(tmp_path)
    assert data.cross_duplicates == [
        {"ids": ["train/a/a_0000.png", "val/a/copy.bmp"], "splits": ["train", "val"]}
    ]
    assert data.manifest()["cross_duplicates"] == data.cross_duplicates
    (tmp_path / "train" / "b" / "again.png").write_bytes(encoded(same))
    with pytest.warns(gd.DataWarning, match="1 groups of equal pixels have different labels"):
        gd.folder(tmp_path)


def test_case_41_groups_are_kept_whole(tmp_path):
    """hulk#2831: 98 % of the test images were of recordings that were trained on."""
    for i in range(40):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"rec{i // 8}_frame{i}.png").write_bytes(encoded(picture(i)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = gd.folder(tmp_path, group_by=r"rec\d+")
    recordings = {k: {data.ids[i].split("/")[1].split("_")[0] for i in v} for k, v in data.splits.items()}
    assert not recordings["train"] & recordings["val"]
    assert recordings["val"]
