"""`hsmjwt key delete`: who needs the key is told, somebody says yes, and it is gone with all that belongs to it."""

from __future__ import annotations

import datetime
import json
import signal

import keyfiles
import pytest
from cli.checks import refused, told
from cli.terminal import AtTerminal
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

K1 = "pkcs11:token=t1;object=k1"
APP = "pkcs11:token=t1;object=app;type=cert"
ON_T1 = ("--key", "pkcs11:token=t1")
OBJECT = """
import os, pkcs11, sys
attribute = pkcs11.Attribute
pin, template = sys.argv[1:]
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=pin) as session:
    session.create_object({attribute[name]: value for name, value in eval(template).items()})
"""


def put(token, **template) -> None:
    """Put an object on the token as another tool would."""
    done = token.python(OBJECT, token.pin_file.read_text(), repr(template))
    assert done.code == 0, done.err


def put_certificate(token, kind: str, key_id: bytes, label: str) -> None:
    """Put a certificate beside a key."""
    private, now = keyfiles.private(kind), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, label)])
    made = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + datetime.timedelta(days=9))
    der = made.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)
    put(token, CLASS=1, CERTIFICATE_TYPE=0, TOKEN=True, LABEL=label, ID=key_id, SUBJECT=b"", VALUE=der)


def rows(quick) -> list[tuple[str, bool, bool]]:
    found = json.loads(quick("key", "list", *ON_T1, "--json").out)
    return [(row["label"], row["private"], row["has_public"]) for row in found]


def bring(quick, tmp_path, label: str, kind: str = "p256", *flags: str) -> str:
    path = tmp_path / "brought.pem"
    path.write_bytes(keyfiles.pem(kind))
    done = quick("key", "import", str(path), *ON_T1, "--label", label, *flags)
    assert done.code == 0, done.err
    return done.out.strip()


def config(tmp_path, text: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return str(path)


# What is deleted.


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["lines", "json"])
def test_both_halves_go_and_nothing_else(quick, tmp_path, flags):
    uri = bring(quick, tmp_path, "old")
    done = quick("key", "delete", uri, "--yes", *flags)
    assert done.code == 0, done.err
    gone = json.loads(done.out)["deleted"] if flags else done.out.splitlines()
    assert gone == [uri, uri.replace("type=private", "type=public")]
    assert f"this deletes the key: {uri}" in done.err
    assert "hsmjwt cache clear" in done.err
    assert rows(quick) == [("k1", True, True)]
    refused(quick("key", "delete", uri, "--yes"), 6, "no key fits")


def test_a_key_of_the_config_is_deleted_by_its_name_and_who_needs_it_is_told(quick, tmp_path):
    text = (
        f'[keys.prod]\nuri = "{K1}"\n[keys.same]\nuri = "pkcs11:token=t1;id=%01"\n[keys.other]\n'
        'uri = "pkcs11:token=t1;object=k2"\n[profiles.adobe]\nkey = "prod"\n[profiles.x]\nkey = "other"\n'
        '[profiles.again]\nkey = "same"\n'
    )
    done = quick("key", "delete", "keys.prod", "--yes", "--json", HSMJWT_CONFIG=config(tmp_path, text), HSMJWT_KEY=None)
    assert done.code == 0, done.err
    told_of = json.loads(done.out)
    assert (told_of["keys"], told_of["profiles"]) == (["prod", "same"], ["adobe", "again"])
    assert "named by [keys.prod], [keys.same] of the config" in done.err
    assert "needed by the profiles adobe, again: they will sign no more" in done.err
    assert rows(quick) == []


def test_a_private_half_without_id_and_public_half_goes_alone(quick, token):
    numbers = keyfiles.private("p384").private_numbers()
    value = numbers.private_value.to_bytes(48, "big")
    params = bytes.fromhex("06052b81040022")
    put(token, CLASS=3, KEY_TYPE=3, TOKEN=True, PRIVATE=True, LABEL="bare", EC_PARAMS=params, VALUE=value)
    assert ("bare", True, False) in rows(quick)
    done = quick("key", "delete", "pkcs11:token=t1;object=bare", "--yes")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert rows(quick) == [("k1", True, True)]


