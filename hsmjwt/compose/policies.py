"""Audit policies by name or file: those that come with hsmjwt, and the user's own."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from hsmjwt.errors import ConfigError
from hsmjwt.keyrules import is_policy_file
from hsmjwt.nearest import did_you_mean
from hsmjwt.toml_tables import decoded

if TYPE_CHECKING:
    from hsmjwt.guard.keypolicy import Policy

DEFAULT = "device-born"
"""The policy of an audit that names none."""

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "policies")
_LARGEST = 1024 * 1024  # bytes of a policy file
_DEPTH = 8  # policies that one may lead to
_EXTENDS = "extends names a built-in policy, or a file that leads to one"


def names() -> list[str]:
    """Return the names of the built-in policies, sorted."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(_FOLDER) if name.endswith(".toml"))


def load(named: str, *, trusted: bool = False) -> Policy:
    """Return a built-in policy, or that of a file, which a slash or its ending tells; with what it extends.

    Of a `trusted` one depends what is signed: nobody else may have written its file. Raises ConfigError.
    """
    return _load(named, (), trusted=trusted)


def _load(named: str, above: tuple[str, ...], *, trusted: bool) -> Policy:
    """Read a policy and what it extends; `above` are the real paths of those that extend it."""
    from hsmjwt.guard.keypolicy import parse

    if is_policy_file(named):
        path, name = named, os.path.basename(named).removesuffix(".toml")
    elif named in names():
        path, name = os.path.join(_FOLDER, f"{named}.toml"), named
        trusted = False  # it is part of hsmjwt, whose code is not looked at either: a clone's modes are the umask's
    else:
        known = did_you_mean(named, names(), noun="policies")
        raise ConfigError(f"unknown policy {named!r}", hint=f"a file's name has a slash or ends in .toml; {known}")
    real = os.path.realpath(path)
    if real in above:
        raise ConfigError(f"policy file {path!r} extends itself: {' -> '.join((*above, real))}", hint=_EXTENDS)
    if len(above) == _DEPTH:
        raise ConfigError(
            f"policy file {above[0]!r} extends more than {_DEPTH} others, one through the other", hint=_EXTENDS
        )
    policy = parse(_text(path, trusted=trusted), name, path)
    if policy.extends is None:
        return policy
    base = policy.extends
    if is_policy_file(base):
        base = os.path.join(os.path.dirname(path), base)
    return policy.on_top_of(_load(base, (*above, real), trusted=trusted))


def _text(path: str, *, trusted: bool) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO would wait for ever
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise ConfigError(
                    f"policy file {path!r} is no regular file", hint="a pipe is read once alone: write it to a file"
                )
            if trusted:
                _check_owner(path, info)
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no file has such a name"
        hint = f"the path of a TOML file belongs there, or {', '.join(names())}"
        raise ConfigError(f"policy file {path!r} cannot be read: {why.lower()}", hint=hint) from None
    if len(data) > _LARGEST:
        raise ConfigError(
            f"policy file {path!r} is longer than {_LARGEST // 1024} KiB", hint="is it the policy's file?"
        )
    return decoded(data, path, "policy file")


def _check_owner(path: str, info: os.stat_result) -> None:
    if info.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"policy file {path!r} belongs to user {info.st_uid}, neither to root nor to us",
            hint="whoever owns it decides what is signed: take a file of root's or your own",
        )
    if info.st_mode & 0o022:
        raise ConfigError(
            f"policy file {path!r} can be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod go-w {os.path.realpath(path)!r}",
        )
