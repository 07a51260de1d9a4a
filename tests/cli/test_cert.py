"""`hsmjwt cert`: certificates and requests that a token's key signs, put beside their key, and shown."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli.checks import refused, told
from conftest import execute
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cryptography.x509.oid import NameOID
from servers.granting import write_config

from hsmjwt.jose.algorithms import ALGORITHMS

PATCHED = str(Path(__file__).parent.parent / "hsm" / "patched.py")
K1 = "pkcs11:token=t1;object=k1"
SUBJECT = ("--subject", r"CN=svc,O=Example\, Inc.,C=NO")
CA = ec.generate_private_key(ec.SECP256R1())


def openssl(*args: str, data: str = "") -> str:
    done = subprocess.run(["openssl", *args], input=data, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def made(ran) -> str:
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out


def issue(key: Any, *, days: float = 30, after: float = -1, name: str = "svc", signer: Any = CA) -> str:
    """Return as PEM what an authority makes for a public key, good from and for so many days."""
    subject = pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, "ca")])
    begin = dt.datetime.now(dt.UTC) + dt.timedelta(days=after)
    builder = pyca.CertificateBuilder().subject_name(issuer if key is CA.public_key() else subject).issuer_name(issuer)
    builder = builder.public_key(key).serial_number(pyca.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin + dt.timedelta(days=days))
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


CA_PEM = issue(CA.public_key(), name="ca")


@pytest.fixture
def k1(quick):
    """The public key of k1, as cryptography has it."""
    return public_key(quick)


def public_key(quick) -> Any:
    return load_pem_public_key(quick("key", "export", K1).out.encode())


@pytest.fixture
def keyed(quick):
    """Return the URI of a key of some type, made on the token."""

    def make(kind: str) -> str:
        ran = quick("key", "generate", "--key", "pkcs11:token=t1", "--label", f"new-{kind}", "--type", kind)
        assert ran.code == 0, ran.err
        return ran.out.strip()

    return make


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Write a text to a file of its own and return its path."""
    folder = tmp_path_factory.mktemp("cert")

    def write(text: str, name: str = "") -> str:
        path = folder / (name or f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.pem")
        path.write_text(text)
        return str(path)

    return write


KINDS = {"EC": {"P-256": "p256", "P-384": "p384", "P-521": "p521"}, "OKP": {"Ed25519": "ed25519"}}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_makes_what_openssl_believes(quick, keyed, files, name):
    alg = ALGORITHMS[name]
    key = keyed(KINDS[alg.kty][str(alg.crv)]) if alg.crv else K1
    pem = made(quick("cert", "self-signed", key, *SUBJECT, "--san", "dns:svc.example.com", "--alg", name))
    file = files(pem)
    assert openssl("verify", "-x509_strict", "-check_ss_sig", "-CAfile", file, file).endswith(": OK\n")
    certificate = pyca.load_pem_x509_certificate(pem.encode())
    certificate.verify_directly_issued_by(certificate)
    assert certificate.serial_number.bit_length() <= 159
    asked = made(quick("cert", "csr", key, *SUBJECT, "--san", "dns:svc.example.com", "--alg", name))
    assert "verify OK" in openssl("req", "-noout", "-verify", data=asked)
    request = pyca.load_pem_x509_csr(asked.encode())
    assert request.is_signature_valid
    assert request.subject == certificate.subject
    assert request.public_key() == certificate.public_key()
    assert request.signature_algorithm_oid == certificate.signature_algorithm_oid


def test_a_self_signed_certificate_is_good_from_five_minutes_ago_for_a_year(quick):
    before = int(time.time())
    certificate = pyca.load_pem_x509_certificate(made(quick("cert", "self-signed", K1, *SUBJECT)).encode())
    start = certificate.not_valid_before_utc.timestamp()
    assert before - 300 <= start <= time.time() - 300 + 1
    assert certificate.not_valid_after_utc.timestamp() - start == 365 * 86400 + 300
    longer = made(quick("cert", "self-signed", K1, *SUBJECT, "--days", "36500"))
    assert "GMT" in openssl("x509", "-noout", "-enddate", data=longer)
    serials = {pyca.load_pem_x509_certificate(made(quick("cert", "self-signed", K1, *SUBJECT)).encode()).serial_number}
    assert certificate.serial_number not in serials


def test_without_a_named_algorithm_a_key_signs_as_it_always_does(quick, keyed):
    assert "sha256WithRSAEncryption" in openssl(
        "x509", "-noout", "-text", data=made(quick("cert", "self-signed", K1, *SUBJECT))
    )
    assert "ecdsa-with-SHA384" in openssl(
        "x509", "-noout", "-text", data=made(quick("cert", "self-signed", keyed("p384"), *SUBJECT))
    )


def test_der_and_json_are_the_same_certificate(hsmjwt, quick, token):
    about = json.loads(made(quick("cert", "self-signed", K1, *SUBJECT, "--json")))
    der = base64.b64decode("".join(about["pem"].splitlines()[1:-1]))
    assert about["sha256"] == hashlib.sha256(der).hexdigest()
    assert about["x5t#S256"] == base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert (about["subject"], about["issuer"]) == (SUBJECT[1], SUBJECT[1])
    assert about["self_signed"] is True
    call = [sys.executable, "-m", "hsmjwt", "cert", "csr", K1, *SUBJECT, "--der"]
    done = subprocess.run(call, env=token.environ(), capture_output=True, check=True)
    assert pyca.load_der_x509_csr(done.stdout).is_signature_valid
    asked = json.loads(made(quick("cert", "csr", K1, *SUBJECT, "--json")))
    assert (asked["subject"], asked["san"]) == (SUBJECT[1], [])
    assert asked["pem"].startswith("-----BEGIN CERTIFICATE REQUEST-----\n")


def test_a_comma_of_a_subject_is_its_writers(quick):
    for text, shown in (
        (r"CN=svc,O=Example\, Inc.,C=NO", r"CN=svc,O=Example\, Inc.,C=NO"),
        (r"CN=Müller \+ Søn,O=a\=b", r"CN=Müller \+ Søn,O=a=b"),
    ):
        asked = made(quick("cert", "csr", K1, "--subject", text))
        said = openssl("req", "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb", data=asked)
        assert said == f"subject={shown}\n"
    refused(
        quick("cert", "csr", K1, "--subject", "CN=svc,O=Example, Inc.,C=NO"), 2, "' Inc.'", hint=r"written \, or \+"
    )
    refused(quick("cert", "csr", K1, "--subject", "CN=svc,C=Norway"), 2, "'C=Norway'", hint="C=NO")


@pytest.mark.parametrize(
    ("words", "code", "why", "hint"),
    [
        ((), 2, "the subject is missing", "--subject"),
        (("--subject", " "), 2, "the subject is empty", "--san"),
        (("--subject", "CN=a", "--days", "0"), 2, "1 to 36500 days, and 0", "a year or two"),
        (("--subject", "CN=a", "--days", "36501"), 2, "1 to 36500 days", None),
        (("--subject", "CN=a", "--days", "1e3"), 2, "--days: '1e3'", "--days 365"),
        (("--subject", "CN=a", "--san", "dns:ä.example"), 2, "'dns:ä.example'", "xn--"),
        (("--subject", "CN=a", "--key-usage", "keyCertSign"), 2, "the key usage 'keyCertSign'", "digitalSignature"),
        (("--subject", "CN=a", "--alg", "HS256"), 2, "'HS256' is no signature algorithm", "RS256"),
        (("--subject", "CN=a", "--alg", "ES256"), 6, "ES256 takes EC keys, and this one is RSA", None),
        (("--subject", "CN=a", "--pem", "--der"), 2, "two forms", "one of --pem and --der"),
        (("--subject", "CN=a", "--der", "--json"), 2, "contradict", "--json alone"),
        (("--subject", "CN=a", "--key", K1), 2, "the key is given twice", None),
    ],
)
def test_what_cannot_be_certified_is_refused(quick, words, code, why, hint):
    refused(quick("cert", "self-signed", K1, *words), code, why, hint=hint)


@pytest.mark.parametrize("verb", ["self-signed", "csr"])
def test_a_key_that_is_not_named_is_missed_before_the_subject(quick, verb):
    refused(quick("cert", verb, HSMJWT_KEY=None), 2, "no key is named", hint="keys.NAME")


def test_what_is_wrong_is_told_before_any_module_is_loaded(quick):
    for words in (("self-signed", *SUBJECT[:1], "C=Norway"), ("csr", "--subject", "CM=a"), ("import", "/nowhere")):
        refused(quick("cert", *words, HSMJWT_MODULE="/nowhere.so"), 2)


def test_a_key_that_its_table_binds_signs_no_certificate_otherwise(quick, token, tmp_path):
    config = write_config(tmp_path, f'[keys.k]\nuri = "{K1}"\nmodule = "{token.module}"\nalg = ["PS256", "RS256"]\n')
    call = ("cert", "self-signed", "keys.k", *SUBJECT, "--config", config)
    assert "rsassaPss" in openssl("x509", "-noout", "-text", data=made(quick(*call)))
    for key in ("keys.k", f"{K1};type=private"):
        ran = quick("cert", "csr", key, *SUBJECT, "--config", config, "--alg", "RS512")
        refused(ran, 8, "keys.k.alg", "RS512")


@pytest.mark.parametrize("verb", ["self-signed", "import"])
def test_a_clock_that_was_never_set_certifies_nothing(token, k1, files, verb):
    words = ["cert", verb, *(SUBJECT if verb == "self-signed" else (files(issue(k1)),)), K1]
    code = f"import time, sys; time.time = lambda: 86400.0; sys.argv[1:] = {words!r}\n"
    done = token.python(f"{code}from hsmjwt.cli.main import entry\nentry()")
    assert done.code == 3, done
    assert "the system clock says 1970-01-02" in done.err


def test_a_certificate_lies_beside_its_key(quick, k1, files):
    pem = issue(k1)
    uri = made(quick("cert", "import", files(pem), K1)).strip()
    assert re.fullmatch(r"pkcs11:token=t1;serial=\w+;object=k1;id=%01;type=cert", uri)
    (row,) = json.loads(made(quick("key", "list", "--key", "pkcs11:token=t1", "--json")))
    assert row["has_certificate"] is True
    for words in ((K1,), (uri,), (K1, "--pin-source", "none"), (f"{K1};type=public",)):
        assert made(quick("cert", "show", *words, "--pem")) == pem
    about = json.loads(made(quick("cert", "show", K1, "--json")))
    assert (about["subject"], about["issuer"], about["self_signed"]) == ("CN=svc", "CN=ca", False)
    assert (about["matches_key"], about["valid"], about["days_left"], about["chain"]) == (True, True, 28, [])
    again = quick("cert", "import", files(pem), K1, "--json")
    assert (again.code, again.err) == (0, "hsmjwt: this certificate is on the token already\n")
    assert json.loads(again.out) == {"uri": uri, "created": False, "replaced": []}


def test_a_token_holds_a_certificates_parts_as_others_look_for_them(quick, token, k1, files):
    pem = issue(k1)
    made(quick("cert", "import", files(pem), K1))
    code = """
import os, pkcs11, sys
A = pkcs11.Attribute
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open() as session:  # and no login
    (found,) = session.get_objects({A.CLASS: pkcs11.ObjectClass.CERTIFICATE})
    for name in ("SUBJECT", "ISSUER", "SERIAL_NUMBER", "VALUE", "ID"):
        print(found[A[name]].hex())
    print(found[A.LABEL], found[A.CERTIFICATE_TYPE].name, found[A.PRIVATE])
"""
    done = token.python(code)
    theirs = pyca.load_pem_x509_certificate(pem.encode())
    serial = theirs.serial_number.to_bytes((theirs.serial_number.bit_length() + 8) // 8, "big")
    assert done.out.splitlines() == [
        theirs.subject.public_bytes().hex(),
        theirs.issuer.public_bytes().hex(),
        (bytes((2, len(serial))) + serial).hex(),
        theirs.public_bytes(Encoding.DER).hex(),
        "01",
        "k1 X_509 False",
    ]


def test_of_a_file_with_a_chain_the_keys_own_is_taken(quick, k1, files):
    chain = f"a comment\r\n{CA_PEM}\r\n{issue(CA.public_key(), name='x')}{issue(k1, name='mine')}".replace("\n", "\r\n")
    ran = quick("cert", "import", files(chain, "chain.pem"), K1, "--verbose")
    assert ran.code == 0
    assert "left in the file: the certificate of 'CN=ca'" in ran.err
    assert json.loads(made(quick("cert", "show", K1, "--json")))["subject"] == "CN=mine"
    assert made(quick("cert", "import", "-", K1, "--replace", stdin=issue(k1, name="piped").encode()))
    assert json.loads(made(quick("cert", "show", K1, "--json")))["subject"] == "CN=piped"


def test_another_certificate_takes_the_place_only_if_asked(quick, k1, files):
    first = made(quick("cert", "import", files(issue(k1, name="first")), K1)).strip()
    second = files(issue(k1, name="second"))
    refused(quick("cert", "import", second, K1), 6, f"has a certificate already: {first}", hint="--replace")
    assert json.loads(made(quick("cert", "show", K1, "--json")))["subject"] == "CN=first"
    done = json.loads(made(quick("cert", "import", second, K1, "--replace", "--json")))
    assert done == {"uri": first, "created": True, "replaced": [first]}
    assert json.loads(made(quick("cert", "show", K1, "--json")))["subject"] == "CN=second"


def test_a_certificate_of_another_key_is_refused(quick, keyed, k1, files):
    keyed("p256")
    other = files(made(quick("cert", "self-signed", "pkcs11:token=t1;object=new-p256", *SUBJECT)))
    refused(quick("cert", "import", other, K1), 6, f"'{other}' is a certificate of another key", hint="key export")
    refused(quick("cert", "show", K1, "--file", other), 6, f"'{other}' is a certificate of another key")
    refused(quick("cert", "show", K1), 6, f"the key '{K1}' has no certificate", hint="cert import")
    ran = quick("cert", "import", other, K1, "--json")
    assert told(ran)["code"] == "key"


def test_an_expired_certificate_is_refused_and_one_of_tomorrow_is_not(quick, k1, files):
    expired = files(issue(k1, days=1, after=-3))
    refused(quick("cert", "import", expired, K1), 6, "the certificate 'CN=svc' expired on 20", hint="hsmjwt cert csr")
    assert json.loads(quick("key", "list", "--key", "pkcs11:token=t1", "--json").out)[0]["has_certificate"] is False
    assert "(EXPIRED)" in made(quick("cert", "show", "--file", expired))
    tomorrow = quick("cert", "import", files(issue(k1, after=1)), K1)
    assert tomorrow.code == 0
    assert tomorrow.err.startswith("hsmjwt: warning: the certificate is not valid before 20")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (CA_PEM[:-40], "cut short"),
        (CA_PEM.replace("M", "?"), "not base64"),
        (CA_PEM.replace("CERTIFICATE", "CERTIFICATE REQUEST"), "a certificate request"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "damaged, or no certificate"),
    ],
)
def test_a_file_without_a_certificate_is_refused(quick, files, text, why):
    file = files(text, "none.pem")
    refused(quick("cert", "import", file, K1), 2, f"'{file}': no certificate can be read: ", why)
    refused(quick("cert", "show", "--file", file), 2, f"'{file}': no certificate can be read: ", why)


