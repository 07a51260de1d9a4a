"""PKCS#11 URIs (RFC 7512): parse, match and write them, and keep PINs out of whatever is shown.

- Pure: no file is read and nobody is asked; a URI is refused before any module is loaded.
- A URI is a filter: an absent attribute matches everything, `attr=` an empty value, an unknown path attribute nothing.
- Messages quote the masked text only (`_masked`). Secrets are masked by their place, so that the end of a broken
  `pin-value=a&b` is hidden too. No UnicodeDecodeError is ever raised: it would carry the bytes.
- Raw text that can mean one thing only (`<`, letters beyond ASCII) is accepted, though RFC 7512 wants it encoded.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args
from urllib.parse import quote, unquote_to_bytes

import msgspec

from hsmjwt.errors import UsageError
from hsmjwt.nearest import nearest

KeyType = Literal["public", "private", "cert", "secret-key", "data"]
SCHEME = "pkcs11:"
# RFC 7512, section 2.3: the path attributes in the order in which we write them, each with the width in bytes of the
# blank-padded field that it is compared with (PKCS#11 2.40, sections 3.1 and 3.2), 0 where there is no such field.
_PATH = {
    "token": 32,
    "serial": 16,
    "manufacturer": 32,
    "model": 16,
    "library-description": 32,
    "library-manufacturer": 32,
    "library-version": 0,
    "slot-description": 64,
    "slot-manufacturer": 32,
    "slot-id": 0,
    "object": 0,
    "id": 0,
    "type": 0,
}
_QUERY = ("module-name", "module-path", "pin-source", "pin-value")  # section 2.4
_MUST_BE = {
    "type": "one of " + ", ".join(get_args(KeyType)),
    "slot-id": "a decimal number of at most 64 bits",
    "library-version": "N or N.N, neither over 255",
}
_MEANT = {"label": "object", "name": "object", "class": "type", "slot": "slot-id"}  # by who writes these names
_HEX = frozenset("0123456789abcdefABCDEF")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
# Written raw, besides letters, digits and "-._~". RFC 7512 also has []!$'()*, but a URI is pasted into shells.
_SAFE = ":@+,="
_NOT_UTF8 = "[\ud800-\udfff]"
_MASK = "\uffff"  # no character: stands for one character of a secret


class UriError(UsageError):
    """A PKCS#11 URI that RFC 7512, or our reading of it, refuses; a config turns it into exit code 3."""


class LibraryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What CK_INFO tells of a module; texts with or without their padding."""

    description: str
    manufacturer: str
    version: tuple[int, int]


class SlotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What CK_SLOT_INFO tells of a slot; texts with or without their padding."""

    slot_id: int
    description: str
    manufacturer: str


class TokenInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What CK_TOKEN_INFO tells of a token; texts with or without their padding."""

    label: str
    serial: str
    model: str
    manufacturer: str


class KeyUri(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed PKCS#11 URI: decoded values, None where the URI does not say.

    `unknown` holds the path attributes that RFC 7512 does not know, as (name, decoded value); with any there, nothing
    matches. `pin_value` is a secret: str() and repr() show `***`.
    """

    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    library_description: str | None = None
    library_manufacturer: str | None = None
    library_version: tuple[int, int] | None = None
    slot_description: str | None = None
    slot_manufacturer: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    type: KeyType | None = None
    unknown: tuple[tuple[str, str], ...] = ()
    module_name: str | None = None
    module_path: str | None = None
    pin_source: str | None = None
    pin_value: str | None = None

    def __str__(self) -> str:
        """Write the URI in canonical form, with `***` for secrets, even for one in `object=k&pin-value=…`, wrong."""
        path = [_written(name, getattr(self, name.replace("-", "_"))) for name in _PATH]
        path += [_written(name, value) for name, value in self.unknown]
        query = [_written(name, getattr(self, name.replace("-", "_"))) for name in _QUERY]
        text = SCHEME + ";".join(filter(None, path)) + ("?" if any(query) else "") + "&".join(filter(None, query))
        return display(text)

    @property
    def brief(self) -> str:
        """The canonical form for a message, cut where it is very long."""
        return str(self) if len(str(self)) <= 300 else f"{str(self)[:300]}…"

    def __repr__(self) -> str:
        return f"KeyUri({str(self)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("uri", str(self))]

    def for_private(self) -> KeyUri:
        """Return the URI as a key URI: without a type it means the private key; any other type stays."""
        return self if self.type is not None else msgspec.structs.replace(self, type="private")

    def matches_library(self, info: LibraryInfo) -> bool:
        """Tell whether the library attributes fit this module."""
        fits = _fits(self, library_description=info.description, library_manufacturer=info.manufacturer)
        return fits and self.library_version in (None, info.version)

    def matches_slot(self, info: SlotInfo) -> bool:
        """Tell whether the slot attributes fit this slot."""
        fits = _fits(self, slot_description=info.description, slot_manufacturer=info.manufacturer)
        return fits and self.slot_id in (None, info.slot_id)

    def matches_token(self, info: TokenInfo) -> bool:
        """Tell whether the token attributes fit this token."""
        return _fits(self, token=info.label, serial=info.serial, model=info.model, manufacturer=info.manufacturer)

    def matches_object(self, label: str | None, id: bytes | None, object_class: str) -> bool:  # noqa: A002  RFC's name
        """Tell whether the object attributes fit an object; None is a value that the token will not tell.

        `object_class` is a KeyType. A label is compared to the letter: unlike a token's, it is not padded.
        """
        fits = self.object in (None, label) and self.id in (None, id) and self.type in (None, object_class)
        return fits and not self.unknown

    def unknown_hint(self) -> str | None:
        """Say which attribute makes this URI match nothing, with the nearest known name; None where none does."""
        if not self.unknown:
            return None
        near = nearest(self.unknown[0][0], [*_PATH, *_MEANT])
        said = f"the attribute {_quote(self.unknown[0][0])} is unknown, and a URI with an unknown one matches nothing"
        return f"{said}: did you mean {_MEANT.get(near, near)!r}?" if near else said


