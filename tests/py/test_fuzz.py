"""A slice of tests/fuzz.py: damaged and hostile input is read or refused with a message, nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import fuzz

SLOW = {"recipe": 100, "documents": 60}
# whatever stands there, there is an orientation; wrong lines of labels are counted
NEVER_REFUSED = {"exif", "yolo.label"}


@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_reader_reads_or_refuses(name: str, tmp_path: Path) -> None:
    n = SLOW.get(name, 300)
    done = fuzz.fuzz(name, n, seed=1, folder=tmp_path)
    assert not done.failures, done.failures[0]
    assert done.read + done.refused == n
    assert done.refused > n // 4 or name in NEVER_REFUSED
    assert done.slowest < fuzz.SECONDS


def test_a_reader_that_dies_or_hangs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(data: bytes) -> None:
        raise IndexError

    monkeypatch.setitem(fuzz.READERS, "dies", lambda folder: fuzz.Reader([b"some input"], dies))
    done = fuzz.fuzz("dies", 10, seed=0, folder=tmp_path)
    assert len(done.failures) == 1
    assert "IndexError" in done.failures[0][1]
    monkeypatch.setattr(fuzz, "SECONDS", 0.0)
    monkeypatch.setitem(
        fuzz.READERS, "slow", lambda folder: fuzz.Reader([b"x"], lambda data: sum(range(1000)))
    )
    assert "processor time" in fuzz.fuzz("slow", 1, seed=0, folder=tmp_path).failures[0][1]
