"""What key tables say of a key counts however the key is named, and decides before anything is signed."""

from __future__ import annotations

import base64
import datetime
import json
import os

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.x509.oid import NameOID

K1 = "pkcs11:token=t1;object=k1"
PROFILE = '\n[profiles.p]\nkey = "{}"\nissuer = "i"\naudience = "a"\n'
NEVER = 'description = "x"\n[rules.sensitive]\nis = false\nwhy = "a test"\n'  # a policy that no key keeps
# The key k1 in other words; the serial number differs from token to token.
SPELLINGS = (
    "pkcs11:id=%01;token=t1",
    "pkcs11:object=%6b1;type=private?pin-source=env:PIN",
    "pkcs11:model=SoftHSM%20v2;object=k1",
    "pkcs11:token=t1;manufacturer=SoftHSM%20project;id=%01;object=k1",
)
MAKE = """
import os, sys, pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
session = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin="31415926")
def curve(label, key_id):
    params = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    return session.create_domain_parameters(KeyType.EC, params, local=True).generate_keypair(store=True, id=key_id,
        label=label, capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY)
def certificate(der, label, key_id):
    session.create_object({Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.TOKEN: True, Attribute.LABEL: label,
        Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509, Attribute.ID: key_id, Attribute.SUBJECT: b"0\\0",
        Attribute.VALUE: bytes.fromhex(der)})
"""


@pytest.fixture
def config(tmp_path):
    """Write a config file, and return its path."""

    def write(*parts):
        path = tmp_path / "config.toml"
        path.write_text("\n".join(parts))
        return str(path)

    return write


def table(name, uri, *lines):
    return "\n".join((f"[keys.{name}]", f'uri = "{uri}"', *lines, ""))


@pytest.fixture
def run(patched, calls):
    """Run hsmjwt and note each C_Sign; `run.signed()` tells how many there were."""

    def call(*args, **environ):
        return patched(f"sign@{calls.file}", *args, PIN="31415926", **environ)

    call.signed = lambda: len(calls())
    return call


def header(done):
    assert done.code == 0, done.err
    return jwt.get_unverified_header(done.out.strip())


FLAGS = ("--iss", "i", "--aud", "a", "--alg", "PS256")
SERVER = (*FLAGS, "--token-url", "http://127.0.0.1:9/token")
COMMANDS = {
    "sign": ("sign", *FLAGS),
    "token": ("token", *SERVER),
    "header": ("header", *SERVER),
    "exec": ("exec", *SERVER, "--", "true"),
    "cert csr": ("cert", "csr", "--subject", "CN=x", "--alg", "PS256"),
    "cert self-signed": ("cert", "self-signed", "--subject", "CN=x", "--alg", "PS256"),
}


@pytest.mark.parametrize("uri", SPELLINGS)
@pytest.mark.parametrize("command", ["sign", "token"])
def test_another_algorithm_is_refused_however_the_key_is_named(run, config, command, uri):
    tables = table("bound", K1, 'alg = ["RS256", "RS384"]') + table("second", uri) + PROFILE.format("second")
    file = ("--config", config(tables))
    verb, *rest = COMMANDS[command]
    ways = (
        run(verb, *rest, *file, "--key", uri),
        run(verb, *rest, *file, HSMJWT_KEY=uri),
        run(verb, *rest, *file, "--key", "keys.second"),
        run(verb, "p", "--alg", "PS256", *file, *(SERVER[6:] if command == "token" else ())),
    )
    for done in ways:
        assert (done.code, done.out) == (8, "")
        assert "refused by the rule keys.bound.alg: PS256 is asked for, and the key table binds its key to" in done.err
    assert run.signed() == 0


@pytest.mark.parametrize("command", ["header", "exec", "cert csr", "cert self-signed"])
def test_every_command_that_signs_keeps_to_it(run, config, command):
    file = config(table("bound", K1, 'alg = "RS256"'))
    done = run(*COMMANDS[command], HSMJWT_CONFIG=file, HSMJWT_KEY=SPELLINGS[0])
    assert (done.code, done.out) == (8, "")
    assert "keys.bound.alg" in done.err
    assert run.signed() == 0