def parse(text: str) -> KeyUri:
    """Parse a PKCS#11 URI by RFC 7512, section 2.3.

    Raises UriError for what breaks its grammar, for attributes given twice or at the wrong side of the `?`, for those
    that exclude each other, for a value that its attribute cannot have, and for a NUL anywhere but in the id and the
    pin-value. `library-version=N` means N.0. Unknown query attributes are ignored.
    """
    masked = _masked(text)
    if text[: len(SCHEME)].lower() != SCHEME:
        hint = "a key is named like 'pkcs11:token=prod;object=my-key'"
        raise UriError(f"{_quote(masked)} is no PKCS#11 URI: it does not begin with {SCHEME!r}", hint=hint)
    mark = text.find("?") if "?" in text else len(text)
    path = _side(text, masked, len(SCHEME), mark, delimiter=";")
    query = _side(text, masked, mark + 1, len(text), delimiter="&")
    for one, other in (("pin-source", "pin-value"), ("module-name", "module-path")):
        if one in query and other in query:
            raise UriError(f"{one!r} and {other!r} exclude each other in a PKCS#11 URI")
    known = {name: value for name, value in (path | query).items() if name in _PATH or name in _QUERY}
    unknown = tuple((name, value) for name, value in path.items() if name not in known)
    return KeyUri(**{name.replace("-", "_"): value for name, value in known.items()}, unknown=unknown)


def format_token_uri(token: TokenInfo, slot_id: int | None = None) -> str:
    """Write the URI that selects a token: token, serial, and slot-id where the caller needs it to tell two apart.

    A value that no URI can ask for (NUL, not Unicode, longer than its field) is left out.
    """
    fields = {"token": token.label.rstrip(" \0"), "serial": token.serial.rstrip(" \0")}
    parts = [_written(name, value) for name, value in fields.items() if _writable(value, _PATH[name])]
    return SCHEME + ";".join([*parts, _written("slot-id", slot_id)] if slot_id is not None else parts)


def format_object_uri(
    token: TokenInfo,
    *,
    label: str | None,
    id: bytes | None,  # noqa: A002  RFC's name
    type: KeyType | None,  # noqa: A002  RFC's name
    slot_id: int | None = None,
) -> str:
    """Write the URI that selects one object: token, serial, (slot-id), object, id, type.

    None leaves an attribute out. An empty label or id is written (`object=`, `id=`): it matches the empty value only,
    and without it the URI would fit a neighbour too. The id is percent-encoded byte by byte.
    """
    start = format_token_uri(token, slot_id)
    label = label if label is not None and _writable(label) else None
    parts = filter(None, [_written("object", label), _written("id", id), _written("type", type)])
    return start + "".join(";" + part for part in parts).removeprefix(";" if start == SCHEME else "")


def pin_source_spec(uri: KeyUri) -> str | None:
    """Return the URI's pin-source as hsmjwt's own spec, `file:/PATH` or `env:NAME`; None where it has none.

    The inner `file:` URI (RFC 8089) is decoded once more; a plain path is taken as it stands. A relative path is
    refused: RFC 7512, section 2.4, leaves it to the application, and ours may run anywhere.
    """
    return None if uri.pin_source is None else _pin_spec(uri.pin_source, "'***'")


