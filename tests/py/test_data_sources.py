"""gapless.data's sources (folders, lists, arrays, digits, IDX, CIFAR, the caller's code) and specs."""

from __future__ import annotations

import array
import collections
import copyreg
import gzip
import json
import os
import pickle  # only to write what must be read or refused
import warnings

import numpy as np
import pytest
from data_fixtures import encoded, image_folder, picture

import gapless.data as gd
from gapless.data.sources._stored import read_stored
from gapless.errors import DataError, RecipeError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GAPLESS_CACHE", str(tmp_path_factory.mktemp("cache")))


# ---- folders ----


def test_folder_with_a_class_per_folder(tmp_path):
    data = gd.folder(image_folder(tmp_path, {"b": 10, "a": 10, "Z": 10}))
    assert data.classes == ("Z", "a", "b")  # by code point
    assert data.ids == sorted(data.ids)
    assert data.ids[0] == "Z/Z_0000.png"
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 24, "val": 6}
    assert data.counts("val").tolist() == [2, 2, 2]
    assert (data.channels, data.size) == (3, (12, 16))
    assert np.array_equal(data.load(0), picture(20))
    assert data.path(0) == str(tmp_path / "Z" / "Z_0000.png")
    assert data.spec == {"folder": str(tmp_path), "split": [0.8, 0.2], "seed": 0}


def test_folder_of_grey_pictures_has_one_channel_unless_asked(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5}, c=1)
    assert gd.folder(tmp_path).channels == 1
    three = gd.folder(tmp_path, channels=3)
    assert three.load(0).shape == (12, 16, 3)
    (tmp_path / "a" / "colour.png").write_bytes(encoded(picture(99)))
    mixed = gd.folder(tmp_path)
    assert mixed.channels == 3
    assert {mixed.load(i).shape[2] for i in range(len(mixed))} == {3}


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folder_with_split_folders(tmp_path, val):
    image_folder(
        tmp_path, {"train/a": 4, "train/b": 4, f"{val}/a": 2, f"{val}/b": 2, "test/a": 1, "test/b": 1}
    )
    data = gd.folder(tmp_path)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 8, "val": 4, "test": 2}
    assert data.spec == {"folder": str(tmp_path)}
    with pytest.raises(DataError, match="brings its own splits"):
        gd.folder(tmp_path, split=(0.5, 0.5))


def test_folder_with_train_and_test_takes_val_from_train(tmp_path):
    image_folder(tmp_path, {"train/a": 20, "train/b": 20, "test/a": 3, "test/b": 3})
    data = gd.folder(tmp_path)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 36, "val": 4, "test": 6}
    assert all(data.ids[i].startswith("train/") for i in data.splits["val"])
    assert any("there is no val" in n for n in data.notes)
    assert set(gd.folder(tmp_path, val=0).splits) == {"train", "test"}
    assert len(gd.folder(tmp_path, val=0.25).splits["val"]) == 10


def test_a_class_called_train_is_a_class(tmp_path):
    image_folder(tmp_path, {"train": 5, "car": 5})
    assert gd.folder(tmp_path).classes == ("car", "train")


def test_two_names_of_one_split_are_an_error(tmp_path):
    image_folder(tmp_path, {"train/a": 2, "val/a": 2, "valid/a": 2})
    with pytest.raises(DataError, match="val and valid"):
        gd.folder(tmp_path)


def test_other_files_are_counted_and_hidden_ones_not(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "x.GIF").write_bytes(b"GIF89a")
    (tmp_path / "a" / "y.gif").write_bytes(b"GIF89a")
    (tmp_path / "b" / "notes.txt").write_text("hi")
    (tmp_path / "README").write_text("hi")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").write_bytes(b"x")
    data = gd.folder(tmp_path)
    assert data.ignored == {".gif": 2, ".txt": 1, "(no extension)": 1}
    assert len(data) == 10
    assert any("4 files are no pictures" in n for n in data.notes)