@pytest.mark.parametrize("command", ["sign", "token", "cert csr"])
def test_the_table_that_is_named_decides_before_the_token_is_opened(run, config, command):
    file = config(table("bound", K1, 'alg = "RS256"'))
    done = run(*COMMANDS[command], "--key", "keys.bound", "--module", "/nowhere.so", HSMJWT_CONFIG=file)
    assert (done.code, done.out) == (8, "")
    assert "refused by the rule keys.bound.alg" in done.err


def test_where_no_algorithm_is_asked_for_the_tables_first_is_taken(run, config):
    file = ("--config", config(table("bound", K1, 'alg = ["PS256", "RS256"]')))
    for key in (("--key", "keys.bound"), ("--key", SPELLINGS[0])):
        assert header(run("sign", "--iss", "i", "--aud", "a", *file, *key))["alg"] == "PS256"
    assert header(run("sign", "--iss", "i", "--aud", "a", *file, "--alg", "RS256"))["alg"] == "RS256"
    assert run.signed() == 3


def test_an_algorithm_of_the_list_that_the_key_cannot_do_is_passed_over(run, config):
    file = ("--config", config(table("bound", K1, 'alg = ["ES256", "RS512"]') + PROFILE.format("bound")))
    assert header(run("sign", "p", *file))["alg"] == "RS512"
    done = run("sign", "--iss", "i", "--aud", "a", "--config", config(table("x", K1, 'alg = "ES256"')))
    assert (done.code, done.out) == (6, "")
    assert "ES256 takes EC keys, and this one is RSA" in done.err


def test_tables_that_agree_on_no_algorithm_leave_the_key_unused(run, config):
    tables = table("one", K1, 'alg = "RS256"') + table("two", SPELLINGS[0], 'alg = "PS256"')
    file = ("--config", config(tables))
    for more in ((), ("--alg", "RS256"), ("--alg", "PS256"), ("--key", "keys.one"), ("--key", "keys.two")):
        done = run("sign", "--iss", "i", "--aud", "a", *file, *more)
        assert (done.code, done.out) == (8, ""), done.err
        assert "refused by the rule keys." in done.err
        assert "--alg" in more or "key tables bind one key to different algorithms" in done.err
    assert run.signed() == 0


def test_another_keys_table_binds_nothing(run, config):
    tables = table("other", "pkcs11:token=t1;object=k2", 'alg = "ES256"', "not_after = 2020-01-01")
    assert header(run("sign", *FLAGS, "--config", config(tables)))["alg"] == "PS256"


def test_a_dry_run_asks_no_token_which_of_two_algorithms_it_is(run, config):
    file = config(table("bound", K1, 'alg = ["PS256", "RS256"]') + PROFILE.format("bound"))
    done = run("sign", "p", "--dry-run", "--config", file, "--module", "/nowhere.so")
    told = json.loads(done.out)
    assert (told["header"]["alg"], told["unresolved"]) == (None, ["alg"])


def test_a_key_is_not_used_after_its_end_however_it_is_named(run, config):
    file = ("--config", config(table("old", K1, "not_after = 2020-01-01") + PROFILE.format("old")))
    done = run("sign", "p", *file, "--module", "/nowhere.so")
    assert (done.code, done.out) == (8, "")
    assert "refused by the rule keys.old.not_after: the key is not used after 2020-01-01T23:59:59Z" in done.err
    done = run("sign", "--iss", "i", "--aud", "a", *file, "--key", SPELLINGS[1])
    assert (done.code, done.out) == (8, "")
    assert "keys.old.not_after" in done.err
    assert run.signed() == 0
    file = ("--config", config(table("new", K1, "not_after = 9999-12-31") + PROFILE.format("new")))
    assert run("sign", "p", *file).code == 0


