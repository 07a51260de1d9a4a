"""Certificates as they are read: RFC 5280, section 4, one level at a time, whatever the bytes are.

Nothing here says that a certificate is to be believed: signatures and chains are for who has a reason to trust.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from hsmjwt.errors import UsageError
from hsmjwt.jose.keys import PublicKey, RsaKey
from hsmjwt.x509.alternatives import alternative_texts
from hsmjwt.x509.der import (
    BIT_STRING,
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    DerFault,
    Node,
    PemFault,
    blocks,
    body_der,
    children,
    dotted,
    is_der,
    only,
    sequence,
)
from hsmjwt.x509.names import Name, name_text, read_name
from hsmjwt.x509.public import OtherKeyTypeError, load_public

MAX_DER = 32768  # bytes of a certificate; those of authorities have two thousand
_MAX_CHAIN = 16  # certificates in a file; a chain has three
_MAX_EXTENSIONS = 64
_MAX_SERIAL = 64  # bytes; RFC 5280, section 4.1.2.2, allows twenty

KEY_USAGES = (  # the bits in order (RFC 5280, section 4.2.1.3)
    *("digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement", "keyCertSign"),
    *("cRLSign", "encipherOnly", "decipherOnly"),
)
_PURPOSES = {  # RFC 5280, section 4.2.1.12
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    "2.5.29.37.0": "anyExtendedKeyUsage",
}
SIGNATURES = {  # RFC 4055, section 5; RFC 5758, section 3.2; RFC 8410, section 3; what is seen on older ones
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
    "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
    "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
    "1.2.840.113549.1.1.13": "sha512WithRSAEncryption",
    "1.2.840.113549.1.1.10": "rsassaPss",
    "1.2.840.10045.4.1": "ecdsa-with-SHA1",
    "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
    "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
    "1.2.840.10045.4.3.4": "ecdsa-with-SHA512",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}
HASHES = {"2.16.840.1.101.3.4.2.1": "SHA256", "2.16.840.1.101.3.4.2.2": "SHA384", "2.16.840.1.101.3.4.2.3": "SHA512"}
_TIME = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z", re.ASCII)
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")  # what PKCS#7 begins with (RFC 2315, section 14)
_UTC_TIME, _GENERALIZED_TIME = 23, 24  # numbers of universal tags (X.680, section 8.4)
_SKI, _KEY_USAGE, _SAN, _BASIC, _AKI, _PURPOSE = (
    "2.5.29.14",
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.35",
    "2.5.29.37",
)


class Extension(NamedTuple):
    """An extension as it stands: what it is by its OID, whether who does not know it must refuse, its value in DER."""

    oid: str
    critical: bool
    value: bytes


class Certificate(NamedTuple):
    """What a certificate says; times are Unix times, names RFC 4514 text.

    `public_key` is None for a key of a type that this version does not take, which `key_type` names; `authority` where
    the certificate does not say whether it is one of an authority. `names` are subject and issuer, `fields` these
    and the serial number as DER, `signed` is what `signature` is over.
    """

    der: bytes
    subject: str
    issuer: str
    serial: int
    not_before: int
    not_after: int
    public_key: PublicKey | None
    key_type: str
    signature_alg: str
    san: tuple[str, ...]
    key_usage: tuple[str, ...]
    purposes: tuple[str, ...]
    authority: bool | None
    key_id: bytes | None
    authority_key_id: bytes | None
    extensions: tuple[Extension, ...]
    names: tuple[Name, Name]
    fields: tuple[bytes, bytes, bytes]
    spki: bytes
    algorithm: bytes
    signed: bytes
    signature: bytes

    @property
    def self_signed(self) -> bool:
        """Whether the certificate names itself as its issuer; its signature was not looked at."""
        own = self.authority_key_id in (None, self.key_id)
        return self.names[0] == self.names[1] and own

    @property
    def sha256(self) -> bytes:
        """The fingerprint, and in base64url the x5t#S256 (RFC 7515, section 4.1.8)."""
        return hashlib.sha256(self.der).digest()

    @property
    def serial_hex(self) -> str:
        """The serial number as openssl writes it: hexadecimal, capital letters, in whole bytes."""
        digits = f"{abs(self.serial):X}"
        return ("-" if self.serial < 0 else "") + digits.rjust(len(digits) + len(digits) % 2, "0")


