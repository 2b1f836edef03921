"""A save is whole or absent; damage is refused and its place named; a file executes nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gapless import _files, checkpoint
from gapless._layout import canonical, make_header, parse_header
from gapless.errors import CheckpointError

DOCUMENTS: dict[str, Any] = {
    "recipe": {"epochs": 3, "model": {"name": "lenet"}, "note": "花"},
    "graph": {"format": 1, "nodes": []},
    "manifest": {"format": 1, "classes": ["a", "b"], "samples": {"id": ["x/\udce9.png"]}},
    "history": [{"epoch": 0, "val/top1": 0.5}],
    "records": {},
    "state": {"weights_kind": "raw", "step": 7},
}


def tensors() -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    return {
        "conv1.weight": r.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "bn1.running_var": np.ones(4, np.float32),
        "optim/momentum_buffer/conv1.weight": r.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "ema/conv1.weight": r.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "gapless/train/right": np.arange(6, dtype=np.int8).reshape(2, 3),
        "gapless/train/loss": np.array([[1.0, np.nan]], np.float32),
        "fc.scalar": np.float32(3).reshape(()),
        "fc.nothing": np.zeros((0, 5), np.float32),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, tensors(), DOCUMENTS)
    return path


def seal(arrays: dict[str, np.ndarray], meta: Any, header: bytes | None = None) -> bytes:
    """A file with a right closing digest, whatever else is wrong with it."""
    arrays = {**arrays, "gapless/digest": np.zeros(32, np.uint8)}
    head = header if header is not None else make_header(arrays, {"gapless": canonical(meta)})
    body = head + b"".join(a.tobytes() for n, a in arrays.items() if n != "gapless/digest")
    return body + hashlib.sha256(body).digest()


def good_meta(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    digests = {n: hashlib.sha256(a.tobytes()).hexdigest() for n, a in arrays.items()}
    return {"format": 1, "documents": {}, "digests": digests}


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as e:
        checkpoint.read(path)
    assert path.name in str(e.value)
    return str(e.value)


# -- what was written is what is read --------------------------------------------------------------


def test_round_trip(saved: Path) -> None:
    again = checkpoint.read(saved)
    assert again.documents == DOCUMENTS
    for name, array in tensors().items():
        assert again.tensors[name].dtype == array.dtype
        assert again.tensors[name].shape == array.shape
        assert again.tensors[name].tobytes() == array.tobytes()
    assert set(again.tensors) == set(tensors())
    assert again.digest == hashlib.sha256(saved.read_bytes()[:-32]).hexdigest()
    assert saved.read_bytes()[-32:].hex() == again.digest


def test_views_by_kind(saved: Path) -> None:
    c = checkpoint.read(saved)
    assert set(c.weights() or {}) == {"conv1.weight", "bn1.running_var", "fc.scalar", "fc.nothing"}
    assert set(c.weights("raw") or {}) == set(c.weights() or {})
    assert set(c.weights("ema") or {}) == {"conv1.weight"}
    assert set(c.slots()["momentum_buffer"]) == {"conv1.weight"}
    assert c.recipe["epochs"] == 3
    assert c.state["step"] == 7
    assert not c.tensors["conv1.weight"].flags.writeable


def test_the_safetensors_library_reads_it(saved: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    loaded = library.load_file(saved)
    for name, array in tensors().items():
        assert loaded[name].tobytes() == array.tobytes()
        assert loaded[name].shape == array.shape
    with pytest.importorskip("safetensors").safe_open(saved, framework="np") as f:
        assert list(f.metadata()) == ["gapless"]
        assert json.loads(f.metadata()["gapless"])["format"] == 1


def test_same_content_same_bytes(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "a", tensors(), DOCUMENTS)
    checkpoint.write(tmp_path / "b", tensors(), DOCUMENTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_tensor_stands_at_a_multiple_of_its_item(saved: Path) -> None:
    blob = saved.read_bytes()
    _, entries, data = parse_header(blob, len(blob))
    assert data % 8 == 0
    assert all((data + e.begin) % checkpoint.DTYPES[e.dtype].itemsize == 0 for e in entries)


def test_orders_and_strides_of_memory_do_not_matter(tmp_path: Path) -> None:
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    checkpoint.write(tmp_path / "a", {"w": a.T, "v": a[:, ::2], "b": a.astype(">f4")}, {})
    c = checkpoint.read(tmp_path / "a").tensors
    assert np.array_equal(c["w"], a.T)
    assert np.array_equal(c["v"], a[:, ::2])
    assert np.array_equal(c["b"], a)


# -- damage ----------------------------------------------------------------------------------------


def test_single_bit_flips_are_all_refused(saved: Path, tmp_path: Path) -> None:
    blob = bytearray(saved.read_bytes())
    bits = np.random.default_rng(1).choice(len(blob) * 8, 3000, replace=False)
    named = 0
    for bit in map(int, bits):
        blob[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError) as e:
            checkpoint._parse(np.frombuffer(bytes(blob), np.uint8), saved)
        named += "tensor " in str(e.value) or "header" in str(e.value) or "byte" in str(e.value)
        blob[bit // 8] ^= 1 << bit % 8
    assert named == len(bits)


def test_a_flipped_bit_in_a_weight_names_the_weight(saved: Path, tmp_path: Path) -> None:
    blob = saved.read_bytes()
    _, entries, data = parse_header(blob, len(blob))
    for e in entries[:-1]:
        if e.end > e.begin:
            at = data + e.begin
            damaged = blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]
            assert repr(e.name) in refused(tmp_path / "bad", damaged)


def test_every_truncation_is_refused(saved: Path) -> None:
    blob = np.frombuffer(saved.read_bytes(), np.uint8)
    for n in range(blob.size):
        with pytest.raises(CheckpointError):
            checkpoint._parse(blob[:n].copy(), saved)


def test_appended_bytes_are_refused(saved: Path, tmp_path: Path) -> None:
    assert "belong to none" in refused(tmp_path / "bad", saved.read_bytes() + b"\0")


def test_foreign_files(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    assert "pretrained=" in refused(tmp_path / "a", library.save({"w": np.zeros(9, np.float32)}))
    assert "PyTorch" in refused(tmp_path / "b", b"PK\x03\x04" + bytes(100))
    assert "0 bytes" in refused(tmp_path / "c", b"")
    assert "header" in refused(tmp_path / "d", b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(FileNotFoundError):
        checkpoint.read(tmp_path / "nowhere")
    with pytest.raises((CheckpointError, IsADirectoryError)):
        checkpoint.read(tmp_path)


# -- hostile files, rightly sealed -----------------------------------------------------------------

W = {"w": np.arange(4, dtype=np.float32)}


def raw_header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def rows(
    w: str = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}', more: str = "", begin: int = 16
) -> str:
    meta = json.dumps(canonical(good_meta(W)))
    last = f'"gapless/digest":{{"dtype":"U8","shape":[32],"data_offsets":[{begin},{begin + 32}]}}'
    return f'{{"__metadata__":{{"gapless":{meta}}},"w":{w},{more}{last}}}'


def test_the_hostile_template_itself_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(seal(W, None, raw_header(rows())))
    assert np.array_equal(checkpoint.read(tmp_path / "a").tensors["w"], W["w"])


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (rows(more='"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'), "stands twice"),
        (rows('{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}'), "stands twice"),
        (rows('{"dtype":"F32","shape":[4],"data_offsets":[0,16],"run":"os.system"}'), "nothing else"),
        (rows('{"dtype":"F31","shape":[4],"data_offsets":[0,16]}'), "unknown dtype"),
        (rows('{"dtype":["F32"],"shape":[4],"data_offsets":[0,16]}'), "unknown dtype"),
        (rows('{"dtype":"F32","shape":[5],"data_offsets":[0,16]}'), "takes 20 bytes"),
        (rows('{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}'), "shape"),
        (rows('{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}'), "shape"),
        (rows('{"dtype":"F32","shape":[true,4],"data_offsets":[0,16]}'), "shape"),
        (rows('{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]}'), "shape"),
        (rows('{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}'), "shape"),
        (rows('{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}'), "bytes"),
        (rows('{"dtype":"F32","shape":[4],"data_offsets":[16,32]}'), "hole"),
        (rows(begin=12), "overlaps"),
        (rows('{"dtype":"F32","shape":[4],"data_offsets":[4,20]}'), "hole"),
        (rows('{"dtype":"F32","shape":[4],"data_offsets":[16,0]}'), "bytes"),
        (rows('{"dtype":"F32","shape":[4],"data_offsets":[0]}'), "data_offsets"),
        (rows('{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}'), "tensor"),
        (rows("3"), "must have dtype"),
        (rows(begin=20), "hole"),
        (rows().replace('"w"', '"w\\u0000"', 1), "name"),
        (rows()[:-1], "not JSON"),
        (rows().replace("[4]", "[NaN]"), "not a JSON value"),
        ("[" * 100_000, "begin with '{'"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested"),
        ('{"a":' + "9" * 5000 + "}", "header"),
        ("{}", "belong to none"),
        ('{"__metadata__":{"gapless":"[]"}}', "belong to none"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: str, words: str) -> None:
    assert words in refused(tmp_path / "bad", seal(W, None, raw_header(header)))


@pytest.mark.parametrize("length", [0, 1, 10**8 + 1, 2**31, 2**63, 2**64 - 1])
def test_hostile_header_lengths(tmp_path: Path, saved: Path, length: int) -> None:
    body = struct.pack("<Q", length) + saved.read_bytes()[8:-32]
    assert "byte" in refused(tmp_path / "bad", body + hashlib.sha256(body).digest())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "newer"),
        ({"format": "1"}, "no format number"),
        ({"more": 1}, "nothing else"),
        ({"digests": {}}, "do not agree on 'w'"),
        ({"digests": {"w": "0" * 64}}, "tensor 'w' (bytes"),
        ({"documents": {"exec": {"tensor": "w", "bytes": 4}}}, "unknown document"),
        ({"documents": {"recipe": {"tensor": "w", "bytes": 4}}}, "must be the tensor"),
        ({"documents": {"recipe": None}}, "must be the tensor"),
    ],
)
def test_hostile_metadata(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    assert words in refused(tmp_path / "bad", seal(W, {**good_meta(W), **change}))


@pytest.mark.parametrize(
    ("packed", "stated", "words"),
    [
        (zlib.compress(bytes(50_000_000)), 10, "does not unpack"),
        (zlib.compress(b"{}"), 3, "does not unpack"),
        (zlib.compress(b"{}") + b"more", 2, "does not unpack"),
        (zlib.compress(b"{}")[:-2], 2, "does not unpack"),
        (zlib.compress(b"{}"), 1 << 40, "length"),
        (zlib.compress(b"{}"), 0, "length"),
        (b"not zlib", 8, "not zlib"),
        (zlib.compress(b'{"a":1,"a":2}'), 13, "stands twice"),
        (zlib.compress(b'{"a":Infinity}'), 14, "not a JSON value"),
        (zlib.compress(b"\xff\xff"), 2, "UTF-8"),
    ],
)
def test_hostile_documents(tmp_path: Path, packed: bytes, stated: int, words: str) -> None:
    arrays = {**W, "gapless/recipe": np.frombuffer(packed, np.uint8)}
    meta = {**good_meta(arrays), "documents": {"recipe": {"tensor": "gapless/recipe", "bytes": stated}}}
    assert words in refused(tmp_path / "bad", seal(arrays, meta))


def test_non_finite_weights_are_refused_both_ways(tmp_path: Path) -> None:
    bad = np.array([[1, 2], [np.inf, np.nan]], np.float32)
    with pytest.raises(
        CheckpointError, match=r"'fc.weight': 2 of 4 values are not finite, the first at \[1, 0\]"
    ):
        checkpoint.write(tmp_path / "a", {"fc.weight": bad}, {})
    assert list(tmp_path.iterdir()) == []
    arrays = {"fc.weight": bad}
    assert "not finite" in refused(tmp_path / "b", seal(arrays, good_meta(arrays)))


def test_what_cannot_be_stored_says_so(tmp_path: Path) -> None:
    for arrays, documents in (
        ({"w": np.zeros(2, complex)}, {}),
        ({"": np.zeros(2)}, {}),
        ({"gapless/digest": np.zeros(32, np.uint8)}, {}),
        ({}, {"history": [float("nan")]}),
        ({}, {"recipe": {"f": print}}),
    ):
        with pytest.raises(CheckpointError):
            checkpoint.write(tmp_path / "a", arrays, documents)
    assert list(tmp_path.iterdir()) == []


# -- saving is atomic ------------------------------------------------------------------------------


def check_refused_save(path: Path, error: int) -> None:
    before = path.read_bytes()
    with pytest.raises(CheckpointError) as e:
        checkpoint.write(path, tensors(), DOCUMENTS)
    assert isinstance(e.value, OSError)
    assert e.value.errno == error
    assert e.value.filename == str(path)
    assert str(path) in str(e.value)
    assert "bytes" in str(e.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_size_limit_leaves_the_old_file(saved: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, saved.stat().st_size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            check_refused_save(saved, errno.EFBIG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
    checkpoint.write(saved, tensors(), DOCUMENTS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    real = os.write
    monkeypatch.setattr(_files.os, "write", lambda fd, data: real(full, data))
    check_refused_save(saved, errno.ENOSPC)
    os.close(full)


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_any_refusing_system_call_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*args: Any, **kw: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as m:
        m.setattr(_files.os, call, refuse)
        check_refused_save(saved, errno.EROFS)


def test_a_read_only_directory(tmp_path: Path) -> None:
    folder = tmp_path / "ro"
    folder.mkdir()
    path = folder / "a.safetensors"
    checkpoint.write(path, tensors(), DOCUMENTS)
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):  # root may write anywhere; the kernel's own tree refuses even root
            path = Path("/sys/a.safetensors")
            with pytest.raises(CheckpointError, match=r"/sys/a\.safetensors") as e:
                checkpoint.write(path, tensors(), DOCUMENTS)
            assert isinstance(e.value, OSError)
        else:
            check_refused_save(path, errno.EACCES)
    finally:
        folder.chmod(0o755)


def test_a_disk_that_returns_other_bytes_is_noticed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    real = os.write

    def lying(fd: int, data: Any) -> int:
        copy = bytearray(data)
        copy[len(copy) // 2] ^= 1
        return real(fd, copy)

    monkeypatch.setattr(_files.os, "write", lying)
    with pytest.raises(CheckpointError):
        checkpoint.write(saved, tensors(), DOCUMENTS)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_an_interrupt_while_saving_leaves_no_trace(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(saved, tensors(), DOCUMENTS)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_system_calls_come_in_the_safe_order(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            _files.os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1]
        )
    real_load = checkpoint._load
    monkeypatch.setattr(checkpoint, "_load", lambda path: (calls.append("read"), real_load(path))[1])
    checkpoint.write(saved, tensors(), DOCUMENTS)
    assert calls == ["fsync", "read", "replace", "fsync"]


SAVER = """
import sys, numpy as np
from gapless import checkpoint
w = np.full(300_000, 1, np.float32)
for k in range(1, 1_000_000):
    checkpoint.write(sys.argv[1], {"w": w * k, "v": w * k}, {"state": {"weights_kind": "raw", "k": k}})
    print(k, flush=True)
