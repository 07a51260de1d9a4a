"""The configuration file: found, checked for who may write it, and read into Settings.

What is checked here is the file's form: TOML, known keys, the type of each value, names that refer to each other. What
a value means (a URI, a duration, a claim) is for `keyrules`, `keychoice` and `oauth/profile` to say, whose errors come
from `Settings.source.fault` and so name file and line as well.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping

import msgspec

from hsmjwt.config_tables import CacheMode, KeyTable, ProfileTable, Reader, Settings
from hsmjwt.errors import ConfigError, TokenError
from hsmjwt.folders import config_files
from hsmjwt.toml_tables import Source, decoded, loaded

__all__ = [
    "LARGEST",
    "CacheMode",
    "KeyTable",
    "ProfileTable",
    "Settings",
    "check_environment",
    "content",
    "load",
    "parse",
    "refuse_agent",
]

LARGEST = 16 * 1024 * 1024  # bytes; a config of this size is something else
_VARIABLES = ("HSMJWT_CONFIG", "HSMJWT_PROFILE", "HSMJWT_MODULE", "HSMJWT_PIN_SOURCE", "HSMJWT_SOCKET")
_SETTLED = 2.0  # seconds; the coarsest clock of a file system (FAT) that a second change could hide behind


def load(flag: str | None, environ: Mapping[str, str], *, lenient: bool = False) -> Settings:
    """Find and read the config: `flag` (--config), HSMJWT_CONFIG, the user's file, the system's; none gives Settings().

    Raises ConfigError for a named file that is missing, for one that others could have written, and for what is wrong
    inside, with its line; also for a variable of ours that is not text. A `lenient` reading, for whoever looks at the
    config itself, leaves out the tables that are wrong.
    """
    check_environment(environ)
    named = flag if flag is not None else environ.get("HSMJWT_CONFIG") or None
    if named is not None:
        named_by = "--config" if flag is not None else "HSMJWT_CONFIG"
        found = _read(named)
        if found is None:
            raise ConfigError(f"config file {named!r} is missing", hint=f"{named_by} names it")
        return parse(*found, lenient=lenient)
    places = config_files(environ)
    for path in places:
        found = _read(path)
        if found is not None:
            return parse(*found, lenient=lenient)
    return Settings(searched=tuple(places))


def check_environment(environ: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable of ours that is not UTF-8 text; PIN and URI are checked where they are used."""
    for name in _VARIABLES:
        if _is_broken(environ.get(name, "")):
            raise ConfigError(
                f"the environment variable {name!r} is not UTF-8 text", hint=f"set {name} anew, or unset it"
            )


def refuse_agent(environ: Mapping[str, str]) -> None:
    """Raise TokenError where HSMJWT_SOCKET names an agent: going on without it would use a key it was to guard."""
    path = environ.get("HSMJWT_SOCKET")
    if path:
        raise TokenError(
            f"HSMJWT_SOCKET names an agent at {path!r}, and this version of hsmjwt has none",
            hint="unset HSMJWT_SOCKET to use the token directly",
        )


def _read(path: str) -> tuple[bytes, str, tuple[int, ...] | None] | None:
    """Return what a config file holds, its path and identity; None where there is none.

    Of a symlink counts what it reaches.
    """
    try:
        # Not blocking, since opening a FIFO would wait for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.islink(path):
            return None
        raise ConfigError(
            f"config file {path!r} is a symlink to nothing", hint=f"it reaches {os.path.realpath(path)!r}"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"config file {path!r} cannot be read: {why.lower()}",
            hint="--config FILE or HSMJWT_CONFIG names another one",
        ) from None
    try:
        info = os.fstat(descriptor)
        settled = time.time() - info.st_ctime > _SETTLED
        data = content(path, descriptor)
    finally:
        os.close(descriptor)
    identity = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return data, path, identity if settled else None


def content(path: str, descriptor: int) -> bytes:
    """Return what an open config file holds, after a look at who could have written it. Raises ConfigError."""
    try:
        _check_owner(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"config file {path!r} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ConfigError(f"config file {path!r} is longer than {LARGEST // 1024 // 1024} MiB")
    return data


def _check_owner(path: str, info: os.stat_result) -> None:
    """Refuse a file that another user could have written: it says which library is loaded and where assertions go."""
    real = os.path.realpath(path)
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"config file {path!r} is no regular file")
    if info.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"config file {path!r} belongs to user {info.st_uid}, neither to root nor to us (user {os.geteuid()})",
            hint=f"chown it: {real!r}",
        )
    if info.st_mode & 0o022:
        raise ConfigError(
            f"config file {path!r} can be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod go-w {real!r}",
        )


def parse(data: bytes, path: str, identity: tuple[int, ...] | None = None, *, lenient: bool = False) -> Settings:
    """Read the bytes of the config file `path`: UTF-8, a BOM before it and CRLF allowed. Raises ConfigError."""
    text = decoded(data, path)
    settings = Reader(Source(path, text), path, lenient=lenient).settings(loaded(text, path))
    return msgspec.structs.replace(settings, identity=identity)


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
