"""Where hsmjwt's files lie, by the XDG Base Directory Specification: paths only, nothing is made here."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping

import msgspec

from hsmjwt.errors import ConfigError

_NAME = "hsmjwt"
SYSTEM_CONFIG = "/etc/hsmjwt/config.toml"


class CacheChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The folder for access tokens, and whether it lies on a disk rather than in a runtime folder."""

    path: str
    on_disk: bool


def whole(path: str, noun: str, flag: str) -> str:
    """Return the whole path of what a flag names; raises ConfigError where the current folder was removed.

    `noun` says what the path leads to, for the message: "the CA file".
    """
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise ConfigError(
            f"{noun} {path!r} cannot be found: the current folder is gone ({(error.strerror or str(error)).lower()})",
            hint=f"{flag} takes a whole path",
        ) from None


def home(environ: Mapping[str, str]) -> str | None:
    """Return the home folder: HOME, else what the user database says, None where nobody knows one."""
    named = environ.get("HOME", "")
    if os.path.isabs(named):
        return named
    try:
        entry = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None  # a container often runs under a user that no database knows
    return entry if os.path.isabs(entry) else None


def config_files(environ: Mapping[str, str]) -> list[str]:
    """Return where a config is looked for when none is named, best place first."""
    base = _base(environ, "XDG_CONFIG_HOME", ".config")
    own = [os.path.join(base, _NAME, "config.toml")] if base else []
    return [*own, SYSTEM_CONFIG]


def state_dir(environ: Mapping[str, str]) -> str:
    """Return the folder for what was learnt about logins and for locks; it need not exist yet.

    Raises ConfigError where neither XDG_STATE_HOME nor a home folder is known.
    """
    base = _base(environ, "XDG_STATE_HOME", os.path.join(".local", "state"))
    if base is None:
        named = environ.get("HOME")
        state = f"is {named!r}, no absolute path," if named else "is not set"
        raise ConfigError(
            f"no folder for what is kept about logins: HOME {state} and user {os.geteuid()} has no home folder",
            hint="set HOME or XDG_STATE_HOME to a folder that is yours alone",
        )
    return os.path.join(base, _NAME)


def cache_dirs(environ: Mapping[str, str], uid: int, *, run: str = "/run/user") -> list[CacheChoice]:
    """Return the folders that may hold access tokens of user `uid`, best first; they need not exist yet.

    XDG_RUNTIME_DIR and /run/user/UID, each if it is a folder of that user with mode 0700 (after su or sudo the variable
    may still name another user's), then the cache folder on the disk.
    """
    places: dict[str, bool] = {}
    for folder in (environ.get("XDG_RUNTIME_DIR", ""), os.path.join(run, str(uid))):
        if os.path.isabs(folder) and _private(folder, uid):
            places[os.path.join(folder, _NAME)] = False
    base = _base(environ, "XDG_CACHE_HOME", ".cache")
    if base is not None:
        places.setdefault(os.path.join(base, _NAME), True)
    return [CacheChoice(path=path, on_disk=on_disk) for path, on_disk in places.items()]


def cache_dir(environ: Mapping[str, str], uid: int, *, run: str = "/run/user") -> CacheChoice | None:
    """Choose the folder for access tokens of user `uid`: the best of them, None where there is no place for it."""
    return next(iter(cache_dirs(environ, uid, run=run)), None)


def _base(environ: Mapping[str, str], variable: str, below_home: str) -> str | None:
    """Return a base folder; the specification has relative values ignored."""
    named = environ.get(variable, "")
    if os.path.isabs(named):
        return named
    place = home(environ)
    return None if place is None else os.path.join(place, below_home)


def _private(folder: str, uid: int) -> bool:
    try:
        info = os.stat(folder)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and stat.S_IMODE(info.st_mode) == 0o700
