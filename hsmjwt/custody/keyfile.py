"""The file that a key came in: who else may read it, and how it goes once the key is on a token."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from hsmjwt.errors import ConfigError, UsageError

_CHUNK = 65536


def read_by_others(path: str) -> str | None:
    """Return a warning where others may read the file, None where not, or where that cannot be told."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or not mode & 0o044:
        return None
    return f"warning: '{path}' is readable by others (mode {mode:04o}): they may have the key, too"


def check_removable(path: str) -> None:
    """Raise UsageError for what is not to be overwritten, ConfigError for what cannot be, before anything is done."""
    try:
        status = os.lstat(path)
    except OSError as error:
        raise _unremoved(path, error) from None
    if stat.S_ISLNK(status.st_mode):
        raise UsageError(
            f"'{path}' is a symbolic link, and --remove-file would leave what it leads to",
            hint=f"name the file itself: {os.path.realpath(path)}",
        )
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"'{path}' is no regular file, and --remove-file can remove no other", hint="leave it out")
    if status.st_nlink > 1:
        raise UsageError(
            f"'{path}' has {status.st_nlink} names (hard links), and --remove-file would empty it under all of them",
            hint="remove the others first, or leave --remove-file out",
        )
    folder = os.path.dirname(path) or "."
    for each, mode in ((path, os.W_OK), (folder, os.W_OK | os.X_OK)):
        if not os.access(each, mode):
            raise ConfigError(
                f"'{path}' cannot be removed: '{each}' cannot be written",
                hint="nothing was changed; --remove-file asks it",
            )


def remove(path: str, data: bytes) -> None:
    """Overwrite the file with random bytes, have them on the disk, and unlink it.

    It must still hold `data`, which was read from it, or it stays as it is. Raises ConfigError where it is still there.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or _content(fd, len(data) + 1) != data:
                raise ConfigError(f"'{path}' was changed meanwhile, and was not removed", hint=_BY_HAND)
            os.lseek(fd, 0, os.SEEK_SET)
            _write(fd, len(data), os.urandom)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.unlink(path)
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _unremoved(path, error) from None


_BY_HAND = "the key is on the token; remove the file by hand: shred -u FILE"


def _content(fd: int, most: int) -> bytes:
    data = b""
    while len(data) < most and (chunk := os.read(fd, most - len(data))):
        data += chunk
    return data


def _write(fd: int, size: int, source: Callable[[int], bytes]) -> None:
    while size:
        size -= os.write(fd, source(min(size, _CHUNK)))


def _unremoved(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"'{path}' cannot be removed: {(error.strerror or 'unknown reason').lower()}", hint=_BY_HAND)