def test_folder_goes_into_subfolders_and_survives_link_loops(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "more").mkdir()
    (tmp_path / "a" / "more" / "deep.PNG").write_bytes(encoded(picture(77)))
    os.symlink(tmp_path / "a", tmp_path / "a" / "more" / "loop")
    data = gd.folder(tmp_path)
    assert "a/more/deep.PNG" in data.ids
    assert len(data) == 11


def test_empty_class_folder_is_reported(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "c").mkdir()
    with pytest.warns(gd.DataWarning, match="1 of 3 classes have no samples at all: 'c'"):
        data = gd.folder(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.counts().tolist() == [5, 5, 0]


@pytest.mark.parametrize(
    "make", [lambda p: None, lambda p: (p / "x.png").write_bytes(b""), lambda p: (p / "c").mkdir()]
)
def test_folder_without_pictures_says_what_it_saw(tmp_path, make):
    make(tmp_path)
    with pytest.raises(DataError, match="no pictures in class folders"):
        gd.folder(tmp_path)


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        gd.folder(tmp_path / "no")
    (tmp_path / "f").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        gd.folder(tmp_path / "f")


def test_names_of_any_script_and_bytes_that_are_no_text(tmp_path):
    image_folder(tmp_path, {"猫": 5, "ß<b>": 5})
    raw = os.fsencode(tmp_path / "猫") + b"/\xff\xfe.png"
    try:
        with open(raw, "wb") as f:
            f.write(encoded(picture(50)))
    except OSError:
        pytest.skip("the file system takes no such names")
    data = gd.folder(tmp_path)
    assert data.classes == ("ß<b>", "猫")
    odd = [i for i in data.ids if "udcff" in i]
    assert len(odd) == 1
    json.dumps(data.manifest()).encode("utf-8")
    assert data.load(data.index_of(odd[0])).shape == (12, 16, 3)
    page = data._repr_html_()
    assert "ß&lt;b&gt;" in page
    assert "<b>&" not in page


def test_folder_with_classes_given(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5})
    assert gd.folder(tmp_path, classes=["b", "a"]).labels.tolist() == [1] * 5 + [0] * 5
    with pytest.raises(DataError, match="not among the 1 classes"):
        gd.folder(tmp_path, classes=["b"])


# ---- lists ----


def _listed(tmp_path, text, name="list.txt", encoding="utf-8", n=6):
    for i in range(n):
        (tmp_path / f"p {i}.png").write_bytes(encoded(picture(i)))
    (tmp_path / name).write_bytes(text.encode(encoding))
    return tmp_path / name


def test_list_of_paths_with_blanks_and_names(tmp_path):
    file = _listed(tmp_path, "\ufeff" + "".join(f"p {i}.png {'cat' if i % 2 else 'dog'}\n" for i in range(6)))
    data = gd.list_file(file)
    assert data.classes == ("cat", "dog")
    assert data.ids == [f"p {i}.png" for i in range(6)]
    assert data.labels.tolist() == [1, 0] * 3


def test_list_with_indices_and_paddle_class_names(tmp_path):
    file = _listed(tmp_path, "".join(f"p {i}.png {i % 2}\n" for i in range(6)))
    assert gd.list_file(file).classes == ("0", "1")
    (tmp_path / "label_list.txt").write_text("0 red panda\n1 fox\n")
    data = gd.list_file(file, classes=tmp_path / "label_list.txt")
    assert data.classes == ("red panda", "fox")
    assert gd.open(data.spec).classes == data.classes
    (tmp_path / "list.txt").write_text("p 0.png 0\np 1.png 2\n")
    with pytest.raises(DataError, match=r"out of range 0\.\.1: 2 \(list\.txt, line 2\)"):
        gd.list_file(file, classes=tmp_path / "label_list.txt")


