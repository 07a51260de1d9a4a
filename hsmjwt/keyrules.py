"""What a key table says of its key beside where it is: parsed, no file read; and which tables mean one key.

A URI can be written in many ways, so that the tables which mean a key are told by what the token says of it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeGuard, TypeVar

import msgspec

from hsmjwt.config import KeyTable, Settings
from hsmjwt.errors import UsageError
from hsmjwt.guard.policy import Bound
from hsmjwt.hsm.uri import SCHEME, KeyUri, SlotInfo, TokenInfo, display, parse
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.claims import parse_duration, parse_when
from hsmjwt.jose.encoding import EncodingFault, b64u_decode, quoted

T = TypeVar("T")

SIGNS_WITH = f"this version signs with {', '.join(ALGORITHMS)}"
# Names that JOSE registers for signatures (RFC 7518, 8037, 8812, 9864, 9964): others are a slip of the finger.
_JOSE = (*ALGORITHMS, "ES256K", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LAST_OF_DAY = 86399  # seconds after its first
_THUMBPRINT = 32  # bytes of SHA-256
_NAMES_TOKEN = ("token", "serial")
_ACCESS = ("module_name", "module_path", "pin_source", "pin_value")  # of a URI: how to reach what it selects
SELECTS = tuple(name for name in KeyUri.__struct_fields__ if name not in _ACCESS)
"""The fields of a KeyUri that say which object is meant."""


_latest: list[tuple[Mapping[str, KeyTable], Mapping[tuple[object, ...], Sequence[KeyTable]]]] = []  # one at most


class KeyRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the key table named `table` says; nothing where there is none.

    `algs` are the algorithms that its key is bound to, the best first; none where it is bound to none. `certificate` is
    a URI or a path, `public_key` a path, `require` the name of a policy or a path, `thumbprint` as RFC 7638 writes it.
    `not_after` is Unix time, `max_age` seconds.
    """

    table: str | None = None
    algs: tuple[str, ...] = ()
    certificate: str | None = None
    protected: bool = False
    not_after: int | None = None
    max_age: float | None = None
    require: str | None = None
    thumbprint: str | None = None
    public_key: str | None = None
    unverified: bool = False

    @property
    def certificate_uri(self) -> KeyUri | None:
        """Return the URI of the certificate, where it lies on a token."""
        return parse(self.certificate) if _is_uri(self.certificate) else None

    @property
    def certificate_file(self) -> str | None:
        """Return the path of the certificate, where it lies in a file."""
        return None if _is_uri(self.certificate) else self.certificate


def rules_of(settings: Settings, entry: KeyTable) -> KeyRules:
    """Return what a key table says; raises ConfigError that names the line of what cannot be meant.

    A relative path lies beside the config file.
    """

    def read(key: str, parse_it: Callable[[], T]) -> T:
        return configured(settings, entry, key, parse_it)

    alg = [entry.alg] if isinstance(entry.alg, str) else entry.alg or []
    return KeyRules(
        table=entry.name,
        algs=read("alg", lambda: tuple(dict.fromkeys(map(known_alg, alg)))),
        certificate=read("certificate", lambda: _certificate(settings, entry.certificate)),
        protected=entry.protected,
        not_after=read("not_after", lambda: _moment(entry.not_after)),
        max_age=read("max_age", lambda: _age(entry.max_age)),
        require=read("require", lambda: _policy(settings, entry.require)),
        thumbprint=read("thumbprint", lambda: _thumbprint(entry.thumbprint)),
        public_key=read("public_key", lambda: _beside(settings, entry.public_key)),
        unverified=entry.unverified,
    )


def configured(settings: Settings, entry: KeyTable, key: str, call: Callable[[], T]) -> T:
    """Return what `call` makes of a key table's value, a fault in it as a ConfigError that names the value's line."""
    try:
        return call()
    except UsageError as error:
        message, hint = error.message, error.hint
    except EncodingFault as error:
        message, hint = str(error), None
    raise settings.source.fault(("keys", entry.name, key), f"{key} in [keys.{entry.name}]: {message}", hint=hint)


def known_alg(name: str) -> str:
    """Return the name of an algorithm; raises UsageError for one that this version or nobody knows."""
    if name not in _JOSE:
        raise UsageError(f"{quoted(name)} is no signature algorithm", hint=SIGNS_WITH)
    if name not in ALGORITHMS:
        raise UsageError(f"the algorithm {name} is not supported by this version", hint=SIGNS_WITH)
    return name


def bounds(rules: Iterable[KeyRules]) -> tuple[Bound, ...]:
    """Return what binds the signatures of a key, of all that is said of it."""
    return tuple(
        Bound(each.table, each.algs, each.not_after)
        for each in rules
        if each.table is not None and (each.algs or each.not_after is not None)
    )


def tables_of(
    settings: Settings,
    token: TokenInfo,
    slot: SlotInfo,
    label: str | None,
    id: bytes | None,  # noqa: A002  RFC's name
    *,
    module: str = "",
) -> list[KeyTable]:
    """Return the key tables that mean a key which was found on a token, however their URIs are written.

    `module` is the real path of the module that shows it. A table of another module means it only where its URI names
    the token, which one module shows as another one does. A URI that fits other keys, too, counts. Raises ConfigError
    for a table whose URI is none: nobody can say which key it means.
    """

    def means_it(entry: KeyTable) -> bool:
        uri = configured(settings, entry, "uri", lambda: _parsed(entry.uri))
        if not (uri.matches_token(token) and uri.matches_slot(slot)):
            return False
        uri = msgspec.structs.replace(uri, type=None if uri.type in ("private", "public") else uri.type)
        return uri.matches_object(label, id, "private") and _same_module(entry, uri, module)

    return [entry for entry in settings.keys.values() if means_it(entry)]


