"""The configuration file: found, checked for who may write it, and read into Settings.

What is checked here is the file's form: TOML, known keys, the type of each value, names that refer to each other. What
a value means (a URI, a duration, a claim) is for `keychoice` and `oauth/profile` to say, whose errors come from
`Settings.source.fault` and so name file and line as well.
"""

from __future__ import annotations

import os
import stat
import time
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import msgspec

from hsmjwt.errors import ConfigError, TokenError
from hsmjwt.folders import config_files
from hsmjwt.hsm.uri import display
from hsmjwt.nearest import did_you_mean
from hsmjwt.toml_lines import KeyPath
from hsmjwt.toml_tables import Source, dotted, not_toml, where

T = TypeVar("T")

CacheMode = Literal["auto", "runtime", "none"]

LARGEST = 16 * 1024 * 1024  # bytes; a config of this size is something else
_VARIABLES = ("HSMJWT_CONFIG", "HSMJWT_PROFILE", "HSMJWT_MODULE", "HSMJWT_PIN_SOURCE", "HSMJWT_SOCKET")
_SETTLED = 2.0  # seconds; the coarsest clock of a file system (FAT) that a second change could hide behind

# What each key's value must be: the kinds of toml_tables.
_TOP = {
    "default_profile": "text",
    "allowed_modules": "paths",
    "cache": "text",
    "keys": "tables",
    "profiles": "tables",
}
_KEY = {"uri": "secret", "module": "path", "pin_source": "secret", "pin_file_check": "text", "alg": "text"}
# Keys of a key table that later versions will know. One that was read and ignored would be a promise that is not kept.
_KEY_LATER = (
    "allow",
    "certificate",
    "journal",
    "max_age",
    "not_after",
    "protected",
    "public_key",
    "require",
    "thumbprint",
    "unverified",
)
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
    """A signing key of the config: one key, one algorithm (RFC 8725, section 3.1). Its repr hides PINs."""

    name: str
    uri: str
    module: str | None = None
    pin_source: str | None = None
    pin_file_check: str | None = None
    alg: str | None = None

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
    text, document, fault = "", {}, None
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fault = ConfigError(
            f"config file {path!r}, line {line}: not UTF-8", hint="save the file as UTF-8 (a BOM does no harm)"
        )
    except (ValueError, RecursionError) as error:
        fault = not_toml(path, text, error)
    if fault is not None:  # raised out here, where no context holds the file's text
        raise fault
    settings = _Reader(Source(path, text), path, lenient=lenient).settings(document)
    return msgspec.structs.replace(settings, identity=identity)


class _Reader:
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


def _is_broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
