"""Single values of a config file written anew, with every other byte left as it is.

The whole new text is made and read again before anything is written: whatever the edit would change beside the values
that were asked for ends it. The new file takes the old one's place in one step, with its owner and mode; whoever looks
sees the one or the other.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from hsmjwt import config, file_lock, whole_file
from hsmjwt.config import Settings
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.profile_text import quoted
from hsmjwt.toml_lines import KeyPath, value_spans
from hsmjwt.toml_tables import dotted

_BOM = b"\xef\xbb\xbf"


def edit(
    path: str, values: Mapping[KeyPath, str], deadline: Deadline, check: Callable[[Settings], None] | None = None
) -> Settings:
    """Give each key, which must be there and hold a text, its new value; returns what the file says then.

    `check` gets what the file says before, while nobody else of ours writes to it, and raises where that is not what
    the values were made for. Raises ConfigError where the file cannot be written or would not be what was asked for;
    nothing was changed then.
    """
    real = os.path.realpath(path)
    fd = _opened(path, deadline)
    try:
        info = os.fstat(fd)
        old = config.content(path, fd)
        if check is not None:
            check(config.parse(old, path))
        new = edited(old, path, values)
        settings = config.parse(new, path)
        if new != old:
            try:
                whole_file.replace(real, new, stat.S_IMODE(info.st_mode), like=info)
            except OSError as error:
                why = (error.strerror or "unknown reason").lower()
                raise ConfigError(f"config file {path!r} cannot be written: {why}") from None
        return settings
    finally:
        os.close(fd)


def edited(data: bytes, path: str, values: Mapping[KeyPath, str]) -> bytes:
    """Return the bytes of a config file with other values; raises ConfigError where they cannot be put in."""
    text = data.removeprefix(_BOM).decode()
    spans = value_spans(text)
    wanted = tomllib.loads(text.replace("\r\n", "\n"))
    for key in values:
        _set(wanted, path, key, values[key])
        if key not in spans:
            raise _beyond(path, key)
    for key in sorted(values, key=lambda each: spans[each], reverse=True):
        start, end = spans[key]
        text = text[:start] + quoted(values[key]) + text[end:]
    try:
        found = tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError):
        found = None
    if found != wanted:
        raise _beyond(path, next(iter(values)))
    return (_BOM if data.startswith(_BOM) else b"") + text.encode()


def _set(document: dict[str, Any], path: str, key: KeyPath, value: str) -> None:
    table: Any = document
    for part in key[:-1]:
        table = table.get(part) if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(table.get(key[-1]), str):
        raise ConfigError(f"config file {path!r} has no text at {dotted(key)}", hint="it was there a moment ago")
    table[key[-1]] = value


def _beyond(path: str, key: KeyPath) -> ConfigError:
    return ConfigError(
        f"config file {path!r}: the value of {dotted(key)} cannot be found in the text",
        hint="write it on a line of its own, in quotes",
    )


def _opened(path: str, deadline: Deadline) -> int:
    """Open the file with the lock that everything of ours takes which writes to it; returns a descriptor."""
    while True:
        try:
            # for writing, though it is replaced: a mode that forbids to write means it
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(f"config file {path!r} cannot be written: {why.lower()}") from None
        try:
            file_lock.take(fd, deadline, "another hsmjwt that writes the config file")
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except OSError as error:
            os.close(fd)
            raise ConfigError(f"config file {path!r} cannot be locked: {error.strerror}") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # somebody put another file in its place meanwhile