# Which key it is


def test_a_custodian_may_test_a_key_after_its_end(run, config):
    file = config(table("new", "pkcs11:token=t1;object=new", "not_after = 2020-01-01"))
    words = ("--type", "p256", "--label", "new", "--key", "pkcs11:token=t1", "--config", file)
    done = run("key", "generate", *words)  # which has it sign a self-test
    assert (done.code, run.signed()) == (0, 1), done.err
    assert run("sign", "--iss", "i", "--aud", "a", "--config", file, "--key", "keys.new").code == 8


def test_another_key_behind_the_uri_is_told_by_its_thumbprint(run, config, token):
    token.make_key("k2")
    prints = {
        name: json.loads(run("key", "show", f"pkcs11:object={name}", "--json", HSMJWT_KEY=None).out)
        for name in ("k1", "k2")
    }
    right, wrong = prints["k1"]["thumbprint"], prints["k2"]["thumbprint"]
    sign = ("sign", "--iss", "i", "--aud", "a", "--config")
    assert run(*sign, config(table("k", K1, f'thumbprint = "{right}"')), "--key", "keys.k").code == 0
    file = config(table("k", K1, f'thumbprint = "{wrong}"') + PROFILE.format("k"))
    assert run.signed() == 1
    for key in ("keys.k", SPELLINGS[0]):
        done = run(*sign, file, "--key", key)
        assert (done.code, done.out) == (6, "")
        assert f"another key is behind the URI of [keys.k]: its thumbprint is {right}, not {wrong}" in done.err
    assert run.signed() == 1
    other = run("sign", "p", "--config", file, "--key", "pkcs11:token=t1;object=k2")  # which is not the table's
    assert other.code == 0, other.err


# Where the public half is


@pytest.fixture
def curve(token):
    """An EC key `curve` whose public half is off the token; returns the public key."""
    made = token.python(
        MAKE
        + """
public, private = curve("curve", b"\\5")
print(encode_ec_public_key(public).hex())
public.destroy()
"""
    )
    assert made.code == 0, made.err
    return serialization.load_der_public_key(bytes.fromhex(made.out))


def pem(public):
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def certificate(public, subject="n", issuer="n"):
    """Return a certificate of a public key; who signed it is nobody's question."""
    ca, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
    builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(public).serial_number(7)
    return builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(1)).sign(ca, hashes.SHA256())


CURVE = "pkcs11:token=t1;object=curve"


def signed_by(done, public):
    """Tell whether a token was signed by this key, as PyJWT sees it."""
    assert done.code == 0, done.err
    return jwt.decode(done.out.strip(), pem(public), ["ES256"], audience="a")["iss"] == "i"


@pytest.fixture
def sign(run, config):
    """Sign by the key `curve`, whose table has these lines."""

    def call(*lines, key=CURVE):
        file = config(table("curve", CURVE, *lines))
        return run("sign", "--iss", "i", "--aud", "a", "--config", file, "--key", key)

    return call


def test_a_key_without_a_public_half_is_refused_and_told_where_it_could_be(curve, sign, run):
    done = sign()
    assert (done.code, done.out) == (6, "")
    assert "the token tells no point for the key, and no public half fits it" in done.err
    assert "name its file in the key table, public_key" in done.err
    assert run.signed() == 0


@pytest.mark.parametrize("key", [CURVE, "keys.curve", "pkcs11:id=%05"])
def test_a_file_may_hold_the_public_half(curve, sign, tmp_path, key):
    (tmp_path / "curve.pem").write_text(pem(curve))
    assert signed_by(sign('public_key = "curve.pem"', key=key), curve)


