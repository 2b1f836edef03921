"""Looking at every sample once before training: is it readable, how large is it, what are its pixels.

What was found out about a file is kept in a cache, under the file's path, size, modification time and inode,
so that a second start is quick. The cache is a convenience: it is checked when it is read, and left aside
when anything about it is not in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.data import decode
from gapless.data.sources import Listing
from gapless.errors import DataError

__all__ = ["Scan", "cache_folder", "pixel_digest", "scan", "usable_cpus"]

_HEAD = b"gapless scan 1 "
_COARSE, _FINE = 2_000_000_000, 50_000_000  # ns: how young a file may look and yet be written again unnoticed


@dataclass
class Scan:
    """What is known of each sample of a listing, by position."""

    size: NDArray[np.int64]  # (n, 3): height, width, channels; zeros where unreadable
    flags: NDArray[np.int64]  # bits of decode.ALPHA …
    digest: list[str]  # of the decoded pixels
    reason: list[str]  # why it cannot be read; empty: it can
    fresh: int  # how many were read now, not taken from the cache


Row = tuple[int, int, int, int, str, str]  # height, width, channels, flags, digest, reason


def pixel_digest(image: NDArray[np.uint8]) -> str:
    """128 bits of SHA-256 over shape and pixels, in hex.

    Examples
    --------
    >>> pixel_digest(np.zeros((2, 2, 1), np.uint8))
    '1c779f52cf49ae2549622576e57ba0a7'
    """
    h = hashlib.sha256(b"%d %d %d " % image.shape)
    h.update(np.ascontiguousarray(image).data)
    return h.hexdigest()[:32]


def usable_cpus() -> int:
    """CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def cache_folder() -> Path:
    """Where gapless keeps what it can find out again: ``GAPLESS_CACHE``, else the user's cache folder."""
    own = os.environ.get("GAPLESS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gapless"


def scan(
    listing: Listing,
    *,
    max_pixels: int = decode.MAX_PIXELS,
    progress: bool | None = None,
    threads: int | None = None,
) -> Scan:
    """Read every sample of a listing once, in threads; files that the cache knows are not read.

    Parameters
    ----------
    listing : Listing
    max_pixels : int
        Larger pictures count as unreadable.
    progress : bool, optional
        Show a bar; default: on a terminal or in a notebook.
    threads : int, optional
        Default: one per CPU.
    """
    n = len(listing.ids)
    rows: list[Row | None] = [None] * n
    if listing.paths is None:
        if hasattr(listing.reader, "parts"):
            return _collect([*_rows_of_arrays(listing.reader.parts)], n)
        return _collect(
            rows, _run(range(n), lambda i: _row_of(listing.reader, i), rows, progress, threads, listing)
        )
    cache = _Cache(listing.root, max_pixels)
    stats = [_stat(p) for p in listing.paths]
    now = time.time_ns()
    for i, (path, stat) in enumerate(zip(listing.paths, stats, strict=True)):
        rows[i] = cache.get(path, stat)
    todo = [i for i in range(n) if rows[i] is None]
    paths = listing.paths

    def look(i: int) -> Row:
        try:
            image, flags = decode.read_flags(paths[i], max_pixels=max_pixels)
        except decode.DecodeError as e:
            return (0, 0, 0, 0, "", e.reason)
        h, w, c = image.shape
        return (h, w, c, flags, pixel_digest(image), "")

    try:
        fresh = _run(todo, look, rows, progress, threads, listing)
    finally:  # what was read before an interruption need not be read again
        if todo:
            found = (
                (paths[i], stats[i], rows[i])
                for i in todo
                if rows[i] is not None and stats[i] == _stat(paths[i]) and not _young(stats[i], now)
            )
            cache.put(found, set(paths))
    return _collect(rows, fresh)


def _rows_of_arrays(parts: Sequence[Any]) -> Iterator[Row]:
    """As `_row_of` for arrays in memory, without a call per image: there are often many small ones."""
    for part in parts:
        for image in part:
            h, w, c = image.shape
            yield (
                h,
                w,
                c,
                0,
                hashlib.sha256(b"%d %d %d " % (h, w, c) + image.tobytes()).hexdigest()[:32],
                "",
            )


def _row_of(reader: Any, i: int) -> Row:
    try:
        image = reader.read(i)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as e:
        reason = e.reason if isinstance(e, decode.DecodeError) else f"{type(e).__name__}: {e}"
        return (0, 0, 0, 0, "", reason)
    h, w, c = image.shape
    return (h, w, c, 0, pixel_digest(image), "")


def _collect(rows: list[Row | None], fresh: int) -> Scan:
    done = [r for r in rows if r is not None]
    if len(done) != len(rows):
        raise DataError("scan: not every sample was looked at")
    return Scan(
        size=np.array([r[:3] for r in done], np.int64).reshape(-1, 3),
        flags=np.array([r[3] for r in done], np.int64),
        digest=[r[4] for r in done],
        reason=[r[5] for r in done],
        fresh=fresh,
    )


def _run(
    todo: Sequence[int],
    look: Callable[[int], Row],
    rows: list[Row | None],
    progress: bool | None,
    threads: int | None,
    listing: Listing,
) -> int:
    """Fills rows; threads take samples in groups so that the bar and Ctrl-C stay quick."""
    if not todo:
        return 0
    if getattr(listing.reader, "in_memory", False):
        for i in todo:
            rows[i] = look(i)
        return len(todo)
    stop = threading.Event()

    def some(part: Sequence[int]) -> int:
        for k, i in enumerate(part):
            if stop.is_set():
                return k
            rows[i] = look(i)
        return len(part)

    size = max(1, min(64, len(todo) // 64))
    parts = iter([todo[k : k + size] for k in range(0, len(todo), size)])
    workers = max(1, threads or usable_cpus())
    with _bar(len(todo), listing, progress) as bar, ThreadPoolExecutor(workers, "gapless-scan") as pool:
        try:
            running = {pool.submit(some, p) for _, p in zip(range(2 * workers), parts, strict=False)}
            while running:
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for f in done:
                    bar.update(f.result())
                    running |= {pool.submit(some, p) for _, p in zip(range(1), parts, strict=False)}
        finally:
            stop.set()
    return len(todo)


class _NoBar:
    def update(self, n: int) -> None:
        del n


@contextlib.contextmanager
def _bar(total: int, listing: Listing, progress: bool | None) -> Iterator[Any]:
    if progress is None:
        progress = "ipykernel" in sys.modules or sys.stderr.isatty()
    if not progress:
        yield _NoBar()
        return
    from tqdm import tqdm

    where = os.path.basename(listing.root) or listing.kind
    with tqdm(total=total, desc=f"reading {where}", unit=" images", delay=0.3, leave=False) as bar:
        yield bar


Stat = tuple[int, int, int]  # size, mtime_ns, inode


def _stat(path: str) -> Stat | None:
    try:
        st = os.stat(path)
    except OSError:
        return None
    return (st.st_size, st.st_mtime_ns, st.st_ino)


def _young(stat: Stat | None, now: int) -> bool:
    """Whether the file was written so shortly ago that another write could leave its time as it is."""
    if stat is None:
        return True
    margin = _COARSE if stat[1] % 1_000_000_000 == 0 else _FINE
    return stat[1] > now - margin


class _Cache:
    """One file per root: a line with a digest, then compressed JSON that the digest covers."""

    def __init__(self, root: str, max_pixels: int) -> None:
        self.file = cache_folder() / f"scan-{hashlib.sha256(os.fsencode(root)).hexdigest()[:20]}"
        self.key = [decode.RULES, max_pixels]
        self.rows: dict[str, list[Any]] = self._read()

    def _read(self) -> dict[str, list[Any]]:
        try:
            data = self.file.read_bytes()
            head, body = data[: len(_HEAD) + 65], data[len(_HEAD) + 65 :]
            if head != _HEAD + hashlib.sha256(body).hexdigest().encode() + b"\n":
                return {}
            got = json.loads(zlib.decompress(body))
        except (OSError, ValueError, zlib.error):
            return {}
        if got.get("key") != self.key:
            return {}
        rows = got["rows"]
        return rows if isinstance(rows, dict) else {}

    def get(self, path: str, stat: Stat | None) -> Row | None:
        row = self.rows.get(path)
        if row is None or stat is None or row[:3] != list(stat):
            return None
        h, w, c, flags, digest, reason = row[3:]
        return (h, w, c, flags, digest, reason)

    def put(self, found: Iterator[tuple[str, Stat | None, Row | None]], paths: set[str]) -> None:
        """Adds rows and writes the file whole; a cache that cannot be written is no error."""
        if len(self.rows) > 2 * len(paths) + 1000:  # most are of files that are gone
            self.rows = {p: r for p, r in self.rows.items() if p in paths}
        for path, stat, row in found:
            if stat is not None and row is not None and not row[5].startswith("cannot be read"):
                self.rows[path] = [*stat, *row]
        body = zlib.compress(
            json.dumps({"key": self.key, "rows": self.rows}, separators=(",", ":")).encode(), 1
        )
        temporary = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(prefix=self.file.name, dir=self.file.parent)
            with os.fdopen(fd, "wb") as f:
                f.write(_HEAD + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            os.replace(temporary, self.file)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