def test_lists_per_split_and_paddle_folder(tmp_path):
    _listed(tmp_path, "".join(f"p {i}.png {i % 2}\n" for i in range(4)), "train_list.txt")
    _listed(tmp_path, "".join(f"p {i}.png {i % 2}\n" for i in range(4, 6)), "val_list.txt")
    data = gd.list_file({"train": tmp_path / "train_list.txt", "val": tmp_path / "val_list.txt"})
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0, 1, 2, 3], "val": [4, 5]}
    again = gd.resolve(tmp_path)
    assert again.manifest_digest == data.manifest_digest
    assert gd.open(again.spec, again.manifest()).ids == data.ids


def test_csv_with_header_columns_and_splits(tmp_path):
    rows = "".join(
        f'"p {i}.png",{"ab"[i % 2]},p{i // 2},{"train" if i < 4 else "validation"}\n' for i in range(6)
    )
    file = _listed(tmp_path, "image,label,patient,split\n" + rows, "t.csv")
    data = gd.list_file(file, group_by="patient")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 4, "val": 2}
    assert data.columns["patient"] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    with pytest.raises(DataError, match=r"no column 'lable'.*did you mean 'label'"):
        gd.list_file(file, label_column="lable")


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("p 0.png\n", "list.txt", None),  # the last blank: path p, label 0.png; no such file
        ("onlypath\n", "list.txt", "line 1: expected 'path label'"),
        ("", "list.txt", "no samples"),
        ("image,label\n'p 0.png'\n", "t.csv", "1 cells, expected 2"),
        ("foo,bar\na,b\n", "t.csv", "no path column"),
        ("path,what\na,b\n", "t.csv", "no label column"),
        ("p 0.png a\np 0.png b\n", "list.txt", "two labels, a .*line 1.* and b .*line 2"),
        ("path,label,split\np 0.png,a,nope\n", "t.csv", "names no split"),
        ("p 0.png 0\np 1.png 9000000\n", "list.txt", "class indices run from 0"),
        ("p 0.png -1\np 1.png 1\n", "list.txt", "out of range"),
        ("p 0.png a\0\n", "list.txt", "NUL"),
        ('path,label\n"p 0.png,a\n', "t.csv", "t.csv, line"),
    ],
)
def test_lists_that_are_wrong_say_where(tmp_path, text, name, words):
    with pytest.raises(DataError, match=words):
        gd.list_file(_listed(tmp_path, text, name))


def test_list_in_another_encoding(tmp_path):
    file = _listed(tmp_path, "".join(f"p {i}.png {'猫狗'[i % 2]}\n" for i in range(6)), encoding="gb18030")
    with pytest.raises(DataError, match=r"line 2: not valid utf-8.*encoding='gb18030'"):
        gd.list_file(file)
    data = gd.list_file(file, encoding="gb18030")
    assert data.classes == ("狗", "猫")
    assert data.spec["encoding"] == "gb18030"
    with pytest.raises(DataError, match="not an encoding"):
        gd.list_file(file, encoding="utf-99")


def test_order_of_lines_does_not_matter(tmp_path):
    lines = [f"p {i}.png {i % 2}\n" for i in range(6)]
    one = gd.list_file(_listed(tmp_path, "".join(lines)))
    two = gd.list_file(_listed(tmp_path, "".join(reversed(lines))))
    assert one.manifest_digest == two.manifest_digest


def test_repeated_lines_count_once(tmp_path):
    data = gd.list_file(_listed(tmp_path, "".join(f"p {i % 3}.png {i % 3 % 2}\n" for i in range(6))))
    assert len(data) == 3
    assert any("3 lines repeat" in n for n in data.notes)


# ---- arrays ----


@pytest.mark.parametrize(
    ("shape", "channels"), [((6, 5, 4), 1), ((6, 5, 4, 3), 3), ((6, 3, 5, 4), 3), ((6, 1, 5, 4), 1)]
)
def test_array_layouts_are_recognised(shape, channels):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = gd.arrays(x, [0, 1] * 3)
    assert (data.channels, data.size) == (channels, (5, 4))
    want = x[0][:, :, None] if x.ndim == 3 else x[0] if shape[1] == 5 else x[0].transpose(1, 2, 0)
    assert np.array_equal(data.load(0), want)


