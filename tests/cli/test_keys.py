"""`hsmjwt key` and `hsmjwt slot`: what is on a token, a new key, and its public half for the provider's console."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys

import pytest
from cli.checks import refused

ON_T1 = ("--key", "pkcs11:token=t1")
LABELS = ["signing [prod]", "[/red] old", "[link=x]y", ":smile: k", "50%; a=b?c<d>&e", "æ€😀", " blanks  inside "]


def make_keys(token, labels: list[str]) -> None:
    """Add key pairs as another tool would, which asks nothing of their labels."""
    code = """
import os, pkcs11, sys
pin, *labels = sys.argv[1:]
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=pin) as session:
    for number, label in enumerate(labels, 32):
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label=label, id=bytes([number]))
"""
    done = token.python(code, token.pin_file.read_text(), *labels)
    assert done.code == 0, done.err


def rows(ran) -> list[dict]:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def openssl(*args: str, data: bytes) -> str:
    done = subprocess.run(["openssl", *args], input=data, capture_output=True, check=True)
    return done.stdout.decode()


def test_a_listed_key_signs_by_its_uri_whatever_its_label(quick, token):
    make_keys(token, LABELS)
    listed = {row["label"]: row for row in rows(quick("key", "list", *ON_T1, "--json"))}
    assert set(listed) == {"k1", *LABELS}
    for label in LABELS:
        uri = listed[label]["uri"]
        assert re.fullmatch(r"pkcs11:[\w.~:@&=;%()*+,!$'\[\]/-]+", uri), uri
        assert quick("sign", "--iss", "i", "--aud", "a", "--key", uri, HSMJWT_KEY=None).code == 0
    table = quick("key", "list", *ON_T1, FORCE_COLOR="1")
    for label in LABELS:
        assert label in table.out
    assert "\x1b" not in table.out


def test_a_missing_key_shows_candidates_letter_by_letter(quick, token):
    make_keys(token, ["[/red] old"])
    done = quick("key", "show", "pkcs11:token=t1;object=%5B%2Fred%5D%20none")
    refused(done, 6, "no key fits", hint="object=%5B%2Fred%5D%20old;id=%20")


def test_control_characters_of_a_label_drive_no_terminal(quick, token):
    make_keys(token, ["a\x1b[31mb\nc"])
    for command in (("key", "list"), ("key", "show", "pkcs11:token=t1;id=%20")):
        done = quick(*command, *(ON_T1 if command[1] == "list" else ()))
        assert done.code == 0, done.err
        assert "\x1b" not in done.out
        assert "a\\x1b[31mb\\nc" in done.out


def test_a_listing_logs_in_only_where_one_token_is_left(quick, token):
    token.make_token("t2")
    token.make_key("k9", "09", token="t2")
    both = quick("key", "list", "--json")
    assert both.code == 0
    assert "2 tokens fit, so nothing was logged in to" in both.err
    assert {row["token"]["label"] for row in rows(both)} <= {"t1", "t2"}
    assert all(not row["private"] for row in rows(both))
    one = quick("key", "list", "--key", "pkcs11:token=t2", "--json")
    assert one.err == ""
    assert [(row["label"], row["private"]) for row in rows(one)] == [("k9", True)]
    # HSMJWT_KEY names a key to sign with, and does not narrow a listing
    assert both.err == quick("key", "list", "--json", HSMJWT_KEY="pkcs11:token=t2").err


def test_a_row_has_all_members_and_says_what_the_token_says(quick, token):
    (row,) = rows(quick("key", "list", *ON_T1, "--json"))
    assert set(row) >= {
        *("uri", "label", "id", "type", "bits", "token", "sign", "sensitive", "extractable", "never_extractable"),
        *("local", "always_authenticate", "has_public", "has_certificate"),
    }
    assert (row["type"], row["bits"], row["id"], row["label"]) == ("rsa", 2048, "01", "k1")
    assert set(row["token"]) == {"label", "serial", "model", "manufacturer"}
    assert (row["sign"], row["has_public"], row["has_certificate"]) == (True, True, False)
    shown = json.loads(quick("key", "show", row["uri"], "--json").out)
    assert row.items() <= shown.items()


def test_a_generated_key_is_sensitive_born_on_the_token_and_named_after_its_public_half(quick):
    made = quick("key", "generate", *ON_T1, "--label", "new", "--type", "rsa:2048")
    assert made.code == 0, made.err
    assert made.out.count("\n") == 1
    uri = made.out.strip()
    about = json.loads(quick("key", "show", uri, "--json").out)
    assert about["uri"] == uri
    for name in ("sensitive", "never_extractable", "local", "sign"):
        assert about[name] is True
    assert about["extractable"] is False
    der = base64.b64decode("".join(quick("key", "export", uri).out.splitlines()[1:-1]))
    assert about["spki_sha256"] == hashlib.sha256(der).hexdigest()
    assert about["id"] == hashlib.sha256(der[24:]).hexdigest()[:40]  # the BIT STRING of RSA-2048 (RFC 7093, section 2)


@pytest.mark.parametrize("taken", [("--label", "k1"), ("--label", "new", "--id", "01")])
def test_no_key_is_made_where_label_or_id_is_taken(quick, taken):
    done = quick("key", "generate", *ON_T1, *taken, "--type", "rsa:2048")
    refused(done, 6, "already: pkcs11:token=t1", hint="nothing was changed")
    assert len(rows(quick("key", "list", *ON_T1, "--json"))) == 1


def test_a_new_key_is_3072_bits_long_where_nobody_says(quick):
    uri = quick("key", "generate", *ON_T1, "--label", "new", "--id", "0a:1B").out.strip()
    assert "id=%0A%1B" in uri
    assert json.loads(quick("key", "show", uri, "--json").out)["bits"] == 3072


def test_openssl_reads_each_form_of_a_public_key(quick, token):
    pem = quick("key", "export").out
    assert pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert pem.endswith("-----END PUBLIC KEY-----\n")
    modulus = openssl("rsa", "-pubin", "-noout", "-modulus", data=pem.encode())
    jwk = json.loads(quick("key", "export", "--jwk").out)
    assert modulus == f"Modulus={base64.urlsafe_b64decode(jwk['n'] + '==').hex().upper()}\n"
    assert (jwk["kty"], jwk["e"], jwk["use"], jwk["alg"]) == ("RSA", "AQAB", "sig", "RS256")
    assert not {"d", "p", "q"} & set(jwk)
    both = json.loads(quick("key", "export", "--json").out)
    assert (both["pem"], both["jwk"]) == (pem, jwk)
    assert both["ssh"] == quick("key", "export", "--ssh").out.rstrip("\n")
    assert quick("key", "export", "--pem").out == pem


def test_der_is_written_as_it_is(hsmjwt, token, tmp_path):
    with open(tmp_path / "k.der", "wb") as file:
        subprocess.run(
            [sys.executable, "-m", "hsmjwt", "key", "export", "--der"], env=token.environ(), stdout=file, check=True
        )
    data = (tmp_path / "k.der").read_bytes()
    assert openssl("pkey", "-pubin", "-inform", "DER", data=data) == hsmjwt("key", "export").out


@pytest.mark.parametrize("form", ["--pem", "--der", "--ssh"])
def test_no_form_is_ignored_beside_json(quick, form):
    refused(quick("key", "export", form, "--json"), 2, f"{form} and --json contradict", hint="pem, jwk and ssh")
    assert quick("key", "export", "--jwk", "--json").out == quick("key", "export", "--jwk").out


def test_a_public_key_needs_no_pin(quick):
    for command in (("key", "export"), ("key", "export", "--jwk"), ("verify", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA")):
        done = quick(*command, HSMJWT_PIN_SOURCE="file:/nowhere")
        assert done.code in (0, 7), done.err
    assert quick("slot", "list", HSMJWT_PIN_SOURCE="file:/nowhere").code == 0
    refused(quick("key", "show", HSMJWT_PIN_SOURCE="file:/nowhere"), 3, "'/nowhere'")


def test_a_key_table_is_named_as_keys_dot_name(quick, token, tmp_path):
    lines = (f'uri = "{token.uri}"', f'module = "{token.module}"', f'pin_source = "file:{token.pin_file}"')
    (tmp_path / "c.toml").write_text("\n".join(("[keys.k]", *lines)))
    bare = {"HSMJWT_MODULE": None, "HSMJWT_PIN_SOURCE": None, "HSMJWT_KEY": None}
    for named in (("keys.k",), ("--key", "keys.k")):
        done = quick("key", "show", *named, "--config", "c.toml", "--json", **bare)
        assert done.code == 0, done.err
        assert json.loads(done.out)["label"] == "k1"
    refused(quick("key", "show", "keys.kk", "--config", "c.toml"), 3, "no key table 'kk'", hint="did you mean 'k'?")


def test_slots_are_listed_without_a_login_and_labels_whole(quick, token):
    token.make_token("x" * 32)
    listed = rows(quick("slot", "list", "--json"))
    labels = [row["token"]["label"] for row in listed if row["token"]]
    assert {"t1", "x" * 32} <= set(labels)
    for row in listed:
        assert list(row) == ["module", "slot_id", "description", "token"]
        assert row["module"] == token.module
        assert set(row["token"]) == {"label", "serial", "model", "manufacturer", "flags", "mechanisms"}
    (t1,) = [row["token"] for row in listed if row["token"]["label"] == "t1"]
    assert {"LOGIN_REQUIRED", "TOKEN_INITIALIZED", "USER_PIN_INITIALIZED"} <= set(t1["flags"])
    assert {"RSA_PKCS", "SHA256_RSA_PKCS"} <= set(t1["mechanisms"])
    assert "x" * 32 in quick("slot", "list").out


@pytest.mark.parametrize("command", [("key", "show"), ("key", "export"), ("sign", "--iss", "i", "--aud", "a")])
def test_two_tokens_of_one_label_are_told_apart_by_the_uris_shown(quick, token, command):
    token.make_token("t1")
    done = quick(*command)
    refused(done, 4, "2 tokens fit", hint="pkcs11:token=t1;serial=")
    uris = re.findall(r"^  (pkcs11:\S+)$", done.err, re.MULTILINE)
    assert len(set(uris)) == 2
    ends = [quick(*command, "--key", f"{uri};object=k1").code for uri in uris]
    assert sorted(ends) == [0, 6]


def test_the_uri_of_a_new_key_exports_its_public_half_without_a_login(hsmjwt, token):
    made = hsmjwt("key", "generate", "--key", "pkcs11:token=t1", "--label", "new", "--type", "rsa:2048")
    assert "type=private" in made.out
    done = hsmjwt("key", "export", made.out.strip(), "--pin-source", "none", HSMJWT_KEY=None)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("-----BEGIN PUBLIC KEY-----")


def test_a_key_that_was_born_on_the_token_is_told_from_an_imported_one(quick, token, tmp_path):
    made = quick("key", "generate", *ON_T1, "--label", "born", "--type", "p256").out.strip()
    born = json.loads(quick("key", "show", made, "--json").out)
    assert (born["origin"], born["key_gen_mechanism"]) == ("born on the device", "EC_KEY_PAIR_GEN")
    assert (born["curve"], born["algorithms"], born["always_sensitive"]) == ("P-256", ["ES256"], True)
    assert (born["usage"], born["allowed_mechanisms"]) == (["sign", "verify"], ["ECDSA"])
    (tmp_path / "k.pem").write_text(openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", data=b""))
    imported = quick("key", "import", "k.pem", *ON_T1, "--label", "imported")
    assert imported.code == 0, imported.err
    about = json.loads(quick("key", "show", imported.out.strip(), "--json").out)
    assert (about["origin"], about["always_sensitive"], about["key_gen_mechanism"]) == ("imported", False, "none")
    shown = quick("key", "show", imported.out.strip()).out
    assert re.search(r"^origin +imported$", shown, re.MULTILINE)


def test_a_key_that_may_have_been_let_out_is_said_to(quick, token):
    token.make_key("open", "07", EXTRACTABLE=True, SENSITIVE=False)
    about = json.loads(quick("key", "show", "pkcs11:object=open", "--json").out)
    assert about["origin"] == "born on the device, which may have let it out since"


def test_a_public_key_alone_is_shown_without_what_only_a_private_one_has(quick):
    done = quick("key", "show", "pkcs11:object=k1;type=public", "--json", HSMJWT_PIN_SOURCE="none")
    about = json.loads(done.out)
    assert (about["private"], about["origin"], about["algorithms"], about["usage"]) == (False, None, None, None)
    assert len(about["thumbprint"]) == 43
    assert quick("key", "show", "pkcs11:object=k1;type=public").code == 0


def test_the_certificate_beside_a_key_is_shown_and_whether_it_is_the_keys(quick):
    uri = quick("key", "generate", *ON_T1, "--label", "c", "--type", "p256").out.strip()
    assert json.loads(quick("key", "show", uri, "--json").out)["certificate"] is None
    pem = quick("cert", "self-signed", "--key", uri, "--subject", "CN=c", "--days", "10").out
    assert quick("cert", "import", "-", "--key", uri, stdin=pem.encode()).code == 0
    certificate = json.loads(quick("key", "show", uri, "--json").out)["certificate"]
    assert (certificate["subject"], certificate["expired"], certificate["matches"]) == ("CN=c", False, True)
    shown = quick("key", "show", uri).out
    assert re.search(r"^certificate +CN=c$", shown, re.MULTILINE)
    assert re.search(r"^certificate expires +20\d\d-", shown, re.MULTILINE)
    assert re.search(r"^certificate matches +yes$", shown, re.MULTILINE)
    assert re.search(r"^has certificate +yes$", shown, re.MULTILINE)


def test_a_certificate_that_alone_tells_a_keys_public_half_is_not_said_to_match_it(quick, token):
    uri = quick("key", "generate", *ON_T1, "--label", "c", "--type", "p256").out.strip()
    pem = quick("cert", "self-signed", "--key", uri, "--subject", "CN=c").out
    assert quick("cert", "import", "-", "--key", uri, stdin=pem.encode()).code == 0
    thumbprint = json.loads(quick("key", "show", uri, "--json").out)["thumbprint"]
    code = """
