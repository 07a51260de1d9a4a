"""Public keys in the forms that consoles and openssl take and give.

SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7), PKCS#1 (RFC 8017, appendix A.1.1) and certificates, each as DER or as
PEM (RFC 7468).
"""

from __future__ import annotations

import hashlib
from typing import NoReturn, assert_never

from asn1crypto import core, keys

from hsmjwt.errors import UsageError
from hsmjwt.jose.encoding import quoted
from hsmjwt.jose.keys import (
    CURVES,
    Curve,
    EcKey,
    OkpKey,
    PointFault,
    PublicKey,
    RsaKey,
    curve_of,
    read_okp,
    read_point,
)
from hsmjwt.x509.der import (
    BIT_STRING,
    INTEGER,
    OID,
    SEQUENCE,
    DerFault,
    Node,
    PemFault,
    armoured,
    blocks,
    body_der,
    children,
    is_der,
    only,
    sequence,
)

_LABELS = ("PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE")
_MAX_BITS = 16384  # what OpenSSL verifies with; more is no key that anybody made to use
_MAX_DER = 32768  # bytes; asn1crypto's reader takes quadratic time over tags that are made for it

_KINDS = {
    "ec": "an EC key",
    "ed25519": "an Ed25519 key",
    "ed448": "an Ed448 key",
    "x25519": "an X25519 key",
    "x448": "an X448 key",
    "dsa": "a DSA key",
    "dh": "a Diffie-Hellman key",
    "rsassa_pss": "an RSA key for RSASSA-PSS alone",
    "rsaes_oaep": "an RSA key for encryption (RSAES-OAEP)",
}
_TYPES = {
    "ec": "EC",
    "ed25519": "Ed25519",
    "ed448": "Ed448",
    "x25519": "X25519",
    "x448": "X448",
    "dsa": "DSA",
    "dh": "DH",
    "rsassa_pss": "RSASSA-PSS",
    "rsaes_oaep": "RSAES-OAEP",
}
TAKEN = "this version takes RSA keys, P-256, P-384, P-521 and Ed25519"
"""What is said where a key is of another type."""

_PUBLIC_HALF = "the public half is enough: openssl pkey -in FILE -pubout"
_OF_POINT = "openssl ec -pubin -in FILE -pubout -conv_form uncompressed writes it out"
_OF_REQUEST = "openssl req -in FILE -noout -pubkey prints the public key"
_OF_SSH = "ssh-keygen -e -m PKCS8 -f FILE prints the public half as PEM"


class OtherKeyTypeError(UsageError):
    """A public key that can be read, of a type that this version does not take; `kind` is the type's name."""

    def __init__(self, message: str, *, kind: str, hint: str | None = None) -> None:
        """Keep the message and the type."""
        super().__init__(message, hint=hint)
        self.kind = kind


def spki_der(key: PublicKey) -> bytes:
    """Return the key as DER SubjectPublicKeyInfo (RFC 3279, 2.3.1, parameters NULL; RFC 5480, 2; RFC 8410, 4)."""
    match key:
        case RsaKey():
            whole = keys.PublicKeyInfo.wrap(_numbers(key), "rsa")
        case EcKey():
            curve = keys.ECDomainParameters.load(CURVES[key.crv].oid)
            point = keys.ECPointBitString(key.point)
            whole = keys.PublicKeyInfo({"algorithm": {"algorithm": "ec", "parameters": curve}, "public_key": point})
        case OkpKey():
            bits = core.OctetBitString(key.x)
            whole = keys.PublicKeyInfo({"algorithm": {"algorithm": "ed25519"}, "public_key": bits})
        case _:
            assert_never(key)
    der: bytes = whole.dump()
    return der


def _numbers(key: RsaKey) -> keys.RSAPublicKey:
    return keys.RSAPublicKey({"modulus": key.n, "public_exponent": key.e})


def spki_pem(key: PublicKey) -> str:
    """Return the key as PEM `PUBLIC KEY`: lines of 64 characters, each ended by LF, the last one too (RFC 7468)."""
    return armoured("PUBLIC KEY", spki_der(key))


def spki_sha256(key: PublicKey) -> bytes:
    """Return SHA-256 over the DER SubjectPublicKeyInfo: the fingerprint that Snowflake and key pinning use."""
    return hashlib.sha256(spki_der(key)).digest()


