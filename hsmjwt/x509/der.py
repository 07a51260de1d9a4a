"""DER and PEM as files hold them: blocks told apart, values read one level at a time, in linear time whatever comes."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from asn1crypto import core, parser

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID, SEQUENCE, SET = 1, 2, 3, 4, 6, 16, 17
"""Numbers of universal tags (X.680, section 8.4)."""

_MARKER = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]{1,40})-----")
_MAX_CHILDREN = 16  # of a SEQUENCE here: a certificate's has ten
_MAX_OID = 64  # bytes; the longest in use have twenty


class Node(NamedTuple):
    """One DER value: the number of its tag, negative where the tag is not a universal one, and both of its lengths."""

    tag: int
    content: bytes
    whole: bytes


class DerFault(ValueError):
    """Bytes that are not what they are read as."""


class PemFault(ValueError):
    """Text that is no PEM; says in words why not, and repeats no content."""


def is_der(data: bytes) -> bool:
    """Tell whether a file holds DER: a SEQUENCE, and not text that begins with a 0."""
    return data[:1] == b"\x30" and not _MARKER.search(data)


def blocks(data: bytes) -> list[tuple[str, bytes]]:
    """Return label and body of each PEM block, text around them left out; raises PemFault.

    PEM is taken as it arrives: CRLF, no last line end, a byte order mark, other blocks and text around it.
    """
    found = []
    begun: tuple[bytes, int] | None = None
    for marker in _MARKER.finditer(data):
        word, label = marker.groups()
        if word == b"BEGIN" and begun is None:
            begun = label, marker.end()
        elif word == b"END" and begun is not None and begun[0] == label:
            found.append((label.decode("ascii"), data[begun[1] : marker.start()]))
            begun = None
        else:
            raise PemFault(f"the PEM line {marker[0].decode('ascii')} stands where it does not belong")
    if begun is not None:
        raise PemFault(f"the PEM block {begun[0].decode('ascii')} is cut short: it has no END line")
    return found


def body_der(label: str, body: bytes) -> bytes:
    """Return the DER of a PEM block's body, line ends spelt out as a backslash and n, or lost, too; raises PemFault."""
    text = b"".join(body.replace(b"\\r", b"").replace(b"\\n", b"").split())
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise PemFault(f"the PEM block {label} is not base64") from None


def armoured(label: str, der: bytes) -> str:
    """Return DER as PEM: lines of 64 characters, each ended by LF, the last one too (RFC 7468)."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def only(data: bytes) -> Node:
    """Return the one DER value that `data` is, nothing behind it; raises DerFault."""
    nodes = _values(data, 1)
    if len(nodes) != 1:
        raise DerFault
    return nodes[0]


def sequence(node: Node) -> Node:
    """Return the value if it is a SEQUENCE; raises DerFault."""
    if node.tag != SEQUENCE:
        raise DerFault
    return node


def children(node: Node, most: int = _MAX_CHILDREN) -> list[Node]:
    """Return the values inside a value, sixteen at most unless more may be there; raises DerFault."""
    return _values(node.content, most)


def dotted(content: bytes) -> str:
    """Return an OBJECT IDENTIFIER's content as numbers with dots between them (X.690, 8.19); raises DerFault."""
    if not content or len(content) > _MAX_OID or content[-1] & 0x80:
        raise DerFault
    arcs, arc = [], 0
    for byte in content:
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def encoded(tag: int, content: bytes, *, context: bool = False) -> bytes:
    """Return a value as DER, of a universal type, or of the choice that a context gives that number."""
    whole: bytes = parser.emit(2 if context else 0, int(not context and tag in (SEQUENCE, SET)), tag, content)
    return whole


def encoded_oid(text: str) -> bytes:
    """Return an OBJECT IDENTIFIER, numbers with dots between them, as DER."""
    whole: bytes = core.ObjectIdentifier(text).dump()
    return whole


def _values(data: bytes, limit: int) -> list[Node]:
    nodes: list[Node] = []
    while data:
        if len(nodes) == limit:
            raise DerFault
        try:
            class_, _, tag, header, content, trailer = parser.parse(data)
        except (ValueError, RecursionError) as error:  # RecursionError: lengths left open, one in the other
            raise DerFault from error
        size = len(header) + len(content) + len(trailer)
        nodes.append(Node(tag if class_ == 0 else -1, content, data[:size]))
        data = data[size:]
    return nodes
