"""Public keys in every form that people have them in, and a name for everything else."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import time
from pathlib import Path

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, pkcs12
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.errors import UsageError
from hsmjwt.jose.encoding import b64u_decode
from hsmjwt.jose.keys import EcKey, RsaKey
from hsmjwt.x509.public import key_identifier, load_public, spki_der, spki_pem, spki_sha256

VECTORS = Path(__file__).parents[1] / "vectors"
A2 = json.loads((VECTORS / "rfc7515-a2-rs256.json").read_text(encoding="utf-8"))["jwk"]
NUMBERS = {name: int.from_bytes(b64u_decode(A2[name]), "big") for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")}
KEY = RsaKey(NUMBERS["n"], NUMBERS["e"])
PRIVATE = rsa.RSAPrivateNumbers(
    *(NUMBERS[name] for name in ("p", "q", "d", "dp", "dq", "qi")), rsa.RSAPublicNumbers(KEY.e, KEY.n)
).private_key()
PUBLIC = PRIVATE.public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PKCS1 = PUBLIC.public_bytes(Encoding.DER, PublicFormat.PKCS1)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
EC_NUMBERS = EC.public_key().public_numbers()
POINT = EcKey("P-256", EC_NUMBERS.x, EC_NUMBERS.y)
EC_DER = EC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
EC_PEM = EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
UNCOMPRESSED = EC.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
COMPRESSED = EC.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
WHEN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def _certificate(private, *, signer=None, name="leaf"):
    subject = pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = pyca.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(private.public_key())
    builder = builder.serial_number(1).not_valid_before(WHEN).not_valid_after(WHEN + dt.timedelta(days=1))
    builder = builder.add_extension(pyca.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(signer or PRIVATE, hashes.SHA256())


CERTIFICATE = _certificate(PRIVATE)
CERT_PEM = CERTIFICATE.public_bytes(Encoding.PEM)
CERT_DER = CERTIFICATE.public_bytes(Encoding.DER)
CA_PEM = _certificate(OTHER, name="ca").public_bytes(Encoding.PEM)


def test_spki_is_what_openssl_writes():
    assert spki_der(KEY) == DER
    assert spki_pem(KEY).encode() == PEM
    assert spki_sha256(KEY) == hashlib.sha256(DER).digest()


def test_pem_has_lines_of_64_characters():
    lines = spki_pem(KEY).split("\n")
    assert {len(line) for line in lines[1:-3]} == {64}
    assert lines[-1] == ""
    assert "\r" not in spki_pem(KEY)


@given(st.integers(2, 2**1024).map(lambda half: half * 2 + 1), st.sampled_from([3, 17, 65537]))
def test_a_key_comes_back_as_it_was_written(n, e):
    if e < n:
        assert load_public(spki_der(RsaKey(n, e))) == RsaKey(n, e)
        assert load_public(spki_pem(RsaKey(n, e)).encode()) == RsaKey(n, e)


def test_a_key_on_a_curve_is_written_as_openssl_writes_it():
    assert spki_der(POINT) == EC_DER
    assert spki_pem(POINT).encode() == EC_PEM
    assert spki_sha256(POINT) == hashlib.sha256(EC_DER).digest()


@pytest.mark.parametrize(("coordinate", "at"), [("x", 27), ("y", 59)])
def test_a_coordinate_that_begins_with_a_zero_byte_is_written_whole(coordinate, at):
    vectors = json.loads((VECTORS / "p256-leading-zeros.json").read_text(encoding="utf-8"))
    jwk = vectors[coordinate]["jwk"]
    x, y = (b64u_decode(jwk[name]) for name in ("x", "y"))
    key = EcKey("P-256", int.from_bytes(x, "big"), int.from_bytes(y, "big"))
    der = spki_der(key)
    assert der[at] == 0
    assert der[-65:] == b"\x04" + x + y
    assert load_public(der) == key
    assert serialization.load_der_public_key(der).public_numbers() == ec.EllipticCurvePublicNumbers(
        key.x, key.y, ec.SECP256R1()
    )


def test_a_key_is_named_by_a_hash_of_what_its_bit_string_holds():
    assert key_identifier(KEY) == hashlib.sha256(PKCS1).digest()[:20]
    assert key_identifier(POINT) == hashlib.sha256(UNCOMPRESSED).digest()[:20]


def _id(value):
    """Keep files out of the names of tests."""
    return value if isinstance(value, str) else f"{len(value)} bytes"


@pytest.mark.parametrize(
    "data",
    [
        DER,
        PEM,
        PKCS1,
        PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        CERT_DER,
        CERT_PEM,
        CERT_PEM + CA_PEM,
        PEM.rstrip(b"\n"),
        PEM.replace(b"\n", b"\r\n"),
        PEM.replace(b"\n", b"\r\n").rstrip(),
        PEM.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf\n\n  " + PEM + b"\n\n",
        PEM.replace(b"\n", b"\\n"),
        PEM.replace(b"\n", b"\\r\\n"),
        PEM.replace(b"\n", b" "),
        PEM.replace(b"\n", b"\n    "),
        b"Bag Attributes\n    friendlyName: \xff\xfe\nKey Attributes: <No Attributes>\n" + PEM + b"trailing text",
        b"0 s:CN = leaf\n" + CERT_PEM,
        PEM + PEM,
        PEM + CERT_PEM + CA_PEM,
        EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + CERT_PEM,
    ],
    ids=_id,
)
def test_a_public_key_is_read_as_it_arrives(data):
    assert load_public(data) == KEY


@pytest.mark.parametrize(
    "data",
    [
        EC_DER,
        EC_PEM,
        EC_PEM.replace(b"\n", b"\\n"),
        _certificate(EC).public_bytes(Encoding.DER),
        _certificate(EC).public_bytes(Encoding.PEM) + CA_PEM,
        EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + EC_PEM,
    ],
    ids=_id,
)
def test_a_key_on_p_256_is_read_as_it_arrives(data):
    assert load_public(data) == POINT


def _with_point(point):
    head = bytes.fromhex("3013" + "06072a8648ce3d0201" + "06082a8648ce3d030107")
    bits = b"\x03" + bytes([len(point) + 1]) + b"\0" + point
    return b"\x30" + bytes([len(head + bits)]) + head + bits


def test_a_point_is_read_in_its_one_form_and_on_the_curve():
    assert _with_point(UNCOMPRESSED) == EC_DER
    x, y = UNCOMPRESSED[1:33], UNCOMPRESSED[33:]
    for point, reason, way_out in (
        (COMPRESSED, "the point is compressed", True),
        (bytes([6 + y[-1] % 2]) + x + y, "the point is not written as 04, x and y", True),
        (b"\0", "the point is not written as", True),
        (b"\x04" + y + x, "the point is not on the curve P-256", False),
        (b"\x04" + x + y + b"\0", "the point is not written as", False),
        (b"", "the point is not written as", True),
    ):
        with pytest.raises(UsageError) as caught:
            load_public(_with_point(point))
        assert f"no public key can be read: {reason}" in caught.value.message
        assert ("-conv_form uncompressed" in (caught.value.hint or "")) is way_out


def test_a_key_whose_curve_is_spelt_out_or_absent_is_another_type():
    algorithm = bytes.fromhex("06072a8648ce3d0201")
    bits = EC_DER[-68:]
    for parameters in (b"", b"\x05\x00", b"\x30\x03\x02\x01\x01", bytes.fromhex("06082a8648ce3d030107") + b"\x05\x00"):
        inner = algorithm + parameters
        spki = b"\x30" + bytes([len(inner)]) + inner + bits
        with pytest.raises(UsageError, match="it is an EC key"):
            load_public(b"\x30" + bytes([len(spki)]) + spki)


def _private(encoding, form, encryption=None):
    return PRIVATE.private_bytes(encoding, form, encryption or NoEncryption())


PASSPHRASE = serialization.BestAvailableEncryption(b"one")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_private(Encoding.PEM, PrivateFormat.PKCS8), "it is a private key"),
        (_private(Encoding.PEM, PrivateFormat.TraditionalOpenSSL), "it is a private key"),
        (_private(Encoding.PEM, PrivateFormat.PKCS8, PASSPHRASE), "an encrypted private key"),
        (_private(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, PASSPHRASE), "an encrypted private key"),
        (_private(Encoding.PEM, PrivateFormat.OpenSSH), "a private key in OpenSSH's own format"),
        (_private(Encoding.DER, PrivateFormat.PKCS8), "it is a private key"),
        (_private(Encoding.DER, PrivateFormat.TraditionalOpenSSL), "it is a private key"),
        (_private(Encoding.DER, PrivateFormat.PKCS8, PASSPHRASE), "an encrypted private key"),
        (_private(Encoding.PEM, PrivateFormat.PKCS8).replace(b"\n", b"\\n"), "it is a private key"),
        (_private(Encoding.PEM, PrivateFormat.PKCS8)[:900], "PRIVATE KEY is cut short"),
        (EC.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()), "it is a private key"),
        (pkcs12.serialize_key_and_certificates(b"x", PRIVATE, None, None, PASSPHRASE), "a PKCS#12 file"),
        (PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "OpenSSH's own format"),
        (json.dumps(A2).encode(), "JSON, where PEM or DER belongs"),
        (b"", "empty"),
        (b"\xef\xbb\xbf \r\n", "empty"),
        (PEM.decode().encode("utf-16"), "UTF-16"),
        (b"hello", "neither PEM nor DER"),
        (DER[:-1], "damaged"),
        (DER.replace(b"\x03\x82\x01\x0f\x00", b"\x03\x82\x01\x0f\x01"), "damaged"),
        (DER + b"\n", "damaged"),
        (b"0123456789abcdef", "damaged"),
        (PEM[:300], "PUBLIC KEY is cut short: it has no END line"),
        (PEM.replace(b"-----END PUBLIC KEY", b"-----END RSA PUBLIC KEY"), "stands where it does not belong"),
        (PEM.partition(b"\n")[2], "END PUBLIC KEY----- stands where it does not belong"),
        (PEM.replace(b"\nMII", b"\n!II"), "the PEM block PUBLIC KEY is not base64"),
        (PEM.replace(b"PUBLIC KEY", b"RSA PUBLIC KEY"), "RSA PUBLIC KEY is damaged or not what it says"),
        (PEM.replace(b"PUBLIC KEY", b"CERTIFICATE"), "CERTIFICATE is damaged or not what it says"),
        (CERT_PEM.replace(b"CERTIFICATE", b"PUBLIC KEY"), "PUBLIC KEY is damaged or not what it says"),
        (PEM.replace(b"PUBLIC KEY", b"EC PARAMETERS"), "it is PEM of EC PARAMETERS"),
        (PEM + CA_PEM, "2 different keys"),
        (b"0" * 70_000, "too many"),
    ],
    ids=_id,
)
def test_anything_else_is_refused_by_its_name(data, reason):
    with pytest.raises(UsageError) as caught:
        load_public(data)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def _request(encoding):
    name = pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    return (
        pyca.CertificateSigningRequestBuilder().subject_name(name).sign(PRIVATE, hashes.SHA256()).public_bytes(encoding)
    )


def test_a_certificate_request_is_refused_with_the_way_out():
    for encoding in (Encoding.PEM, Encoding.DER):
        with pytest.raises(UsageError) as caught:
            load_public(_request(encoding))
        assert "openssl req" in caught.value.hint


@pytest.mark.parametrize(
    ("private", "name"),
    [
        (ec.generate_private_key(ec.SECP224R1()), "an EC key (secp224r1)"),
        (ec.generate_private_key(ec.SECP256K1()), "an EC key (secp256k1)"),
        (ec.generate_private_key(ec.BrainpoolP384R1()), "an EC key (brainpoolp384r1)"),
        (ed448.Ed448PrivateKey.generate(), "an Ed448 key"),
        (x25519.X25519PrivateKey.generate(), "an X25519 key"),
    ],
)
def test_other_kinds_of_keys_are_named(private, name):
    public = private.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificate = _certificate(private).public_bytes(Encoding.DER)
    for data in (spki, certificate, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)):
        with pytest.raises(UsageError) as caught:
            load_public(data)
        assert f"it is {name}, and this version takes RSA keys, P-256, P-384, P-521 and Ed25519" in caught.value.message


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-384", "P-521", "Ed25519"],
)
def test_every_type_of_key_is_read_from_every_file_and_written_as_openssl_writes_it(private):
    public = private.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = load_public(spki)
    assert (spki_der(key), spki_pem(key).encode()) == (spki, pem)
    certificate = _certificate(private)
    for data in (pem, certificate.public_bytes(Encoding.DER), certificate.public_bytes(Encoding.PEM)):
        assert load_public(data) == key
    form = (Encoding.X962, PublicFormat.UncompressedPoint) if key.kty == "EC" else (Encoding.Raw, PublicFormat.Raw)
    assert key_identifier(key) == hashlib.sha256(public.public_bytes(*form)).digest()[:20]


def test_a_key_that_rs256_must_not_use_is_named():
    pss = DER.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010a"))
    unknown = DER.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d010163"))
    for data, name in ((pss, "RSASSA-PSS"), (unknown, "'1.2.840.113549.1.1.99'")):
        with pytest.raises(UsageError) as caught:
            load_public(data)
        assert name in caught.value.message


def _spki(n, e):
    return spki_der(RsaKey(n, e))


def test_numbers_that_are_no_rsa_key_are_refused():
    for n, e in ((0, 3), (KEY.n, 1), (KEY.n, 2), (KEY.n - 1, 65537), (15, 65537), (KEY.n, -3)):
        with pytest.raises(UsageError, match="no RSA key"):
            load_public(_spki(n, e))
    with pytest.raises(UsageError, match="modulus is negative"):
        load_public(_spki(-KEY.n, 3))
    with pytest.raises(UsageError, match="16385 bits"):
        load_public(_spki((1 << 16384) | 1, 3))
    assert load_public(_spki((1 << 1023) | 1, 3)).bits == 1024  # whoever uses it decides about its size


def test_no_message_repeats_what_was_read():
    secret = _private(Encoding.PEM, PrivateFormat.PKCS8)
    lines = [line.decode() for line in secret.split(b"\n")[1:-2]]
    for data in (secret, secret[:900], secret.replace(b"-----", b"----"), secret[28:], b"0" + secret):
        with pytest.raises(UsageError) as caught:
            load_public(data)
        shown = f"{caught.value.message} {caught.value.hint}"
        assert not [line for line in lines if line[:12] in shown]


@given(
    st.sampled_from([DER, PKCS1, CERT_DER, EC_DER]),
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=4),
)
def test_damaged_der_is_a_key_or_a_usage_error(der, changes):
    damaged = bytearray(der)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(damaged) + b"\n-----END CERTIFICATE-----\n"
    for data in (bytes(damaged), pem):
        with contextlib.suppress(UsageError):
            assert isinstance(load_public(data), RsaKey | EcKey)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_or_a_usage_error(tail):
    for data in (tail, b"\x30\x80" + tail, b"\x30\x82\x00\xc8" + tail):
        with contextlib.suppress(UsageError):
            load_public(data)


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN CERTIFICATE-----" * 40_000,
        b"-----BEGIN A-----" + b"-----END B-----" * 60_000,
        b"-----BEGIN PUBLIC KEY-----" + b"A" * 1_000_000 + b"-----END PUBLIC KEY-----",
        b"-" * 1_000_000,
        b"\x30\x80" * 16_000,
        b"\x30\x82\x7f\xf0" + b"\xbf" + b"\xff" * 0x7FEF,
        b"\x30\x82\x7f\xf0" + b"\x05\x00" * 0x3FF8,
    ],
    ids=_id,
)
def test_data_made_to_be_slow_is_refused_in_time(data):
    began = time.process_time()
    with pytest.raises(UsageError):
        load_public(data)
    assert time.process_time() - began < 5