def read_chain(data: bytes) -> list[bytes]:
    """Return the DER of each certificate in a file's bytes, in the file's order: DER of one, or PEM.

    PEM is taken as it arrives, other blocks and text around it left out; the same certificate twice counts once. Raises
    UsageError where there is none, or too many, or one that cannot be read, and says what is there instead.
    """
    if is_der(data):
        if _SIGNED_DATA in data[:32]:
            _refuse("it is PKCS#7", "openssl pkcs7 -inform DER -in FILE -print_certs prints its certificates")
        read(data)
        return [data]
    try:
        every = blocks(data)
        found = [body_der(label, body) for label, body in every if label in ("CERTIFICATE", "X509 CERTIFICATE")]
    except PemFault as error:
        _refuse(str(error))
    if not found:
        _refuse_other(data, sorted({label for label, _ in every}))
    found = list(dict.fromkeys(found))
    if len(found) > _MAX_CHAIN:
        _refuse(f"there are {len(found)}, and {_MAX_CHAIN} are the limit")
    for der in found:
        read(der)
    return found


def _refuse_other(data: bytes, labels: Sequence[str]) -> NoReturn:
    if any(label.endswith("CERTIFICATE REQUEST") for label in labels):
        _refuse("it is a certificate request", "an authority turns it into a certificate")
    if labels == ["TRUSTED CERTIFICATE"]:
        _refuse("it is PEM of TRUSTED CERTIFICATE", "openssl x509 -in FILE prints the certificate in it")
    if labels == ["PKCS7"]:
        _refuse("it is PKCS#7", "openssl pkcs7 -in FILE -print_certs prints its certificates")
    if labels:
        _refuse(f"it is PEM of {', '.join(labels)}")
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        _refuse("it is empty")
    _refuse("it is neither PEM nor DER")


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"no certificate can be read: {what}", hint=hint)


def read(der: bytes) -> Certificate:
    """Read a certificate; raises UsageError for bytes that are none, or are damaged where it matters here."""
    if len(der) > MAX_DER:
        _refuse(f"{len(der)} bytes are too many for one, {MAX_DER} are the limit")
    try:
        return _read(der)
    except DerFault:
        _refuse("the DER is damaged, or no certificate")


def _read(der: bytes) -> Certificate:
    whole, algorithm, signature = _fields(only(der), SEQUENCE, SEQUENCE, BIT_STRING)
    fields = children(whole)
    version = 1
    if fields and fields[0].whole[:1] == b"\xa0":  # [0]
        version = 1 + _integer(only(fields.pop(0).content))
    if len(fields) < 6 or [field.tag for field in fields[:6]] != [INTEGER, *[SEQUENCE] * 5]:
        raise DerFault
    serial, inner, issuer, validity, subject, spki = fields[:6]
    if inner.whole != algorithm.whole or len(serial.content) > _MAX_SERIAL:  # RFC 5280, section 4.1.1.2
        raise DerFault
    rest = [field for field in fields[6:] if field.whole[:1] == b"\xa3"]  # [3]
    extensions = _extensions(only(rest[0].content)) if rest and version == 3 else ()
    values = {extension.oid: extension.value for extension in extensions}
    if len(values) != len(extensions):  # RFC 5280, section 4.2: none twice
        raise DerFault
    begin, end = _fields(validity, None, None)
    names = read_name(subject), read_name(issuer)
    key, key_type = _key(spki.whole)
    return Certificate(
        der=der,
        subject=name_text(names[0]),
        issuer=name_text(names[1]),
        serial=_integer(serial),
        not_before=_time(begin),
        not_after=_time(end),
        public_key=key,
        key_type=key_type,
        signature_alg=_signature_alg(algorithm),
        san=alternative_texts(only(values[_SAN])) if _SAN in values else (),
        key_usage=_usages(values),
        purposes=_purposes(values),
        authority=_authority(values),
        key_id=_octets(only(values[_SKI])) if _SKI in values else None,
        authority_key_id=_authority_key_id(values),
        extensions=extensions,
        names=names,
        fields=(subject.whole, issuer.whole, serial.whole),
        spki=spki.whole,
        algorithm=algorithm.whole,
        signed=whole.whole,
        signature=_bits(signature),
    )


def _fields(node: Node, *tags: int | None) -> list[Node]:
    """Return the values of a SEQUENCE that has these and no other; None stands for any."""
    found = children(sequence(node))
    if len(found) != len(tags) or any(tag not in (None, each.tag) for tag, each in zip(tags, found, strict=True)):
        raise DerFault
    return found


