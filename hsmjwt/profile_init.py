"""A new profile: what the user gave, tried as the profile that it is to be, then written to the end of the config."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from hsmjwt.config import KeyTable, ProfileTable, Settings
from hsmjwt.config_append import extend
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.hsm.uri import display
from hsmjwt.jose.encoding import quoted
from hsmjwt.nearest import did_you_mean
from hsmjwt.oauth.assertion import draft
from hsmjwt.oauth.profile import SigningFlags, resolve
from hsmjwt.oauth.provider import Provider
from hsmjwt.profile_text import NewProfile, Value, missing
from hsmjwt.toml_lines import KeyPath
from hsmjwt.toml_tables import Source

_FLAGS = {"issuer": "--iss", "subject": "--sub", "audience": "--aud", "lifetime": "--exp", "uri": "--key"}
# Stand where the user has still to write something, so that the rest can be tried.
_STANDS_FOR = {"client_id": "client", "issuer": "client", "subject": "client", "token_url": "https://as.example/token"}


class _OfFlag(ConfigError):
    """What is wrong with a value that a flag of this command gave."""


class _Trial(Source):
    """The file with the `new` tables at its end: a fault in one of these is a flag's, any other has its line."""

    def __init__(self, file: Source, new: Collection[KeyPath]) -> None:
        super().__init__()
        self._file = file
        self._new = new

    def fault(self, key: KeyPath, problem: str, *, hint: str | None = None) -> ConfigError:
        if key[:2] in self._new:
            return _OfFlag(problem, hint=hint)
        return self._file.fault(key, problem, hint=hint)


class Added(NamedTuple):
    """What was written: the file, the names of its new tables, the profile's keys to fill in, and what to warn of."""

    path: str
    profile: str
    key: str | None
    missing: tuple[str, ...]
    warnings: tuple[str, ...]


def add_profile(
    path: str,
    provider: Provider,
    name: str,
    values: Mapping[str, Value],
    key: Mapping[str, str],
    *,
    deadline: Deadline,
    clock: float,
) -> Added:
    """Append a profile to the config file `path`, and a key table where `key` has a `uri`.

    `values` are a profile's by the config's names, `key` a key table's; a `uri` there that is no URI names a table that
    the config has. Raises UsageError for what cannot be meant and for a PIN in the URI, PolicyError for what breaks a
    rule, and ConfigError where the name is taken, the key table that is named is wrong or the file cannot be written;
    whatever is raised, the file is as it was.
    """
    _check(name, {**values, **key})
    named = key.get("uri")
    values = dict(values)
    own = dict(key) if named is not None and named.lower().startswith("pkcs11:") else None
    if own is not None:
        values["key"] = name
    elif named is not None:
        values["key"] = named.removeprefix("keys.")
    for field in key if own is None else ():
        if field != "uri":
            raise UsageError(
                f"{_flag(field)} belongs to a key table, and none is made",
                hint="--key URI makes one; --key NAME uses one",
            )
    new = NewProfile(name=name, provider=provider, values=values, key=own)
    warnings: list[str] = []

    def text_for(settings: Settings) -> str:
        _check_free(settings, new)
        warnings[:] = _tried(settings, new, clock)
        return new.text()

    extend(path, text_for, deadline)
    return Added(path, name, None if own is None else name, tuple(missing(provider, values)), tuple(warnings))


def _flag(field: str) -> str:
    return _FLAGS.get(field, "--" + field.replace("_", "-"))


def _check(name: str, values: Mapping[str, Value]) -> None:
    """Refuse what no config can hold, and a name that no command could take."""
    for field, value in {"name": name, **values}.items():
        for text in [value] if isinstance(value, str) else value:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise UsageError(f"{_flag(field)} is not UTF-8 text, and a config file is")
            if not text:
                raise UsageError(f"{_flag(field)} is empty", hint="give it a value; is a shell variable unset?")
    if name.startswith("-") or name.lower().startswith("pkcs11:"):
        what = "read as a flag" if name.startswith("-") else "taken for a URI"
        raise UsageError(f"--name {quoted(display(name))} would be {what}", hint="such as --name adobe")
    if not os.path.isabs(module := str(values.get("module", "/"))):
        raise ConfigError(f"the module path {module!r} (--module) is relative", hint="write the whole path")


def _check_free(settings: Settings, new: NewProfile) -> None:
    """Refuse a name that is taken, and the name of a key table that is not there."""
    if new.name in settings.profiles:
        raise settings.source.fault(
            ("profiles", new.name),
            f"there is a profile {new.name!r} already",
            hint="--name NAME gives the new one another name",
        )
    if new.key is not None and new.name in settings.keys:
        raise settings.source.fault(
            ("keys", new.name),
            f"there is a key table {new.name!r} already",
            hint="--key NAME uses that one; --name NAME gives the new ones another name",
        )
    key = new.values.get("key")
    if new.key is None and isinstance(key, str) and key not in settings.keys:
        raise ConfigError(
            f"--key: there is no key table {quoted(display(key))} in config file {settings.path!r}",
            hint=f"{did_you_mean(key, settings.keys, noun='key tables')}; a URI, pkcs11:…, makes a key table",
        )


def _tried(settings: Settings, new: NewProfile, clock: float) -> tuple[str, ...]:
    """Resolve the profile as it will be, with something in each gap; return what is to be warned of.

    The environment does not count: the file may be read in another one.
    """
    gaps = {key: text for key, text in _STANDS_FOR.items() if key in missing(new.provider, new.values)}
    values = {**new.values, **gaps}
    keys, tables = dict(settings.keys), [("profiles", new.name)]
    if new.key is not None:
        keys[new.name] = KeyTable(name=new.name, **new.key)  # type: ignore[arg-type]
        tables.append(("keys", new.name))
    table = ProfileTable(name=new.name, provider=new.provider.name, **values)  # type: ignore[arg-type]
    source = _Trial(settings.source, tables)
    trial = Settings(path=settings.path, keys=keys, profiles={new.name: table}, source=source)
    flags = SigningFlags(key=None if "key" in values else "pkcs11:object=key")
    try:
        profile = resolve(trial, flags, new.name, {}, exchanging=None)
    except _OfFlag as error:
        raise UsageError(error.message, hint=error.hint) from None
    draft(profile, profile.alg, clock)
    if new.key is not None and (shown := display(new.key["uri"])) != new.key["uri"]:
        raise UsageError(
            f"--key {quoted(shown)} holds a PIN, or what may be one, and would put it into the config file",
            hint="leave it out; --pin-source SPEC says where the PIN is, such as --pin-source file:/PATH",
        )
    return (*profile.warnings, *filter(None, (profile.retired,)))
