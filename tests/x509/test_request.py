"""Certificates and requests that are made: what openssl and cryptography say of them, for every algorithm."""

from __future__ import annotations

import datetime as dt
import subprocess

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtensionOID
from x509.softkeys import for_alg, soft_key

from hsmjwt.errors import UsageError
from hsmjwt.guard.policy import check_message
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.claims import LAST_SECOND
from hsmjwt.x509.certificate import read
from hsmjwt.x509.der import armoured
from hsmjwt.x509.public import key_identifier
from hsmjwt.x509.request import (
    Holder,
    Validity,
    certificate_to_sign,
    check_holder,
    request_to_sign,
    signed,
)

HOLDER = Holder(r"CN=svc,O=Example\, Inc.,C=NO", ("dns:svc.example.com", "uri:urn:x:y"), ("digitalSignature",))
NOW = 1_800_000_000
VALIDITY = Validity(NOW - 300, NOW + 86400)
every_alg = pytest.mark.parametrize("name", ALGORITHMS)


def certificate(name: str = "ES256", holder: Holder = HOLDER, validity: Validity = VALIDITY, serial: int = 77) -> bytes:
    key, alg = for_alg(name)
    message = certificate_to_sign(holder, key.public_key, alg, serial, validity)
    check_message("certificate", message)
    return signed(message, alg, key.sign(message, alg))


def request(name: str = "ES256", holder: Holder = HOLDER) -> bytes:
    key, alg = for_alg(name)
    message = request_to_sign(holder, key.public_key)
    check_message("request", message)
    return signed(message, alg, key.sign(message, alg))


