"""The built-in provider files: what each authorization server wants, as data chosen from closed sets.

A provider gives defaults and rules. A default gives way to the profile and to flags; what breaks a rule is refused
before anything is signed. Rules are `grants`, `algs`, `max_lifetime`, and the audience where it is `fixed`.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from typing import Literal

import msgspec

from hsmjwt.errors import ConfigError
from hsmjwt.nearest import did_you_mean
from hsmjwt.oauth.endpoint import parse_endpoint

Grant = Literal["jwt-bearer", "client-assertion"]  # RFC 7523, sections 2.1 and 2.2

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "providers")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of a provider's installations, such as production."""

    token_url: str
    audience: str | None = None


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider's file, times in seconds. A claim that has no field here is left out unless it is asked for."""

    name: str
    title: str
    grants: tuple[Grant, ...]
    """Those that the server takes; the first is the default."""
    algs: tuple[str, ...] = ()
    """Those that the server takes, where it does not take them all; a single one is the default too."""
    issuer: Literal["named", "client-id"]
    """Whether iss must be named, or is the client id, which is then always sent as a form field too."""
    subject: Literal["named", "issuer"]
    """Whether sub must be named, or is iss where it is not."""
    audience: Literal["token-url", "default", "fixed"]
    """The token URL, or the environment's audience as a default or as a rule."""
    lifetime: int
    max_lifetime: int | None = None
    jti: Literal["auto", "none"]
    typ: dict[Grant, str]
    environments: dict[str, Environment] = {}
    """By name; the first is the default."""
    retired: str | None = None
    """What ended and when, for a warning; None while the provider lives."""

    def __post_init__(self) -> None:
        """Check what no type can say; a fault here is one of the file."""
        if set(self.typ) != set(self.grants):
            raise ValueError("typ must name each of the grants")
        if self.audience != "token-url" and not all(each.audience for each in self.environments.values()):
            raise ValueError("an environment has no audience")
        if self.audience != "token-url" and not self.environments:
            raise ValueError("an audience needs an environment")

    def hosts(self) -> set[str]:
        """Return the hosts of the provider's token URLs."""
        return {parse_endpoint(each.token_url).host for each in self.environments.values()}


def names() -> list[str]:
    """Return the names of the built-in providers, sorted."""
    return list(_names())


@functools.cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(name.removesuffix(".toml") for name in os.listdir(_FOLDER) if name.endswith(".toml")))


@functools.cache
def load(name: str) -> Provider:
    """Read a provider's file. Raises ConfigError with the nearest name where there is none."""
    try:
        if not _NAME.fullmatch(name):  # so that no name is a path
            raise FileNotFoundError
        with open(os.path.join(_FOLDER, f"{name}.toml"), "rb") as file:
            document = tomllib.load(file)
    except OSError:
        raise ConfigError(f"unknown provider {name!r}", hint=did_you_mean(name, names(), noun="providers")) from None
    return msgspec.convert({"name": name, **document}, Provider)
