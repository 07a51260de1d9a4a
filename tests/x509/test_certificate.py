"""Certificates as they are read: authorities' own, chains in any order, and bytes that mean harm."""

from __future__ import annotations

import datetime as dt
import random
import time
from typing import Any

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from servers import yubikey
from x509.softkeys import SoftKey, soft_key

from hsmjwt import verify
from hsmjwt.errors import UsageError
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.x509.certificate import MAX_DER, read, read_chain
from hsmjwt.x509.chain import ends, ordered
from hsmjwt.x509.der import armoured, encoded
from hsmjwt.x509.public import load_public
from hsmjwt.x509.signature import signature_of

WHEN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def name(common: str, *more: pyca.NameAttribute[Any]) -> pyca.Name:
    return pyca.Name([*more, pyca.NameAttribute(NameOID.COMMON_NAME, common)])


def issue(subject: str, key: Any, issuer: str, signer: Any, *, ca: bool = False, days: int = 365, **more: Any) -> bytes:
    """Return a certificate as an authority makes it."""
    builder = pyca.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key)
    builder = builder.serial_number(more.get("serial", 5)).not_valid_before(WHEN)
    builder = builder.not_valid_after(WHEN + dt.timedelta(days=days))
    builder = builder.add_extension(pyca.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(pyca.SubjectKeyIdentifier.from_public_key(key), critical=False)
    builder = builder.add_extension(
        pyca.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    for extension in more.get("extensions", ()):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, more.get("hash", hashes.SHA256())).public_bytes(Encoding.DER)


LEAF, INTER, ROOT, OTHER = (soft_key(f"P-256/{number}") for number in range(4))
ROOT_DER = issue("root", ROOT.private.public_key(), "root", ROOT.private, ca=True)
INTER_DER = issue("inter", INTER.private.public_key(), "root", ROOT.private, ca=True)
LEAF_DER = issue("leaf", LEAF.private.public_key(), "inter", INTER.private)
STRANGER_DER = issue("stranger", OTHER.private.public_key(), "stranger", OTHER.private, ca=True)
PEM = armoured("CERTIFICATE", LEAF_DER).encode()


def test_all_that_a_certificate_says_is_told():
    extensions = [
        pyca.SubjectAlternativeName(
            [
                pyca.DNSName("a.example"),
                pyca.DirectoryName(name("x")),
                pyca.OtherName(pyca.ObjectIdentifier("1.2.3"), b"\x05\x00"),
                pyca.RegisteredID(pyca.ObjectIdentifier("1.2.3")),
            ]
        ),
        pyca.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, pyca.ObjectIdentifier("1.2.3.4")]),
        pyca.KeyUsage(
            **dict.fromkeys(("digital_signature", "key_agreement", "decipher_only"), True),
            **dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "encipher_only"), False),
            **dict.fromkeys(("key_cert_sign", "crl_sign"), False),
        ),
        pyca.UnrecognizedExtension(pyca.ObjectIdentifier("1.3.6.1.4.1.41482.3.3"), b"\x05\x04\x03"),
    ]
    der = issue("leaf", LEAF.private.public_key(), "inter", INTER.private, serial=0xABC, extensions=extensions)
    said = read(der)
    assert (said.subject, said.issuer, said.serial, said.serial_hex) == ("CN=leaf", "CN=inter", 0xABC, "0ABC")
    assert (said.not_before, said.not_after) == (int(WHEN.timestamp()), int(WHEN.timestamp()) + 365 * 86400)
    assert said.public_key == LEAF.public_key
    assert said.key_type == "P-256"
    assert said.san[:2] == ("dns:a.example", "dirname:CN=x")
    assert said.san[2].startswith("[0]:#a0")
    assert said.san[3].startswith("[8]:#88")
    assert said.key_usage == ("digitalSignature", "keyAgreement", "decipherOnly")
    assert said.purposes == ("clientAuth", "1.2.3.4")
    assert said.authority is False
    theirs = pyca.load_der_x509_certificate(der)
    assert said.key_id == theirs.extensions.get_extension_for_class(pyca.SubjectKeyIdentifier).value.digest
    assert said.sha256 == theirs.fingerprint(hashes.SHA256())
    assert said.signed == theirs.tbs_certificate_bytes
    assert said.signature == theirs.signature
    assert not said.self_signed
    assert said.extensions[-1][::2] == ("1.3.6.1.4.1.41482.3.3", b"\x05\x04\x03")


def test_a_certificate_of_the_first_version_says_less():
    der = issue("a", LEAF.private.public_key(), "a", LEAF.private)
    said = read(_without_extensions(der))
    assert (said.authority, said.key_id, said.san, said.extensions) == (None, None, (), ())


