"""A listing: what belongs together, the same by both roads, and in time that grows with the keys and no faster."""

from __future__ import annotations

import json

import pytest

ROWS = """
import json, os, patched, sys
from hsmjwt.hsm.listing import rows
from hsmjwt.hsm.uri import parse
signer = patched.signer()
slot, module = signer._slot, signer._module
session = module.session(slot)
roads = {"straight": module.library.direct, "bound": None}
uri = parse(sys.argv[1] if len(sys.argv) > 1 else "pkcs11:")
print(json.dumps({name: rows(slot, session, uri, road) for name, road in roads.items()}))
sys.stdout.flush()
os._exit(0)
"""
MAKE = """
import os, pkcs11, sys
from pkcs11 import Attribute, KeyType, ObjectClass
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
with lib.get_token(token_label="t1").open(rw=True, user_pin=open(sys.argv[1]).read()) as session:
    pair = lambda label, id: session.generate_keypair(KeyType.RSA, 2048, store=True, label=label, id=id)
    exec(sys.argv[2])
"""
P256 = "bytes.fromhex('06082a8648ce3d030107')"


@pytest.fixture
def make(token):
    """Run code in a session that may write; `pair(label, id)` makes keys."""

    def run(code: str) -> None:
        done = token.python(MAKE, str(token.pin_file), code)
        assert done.code == 0, done.err

    return run


@pytest.fixture
def listed(patched):
    """Return the rows by label, which are the same by both roads."""

    def run(faults: str = "-", *words: str) -> dict[str, dict]:
        done = patched(faults, "-c", ROWS, *words)
        assert (done.code, done.err) == (0, ""), done
        both = json.loads(done.out)
        assert both["straight"] == both["bound"]
        assert both["straight"] == sorted(both["straight"], key=lambda row: (row["label"], row["id"], row["uri"]))
        return {row["label"]: row for row in both["straight"]}

    return run


def test_halves_belong_together_by_id_and_without_one_by_label(make, listed):
    make("public, private = pair('one', b'1'); private[Attribute.LABEL] = 'another name'")
    make("pair('no id', b'')")
    make("public, private = pair('alone', b'2'); public.destroy()")
    make("public, private = pair('public alone', b'3'); private.destroy()")
    make("public, private = pair('same label', b'4'); public[Attribute.ID] = b'5'")
    rows = listed()
    assert {label: (row["private"], row["has_public"]) for label, row in rows.items() if label != "same label"} == {
        "k1": (True, True),
        "another name": (True, True),
        "no id": (True, True),
        "alone": (True, False),
        "public alone": (False, True),
    }
    assert rows["public alone"]["uri"].endswith(";type=public")
    assert rows["public alone"]["sign"] is False


def test_a_key_has_the_certificate_of_its_id_or_without_one_of_its_label(make, listed):
    certificate = (
        "session.create_object({Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.TOKEN: True, "
        "Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509, Attribute.SUBJECT: b'0\\0', "
        "Attribute.VALUE: b'0\\0', Attribute.ID: %r, Attribute.LABEL: %r})"
    )
    make(f"pair('by id', b'1'); {certificate % (b'1', 'something')}")
    make(f"pair('by label', b''); {certificate % (b'', 'by label')}")
    make(f"pair('by neither', b'2'); {certificate % (b'3', 'by neither')}")
    having = {label for label, row in listed().items() if row["has_certificate"]}
    assert having == {"by id", "by label"}


def test_other_objects_are_passed_over(make, listed):
    make(
        "session.create_object({Attribute.CLASS: ObjectClass.DATA, Attribute.TOKEN: True, Attribute.LABEL: 'k1'});"
        "session.generate_key(KeyType.AES, 128, store=True, label='k1', id=b'1')"
    )
    assert set(listed()) == {"k1"}


def test_type_and_size_come_from_what_each_type_has(make, listed):
    make(
        f"session.create_domain_parameters(KeyType.EC, {{Attribute.EC_PARAMS: {P256}}}, local=True)"
        ".generate_keypair(store=True, label='ec', id=b'2');"
        "session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: b'\\x13\\x0cedwards25519'},"
        " local=True).generate_keypair(store=True, label='ed', id=b'3')"
    )
    sizes = {label: (row["type"], row["bits"]) for label, row in listed().items()}
    assert sizes == {"k1": ("rsa", 2048), "ec": ("ec", 256), "ed": ("ed25519", 256)}


@pytest.mark.parametrize("attribute", ["0x162", "0x103", "0x163", "0x120"])
def test_what_the_token_does_not_tell_is_null(listed, attribute):
    """SENSITIVE, EXTRACTABLE, LOCAL and MODULUS, by their numbers."""
    names = {"0x162": "extractable", "0x103": "sensitive", "0x163": "local", "0x120": "bits"}
    row = listed(f"untold={attribute}")["k1"]
    assert row[names[attribute]] is None
    assert row["has_public"] is True
    assert [name for name in names.values() if row[name] is None] == [names[attribute]]


def test_the_uri_leaves_what_fits_it(make, listed):
    make("pair('other', b'2')")
    assert set(listed("-", "pkcs11:object=other")) == {"other"}
    assert set(listed("-", "pkcs11:id=%01")) == {"k1"}
    assert listed("-", "pkcs11:object=nothing") == {}


def test_a_token_that_tells_one_thing_at_a_time_is_listed_as_any_other(make, listed):
    make("pair('other', b'2')")
    assert listed("bulk=0x12") == listed()


def test_a_modulus_that_is_longer_than_expected_tells_its_size(make, listed):
    make(
        "session.create_object({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.RSA,"
        " Attribute.TOKEN: True, Attribute.LABEL: 'long', Attribute.MODULUS: b'\\xff' * 1024,"
        " Attribute.PUBLIC_EXPONENT: b'\\1\\0\\1'})"
    )
    assert listed()["long"]["bits"] == 8192


def test_a_listing_takes_one_search_and_one_question_an_object(make, patched, calls):
    make(
        "public, private = pair('copied', b'0')\nfor n in range(40):\n  for half in (public, private):\n"
        "    half.copy({Attribute.LABEL: f'c{n}', Attribute.ID: bytes([9, n])})"
    )
    done = patched(",".join(f"{name}@{calls.file}" for name in ("findinit", "attributes")), "key", "list")
    assert done.code == 0, done.err
    noted = calls()
    assert noted.count("findinit") == 1
    assert noted.count("attributes") == 42 * 2