@pytest.mark.parametrize(("label", "key_id"), [("any", 5), ("curve", 9)])
def test_a_certificate_beside_the_key_tells_the_public_half(curve, sign, token, label, key_id):
    der = certificate(curve).public_bytes(serialization.Encoding.DER).hex()
    others = certificate(rsa.generate_private_key(65537, 2048).public_key()).public_bytes(serialization.Encoding.DER)
    code = (
        f'certificate("{der}", "{label}", b"\\x0{key_id}"); certificate("{others.hex()}", "{label}", b"\\x0{key_id}")'
    )
    assert token.python(MAKE + code).code == 0
    assert signed_by(sign(), curve)


def test_a_certificate_that_the_key_table_names_tells_the_public_half(curve, sign, token, tmp_path):
    made = certificate(curve)
    (tmp_path / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    assert signed_by(sign('certificate = "c.pem"'), curve)
    der = made.public_bytes(serialization.Encoding.DER).hex()
    assert token.python(MAKE + f'certificate("{der}", "elsewhere", b"")').code == 0
    assert signed_by(sign('certificate = "pkcs11:token=t1;object=elsewhere;type=cert"'), curve)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_a_chain_the_keys_own_certificate_counts_wherever_it_stands(curve, sign, tmp_path, order):
    root, inter = (ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(2))
    chain = (
        certificate(curve, "leaf", "inter"),
        certificate(inter, "inter", "root"),
        certificate(root, "root", "root"),
    )
    pems = [chain[at].public_bytes(serialization.Encoding.PEM) for at in order]
    (tmp_path / "c.pem").write_bytes(b"".join(pems))
    assert signed_by(sign('certificate = "c.pem"'), curve)
    (tmp_path / "c.pem").write_bytes(pems[order.index(1)] + pems[order.index(2)])  # no leaf: another one is taken
    assert sign('certificate = "c.pem"').code == 7


def test_a_file_with_certificates_of_keys_that_never_sign_is_the_configs_fault(curve, sign, tmp_path):
    made = certificate(ed448.Ed448PrivateKey.generate().public_key())
    (tmp_path / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    done = sign('certificate = "c.pem"')
    assert (done.code, done.out) == (3, "")
    assert "line 3: certificate in [keys.curve]: '" in done.err
    assert "c.pem' cannot be used: it holds no certificate of a key that signs here" in done.err


def test_a_file_that_nobody_ever_writes_to_is_not_waited_for(curve, sign, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    done = sign('public_key = "fifo"')
    assert (done.code, done.out) == (3, "")
    assert "it is empty" in done.err


def test_two_certificates_of_different_keys_tell_nothing(curve, sign, token):
    for public in (curve, ec.generate_private_key(ec.SECP256R1()).public_key()):
        der = certificate(public).public_bytes(serialization.Encoding.DER).hex()
        assert token.python(MAKE + f'certificate("{der}", "any", b"\\5")').code == 0
    assert sign().code == 6


def test_a_file_with_the_public_half_of_another_key_is_found_out(curve, sign, run, tmp_path, config):
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "other.pem").write_text(pem(other))
    done = sign('public_key = "other.pem"')  # nothing tells them apart before the signature
    assert (done.code, done.out) == (7, "")
    (tmp_path / "other.pem").write_text(pem(ec.generate_private_key(ec.SECP384R1()).public_key()))
    done = sign('public_key = "other.pem"', "unverified = true")
    assert (done.code, done.out) == (6, "")
    assert "other.pem', the public_key of [keys.curve], is not the public half of the key 'pkcs11:" in done.err
    file = config(table("k", K1, 'public_key = "other.pem"'))
    done = run("sign", "--iss", "i", "--aud", "a", "--config", file, "--key", SPELLINGS[0])
    assert (done.code, done.out) == (6, "")
    assert "the public_key of [keys.k], is not the public half" in done.err
    assert run.signed() == 1


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read: no such file"), ("x", "cannot be used: no public key can be read")]
)
def test_a_file_that_holds_no_public_half_is_the_configs_fault(curve, sign, tmp_path, text, words):
    if text is not None:
        (tmp_path / "curve.pem").write_text(text)
    done = sign('public_key = "curve.pem"')
    assert (done.code, done.out) == (3, "")
    assert "line 3: public_key in [keys.curve]: '" in done.err
    assert words in done.err


def test_a_table_may_say_that_nobody_verifies_and_is_warned_each_time(curve, sign, run):
    for key in ("keys.curve", "pkcs11:id=%05"):
        done = sign("unverified = true", key=key)
        assert signed_by(done, curve)
        assert done.err.count("warning: the signature is not verified (unverified = true)") == 1
    assert run.signed() == 2
    signature = base64.urlsafe_b64decode(done.out.strip().rpartition(".")[2] + "==")
    assert len(signature) == 64


def test_a_certificate_needs_the_public_half_whatever_the_table_says(curve, run, config):
    file = config(table("curve", CURVE, "unverified = true"))
    done = run("cert", "csr", "--key", "keys.curve", "--subject", "CN=x", "--config", file)
    assert (done.code, done.out) == (6, "")
    assert "nobody knows the public half of the key" in done.err
    assert run.signed() == 0


def test_what_can_be_verified_is_verified_whatever_the_table_says(run, config):
    file = config(table("k", K1, "unverified = true"))
    done = run("sign", "--iss", "i", "--aud", "a", "--config", file)
    assert (done.code, done.err) == (0, "")


def test_an_unknown_public_half_has_no_thumbprint_to_compare(curve, sign, run):
    done = sign("unverified = true", 'thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"')
    assert (done.code, done.out) == (6, "")
    assert "nobody knows the public half" in done.err
    assert run.signed() == 0


# What it must keep to


def test_a_required_policy_holds_or_nothing_is_signed_however_the_key_is_named(run, config, tmp_path):
    (tmp_path / "never.toml").write_text(NEVER)
    for policy, code in (("never.toml", 8), ("imported", 0)):
        file = config(table("k", K1, f'require = "{policy}"'))
        for key in ("keys.k", SPELLINGS[0]):
            done = run("sign", "--iss", "i", "--aud", "a", "--config", file, "--key", key)
            assert done.code == code, done.err
    assert run.signed() == 2


def test_doctor_tells_what_a_table_forbids(run, config):
    tables = table("one", K1, 'alg = "RS256"') + table("two", SPELLINGS[0], 'alg = "PS256"')
    done = run("doctor", "--json", "--config", config(tables), HSMJWT_KEY=SPELLINGS[2])
    assert done.code == 8
    rows = {row["check"]: row for row in json.loads(done.out)}
    assert rows["key"]["ok"]
    assert "refused by the rule keys.two.alg" in rows["mechanism"]["detail"]


@pytest.mark.parametrize(
    ("line", "code", "why"),
    [
        ("not_after = 2020-01-01", 8, "refused by the rule keys.one.not_after"),
        (f'thumbprint = "{"A" * 43}"', 6, "another key is behind the URI of [keys.one]"),
        ('require = "never.toml"', 8, "refused by the policy"),
    ],
)
def test_doctor_says_of_a_key_that_it_signs_nothing(run, config, tmp_path, *, line, code, why):
    (tmp_path / "never.toml").write_text(NEVER)
    file = ("--config", config(table("one", K1, line)))
    done = run("doctor", "--json", *file, HSMJWT_KEY=SPELLINGS[0])
    rows = {row["check"]: row for row in json.loads(done.out)}
    assert (done.code, rows["key"]["ok"], rows["mechanism"]["ok"]) == (code, False, None)
    assert why in rows["key"]["detail"]
    assert run("sign", "--iss", "i", "--aud", "a", *file, "--key", K1).code == code


def test_doctor_names_the_algorithm_of_the_table(run, config):
    done = run("doctor", "--json", "--config", config(table("one", K1, 'alg = ["PS384", "RS256"]')))
    rows = {row["check"]: row["detail"] for row in json.loads(done.out)}
    assert rows["mechanism"].startswith("PS384 by CKM_")
