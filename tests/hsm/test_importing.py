"""Import on tokens that lack something, refuse something or die at it: which way a key comes in, and what is left."""

from __future__ import annotations

import json

import keyfiles
import pytest
from cli.checks import refused, told

ON_T1 = ("--key", "pkcs11:token=t1")


@pytest.fixture
def keyfile(tmp_path):
    """Write a key file that nobody else may read; return its path."""

    def write(kind="p256"):
        path = tmp_path / f"{kind}.pem"
        path.write_bytes(keyfiles.pem(kind))
        path.chmod(0o600)
        return str(path)

    return write


@pytest.fixture
def bring(patched, keyfile):
    """Import a key with faults, by its usual label."""

    def run(faults="-", *args, kind="p256", label="new"):
        return patched(faults, "key", "import", keyfile(kind), *ON_T1, "--label", label, "--json", *args)

    return run


@pytest.fixture
def listed(patched):
    """Return label, half and whether both are there, of each key on the token but k1."""

    def rows():
        found = json.loads(patched("-", "key", "list", *ON_T1, "--json").out)
        return [(row["label"], row["private"], row["has_public"]) for row in found if row["label"] != "k1"]

    return rows


@pytest.fixture
def session_objects(patched):
    """Return how many objects are left in the process once the import is done, beside those on the token."""

    def count(*argv):
        done = patched("-", "-c", LEFT, *argv)
        assert done.code == 0, done.err
        return json.loads(done.out.splitlines()[-1])

    return count


LEFT = """
import json, sys
from hsmjwt.cli.gate import gate
code = gate(sys.argv[1:])
import pkcs11
from hsmjwt.hsm import library
(loaded,) = library._loaded.values()
token = loaded.lib.get_token(token_label="t1")
with token.open() as session:
    print(json.dumps([code, len(list(session.get_objects({pkcs11.Attribute.TOKEN: False})))]), flush=True)
"""


# By which way.


def test_nothing_of_the_transport_is_left_in_the_session(session_objects, keyfile):
    assert session_objects("key", "import", keyfile(), *ON_T1, "--label", "new") == [0, 0]
    assert session_objects("key", "import", keyfile("ed25519"), *ON_T1, "--label", "ed") == [7, 0]


@pytest.mark.parametrize("hidden", ["hide=0x210a", "hide=0x9", "hide=0x0"])
def test_a_token_that_cannot_unwrap_gets_the_key_in_the_clear_only_where_that_is_allowed(bring, listed, hidden):
    done = bring(hidden)
    refused(done, 7, "the token cannot unwrap the key", hint="--allow-plain-import hands the key over in the clear")
    assert told(done)["ckr"] == "CKR_MECHANISM_INVALID"
    assert listed() == []
    done = bring(hidden, "--allow-plain-import")
    assert done.code == 0, done.err
    assert json.loads(done.out)["unwrapped"] is False
    assert "handed over in the clear" in done.err
    assert listed() == [("new", True, True)]


@pytest.mark.parametrize("kind", keyfiles.TAKEN)
def test_every_key_comes_in_by_either_way_and_stays_inside(patched, bring, kind):
    for label, fault in (("wrapped", "-"), ("plain", "hide=0x210a")):
        done = bring(fault, "--allow-plain-import", kind=kind, label=label)
        assert done.code == 0, done.err
        uri = json.loads(done.out)["uri"]
        assert json.loads(done.out)["unwrapped"] is (label == "wrapped" and kind != "ed25519")  # SoftHSM cannot
        about = json.loads(patched("-", "key", "show", uri, "--json").out)
        assert (about["sensitive"], about["extractable"], about["local"], about["sign"]) == (True, False, False, True)
        assert patched("-", "sign", "--key", uri, "--iss", "i", "--aud", "a").code == 0
        exported = patched("-", "key", "export", uri, "--pem").out
        assert exported.encode() == keyfiles.public_pem(kind)


@pytest.mark.parametrize("code", ["0x13", "0xd1", "0x54"])
def test_a_token_that_takes_nothing_from_outside_says_so(bring, listed, code):
    done = bring(f"create={code}", "--allow-plain-import")
    refused(done, 7, "the token takes no such key that was made elsewhere (C_CreateObject gave CKR_")
    assert "hsmjwt key generate makes one on it" in told(done)["hint"]
    assert listed() == []


def test_a_key_that_the_token_refuses_to_unwrap_says_so(bring, listed):
    refused(bring(kind="ed25519"), 7, "C_UnwrapKey gave CKR_FUNCTION_FAILED", hint="--allow-plain-import")
    assert listed() == []


def test_a_token_without_the_keys_mechanism_is_told_before_anything_is_written(bring, listed):
    refused(bring("hide=0x1057", kind="ed25519"), 7, "the token cannot make EdDSA: it has no CKM_EDDSA")
    assert listed() == []


