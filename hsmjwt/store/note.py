"""Notes beside the tokens of a cache folder: copies that the command line's shortest road serves (see cli/quick.py).

A note names the state of the token's file that it was made from, so that one which outlived its token serves nobody.
Still it holds an access token, and goes with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from hsmjwt.private import open_file
from hsmjwt.store.record import Bad, load_file

_PREFIX = "quick"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def leave(folder: int, key: str, value: str, name: str, text: Callable[[str, os.stat_result], str]) -> None:
    """Write the note `name`, if the access token `value` lies under the key; `text` gets its file's name and status.

    A cache that is cleared meanwhile keeps none. Raises OSError where it cannot be written.
    """
    try:
        record, status = load_file(folder, key)
    except (Bad, FileNotFoundError):
        return
    if record.token.value != value:  # another process fetched a newer one
        return
    temporary = f"{name}.{os.urandom(8).hex()}.tmp"
    fd = open_file(temporary, _NEW, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text(f"{key}.json", status).encode("ascii"))
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        prune(folder, [name])
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def clear(folder: int, names: Iterable[str]) -> None:
    """Remove all notes, and what a killed writer left: whom they serve is not worth a look, they are soon back."""
    for name in names:
        if is_note(name):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(name, dir_fd=folder)


def prune(folder: int, names: Iterable[str]) -> None:
    """Remove the notes whose token is gone or another one."""
    for name in names:
        if is_note(name) and not _holds(folder, name):
            with contextlib.suppress(OSError):  # the next one will
                os.unlink(name, dir_fd=folder)


def is_note(name: str) -> bool:
    """Tell whether a file of the folder is a note, whole or half written."""
    return name == _PREFIX or name.startswith((f"{_PREFIX}-", f"{_PREFIX}."))


def _holds(folder: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with os.fdopen(fd, "rb") as file:
            source = file.read().split(b"\n")[1].decode("ascii").split(" ")
        status = os.lstat(source[0], dir_fd=folder)
    except (OSError, ValueError, IndexError):
        return False
    return source[2:3] == [str(status.st_ino)] and source[4:5] == [str(status.st_mtime_ns)]