def openssl(*args: str) -> str:
    done = subprocess.run(["openssl", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout + done.stderr


@every_alg
def test_openssl_believes_a_certificate_that_is_its_own_root(name, tmp_path):
    file = tmp_path / "pem"
    file.write_text(armoured("CERTIFICATE", certificate(name)))
    for more in ((), ("-x509_strict",)):
        said = openssl("verify", *more, "-check_ss_sig", "-attime", str(NOW), "-CAfile", str(file), str(file))
        assert said.endswith(": OK\n")
    subject = openssl("x509", "-in", str(file), "-noout", "-subject", "-issuer", "-nameopt", "RFC2253")
    assert subject == "subject=CN=svc,O=Example\\, Inc.,C=NO\nissuer=CN=svc,O=Example\\, Inc.,C=NO\n"


@every_alg
def test_cryptography_reads_all_of_a_certificate(name):
    key, alg = for_alg(name)
    der = certificate(name)
    made = pyca.load_der_x509_certificate(der)
    made.verify_directly_issued_by(made)
    assert made.public_bytes(Encoding.DER) == der
    assert made.version is pyca.Version.v3
    assert made.serial_number == 77
    assert made.not_valid_before_utc == dt.datetime.fromtimestamp(VALIDITY.not_before, dt.UTC)
    assert made.not_valid_after_utc == dt.datetime.fromtimestamp(VALIDITY.not_after, dt.UTC)
    own = key.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == own
    found = {each.oid: (each.critical, each.value) for each in made.extensions}
    identifier = key_identifier(key.public_key)
    assert found == {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: (False, pyca.SubjectKeyIdentifier(identifier)),
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: (False, pyca.AuthorityKeyIdentifier(identifier, None, None)),
        ExtensionOID.BASIC_CONSTRAINTS: (True, pyca.BasicConstraints(ca=False, path_length=None)),
        ExtensionOID.KEY_USAGE: (True, usage(digital_signature=True)),
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: (
            False,
            pyca.SubjectAlternativeName(
                [pyca.DNSName("svc.example.com"), pyca.UniformResourceIdentifier("urn:x:y")],
            ),
        ),
    }
    if alg.pss:
        parameters = made.signature_algorithm_parameters
        assert isinstance(parameters, padding.PSS)
        assert parameters._salt_length == made.signature_hash_algorithm.digest_size
        assert parameters.mgf._algorithm.name == made.signature_hash_algorithm.name == alg.hash_name


def usage(**given: bool) -> pyca.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    names += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return pyca.KeyUsage(**{name: given.get(name, False) for name in names})


@pytest.mark.parametrize("name", [name for name, alg in ALGORITHMS.items() if alg.kty != "OKP"])
def test_cryptographys_verifier_accepts_a_certificate_as_its_own_anchor(name):
    # Its policy is that of the Web's authorities, which take no Ed25519
    made = pyca.load_der_x509_certificate(certificate(name))
    builder = verification.PolicyBuilder().store(verification.Store([made]))
    builder = builder.time(dt.datetime.fromtimestamp(NOW, dt.UTC))
    verified = builder.build_client_verifier().verify(made, [])
    assert verified.chain == [made]
    assert builder.build_server_verifier(pyca.DNSName("svc.example.com")).verify(made, []) == [made]


@every_alg
def test_openssl_and_cryptography_verify_a_request(name, tmp_path):
    file = tmp_path / "pem"
    file.write_text(armoured("CERTIFICATE REQUEST", request(name)))
    said = openssl("req", "-in", str(file), "-noout", "-verify", "-subject", "-nameopt", "RFC2253")
    assert "verify OK" in said
    assert "subject=CN=svc,O=Example\\, Inc.,C=NO" in said
    made = pyca.load_der_x509_csr(request(name))
    assert made.is_signature_valid
    assert {each.oid: each.critical for each in made.extensions} == {
        ExtensionOID.KEY_USAGE: True,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    }


def test_a_request_for_no_extension_still_has_its_empty_attributes():
    made = pyca.load_der_x509_csr(request(holder=Holder("CN=a", (), ())))
    assert made.is_signature_valid
    assert list(made.attributes) == []
    assert made.tbs_certrequest_bytes.endswith(b"\xa0\x00")  # RFC 2986, section 4.1: not optional


def test_a_certificate_without_a_subject_has_critical_names():
    der = certificate(holder=Holder("", ("dns:a.example",), ()))
    made = pyca.load_der_x509_certificate(der)
    assert made.subject == pyca.Name([])
    extension = made.extensions.get_extension_for_class(pyca.SubjectAlternativeName)
    assert extension.critical  # RFC 5280, section 4.2.1.6
    with pytest.raises(UsageError, match="the subject is empty"):
        check_holder(Holder("  ", (), ()))


def test_the_longest_names_that_are_taken_make_a_certificate_that_can_be_read():
    def holder(size: int) -> Holder:
        return Holder("1.2.3=" + "a" * size, ("uri:urn:x:" + "b" * 300,), ())

    check_holder(holder(12_100))
    assert len(read(certificate("PS512", holder(12_100))).subject) > 12_000
    with pytest.raises(UsageError, match="subject and alternative names are too long: 24"):
        check_holder(holder(12_200))


@pytest.mark.parametrize(
    ("moment", "tag"), [("2049-12-31T23:59:59", b"\x17\x0d491231235959Z"), ("2050-01-01T00:00:00", b"\x18\x0f2050")]
)
def test_from_2050_on_the_century_is_written(moment, tag):
    at = int(dt.datetime.fromisoformat(f"{moment}+00:00").timestamp())
    der = certificate(validity=Validity(NOW, at))
    assert tag in der
    assert pyca.load_der_x509_certificate(der).not_valid_after_utc.timestamp() == at == read(der).not_after
    assert read(certificate(validity=Validity(NOW, LAST_SECOND))).not_after == LAST_SECOND


def test_the_largest_serial_number_has_twenty_bytes_and_is_positive():
    der = certificate(serial=2**159 - 1)
    assert pyca.load_der_x509_certificate(der).serial_number == 2**159 - 1
    assert b"\x02\x14\x7f" in der
    assert read(der).serial == 2**159 - 1


def test_what_was_made_is_read_as_it_was_meant():
    said = read(certificate())
    assert (said.subject, said.issuer) == (HOLDER.subject, HOLDER.subject)
    assert (said.serial, said.serial_hex) == (77, "4D")
    assert (said.not_before, said.not_after) == VALIDITY
    assert said.public_key == soft_key("P-256").public_key
    assert (said.san, said.key_usage, said.authority) == (HOLDER.san, HOLDER.key_usage, False)
    assert said.self_signed
    assert said.signature_alg == "ecdsa-with-SHA256"


@pytest.mark.parametrize("usages", [["keyCertSign"], ["digitalsignatures"], [""]])
def test_a_key_usage_that_no_signing_key_has_is_refused(usages):
    with pytest.raises(UsageError, match=f"the key usage '{usages[0]}' is none that a key for signatures has"):
        check_holder(Holder("CN=a", (), usages))


def test_key_usages_may_be_two():
    made = pyca.load_der_x509_certificate(
        certificate(holder=Holder("CN=a", (), ("nonRepudiation", "digitalsignature")))
    )
    found = made.extensions.get_extension_for_class(pyca.KeyUsage).value
    assert found == usage(digital_signature=True, content_commitment=True)
