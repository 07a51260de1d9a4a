"""Private keys as files hold them, on their way onto a token: read, and wrapped so that the token alone can open them.

GitHub, Apple and Google hand out keys in this way. What is read stays in the memory of this process, of which Python
can wipe nothing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeAlias, assert_never

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, padding, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hsmjwt.errors import UsageError
from hsmjwt.jose.encoding import EncodingFault, load_object
from hsmjwt.jose.keys import ED25519, EcKey, OkpKey, PublicKey, RsaKey
from hsmjwt.secret import Secret
from hsmjwt.x509.der import DerFault, PemFault, armoured, blocks, body_der, children, is_der, only, sequence
from hsmjwt.x509.public import TAKEN

Private: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
AskPassphrase: TypeAlias = Callable[[], Secret]
_Load: TypeAlias = Callable[[bytes, bytes | None], object]

_FEWEST_BITS, _MOST_BITS = 2048, 16384  # RFC 7518, section 3.3; what OpenSSL works with
_MAX_DER = 32768  # bytes; an RSA key of 16,384 bits has 9,300
_MARK = "PRIVATE KEY"  # what the label of a PEM block ends with that holds one
_OPENSSH = "OPENSSH PRIVATE KEY"
_CIPHERS = ("AES-128-CBC", "AES-256-CBC", "DES-EDE3-CBC")  # of PEM's own encryption, as far as cryptography reads it
_PSS_OID = bytes.fromhex("2a864886f70d01010a")  # id-RSASSA-PSS (RFC 8017, appendix A.2.3)
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}
_BLOCK, _KEK = 16, 32  # bytes of an AES block and of the key that wraps

_OTHER_TYPES: tuple[tuple[type, str], ...] = (
    (dsa.DSAPrivateKey, "a DSA key"),
    (ed448.Ed448PrivateKey, "an Ed448 key"),
    (x25519.X25519PrivateKey, "an X25519 key"),
    (x448.X448PrivateKey, "an X448 key"),
)
_TAKES = f"{TAKEN}; hsmjwt key generate makes such a key, which then is born on the token"
_AS_PKCS8 = "openssl pkey -in FILE -aes256 -out NEW writes it as PKCS#8"
_OF_PKCS12 = "openssl pkcs12 -in FILE -nocerts -out NEW.pem takes the key out of it, encrypted"
_OF_SSH = "ssh-keygen -p -m PKCS8 -f COPY turns a copy of it into PKCS#8"
_WHERE_TO_GET = "the file with the private key is the one, as it was handed out: PEM or DER"
_BEGINNINGS = (  # of files that are no PEM and no DER
    (b"PuTTY-User-Key-File", "it is in PuTTY's own format", "puttygen FILE -O private-openssh-new -o NEW converts it"),
    (b"---- BEGIN SSH2", "it is in the format of ssh.com", "puttygen FILE -O private-openssh-new -o NEW converts it"),
    (b"\xfe\xed\xfe\xed", "it is a Java key store", "keytool -importkeystore -deststoretype pkcs12 converts it"),
    (b"ssh-", "it is a public key, in OpenSSH's own format", _WHERE_TO_GET),
    (b"ecdsa-sha2-", "it is a public key, in OpenSSH's own format", _WHERE_TO_GET),
    (b"\xff\xfe", "it is UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16 text", "save it as UTF-8"),
)


class Sealed(NamedTuple):
    """A private key that one token alone can open: the key that wraps, for its transport key, and what that wraps."""

    kek: bytes
    iv: bytes
    body: bytes


class SoftKey:
    """A private key in the memory of this process; nothing shows it."""

    __slots__ = ("_key", "public_key")

    def __init__(self, key: Private, public_key: PublicKey) -> None:
        """Keep the key, and its public half in numbers."""
        self._key = key
        self.public_key = public_key

    def __repr__(self) -> str:
        """Show the public half alone."""
        return f"SoftKey({self.public_key.kty}, {self.public_key.bits} bits)"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a private key cannot be pickled or copied")

    def sealed(self, transport: RsaKey, hash_name: str, form: str) -> Sealed:
        """Return the key as PKCS#8, wrapped by a new AES-256 key, and that one for the transport key (RSA-OAEP).

        `form` is `kwp` (RFC 5649), `pkcs7` (RFC 3394 over a padded text) or `cbc` (AES-CBC over one); `hash_name` is
        sha1 or sha256, MGF1's too.
        """
        der = self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        kek, iv = os.urandom(_KEK), b""
        match form:
            case "kwp":
                body = keywrap.aes_key_wrap_with_padding(kek, der)
            case "pkcs7":
                body = keywrap.aes_key_wrap(kek, _padded(der, _BLOCK // 2))
            case "cbc":
                iv = os.urandom(_BLOCK)
                encryptor = Cipher(algorithms.AES(kek), modes.CBC(iv)).encryptor()
                body = encryptor.update(_padded(der, _BLOCK)) + encryptor.finalize()
            case _:
                raise ValueError(form)
        way = asymmetric.OAEP(asymmetric.MGF1(_HASHES[hash_name]()), _HASHES[hash_name](), None)
        public = rsa.RSAPublicNumbers(transport.e, transport.n).public_key()
        return Sealed(public.encrypt(kek, way), iv, body)

    def attributes(self) -> dict[str, bytes]:
        """Return the key in the clear, by the names of PKCS#11's attributes (2.40, tables 31 and 35; 3.0, table 60)."""
        key = self._key
        if isinstance(key, rsa.RSAPrivateKey):
            numbers = key.private_numbers()
            public = numbers.public_numbers
            return {
                "MODULUS": _bytes(public.n),
                "PUBLIC_EXPONENT": _bytes(public.e),
                "PRIVATE_EXPONENT": _bytes(numbers.d),
                "PRIME_1": _bytes(numbers.p),
                "PRIME_2": _bytes(numbers.q),
                "EXPONENT_1": _bytes(numbers.dmp1),
                "EXPONENT_2": _bytes(numbers.dmq1),
                "COEFFICIENT": _bytes(numbers.iqmp),
            }
        if isinstance(key, ec.EllipticCurvePrivateKey):
            width = (key.curve.key_size + 7) // 8
            return {"VALUE": key.private_numbers().private_value.to_bytes(width, "big")}
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return {"VALUE": key.private_bytes_raw()}
        assert_never(key)


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _padded(data: bytes, block: int) -> bytes:
    padder = padding.PKCS7(8 * block).padder()
    return padder.update(data) + padder.finalize()