"""


def test_kill_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    assert kill_while_saving(tmp_path, 30, seed=2) == 30
    path = tmp_path / "last.safetensors"
    checkpoint.write(path, tensors(), DOCUMENTS)
    assert list(tmp_path.iterdir()) == [path], "what killed writers left is swept by the next write"


def test_a_living_writer_is_not_swept(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def pieces() -> Any:
        yield b"first"
        checkpoint.write(path, tensors(), DOCUMENTS)  # another writer of the same file, meanwhile
        yield b"second"

    _files.write_atomic(path, pieces())
    assert path.read_bytes() == b"firstsecond"
    assert list(tmp_path.iterdir()) == [path]


def kill_while_saving(folder: Path, kills: int, seed: int) -> int:
    """Kill a saving process at random moments; every time the newest or the one before it must load. Kills
    made."""
    path = folder / "last.safetensors"
    for delay in np.random.default_rng(seed).uniform(0, 0.03, kills):
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said = int(child.stdout.readline())
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        said = max([said, *map(int, rest.split("\n")[:-1])])
        c = checkpoint.read(path)
        assert c.state["k"] >= said, "a checkpoint that was said to be saved was lost"
        assert (c.tensors["w"] == c.state["k"]).all()
        assert (c.tensors["v"] == c.state["k"]).all()
    return kills


if __name__ == "__main__":  # python tests/py/test_checkpoint.py 500; fuzzing: tests/fuzz.py
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        print(json.dumps({"kills": kill_while_saving(Path(place), int(sys.argv[1]), seed=1), "damaged": 0}))
