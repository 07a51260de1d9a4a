"""`hsmjwt key audit` on a real token: what a key's attributes say against a policy, and what becomes of the verdict."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re

import pytest
from cli.checks import refused, told
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from servers import yubikey

ALL = ("key", "audit", "--all", "--key", "pkcs11:token=t1")
TODAY = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Day(datetime.date):
    """A day that the process which makes a key can read."""

    def __repr__(self) -> str:
        return f"__import__('datetime').date({self.year}, {self.month}, {self.day})"


YESTERDAY, TOMORROW = (Day.fromisoformat((TODAY + step).date().isoformat()) for step in (-DAY, DAY))

_CREATE = """
import os, pkcs11, sys
from pkcs11 import Attribute
from pkcs11.util.rsa import decode_rsa_private_key
label, key_id, pin, der, template = sys.argv[1:]
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
with lib.get_token(token_label="t1").open(rw=True, user_pin=pin) as session:
    more = {Attribute[name]: value for name, value in eval(template).items()}
    session.create_object({**decode_rsa_private_key(bytes.fromhex(der)), Attribute.TOKEN: True, Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True, Attribute.LABEL: label,
        Attribute.DECRYPT: False, Attribute.UNWRAP: False, Attribute.SIGN_RECOVER: False,
        Attribute.ID: bytes.fromhex(key_id), **more})
"""
_CERTIFICATE = """
import os, pkcs11, sys
from pkcs11 import Attribute
label, key_id, pin, der = sys.argv[1:]
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
with lib.get_token(token_label="t1").open(rw=True, user_pin=pin) as session:
    session.create_object({Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE, Attribute.TOKEN: True,
        Attribute.LABEL: label, Attribute.ID: bytes.fromhex(key_id),
        Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
        Attribute.SUBJECT: b"0\\0", Attribute.VALUE: bytes.fromhex(der)})
