"""Files for everybody to read, below a folder that a web server shows: each is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hsmjwt import file_lock, whole_file
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError

_FOLDER_MODE, _FILE_MODE = 0o755, 0o644  # whatever the umask: what is public may be read by the server's user


def as_json(document: Any) -> bytes:
    """Return a document as such a file holds it, for a person as well."""
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def publish(folder: str, documents: Callable[[], Mapping[str, bytes]], deadline: Deadline) -> list[str]:
    """Write files by their paths below a folder, which is made where it is missing; return the files' paths.

    `documents` is called while no other hsmjwt publishes there: it may read what there is. All files are written
    beside their places before the first one takes its own, so that a full disk or a closed folder leaves what was
    there. Raises ConfigError, and BusyError at the deadline.
    """
    path = folder
    try:
        _make_folder(folder)
        with _turn(folder, deadline), contextlib.ExitStack() as waiting:
            ready = []
            for name, data in documents().items():
                path = os.path.join(folder, name)
                _make_folder(os.path.dirname(path))
                ready.append((waiting.enter_context(whole_file.beside(path, data, _FILE_MODE)), path))
            for fresh, path in ready:
                os.replace(fresh, path)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no path"
        raise ConfigError(f"{path!r} cannot be written: {reason.lower()}", hint="--out names another folder") from None
    paths = [path for _, path in ready]
    for changed in dict.fromkeys(map(os.path.dirname, paths)):
        whole_file.sync_folder(changed)
    return paths


@contextlib.contextmanager
def _turn(folder: str, deadline: Deadline) -> Iterator[None]:
    """Let one process at a time publish in a folder, as far as its file system can lock one."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            file_lock.take(fd, deadline, f"another hsmjwt that publishes in {folder!r}")
        yield
    finally:
        os.close(fd)


def _make_folder(path: str) -> None:
    """Make a folder where it is missing, and those above it; what is there already stays as it is."""
    if not path or os.path.isdir(path):
        return
    _make_folder(os.path.dirname(path.rstrip("/")))
    with contextlib.suppress(FileExistsError):  # another process may be as fast; a file is found out later
        os.mkdir(path)
        os.chmod(path, _FOLDER_MODE)