def read_private(data: bytes, passphrase: AskPassphrase) -> SoftKey:
    """Return the private key in a file's bytes: PKCS#8, PKCS#1, SEC1 or OpenSSH's format, as PEM or DER.

    PEM is taken as it arrives: CRLF, no last line end, a byte order mark, line ends spelt out as a backslash and n,
    other blocks and text around it, inside the JSON that Google hands out. Several private keys must be one and the
    same. `passphrase` is called for an encrypted one. Raises UsageError that names what is there instead, or why the
    key cannot be used, and repeats no content; what `passphrase` raises.
    """
    if is_der(data):
        return _of_der(data, passphrase)
    text = data.removeprefix(b"\xef\xbb\xbf").strip()
    if text.startswith(b"{"):
        text = _inside_json(text)
    found = [(label, body) for label, body in _blocks(text) if label.endswith(_MARK)]
    if not found:
        _refuse_other(text)
    known: list[Secret] = []

    def ask() -> Secret:
        if not known:
            known.append(passphrase())
        return known[0]

    keys = [_of_block(label, body, ask) for label, body in found]
    different = {key.public_key for key in keys}
    if len(different) > 1:
        _refuse(f"there are {len(different)} different private keys, where one belongs", "put each into its own file")
    return keys[0]


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise UsageError(f"no private key can be read: {what}", hint=hint)


def _blocks(data: bytes) -> list[tuple[str, bytes]]:
    try:
        return blocks(data)
    except PemFault as error:
        _refuse(str(error), _WHERE_TO_GET)


def _inside_json(text: bytes) -> bytes:
    """Return the PEM that the JSON of a Google service account holds as its `private_key`."""
    try:
        members = load_object(text)
    except EncodingFault:
        _refuse("it is JSON that is damaged")
    pem = members.get("private_key")
    if not isinstance(pem, str):
        what = "a JWK" if "kty" in members else "JSON without a private_key"
        _refuse(f"it is {what}", "PEM or DER belongs there, or the JSON of a Google service account")
    return pem.encode("utf-8", "replace")


def _refuse_other(text: bytes) -> NoReturn:
    """Name what is there instead of a private key."""
    names = sorted({label for label, _ in _blocks(text)})
    if names:
        public = all(name.endswith(("PUBLIC KEY", "CERTIFICATE")) for name in names)
        _refuse(f"it is PEM of {', '.join(names)}" + (", a public half alone" if public else ""), _WHERE_TO_GET)
    if not text:
        _refuse("it is empty", _WHERE_TO_GET)
    for beginning, what, hint in _BEGINNINGS:
        if text.startswith(beginning):
            _refuse(what, hint)
    _refuse("it is neither PEM nor DER", _WHERE_TO_GET)


def _of_block(label: str, body: bytes, passphrase: AskPassphrase) -> SoftKey:
    if b"Proc-Type:" in body:
        return _of_old_pem(label, body, passphrase)
    try:
        der = body_der(label, body)
    except PemFault as error:
        _refuse(str(error), _WHERE_TO_GET)
    if label != _OPENSSH:
        return _of_der(der, passphrase)
    return _checked(_loaded(_load_ssh, armoured(label, der).encode("ascii"), passphrase, _OF_SSH))


