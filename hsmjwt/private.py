"""Folders and files for us alone, whatever the umask: one such as 0777 would keep ourselves out of what we make."""

from __future__ import annotations

import contextlib
import os


def make_folder(path: str) -> None:
    """Make a folder where it is missing, and those above it, with mode 0700 (XDG Base Directory Specification).

    What is there already stays as it is. Raises OSError.
    """
    try:
        _make_one(path)
    except FileNotFoundError:
        above = os.path.dirname(path.rstrip("/"))
        if above in ("", path):
            raise
        make_folder(above)
        _make_one(path)


def open_file(path: str, flags: int, *, dir_fd: int | None = None) -> int:
    """Open a file of ours, made with mode 0600 where the flags ask for it; returns a descriptor. Raises OSError."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        if os.fstat(fd).st_mode & 0o600 != 0o600:
            os.fchmod(fd, 0o600)
    except OSError:
        os.close(fd)
        raise
    return fd


def _make_one(path: str) -> None:
    with contextlib.suppress(FileExistsError):  # another process may be as fast
        os.mkdir(path, 0o700)
        if os.stat(path).st_mode & 0o700 != 0o700:
            os.chmod(path, 0o700)
