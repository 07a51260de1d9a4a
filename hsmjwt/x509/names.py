"""Names of subjects and issuers: RFC 4514 text as people write it, and the DER of RFC 5280, section 4.1.2.4."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from hsmjwt.errors import UsageError
from hsmjwt.jose.encoding import quoted
from hsmjwt.nearest import did_you_mean
from hsmjwt.x509.der import OID, SEQUENCE, SET, DerFault, Node, children, dotted, encoded, encoded_oid, only, sequence

_UTF8, _PRINTABLE, _IA5 = 12, 19, 22  # numbers of universal tags (X.680, section 8.4)
_ENCODINGS = {  # how the value's bytes are read, by the tag; what RFC 5280 lets issuers write, and more
    _UTF8: "utf-8",
    18: "ascii",  # NumericString
    _PRINTABLE: "ascii",
    20: "latin-1",  # TeletexString, as everybody reads it
    _IA5: "ascii",
    26: "ascii",  # VisibleString
    28: "utf-32-be",  # UniversalString
    30: "utf-16-be",  # BMPString
}
_INITIALS = 2  # characters; among names as short as this everything is near
_MAX_PARTS = 64  # of a name; the longest in use have ten


class Kind(NamedTuple):
    """A type of attribute: its OID, the tag that its values are written with, how many characters one may have."""

    oid: str
    tag: int
    most: int


KINDS = {  # RFC 4514, section 3; RFC 5280, appendix A.1, for the upper bounds, or X.520 where that has none
    "CN": Kind("2.5.4.3", _UTF8, 64),
    "O": Kind("2.5.4.10", _UTF8, 64),
    "OU": Kind("2.5.4.11", _UTF8, 64),
    "C": Kind("2.5.4.6", _PRINTABLE, 2),
    "ST": Kind("2.5.4.8", _UTF8, 128),
    "L": Kind("2.5.4.7", _UTF8, 128),
    "STREET": Kind("2.5.4.9", _UTF8, 128),
    "DC": Kind("0.9.2342.19200300.100.1.25", _IA5, 63),
    "UID": Kind("0.9.2342.19200300.100.1.1", _UTF8, 256),
    "emailAddress": Kind("1.2.840.113549.1.9.1", _IA5, 255),
    "serialNumber": Kind("2.5.4.5", _PRINTABLE, 64),
    "SN": Kind("2.5.4.4", _UTF8, 64),
    "GN": Kind("2.5.4.42", _UTF8, 64),
    "title": Kind("2.5.4.12", _UTF8, 64),
    "organizationIdentifier": Kind("2.5.4.97", _UTF8, 256),
}
"""The attributes that have a name here, each by that which openssl prints, too."""

_SHORT = {kind.oid: name for name, kind in KINDS.items()}
_ALSO = {  # other names of the same (RFC 4519, section 2)
    **{name.lower(): name for name in KINDS},
    "commonname": "CN",
    "organizationname": "O",
    "organizationalunitname": "OU",
    "countryname": "C",
    "stateorprovincename": "ST",
    "s": "ST",
    "localityname": "L",
    "streetaddress": "STREET",
    "domaincomponent": "DC",
    "userid": "UID",
    "email": "emailAddress",
    "e": "emailAddress",
    "surname": "SN",
    "givenname": "GN",
}
_PRINTABLE_TEXT = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")  # X.680, section 41.4
_DOTTED = re.compile(r"(?:[01]\.(?:[1-3]?\d)|2\.(?:0|[1-9]\d{0,9}))(?:\.(?:0|[1-9]\d{0,9})){0,14}", re.ASCII)
_SPECIAL = '"+,;<>\\'  # RFC 4514, section 2.4
_LITERAL = "a # at the start of a text is written \\#"
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")


class Part(NamedTuple):
    """One attribute of a name: the type's OID, and the value as DER."""

    oid: str
    value: bytes


Name = tuple[tuple[Part, ...], ...]
"""A name as X.500 has it, the country first: relative distinguished names of one attribute each, rarely of more."""


