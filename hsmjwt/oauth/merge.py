"""Claims and header of an assertion, merged from flags, profile and provider, each checked where it was named.

Among the flags and the claims file a claim stands once; a flag over a profile's claim is an override, which keeps the
profile's place in the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hsmjwt.config import ProfileTable
from hsmjwt.errors import UsageError
from hsmjwt.guard.policy import is_reserved_typ
from hsmjwt.jose.claims import REGISTERED, Computed, When, parse_duration, parse_when
from hsmjwt.jose.encoding import EncodingFault, dump, json_type, load, load_object, quoted
from hsmjwt.oauth.named import Named, Names, Origin, flag
from hsmjwt.oauth.signing_flags import SigningFlags
from hsmjwt.toml_tables import Source, where

_BOM = b"\xef\xbb\xbf"
_TIMES = ("exp", "iat", "nbf")
_TIME_FLAGS = {"exp": "--exp", "nbf": "--nbf", "iat": "--now"}
# What a verifier acts on: the algorithm, the encoding, or a key of the sender's choice (RFC 7515, section 4.1; RFC
# 7797). The certificate's fields are for the key table to fill. Compared without case, as some verifiers read them.
_FORBIDDEN_HEADERS = frozenset(("alg", "b64", "crit", "jwk", "x5c", "x5t", "x5t#s256"))
_CHECKED_HEADERS = ("typ", "kid")


def merged_claims(flags: SigningFlags, table: ProfileTable | None, source: Source) -> dict[str, Named]:
    """Return what flags and profile claim, a flag's value over a profile's, in the order in which they are written.

    Times are When or numbers, jti may be None or Computed.NEW_ID. Raises UsageError for flags and claims file,
    ConfigError for the profile.
    """
    merged: dict[str, Named] = dict(_profile_claims(table, source)) if table is not None else {}
    merged.update(_flag_claims(flags))
    return merged


def merged_header(flags: SigningFlags, table: ProfileTable | None, source: Source) -> dict[str, Named]:
    """Return the header fields that flags and profile name, typ and kid among them; errors as `merged_claims`."""
    merged: dict[str, Named] = {}
    if table is not None:
        names = Names("header field")
        for key in _CHECKED_HEADERS:
            if (text := getattr(table, key)) is not None:
                _add_header(names, key, text, profile_key(source, table, key))
        for name, value in table.headers.items():
            _add_header(names, name, value, profile_key(source, table, "headers", name))
        merged.update(names)
    names = Names("header field")
    for key in _CHECKED_HEADERS:
        if (text := getattr(flags, key)) is not None:
            _add_header(names, key, text, flag(f"--{key}"))
    for pair in flags.header:
        name, text = _split(pair, "--header", "NAME=VALUE")
        _add_header(names, name, text, flag("--header"))
    merged.update(names)
    return merged


def profile_key(source: Source, table: ProfileTable, *keys: str) -> Origin:
    """Return the origin of a profile's key, or of a key of one of its tables."""
    path = ("profiles", table.name, *keys)
    return Origin("profile", f"{path[-1]} {where(path[:-1])}", source, path)


def _flag_claims(flags: SigningFlags) -> Names:
    names = Names("claim")
    for key in ("iss", "sub"):
        if (text := getattr(flags, key)) is not None:
            names.name(key, text, flag(f"--{key}"))
    if flags.aud:
        names.name("aud", flags.aud[0] if len(flags.aud) == 1 else list(flags.aud), flag("--aud"))
    for key in ("exp", "nbf"):
        if (text := getattr(flags, key)) is not None:
            names.name(key, when(text, flag(f"--{key}")), flag(f"--{key}"))
    if flags.jti is not None:
        names.name("jti", _jti(flags.jti), flag("--jti"))
    for kind, given in _in_order(flags):
        _FURTHER[kind](names, given, flags)
    return names


def _in_order(flags: SigningFlags) -> Iterator[tuple[str, Any]]:
    """Yield what names further claims as it was given; what `order` does not tell of comes last."""
    left: dict[str, list[Any]] = {
        "claim": list(flags.claim),
        "claim_json": list(flags.claim_json),
        "claims_file": [] if flags.claims_file is None else [flags.claims_file],
    }
    for kind in (*flags.order, *(kind for kind, texts in left.items() for _ in texts)):
        if left[kind]:
            yield kind, left[kind].pop(0)


def _claim(names: Names, pair: str, _flags: SigningFlags) -> None:
    name, text = _split(pair, "--claim", "NAME=TEXT")
    _add_claim(names, name, text, flag("--claim"))


def _claim_json(names: Names, pair: str, _flags: SigningFlags) -> None:
    name, text = _split(pair, "--claim-json", "NAME=JSON")
    try:
        value = load(text, noun="claim", root=name)
    except EncodingFault as fault:
        raise UsageError(
            f"--claim-json {quoted(name)}: {fault}", hint="a text stands in quotes: --claim-json 'name=\"text\"'"
        ) from None
    _add_claim(names, name, value, flag("--claim-json"))


