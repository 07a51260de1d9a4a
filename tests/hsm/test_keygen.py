"""A key that is made on the token: what it is, how it is named, and what is left where making it fails."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from hsmjwt.errors import UsageError
from hsmjwt.hsm.keygen import KINDS, NewKey, parse_new_key
from hsmjwt.hsm.uri import parse

GENERATE = ("key", "generate", "--key", "pkcs11:token=t1", "--type", "rsa:2048")
SIGN = ("sign", "--iss", "i", "--aud", "a")

OBJECTS = """
import os, pkcs11
from pkcs11.attributes import AttributeMapper
session = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(user_pin="31415926")
for found in session.get_objects():
    if found[pkcs11.Attribute.LABEL] != "k1":
        print(found.object_class.name, repr(found[pkcs11.Attribute.LABEL]), found[pkcs11.Attribute.ID].hex())
"""


@pytest.fixture
def hsmjwt(patched):
    """Run hsmjwt without a fault."""
    return lambda *args, **environ: patched("-", *args, **environ)


@pytest.fixture
def objects(patched):
    """The objects on the token besides k1's: class, label and id."""
    return lambda: sorted(line.split() for line in patched("-", "-c", OBJECTS).out.splitlines())


def test_a_new_key_is_sensitive_stays_inside_and_signs(hsmjwt):
    made = hsmjwt(*GENERATE, "--label", "new")
    assert (made.code, made.err) == (0, "")
    uri = made.out.strip()
    about = json.loads(hsmjwt("key", "show", uri, "--json", HSMJWT_KEY=None).out)
    truths = {"sensitive": True, "extractable": False, "never_extractable": True, "local": True, "sign": True}
    assert {name: about[name] for name in truths} == truths
    assert (about["label"], about["type"], about["bits"], about["has_public"]) == ("new", "rsa", 2048, True)
    assert about["uri"] == uri
    assert hsmjwt(*SIGN, "--key", uri).code == 0


def test_its_id_is_the_key_identifier_of_rfc_7093(hsmjwt):
    made = hsmjwt(*GENERATE, "--label", "new")
    # The public half is there for everybody, without a login.
    pem = hsmjwt("key", "export", "pkcs11:token=t1;object=new", "--pin-source", "none", HSMJWT_KEY=None)
    assert pem.code == 0, pem.err
    bits = load_pem_public_key(pem.out.encode()).public_bytes(Encoding.DER, PublicFormat.PKCS1)
    assert parse(made.out.strip()).id == hashlib.sha256(bits).digest()[:20]


def test_an_id_that_is_asked_for_is_taken(hsmjwt, objects):
    assert parse(hsmjwt(*GENERATE, "--label", "a", "--id", "0a:FF").out.strip()).id == b"\x0a\xff"
    assert parse(hsmjwt("key", "generate", "--key", "pkcs11:token=t1;object=b;id=%00%01").out.strip()).id == b"\0\1"
    assert objects() == sorted(
        [kind, label, key_id]
        for kind in ("PRIVATE_KEY", "PUBLIC_KEY")
        for label, key_id in (("'a'", "0aff"), ("'b'", "0001"))
    )


def test_a_label_or_an_id_in_use_is_refused_and_nothing_is_made(hsmjwt, patched, calls, objects):
    for args in (("--label", "k1"), ("--label", "new", "--id", "01")):
        done = patched(f"keypair@{calls.file}", *GENERATE, *args)
        assert (done.code, done.out) == (6, "")
        assert "there is a key with this label or id already: pkcs11:token=t1" in done.err
    assert calls() == []
    assert objects() == []


@pytest.mark.parametrize(
    ("kind", "label", "key_id"),
    [
        ("rsa:1024", "x", None),
        ("rsa", "x", None),
        ("rsa:02048", "x", None),
        ("dsa:2048", "x", None),
        ("P256", "x", None),
        ("p256:256", "x", None),
        ("p384", "x", None),
        ("rsa:2048", "", None),
        ("rsa:2048", "a\0b", None),
        ("rsa:2048", "a\nb", None),
        ("rsa:2048", "\udcff", None),
        ("rsa:2048", "x" * 256, None),
        ("rsa:2048", "ü" * 128, None),
        ("rsa:2048", "x", ""),
        ("rsa:2048", "x", "0g"),
        ("rsa:2048", "x", "0"),
        ("rsa:2048", "x", "\udcff"),
        ("rsa:2048", "x", "00" * 256),
    ],
)
def test_what_no_new_key_can_be_is_a_usage_error(kind, label, key_id):
    with pytest.raises(UsageError) as caught:
        parse_new_key(kind, label, key_id)
    assert caught.value.message.isprintable()