def test_a_public_key_that_is_alone_is_deleted_and_the_half_of_a_whole_key_is_not(quick, token, tmp_path):
    point = b"\x04\x41" + keyfiles.public("p256").point
    params = bytes.fromhex("06082a8648ce3d030107")
    put(token, CLASS=2, KEY_TYPE=3, TOKEN=True, LABEL="partner", ID=b"\x09", EC_PARAMS=params, EC_POINT=point)
    refused(
        quick("key", "delete", f"{K1};type=public", "--yes"),
        6,
        "the public half of a key that is whole",
        "type=private",
    )
    done = quick("key", "delete", "pkcs11:token=t1;object=partner;type=public", "--yes")
    assert done.code == 0, done.err
    assert "only the public half of the key is there" in done.err
    assert rows(quick) == [("k1", True, True)]


@pytest.mark.parametrize("also", [True, False])
def test_the_certificate_beside_the_key_is_told_and_goes_only_where_that_is_asked(quick, token, tmp_path, also):
    uri = bring(quick, tmp_path, "app", "p256", "--id", "0a")
    put_certificate(token, "p256", b"\x0a", "app")
    put_certificate(token, "rsa", b"\x0a", "another key's")
    done = quick("key", "delete", uri, "--yes", "--json", *(["--with-certificate"] if also else []))
    assert done.code == 0, done.err
    certificate = uri.replace("type=private", "type=cert")
    assert (f"goes with it: {certificate}" if also else f"deletes it, too): {certificate}") in done.err
    assert "another" not in done.err
    told_of = json.loads(done.out)
    assert (certificate in told_of["deleted"], told_of["certificates"]) == (also, [] if also else [certificate])
    assert certificates(token) == (["another key's"] if also else ["another key's", "app"])


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["lines", "json"])
def test_a_certificate_that_was_left_behind_is_deleted_alone(quick, token, tmp_path, flags):
    put_certificate(token, "p256", b"\x0a", "app")
    put_certificate(token, "rsa", b"\x0b", "other")
    done = quick("key", "delete", APP, "--yes", *flags)
    assert done.code == 0, done.err
    gone = json.loads(done.out)["deleted"] if flags else done.out.splitlines()
    assert [uri.partition(";object=")[2] for uri in gone] == ["app;id=%0A;type=cert"]
    assert f"this deletes the certificate: {gone[0]}" in done.err
    assert "it is of 'CN=app', and expired on 2026-01-10T00:00:00Z" in done.err
    assert "stays" not in done.err
    assert certificates(token) == ["other"]
    assert rows(quick) == [("k1", True, True)]


def test_the_key_beside_a_certificate_stays_and_who_goes_by_it_is_told(quick, token, tmp_path):
    uri = bring(quick, tmp_path, "app", "p256", "--id", "0a")
    put_certificate(token, "p256", b"\x0a", "app")
    text = (
        f'[keys.app]\nuri = "pkcs11:token=t1;object=app"\n[keys.by]\nuri = "{K1}"\ncertificate = "{APP}"\n'
        f'[keys.other]\nuri = "{K1}"\n[profiles.adobe]\nkey = "app"\n[profiles.x]\nkey = "other"\n'
    )
    done = quick("key", "delete", APP, "--yes", "--json", HSMJWT_CONFIG=config(tmp_path, text))
    assert done.code == 0, done.err
    told_of = json.loads(done.out)
    assert (told_of["keys"], told_of["profiles"], told_of["certificates"]) == (["app", "by"], ["adobe"], [])
    assert f"the key of its id stays: {uri}" in done.err
    assert "named by [keys.app], [keys.by] of the config" in done.err
    assert "used by the profiles adobe" in done.err
    assert certificates(token) == []
    assert ("app", True, True) in rows(quick)