"""


def put_key(token, label: str, key: rsa.RSAPrivateKey, key_id: str = "55", **template: object) -> None:
    """Put a key on the token that was made elsewhere, as any other tool would."""
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    done = token.python(_CREATE, label, key_id, token.pin_file.read_text(), der.hex(), repr(template))
    assert done.code == 0, done.err


def put_certificate(token, public, *, label="k1", key_id="01", begin=TODAY - DAY, end=TODAY + DAY) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a service")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    der = made.public_bytes(serialization.Encoding.DER)
    done = token.python(_CERTIFICATE, label, key_id, token.pin_file.read_text(), der.hex())
    assert done.code == 0, done.err
    return der


def public_of(quick, uri):
    pem = quick("key", "export", uri, HSMJWT_KEY=None).out
    return serialization.load_pem_public_key(pem.encode())


def audit(quick, *args, code=0, **environ):
    """Audit one key and return what `--json` says of it."""
    done = quick("key", "audit", *args, "--json", **environ)
    assert done.code == code, done
    report = json.loads(done.out)
    assert report["verdict"] == ("pass" if code == 0 else "fail")
    return report


def missed(report) -> dict[str, str]:
    return {each["attribute"]: each["result"] for each in report["findings"] if each["result"] != "pass"}


@pytest.fixture(scope="module")
def foreign() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def test_a_key_that_was_made_on_the_token_passes(quick, token):
    report = audit(quick, token.uri)
    assert missed(report) == {}
    assert report["policy"]["name"] == "device-born"
    assert report["key"]["uri"].startswith("pkcs11:token=t1;serial=")
    found = {each["attribute"]: each["found"] for each in report["findings"]}
    assert found["local"] == found["sensitive"] == found["never_extractable"] == "yes"
    assert found["key_gen_mechanism"] == "RSA_PKCS_KEY_PAIR_GEN"
    assert report["attributes"]["bits"] == 2048
    assert report["attributes"]["public_exponent"] == 65537
    assert report["attributes"]["decrypt"] is False
    assert all(set(each) == {"attribute", "found", "required", "why", "result"} for each in report["findings"])


def test_the_report_names_module_and_token_and_claims_no_more_than_they_say(quick, token):
    report = audit(quick, token.uri)
    with open(os.path.realpath(token.module), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert report["module"]["path"] == os.path.realpath(token.module)
    assert report["module"]["sha256"] == digest
    assert report["token"]["label"] == "t1"
    assert report["token"]["model"] == "SoftHSM v2"
    assert "LOGIN_REQUIRED" in report["token"]["flags"]
    assert re.fullmatch(r"\d+\.\d+", report["token"]["firmware"])
    assert report["as_stated_by"] == "the module"
    assert report["attestation"] is None
    assert report["proof"].startswith("no cryptographic proof is available")
    text = quick("key", "audit", token.uri).out
    assert "as stated by the module" in text.splitlines()[0]
    assert "proof: no cryptographic proof is available" in text
    assert digest in text


def test_a_key_that_came_from_outside_fails_and_passes_as_an_imported_one(quick, token, foreign):
    put_key(token, "foreign", foreign)
    uri = "pkcs11:token=t1;object=foreign"
    report = audit(quick, uri, code=8)
    assert missed(report) == {
        "local": "fail",
        "key_gen_mechanism": "fail",
        "always_sensitive": "fail",
        "never_extractable": "fail",
    }
    assert missed(audit(quick, uri, "--policy", "imported")) == {}


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ({"EXTRACTABLE": True}, {"extractable", "never_extractable"}),
        ({"SENSITIVE": False}, {"sensitive", "always_sensitive"}),
        ({"PRIVATE": False}, {"private"}),
        ({"PRIVATE": False, "END_DATE": YESTERDAY}, {"private", "dates"}),
        ({"PRIVATE": False, "START_DATE": TOMORROW}, {"private", "dates"}),
        ({"PRIVATE": False, "START_DATE": YESTERDAY, "END_DATE": TOMORROW}, {"private"}),
    ],
)
def test_what_an_attribute_says_decides(quick, token, template, wrong):
    token.make_key("odd", "39", **template)
    report = audit(quick, "pkcs11:token=t1;object=odd", code=8)
    assert {name for name, result in missed(report).items() if result == "fail"} == wrong


def test_a_date_that_the_token_fails_to_read_is_unknown(quick, token):
    """SoftHSM answers CKR_GENERAL_ERROR where a private object has one."""
    token.make_key("odd", "39", START_DATE=YESTERDAY)
    report = audit(quick, "pkcs11:token=t1;object=odd", code=8)
    assert missed(report) == {"dates": "unknown"}
    assert (report["attributes"]["start_date"], report["attributes"]["end_date"]) == (None, "none")


def test_a_second_key_of_the_same_label_is_found_and_of_the_same_public_key_too(quick, token, foreign):
    put_key(token, "k1", foreign, "66")
    put_key(token, "copy", foreign, "67")
    first = audit(quick, "pkcs11:token=t1;object=k1;id=%01", code=8)
    assert missed(first) == {"same_label": "fail"}
    assert first["attributes"]["same_public_key"] == 0
    second = audit(quick, "pkcs11:token=t1;object=k1;id=f", "--policy", "imported", code=8)
    assert missed(second) == {"same_label": "fail", "same_public_key": "fail"}
    every = {row["key"]["uri"]: row for row in json.loads(quick(*ALL, "--json").out)}
    assert len(every) == 3
    for one in (first, second):
        assert every[one["key"]["uri"]]["attributes"] == one["attributes"]


def test_a_certificate_beside_the_key_must_be_its_own_and_must_not_have_expired(quick, token, foreign):
    public = public_of(quick, token.uri)
    assert audit(quick, token.uri)["attributes"]["certificate"] == "none"
    put_certificate(token, foreign.public_key())
    report = audit(quick, token.uri, code=8)
    assert report["attributes"]["certificate"] == "of another key"
    assert missed(report) == {"certificate": "fail"}
    put_certificate(token, public, end=TODAY - DAY / 2)
    assert audit(quick, token.uri, code=8)["attributes"]["certificate"] == "expired"
    put_certificate(token, public)
    report = audit(quick, token.uri)
    assert report["attributes"]["certificate"] == "valid"
    assert report["attributes"]["certificate_subject"] == "CN=a service"


def test_every_key_has_a_line_and_one_that_fails_fails_the_whole(quick, token, foreign):
    token.make_key("k2", "02")
    rows = json.loads(quick(*ALL, "--json").out)
    assert [row["key"]["label"] for row in rows] == ["k1", "k2"]
    assert {row["verdict"] for row in rows} == {"pass"}
    put_key(token, "foreign", foreign)
    done = quick(*ALL)
    assert done.code == 8
    assert re.search(r"^pass +device-born +- +pkcs11:\S+object=k1;\S+$", done.out, re.MULTILINE)
    assert re.search(r"^fail +device-born +local, \S.*object=foreign;\S+$", done.out, re.MULTILINE)
    assert done.out.splitlines()[-1] == "verdict: fail (1 of 3 keys did not pass)"
    assert quick(*ALL[:3], "--key", "pkcs11:token=t1;object=k2").code == 0


def test_several_tokens_are_audited_without_a_login_and_that_is_said(quick, token):
    token.make_token("t2")
    done = quick("key", "audit", "--all")
    refused_text = done.err
    assert done.code == 6
    assert "2 tokens fit, so nothing was logged in to" in refused_text
    assert "there is no private key to audit" in refused_text


def test_what_only_a_login_would_show_is_unknown_and_not_absent(quick, token):
    token.make_key("k1", "0e", PRIVATE=False)
    args = ("pkcs11:token=t1;object=k1;id=%0E", "--policy", "imported")
    whole = audit(quick, *args, code=8)
    assert missed(whole) == {"private": "fail", "same_label": "fail"}
    report = audit(quick, *args, "--pin-source", "none", code=8)
    unknown = dict.fromkeys(("same_label", "same_public_key", "certificate"), "unknown")
    assert missed(report) == {"private": "fail", **unknown}
    [row] = json.loads(quick(*ALL, "--pin-source", "none", "--json").out)
    assert row["attributes"] == report["attributes"]
    assert "nothing was logged in to" in quick("key", "audit", *args, "--pin-source", "none").err


_ORPHAN = """
import os, pkcs11, sys
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters as curve
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
with lib.get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    params = {Attribute.EC_PARAMS: curve(sys.argv[2])}
    pair = session.create_domain_parameters(KeyType.EC, params, local=True).generate_keypair(store=True, label="orphan")
    pair[0].destroy()
