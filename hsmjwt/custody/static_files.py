"""Files for everybody to read, below a folder that a web server shows: each is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from hsmjwt.errors import ConfigError

_FOLDER_MODE, _FILE_MODE = 0o755, 0o644  # whatever the umask: what is public may be read by the server's user


def write(folder: str, documents: Mapping[str, Any]) -> list[str]:
    """Write JSON documents by their paths below a folder, which is made where it is missing; return the files' paths.

    All of them are written beside their places before the first one takes its own, so that a full disk or a closed
    folder leaves what was there. Raises ConfigError.
    """
    paths = [os.path.join(folder, name) for name in documents]
    path = folder
    try:
        with contextlib.ExitStack() as waiting:
            ready = []
            for path, document in zip(paths, documents.values(), strict=True):
                _make_folder(os.path.dirname(path))
                data = json.dumps(document, indent=2).encode("ascii") + b"\n"
                ready.append((waiting.enter_context(_beside(path, data)), path))
            for temporary, path in ready:
                os.replace(temporary, path)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no path"
        raise ConfigError(f"{path!r} cannot be written: {reason.lower()}", hint="--out names another folder") from None
    return paths


@contextlib.contextmanager
def _beside(path: str, data: bytes) -> Iterator[str]:
    """Write a file in the folder of `path`, and remove it at the end if it is still there."""
    head, name = os.path.split(path)
    temporary = os.path.join(head, f".{name}.{os.urandom(8).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, _FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(fd)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _make_folder(path: str) -> None:
    """Make a folder where it is missing, and those above it; what is there already stays as it is."""
    if not path or os.path.isdir(path):
        return
    _make_folder(os.path.dirname(path.rstrip("/")))
    with contextlib.suppress(FileExistsError):  # another process may be as fast; a file is found out later
        os.mkdir(path)
        os.chmod(path, _FOLDER_MODE)