@pytest.mark.parametrize("shape", [(6, 3, 5, 3), (6, 1, 5, 1)])
def test_ambiguous_layout_is_asked_for(shape):
    x = np.zeros(shape, np.uint8)
    with pytest.raises(DataError, match="say which: layout='NHWC'"):
        gd.arrays(x, [0, 1] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert gd.arrays(x, [0, 1] * 3, layout="NCHW").size == (5, shape[3])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((4, 16), np.uint8), "flattened"),
        (np.zeros((4, 5, 5, 4), np.uint8), "neither the last nor the second axis"),
        (np.zeros((4, 5, 5), np.float32), "value_range"),
        (np.zeros((4, 0, 5), np.uint8), "no pixels"),
        (np.full((4, 5, 5), 300), "integers from 300 to 300"),
        (np.full((4, 5, 5), -1), "expected 0..255"),
        (np.zeros((3, 5, 5), np.uint8), "3 images and 4 labels"),
        (np.zeros((0, 5, 5), np.uint8), "0 images and 4 labels"),
        (np.zeros((4, 5, 5), complex), "dtype complex128"),
        (object(), "expected|does not give"),
    ],
)
def test_arrays_that_are_wrong(x, words):
    with pytest.raises(DataError, match=words):
        gd.arrays(x, [0, 1, 0, 1])


def test_float_images_convert_by_the_stated_rule():
    x = np.linspace(-1, 1, 4 * 9).reshape(4, 3, 3)
    data = gd.arrays(x, [0, 1, 0, 1], value_range=(-1, 1))
    got = np.stack([data.load(i)[:, :, 0] for i in range(4)])
    assert np.array_equal(got, np.floor((x + 1) * 255 / 2 + 0.5))
    for bad in (np.nan, np.inf, 1.01):
        y = x.copy()
        y[2, 1, 1] = bad
        with pytest.raises(DataError, match="image 2: 1 value"):
            gd.arrays(y, [0, 1, 0, 1], value_range=(-1, 1))
    with pytest.raises(DataError, match="black < white"):
        gd.arrays(x, [0, 1, 0, 1], value_range=(1, -1))


def test_uint8_is_not_copied():
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    assert np.shares_memory(gd.arrays(x, [0, 1, 0, 1]).load(2), x)


def test_other_holders_of_arrays():
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 5), dtype=np.uint8)

    class Holder:
        def __array__(self, dtype=None, copy=None):
            return x

    class Capsule:
        def __dlpack__(self, **_):
            return x.__dlpack__()

        def __dlpack_device__(self):
            return (1, 0)

    buffer = memoryview(array.array("B", x.tobytes())).cast("B", x.shape)
    for held in (Holder(), Capsule(), buffer, list(x), x.tolist()):
        if isinstance(held, list) and isinstance(held[0], list):
            held = [np.array(v, np.uint8) for v in held]
        data = gd.arrays(held, [0, 1, 0, 1])
        assert np.array_equal(data.load(3)[:, :, 0], x[3])


def test_images_of_several_sizes_in_a_list():
    data = gd.arrays([picture(i, 5 + i, 7) for i in range(6)], ["a", "b"] * 3)
    assert data.size is None
    assert (data.min_size, data.max_size) == ((5, 7), (10, 7))


def test_labels_as_names_indices_and_wrong():
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 5), dtype=np.uint8)
    assert gd.arrays(x, np.array(["x", "a", "x", "a"])).classes == ("a", "x")
    assert gd.arrays(x, [1, 0, 1, 0], classes=["no", "yes"]).classes == ("no", "yes")
    for bad, words in (
        ([0, 1, 2, 3.5], "floating-point"),
        (np.eye(4), "one-hot"),
        ([0, 1, 2, 5], "out of range 0..3: 5"),
        ([0, 1, None, 1], "label None"),
    ):
        with pytest.raises(DataError, match=words):
            gd.arrays(x, bad, classes=["a", "b", "c", "d"])