"""


@pytest.mark.parametrize(("curve", "result"), [("secp256r1", {"same_public_key": "unknown"}), ("secp384r1", {})])
def test_a_key_without_a_public_half_may_be_any_key_of_its_curve(quick, token, curve, result):
    made = quick("key", "generate", "--key", "pkcs11:token=t1", "--label", "e", "--type", "p256")
    assert made.code == 0, made.err
    assert token.python(_ORPHAN, token.pin_file.read_text(), curve).code == 0
    report = audit(quick, made.out.strip(), "--policy", "imported", code=8 if result else 0)
    assert missed(report) == result
    assert missed(audit(quick, made.out.strip())) == {}
    rows = {row["key"]["label"]: row for row in json.loads(quick(*ALL, "--policy", "imported", "--json").out)}
    assert rows["e"]["findings"] == report["findings"]
    assert missed(rows["orphan"])["same_public_key"] == "unknown"


def test_a_curve_that_is_not_used_here_is_no_unknown_one(quick, token):
    assert token.python(_ORPHAN, token.pin_file.read_text(), "secp256k1").code == 0
    report = audit(quick, "pkcs11:token=t1;object=orphan", "--policy", "fips-186-5", code=8)
    assert missed(report)["curve"] == "fail"
    assert report["attributes"]["curve"] == "another one (06052b8104000a)"


def test_an_edwards_key_and_its_curve_are_read(quick, token):
    for kind, curve in (("ed25519", "Ed25519"), ("p384", "P-384")):
        made = quick("key", "generate", "--key", "pkcs11:token=t1", "--label", kind, "--type", kind)
        assert made.code == 0, made.err
        report = audit(quick, made.out.strip())
        assert (report["attributes"]["curve"], missed(report)) == (curve, {})


@pytest.mark.parametrize("kind", ["rsa:2048", "ed25519"])
def test_a_key_that_is_bound_to_a_mechanism_that_hashes_has_its_hash_on_the_token(quick, token, kind):
    made = quick("key", "generate", "--key", "pkcs11:token=t1", "--label", "bound", "--type", kind)
    assert made.code == 0, made.err
    report = audit(quick, made.out.strip(), "--policy", "fips-186-5")
    assert report["attributes"]["allowed_mechanisms"]
    assert report["attributes"]["hash_on_token"] is True


def test_a_key_that_is_bound_to_nothing_may_sign_ready_hashes(quick, token):
    report = audit(quick, token.uri, "--policy", "fips-186-5", code=8)
    assert report["attributes"]["allowed_mechanisms"] == []
    assert missed(report) == {"hash_on_token": "fail"}


def test_the_users_own_policy_says_what_counts(quick, token, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'description = "ours"\nextends = "device-born"\n'
        '[rules.bits]\nmin = 3072\nwhy = "long-lived data"\n'
        '[rules.token_model]\none_of = ["SoftHSM v2"]\nwhy = "what was bought"\n'
    )
    report = audit(quick, token.uri, "--policy", "./mine.toml", code=8)
    assert report["policy"] == {"name": "mine", "description": "ours"}
    assert missed(report) == {"bits": "fail"}
    finding = next(each for each in report["findings"] if each["attribute"] == "bits")
    assert (finding["found"], finding["required"], finding["why"]) == ("2048", "3072 or more", "long-lived data")
    path.write_text('[rules.bts]\nmin = 3072\nwhy = "x"\n')
    done = quick("key", "audit", token.uri, "--policy", "mine.toml")
    refused(done, 3, "policy file 'mine.toml', line 1: unknown attribute 'bts'", hint="'bits'")


@pytest.mark.parametrize(
    ("policy", "words", "hint"),
    [
        ("device-bron", "unknown policy 'device-bron'", "'device-born'"),
        (
            "./none.toml",
            "policy file './none.toml' cannot be read: no such file",
            "or device-born, fips-186-5, imported",
        ),
        ("./", "cannot be read: is a directory", "the path of a TOML file"),
        ("/dev/null", "is no regular file", "write it to a file"),
    ],
)
def test_a_policy_that_is_not_there_is_refused(quick, token, policy, words, hint):
    done = quick("key", "audit", token.uri, "--policy", policy, "--json")
    refused(done, 3, words, hint=hint)
    assert told(done)["code"] == "config"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--attestation", "a.pem"), "belong together"),
        (("--roots", "a.pem"), "belong together"),
        (("--all", "--attestation", "a.pem", "--roots", "a.pem"), "--attestation proves one key"),
        (("--html", "--json"), "contradict each other"),
        (("--attestation", "none.pem", "--roots", "none.pem"), "'none.pem' cannot be read"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(quick, token, args, words):
    refused(quick("key", "audit", *args, HSMJWT_KEY=token.uri), 2, words)


def test_a_file_that_holds_no_certificate_is_no_proof(quick, token, tmp_path):
    (tmp_path / "a.pem").write_text("nothing")
    done = quick("key", "audit", token.uri, "--attestation", "a.pem", "--roots", "a.pem")
    refused(done, 2, "'a.pem': no certificate can be read")


def test_a_vendors_proof_is_verified_up_to_the_given_root(quick, token, tmp_path):
    top = yubikey.root()
    f9 = yubikey.device(top)
    leaf = yubikey.statement(f9, public_of(quick, token.uri))
    (tmp_path / "proof.pem").write_bytes(leaf.pem + f9.pem)
    (tmp_path / "roots.pem").write_bytes(top.pem)
    args = (token.uri, "--attestation", "proof.pem", "--roots", "roots.pem")
    report = audit(quick, *args)
    assert report["attestation"]["holds"] is True
    assert report["attestation"]["states"]["firmware"] == "5.4.3"
    assert report["attestation"]["root_sha256"] == top.certificate.fingerprint(hashes.SHA256()).hex()
    text = quick("key", "audit", *args).out
    assert "proof: proven up to the root with SHA-256" in text
    assert re.search(r"PIN and touch +PIN once a session, touch never", text)


def test_a_proof_that_does_not_hold_fails_the_audit(quick, token, tmp_path):
    top = yubikey.root()
    f9 = yubikey.device(top)
    (tmp_path / "proof.pem").write_bytes(yubikey.statement(f9).pem + f9.pem)
    (tmp_path / "roots.pem").write_bytes(top.pem)
    args = (token.uri, "--attestation", "proof.pem", "--roots", "roots.pem")
    report = audit(quick, *args, code=8)
    assert missed(report) == {}
    assert report["attestation"]["holds"] is False
    assert "its public key is another one" in report["attestation"]["problem"]
    text = quick("key", "audit", *args).out
    assert "proof: the proof does not hold: none of the certificates is for this key" in text
    assert "verdict: fail (0 of 12 findings did not pass, and the proof does not hold)" in text


_SWAP = """
import os, pkcs11, sys
from pkcs11 import Attribute, KeyType, ObjectClass
pin, point = sys.argv[1:]
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
with lib.get_token(token_label="t1").open(rw=True, user_pin=pin) as session:
    [half] = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: "e"})
    kept = {name: half[name] for name in (Attribute.EC_PARAMS, Attribute.ID, Attribute.LABEL)}
    half.destroy()
    session.create_object({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.EC,
        Attribute.TOKEN: True, Attribute.EC_POINT: bytes.fromhex(point), **kept})