import os, pkcs11, sys
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    session.get_key(label="c", object_class=pkcs11.ObjectClass.PUBLIC_KEY).destroy()
"""
    assert token.python(code, token.pin_file.read_text()).code == 0
    about = json.loads(quick("key", "show", uri, "--json").out)
    assert (about["thumbprint"], about["certificate"]["matches"]) == (thumbprint, None)
    shown = quick("key", "show", uri).out
    assert re.search(r"^certificate matches +\? \(the token shows no public half\)$", shown, re.MULTILINE)


def test_a_certificate_of_another_key_is_said_to_be_one(quick, token):
    pem = quick("cert", "self-signed", "--key", "pkcs11:object=k1", "--subject", "CN=k1").out
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    token.make_key("other", "08")
    code = """
import os, pkcs11, sys
from pkcs11 import Attribute
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    session.create_object({Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE, Attribute.TOKEN: True,
        Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509, Attribute.ID: b"\\x08",
        Attribute.SUBJECT: b"0\\0", Attribute.VALUE: bytes.fromhex(sys.argv[2])})
"""
    assert token.python(code, token.pin_file.read_text(), der.hex()).code == 0
    assert json.loads(quick("key", "show", "pkcs11:object=other", "--json").out)["certificate"]["matches"] is False
    shown = quick("key", "show", "pkcs11:object=other").out
    assert "no, it is another key's" in shown
    assert re.search(r"^has certificate +no \(that of another key lies beside it\)$", shown, re.MULTILINE)


def test_the_line_for_openssh_has_the_keys_label_and_nothing_that_leaves_the_line(quick, token):
    assert quick("key", "export", "--ssh").out.split(" ", 2)[::2] == ["ssh-rsa", "k1\n"]
    make_keys(token, ["a\nssh-rsa AAAA b\x1b[31m"])
    line = quick("key", "export", "pkcs11:token=t1;id=%20", "--ssh").out
    assert (line.count("\n"), line.split(" ", 2)[2]) == (1, "a_ssh-rsa AAAA b_[31m\n")
    refused(quick("key", "export", "--ssh", "--pem"), 2, "several forms", hint="--ssh")


@pytest.mark.parametrize("kind", ["rsa:2048", "p256", "p384", "p521", "ed25519"])
def test_openssl_reads_the_public_half_of_every_type_of_key(quick, kind):
    uri = quick("key", "generate", *ON_T1, "--label", "new", "--type", kind).out.strip()
    pem = quick("key", "export", uri).out
    assert openssl("pkey", "-pubin", data=pem.encode()) == pem
