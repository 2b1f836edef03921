"""Damaged and random input to the readers: a clear error or a result, never another exception, never a hang.

A slice runs with the suite; ``GAPLESS_FUZZ=1000000 pytest tests/py/test_data_fuzz.py`` runs that many each.
"""

from __future__ import annotations

import gzip
import os
import time
import warnings

import numpy as np
import pytest
from data_fixtures import encoded, picture

import gapless.data as gd
from gapless.data.decode import DecodeError, decode, exif_orientation
from gapless.data.sources import list_file
from gapless.data.sources.idx import read_idx
from gapless.errors import GaplessError

N = int(os.environ.get("GAPLESS_FUZZ", "300"))


def _spoiled(rng, data):
    """Bytes changed, cut, doubled, filled with what a parser may stumble over."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(out) + 1))
        kind = int(rng.integers(6))
        if kind == 0 and out:
            out[min(at, len(out) - 1)] = int(rng.integers(256))
        elif kind == 1:
            del out[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            out[at:at] = out[: int(rng.integers(1, 20))]
        elif kind == 3:
            out[at : at + 4] = bytes([255]) * 4
        elif kind == 4:
            out[at:at] = [b"\0", b"\n", b'"', b",", b" ", b"\xff\xfe", "é".encode(), b"-1", b"\r"][
                int(rng.integers(9))
            ]
        else:
            del out[at:]
    return bytes(out)


def _fuzz(seed, examples, read, allowed):
    rng = np.random.default_rng(seed)
    read_whole = refused = 0
    for k in range(N):
        data = _spoiled(rng, examples[k % len(examples)])
        began = time.perf_counter()
        try:
            read(data)
            read_whole += 1
        except allowed:
            refused += 1
        assert time.perf_counter() - began < 1.0
    assert refused > 0
    assert read_whole + refused == N


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path, zipped):
    body = bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 3]) + bytes(60)
    file = tmp_path / "x"

    def read(data):
        file.write_bytes(data)
        read_idx(file)

    _fuzz(0, [gzip.compress(body) if zipped else body], read, GaplessError)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "a/b c.png cat\nx.jpg dog\n# note\n中.png 猫\n"),
        ("n.txt", "a.png 0\nb.png 1\nc.png 2\n"),
        ("t.csv", 'path,label,split,who\n"a, b.png",cat,train,x\nc.png,dog,val,y\n'),
        ("t.tsv", "image\tclass\na.png\tcat\nb.png\tdog\n"),
    ],
)
def test_lists(tmp_path, name, text):
    def read(data):
        (tmp_path / name).write_bytes(data)
        list_file.listing(tmp_path / name)

    _fuzz(1, [text.encode()], read, GaplessError)


def test_pictures():
    kinds = [encoded(picture(1), k) for k in ("JPEG", "PNG", "BMP", "WEBP")]
    kinds.append(encoded(picture(1), "JPEG", progressive=True))
    _fuzz(2, kinds, lambda d: decode(d, max_pixels=1 << 22), DecodeError)


def test_exif():
    entries = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x0f\x01\x02\0\x03\0\0\0\x26\0\0\0"
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)
    rng = np.random.default_rng(3)
    found = {exif_orientation(_spoiled(rng, block)) for _ in range(N)}
    assert found <= set(range(1, 9))


def test_stored_streams():
    from test_data_sources import read_stored, written

    _fuzz(4, written(), lambda d: read_stored(d, "x"), GaplessError)


def test_manifests():
    import copy
    import json

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = gd.arrays(np.random.default_rng(0).integers(0, 256, (6, 3, 3), dtype=np.uint8), [0, 1] * 3)
    whole = data.manifest()
    rng = np.random.default_rng(5)
    odd = [None, -1, "x", [], {}, 1.5, True, [1], {"a": 1}, 1 << 70]
    refused = 0
    for _ in range(N):
        bad = copy.deepcopy(whole)
        place = bad["samples"] if rng.integers(2) else bad
        key = list(place)[int(rng.integers(len(place)))]
        value = odd[int(rng.integers(len(odd)))]
        if isinstance(place[key], list) and place[key] and rng.integers(2):
            place[key][int(rng.integers(len(place[key])))] = value
        else:
            place[key] = value
        try:
            data.with_manifest(json.loads(json.dumps(bad)))
        except GaplessError:
            refused += 1
    assert refused > N // 4
