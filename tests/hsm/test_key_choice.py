"""From a URI to exactly one key on a token: what is said where there is none, or more than one."""

import json
import re

import pytest

from hsmjwt.hsm.uri import parse

SIGN = ("sign", "--iss", "i", "--aud", "a")

MAKE = """
import os, pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.util.ec import encode_named_curve_parameters
mapper = AttributeMapper()
mapper.register_handler(Attribute.LABEL, bytes, bytes)
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
session = lib.get_token(token_label="t1").open(rw=True, user_pin="31415926", attribute_mapper=mapper)
mapper.default_public_key_template.pop(Attribute.LABEL), mapper.default_private_key_template.pop(Attribute.LABEL)
def rsa(label, key_id, bits=2048, **private):
    more = {Attribute[name]: value for name, value in private.items()}
    return session.generate_keypair(KeyType.RSA, bits, store=True, id=key_id, label=label,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY, private_template=more)
"""


@pytest.fixture
def make(patched):
    """Run code that makes keys; `rsa(label, id, bits, **attributes)` with label and id as bytes."""

    def run(code):
        done = patched("-", "-c", MAKE + code)
        assert done.code == 0, done.err
        return done.out

    return run


def candidates(done):
    """The URIs in the hint."""
    return re.findall(r"^  (pkcs11:\S+)$", done.err, re.MULTILINE)


def test_two_keys_with_one_label_are_told_apart_by_uris_that_select_one_each(sign, make):
    make('rsa(b"k1", bytes([0, 255, 37])); rsa(b"other", b"3")')
    done = sign()
    assert (done.code, done.out) == (6, "")
    assert "2 keys fit 'pkcs11:token=t1;object=k1;type=private'" in done.err
    uris = candidates(done)
    assert [uri.partition(";object")[2] for uri in uris] == ["=k1;id=%00%FF%25;type=private", "=k1;id=%01;type=private"]
    for uri in uris:
        picked = sign("-", "--verbose", HSMJWT_KEY=uri)
        assert picked.code == 0, picked.err
        assert f"key {uri}\n" in picked.err


def test_keys_that_no_uri_tells_apart(sign, make):
    make('rsa(b"twin", b"7"); rsa(b"twin", b"7"); rsa(b"twin", b"8")')
    done = sign(HSMJWT_KEY="pkcs11:object=twin")
    assert (done.code, done.out) == (6, "")
    assert "no URI tells some of them apart" in done.err
    assert "--set-id" in done.err
    assert [parse(uri).id for uri in candidates(done)] == [b"8"]
    both = sign(HSMJWT_KEY="pkcs11:object=twin;id=7")
    assert both.code == 6
    assert candidates(both) == []


def test_a_key_that_is_absent_is_answered_with_those_that_are_there(sign, make):
    make("""
for number in range(2, 25):
    session.create_object({
        Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: KeyType.RSA, Attribute.TOKEN: True,
        Attribute.PRIVATE: True, Attribute.LABEL: b"k%02d" % number, Attribute.ID: bytes([number]),
        Attribute.MODULUS: b"\\xff" * 256, Attribute.PRIVATE_EXPONENT: b"\\1" * 256,
    })
""")
    done = sign(HSMJWT_KEY="pkcs11:object=nothing")
    assert (done.code, done.out) == (6, "")
    assert "no key fits 'pkcs11:object=nothing;type=private' on token 't1'" in done.err
    assert len(candidates(done)) == 20
    assert "and 4 more: hsmjwt key list shows all" in done.err


def test_a_token_without_any_key_says_how_to_make_one(sign, token):
    token.make_token("empty")
    done = sign(HSMJWT_KEY="pkcs11:token=empty;object=k1")
    assert (done.code, done.out) == (6, "")
    assert "hsmjwt key generate makes one" in done.err


def test_public_only(sign, make):
    make('rsa(b"half", b"5")[1].destroy()')
    done = sign(HSMJWT_KEY="pkcs11:object=half")
    assert (done.code, done.out) == (6, "")
    assert "only the public half of 'pkcs11:object=half;type=private' is there" in done.err


def test_keys_that_are_not_fit_to_sign(sign, make):
    make("""
rsa(b"small", b"5", 1024)
rsa(b"no-sign", b"6", SIGN=False)
curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp224r1")}
session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(store=True, id=b"7", label=b"curve")
mapper.default_secret_key_template.pop(Attribute.LABEL)
session.generate_key(KeyType.AES, 256, store=True, id=b"8", label=b"secret")
""")
    cases = {
        "small": "this one has 1024",
        "no-sign": "may not sign",
        "curve": "is on another curve than P-256, P-384 and P-521 (its CKA_EC_PARAMS is 06052b81040021)",
        "secret": "no key fits",
        "small;type=public": "does not name a private key",
        "small;type=secret-key": "does not name a private key",
        "small;type=cert": "does not name a private key",
    }
    for label, words in cases.items():
        done = sign(HSMJWT_KEY=f"pkcs11:object={label}")
        assert (done.code, done.out) == (6, ""), label
        assert words in done.err


def test_labels_and_ids_of_any_bytes(sign, patched, make):
    every = bytes(range(256))
    labels = (b"\xff\xfeA", b"9"), ("Zürich €; 100%?/\n".encode(), every[:128]), (b"", every[128:])
    make("".join(f"rsa({label!r}, {key_id!r});" for label, key_id in labels))
    rows = json.loads(patched("-", "key", "list", "--key", "pkcs11:token=t1", "--json").out)
    by_id = {row["id"]: row for row in rows}
    assert by_id[b"9".hex()]["label"] == "\ufffd\ufffdA"
    assert by_id[every[:128].hex()]["label"] == "Zürich €; 100%?/\n"
    assert by_id[every[128:].hex()]["label"] == ""
    for row in rows:
        done = sign("-", "--verbose", HSMJWT_KEY=row["uri"])
        assert done.code == 0, done.err
        assert f"key {row['uri']}\n" in done.err
    assert sign(HSMJWT_KEY="pkcs11:token=t1;object=").code == 0  # the one with the empty label


def test_what_no_label_can_be_never_reaches_a_template(hsmjwt, sign):
    for key, code in (
        (b"pkcs11:token=t1;object=\xff", 2),
        ("pkcs11:token=t1;object=%FF", 2),
        ("pkcs11:token=t1;object=a%00b", 2),
        ("pkcs11:token=t1;id=%FF%00", 6),
    ):
        done = hsmjwt(*SIGN, "--key", key)
        assert (done.code, done.out) == (code, ""), done.err
        assert "Traceback" not in done.err


def test_a_uri_made_by_a_program_cannot_corrupt_the_heap(patched):
    """python-pkcs11 frees memory that it never filled where a value of a template fails to pack."""
    code = """
import patched
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.uri import KeyUri
signer = patched.signer()
session, token = signer._module.session(signer._slot), signer._slot.token
for _ in range(200):
    for uri in (KeyUri(object="\\udcff"), KeyUri(object="\\ud800"), KeyUri(object="a", id=b"\\xff" * 5000)):
        assert search(session, uri, token) == []
print(len(search(session, KeyUri(id=bytearray(b"\\x01")), token)))
"""
    done = patched("-", "-c", code)
    assert (done.code, done.out) == (0, "2\n"), done.err