def read_name(node: Node) -> Name:
    """Return the name that a SEQUENCE holds; raises DerFault."""
    found = []
    for rdn in children(sequence(node), _MAX_PARTS):
        if rdn.tag != SET:
            raise DerFault
        parts = []
        for pair in children(rdn):
            oid_and_value = children(sequence(pair))
            if len(oid_and_value) != 2 or oid_and_value[0].tag != OID:
                raise DerFault
            parts.append(Part(dotted(oid_and_value[0].content), oid_and_value[1].whole))
        if not parts:
            raise DerFault
        found.append(tuple(parts))
    return tuple(found)


def name_der(name: Name) -> bytes:
    """Return the name as DER, the attributes of one relative name in the order that DER asks for (X.690, 11.6)."""
    rdns = []
    for rdn in name:
        pairs = [encoded(SEQUENCE, encoded_oid(part.oid) + part.value) for part in rdn]
        rdns.append(encoded(SET, b"".join(sorted(pairs))))
    return encoded(SEQUENCE, b"".join(rdns))


def name_text(name: Name) -> str:
    """Return the name as RFC 4514 text, the country last, on one line whatever it holds."""
    return ",".join("+".join(_part_text(part) for part in rdn) for rdn in reversed(name))


def same_name(one: Name, other: Name) -> bool:
    """Tell whether two names mean the same: case, runs of blanks and the type of text aside (RFC 5280, section 7.1)."""
    return _folded(one) == _folded(other)


def _folded(name: Name) -> list[list[tuple[str, str | bytes]]]:
    return [sorted((part.oid, _fold(_text_of(part.value)) or part.value.hex()) for part in rdn) for rdn in name]


def _fold(text: str | None) -> str | None:
    return None if text is None else " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _text_of(value: bytes) -> str | None:
    """Return the text of a value, None where it is of a type that is no text, or damaged."""
    node = only(value)
    encoding = _ENCODINGS.get(node.tag)
    try:
        return None if encoding is None else node.content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _part_text(part: Part) -> str:
    text = _text_of(part.value)
    value = f"#{part.value.hex()}" if text is None else escaped(text)  # RFC 4514, section 2.4
    return f"{_SHORT.get(part.oid, part.oid)}={value}"