PKCS7 = """
import ctypes, patched, sys
ULONGS = patched.ULONGS
def relabel(before):  # lists CKM_AES_KEY_WRAP_PKCS7 in place of CKM_AES_KEY_WRAP_PAD
    def call(slot, entries, amount):
        result = before(slot, entries, amount)
        if result == 0 and entries:
            listed = ctypes.cast(entries, ULONGS)
            for at in range(ctypes.cast(amount, ULONGS)[0]):
                listed[at] = 0x210C if listed[at] == 0x210A else listed[at]
        return result
    return call
def unwrap(before):  # SoftHSM unwraps by RFC 3394, and reads PKCS#8 whatever stands behind it
    def call(session, mech, *rest):
        mechanism = ctypes.cast(mech, ULONGS)
        if mechanism[0] == 0x210C:
            mechanism[0] = 0x2109
        elif mechanism[0] == 0x210A:
            return 0x70
        return before(session, mech, *rest)
    return call
patched.replace("mechanisms", relabel)
patched.replace("unwrap", unwrap)
from hsmjwt.cli.main import entry
sys.argv = ["hsmjwt", *sys.argv[1:]]
entry()
"""
ONE_STEP = """
import ctypes, patched, sys
ULONGS, P, U = patched.ULONGS, ctypes.c_void_p, ctypes.c_ulong
def relabel(before):  # lists CKM_RSA_AES_KEY_WRAP in place of CKM_RSA_PKCS_OAEP
    def call(slot, entries, amount):
        result = before(slot, entries, amount)
        if result == 0 and entries:
            listed = ctypes.cast(entries, ULONGS)
            for at in range(ctypes.cast(amount, ULONGS)[0]):
                listed[at] = 0x1054 if listed[at] == 0x9 else listed[at]
        return result
    return call
class Attribute(ctypes.Structure):
    _fields_ = (("type", U), ("value", P), ("size", U))
class Mechanism(ctypes.Structure):
    _fields_ = (("mechanism", U), ("parameter", P), ("size", U))
def at(number):
    return ctypes.cast(ctypes.pointer(number), P).value
def unwrap(before):  # PKCS#11 2.40, section 2.1.21: the first bytes are the AES key by OAEP, the rest is wrapped by it
    def call(session, mech, key, data, size, *rest):
        asked = Mechanism.from_address(mech)
        if asked.mechanism != 0x1054:
            return 0x70
        bits, oaep = (U * 2).from_address(asked.parameter)
        assert (asked.size, bits) == (16, 256)
        kinds, yes = (U(4), U(0x1F)), ctypes.c_ubyte(1)
        template = (Attribute * 3)(*(Attribute(*each) for each in (
            (0x0, at(kinds[0]), 8), (0x100, at(kinds[1]), 8), (0x107, at(yes), 1))))
        first, kek = Mechanism(0x9, oaep, 40), U()
        result = before(session, ctypes.addressof(first), key, data, 256, ctypes.addressof(template), 3, at(kek))
        if result:
            return result
        second = Mechanism(0x210A, None, 0)
        return before(session, ctypes.addressof(second), kek.value, data + 256, size - 256, *rest)
    return call
patched.replace("mechanisms", relabel)
patched.replace("unwrap", unwrap)
from hsmjwt.cli.main import entry
sys.argv = ["hsmjwt", *sys.argv[1:]]
entry()
"""


@pytest.mark.parametrize("script", [PKCS7, ONE_STEP], ids=["rfc 3394 over pkcs7", "in one step"])
@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_other_ways_of_unwrapping_are_taken_where_the_token_has_no_better_one(patched, keyfile, script, kind):
    done = patched("-", "-c", script, "key", "import", keyfile(kind), *ON_T1, "--label", "new", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["unwrapped"] is True
    uri = json.loads(done.out)["uri"]
    assert patched("-", "key", "export", uri).out.encode() == keyfiles.public_pem(kind)
    assert patched("-", "sign", "--key", uri, "--iss", "i", "--aud", "a").code == 0


# What a token refuses.


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("readonly", 7),
        ("create=0xe2", 7),  # CKR_TOKEN_WRITE_PROTECTED
        ("create=0x31", 7),  # CKR_DEVICE_MEMORY
        ("unwrap=0x31", 7),
        ("unwrap=0x30", 7),  # CKR_DEVICE_ERROR
        ("unwrap=0xe0", 4),  # CKR_TOKEN_NOT_PRESENT
        ("keypair=0x31", 7),
        ("sign=0x30", 7),
        ("flip", 7),
        ("open=0xb1*9", 11),
    ],
)
def test_a_token_that_fails_keeps_nothing_of_the_key(bring, listed, fault, code):
    refused(bring(fault), code)
    assert listed() == []
    assert bring().code == 0
    assert listed() == [("new", True, True)]