def test_what_is_no_certificate_is_deleted_as_one_that_cannot_be_read(quick, token):
    put(token, CLASS=1, CERTIFICATE_TYPE=0, TOKEN=True, LABEL="app", ID=b"", SUBJECT=b"", VALUE=b"junk")
    done = quick("key", "delete", APP, "--yes")
    assert done.code == 0, done.err
    assert "what it says cannot be read" in done.err
    assert certificates(token) == []


def certificates(token) -> list[str]:
    """Return the labels of the certificates on the token."""
    found: list[str] = json.loads(token.python(CERTIFICATES).out)
    return found


CERTIFICATES = """
import json, os, pkcs11
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open() as session:
    found = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE})
    print(json.dumps(sorted(each[pkcs11.Attribute.LABEL] for each in found)))
"""


# What is not deleted.


@pytest.mark.parametrize(
    ("named", "uri"),
    [(K1, "pkcs11:object=k1"), ("keys.safe", K1), ("pkcs11:token=t1;id=%01;type=private", "pkcs11:token=t1;object=k1")],
)
def test_a_protected_key_is_never_deleted(quick, tmp_path, named, uri):
    path = config(tmp_path, f'[keys.safe]\nuri = "{uri}"\nprotected = true\n')
    done = quick("key", "delete", named, "--yes", "--json", HSMJWT_CONFIG=path, HSMJWT_KEY=None)
    refused(done, 8, "protected", "[keys.safe]", "may not be deleted", hint="takes protected = true out")
    assert told(done)["code"] == "policy"
    assert rows(quick) == [("k1", True, True)]


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        ("pkcs11:token=t1;object=none", 6, "no key fits"),
        ("pkcs11:token=none;object=k1", 4, "no token fits"),
        ("pkcs11:token=t1", 6, "2 keys fit"),
        ("pkcs11:token=t1;object=k1;type=cert", 6, "no certificate fits"),
        ("pkcs11:token=t1;object=k1;type=data", 6, "does not name a key or a certificate"),
        ("pkcs11:token=t1;obejct=k1", 4, "no token fits"),
        ("keys.none", 3, "there is no key table"),
    ],
)
def test_what_is_not_exactly_one_key_is_not_deleted(quick, tmp_path, named, code, words):
    bring(quick, tmp_path, "k2")
    refused(quick("key", "delete", named, "--yes", HSMJWT_KEY=None), code, words)
    assert len(rows(quick)) == 2


@pytest.mark.parametrize(
    "table",
    [
        'uri = "pkcs11:token=t1;object=app"',
        'uri = "pkcs11:token=t1;id=%0a"',
        f'uri = "{K1}"\ncertificate = "pkcs11:token=t1;object=app;type=cert"',
    ],
)
def test_a_protected_keys_certificate_is_never_deleted(quick, token, tmp_path, table):
    put_certificate(token, "p256", b"\x0a", "app")
    path = config(tmp_path, f"[keys.safe]\n{table}\nprotected = true\n")
    done = quick("key", "delete", APP, "--yes", HSMJWT_CONFIG=path)
    refused(done, 8, "protected", "[keys.safe]", "the certificate pkcs11:", "may not be deleted")
    assert certificates(token) == ["app"]


def test_what_is_not_exactly_one_certificate_is_not_deleted(quick, token):
    put_certificate(token, "p256", b"\x0a", "app")
    put_certificate(token, "p256", b"\x0b", "app")
    done = quick("key", "delete", APP, "--yes")
    refused(done, 6, "2 certificates fit", hint="object=app;id=%0B;type=cert")
    put_certificate(token, "rsa", b"\x0b", "app")
    done = quick("key", "delete", f"{APP};id=%0b", "--yes")
    refused(done, 6, "2 certificates fit", "no URI tells some of them apart", hint="cert import --replace")
    refused(quick("key", "delete", APP, "--with-certificate", "--yes"), 2, "goes with a key", hint="leave it out")
    assert certificates(token) == ["app"] * 3