def test_arrays_with_splits_of_their_own():
    x = np.random.default_rng(0).integers(0, 256, (12, 5, 5), dtype=np.uint8)
    data = gd.arrays(x[:8], [0, 1] * 4, val_data=(x[8:], [1, 0] * 2))
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 8, "val": 4}
    assert data.ids[8] == "val/0"
    assert np.array_equal(data.load(9)[:, :, 0], x[9])
    with pytest.raises(DataError, match=r"arrays\(…\)"):
        gd.open(data.spec)


# ---- embedded, IDX, CIFAR ----


def test_digits():
    data = gd.digits()
    from sklearn.datasets import load_digits

    got = load_digits()
    assert np.array_equal(data.labels, got.target)
    pixels = np.stack([data.load(i)[:, :, 0] for i in range(len(data))])
    assert np.array_equal(pixels, np.floor(got.images * 255 / 16 + 0.5))
    assert gd.open({"digits": True}, data.manifest()).manifest_digest == data.manifest_digest
    assert len(data.splits["val"]) == 359
    with pytest.raises(DataError, match="takes no path"):
        gd.open({"digits": "x"})


def _idx(array, kind=8):
    head = bytes([0, 0, kind, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def _idx_folder(root, zipped=False):
    rng = np.random.default_rng(0)
    for part, n in (("train", 40), ("t10k", 10)):
        images = rng.integers(0, 256, (n, 4, 5), dtype=np.uint8)
        for what, a in (("images-idx3", images), ("labels-idx1", (np.arange(n) % 4).astype(np.uint8))):
            data = _idx(a)
            name = f"{part}-{what}-ubyte" + (".gz" if zipped else "")
            (root / name).write_bytes(gzip.compress(data) if zipped else data)
    return root


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder(tmp_path, zipped):
    data = gd.resolve(_idx_folder(tmp_path, zipped))
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 36, "val": 4, "test": 10}
    assert (data.classes, data.channels, data.size) == (tuple("0123"), 1, (4, 5))
    assert data.spec == {"idx": str(tmp_path), "val": 0.1, "seed": 0}
    again = gd.open(data.spec, data.manifest())
    assert again.manifest_digest == data.manifest_digest
    assert again.spec == data.spec


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-images-idx3-ubyte", b"", "no IDX file"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0", "truncated within the header"),
        ("train-images-idx3-ubyte", _idx(np.zeros((40, 4, 5), np.uint8))[:-1], "truncated: 799 bytes"),
        ("train-images-idx3-ubyte", _idx(np.zeros((40, 4, 5), np.uint8)) + b"x", "more than the 800"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "the limit is"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0\xff\xff\0\0\0\xff\0\0\0\xff", "truncated"),
        ("train-labels-idx1-ubyte", _idx(np.zeros(39, np.uint8)), "expected 40 integers"),
        ("train-images-idx3-ubyte", _idx(np.zeros((40, 4, 5), ">f4"), 13), "expected uint8 images"),
        (
            "train-images-idx3-ubyte",
            gzip.compress(_idx(np.zeros((40, 4, 5), np.uint8)))[:-9],
            "damaged or truncated gzip",
        ),
    ],
)
def test_idx_files_that_are_wrong(tmp_path, name, content, words):
    _idx_folder(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        gd.idx(tmp_path)


def test_idx_without_labels_and_two_sets(tmp_path):
    _idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").rename(tmp_path / "x")
    with pytest.raises(DataError, match="not its labels"):
        gd.idx(tmp_path)
    (tmp_path / "x").rename(tmp_path / "train-labels-idx1-ubyte")
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(b"x")
    with pytest.raises(DataError, match="several sets"):
        gd.idx(tmp_path)


@pytest.mark.skipif(
    not os.path.isdir("/usr/share/datasets/fashion-mnist"), reason="dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_of_debian():
    data = gd.idx("fashion-mnist", val=0)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 60000, "test": 10000}
    assert data.size == (28, 28)
    assert data.counts("test").tolist() == [1000] * 10


def _cifar_rows(seed, n=6):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), (np.arange(n) % 3).tolist()