def key_identifier(key: PublicKey) -> bytes:
    """Return 20 bytes that name the key: SHA-256, cut short, over its BIT STRING (RFC 7093, section 2, method 1)."""
    return hashlib.sha256(key_bits(key)).digest()[:20]


def key_bits(key: PublicKey) -> bytes:
    """Return what the BIT STRING of a SubjectPublicKeyInfo holds, without the count of unused bits."""
    match key:
        case RsaKey():
            numbers: bytes = _numbers(key).dump()
            return numbers
        case EcKey():
            return key.point
        case OkpKey():
            return key.x
        case _:
            assert_never(key)


def load_public(data: bytes) -> PublicKey:
    """Return the public key in a file's bytes: PEM or DER of SubjectPublicKeyInfo, PKCS#1 or a certificate.

    PEM is taken as it arrives: CRLF, no last line end, a byte order mark, line ends spelt out as a backslash and n, or
    lost, other blocks and text around it. Of several certificates the first counts; several public keys must be one and
    the same. Raises UsageError that names what is there instead, private and encrypted keys among it, and repeats no
    content; OtherKeyTypeError where that is a public key of another type.
    """
    if is_der(data):  # a SEQUENCE, and not text that begins with a 0
        return _key_of_der(data)
    found_blocks = _blocks(data)
    found: set[PublicKey] = set()
    certificates = 0
    for label, body in found_blocks:
        if label not in _LABELS:
            continue
        if label == "CERTIFICATE":
            certificates += 1
            if certificates > 1:  # the chain above the leaf
                continue
        found.add(_key_of_block(label, body))
    if len(found) > 1:
        _refuse(f"there are {len(found)} different keys, where one belongs")
    if not found:
        _refuse_other(data, found_blocks)
    return found.pop()


def load_certified(data: bytes) -> PublicKey:
    """Return the public key of the certificate in a file's bytes; raises what `load_public` raises, and for none."""
    key = load_public(data)
    if is_der(data):
        labels = {_label_of([part.tag for part in children(sequence(only(data)))])}
    else:
        labels = {label for label, _ in _blocks(data)}
    if "CERTIFICATE" not in labels:
        raise UsageError("it is a public key, and no certificate", hint="--public-key takes it")
    return key


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"no public key can be read: {what}", hint=hint)


def _blocks(data: bytes) -> list[tuple[str, bytes]]:
    try:
        return blocks(data)
    except PemFault as error:
        _refuse(str(error))


def _refuse_other(data: bytes, found: list[tuple[str, bytes]]) -> NoReturn:
    """Name what is there instead of a public key."""
    for label, body in found:
        if label.endswith("PRIVATE KEY"):
            if label == "OPENSSH PRIVATE KEY":
                _refuse("it is a private key in OpenSSH's own format", _OF_SSH)
            encrypted = label.startswith("ENCRYPTED") or b"ENCRYPTED" in body
            _refuse(f"it is {'an encrypted' if encrypted else 'a'} private key", _PUBLIC_HALF)
    if found:
        names = sorted({label for label, _ in found})
        hint = _OF_REQUEST if "CERTIFICATE REQUEST" in names else f"blocks that hold one are {', '.join(_LABELS)}"
        _refuse(f"it is PEM of {', '.join(names)}", hint)
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        _refuse("it is empty")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse("it is UTF-16 text", "save it as UTF-8")
    if text.startswith((b"ssh-", b"ecdsa-sha2-")):
        _refuse("it is in OpenSSH's own format", _OF_SSH)
    if text.startswith(b"{"):
        _refuse("it is JSON, where PEM or DER belongs")
    _refuse("it is neither PEM nor DER")


def _key_of_block(label: str, body: bytes) -> PublicKey:
    try:
        der = body_der(label, body)
    except PemFault as error:
        _refuse(str(error))
    return _key_of_der(der, label)


def _key_of_der(der: bytes, label: str | None = None) -> PublicKey:
    """Return the key in DER, told by its shape where no PEM label says what it is."""
    if len(der) > _MAX_DER:
        _refuse(f"{len(der)} bytes are too many for a key or a certificate, {_MAX_DER} are the limit")
    try:
        parts = children(sequence(only(der)))
        if label is None:
            label = _label_of([part.tag for part in parts])
        if label == "CERTIFICATE":
            parts = children(_spki_of_certificate(parts))
        if label == "RSA PUBLIC KEY":
            return _rsa(parts)
        return _key_of_spki(parts)
    except DerFault:
        _refuse(f"the {'DER' if label is None else label} is damaged or not what it says it is")


