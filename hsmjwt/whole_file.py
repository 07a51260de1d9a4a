"""Files that are there whole or not at all, whatever strikes while they are written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from hsmjwt.private import open_file

_NEW = ".new"  # behind the name of what is being written


def replace(path: str, data: bytes, mode: int, *, like: os.stat_result | None = None) -> None:
    """Write a file and put it in the place of the one at `path`, on the disk before this returns. Raises OSError.

    `like` is what the old one was: the new one belongs to the same user and group. One writer at a time may call this.
    """
    with beside(path, data, mode, like=like) as fresh:
        os.replace(fresh, path)
    sync_folder(os.path.dirname(path) or ".")


@contextlib.contextmanager
def beside(path: str, data: bytes, mode: int, *, like: os.stat_result | None = None) -> Iterator[str]:
    """Write a file that is to take the place of the one at `path`; the block gets its name, and renames it.

    It is on the disk then, and removed after the block where it still has that name. See `replace`.
    """
    fresh = path + _NEW
    with contextlib.suppress(FileNotFoundError):  # of one that was interrupted
        os.unlink(fresh)
    try:
        with open(open_file(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW), "wb") as file:
            made = os.fstat(file.fileno())
            if like is not None and (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        yield fresh
    finally:
        with contextlib.suppress(OSError):
            os.unlink(fresh)


def sync_folder(folder: str) -> None:
    """Have the names in a folder on the disk, as far as its file system can: the files' own text is there already."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
