"""The tables of the configuration: which keys each has, what their values must be, and the Settings they become."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import msgspec

from hsmjwt.errors import ConfigError
from hsmjwt.hsm.uri import display
from hsmjwt.nearest import did_you_mean
from hsmjwt.toml_lines import KeyPath
from hsmjwt.toml_tables import Source, dotted, where

T = TypeVar("T")

CacheMode = Literal["auto", "runtime", "none"]

# What each key's value must be: the kinds of toml_tables.
_TOP = {
    "default_profile": "text",
    "allowed_modules": "paths",
    "cache": "text",
    "keys": "tables",
    "profiles": "tables",
}
_KEY = {
    "uri": "secret",
    "module": "path",
    "pin_source": "secret",
    "pin_file_check": "text",
    "alg": "texts",
    "certificate": "secret",
    "public_key": "text",
    "thumbprint": "text",
    "require": "text",
    "not_after": "moment",
    "max_age": "duration",
    "protected": "yes or no",
    "unverified": "yes or no",
}
# Keys of a key table that later versions will know. One that was read and ignored would be a promise that is not kept.
_KEY_LATER = ("allow", "journal")
_PROFILE = {
    "provider": "text",
    "key": "text",
    "client_id": "text",
    "subject": "text",
    "issuer": "text",
    "audience": "texts",
    "scope": "texts",
    "token_url": "text",
    "grant": "text",
    "lifetime": "duration",
    "nbf": "duration",
    "jti": "text",
    "typ": "text",
    "kid": "text",
    "claims": "table",
    "headers": "table",
    "form": "table",
    "client_secret_source": "secret",
    "environment": "text",
    "timeout": "duration",
    "min_ttl": "duration",
    "ca_file": "text",
    "proxy": "secret or empty",
}


class KeyTable(msgspec.Struct, frozen=True, kw_only=True):
    """A signing key of the config: what its keys say, None where they do not. Its repr hides PINs."""

    name: str
    uri: str
    module: str | None = None
    pin_source: str | None = None
    pin_file_check: str | None = None
    alg: str | list[str] | None = None
    certificate: str | None = None
    public_key: str | None = None
    thumbprint: str | None = None
    require: str | None = None
    not_after: datetime.date | datetime.datetime | str | None = None
    max_age: str | None = None
    protected: bool = False
    unverified: bool = False

    def __repr__(self) -> str:
        """Show the name only: URI and PIN source may hold a PIN."""
        return f"KeyTable(name={self.name!r})"


class ProfileTable(msgspec.Struct, frozen=True, kw_only=True):
    """A profile of the config: what its keys say, None where they do not. Its repr hides the proxy and its password."""

    name: str
    provider: str | None = None
    key: str | None = None
    client_id: str | None = None
    subject: str | None = None
    issuer: str | None = None
    audience: str | list[str] | None = None
    scope: str | list[str] | None = None
    token_url: str | None = None
    grant: str | None = None
    lifetime: str | None = None
    nbf: str | None = None
    jti: str | None = None
    typ: str | None = None
    kid: str | None = None
    claims: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    form: dict[str, Any] = {}
    client_secret_source: str | None = None
    environment: str | None = None
    timeout: str | None = None
    min_ttl: str | None = None
    ca_file: str | None = None
    proxy: str | None = None

    def __repr__(self) -> str:
        """Show the name only."""
        return f"ProfileTable(name={self.name!r})"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the config file says; `path` is None where there is no file, and `searched` is where it could be.

    `identity` is the file's device, inode, size, mtime and ctime (ns), which tell this content from any other; None
    where the file is so new that one more change might not show. `broken` tells what is wrong with tables that were
    left out, which only a lenient reading does.
    """

    path: str | None = None
    identity: tuple[int, ...] | None = None
    default_profile: str | None = None
    allowed_modules: tuple[str, ...] = ()
    cache: CacheMode = "auto"
    keys: dict[str, KeyTable] = {}
    profiles: dict[str, ProfileTable] = {}
    source: Source = msgspec.field(default_factory=Source)
    searched: tuple[str, ...] = ()
    broken: dict[KeyPath, ConfigError] = {}

    def profile(self, name: str, named_by: str | None = None) -> ProfileTable:
        """Return a profile; `named_by` says what asked for it, where the user did not. Raises ConfigError.

        The name is shown as a URI would be, whose PIN is easily put in its place.
        """
        if name in self.profiles:
            return self.profiles[name]
        by = f" (named by {named_by})" if named_by else ""
        if self.path is None:
            looked = f"; looked for {' and '.join(map(repr, self.searched))}" if self.searched else ""
            raise ConfigError(
                f"no profile {display(name)!r}{by}: there is no config file",
                hint=f"--config FILE or HSMJWT_CONFIG names one{looked}",
            )
        raise ConfigError(
            f"no profile {display(name)!r}{by} in config file {self.path!r}",
            hint=did_you_mean(name, self.profiles, noun="profiles"),
        )