def _integer(node: Node) -> int:
    if node.tag != INTEGER or not node.content:
        raise DerFault
    return int.from_bytes(node.content, "big", signed=True)


def _octets(node: Node) -> bytes:
    if node.tag != OCTET_STRING:
        raise DerFault
    return node.content


def _bits(node: Node) -> bytes:
    """Return a BIT STRING of whole bytes."""
    if node.tag != BIT_STRING or node.content[:1] != b"\0":
        raise DerFault
    return node.content[1:]


def _time(node: Node) -> int:
    """Return Unix time (RFC 5280, section 4.1.2.5: UTCTime until 2049, GeneralizedTime from 2050)."""
    match = _TIME.fullmatch(node.content)
    if match is None or len(match[1]) != {_UTC_TIME: 2, _GENERALIZED_TIME: 4}.get(node.tag):
        raise DerFault
    year, month, day, hour, minute, second = (int(text) for text in match.groups())
    if node.tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000
    if not (1 <= month <= 12 and year >= 1 and 1 <= day <= calendar.monthrange(year, month)[1]):
        raise DerFault
    if hour > 23 or minute > 59 or second > 59:
        raise DerFault
    return calendar.timegm((year, month, day, hour, minute, second))


def _key(spki: bytes) -> tuple[PublicKey | None, str]:
    try:
        key = load_public(spki)
    except OtherKeyTypeError as error:
        return None, error.kind
    except UsageError:
        return None, "unreadable"
    return key, key.kty if isinstance(key, RsaKey) else key.crv


def _extensions(node: Node) -> tuple[Extension, ...]:
    found = []
    for each in children(sequence(node), _MAX_EXTENSIONS):
        fields = children(sequence(each))
        critical = len(fields) == 3 and fields[1].tag == BOOLEAN and fields[1].content != b"\0"
        tags = [field.tag for field in fields]
        if tags not in ([OID, OCTET_STRING], [OID, BOOLEAN, OCTET_STRING]):
            raise DerFault
        found.append(Extension(dotted(fields[0].content), critical, fields[-1].content))
    return tuple(found)


def _usages(values: dict[str, bytes]) -> tuple[str, ...]:
    if _KEY_USAGE not in values:
        return ()
    node = only(values[_KEY_USAGE])
    if node.tag != BIT_STRING or not node.content or len(node.content) > 3:
        raise DerFault
    bits = "".join(f"{byte:08b}" for byte in node.content[1:])
    return tuple(name for name, bit in zip(KEY_USAGES, bits, strict=False) if bit == "1")


def _purposes(values: dict[str, bytes]) -> tuple[str, ...]:
    if _PURPOSE not in values:
        return ()
    oids = [dotted(each.content) for each in children(sequence(only(values[_PURPOSE])), _MAX_EXTENSIONS)]
    return tuple(_PURPOSES.get(oid, oid) for oid in oids)


def _authority(values: dict[str, bytes]) -> bool | None:
    if _BASIC not in values:
        return None
    fields = children(sequence(only(values[_BASIC])))
    return bool(fields) and fields[0].tag == BOOLEAN and fields[0].content != b"\0"


def _authority_key_id(values: dict[str, bytes]) -> bytes | None:
    """Return keyIdentifier, which is [0] (RFC 5280, section 4.2.1.1)."""
    fields = children(sequence(only(values[_AKI]))) if _AKI in values else []
    return next((field.content for field in fields if field.whole[:1] == b"\x80"), None)


def _signature_alg(algorithm: Node) -> str:
    """Return the name of a signature algorithm, the hash of RSASSA-PSS behind it; an OID where there is none."""
    fields = children(algorithm)
    if not fields or fields[0].tag != OID:
        raise DerFault
    oid = dotted(fields[0].content)
    name = SIGNATURES.get(oid, oid)
    if name != "rsassaPss" or len(fields) != 2:
        return name
    hashes = [each for each in children(sequence(fields[1])) if each.whole[:1] == b"\xa0"]  # [0], SHA-1 without
    if not hashes:
        return f"{name} with SHA1"
    inside = children(sequence(only(hashes[0].content)))
    if not inside or inside[0].tag != OID:
        raise DerFault
    oid = dotted(inside[0].content)
    return f"{name} with {HASHES.get(oid, oid)}"