def test_a_variable_deletes_nothing(quick):
    refused(quick("key", "delete", "--yes", HSMJWT_KEY=K1), 2, "no key is named", hint="HSMJWT_KEY deletes nothing")
    assert rows(quick) == [("k1", True, True)]
    assert quick("key", "delete", "--key", K1, "--yes", HSMJWT_KEY=None).code == 0


# Somebody says yes.


def test_in_a_job_nobody_is_asked_and_nothing_is_deleted(hsmjwt):
    done = hsmjwt("key", "delete", K1)
    assert (done.code, done.out) == (2, "")
    assert "hsmjwt: error: there is no terminal on which to ask whether this is meant" in done.err
    assert "hsmjwt: hint: --yes is for scripts" in done.err
    assert hsmjwt("sign", "--iss", "i", "--aud", "a").code == 0


@pytest.mark.parametrize(
    ("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 2), ("\n", 2), ("yellow\n", 2), ("\x04", 2), ("\x03", -2)]
)
def test_a_person_says_yes_or_the_key_stays(token, tmp_path, quick, typed, code):
    run = AtTerminal(token, tmp_path, "key", "delete", K1)
    run.asked("Delete the key 'k1' for good? [y/N] ", "] ", hidden=False)
    run.type(typed)
    ended, out, err = run.end()
    assert ended == (code if code >= 0 else -signal.SIGINT), err
    assert "this deletes the key: pkcs11:token=t1;" in err
    assert bool(out) is (code == 0)
    assert rows(quick) == ([] if code == 0 else [("k1", True, True)])


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 2)])
def test_a_person_is_asked_for_a_certificate_by_its_subject(token, tmp_path, typed, code):
    put_certificate(token, "p256", b"\x0a", "app")
    run = AtTerminal(token, tmp_path, "key", "delete", APP)
    run.asked("Delete the certificate 'CN=app' for good? [y/N] ", "] ", hidden=False)
    run.type(typed)
    assert run.end()[0] == code
    assert certificates(token) == ([] if code == 0 else ["app"])


def test_what_was_typed_before_the_question_is_no_answer(token, tmp_path, quick):
    run = AtTerminal(token, tmp_path, "key", "delete", K1)
    run.type("y\n")
    run.asked("[y/N] ", "] ", hidden=False)
    run.type("\n")
    assert run.end()[0] == 2
    assert rows(quick) == [("k1", True, True)]


def test_a_label_drives_no_terminal(token, tmp_path, quick):
    done = token.python(RENAME, token.pin_file.read_text())
    assert done.code == 0, done.err
    run = AtTerminal(token, tmp_path, "key", "delete", "pkcs11:token=t1;id=%01")
    run.asked("[y/N] ", "] ", hidden=False)
    run.type("\n")
    err = run.end()[2]
    assert "\x1b" not in run.shown + err
    assert "a\\x1b[31mb" in run.shown


RENAME = """
import os, pkcs11, sys
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    for half in list(session.get_objects({pkcs11.Attribute.ID: b"\\1"})):
        half[pkcs11.Attribute.LABEL] = "a\\x1b[31mb"
"""


# A token that cannot, and a run that is cut short.


def test_a_key_that_says_it_cannot_be_destroyed_is_whole_afterwards(quick, token):
    token.make_key("fixed", "05", DESTROYABLE=False)
    done = quick("key", "delete", "pkcs11:token=t1;object=fixed", "--yes")
    assert done.code == 7, done
    assert "hsmjwt: error: the token does not let it be deleted (its CKA_DESTROYABLE is false)" in done.err
    assert ("fixed", True, True) in rows(quick)


def test_a_token_on_a_read_only_disk_keeps_its_key(quick, token, mounts):
    done = quick("key", "delete", K1, "--yes", steps=[("read_only", str(token.folder / "tokens"))])
    refused(done, 7, "the token 't1' cannot be written: the token failed (", hint="nothing was changed")
    assert rows(quick) == [("k1", True, True)]