def _of_old_pem(label: str, body: bytes, passphrase: AskPassphrase) -> SoftKey:
    """Return the key of a block that PEM itself encrypts: two header fields, an empty line, base64 (RFC 1421, 4.6)."""
    lines = [line.strip() for line in body.replace(b"\\r", b"").replace(b"\\n", b"\n").splitlines()]
    heads = [line for line in lines if b":" in line]
    rest = [line for line in lines if line and b":" not in line]
    cipher = next((line.partition(b":")[2] for line in heads if line.startswith(b"DEK-Info:")), b"")
    name = cipher.partition(b",")[0].strip().decode("ascii", "replace").upper()
    if name not in _CIPHERS:
        _refuse(f"it is encrypted in a way that is not known here{f' ({name[:20]!a})' if name else ''}", _AS_PKCS8)
    text = b"\n".join((f"-----BEGIN {label}-----".encode(), *heads, b"", *rest, f"-----END {label}-----".encode(), b""))
    return _checked(_loaded(serialization.load_pem_private_key, text, passphrase, _AS_PKCS8))


def _of_der(der: bytes, passphrase: AskPassphrase) -> SoftKey:
    """Return the key in DER, having named by its shape what is none."""
    if len(der) > _MAX_DER:
        _refuse(f"{len(der)} bytes are too many for a key, {_MAX_DER} are the limit")
    try:
        parts = children(sequence(only(der)))
        shape = [part.tag for part in parts]
        match shape:
            case [16, 3]:
                _refuse("it is a public key", _WHERE_TO_GET)
            case [2, 2]:
                _refuse("it is an RSA public key", _WHERE_TO_GET)
            case [16, 16, 3]:
                _refuse("it is a certificate or a request for one, a public half alone", _WHERE_TO_GET)
            case [2, 16] | [2, 16, 16]:
                _refuse("it is a PKCS#12 file", _OF_PKCS12)
            case [2, 16, 4, *_] if children(parts[1])[0].content == _PSS_OID:
                _refuse("it is an RSA key for RSASSA-PSS alone", _TAKES)
            case [2, 16, 4, *_] | [2, 2, 2, *_] | [2, 4, *_] | [16, 4]:
                return _checked(_loaded(serialization.load_der_private_key, der, passphrase, _AS_PKCS8))
    except (DerFault, IndexError):
        pass  # to be told below, as any other shape
    _refuse("it is cut short, damaged, or no key at all", _WHERE_TO_GET)


def _load_ssh(data: bytes, passphrase: bytes | None) -> object:
    return serialization.load_ssh_private_key(data, passphrase)


def _loaded(load: _Load, data: bytes, passphrase: AskPassphrase, hint: str) -> object:
    """Have cryptography read a key, with the passphrase where it asks for one; its errors are told in our words."""
    try:
        return _quietly(load, data, None)
    except TypeError:
        pass  # it is encrypted
    except UnsupportedAlgorithm:
        _refuse("it is of a type or on a curve that is not known here", _TAKES)
    except (ValueError, OverflowError, InternalError):
        _refuse("its content is damaged, or no key that is sound", _WHERE_TO_GET)
    secret = passphrase()
    try:
        return _quietly(load, data, secret.reveal().encode("utf-8", "surrogatepass"))
    except UnsupportedAlgorithm:  # OpenSSH's own needs a further package
        _refuse("it is encrypted in a way that is not known here, or of an unknown type", hint)
    except (ValueError, TypeError, OverflowError, InternalError):
        raise UsageError(
            "the passphrase does not open the private key", hint="it is another one, or the file is damaged"
        ) from None


def _quietly(load: _Load, data: bytes, passphrase: bytes | None) -> object:
    with warnings.catch_warnings():  # that a type of key is going out of use, which is refused here anyway
        warnings.simplefilter("ignore")
        return load(data, passphrase)


def _checked(key: object) -> SoftKey:
    """Return the key with its public half in numbers; refuses types and sizes that no algorithm here takes."""
    for kind, name in _OTHER_TYPES:
        if isinstance(key, kind):
            _refuse(f"it is {name}", _TAKES)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        bits = numbers.n.bit_length()
        if not _FEWEST_BITS <= bits <= _MOST_BITS:
            what = f"its modulus has {bits} bits, and RSA keys of {_FEWEST_BITS} to {_MOST_BITS} sign (RFC 7518, 3.3)"
            _refuse(what, _TAKES)
        return SoftKey(key, RsaKey(numbers.n, numbers.e))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        name = key.curve.name
        if name not in _CURVE_NAMES:
            _refuse(f"it is an EC key on {name}", _TAKES)
        point = key.public_key().public_numbers()
        return SoftKey(key, EcKey(_CURVE_NAMES[name], point.x, point.y))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SoftKey(key, OkpKey(ED25519, key.public_key().public_bytes_raw()))
    _refuse("it is of another type", _TAKES)