def test_a_half_that_cannot_be_taken_off_again_is_told(bring, listed):
    done = bring("unwrap=0x31,destroy=0x30")
    refused(done, 7, hint="the key 'new' is still on the token")
    assert listed() == [("new", False, True)]
    done = bring()
    assert done.code == 0, done.err
    assert "taking up what an interrupted import has left" in done.err
    assert listed() == [("new", True, True)]


@pytest.mark.parametrize("refused", ["40000600", "104", "40000600+104"])
def test_a_public_half_comes_without_what_the_token_does_not_take_in_its_template(patched, keyfile, listed, refused):
    done = patched("-", "-c", NARROW, refused, "key", "import", keyfile(), *ON_T1, "--label", "new", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["dropped"] == []
    assert listed() == [("new", True, True)]
    told = json.loads(done.err.splitlines()[-1])
    assert told == [name not in refused.split("+") for name in ("40000600", "104")]


NARROW = """
import ctypes, json, patched, sys
refused, made = {int(each, 16) for each in sys.argv.pop(1).split("+")}, []
def create(before):
    def call(session, template, count, handle):
        rows = set((ctypes.c_ulong * (3 * count)).from_address(template)[::3])
        if rows & refused:
            return 0x12
        made.append([0x40000600 in rows, 0x104 in rows])
        return before(session, template, count, handle)
    return call
patched.replace("create", create)
from hsmjwt.cli.gate import gate
code = gate(sys.argv[1:])
print(json.dumps(made[-1]), file=sys.stderr)
sys.exit(code)
"""


def test_what_a_token_does_not_take_of_the_template_is_left_out_and_told(patched, keyfile):
    done = patched("-", "-c", NO_ALLOWED, "key", "import", keyfile(), *ON_T1, "--label", "new", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["dropped"] == ["CKA_ALLOWED_MECHANISMS"]
    assert "the token did not take CKA_ALLOWED_MECHANISMS" in done.err


NO_ALLOWED = """
import ctypes, patched, sys
def unwrap(before):
    def call(session, mech, key, data, size, template, count, made):
        rows = (ctypes.c_ulong * (3 * count)).from_address(template)
        if 0x40000600 in rows[::3]:
            return 0x12
        return before(session, mech, key, data, size, template, count, made)
    return call
patched.replace("unwrap", unwrap)
from hsmjwt.cli.main import entry
sys.argv = ["hsmjwt", *sys.argv[1:]]
entry()
"""


# Killed.


@pytest.mark.parametrize(
    "moment", ["keypair!", "keypair!!", "create!", "create!!", "unwrap!", "unwrap!!", "signinit!", "sign!!", "destroy!"]
)
def test_an_import_that_is_killed_is_finished_by_the_next_one(bring, listed, moment):
    assert bring(moment).code == -9
    left = listed()
    assert left in ([], [("new", False, True)], [("new", True, True)])
    done = bring()
    if left == [("new", True, True)]:  # all was done but the answer
        refused(done, 6, "this very key is on the token already")
    else:
        assert done.code == 0, done.err
    assert listed() == [("new", True, True)]


DEAD = """
import os, pkcs11, sys
lib, attribute = pkcs11.lib(os.environ["HSMJWT_MODULE"]), pkcs11.Attribute
private = {attribute.LABEL: "new", attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}
with lib.get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    (half,) = session.get_objects(private)
    told = half.get_attributes([attribute.ID, attribute.EC_PARAMS])
    half.destroy()
    more = {attribute.KEY_TYPE: pkcs11.KeyType.EC, attribute.TOKEN: True, attribute.PRIVATE: True, attribute.SIGN: True}
    session.create_object({**private, **more, **told, attribute.VALUE: bytes(31) + b"\\1"})
"""


def test_a_private_half_that_cannot_sign_is_told_and_stays_until_somebody_deletes_it(patched, bring, listed, token):
    assert bring().code == 0
    done = token.python(DEAD, token.pin_file.read_text())
    assert done.code == 0, done.err
    done = bring()
    refused(done, 6, "this very key is on the token already, and does not sign", hint="hsmjwt key delete 'pkcs11:")
    assert listed() == [("new", True, True)]
    assert patched("-", "key", "delete", "pkcs11:token=t1;object=new", "--yes").code == 0
    assert bring().code == 0
    assert listed() == [("new", True, True)]


def test_what_a_killed_process_left_of_an_object_disturbs_nobody(bring, listed, token):
    (folder,) = (token.folder / "tokens").iterdir()
    (folder / "00000000-0000-0000-0000-000000000001.object").write_bytes(bytes(7) + b"\1")
    (folder / "00000000-0000-0000-0000-000000000001.lock").touch()
    assert bring().code == 0
    assert listed() == [("new", True, True)]