def test_file_and_key_are_not_taken_for_each_other(quick, files):
    refused(quick("cert", "import", K1, "x.pem"), 2, "the file comes first", hint="hsmjwt cert import FILE KEY")
    refused(quick("cert", "show", "x.pem"), 2, "'x.pem' names no key", hint="--file 'x.pem'")
    refused(quick("cert", "import", "/nowhere", K1), 2, "'/nowhere' cannot be read", hint="as PEM or DER")


def test_a_pin_where_a_file_belongs_is_not_shown(quick):
    uri = f"{K1}?pin-value=27182818"
    for words in (("show", "--file", uri), ("show", uri[7:]), ("import", uri[7:], K1), ("import", uri, K1)):
        ran = quick("cert", *words)
        assert (ran.code, ran.out) == (2, "")
        assert "27182818" not in ran.err


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ("readonly", "CKR_TOKEN_WRITE_PROTECTED"),
        ("create=0xe2", "CKR_TOKEN_WRITE_PROTECTED"),
        ("create=0x31", "is full"),
        ("altered", "the token did not keep the certificate as it was given"),
        ("create=0x82", "does not keep what is written to it"),  # what SoftHSM says on a full disk
    ],
)
def test_a_token_that_takes_nothing_is_left_as_it_was(quick, token, files, *, faults, why):
    k1 = public_key(quick)
    made(quick("cert", "import", files(issue(k1, name="first")), K1))
    call = ("cert", "import", files(issue(k1, name="second")), K1, "--replace")
    done = execute([sys.executable, PATCHED, faults, *call], token.environ())
    assert (done.code, done.out) == (7, "")
    assert why in done.err
    assert json.loads(made(quick("cert", "show", "pkcs11:token=t1;type=cert", "--json")))["subject"] == "CN=first"