"""


def test_a_proof_of_the_key_whose_public_half_stands_beside_another_private_key_is_none(quick, token, tmp_path):
    made = quick("key", "generate", "--key", "pkcs11:token=t1", "--label", "e", "--type", "p256")
    assert made.code == 0, made.err
    top = yubikey.root()
    f9 = yubikey.device(top)
    leaf = yubikey.statement(f9)
    point = leaf.key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    assert token.python(_SWAP, token.pin_file.read_text(), (b"\x04\x41" + point).hex()).code == 0
    (tmp_path / "proof.pem").write_bytes(leaf.pem + f9.pem)
    (tmp_path / "roots.pem").write_bytes(top.pem)
    report = audit(quick, made.out.strip(), "--attestation", "proof.pem", "--roots", "roots.pem", code=8)
    assert missed(report) == {}  # the module says nothing that is wrong
    assert report["attestation"]["holds"] is False
    assert "does not show that it is the one which was attested" in report["attestation"]["problem"]


def test_a_vendors_proof_beside_the_key_is_no_certificate_of_it(quick, token, tmp_path):
    """A YubiKey's module shows one there, whose first day is that of the device and not of the key."""
    leaf = yubikey.statement(yubikey.device(yubikey.root()), public_of(quick, token.uri))
    done = token.python(_CERTIFICATE, "k1", "01", token.pin_file.read_text(), leaf.der.hex())
    assert done.code == 0, done.err
    report = audit(quick, "keys.mine", "--config", config(tmp_path, token, 'max_age = "365d"'), code=8)
    assert report["attributes"]["certificate"] == "none"
    assert missed(report) == {"max_age": "unknown"}