def named_first(named: KeyRules, every: Iterable[KeyRules]) -> tuple[KeyRules, ...]:
    """Return what all tables say that limit the use of a key, each once: the one that was named, if any, first."""
    others = tuple(each for each in every if each.table != named.table)
    return others if named.table is None else (named, *others)


def tables_alike(settings: Settings, uri: KeyUri, module: str | None = None) -> list[KeyTable]:
    """Return the key tables that bind what this URI asks for, as can be told without a token.

    Of several that say the same of it, one is enough.
    """
    real = os.path.realpath(module) if module else ""
    alike = _by_selection(settings.keys).get(_selection(uri), ())
    return [entry for entry in alike if _same_module(entry, _parsed(entry.uri), real)]


def _by_selection(keys: Mapping[str, KeyTable]) -> Mapping[tuple[object, ...], Sequence[KeyTable]]:
    """Return a config's key tables that bind a key by what their URIs select, one of each kind.

    Made once, since a list of profiles asks for each of them; and thousands of tables may mean one key.
    One whose URI is none is left out: that is told where it is used, or where a token is there to compare with.
    """
    if not _latest or _latest[0][0] is not keys:
        kinds: dict[tuple[object, ...], dict[object, KeyTable]] = {}
        for entry in keys.values():
            if entry.alg is None and entry.not_after is None:
                continue
            with contextlib.suppress(UsageError):
                uri = _parsed(entry.uri)
                says = (str(entry.alg), str(entry.not_after), entry.module, uri.module_path)
                kinds.setdefault(_selection(uri), {}).setdefault(says, entry)
        _latest[:] = [(keys, {selection: list(each.values()) for selection, each in kinds.items()})]
    return _latest[0][1]


def _same_module(entry: KeyTable, uri: KeyUri, module: str) -> bool:
    """Tell whether a table's token may be the one that the module of that real path shows; '' is any module."""
    named = entry.module or uri.module_path
    if not module or named is None or os.path.realpath(named) == module:
        return True
    return any(getattr(uri, name) is not None for name in _NAMES_TOKEN)


@functools.lru_cache(maxsize=65536)  # before the token is opened, and once more when the key is found
def _parsed(text: str) -> KeyUri:
    return parse(text)


def _selection(uri: KeyUri) -> tuple[object, ...]:
    """Return what a URI selects by, which leaves out how to reach it."""
    uri = uri.for_private()
    return tuple(getattr(uri, name) for name in SELECTS)


def _beside(settings: Settings, path: str | None) -> str | None:
    """Return a path; a relative one lies beside the config file."""
    if path is None:
        return None
    if "\0" in path:
        raise UsageError("a file name holds no NUL")
    if display(path) != path:
        raise UsageError(f"'{display(path)}' is a URI, and holds a PIN, where a file's name belongs")
    return os.path.join(os.path.dirname(settings.path or ""), path)


def _is_uri(text: str | None) -> TypeGuard[str]:
    return text is not None and text[: len(SCHEME)].lower() == SCHEME


def _certificate(settings: Settings, named: str | None) -> str | None:
    if named is None or not _is_uri(named):
        return _beside(settings, named)
    uri = parse(named)
    if uri.type != "cert":
        raise UsageError(f"'{uri.brief}' does not name a certificate", hint="add type=cert to it")
    if uri.pin_value is not None or uri.pin_source is not None:
        raise UsageError("a certificate's URI says nothing of a PIN", hint="pin_source says where the key's is")
    return named


def is_policy_file(named: str) -> bool:
    """Tell whether an audit policy is named by its file, which a slash or its ending tells."""
    return "/" in named or named.endswith(".toml")


def _policy(settings: Settings, named: str | None) -> str | None:
    """Return the name of an audit policy, or the path of a file of one."""
    return _beside(settings, named) if named is not None and is_policy_file(named) else named


def _moment(value: datetime.date | datetime.datetime | str | None) -> int | None:
    """Return Unix time; a day without a time ends with its last second in UTC."""
    if value is None:
        return None
    if isinstance(value, datetime.datetime) and value.microsecond:
        value = value.replace(microsecond=0)
    text = value if isinstance(value, str) else value.isoformat()
    if _DATE.fullmatch(text):
        return parse_when(f"{text}T00:00:00Z").seconds + _LAST_OF_DAY
    if not _DATE.match(text):
        raise UsageError(
            f"{quoted(text)} is no time", hint="a day such as 2031-11-02, or RFC 3339 such as 2031-11-02T01:30:00Z"
        )
    return parse_when(text).seconds


def _age(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = parse_duration(text)
    if not seconds:
        raise UsageError("must be longer than 0")
    return seconds


def _thumbprint(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        good = len(b64u_decode(text)) == _THUMBPRINT
    except EncodingFault:
        good = False
    if not good:
        raise UsageError(
            f"{quoted(text)} is no thumbprint: 43 characters of base64url (RFC 7638)",
            hint="hsmjwt key show tells the key's",
        )
    return text