def _without_extensions(der: bytes) -> bytes:
    """Cut [0] and [3] out of a certificate; its signature is none then."""
    said = read(der)
    end = said.signed.index(said.spki) + len(said.spki)
    start = said.signed.index(b"\xa0\x03\x02\x01\x02") + 5
    return encoded(16, encoded(16, said.signed[start:end]) + said.algorithm + encoded(3, b"\0" + said.signature))


def test_a_key_of_another_type_is_named():
    private = ed448.Ed448PrivateKey.generate()
    said = read(issue("a", private.public_key(), "a", private, hash=None))
    assert (said.public_key, said.key_type, said.signature_alg) == (None, "Ed448", "Ed448")


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_is_taken_out_in_joses_form(alg):
    algorithm = ALGORITHMS[alg]
    key: SoftKey = soft_key(algorithm.crv or algorithm.kty)
    digest = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}.get(algorithm.hash_name)
    builder = pyca.CertificateBuilder().subject_name(name("a")).issuer_name(name("a"))
    builder = builder.public_key(key.private.public_key()).serial_number(1).not_valid_before(WHEN)
    builder = builder.not_valid_after(WHEN + dt.timedelta(days=1))
    way = padding.PSS(padding.MGF1(digest), digest.digest_size) if algorithm.pss else None
    said = read(builder.sign(key.private, digest, rsa_padding=way).public_bytes(Encoding.DER))
    found = signature_of(said, key.public_key)
    assert found is not None
    assert found[0].hash_name == algorithm.hash_name
    assert verify.valid(key.public_key, found[0], said.signed, found[1])
    assert not verify.valid(key.public_key, found[0], said.signed + b"x", found[1])


def test_an_algorithm_that_jose_has_not_is_none():
    p384 = soft_key("P-384")
    assert signature_of(read(issue("a", p384.private.public_key(), "a", p384.private)), p384.public_key) is None
    broken = read(LEAF_DER)._replace(signature=b"\x30\x03\x02\x01\x01")
    assert signature_of(broken, INTER.public_key) == (ALGORITHMS["ES256"], b"")
    for halves in ("3006020101020101", "300602010102ff01", "30060201ff020101"):
        read_signature = signature_of(broken._replace(signature=bytes.fromhex(halves)), INTER.public_key)
        assert read_signature is not None
        assert not verify.valid(INTER.public_key, read_signature[0], broken.signed, read_signature[1])


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_is_put_in_order_whatever_the_files_order(seed):
    every = [ROOT_DER, INTER_DER, LEAF_DER, STRANGER_DER]
    random.Random(seed).shuffle(every)
    text = "a comment\r\n" + "\n".join(armoured("CERTIFICATE", der).replace("\n", "\r\n") for der in every)
    chain = ordered(read_chain(text.rstrip().encode()), LEAF.public_key)
    assert chain == [LEAF_DER, INTER_DER, ROOT_DER]
    assert ordered(every, ROOT.public_key) == [ROOT_DER]
    assert ordered(every[:1], soft_key("P-521").public_key) == []


@pytest.mark.parametrize("seed", range(6))
def test_what_issued_another_one_is_no_end_of_a_chain(seed):
    every = [read(der) for der in (ROOT_DER, INTER_DER, LEAF_DER, STRANGER_DER)]
    random.Random(seed).shuffle(every)
    assert {each.der for each in ends(every)} == {LEAF_DER, STRANGER_DER}
    again = read(issue("leaf", LEAF.private.public_key(), "inter", INTER.private, days=500))
    assert again in ends([again, *every])


def test_two_that_one_key_issued_to_itself_are_both_ends():
    own = [read(issue("own", LEAF.private.public_key(), "own", LEAF.private, ca=True, days=days)) for days in (9, 99)]
    assert ends(own) == own


def test_of_two_certificates_the_one_that_is_good_longer_counts():
    older = issue("leaf", LEAF.private.public_key(), "inter", INTER.private, days=30)
    other = issue("inter", OTHER.private.public_key(), "root", ROOT.private, ca=True, days=999)  # of another key
    assert ordered([older, other, INTER_DER, LEAF_DER], LEAF.public_key) == [LEAF_DER, INTER_DER]
    no_authority = issue("inter", INTER.private.public_key(), "root", ROOT.private, days=999)
    assert ordered([LEAF_DER, no_authority], LEAF.public_key) == [LEAF_DER]


def test_certificates_that_name_each_other_end():
    a = issue("a", LEAF.private.public_key(), "b", INTER.private, ca=True)
    b = issue("b", INTER.private.public_key(), "a", LEAF.private, ca=True)
    assert ordered([a, b], LEAF.public_key) == [a, b]