class Reader:
    """Turns a TOML document into Settings, or into an error that names the key's line."""

    def __init__(self, source: Source, path: str, *, lenient: bool) -> None:
        self.source = source
        self.path = path
        self.lenient = lenient
        self.broken: dict[KeyPath, ConfigError] = {}

    def settings(self, document: dict[str, Any]) -> Settings:
        """Check the whole document."""
        top = self.source.table((), document, _TOP)
        cache = top.get("cache", "auto")
        if cache not in get_args(CacheMode):
            raise self.source.fault(
                ("cache",), f"cache {cache!r} is unknown", hint=f"it is one of {', '.join(get_args(CacheMode))}"
            )
        keys = self.each("keys", top, self.key)
        profiles = self.each("profiles", top, lambda name, table: self.profile(name, table, keys))
        default = top.get("default_profile")
        if default is not None and default not in top.get("profiles", {}):
            fault = self.source.fault(
                ("default_profile",),
                f"default_profile names the profile {display(default)!r}, and there is none of that name",
                hint=did_you_mean(default, profiles, noun="profiles"),
            )
            self.leave_out(("default_profile",), fault)
        return Settings(
            path=self.path,
            default_profile=default,
            allowed_modules=tuple(top.get("allowed_modules", ())),
            cache=cache,
            keys=keys,
            profiles=profiles,
            source=self.source,
            broken=self.broken,
        )

    def each(self, kind: str, top: Mapping[str, Any], read: Callable[[str, dict[str, Any]], T]) -> dict[str, T]:
        """Check each table of a kind."""
        good: dict[str, T] = {}
        for name, table in top.get(kind, {}).items():
            try:
                good[name] = read(name, table)
            except ConfigError as error:
                self.leave_out((kind, name), error)
        return good

    def leave_out(self, path: KeyPath, fault: ConfigError) -> None:
        """Note what is wrong in a lenient reading, else raise it."""
        if not self.lenient:
            raise fault
        self.broken[path] = fault

    def key(self, name: str, table: dict[str, Any]) -> KeyTable:
        """Check a key table."""
        path = ("keys", name)
        for key in table:
            if key in _KEY_LATER:
                raise self.source.fault(
                    (*path, key),
                    f"{key!r} {where(path)} is not supported by this version",
                    hint="remove it: a rule that is read and not kept would be worse than none",
                )
        values = self.source.table(path, table, _KEY)
        if "uri" not in values:
            raise self.source.fault(
                path, f"[{dotted(path)}] has no uri", hint='such as uri = "pkcs11:token=prod;object=my-key"'
            )
        check = values.get("pin_file_check", "mount")
        if check != "mount":
            raise self.source.fault(
                (*path, "pin_file_check"),
                f"pin_file_check {where(path)} is {check!r}, which is unknown",
                hint='"mount" is the only value: a mounted secret that others may read',
            )
        return KeyTable(name=name, **values)

    def profile(self, name: str, table: dict[str, Any], keys: Mapping[str, KeyTable]) -> ProfileTable:
        """Check a profile, and that its key is there."""
        path = ("profiles", name)
        if not name:
            raise self.source.fault(path, "a profile's name is empty", hint="such as [profiles.adobe]")
        values = self.source.table(path, table, _PROFILE)
        key = values.get("key")
        if key is None or key in keys:
            return ProfileTable(name=name, **values)
        if ("keys", key) in self.broken:
            raise self.broken["keys", key]
        if key.lower().startswith("pkcs11:"):  # which may hold a PIN
            raise self.source.fault(
                (*path, "key"),
                f"key {where(path)} is a URI, where the name of a key table belongs",
                hint='make a table of it: [keys.NAME] with uri = "pkcs11:…"',
            )
        raise self.source.fault(
            (*path, "key"),
            f"key {where(path)} names {display(key)!r}, and there is no such key table",
            hint=did_you_mean(key, keys, noun="key tables"),
        )