def test_an_old_certificate_that_cannot_be_removed_is_named(quick, token, k1, files):
    old = made(quick("cert", "import", files(issue(k1, name="first")), K1)).strip()
    call = ("cert", "import", files(issue(k1, name="second")), K1, "--replace")
    done = execute([sys.executable, PATCHED, "destroy=0x1b", *call], token.environ())
    assert done.code == 7
    assert "the new certificate is on the token, and the old one cannot be removed" in done.err
    assert f"old: {old}" in done.err


def test_a_file_is_shown_without_a_token(quick, files):
    file = files(CA_PEM + issue(ec.generate_private_key(ec.SECP384R1()).public_key(), name="below"))
    ran = quick("cert", "show", "--file", file, HSMJWT_MODULE="/nowhere.so", HSMJWT_PIN_SOURCE=None)
    first, second = made(ran).split("\n\n")
    assert first.startswith("subject        CN=ca\nissuer         CN=ca\n")
    assert "self-signed    yes" in first
    assert "29 days left" in first or "28 days left" in first
    assert "public key     P-384, 384 bits" in second
    assert "self-signed    no" in second
    about = json.loads(made(quick("cert", "show", "--file", file, "--json")))
    assert [each["subject"] for each in about["chain"]] == ["CN=below"]
    assert about["matches_key"] is None
    assert made(quick("cert", "show", "--file", file, "--pem")) == Path(file).read_text()