def config(tmp_path, token, *lines: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text(f'[keys.mine]\nuri = "{token.uri}"\n' + "\n".join(lines) + "\n")
    path.chmod(0o600)
    return str(path)


def sign(quick, path, key="keys.mine"):
    return quick("sign", "--config", path, "--key", key, "--iss", "i", "--aud", "a", HSMJWT_KEY=None)


def test_a_key_that_does_not_keep_what_its_table_requires_signs_nothing(quick, token, foreign, tmp_path):
    put_key(token, "foreign", foreign)
    path = config(tmp_path, token, 'require = "device-born"')
    assert sign(quick, path).code == 0
    text = (tmp_path / "config.toml").read_text().replace("object=k1", "object=foreign")
    (tmp_path / "config.toml").write_text(text)
    done = sign(quick, path)
    refused(
        done, 8, "refused by the policy device-born of [keys.mine]: local is no, not yes", hint="key audit keys.mine"
    )
    assert sign(quick, path, "pkcs11:token=t1;object=foreign").code == 8
    report = audit(quick, "keys.mine", "--config", path, code=8)
    assert report["policy"]["name"] == "device-born"
    (tmp_path / "config.toml").write_text(text.replace("device-born", "imported"))
    assert sign(quick, path).code == 0
    assert audit(quick, "keys.mine", "--config", path)["policy"]["name"] == "imported"


def test_each_table_of_a_key_requires_its_policy_of_the_certificate_that_it_names(quick, token, tmp_path, foreign):
    der = put_certificate(token, foreign.public_key(), label="elsewhere", key_id="77")
    (tmp_path / "c.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))
    second = ("[keys.second]", 'uri = "pkcs11:token=t1;id=%01"', 'require = "device-born"')
    path = config(tmp_path, token, 'require = "device-born"', *second)
    assert sign(quick, path).code == 0
    path = config(tmp_path, token, 'require = "device-born"', *second, 'certificate = "c.pem"')
    refused(sign(quick, path), 8, "device-born of [keys.second]: certificate is of another key, not none or valid")


def test_a_required_policy_of_the_users_own_is_not_one_that_others_wrote(quick, token, tmp_path):
    path = config(tmp_path, token, 'require = "mine.toml"')
    own = tmp_path / "mine.toml"
    own.write_text('[rules.bits]\nmin = 2048\nwhy = "x"\n')
    own.chmod(0o644)
    assert sign(quick, path).code == 0
    own.chmod(0o666)
    refused(sign(quick, path), 3, "can be written by others", hint="chmod go-w")
    line = own.parent.joinpath("config.toml").read_text().partition("require")[0].count("\n") + 1
    refused(quick("key", "audit", "keys.mine", "--config", path), 3, f"line {line}: require in [keys.mine]: ")


@pytest.mark.parametrize(
    ("line", "result"),
    [('not_after = "2020-01-01"', "fail"), ('not_after = "2099-01-01"', "pass"), ('max_age = "365d"', "unknown")],
)
def test_what_the_key_table_says_of_the_keys_age_is_a_finding(quick, token, tmp_path, line, result):
    attribute = line.partition(" ")[0]
    path = config(tmp_path, token, line)
    report = audit(quick, "keys.mine", "--config", path, code=0 if result == "pass" else 8)
    finding = next(each for each in report["findings"] if each["attribute"] == attribute)
    assert finding["result"] == result
    assert finding["why"].startswith("the key table says")
    [row] = json.loads(quick(*ALL, "--config", path, "--json").out)  # the table means the key, however that was named
    assert finding in row["findings"]


@pytest.mark.parametrize(("days", "code"), [(10, 0), (400, 8)])
def test_the_age_of_a_key_counts_from_the_first_day_of_its_certificate(quick, token, tmp_path, days, code):
    begin = TODAY - days * DAY
    put_certificate(token, public_of(quick, token.uri), begin=begin, end=TODAY + 30 * DAY)
    report = audit(quick, "keys.mine", "--config", config(tmp_path, token, 'max_age = "365d"'), code=code)
    finding = next(each for each in report["findings"] if each["attribute"] == "max_age")
    assert finding["found"] == f"{days} days, since {begin.date()} (the certificate's first day)"
    assert finding["required"] == "365 days at most"


def test_a_certificate_that_the_key_table_names_counts_too(quick, token, tmp_path, foreign):
    der = put_certificate(token, foreign.public_key(), label="elsewhere", key_id="77")
    (tmp_path / "c.pem").write_bytes(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))
    report = audit(quick, "keys.mine", "--config", config(tmp_path, token, 'certificate = "c.pem"'), code=8)
    assert report["attributes"]["certificate"] == "of another key"


def test_a_label_cannot_break_out_of_the_report(quick, token):
    label = "x\x1b[2J\nverdict: pass\u202e"
    token.make_key(label, "0a", EXTRACTABLE=True)
    done = quick("key", "audit", "--all", "--key", "pkcs11:token=t1;id=%0A")
    assert done.code == 8
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert [line for line in done.out.splitlines() if line.startswith("verdict: ")] == [
        "verdict: fail (1 of 1 keys did not pass)"
    ]