def hex_hint(uri: KeyUri) -> str | None:
    """Offer, where nothing matched, the encoded form of an id that is all hex digits: `id=01` is the bytes 30 31."""
    text = (uri.id or b"").decode("latin-1")
    if not text or not _HEX.issuperset(text):
        return None
    meant = _written("id", bytes.fromhex("0" * (len(text) % 2) + text))
    return f"'id={text}' means the bytes {text.encode().hex(' ')}; where hex digits are meant, write '{meant}'"


def display(text: str) -> str:
    """Return a text with `***` for the secrets of a URI in it, whether that is valid or not.

    Hidden is what follows the `=` of `pin-value` in any spelling, of a near miss of that name, and of a `pin-source`
    that may be a PIN in the wrong place. It ends at the next attribute of RFC 7512, else with the text, because a PIN
    that is not encoded may hold every delimiter.
    """
    return re.sub(_MASK + "+", "***", _masked(text))


def _side(text: str, masked: str, start: int, end: int, *, delimiter: str) -> dict[str, Any]:
    """Read the attributes in text[start:end], the path or the query; return their values by name."""
    known, foreign, raw = (_PATH, _QUERY, " #/") if delimiter == ";" else (_QUERY, _PATH, " #;")
    values: dict[str, Any] = {}
    for part in text[start:end].split(delimiter) if start < end else ():
        clip = masked[start : start + len(part)]
        shown = _quote(clip)
        _refuse_raw(part, clip, raw)
        name, equals, value = part.partition("=")
        if not part:
            raise UriError(f"there is an empty attribute in {_quote(masked)}", hint=f"is a {delimiter!r} too many?")
        if not equals:
            hint = f"a {delimiter!r} inside a value is written {quote(delimiter)}"
            raise UriError(f"the attribute {shown} has no '='", hint=hint)
        if not name or not _NAME.issuperset(name):
            raise UriError(f"{shown} has no attribute name before its '='", hint="a name has letters, digits, '-', '_'")
        if name in foreign:
            here, there = ("in the path", "behind") if known is _PATH else ("in the query", "before")
            raise UriError(f"{name!r} stands {here} of a PKCS#11 URI", hint=f"it belongs {there} the '?'")
        if name in values and (name in known or known is _PATH):
            raise UriError(f"the attribute {shown} repeats an earlier one of that name")
        values[name] = _typed(name, value, shown)
        start += len(part) + 1
    return values


def _refuse_raw(part: str, clip: str, raw: str) -> None:
    """Raise UriError where an attribute holds a character that must be encoded, not naming it in a secret."""
    wrong = next((i for i, char in enumerate(part) if not char.isprintable() or char in raw), None)
    if wrong is None:
        return
    if re.search(_NOT_UTF8, part):
        raise UriError(f"{_quote(clip)} is not UTF-8", hint="percent-encode the bytes; only an id may hold any byte")
    secret = clip[wrong] == _MASK
    coded = re.sub(f"[^!-~{_MASK}]|[{raw}]", lambda found: quote(found[0], ""), clip)
    message = f"{'a character' if secret else _quote(part[wrong])} must be percent-encoded in {_quote(clip)}"
    raise UriError(message, hint=None if secret else f"write {_quote(coded)}")


def _typed(name: str, value: str, shown: str) -> str | bytes | int | tuple[int, int]:
    """Decode the value of an attribute; raise UriError where it cannot have that value."""
    data, broken = _unescape(value)
    if broken:
        raise UriError(f"a '%' in {shown} has no two hex digits behind it", hint="a '%' itself is written %25")
    if name == "id":
        return data
    text = data.decode("utf-8", "surrogateescape")
    if not text.isascii() and re.search(_NOT_UTF8, text):
        raise UriError(f"{shown} is not UTF-8", hint="only an id may hold any byte; text is percent-encoded in UTF-8")
    if "\0" in text and name != "pin-value":  # the rules for PINs refuse that one
        raise UriError(f"{shown} holds a NUL", hint="only an id may hold any byte")
    typed: str | int | tuple[int, int] | None = text
    if name == "slot-id":
        typed = _number(text, 2**64 - 1)
    elif name == "library-version":
        major, dot, minor = text.partition(".")
        one, other = _number(major, 255), _number(minor if dot else "0", 255)
        typed = None if one is None or other is None else (one, other)
    elif name == "type" and text not in get_args(KeyType):
        typed = None
    elif name == "pin-source":
        _pin_spec(text, shown)
    if typed is None:
        raise UriError(f"{name} must be {_MUST_BE[name]}: {shown}")
    return typed