def escaped(text: str) -> str:
    """Return a value as RFC 4514 text: what would end it, or would not be seen, is escaped (section 2.4)."""
    last = len(text) - 1
    return "".join(
        f"\\{char}"
        if char in _SPECIAL or (char == "#" and not at) or (char == " " and at in (0, last))
        # what drives a terminal or stands for no character of its own is written as its bytes
        else char
        if char.isprintable()
        else "".join(f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for at, char in enumerate(text)
    )


def parse_name(text: str) -> Name:
    r"""Read RFC 4514 text, as `CN=svc,O=Example\, Inc.,C=NO`, the most specific attribute first.

    Text without anything is the empty name. Blanks around a comma are left out, as RFC 2253, section 4, has them.
    Raises UsageError that names the piece that cannot be read.
    """
    if not text.strip():
        return ()
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(f"the subject {text!a} is not UTF-8 text")
    rdns: list[tuple[Part, ...]] = []
    parts: list[Part] = []
    for piece, ends_with in _pieces(text):
        parts.append(_part(piece))
        if ends_with == "+":
            continue
        if len({part.oid for part in parts}) != len(parts):
            _refuse(piece, "names an attribute twice between plus signs")
        rdns.append(tuple(parts))
        parts = []
    if len(rdns) > _MAX_PARTS:
        raise UsageError(f"the subject has {len(rdns)} parts, and {_MAX_PARTS} are the limit")
    return tuple(reversed(rdns))


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield what stands between separators that are not escaped, and the separator behind it."""
    begin = at = 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char in ",+":
            yield text[begin:at], char
            begin = at + 1
        at += 1
    yield text[begin:], ""


def _part(piece: str) -> Part:
    r"""Read one attribute, as `O=Example\, Inc.`."""
    name, equals, value = piece.partition("=")
    if not piece.strip():
        _refuse(piece, "is empty", "leave out one of two separators that follow each other, and one at the end")
    if not equals:
        _refuse(
            piece,
            "is no attribute with a value, as O=Example",
            "a comma or a plus sign in a value is written \\, or \\+",
        )
    name = name.strip(" ")
    short = _ALSO.get(name.lower())
    oid = KINDS[short].oid if short is not None else name.removeprefix("OID.")
    if short is None and not _DOTTED.fullmatch(oid):
        known = did_you_mean(name if len(name) > _INITIALS else "", KINDS, noun="attributes")
        _refuse(piece, f"names the attribute {quoted(name)}, which is not known", f"{known}, or an OID as 2.5.4.3")
    value = _without_blanks(value)
    if not value:
        _refuse(piece, "has no value")
    if value.startswith("#"):
        return Part(oid, _of_hex(piece, _SHORT.get(oid), value[1:]))
    return Part(oid, _value(piece, _SHORT.get(oid), _unescaped(piece, value)))


def _without_blanks(value: str) -> str:
    """Cut blanks around a value, an escaped one at its end apart."""
    cut = value.strip(" ")
    ends_open = (len(cut) - len(cut.rstrip("\\"))) % 2
    return cut + " " if ends_open and value.rstrip(" ") != value else cut


def _of_hex(piece: str, name: str | None, digits: str) -> bytes:
    """Return the DER that `#` and hexadecimal digits spell out (RFC 4514, section 2.4), text as `name` has it."""
    try:
        der = bytes.fromhex(digits) if _HEX.fullmatch(digits) else b""
        text = _text_of(der)
    except DerFault:
        _refuse(piece, "has a value that is no DER in hexadecimal", _LITERAL)
    if name is None:
        return der
    if not text:
        _refuse(piece, f"has a value in hexadecimal that is no text, and {name} is one", _LITERAL)
    return _value(piece, name, text)


def _unescaped(piece: str, value: str) -> str:
    """Return the text without its escapes (RFC 4514, section 2.4)."""
    if value.startswith('"'):
        hint = "quotes are RFC 2253's: a comma is written \\, and a quote \\\""
        _refuse(piece, "has a value in quotes", hint)
    data = bytearray()
    at = 0
    while at < len(value):
        char = value[at]
        if char == "\\":
            pair = value[at + 1 : at + 3]
            if _HEX.fullmatch(pair):
                data.append(int(pair, 16))
                at += 3
                continue
            if not pair or pair[0] not in f"{_SPECIAL} #=":
                _refuse(piece, "has a backslash that escapes nothing", "a backslash itself is written \\\\")
            char = pair[0]
            at += 1
        elif char in _SPECIAL or char == "\0":
            _refuse(piece, f"has a {quoted(char)} that is not escaped", f"it is written \\{char}")
        data += char.encode()
        at += 1
    try:
        return data.decode()
    except UnicodeDecodeError:
        _refuse(piece, "has escaped bytes that are no UTF-8")


def _value(piece: str, name: str | None, text: str) -> bytes:
    """Return a text as DER, of the type and within the bounds of its attribute."""
    if any(unicodedata.category(char) == "Cc" for char in text):
        _refuse(piece, "holds a control character")
    if name is None:
        return encoded(_UTF8, text.encode())
    _, tag, most = KINDS[name]
    if name == "C" and not re.fullmatch(r"[A-Z]{2}", text):
        _refuse(piece, "is no country code of two capital letters (ISO 3166)", "for example C=NO")
    if len(text) > most:
        _refuse(piece, f"is longer than the {most} characters that {name} may have (RFC 5280, A.1)")
    if tag == _PRINTABLE and not _PRINTABLE_TEXT.fullmatch(text):
        _refuse(piece, f"has a character that {name} may not have: letters, digits, blanks and '()+,-./:=? are all")
    if tag == _IA5 and not text.isascii():
        _refuse(piece, f"has a character beyond ASCII, which {name} may not have")
    return encoded(tag, text.encode())


def _refuse(piece: str, why: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"the piece {quoted(piece)} of the subject {why}", hint=hint)