def _cifar10(root, binary, protocol=2):
    names = ["air plane", "bird", "cat"]
    for k in range(6):
        name = f"data_batch_{k + 1}" if k < 5 else "test_batch"
        pixels, labels = _cifar_rows(k)
        if binary:
            table = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
            (root / f"{name}.bin").write_bytes(table.tobytes())
        else:
            content = {b"data": pixels, b"labels": labels, b"batch_label": b"x", b"filenames": [b"f"] * 6}
            (root / name).write_bytes(pickle.dumps(content, protocol=protocol))
    if not binary:
        (root / "batches.meta").write_bytes(
            pickle.dumps({"label_names": names, "num_vis": 3072}, protocol=protocol)
        )
    return root


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_cifar10_python_version_equals_the_binary_one(tmp_path, protocol):
    (tmp_path / "py").mkdir()
    (tmp_path / "bin").mkdir()
    python = gd.resolve(_cifar10(tmp_path / "py", False, protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the binary version here has 10 class names for 3 classes
        binary = gd.resolve(_cifar10(tmp_path / "bin", True))
    assert python.classes == ("air plane", "bird", "cat")
    assert python.digests == binary.digests
    assert python.labels.tolist() == binary.labels.tolist()
    assert python.size == (32, 32)
    pixels, _ = _cifar_rows(0)
    assert np.array_equal(python.load(1), pixels[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert {k: len(v) for k, v in python.splits.items()} == {"train": 27, "val": 3, "test": 6}


def test_cifar10_written_by_python_2():
    # what Python 2 wrote: SHORT_BINSTRING and BINSTRING for texts and for the array's content
    pixels = bytes(range(24))
    stream = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x0c\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T\x18\x00\x00\x00" + pixels + b"tbU\x06labels]q\x06(K\x03K\x04eu."
    )
    got = read_stored(stream, "x")
    assert got["labels"] == [3, 4]
    assert np.array_equal(got["data"], np.frombuffer(pixels, np.uint8).reshape(2, 12))


def test_cifar100(tmp_path):
    for name, n in (("train", 12), ("test", 4)):
        pixels, labels = _cifar_rows(n, n)
        content = {"data": pixels, "fine_labels": labels, "coarse_labels": [0] * n}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=4))
    (tmp_path / "meta").write_bytes(
        pickle.dumps({"fine_label_names": ["a", "b", "c"], "coarse_label_names": ["x"]})
    )
    data = gd.cifar(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert len(data) == 16


class _Evil:
    def __reduce__(self):
        return (os.system, ("touch gapless-was-here",))


class _Slots:
    __slots__ = ("a",)


@pytest.mark.parametrize(
    "thing",
    [
        _Evil(),
        [_Evil()],
        {"data": np.array([_Evil()], dtype=object)},
        _Slots(),
        collections.OrderedDict(a=1),
        {1, 2},
        np.zeros(2, [("a", "i4")]),
        complex(1, 2),
        copyreg.dispatch_table,
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_stored_objects_that_could_run_are_refused(thing, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        stream = pickle.dumps(thing, protocol=protocol)
    except (TypeError, pickle.PicklingError):
        pytest.skip("not written in this version")
    with pytest.raises(DataError, match=r"x: (refused|damaged)"):
        read_stored(stream, "x")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("value", [
    None, True, 1, -5, 1 << 40, -(1 << 70), 2.5, "text", "中", b"bytes", [1, [2, "x"]], (1, (2,)),
    {"a": {"b": [1, 2.5, None]}}, np.arange(12, dtype=np.int32).reshape(3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3), np.uint8),
    np.arange(5, dtype=">i4"), bytearray(b"x"), list(range(1000)), {str(k): k for k in range(300)},
])  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_stored_plain_data_comes_back(value, protocol):
    if isinstance(value, bytearray) and protocol < 5:
        return
    got = read_stored(pickle.dumps(value, protocol=protocol), "x")
    if isinstance(value, np.ndarray):
        assert np.array_equal(got, value)
        assert got.shape == value.shape
    else:
        assert got == value


def test_stored_streams_that_never_end_or_are_damaged():
    laughs = (
        b"]"
        + b"q\x00"
        + b"".join(
            b"](" + b"h" + bytes([k]) + (b"h" + bytes([k])) * 9 + b"eq" + bytes([k + 1]) for k in range(60)
        )
        + b"."
    )
    with pytest.raises(DataError, match=r"x: (refused|damaged)"):
        read_stored(laughs, "x")
    loop = b"]q\x00h\x00a."
    with pytest.raises(DataError, match=r"x: (refused|damaged)"):
        read_stored(loop, "x")
    whole = pickle.dumps({"data": np.arange(50, dtype=np.uint8), "labels": list(range(20))}, protocol=2)
    for n in range(len(whole)):
        with pytest.raises(DataError):
            read_stored(whole[:n], "x")


def written():
    """Streams as the format's versions write them."""
    thing = {
        "data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "labels": [1, 2, 3],
        "names": ["a", b"b"],
        "x": 1.5,
    }
    return [pickle.dumps(thing, protocol=p) for p in (0, 2, 4, 5)]


def test_stored_streams_with_flipped_bytes_never_crash():
    whole = pickle.dumps({"data": np.arange(50, dtype=np.uint8), "labels": list(range(20))}, protocol=2)
    rng = np.random.default_rng(1)
    for _ in range(3000):
        bad = bytearray(whole)
        for at in rng.integers(0, len(bad), 2):
            bad[at] = rng.integers(256)
        try:
            read_stored(bytes(bad), "x")
        except DataError:
            continue


# ---- the caller's own code ----


def test_from_callable_with_labels_in_the_images_or_beside():
    load = lambda i: picture(i)
    one = gd.from_callable(range(10), lambda i: (picture(i), i % 2))
    two = gd.from_callable(range(10), load, labels=[i % 2 for i in range(10)])
    assert one.manifest_digest == two.manifest_digest
    assert one.ids[3] == "3"
    assert np.array_equal(one.load(3), picture(3))
    with pytest.raises(DataError, match="from_callable"):
        gd.open(one.spec)


def test_from_callable_takes_pillow_images_and_bytes():
    from PIL import Image

    kinds = [lambda a: a, Image.fromarray, encoded, lambda a: a.transpose(2, 0, 1)]
    data = gd.from_callable(range(8), lambda i: (kinds[i % 4](picture(i)), i % 2))
    assert all(np.array_equal(data.load(i), picture(i)) for i in range(8))


def test_from_callable_must_be_repeatable():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="other pixels when it is loaded again"):
        gd.from_callable(range(4), lambda i: (rng.integers(0, 256, (4, 4), dtype=np.uint8), i % 2))


def test_errors_of_a_callable_make_samples_unreadable():
    def load(i):
        if i == 7:
            raise RuntimeError("disk on fire")
        return picture(i % 50 + i), i % 2

    with pytest.warns(
        gd.DataWarning, match=r"1 of 200 samples cannot be read.*7 \(RuntimeError: disk on fire\)"
    ):
        data = gd.from_callable(range(200), load)
    assert len(data) == 199
    assert [u.id for u in data.unreadable] == ["7"]


def test_from_callable_that_is_wrong():
    for ids, load, more, words in (
        ([1, 1], picture, {}, "more than once"),
        ([], picture, {}, "no samples"),
        ([1, 2], 5, {}, "must be a function"),
        ([1, 2], picture, {"labels": [1]}, "2 ids and 1 labels"),
        ([1, 2], picture, {"layout": "WH"}, "layout"),
    ):
        with pytest.raises(DataError, match=words):
            gd.from_callable(ids, load, **more)
    with pytest.raises(DataError, match=r"expected \(image, label\)"):
        gd.from_callable([1, 2], picture)


def test_from_object_takes_torch_like_sets():
    class Set:
        classes = ["cat", "dog"]  # noqa: RUF012

        def __len__(self):
            return 10

        def __getitem__(self, i):
            return picture(i).transpose(2, 0, 1), np.int64(i % 2)

    data = gd.from_object(Set())
    assert data.classes == ("cat", "dog")
    assert data.size == (12, 16)
    with pytest.raises(DataError, match="__len__"):
        gd.from_object(5)


# ---- specs ----


def test_spec_keys_are_checked_with_the_nearest_name(tmp_path):
    image_folder(tmp_path, {"a": 5, "b": 5})
    for spec, words in (
        ({"folder": str(tmp_path), "splt": [0.8, 0.2]}, "did you mean 'split'"),
        ({"foldr": "x"}, "did you mean 'folder'"),
        ({"folder": "x", "idx": "y"}, "only one source"),
        ({}, "no source"),
        ({"folder": str(tmp_path), "encoding": "x"}, "unknown key 'encoding'"),
        ({"folder": 5}, "data.folder: expected text, got 5"),
        ({"list": [1]}, "data.list: expected a path"),
        ({"list": "x", "encoding": 7}, "data.encoding: expected text"),
    ):
        with pytest.raises(RecipeError, match=words):
            gd.open(spec)


def test_spec_with_relative_paths_and_a_base(tmp_path):
    image_folder(tmp_path / "set", {"a": 5, "b": 5})
    data = gd.open({"folder": "set", "split": [0.6, 0.4], "seed": 3}, base=tmp_path)
    assert data.spec == {"folder": str(tmp_path / "set"), "split": [0.6, 0.4], "seed": 3}
    assert gd.resolve("set", base=tmp_path, split=(0.6, 0.4), seed=3).manifest_digest == data.manifest_digest


def test_resolve_of_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="did you mean 'digits'"):
        gd.resolve("digit")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="no list"):
        gd.resolve(tmp_path / "x.zip")


def test_resolve_of_an_installed_set(tmp_path, monkeypatch):
    from gapless.data.sources import idx as module

    (tmp_path / "shapes").mkdir()
    _idx_folder(tmp_path / "shapes", True)
    monkeypatch.setattr(module, "PLACES", (str(tmp_path),))
    data = gd.resolve("shapes")
    assert data.spec["idx"] == str(tmp_path / "shapes")
    assert gd.idx("shapes").manifest_digest == data.manifest_digest


def test_with_channels_and_classes_beyond(tmp_path):
    data = gd.folder(image_folder(tmp_path, {"a": 5, "b": 5}))
    grey = data.with_channels(1)
    assert grey.load(3).shape == (12, 16, 1)
    assert data.load(3).shape == (12, 16, 3)
    assert grey.manifest_digest != data.manifest_digest
    wide = data.mapped_to(["z", "b", "a"])
    assert wide.counts().tolist() == [0, 5, 5]
    assert data.labels.tolist() == [0] * 5 + [1] * 5


def test_star_import_leaves_open_alone():
    names = {}
    exec("from gapless.data import *", names)
    assert "folder" in names
    assert "open" not in names


def test_repr_and_html_show_classes_and_splits(tmp_path):
    data = gd.folder(image_folder(tmp_path, {"a": 5, "<script>": 5}))
    text = repr(data)
    assert "10 images, 2 classes, 16×12, RGB" in text
    assert "train" in text
    page = data._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