def test_a_file_is_read_as_it_comes():
    assert read_chain(LEAF_DER) == [LEAF_DER]
    assert read_chain(PEM + PEM) == [LEAF_DER]
    assert read_chain(b"\xef\xbb\xbf" + PEM.replace(b"\n", b"\r\n")) == [LEAF_DER]
    key = b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"
    assert read_chain(key + PEM) == [LEAF_DER]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf\r\n", "it is empty"),
        (b"hello", "neither PEM nor DER"),
        (PEM[:-30], "cut short"),
        (encoded(16, bytes.fromhex("06092a864886f70d010702a0023000")), "it is PKCS#7"),
        (PEM.replace(b" CERT", b" TRUSTED CERT"), "it is PEM of TRUSTED CERTIFICATE"),
        (PEM.replace(b"M", b"?"), "not base64"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "damaged, or no certificate"),
        (armoured("CERTIFICATE", b"\x30\x00").encode(), "damaged, or no certificate"),
        (armoured("CERTIFICATE REQUEST", b"\x30\x00").encode(), "it is a certificate request"),
        (armoured("PKCS7", b"\x30\x00").encode(), "it is PKCS#7"),
        (armoured("PUBLIC KEY", b"\x30\x00").encode(), "it is PEM of PUBLIC KEY"),
        (LEAF_DER[:-1], "damaged, or no certificate"),
        (LEAF_DER + b"\0", "damaged, or no certificate"),
        (b"\x30" + bytes(MAX_DER), f"{MAX_DER} are the limit"),
        ("".join(armoured("CERTIFICATE", bytes([i]) * 9) for i in range(17)).encode(), "16 are the limit"),
    ],
)
def test_what_is_no_certificate_is_named(data, why):
    with pytest.raises(UsageError, match="no certificate can be read: ") as caught:
        read_chain(data)
    assert why in caught.value.message


@given(st.integers(0, len(LEAF_DER) - 1), st.integers(1, 255), st.integers(0, 3))
def test_a_certificate_with_a_changed_byte_is_read_or_refused(at, change, cut):
    data = bytearray(LEAF_DER)
    data[at] ^= change
    try:
        said = read(bytes(data[: len(data) - cut]))
    except UsageError:
        return
    assert said.subject.isprintable()
    assert said.serial_hex
    assert isinstance(said.self_signed, bool)


@pytest.mark.parametrize(
    "field", [b"\x1f" + b"\xff" * 30000, b"\x30\x80" * 15000, b"\x06\x82\x75\x30" + b"\xff" * 30000]
)
def test_bytes_made_to_take_long_take_no_time(field):
    body = encoded(16, b"\xa0\x03\x02\x01\x02\x02\x01\x01" + field)
    before = time.monotonic()
    with pytest.raises(UsageError):
        read(encoded(16, body + encoded(16, field[:100]) + b"\x03\x01\x00"))
    assert time.monotonic() - before < 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"240101000000Z", b"241301000000Z"),
        (b"240101000000Z", b"240230000000Z"),
        (b"240101000000Z", b"240101240000Z"),
        (b"240101000000Z", b"2401010000000"),
        (b"\x17\x0d240101", b"\x18\x0d240101"),
    ],
)
def test_a_time_that_is_none_is_no_certificate(old, new):
    assert old in LEAF_DER
    with pytest.raises(UsageError, match="damaged, or no certificate"):
        read(LEAF_DER.replace(old, new))


def test_an_extension_that_stands_twice_is_no_certificate():
    odd = [pyca.UnrecognizedExtension(pyca.ObjectIdentifier(oid), b"\5\0") for oid in ("1.2.3.4", "1.2.3.5")]
    der = issue("a", LEAF.private.public_key(), "a", LEAF.private, extensions=odd)
    assert [each.value for each in read(der).extensions[-2:]] == [b"\5\0"] * 2
    with pytest.raises(UsageError, match="damaged, or no certificate"):
        read(der.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04"))


def test_an_algorithm_that_differs_inside_and_outside_is_no_certificate():  # RFC 5280, section 4.1.1.2
    before, sha256, after = LEAF_DER.rpartition(bytes.fromhex("06082a8648ce3d040302"))
    with pytest.raises(UsageError, match="damaged, or no certificate"):
        read(before + sha256[:-1] + b"\3" + after)


def test_a_vendor_s_statement_about_the_key_is_not_its_certificate():
    every = yubikey.root(), yubikey.device(yubikey.root())
    key = ec.generate_private_key(ec.SECP256R1())
    own = yubikey.make("svc", public=None, private=key, dates=(yubikey.EARLY, yubikey.EARLY.replace(year=2031)))
    stated = yubikey.statement(every[1], key.public_key())
    public = load_public(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert ordered([stated.der, own.der], public) == [own.der]
    assert ordered([stated.der], public) == []
