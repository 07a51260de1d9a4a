"""Subject alternative names: `dns:`, `email:`, `uri:` and `ip:` texts, and the DER of RFC 5280, section 4.2.1.6."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NoReturn

from hsmjwt.errors import UsageError
from hsmjwt.jose.encoding import quoted
from hsmjwt.nearest import did_you_mean
from hsmjwt.x509.der import SEQUENCE, DerFault, Node, children, encoded, only, sequence
from hsmjwt.x509.names import name_text, read_name

_TAGS = {"email": 1, "dns": 2, "uri": 6, "ip": 7}  # of the choices of a GeneralName
_MAX_NAMES = 1000  # of a certificate that is read; authorities stop at a few hundred
_MAX_NEW = 100
_ALSO = {"dnsname": "dns", "rfc822name": "email", "url": "uri", "uniformresourceidentifier": "uri", "ipaddress": "ip"}
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1034, section 3.5, with RFC 1123, section 2.1
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"  # RFC 5322, section 3.2.3
_MAILBOX = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")  # RFC 3986


def alternatives_der(texts: Iterable[str]) -> bytes:
    """Return the names as DER; raises UsageError that quotes the one that cannot be meant."""
    names: list[bytes] = []
    for text in texts:
        tag, content = _read(text)
        der = encoded(tag, content, context=True)
        if der in names:
            _refuse(text, "stands there twice")
        names.append(der)
    if len(names) > _MAX_NEW:
        raise UsageError(f"there are {len(names)} alternative names, and {_MAX_NEW} are the limit")
    return encoded(SEQUENCE, b"".join(names))


def _read(text: str) -> tuple[int, bytes]:
    """Return tag and content of one name."""
    kind, colon, value = text.partition(":")
    kind = _ALSO.get(kind.strip().lower(), kind.strip().lower())
    if not colon or kind not in _TAGS:
        known = did_you_mean(kind, _TAGS, noun="types") if colon else "write dns:, email:, uri: or ip: before it"
        _refuse(text, "has no type that is known", known)
    if not value.isascii():
        hint = "an internationalised name is written with its A-label, which begins with xn--"
        _refuse(text, "has a character beyond ASCII", "what RFC 3986 escapes is written %XX" if kind == "uri" else hint)
    match kind:
        case "dns":
            _check_host(text, value.removeprefix("*."))
        case "email":
            mailbox, _, host = value.rpartition("@")
            if not _MAILBOX.fullmatch(mailbox) or len(mailbox) > 64:
                _refuse(text, "is no address as name@example.com (RFC 5280, 4.2.1.6)")
            _check_host(text, host)
        case "uri":
            if not _URI.fullmatch(value):
                _refuse(text, "is no absolute URI (RFC 3986)", "for example uri:https://example.com/ or uri:urn:x:y")
        case "ip":
            return _TAGS[kind], _address(text, value)
    return _TAGS[kind], value.encode("ascii")


def _check_host(text: str, host: str) -> None:
    if not _HOST.fullmatch(host) or len(host) > 253:
        _refuse(text, "has no host name (RFC 1034, 3.5): letters, digits, hyphens and dots")
    if host.rpartition(".")[2].isdigit():
        _refuse(text, "has a number where the host name ends", "an address is written ip:192.0.2.1")


def _address(text: str, value: str) -> bytes:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        _refuse(text, "is no IP address", "one address, without a mask: ip:192.0.2.1 or ip:2001:db8::1")
    if getattr(address, "scope_id", None):
        _refuse(text, "names a zone, which no certificate can hold")
    return address.packed


def _refuse(text: str, why: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"the alternative name {quoted(text)} {why}", hint=hint)


def alternative_texts(node: Node) -> tuple[str, ...]:
    """Return the names as such texts, those of other types as well as they can be shown; raises DerFault."""
    return tuple(_shown(each) for each in children(sequence(node), _MAX_NAMES))


def _shown(node: Node) -> str:
    first = node.whole[0]
    kind = {0x80 | tag: kind for kind, tag in _TAGS.items()}.get(first)
    if kind == "ip":
        try:
            return f"ip:{ipaddress.ip_address(node.content)}"
        except ValueError:
            return f"ip:#{node.content.hex()}"
    if kind is not None:
        return f"{kind}:{node.content.decode('ascii', 'backslashreplace')}"
    if first == 0xA4:  # directoryName, whose tag is explicit
        return f"dirname:{name_text(read_name(only(node.content)))}"
    if first & 0xC0 != 0x80:
        raise DerFault
    return f"[{first & 0x1F}]:#{node.whole.hex()}"
