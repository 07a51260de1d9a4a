"""A key that is made on the token: what it is, how it is named, and what is left where making it fails."""

import hashlib
import json
import signal
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from hsmjwt.errors import DeviceError, UsageError
from hsmjwt.hsm.keygen import KINDS, NewKey, chosen_mechanisms, parse_new_key
from hsmjwt.hsm.uri import parse
from hsmjwt.jose.algorithms import ALGORITHMS

MAKE = ("key", "generate", "--key", "pkcs11:token=t1")
GENERATE = (*MAKE, "--type", "rsa:2048")
CURVE = (*MAKE, "--type", "p256")
SIGN = ("sign", "--iss", "i", "--aud", "a")

OBJECTS = """
import os, pkcs11
from pkcs11.attributes import AttributeMapper
session = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(user_pin="31415926")
for found in session.get_objects():
    if found[pkcs11.Attribute.LABEL] != "k1":
        print(found.object_class.name, repr(found[pkcs11.Attribute.LABEL]), found[pkcs11.Attribute.ID].hex())
"""

ATTRIBUTES = """
import json, os, struct, pkcs11
from pkcs11 import Attribute
mapper = pkcs11.attributes.AttributeMapper()
mapper.register_handler(Attribute.ALLOWED_MECHANISMS, bytes, lambda data: [
    pkcs11.Mechanism(each[0]).name.lstrip("_") for each in struct.iter_unpack("@L", data)])
token = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1")
session = token.open(user_pin="31415926", attribute_mapper=mapper)
told = {}
for found in session.get_objects({Attribute.LABEL: "new"}):
    about = told[found.object_class.name] = {}
    for name in NAMES[found.object_class.name]:
        about[name] = found[Attribute[name]]
print(json.dumps(told))
"""
PRIVATE = {
    **dict.fromkeys(("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "PRIVATE", "TOKEN", "SIGN"), True),
    **dict.fromkeys(("EXTRACTABLE", "DECRYPT", "UNWRAP", "DERIVE", "SIGN_RECOVER", "ALWAYS_AUTHENTICATE"), False),
}
PUBLIC = {
    **dict.fromkeys(("TOKEN", "VERIFY", "LOCAL"), True),
    **dict.fromkeys(("ENCRYPT", "WRAP", "VERIFY_RECOVER", "DERIVE"), False),
}

REFUSING = """
import ctypes, sys, patched
from patched import ULONGS
report, refused, code, times, *argv = sys.argv[1:]
left = [int(times)]
def is_refused(there):
    kinds = [each.partition("#") for each in refused.split("+")]
    return any(kind in there and size in ("", str(len(there[kind]))) for kind, _, size in kinds)
def make(before):
    def call(session, mechanism, public, public_count, private, private_count, *handles):
        there = {}
        for half, template, count in (("public:", public, public_count), ("private:", private, private_count)):
            rows = ctypes.cast(template, ULONGS)
            for row in range(count):
                value = ctypes.string_at(rows[3 * row + 1], rows[3 * row + 2])
                there |= dict.fromkeys((f"{rows[3 * row]:x}", f"{half}{rows[3 * row]:x}"), value)
        with open(report, "a") as lines:
            lines.write(f"{there['103'].hex()} {there['162'].hex()}\\n")
        if left[0] and is_refused(there):
            left[0] -= 1
            return int(code, 16)
        return before(session, mechanism, public, public_count, private, private_count, *handles)
    return call
patched.replace("keypair", make)
sys.argv = ["hsmjwt", *argv]
from hsmjwt.cli.main import entry
entry()
"""
"""Refuses the template of a new pair that holds one of some attributes, with so many bytes where that is said.

`public:` before its number speaks of the public key's alone.

It notes of each one whether the key is to be sensitive and whether it is to be extractable.
"""


@pytest.fixture
def hsmjwt(patched):
    """Run hsmjwt without a fault."""
    return lambda *args, **environ: patched("-", *args, **environ)


@pytest.fixture
def objects(patched):
    """The objects on the token besides k1's: class, label and id."""
    return lambda: sorted(line.split() for line in patched("-", "-c", OBJECTS).out.splitlines())


@pytest.fixture
def attributes(patched):
    """What the token says of the two halves labelled `new`, by class."""
    names = {"PRIVATE_KEY": [*PRIVATE, "ALLOWED_MECHANISMS"], "PUBLIC_KEY": [*PUBLIC, "ALLOWED_MECHANISMS"]}
    code = f"NAMES = {names!r}\n{ATTRIBUTES}"
    return lambda: json.loads(patched("-", "-c", code).out)


@pytest.fixture
def notes(token):
    """The notes of unfinished keys."""

    def read():
        folder = token.folder / "home/.local/state/hsmjwt"
        return [note for path in folder.glob("making-*.json") for note in json.loads(path.read_text())]

    return read


def whole(objects, label="new"):
    """Check that there is one pair with the label, and no other object; return its id in hex."""
    private, public = objects()
    assert (private[0], public[0]) == ("PRIVATE_KEY", "PUBLIC_KEY")
    assert private[1:] == public[1:]
    assert private[1] == repr(label)
    return private[2]


@pytest.mark.parametrize(
    ("kind", "mechanism"),
    [
        ("rsa:2048", "SHA256_RSA_PKCS"),
        ("rsa:3072", "SHA256_RSA_PKCS"),
        ("rsa:4096", "SHA256_RSA_PKCS"),
        ("p256", "ECDSA"),  # SoftHSM has no mechanism that hashes for it
        ("p384", "ECDSA"),
        ("p521", "ECDSA"),
        ("ed25519", "EDDSA"),
    ],
)
def test_a_new_key_is_sensitive_stays_inside_and_does_nothing_but_sign(hsmjwt, attributes, objects, kind, mechanism):
    made = hsmjwt(*MAKE, "--type", kind, "--label", "new")
    assert (made.code, made.err) == (0, "")
    uri = made.out.removesuffix("\n")
    told = attributes()
    assert told["PRIVATE_KEY"] == PRIVATE | {"ALLOWED_MECHANISMS": [mechanism]}
    assert told["PUBLIC_KEY"] == PUBLIC | {"ALLOWED_MECHANISMS": [mechanism]}
    assert hsmjwt(*SIGN, "--key", uri).code == 0
    # The public half is there for everybody, without a login.
    pem = hsmjwt("key", "export", "pkcs11:token=t1;object=new", "--pin-source", "none", HSMJWT_KEY=None)
    assert pem.code == 0, pem.err
    key = load_pem_public_key(pem.out.encode())
    form = {"r": (Encoding.DER, PublicFormat.PKCS1), "p": (Encoding.X962, PublicFormat.UncompressedPoint)}
    bits = key.public_bytes(*form.get(kind[0], (Encoding.Raw, PublicFormat.Raw)))
    assert parse(uri).id == hashlib.sha256(bits).digest()[:20]  # RFC 7093, section 2, method 1
    assert whole(objects) == parse(uri).id.hex()


@pytest.mark.parametrize(
    ("args", "mechanism"),
    [
        (("--type", "rsa:2048", "--alg", "PS256"), "SHA256_RSA_PKCS_PSS"),
        (("--type", "rsa:2048", "--alg", "RS512"), "SHA512_RSA_PKCS"),
        (("--alg", "Ed25519"), "EDDSA"),
        (("--alg", "ES384"), "ECDSA"),
    ],
)
def test_a_key_allows_the_mechanism_of_the_algorithm_that_is_named(hsmjwt, attributes, args, mechanism):
    made = hsmjwt(*MAKE, *args, "--label", "new")
    assert (made.code, made.err) == (0, "")
    assert [half["ALLOWED_MECHANISMS"] for half in attributes().values()] == [[mechanism]] * 2
    alg = args[args.index("--alg") + 1]
    assert hsmjwt(*SIGN, "--key", made.out.strip(), "--alg", alg).code == 0
    if alg[:2] in ("PS", "RS"):
        assert hsmjwt(*SIGN, "--key", made.out.strip(), "--alg", "RS256").code != 0


def test_hash_and_signature_on_the_token_go_before_the_raw_mechanism():
    for alg in ALGORITHMS.values():
        kind = next(name for name, each in KINDS.items() if each.takes(alg))
        new = parse_new_key(kind, "x", None, alg.name)
        every = {"RSA_PKCS_KEY_PAIR_GEN", "EC_KEY_PAIR_GEN", "EC_EDWARDS_KEY_PAIR_GEN", "RSA_PKCS", "RSA_PKCS_PSS"}
        every |= {"ECDSA", "EDDSA"}
        (raw,) = chosen_mechanisms(new, every)
        assert raw in ("RSA_PKCS", "RSA_PKCS_PSS", "ECDSA", "EDDSA")
        hashing = {f"SHA{n}_{raw}" for n in (256, 384, 512)} | {f"ECDSA_SHA{n}" for n in (256, 384, 512)}
        (best,) = chosen_mechanisms(new, every | hashing)
        assert best == "EDDSA" or alg.name[2:] in best
        with pytest.raises(DeviceError, match=f"cannot make {alg.name}: it has no CKM_"):
            chosen_mechanisms(new, {each for each in every if each.endswith("GEN")})


def test_the_type_follows_from_the_algorithm_where_none_is_named():
    known = {"RS256": "rsa:3072", "PS512": "rsa:3072", "ES256": "p256", "ES384": "p384", "ES512": "p521"}
    known |= {"EdDSA": "ed25519", "Ed25519": "ed25519"}
    for alg, kind in known.items():
        assert parse_new_key(None, "x", None, alg).kind.name == kind
    assert parse_new_key(None, "x", None).kind.name == "rsa:3072"
    usual = {"rsa:2048": "RS256", "p256": "ES256", "p384": "ES384", "p521": "ES512", "ed25519": "EdDSA"}
    for kind, alg in usual.items():
        assert parse_new_key(kind, "x", None).algorithm.name == alg


def test_an_id_that_is_asked_for_is_taken(hsmjwt, objects):
    assert parse(hsmjwt(*CURVE, "--label", "a", "--id", "0a:FF").out.strip()).id == b"\x0a\xff"
    assert parse(hsmjwt("key", "generate", "--key", "pkcs11:token=t1;object=b;id=%00%01").out.strip()).id == b"\0\1"
    assert objects() == sorted(
        [kind, label, key_id]
        for kind in ("PRIVATE_KEY", "PUBLIC_KEY")
        for label, key_id in (("'a'", "0aff"), ("'b'", "0001"))
    )


def test_a_label_or_an_id_in_use_is_refused_and_nothing_is_made(hsmjwt, patched, calls, objects):
    for args in (("--label", "k1"), ("--label", "new", "--id", "01"), ("--label", "new", "--id", "01", "--if-absent")):
        done = patched(f"keypair@{calls.file}", *GENERATE, *args)
        assert (done.code, done.out) == (6, "")
        assert "there is a key with this label or id already: pkcs11:token=t1" in done.err
    assert calls() == []
    assert objects() == []


@pytest.mark.parametrize(
    ("kind", "label", "key_id", "alg"),
    [
        ("rsa:1024", "x", None, None),
        ("rsa", "x", None, None),
        ("rsa:02048", "x", None, None),
        ("dsa:2048", "x", None, None),
        ("P256", "x", None, None),
        ("p256:256", "x", None, None),
        ("p224", "x", None, None),
        ("ed448", "x", None, None),
        ("rsa:2048", "", None, None),
        ("rsa:2048", "a\0b", None, None),
        ("rsa:2048", "a\nb", None, None),
        ("rsa:2048", "a\x85b", None, None),  # a line end of C1
        ("rsa:2048", "\udcff", None, None),
        ("rsa:2048", "x" * 256, None, None),
        ("rsa:2048", "ü" * 128, None, None),
        ("rsa:2048", "x", "", None),
        ("rsa:2048", "x", "0g", None),
        ("rsa:2048", "x", "0", None),
        ("rsa:2048", "x", "\udcff", None),
        ("rsa:2048", "x", "00" * 256, None),
        ("p256", "x", None, "ES384"),
        ("rsa:2048", "x", None, "ES256"),
        ("ed25519", "x", None, "RS256"),
        ("p256", "x", None, "none"),
        (None, "x", None, "HS256"),
        (None, "x", None, "es256"),
    ],
)
def test_what_no_new_key_can_be_is_a_usage_error(kind, label, key_id, alg):
    with pytest.raises(UsageError) as caught:
        parse_new_key(kind, label, key_id, alg)
    assert caught.value.message.isprintable()


def test_what_a_uri_asks_for_is_checked_too(hsmjwt):
    for uri in ("pkcs11:token=t1;object=new;id=", "pkcs11:token=t1;object=new;id=" + "%00" * 256):
        done = hsmjwt("key", "generate", "--key", uri)
        assert (done.code, done.out) == (2, "")
        assert "1 to 255 bytes" in done.err
    with pytest.raises(UsageError):
        NewKey(KINDS["rsa:2048"], "x" * 64 * 1024)


def test_label_and_id_of_the_greatest_length_work(hsmjwt):
    label, key_id = "ü" * 127 + "x", "ff" * 255
    made = hsmjwt(*GENERATE, "--label", label, "--id", key_id)
    assert made.code == 0, made.err
    assert hsmjwt(*SIGN, "--key", made.out.strip()).code == 0


# What a token does not take.


@pytest.mark.parametrize(
    ("refusal", "dropped"),
    [
        ("40000600 12", ["CKA_ALLOWED_MECHANISMS"]),
        ("public:40000600 12", ["CKA_ALLOWED_MECHANISMS of the public key"]),
        ("109+10b 13", ["CKA_SIGN_RECOVER", "CKA_VERIFY_RECOVER"]),
        ("104+106 5", ["CKA_ENCRYPT", "CKA_WRAP"]),
        ("105 d1", ["CKA_DECRYPT", "CKA_UNWRAP", "CKA_DERIVE"]),
        ("40000600+104 10", ["CKA_ENCRYPT", "CKA_WRAP", "CKA_ALLOWED_MECHANISMS"]),
    ],
)
def test_what_the_token_does_not_take_is_left_out_and_named(patched, attributes, calls, refusal, dropped):
    made = patched("-", "-c", REFUSING, calls.file, *refusal.split(), "-1", *CURVE, "--label", "new", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["dropped"] == dropped
    assert f"hsmjwt: the token did not take {', '.join(dropped)}: the key was made without" in made.err
    halves = attributes()
    told = halves["PRIVATE_KEY"]
    unbound = any(name.startswith("CKA_ALLOWED_MECHANISMS") for name in dropped)
    assert (halves["PUBLIC_KEY"]["ALLOWED_MECHANISMS"] == []) == unbound
    assert (told["SENSITIVE"], told["EXTRACTABLE"], told["SIGN"]) == (True, False, True)
    assert (told["ALLOWED_MECHANISMS"] == ["ECDSA"]) == ("CKA_ALLOWED_MECHANISMS" not in dropped)
    assert ("alg = 'ES256' in its key table" in made.err) == unbound
    also = [f"CKA_{name}" for name in ("DECRYPT", "UNWRAP", "DERIVE", "SIGN_RECOVER") if told[name]]
    assert ("warning: the token lets the key do more than sign: " + ", ".join(also) in made.err) == bool(also)


def test_what_tpm2_pkcs11_takes_is_tried_before_its_resource_manager_is_out_of_room(patched, calls):
    made = patched("-", "-c", REFUSING, calls.file, "104+105", "5", "-1", *CURVE, "--label", "new", "--json")
    assert made.code == 0, made.err
    dropped = ["ENCRYPT", "WRAP", "DECRYPT", "UNWRAP", "DERIVE"]
    assert json.loads(made.out)["dropped"] == [f"CKA_{name}" for name in dropped]
    assert len(calls()) < 10  # the eleventh or so would fail whatever is in it


@pytest.mark.parametrize("refused", ["103", "162", "2", "1"])  # sensitive, extractable, private, kept on the token
def test_no_key_is_made_where_the_token_will_not_keep_it_to_itself(patched, objects, notes, calls, refused):
    done = patched("-", "-c", REFUSING, calls.file, refused, "13", "-1", *CURVE, "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert "C_GenerateKeyPair gave CKR_ATTRIBUTE_VALUE_INVALID" in done.err
    assert calls() == 24 * ["01 00"]
    assert (objects(), notes()) == ([], [])


def test_the_id_is_in_the_template_where_the_token_takes_no_other(patched, objects, notes, calls):
    # As a PIV card does, where the id says which of its places a key goes to.
    made = patched("-", "-c", REFUSING, calls.file, "102#20", "13", "-1", *CURVE, "--label", "new", "--id", "9c")
    assert (made.code, made.err) == (0, "")
    assert (whole(objects), notes()) == ("9c", [])


def test_an_edwards_curve_is_named_in_words_where_its_number_is_refused(patched, calls):
    for number, code in enumerate(("130", "140", "13"), 1):
        args = ("--type", "ed25519", "--label", f"new{code}")
        made = patched("-", "-c", REFUSING, calls.file, "180", code, "1", *MAKE, *args)
        assert (made.code, made.err) == (0, "")
        assert len(calls()) == 2 * number


def test_an_id_that_cannot_be_changed_stays_the_same_for_both_halves(patched, hsmjwt, objects):
    for times in ("", "*1"):  # at all, and for the first half alone
        done = patched(f"setattribute=0x10{times}", *GENERATE, "--label", f"new{times}")
        assert done.code == 0, done.err
        assert hsmjwt(*SIGN, "--key", done.out.strip()).code == 0
    ids = {}
    for _, label, key_id in objects():
        ids.setdefault(label, set()).add(key_id)
    assert [len(each) for each in ids.values()] == [1, 1]


def test_an_id_that_is_asked_for_and_cannot_be_changed_is_there_from_the_start(patched, objects, notes, calls):
    done = patched(f"setattribute=0x10,keypair@{calls.file}", *CURVE, "--label", "new", "--id", "9c")
    assert done.code == 0, done.err
    assert whole(objects) == "9c"
    assert (calls(), notes()) == (["keypair", "keypair"], [])


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
    assert whole(objects) == parse(done.out.strip()).id.hex()


@pytest.mark.parametrize(
    ("hidden", "kind", "words"),
    [
        ("0", "rsa:2048", "the token makes no rsa:2048 keys: it has no CKM_RSA_PKCS_KEY_PAIR_GEN"),
        ("0x1040", "p384", "the token makes no p384 keys: it has no CKM_EC_KEY_PAIR_GEN"),
        ("0x1055", "ed25519", "the token makes no ed25519 keys: it has no CKM_EC_EDWARDS_KEY_PAIR_GEN"),
        ("0x1041", "p521", "the token cannot make ES512: it has no CKM_ECDSA_SHA512 or CKM_ECDSA"),
    ],
)
def test_a_type_that_the_token_lacks_is_told_before_it_is_asked(patched, calls, hidden, kind, words):
    done = patched(f"hide={hidden},keypair@{calls.file}", *MAKE, "--type", kind, "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert words in done.err
    assert calls() == []


@pytest.mark.parametrize("code", ["0x70", "0x62", "0x140", "0x130"])
def test_a_type_that_the_token_lists_and_then_refuses_is_lacking_too(patched, objects, notes, code):
    done = patched(f"keypair={code}", *MAKE, "--type", "p521", "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert "the token makes no p521 keys: C_GenerateKeyPair gave CKR_" in done.err
    assert (objects(), notes()) == ([], [])


# What is left.


def test_a_process_that_is_killed_leaves_what_the_next_one_removes_or_finishes(patched, hsmjwt, objects, notes):
    for moment, left, words in (
        ("keypair!", 0, ""),
        ("keypair!!", 2, "removed what an interrupted run had left of a new key: pkcs11:"),
        ("signinit!", 2, "removed what"),
        ("sign!!", 2, "removed what"),
        ("setattribute!", 2, "finished the key that an interrupted run had made: pkcs11:"),
        ("setattribute!!", 2, "finished"),
    ):
        label = f"new-{moment}"
        assert patched(moment, *CURVE, "--label", label).code == -9
        there = [each for each in objects() if each[1] == repr(label)]
        assert len(there) == left
        assert all(key_id for _, _, key_id in there)
        again = patched("-", *CURVE, "--label", label)
        assert again.code == 0, again.err
        assert again.err.startswith(f"hsmjwt: {words}" if words else "")
        assert [each[2] for each in objects() if each[1] == repr(label)] == 2 * [parse(again.out.strip()).id.hex()]
        assert hsmjwt(*SIGN, "--key", again.out.strip()).code == 0
        assert notes() == []


DIES_WITHIN = """
import ctypes, os, sys, patched
half, *argv = sys.argv[1:]
def make(before):
    def call(session, *args):
        before(session, *args)
        handle = ctypes.cast(args[-2 if half == "public" else -1], patched.ULONGS)[0]
        patched.real("destroy")(session, handle)
        os.kill(os.getpid(), 9)
    return call
patched.replace("keypair", make)
sys.argv = ["hsmjwt", *argv]
from hsmjwt.cli.main import entry
entry()
"""


@pytest.mark.parametrize("missing", ["public", "private"])
@pytest.mark.parametrize("key_id", [(), ("--id", "9c")])
def test_a_half_that_a_killed_process_left_is_removed_by_the_next_one(patched, objects, notes, missing, key_id):
    for label in ("new", "other"):
        assert patched("-", "-c", DIES_WITHIN, missing, *CURVE, "--label", label, *key_id).code == -9
        assert (len(objects()), len(notes())) == (1, 1)
    done = patched("-", *CURVE, "--label", "new", *key_id)  # the other label's half goes too
    assert done.code == 0, done.err
    assert done.err.count("removed what an interrupted run had left") == 1
    assert whole(objects) == parse(done.out.strip()).id.hex()
    assert notes() == []


DIES_BETWEEN = """
import os, sys, patched
renamed = []
def make(before):
    def call(*args):
        renamed.append(1)
        return before(*args) if len(renamed) == 1 else os.kill(os.getpid(), 9)
    return call
patched.replace("setattribute", make)
sys.argv = ["hsmjwt", *sys.argv[1:]]
from hsmjwt.cli.main import entry
entry()
"""


def test_halves_with_two_ids_are_one_key_again(patched, hsmjwt, objects, notes):
    for args in ((), ("--id", "9c")):
        label = f"new{len(args)}"
        assert patched("-", "-c", DIES_BETWEEN, *CURVE, "--label", label, *args).code == -9
        mine = [each for each in objects() if each[1] == repr(label)]
        assert len({key_id for _, _, key_id in mine}) == 2
        done = hsmjwt(*CURVE, "--label", label, *args)
        assert done.code == 0, done.err
        assert "finished the key that an interrupted run had made" in done.err
        mine = [each for each in objects() if each[1] == repr(label)]
        assert [each[2] for each in mine] == 2 * [parse(done.out.strip()).id.hex()]
        assert hsmjwt(*SIGN, "--key", done.out.strip()).code == 0
    assert notes() == []


LOSES = """
import os, sys, patched
nth, *argv = sys.argv[1:]
renamed = []
def make(before):
    def call(session, thing, *rest):
        renamed.append(1)
        if len(renamed) < int(nth):
            return before(session, thing, *rest)
        patched.real("destroy")(session, thing)
        os.kill(os.getpid(), 9)
    return call
patched.replace("setattribute", make)
sys.argv = ["hsmjwt", *argv]
from hsmjwt.cli.main import entry
entry()
"""


@pytest.mark.parametrize("nth", ["1", "2"])
@pytest.mark.parametrize("key_id", [(), ("--id", "9c")])
def test_a_half_whose_file_is_lost_while_it_gets_its_id_takes_the_other_one_with_it(
    patched, objects, notes, nth, key_id
):
    assert patched("-", "-c", LOSES, nth, *CURVE, "--label", "new", *key_id).code == -9
    assert (len(objects()), len(notes())) == (1, 1)
    done = patched("-", *CURVE, "--label", "new", *key_id)
    assert done.code == 0, done.err
    assert "removed what an interrupted run had left of a new key" in done.err
    assert whole(objects) == parse(done.out.strip()).id.hex()
    assert notes() == []


def test_a_token_that_fails_meanwhile_loses_no_key_that_had_signed(patched, hsmjwt, objects, notes):
    assert patched("setattribute!", *CURVE, "--label", "new").code == -9
    done = patched("sign=0x30", *CURVE, "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert "CKR_DEVICE_ERROR" in done.err
    assert len(notes()) == 1
    done = hsmjwt(*CURVE, "--label", "new")
    assert done.code == 0
    assert "finished the key" in done.err
    assert (whole(objects), notes()) == (parse(done.out.strip()).id.hex(), [])


def test_a_key_that_was_finished_and_is_not_what_is_asked_for_now_is_in_the_way(patched, hsmjwt, objects):
    assert patched("setattribute!", *CURVE, "--label", "new").code == -9
    done = hsmjwt(*GENERATE, "--label", "new")
    assert (done.code, done.out) == (6, "")
    assert "finished the key" in done.err
    assert "there is a key with this label or id already" in done.err
    whole(objects)


def test_what_is_left_and_cannot_be_removed_is_named_and_removed_later(patched, objects, notes):
    assert patched("keypair!!", *CURVE, "--label", "new").code == -9
    done = patched("destroy=0x30", *CURVE, "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert "what an interrupted run has left cannot be removed: pkcs11:token=t1" in done.err
    other = patched("destroy=0x30", *CURVE, "--label", "other")  # which is nobody's fault
    assert other.code == 0
    assert "warning: what an interrupted run has left cannot be removed" in other.err
    assert len(notes()) == 1
    assert patched("-", *CURVE, "--label", "new").code == 0
    assert (len(objects()), notes()) == (4, [])


def test_what_others_have_made_is_never_removed(patched, token, hsmjwt, objects, notes):
    code = OBJECTS.replace("open(", "open(rw=True, ").partition("for found")[0]
    lone = "session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label='new', id=b'7')[{}].destroy()"
    for half, words in ((1, "only a public key has this label or id, and no private one"), (0, "there is a key")):
        assert patched("keypair!", *CURVE, "--label", "new").code == -9  # a note that speaks of nothing
        assert len(notes()) == 1
        assert patched("-", "-c", code + lone.format(half)).code == 0
        there = objects()
        for _ in range(2):
            done = hsmjwt(*CURVE, "--label", "new")
            assert (done.code, done.out) == (6, "")
            assert words in done.err
            assert "object=new;id=%37;type=" + ("public" if half else "private") in done.err
            assert objects() == there
        assert notes() == []
        assert patched("-", "-c", code + "[each.destroy() for each in session.get_objects({3: 'new'})]").code == 0


def test_a_note_that_makes_no_sense_is_not_passed_over(patched, token, objects, calls):
    assert patched("keypair!!", *CURVE, "--label", "new").code == -9
    (path,) = (token.folder / "home/.local/state/hsmjwt").glob("making-*.json")
    path.write_text("[{")
    done = patched(f"keypair@{calls.file}", *CURVE, "--label", "other")
    assert (done.code, done.out) == (3, "")
    assert f"the note of unfinished keys '{path}' cannot be read" in done.err
    assert (len(objects()), calls()) == (2, [])


def test_no_key_is_made_that_cannot_be_noted(patched, token, objects, calls):
    (token.folder / "home/.local/state/hsmjwt").mkdir(parents=True, mode=0o700)
    code = f"""
import os, sys
from hsmjwt import whole_file
replace = whole_file.replace
def full(path, *more, **named):
    if "making-" in path:
        raise OSError(28, os.strerror(28))
    replace(path, *more, **named)
whole_file.replace = full
sys.argv = ["hsmjwt", *{[*CURVE, "--label", "new"]!r}]
from hsmjwt.cli.main import entry
entry()
"""
    done = patched(f"keypair@{calls.file}", "-c", code)
    assert (done.code, done.out) == (3, "")
    assert "the new key cannot be noted in" in done.err
    assert "no space left on device" in done.err
    assert (objects(), calls()) == ([], [])


EXTRACTABLE, UNGUARDED = "tell=0x162:1", "tell=0x103:0"


@pytest.mark.parametrize(
    ("faults", "code"),
    [("flip", 7), ("sign=0x30", 7), ("signinit=0x68", 6), (EXTRACTABLE, 7), (UNGUARDED, 7)],
)
def test_a_key_that_does_not_sign_or_is_not_what_was_asked_for_is_removed(patched, objects, notes, faults, code):
    done = patched(faults, *GENERATE, "--label", "new")
    assert (done.code, done.out) == (code, ""), done.err
    assert (objects(), notes()) == ([], [])


def test_a_key_that_is_no_good_and_cannot_be_removed_is_named_and_goes_next_time(patched, objects, notes):
    done = patched("flip,destroy=0x6*3", *GENERATE, "--label", "new")
    assert (done.code, done.out) == (7, "")
    assert "does not verify" in done.err
    assert "hint: the key 'new' is still on the token" in done.err
    assert (len(objects()), len(notes())) == (1, 1)
    assert patched("-", *GENERATE, "--label", "new").code == 0
    whole(objects)


def test_a_token_that_cannot_be_written(patched, objects, notes):
    for faults, words in (
        ("keypair=0xe2", "the token cannot be written (C_GenerateKeyPair gave CKR_TOKEN_WRITE_PROTECTED)"),
        ("keypair=0xb5", "CKR_SESSION_READ_ONLY"),
        ("keypair=0x31", "the token is full"),
        ("keypair=0x6", "hint: it may be full, or not writable; nothing was kept"),
        ("readonly", "the token cannot be written (C_OpenSession gave CKR_TOKEN_WRITE_PROTECTED)"),
    ):
        done = patched(faults, *GENERATE, "--label", "new")
        assert (done.code, done.out) == (7, "")
        assert words in done.err
    assert (objects(), notes()) == ([], [])
    known = patched("readonly", *GENERATE, "--label", "k1", "--if-absent")
    assert (known.code, parse(known.out.strip()).object) == (0, "k1")  # it is there already, and nothing is written


# Ctrl-C and the end of time.


def begun(process, notes):
    """Wait until a process has noted that it makes a key."""
    until = time.monotonic() + 20
    while not notes() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert notes()
    time.sleep(0.3)  # the token is at work


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_token_makes_a_key_leaves_none(start, objects, notes, number):
    process = start("keypair~2", *CURVE, "--label", "new")
    begun(process, notes)
    process.send_signal(number)
    out, err = (each.decode() for each in process.communicate(timeout=20))
    assert (process.returncode, out) == ({2: -2, 15: 143}[number], "")
    first, second = err.splitlines()
    assert first.startswith("hsmjwt: waiting for the token to end, so that nothing is left on it")
    assert second in ("hsmjwt: error: interrupted", "hsmjwt: error: terminated")
    assert (objects(), notes()) == ([], [])


def test_a_second_ctrl_c_ends_at_once_and_what_is_left_is_known(start, patched, objects, notes):
    process = start("keypair~20", *CURVE, "--label", "new")
    begun(process, notes)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 10
    assert len(notes()) == 1
    assert patched("-", *CURVE, "--label", "new").code == 0
    whole(objects)


def test_the_end_of_time_waits_for_nobody(patched, notes, objects):
    began = time.monotonic()
    done = patched("keypair~20", *CURVE, "--label", "new", "--timeout", "1")
    assert (done.code, done.out) == (11, "")
    assert time.monotonic() - began < 8
    assert len(notes()) == 1
    assert patched("-", *CURVE, "--label", "new").code == 0
    whole(objects)


def test_a_process_that_is_killed_at_any_moment_leaves_no_half_behind_the_next_one(
    start, hsmjwt, token, objects, notes
):
    def written():
        return list((token.folder / "home/.local/state/hsmjwt").glob("making-*.json"))

    for step in range(
        8
    ):  # two milliseconds each, from the note on, within which the key is made, signs and gets its id
        process = start("-", *CURVE, "--label", f"new{step}")
        until = time.monotonic() + 20
        while not written() and process.poll() is None and time.monotonic() < until:
            pass
        time.sleep(step * 0.002)
        process.kill()
        out, _ = process.communicate()
        again = hsmjwt(*CURVE, "--label", f"new{step}")
        assert again.code == 0 or (process.returncode == 0 and out) or "already" in again.err, again.err
        pair = [each for each in objects() if each[1] == f"'new{step}'"]
        assert [each[0] for each in pair] == ["PRIVATE_KEY", "PUBLIC_KEY"]
        assert pair[0][2] == pair[1][2]
        assert hsmjwt(*SIGN, "--key", f"pkcs11:token=t1;object=new{step}").code == 0
        assert notes() == []


SHELLS = """
import os, pkcs11, sys
from pkcs11 import Attribute, KeyType, ObjectClass
session = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin="31415926")
curve = {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}
for number in range(int(sys.argv[1])):
    session.create_object({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.EC,
        Attribute.TOKEN: True, Attribute.EC_PARAMS: b"", Attribute.EC_POINT: b""})
session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(store=True, label="", id=b"")
"""
"""Objects without name or content, as SoftHSM leaves them where it is killed, and a whole pair without a name."""


def test_what_has_neither_name_nor_content_goes_where_it_was_not_there_before(patched, objects, notes):
    assert patched("keypair!", *CURVE, "--label", "new").code == -9
    assert patched("-", "-c", SHELLS, "2").code == 0
    assert len(objects()) == 4
    done = patched("-", *CURVE, "--label", "new")
    assert done.code == 0, done.err
    assert done.err == "hsmjwt: removed what an interrupted run had left of a new key: 2 without a name\n"
    assert len([each for each in objects() if each[1] != "'new'"]) == 2  # the whole pair, nameless as it is
    assert notes() == []


def test_what_had_neither_name_nor_content_before_stays(patched, objects, notes):
    assert patched("-", "-c", SHELLS, "1").code == 0
    assert patched("keypair!", *CURVE, "--label", "new").code == -9
    done = patched("-", *CURVE, "--label", "new")
    assert (done.code, done.err) == (0, "")
    assert len([each for each in objects() if each[1] != "'new'"]) == 3
    assert notes() == []
