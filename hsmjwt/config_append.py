"""Text at the end of a config file: what stands there is never written again, and two at once lose nothing.

The file is opened for appending, so the old bytes stay where they are whatever happens; a lock keeps two of us apart.
What the file would be is read as a whole before the first byte is written, and what was written in part is cut off
again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from hsmjwt import config, file_lock
from hsmjwt.config import Settings
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.private import make_folder, open_file
from hsmjwt.whole_file import sync_folder

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ELSEWHERE = "--config FILE or HSMJWT_CONFIG names another one"


def place(flag: str | None, environ: Mapping[str, str]) -> str:
    """Return the config file to write to: `flag` (--config), HSMJWT_CONFIG, the one in use, else the user's own place.

    Raises ConfigError for one in use that cannot be read, and where nobody knows a home folder.
    """
    config.check_environment(environ)
    named = flag if flag is not None else environ.get("HSMJWT_CONFIG")
    if named:
        return named
    settings = config.load(None, environ)
    if settings.path is not None:
        return settings.path
    if len(settings.searched) < 2:  # the system's place alone
        raise ConfigError(
            f"there is no place for a config file: HOME is not set and user {os.geteuid()} has no home folder",
            hint="--config FILE or HSMJWT_CONFIG names one",
        )
    return settings.searched[0]


def extend(path: str, text_for: Callable[[Settings], str], deadline: Deadline) -> None:
    """Append what `text_for` makes of the present settings; the file is made where it is missing, its folder too.

    The text is whole lines that end in a line feed; they get the file's own line ends. Raises ConfigError where the
    file would not be a config then, and where it cannot be written; whatever is raised, nothing was changed.
    """
    while True:
        fd, changed = _opened(path, text_for)
        try:
            _lock(path, fd, deadline)
            if not _is_at(path, fd):  # somebody put another file in its place meanwhile
                continue
            _append(path, fd, text_for)
            for folder in changed:
                sync_folder(folder)
            return
        except BaseException:
            if changed and os.fstat(fd).st_size == 0 and _is_at(path, fd):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise
        finally:
            os.close(fd)  # which frees the lock


def _opened(path: str, text_for: Callable[[Settings], str]) -> tuple[int, Sequence[str]]:
    """Open the file; return it with the folders in which something was made for it, none where it was there."""
    try:
        return os.open(path, _FLAGS), ()
    except FileNotFoundError:
        if os.path.islink(path):
            raise ConfigError(
                f"config file {path!r} is a symlink to nothing", hint=f"it reaches {os.path.realpath(path)!r}"
            ) from None
    except (OSError, ValueError) as error:
        _unwritable(path, error)
    text_for(Settings(path=path))  # before anything is made
    changed = [os.path.dirname(path) or "."]
    while not os.path.isdir(changed[-1]) and (above := os.path.dirname(changed[-1]) or ".") != changed[-1]:
        changed.append(above)
    try:
        make_folder(changed[0])
        fd = open_file(path, _FLAGS | os.O_CREAT | os.O_EXCL)
    except FileExistsError:  # another was faster
        return _opened(path, text_for)
    except OSError as error:
        _unwritable(path, error)
    return fd, changed


def _lock(path: str, fd: int, deadline: Deadline) -> None:
    try:
        file_lock.take(fd, deadline, "another hsmjwt that writes the config file")
    except OSError as error:
        _unwritable(path, error)


def _is_at(path: str, fd: int) -> bool:
    """Tell whether the open file still is the one that the path leads to."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _append(path: str, fd: int, text_for: Callable[[Settings], str]) -> None:
    old = config.content(path, fd)
    text = text_for(config.parse(old, path))
    ending = "\r\n" if b"\r\n" in old else "\n"
    if old.removeprefix(b"\xef\xbb\xbf"):
        text = ("\n" if old.endswith(b"\n") else "\n\n") + text
    new = text.replace("\n", ending).encode()
    if len(old) + len(new) > config.LARGEST:
        raise ConfigError(f"config file {path!r} would be longer than {config.LARGEST // 1024 // 1024} MiB")
    try:
        config.parse(old + new, path)
    except ConfigError as error:
        why = error.message.rpartition("not TOML: ")[2]
        raise ConfigError(
            f"config file {path!r} takes no further tables at its end: {why}",
            hint="write its keys and profiles as tables, [keys.NAME] and [profiles.NAME]; nothing was changed",
        ) from None
    _write(path, fd, new)
    if not _is_at(path, fd):
        raise ConfigError(
            f"config file {path!r} was replaced by another program in the same moment", hint="run the command again"
        )


def _write(path: str, fd: int, data: bytes) -> None:
    """Write all of it and have it on the disk, or nothing."""
    before = os.fstat(fd).st_size
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fsync(fd)
    except BaseException as error:
        if written and os.fstat(fd).st_size == before + written:  # nobody else has written after us
            _cut(path, fd, before)
        if isinstance(error, OSError):
            _unwritable(path, error)
        raise


def _cut(path: str, fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise ConfigError(
            f"config file {path!r} could be written in part only, and cannot be cut back: {error.strerror}",
            hint=f"its first {size} bytes are what it was",
        ) from None


def _unwritable(path: str, error: OSError | ValueError) -> NoReturn:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise ConfigError(f"config file {path!r} cannot be written: {why.lower()}", hint=_ELSEWHERE) from None