def _claims_file(names: Names, data: bytes, flags: SigningFlags) -> None:
    file = flag(f"claims file {quoted(flags.claims_file_name)}")
    try:
        members = load_object(data.removeprefix(_BOM), noun="claim")
    except EncodingFault as fault:
        raise file.fault(str(fault), hint="the file holds one JSON object in UTF-8") from None
    for name, value in members.items():
        _add_claim(names, name, value, file)


_FURTHER: dict[str, Callable[[Names, Any, SigningFlags], None]] = {
    "claim": _claim,
    "claim_json": _claim_json,
    "claims_file": _claims_file,
}


def _profile_claims(table: ProfileTable, source: Source) -> Names:
    names = Names("claim")
    for key, claim in (("issuer", "iss"), ("subject", "sub"), ("audience", "aud")):
        if (value := getattr(table, key)) is not None:
            names.name(claim, value, profile_key(source, table, key))
    if table.lifetime is not None:
        origin = profile_key(source, table, "lifetime")
        names.name("exp", When(int(duration(table.lifetime, origin)), absolute=False), origin)
    if table.nbf is not None:
        origin = profile_key(source, table, "nbf")
        names.name("nbf", when(table.nbf, origin), origin)
    if table.jti is not None:
        names.name("jti", _jti(table.jti), profile_key(source, table, "jti"))
    for name, value in table.claims.items():
        _add_claim(names, name, value, profile_key(source, table, "claims", name))
    return names


def _add_claim(names: Names, name: str, value: object, origin: Origin) -> None:
    """Add a claim whose value is JSON, after a look at what RFC 7519, section 4.1, says of its type."""
    wanted = _wanted(name, value)
    if wanted is not None:
        flag_name = _TIME_FLAGS.get(name)
        found = _shown_type(value, texts=name == "aud")
        raise origin.fault(
            f"the claim {name!r} must be {wanted}, not {found}",
            hint=f"{flag_name} WHEN sets it" if flag_name else None,
        )
    try:
        dump({name: value}, noun="claim")
    except EncodingFault as fault:
        raise origin.fault(str(fault)) from None
    names.name(name, value, origin)


def _wanted(name: str, value: object) -> str | None:
    """Return what a registered claim must be where the value is not; other claims may be anything."""
    if name in _TIMES:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number of seconds"
    if name == "aud":
        texts = value if isinstance(value, list) else [value]
        good = bool(texts) and all(isinstance(text, str) and text for text in texts)
        return None if good else "a text or a list of texts, none empty"
    if name in REGISTERED:
        return None if isinstance(value, str) and value else "a text that is not empty"
    return None


def _shown_type(value: object, *, texts: bool = False) -> str:
    """Describe a value for a message; `texts` says that a list is wanted, and which one this is not."""
    if isinstance(value, list) and texts:
        return "a list with something else" if value else "an empty list"
    if isinstance(value, list):
        return "a list"
    if value is not None and not isinstance(value, str | int | float | dict):
        return "a date or time"  # of TOML
    return "an empty text" if value == "" else json_type(value)


def _add_header(names: Names, name: str, value: object, origin: Origin) -> None:
    """Add a header field, unless it is one that the caller may not choose."""
    plain = name.casefold()
    if plain in _FORBIDDEN_HEADERS:
        raise origin.fault(
            f"the header field {name!r} cannot be set",
            hint="--alg ALG chooses among a key's algorithms" if plain == "alg" else None,
        )
    if plain in _CHECKED_HEADERS and name not in _CHECKED_HEADERS:  # some verifiers would read it, and we did not
        raise origin.fault(f"the header field {name!r} cannot be set", hint=f"it is written {plain!r}")
    if name in _CHECKED_HEADERS and not (isinstance(value, str) and value):
        raise origin.fault(f"the header field {name!r} must be a text that is not empty, not {_shown_type(value)}")
    if name == "typ" and is_reserved_typ(str(value)):
        raise origin.fault(
            f"the typ {quoted(str(value))} is reserved for what hsmjwt itself signs",
            hint="a typ that begins with 'hsmjwt-' is never an assertion's",
        )
    try:
        dump({name: value}, noun="header field")
    except EncodingFault as fault:
        raise origin.fault(str(fault)) from None
    names.name(name, value, origin)


def _split(pair: str, label: str, form: str) -> tuple[str, str]:
    name, equals, text = pair.partition("=")
    if not name or not equals:
        raise UsageError(f"{label} {quoted(pair)} is not {form}")
    return name, text


def _jti(text: str) -> Computed | str | None:
    return {"auto": Computed.NEW_ID, "none": None}.get(text, text)


def when(text: str, origin: Origin) -> When:
    """Return a WHEN, or raise the origin's error."""
    try:
        return parse_when(text)
    except EncodingFault as fault:
        raise origin.fault(str(fault)) from None


def duration(text: str, origin: Origin) -> float:
    """Return a DURATION in seconds, or raise the origin's error."""
    try:
        return parse_duration(text)
    except EncodingFault as fault:
        raise origin.fault(str(fault)) from None