def _number(text: str, most: int) -> int | None:
    """Read a decimal number in ASCII digits; None where it is none, or over `most`."""
    digits = text.lstrip("0") or text[:1]
    fine = digits.isascii() and digits.isdigit() and len(digits) <= len(str(most)) and int(digits) <= most
    return int(digits) if fine else None


def _pin_spec(text: str, shown: str) -> str:
    """Turn a decoded pin-source into `file:/PATH` or `env:NAME`; raise UriError where it is neither."""
    scheme, _, rest = text.partition(":")
    if text.startswith("/"):
        return "file:" + text
    if scheme.lower() == "env" and rest and "=" not in rest:
        return "env:" + rest
    if rest.startswith("//"):  # an authority: none, or this machine (RFC 8089, section 2)
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest if host.lower() in ("", "localhost") else ""
    data, broken = _unescape(rest)
    path = data.decode("utf-8", "surrogateescape")
    if scheme.lower() != "file" or not path.startswith("/") or "\0" in path or broken or re.search(_NOT_UTF8, path):
        raise UriError(f"pin-source must be an absolute path, a 'file:' URI with one, or 'env:NAME': {shown}")
    return "file:" + path


def _unescape(text: str) -> tuple[bytes, bool]:
    """Undo percent-encoding; a broken escape is kept as it stands, and reported by the second value."""
    broken = re.search("%(?![0-9A-Fa-f]{2})", text) is not None
    return unquote_to_bytes(text.encode("utf-8", "surrogatepass")), broken


def _written(name: str, value: str | bytes | int | tuple[int, int] | None) -> str:
    """Write one attribute; nothing where it has no value."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{name}=" + "".join(f"%{byte:02X}" for byte in value)
    text = f"{value[0]}.{value[1]}" if isinstance(value, tuple) else str(value)
    return f"{name}=" + quote(text, _SAFE + "/" if name in _QUERY else _SAFE, errors="surrogatepass")


def _fits(uri: KeyUri, **fields: str) -> bool:
    """Compare the URI's values with padded fields (some tokens pad with NUL); an unknown attribute fits nothing."""
    for name, field in fields.items():
        wanted, width = getattr(uri, name), _PATH[name.replace("_", "-")]
        if wanted is not None and (len(wanted.encode()) > width or wanted.rstrip(" ") != field.rstrip(" \0")):
            return False
    return not uri.unknown


def _writable(value: str, width: int = 0) -> bool:
    """Tell whether a URI can ask for this value."""
    return not re.search("\0|" + _NOT_UTF8, value) and (not width or len(value.encode()) <= width)


def _quote(masked: str) -> str:
    """Quote a text for a message: secrets as `***`, control characters and surrogates escaped, cut where it is long."""
    text = re.sub(_MASK + "+", "***", masked[:160]) + ("…" if masked[160:] else "")
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text) + "'"


def _masked(text: str) -> str:
    """Return the text with `_MASK` for each character of a secret, every other one in its place; see `display`."""
    out, start, hidden = list(text), 0, False
    for at, char in enumerate(text + "&"):
        if char not in "?&;":
            continue
        name, equals, value = text[start:at].partition("=")
        hidden = hidden and not (equals and (name in _PATH or name in _QUERY))
        clear = start - 1 if hidden else start + _clear_length(name, equals, value)
        hidden = clear < at
        out[clear:at] = _MASK * (at - clear)
        start = at + 1
    return "".join(out)


def _clear_length(name: str, equals: str, value: str) -> int:
    """Return how many characters of one attribute may be shown."""
    whole = name + equals + value
    plain = _unescape(name)[0].decode("utf-8", "replace").strip().lower()
    plain = re.split(r"[ :'\"]", plain)[-1]  # what a message may have before it
    squeezed = _unescape(whole)[0].lower().translate(None, b"-_ ")  # may be a URI encoded once more
    if plain == "pin-source" and equals:
        secret = not _unescape(value)[0].lower().startswith((b"/", b"file:", b"env:"))
    else:
        secret = (equals and _may_hold_pin(plain)) or (b"pinvalue=" if equals else b"pinvalue") in squeezed
    return len(whole) if not secret else len(name + equals) if equals else 0


def _may_hold_pin(name: str) -> bool:
    """Tell whether this is `pin-value`, or may be meant for it."""
    return name.lower() != "pin-source" and ("pin" in name.lower() or "value" in name.lower())