def _label_of(shape: list[int]) -> str:
    """Tell DER apart by the tags of its first level."""
    match shape:
        case [2, 2]:
            return "RSA PUBLIC KEY"
        case [16, 3]:
            return "PUBLIC KEY"
        case [16, 16, 3]:
            return "CERTIFICATE"
        case [16, 4]:
            _refuse("it is an encrypted private key", _PUBLIC_HALF)
        case [2, 16, 4, *_] | [2, 2, 2, *_] | [2, 4, *_]:
            _refuse("it is a private key", _PUBLIC_HALF)
        case [2, 16] | [2, 16, 16]:
            _refuse("it is a PKCS#12 file", "openssl pkcs12 -in FILE -nokeys prints its certificate")
    raise DerFault


def _spki_of_certificate(parts: list[Node]) -> Node:
    """Return subjectPublicKeyInfo (RFC 5280, section 4.1): the sixth field after a version that may be absent."""
    fields = children(sequence(parts[0])) if parts else []
    if [field.tag for field in fields] == [INTEGER, SEQUENCE, SEQUENCE, -1]:  # RFC 2986, section 4.1
        _refuse("it is a certificate request", _OF_REQUEST)
    at = 6 if fields and fields[0].tag < 0 else 5
    if len(fields) <= at:
        raise DerFault
    return sequence(fields[at])


def _key_of_spki(parts: list[Node]) -> PublicKey:
    if [part.tag for part in parts] != [SEQUENCE, BIT_STRING]:
        raise DerFault
    algorithm = children(parts[0])
    if not algorithm or algorithm[0].tag != OID:
        raise DerFault
    name = _name(keys.PublicKeyAlgorithmId, algorithm[0])
    curve = curve_of(algorithm[1].whole) if name == "ec" and len(algorithm) == 2 else None  # its OID and the curve's
    edwards = name == "ed25519" and len(algorithm) == 1  # RFC 8410, section 3: no parameters
    if name != "rsa" and curve is None and not edwards:
        raise _other_type(name, algorithm)
    if parts[1].content[:1] != b"\0":  # bits that are not used, of which whole bytes have none
        raise DerFault
    bits = parts[1].content[1:]
    if curve is not None or edwards:
        return _of_curve(curve, bits)
    return _rsa(children(sequence(only(bits))))


def _other_type(name: str, algorithm: list[Node]) -> OtherKeyTypeError:
    kind = _KINDS.get(name, f"a key of the type {quoted(name)}")
    if name == "ec" and len(algorithm) > 1 and algorithm[1].tag == OID:
        kind += f" ({quoted(_name(keys.NamedCurve, algorithm[1]))[1:-1]})"
    return OtherKeyTypeError(
        f"no public key can be read: it is {kind}, and {TAKEN}",
        kind=_TYPES.get(name, quoted(name)),
    )


def _of_curve(curve: Curve | None, bits: bytes) -> PublicKey:
    """Return the key on a curve of the table, on that of Ed25519 where it is none of them."""
    try:
        return read_okp(bits) if curve is None else read_point(curve, bits)
    except PointFault as error:
        _refuse(str(error), _OF_POINT if curve is not None and bits[:1] != b"\x04" else None)


def _name(kind: type[keys.PublicKeyAlgorithmId | keys.NamedCurve], node: Node) -> str:
    try:
        return str(kind.load(node.whole, strict=True).native)
    except (ValueError, TypeError, IndexError) as error:
        raise DerFault from error


def _rsa(parts: list[Node]) -> RsaKey:
    if [part.tag for part in parts] != [INTEGER, INTEGER]:
        raise DerFault
    n, e = (int.from_bytes(part.content, "big", signed=True) for part in parts)
    if n < 0:
        _refuse("its modulus is negative: whoever wrote the file left out a zero byte")
    if n.bit_length() > _MAX_BITS:
        _refuse(f"its modulus has {n.bit_length()} bits, and {_MAX_BITS} are the limit")
    if not (3 <= e < n and n % 2 and e % 2):  # RFC 8017, section 3.1
        _refuse("its numbers are no RSA key")
    return RsaKey(n, e)