def test_what_a_uri_asks_for_is_checked_too(hsmjwt):
    for uri in ("pkcs11:token=t1;object=new;id=", "pkcs11:token=t1;object=new;id=" + "%00" * 256):
        done = hsmjwt("key", "generate", "--key", uri)
        assert (done.code, done.out) == (2, "")
        assert "1 to 255 bytes" in done.err
    with pytest.raises(UsageError):
        NewKey(KINDS["rsa:2048"], "x" * 64 * 1024, None)


def test_label_and_id_of_the_greatest_length_work(hsmjwt):
    label, key_id = "ü" * 127 + "x", "ff" * 255
    made = hsmjwt(*GENERATE, "--label", label, "--id", key_id)
    assert made.code == 0, made.err
    assert hsmjwt(*SIGN, "--key", made.out.strip()).code == 0


def test_an_id_that_cannot_be_changed_stays_the_same_for_both_halves(patched, hsmjwt, objects):
    for times in ("", "*1"):  # at all, and for the first half alone
        done = patched(f"setattribute=0x10{times}", *GENERATE, "--label", f"new{times}")
        assert done.code == 0, done.err
        assert hsmjwt(*SIGN, "--key", done.out.strip()).code == 0
    ids = {}
    for _, label, key_id in objects():
        ids.setdefault(label, set()).add(key_id)
    assert [len(each) for each in ids.values()] == [1, 1]


def test_the_first_id_comes_back_where_only_one_half_could_be_changed(patched, objects):
    code = """
import sys, patched
calls = []
def make(before):
    def call(*args):
        calls.append(1)
        return 0x10 if len(calls) == 2 else before(*args)
    return call
patched.replace("setattribute", make)
sys.argv = ["hsmjwt", "key", "generate", "--key", "pkcs11:token=t1", "--type", "rsa:2048", "--label", "new"]
from hsmjwt.cli.main import entry
entry()
"""
    done = patched("-", "-c", code)
    assert done.code == 0, done.err
    (_, label, one), (_, _, other) = objects()
    assert label == "'new'"
    assert one == other == parse(done.out.strip()).id.hex()


@pytest.mark.parametrize("moment", ["setattribute!", "setattribute!!", "signinit!", "sign!!"])
def test_a_process_that_is_killed_leaves_no_nameless_half(patched, objects, moment):
    assert patched(moment, *GENERATE, "--label", "new").code == -9
    left = objects()
    assert [label for _, label, _ in left] == ["'new'", "'new'"]
    assert all(key_id for _, _, key_id in left)
    again = patched("-", *GENERATE, "--label", "new")
    assert again.code == 6
    assert "already" in again.err


EXTRACTABLE, UNGUARDED = "tell=0x162:1", "tell=0x103:0"


@pytest.mark.parametrize(
    ("faults", "code"),
    [("flip", 7), ("sign=0x30", 7), ("signinit=0x68", 6), ("hide=0x40,hide=1", 7), (EXTRACTABLE, 7), (UNGUARDED, 7)],
)
def test_a_key_that_does_not_sign_or_is_not_what_was_asked_for_is_removed(patched, objects, faults, code):
    done = patched(faults, *GENERATE, "--label", "new")
    assert (done.code, done.out) == (code, ""), done.err
    assert objects() == []


def test_a_key_that_is_no_good_and_cannot_be_removed_is_named(patched, objects):
    done = patched("flip,destroy=0x6*1", *GENERATE, "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert "does not verify" in done.err
    assert "hint: the key 'new' is still on the token" in done.err
    assert len(objects()) == 1


def test_a_token_that_cannot_be_written(patched):
    for faults, words in (
        ("keypair=0xe2", "the token cannot be written (C_GenerateKeyPair gave CKR_TOKEN_WRITE_PROTECTED)"),
        ("keypair=0xb5", "CKR_SESSION_READ_ONLY"),
        ("keypair=0x31", "the token is full"),
        ("readonly", "the token cannot be written (C_OpenSession gave CKR_TOKEN_WRITE_PROTECTED)"),
    ):
        done = patched(faults, *GENERATE, "--label", "new")
        assert (done.code, done.out) == (7, "")
        assert words in done.err