def test_of_a_file_the_keys_own_certificate_is_shown_first(quick, k1, files):
    file = files(CA_PEM + issue(CA.public_key(), name="stranger") + issue(k1, name="mine"))
    about = json.loads(made(quick("cert", "show", K1, "--file", file, "--json")))
    assert (about["subject"], about["matches_key"]) == ("CN=mine", True)
    assert [each["subject"] for each in about["chain"]] == ["CN=ca", "CN=stranger"]
    first, *others = made(quick("cert", "show", K1, "--file", file)).split("\n\n")
    assert "subject        CN=mine" in first
    assert "the key's own  yes" in first
    assert not any("the key's own" in other for other in others)
    refused(quick("cert", "show", K1, "--file", files(CA_PEM)), 6, "is a certificate of another key")


def test_a_certificate_drives_no_terminal(quick, files):
    subject = pyca.Name([pyca.NameAttribute(NameOID.COMMON_NAME, "a\x1b[31mb\nc\x9b")])
    begin = dt.datetime.now(dt.UTC)
    builder = pyca.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(CA.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + dt.timedelta(days=1))
    names = pyca.SubjectAlternativeName([pyca.DNSName("a\x1b[31mb")])
    pem = builder.add_extension(names, critical=False).sign(CA, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    shown = made(quick("cert", "show", "--file", files(pem)))
    assert r"CN=a\1B[31mb\0Ac\C2\9B" in shown
    assert "\x1b" not in shown
    assert r"dns:a\x1b[31mb" in shown


def test_a_key_table_names_the_certificate(quick, token, k1, files, tmp_path):
    mine, other = issue(k1, name="mine"), issue(CA.public_key(), name="other")
    (tmp_path / "chain.pem").write_text(CA_PEM + mine)
    (tmp_path / "other.pem").write_text(other)
    table = f'uri = "{K1}"\nmodule = "{token.module}"\n'
    tables = {
        "file": 'certificate = "chain.pem"',  # beside the config
        "other": f'certificate = "{tmp_path}/other.pem"',
        "none": 'certificate = "nowhere.pem"',
        "uri": 'certificate = "pkcs11:token=t1;id=%01;type=cert"',
        "absent": 'certificate = "pkcs11:token=t1;object=nope;type=cert"',
    }
    config = write_config(tmp_path, "\n".join(f"[keys.{name}]\n{table}{text}" for name, text in tables.items()))
    made(quick("cert", "import", files(issue(k1, name="beside")), K1))

    def show(name: str):
        return quick("cert", "show", f"keys.{name}", "--json", "--config", config)

    about = json.loads(made(show("file")))
    assert (about["subject"], [each["subject"] for each in about["chain"]]) == ("CN=mine", ["CN=ca"])
    assert json.loads(made(show("uri")))["subject"] == "CN=beside"
    refused(show("other"), 6, "other.pem', the key table's certificate, is a certificate of another key")
    refused(show("none"), 3, "nowhere.pem' cannot be read")
    refused(show("absent"), 6, "no certificate fits 'pkcs11:token=t1;object=nope;type=cert'")


def test_doctor_looks_at_the_certificate(quick, k1, files):
    def row():
        ran = quick("doctor", "--key", K1, "--json")
        (found,) = [each for each in json.loads(ran.out) if each["check"] == "certificate"]
        return ran.code, found["ok"], found["detail"]

    assert row() == (0, None, "the key has none")
    made(quick("cert", "import", files(issue(k1)), K1))
    code, ok, detail = row()
    assert (code, ok) == (0, True)
    assert detail.startswith("'CN=svc', of this key, valid until 20")


def test_doctor_says_that_a_certificate_expired_or_is_anothers(quick, token, k1):
    code = """
import os, pkcs11, sys
A = pkcs11.Attribute
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    for old in session.get_objects({A.CLASS: pkcs11.ObjectClass.CERTIFICATE}): old.destroy()
    session.create_object({A.CLASS: pkcs11.ObjectClass.CERTIFICATE, A.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
        A.TOKEN: True, A.SUBJECT: b"0\\0", A.ID: b"\\1", A.LABEL: "k1", A.VALUE: bytes.fromhex(sys.argv[2])})
"""
    for pem, why in (
        (issue(k1, days=1, after=-3), "the certificate 'CN=svc' expired on"),
        (issue(k1, after=1), "is not valid before"),
        (issue(CA.public_key()), "is a certificate of another key"),
    ):
        der = pyca.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
        assert token.python(code, token.pin_file.read_text(), der.hex()).code == 0
        ran = quick("doctor", "--key", K1)
        assert ran.code == 6
        (line,) = [line for line in ran.out.splitlines() if " certificate " in line and line.startswith("FAIL")]
        assert why in line
    assert token.python(code, token.pin_file.read_text(), b"rubbish".hex()).code == 0
    refused(quick("cert", "show", K1), 6, "which has the key's id, is a certificate of another key")
    refused(quick("cert", "show", f"{K1};type=cert"), 6, "type=cert' is damaged: no certificate can be read")
