"""Writing files so that they are whole or absent: temporary name, fsync, check, rename, fsync of the
directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["write_atomic", "write_text_atomic"]

Buffer = bytes | bytearray | memoryview


def write_atomic(
    path: str | os.PathLike[str],
    pieces: Iterable[Buffer],
    *,
    verify: Callable[[Path], None] | None = None,
    durable: bool = True,
) -> None:
    """Replace `path` by the concatenation of `pieces`, wholly or not at all.

    The bytes go to a temporary file of the same directory, which is renamed over `path` when they are all
    there.
    Whatever goes wrong, a file that was there before is left as it was, and no temporary file stays behind;
    one that a killed process left is removed by the next write of the same file.

    Parameters
    ----------
    path : path
        The file to write or replace; its directory must exist.
    pieces : iterable of bytes
        Written one after the other.
    verify : callable, optional
        Called with the temporary file's path after its bytes are on the disk; if it raises, nothing is
        renamed.
    durable : bool, default True
        Wait for the disk (fsync of file and directory). False for files that can be made again, such as
        pictures.

    Raises
    ------
    OSError
        Disk full, read-only, quota, no such directory …: from the system, as it is.
    """
    target = Path(path)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        fd = _open_locked(temporary)
        try:
            for piece in pieces:
                _write_all(fd, piece)
            if durable:
                os.fsync(fd)
            if verify is not None:
                if durable and hasattr(os, "posix_fadvise"):  # read it back from the disk, not from the cache
                    with contextlib.suppress(OSError):
                        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                verify(temporary)
            os.replace(temporary, target)
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        _sync_directory(target.parent)


def write_text_atomic(path: str | os.PathLike[str], text: str, *, durable: bool = False) -> None:
    """Replace `path` by `text` in UTF-8, wholly or not at all (lone surrogates of odd file names are
    kept)."""
    write_atomic(path, [text.encode("utf-8", "surrogateescape")], durable=durable)


def _open_locked(path: Path) -> int:
    """A new file that this process holds a lock on, so that a sweep can tell a live writer from a dead
    one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    with contextlib.suppress(OSError):  # file systems without locks
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _write_all(fd: int, piece: Buffer) -> None:
    view = memoryview(piece)
    if view.nbytes == 0:
        return
    view = view.cast("B")
    while view:
        view = view[os.write(fd, view[: 1 << 24]) :]


def _sweep(target: Path) -> None:
    """Remove temporary files of this target whose writer is dead (killed while saving)."""
    try:
        names = os.listdir(target.parent)
    except OSError:
        return
    for name in names:
        if not (name.startswith(f".{target.name}.") and name.endswith(".tmp")):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(target.parent / name, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the writer lives
                os.unlink(target.parent / name)
            finally:
                os.close(fd)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it for directories
            os.fsync(fd)
    finally:
        os.close(fd)
