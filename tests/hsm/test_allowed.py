"""What a key allows, what the token lists and what it answers: how a mechanism is chosen of several."""

from __future__ import annotations

import json
import re
import types

import jwt
import pytest

from hsmjwt.errors import KeyUnfitError
from hsmjwt.hsm import told
from hsmjwt.hsm.attributes import label_mapper, mechanism_name
from hsmjwt.hsm.binding import pkcs11

BOUND = "pkcs11:token=t1;object=bound"
MAKE = """
import os, pkcs11, sys
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
from hsmjwt.hsm.attributes import label_mapper
from hsmjwt.jose.keys import CURVES
kind, *names = sys.argv[1:]
token = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1")
session = token.open(rw=True, user_pin="31415926", attribute_mapper=label_mapper())
common = {"store": True, "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY, "label": "bound", "id": b"b"}
if names:
    common["private_template"] = {Attribute.ALLOWED_MECHANISMS: [Mechanism[name] for name in names]}
if kind == "RSA":
    private = session.generate_keypair(KeyType.RSA, 2048, **common)[1]
else:
    params = CURVES[kind].oid if kind in CURVES else bytes.fromhex("06032b6570")
    kind = KeyType.EC if kind in CURVES else KeyType.EC_EDWARDS
    domain = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: params}, local=True)
    private = domain.generate_keypair(**common)[1]
print(sorted(Mechanism(number).name for number in private[Attribute.ALLOWED_MECHANISMS]))
"""
TELL = """
import patched
from hsmjwt.hsm.objects import find_signing_key
from hsmjwt.hsm.uri import parse
import json, os, sys
signer = patched.signer()
session, token, direct = signer._module.session(signer._slot), signer._slot.token, signer._module.library.direct
uri = parse(os.environ["HSMJWT_KEY"])
keys = [find_signing_key(session, uri, token, None, direct=road) for road in (direct, None)]
print(json.dumps([*(key.allowed if key.allowed is None else sorted(key.allowed) for key in keys),
    [alg.name for alg in signer.algs]]))
sys.stdout.flush()
os._exit(0)
"""
ALL_OF_RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]


@pytest.fixture
def bound(patched):
    """Make the key `bound`, which allows the mechanisms of these names alone: bound("RSA", "SHA256_RSA_PKCS_PSS")."""

    def make(kind, *names):
        done = patched("-", "-c", MAKE, kind, *names)
        assert (done.code, done.out) == (0, f"{sorted(names)}\n"), done.err
        return BOUND

    return make


@pytest.fixture
def tell(patched):
    """Tell what a key allows by both roads, and the algorithms that are left."""

    def call(faults="-", key=BOUND):
        done = patched(faults, "-c", TELL, HSMJWT_KEY=key)
        assert done.code == 0, done.err
        return json.loads(done.out)

    return call


@pytest.mark.parametrize(
    ("kind", "allowed", "algs"),
    [
        ("RSA", [], ALL_OF_RSA),
        ("RSA", ["SHA256_RSA_PKCS_PSS"], ["PS256"]),
        ("RSA", ["SHA512_RSA_PKCS"], ["RS512"]),
        ("RSA", ["SHA256_RSA_PKCS", "SHA384_RSA_PKCS_PSS"], ["RS256", "PS384"]),
        ("RSA", ["RSA_PKCS"], ["RS256", "RS384", "RS512"]),  # a key that allows the raw mechanism is bound to nothing
        ("RSA", ["RSA_PKCS_PSS", "SHA256_RSA_PKCS"], ["RS256", "PS256", "PS384", "PS512"]),
        ("RSA", ["RSA_PKCS_OAEP"], []),
        ("P-256", ["ECDSA"], ["ES256"]),
        ("P-256", ["ECDSA_SHA256"], []),  # which SoftHSM 2.6.1 lacks
        ("P-521", ["ECDSA", "ECDSA_SHA512"], ["ES512"]),
        ("Ed25519", ["EDDSA"], ["EdDSA", "Ed25519"]),
    ],
)
def test_a_key_has_the_algorithms_that_its_allowed_mechanisms_and_the_token_leave(bound, tell, kind, allowed, algs):
    bound(kind, *allowed)
    assert tell() == [sorted(allowed), sorted(allowed), algs]


def test_the_tokens_list_takes_algorithms_away_too(tell):
    k1 = "pkcs11:token=t1;object=k1"
    assert tell("hide=0x43", k1)[2] == ALL_OF_RSA  # by the raw mechanism
    assert tell("hide=0x43,hide=0xd", k1)[2] == [name for name in ALL_OF_RSA if name != "PS256"]
    assert tell("hide=0x1", k1)[2] == ALL_OF_RSA


def test_a_key_that_is_bound_to_ps256_signs_nothing_else(bound, sign, patched):
    bound("RSA", "SHA256_RSA_PKCS_PSS")
    done = sign("-", "--alg", "PS256", "--verbose", HSMJWT_KEY=BOUND)
    assert done.code == 0, done.err
    assert "CKM_RSA_PKCS_PSS is passed over: the key does not allow it\n" in done.err
    assert "signed by CKM_SHA256_RSA_PKCS_PSS\n" in done.err
    pem = patched("-", "key", "export", BOUND, HSMJWT_KEY=None).out
    assert jwt.decode(done.out.strip(), pem, ["PS256"], audience="a")["iss"] == "i"
    for name, takes in (
        ("RS256", "CKM_SHA256_RSA_PKCS or CKM_RSA_PKCS"),
        ("PS384", "CKM_SHA384_RSA_PKCS_PSS or CKM_RSA_PKCS_PSS"),
    ):
        other = sign("-", "--alg", name, HSMJWT_KEY=BOUND)
        assert (other.code, other.out) == (6, "")
        assert f"the key allows only CKM_SHA256_RSA_PKCS_PSS, and {name} takes {takes}" in other.err
        assert "hint: it signs PS256" in other.err


@pytest.mark.parametrize(("mechanism", "name"), [("SHA256_RSA_PKCS_PSS", "PS256"), ("SHA512_RSA_PKCS", "RS512")])
def test_a_key_that_is_bound_to_an_algorithm_signs_it_where_nobody_names_one(bound, sign, patched, mechanism, name):
    bound("RSA", mechanism)
    done = sign("-", HSMJWT_KEY=BOUND)
    assert done.code == 0, done.err
    pem = patched("-", "key", "export", BOUND, HSMJWT_KEY=None).out
    assert jwt.get_unverified_header(done.out.strip())["alg"] == name
    assert jwt.decode(done.out.strip(), pem, [name], audience="a")["iss"] == "i"
    doctor = patched("-", "doctor", HSMJWT_KEY=BOUND)
    assert re.search(rf"mechanism +{name} by CKM_{mechanism}\n", doctor.out)


def test_a_key_that_allows_no_signature_at_all_says_so(bound, sign):
    bound("RSA", "RSA_PKCS_OAEP", *(f"AES_{mode}" for mode in ("ECB", "CBC", "CTR", "GCM", "CCM", "CTS", "OFB", "MAC")))
    done = sign("-", "--alg", "RS256", HSMJWT_KEY=BOUND)
    assert (done.code, done.out) == (6, "")
    assert "the key allows only CKM_AES_CBC, CKM_AES_CCM, " in done.err
    assert " and 1 more, and RS256 takes CKM_SHA256_RSA_PKCS or" in done.err
    assert "hint: its CKA_ALLOWED_MECHANISMS attribute says so" in done.err


def test_a_key_that_allows_the_raw_mechanism_alone_is_used_by_it(bound, sign):
    bound("RSA", "RSA_PKCS_PSS")
    done = sign("-", "--alg", "PS512", "--verbose", HSMJWT_KEY=BOUND)
    assert done.code == 0, done.err
    assert "CKM_SHA512_RSA_PKCS_PSS is passed over: the key does not allow it\n" in done.err
    assert "signed by CKM_RSA_PKCS_PSS\n" in done.err


@pytest.mark.parametrize("fault", ["untold=0x40000600", "unsaid=0x40000600"])
def test_a_token_that_does_not_know_the_attribute_is_asked_no_more_often(sign, calls, fault):
    done = sign(f"{fault},findinit@{calls.file},attributes@{calls.file},signinit@{calls.file}")
    assert done.code == 0, done.err
    assert calls() == ["findinit", "attributes", "signinit"]


def test_of_a_key_on_a_curve_no_more_than_its_curve_is_asked_beside(sign, calls, bound):
    bound("P-256", "ECDSA")
    done = sign(f"findinit@{calls.file},attributes@{calls.file},signinit@{calls.file}", HSMJWT_KEY=BOUND)
    assert done.code == 0, done.err
    cold = calls()
    assert cold[:3] == ["findinit", "attributes", "attributes"]  # the point is not told, which is believed
    assert cold[3] == "findinit"  # of the public half


def test_what_a_key_allows_is_unknown_where_the_token_does_not_tell(bound, tell, sign):
    bound("RSA", "SHA256_RSA_PKCS_PSS")
    assert tell("untold=0x40000600") == [None, None, ALL_OF_RSA]
    done = sign(
        "untold=0x40000600", "--alg", "RS256", "--verbose", HSMJWT_KEY=BOUND
    )  # and it is the token that says no
    assert (done.code, done.out) == (7, "")
    assert "the token lists CKM_SHA256_RSA_PKCS and refuses it (CKR_MECHANISM_INVALID)\n" in done.err
    assert "the token cannot make RS256" in done.err


@pytest.mark.parametrize("answer", ["0x12", "0x11", "0x6"])
def test_a_token_that_tells_nothing_where_one_is_not_told_tells_the_others_alone(bound, tell, answer):
    bound("RSA", "SHA256_RSA_PKCS_PSS")
    assert tell(f"bulk={answer}") == [["SHA256_RSA_PKCS_PSS"], ["SHA256_RSA_PKCS_PSS"], ["PS256"]]
    assert tell(f"untold=0x40000600,bulk={answer}") == [None, None, ALL_OF_RSA]


def test_a_list_that_is_none_is_as_good_as_not_told(bound, tell):
    bound("RSA", "SHA256_RSA_PKCS_PSS")
    assert tell("cut=0x40000600:7") == [None, None, ALL_OF_RSA]


@pytest.mark.parametrize("code", ["0x71", "0x68", "0x63"])
def test_a_mechanism_that_is_refused_for_its_parameter_or_with_this_key_is_passed_over(sign, code):
    done = sign(f"refuse=0x40:{code}", "--verbose")
    assert done.code == 0, done.err
    assert "the token lists CKM_SHA256_RSA_PKCS and refuses it (CKR_" in done.err
    assert "signed by CKM_RSA_PKCS\n" in done.err


@pytest.mark.parametrize(
    ("code", "name"), [("0x68", "CKR_KEY_FUNCTION_NOT_PERMITTED"), ("0x63", "CKR_KEY_TYPE_INCONSISTENT")]
)
def test_a_key_that_no_mechanism_takes_is_unfit(sign, code, name):
    done = sign(f"refuse=0x40:{code},refuse=1:{code}")
    assert (done.code, done.out) == (6, "")
    assert f"C_SignInit gave {name}" in done.err
    later = sign(f"sign={code}")
    assert (later.code, later.out) == (6, "")
    assert f"C_Sign gave {name}" in later.err


@pytest.mark.parametrize("code", ["0x5", "0x30", "0x7", "0x62", "0x1a1"])
def test_no_other_answer_leads_to_another_mechanism(sign, calls, code):
    done = sign(f"refuse=0x40:{code},signinit@{calls.file}")
    assert (done.code in (6, 7), done.out) == (True, "")
    assert calls() == ["signinit"]


def test_what_may_be_the_keys_own_fault_is_not_remembered(patched):
    code = """
import ctypes, patched
from hsmjwt.errors import KeyUnfitError
from hsmjwt.jose.algorithms import ALGORITHMS
faulty, asked, said = [], [], []
def make(before):
    def call(session, mechanism, key):
        asked.append(ctypes.cast(mechanism, patched.ULONGS)[0])
        return 0x68 if faulty else before(session, mechanism, key)
    return call
patched.replace("signinit", make)
signer = patched.signer(say=said.append)
def sign():
    asked.clear()
    signer.sign(b"x", ALGORITHMS["RS256"])
    print(asked)
sign()
faulty.append(True)
try:
    sign()
except KeyUnfitError as error:
    print(error.ckr, asked)
faulty.clear()
sign()
sign()
print(*said, sep="\\n")
"""
    done = patched("-", "-c", code)
    refusal = "the token lists CKM_SHA256_RSA_PKCS and refuses it (CKR_KEY_FUNCTION_NOT_PERMITTED)"
    assert done.out.splitlines() == [
        "[64]",
        "CKR_KEY_FUNCTION_NOT_PERMITTED [64, 64, 1]",
        "[64]",
        "[64]",
        "signed by CKM_SHA256_RSA_PKCS",
        refusal,
        refusal,
        refusal.replace("SHA256_RSA", "RSA"),
        "signed by CKM_SHA256_RSA_PKCS",
    ], done


def test_a_parameter_that_is_refused_for_one_hash_keeps_no_other_from_being_used(patched):
    """RSA_PKCS_PSS, which a token takes with SHA-256 alone, and no mechanism that hashes."""
    code = """
import ctypes, patched
from hsmjwt.errors import DeviceError
from hsmjwt.jose.algorithms import ALGORITHMS
def make(before):
    def call(session, mechanism, key):
        number, place, size = ctypes.cast(mechanism, patched.ULONGS)[:3]
        wrong = number == 0xd and ctypes.cast(place, patched.ULONGS)[0] != 0x250
        return 0x71 if wrong or number in (0x43, 0x44, 0x45) else before(session, mechanism, key)
    return call
patched.replace("signinit", make)
signer = patched.signer()
for name in ("PS512", "PS256", "PS384", "PS256"):
    try:
        print(name, len(signer.sign(b"x", ALGORITHMS[name])))
    except DeviceError as error:
        print(name, error.message)
print(*(alg.name for alg in signer.algs))
"""
    done = patched("-", "-c", code)
    assert done.out.splitlines() == [
        "PS512 the token cannot make PS512: it has no CKM_SHA512_RSA_PKCS_PSS or CKM_RSA_PKCS_PSS",
        "PS256 256",
        "PS384 the token cannot make PS384: it has no CKM_SHA384_RSA_PKCS_PSS or CKM_RSA_PKCS_PSS",
        "PS256 256",
        "RS256 RS384 RS512 PS256",
    ], done


def test_allowed_mechanisms_are_written_and_read_as_an_array_of_numbers():
    mapper, attribute = label_mapper(), pkcs11.Attribute.ALLOWED_MECHANISMS
    for numbers in ((), (pkcs11.Mechanism.EDDSA,), (0x43, 0x80001234)):
        data = mapper.pack_attribute(attribute, numbers)
        assert len(data) == 8 * len(numbers)
        assert mapper.unpack_attributes(attribute, data) == tuple(map(int, numbers))
    assert mapper.unpack_attributes(attribute, b"\1" * 9) is None


@pytest.mark.parametrize(
    ("number", "name"),
    [(0x43, "SHA256_RSA_PKCS_PSS"), (0x1057, "EDDSA"), (0x80001234, "0x80001234"), (0x7, "RIPEMD128_RSA_PKCS")],
)
def test_a_mechanism_has_the_name_that_a_tokens_list_gives_it(number, name):
    assert mechanism_name(number) == name


EDWARDS = int(pkcs11.KeyType.EC_EDWARDS)
POINT = bytes(range(32))


@pytest.mark.parametrize(
    "params",
    [
        b"\x13\x0cedwards25519",
        b"\x13\x07Ed25519",
        bytes.fromhex("06032b6570"),
        bytes.fromhex("06092b06010401da470f01"),
        b"",
        None,
    ],
)
@pytest.mark.parametrize("point", [b"\x04\x20" + POINT, b"\x03\x21\x00" + POINT, POINT])
def test_an_ed25519_key_goes_by_every_name_that_tokens_give_its_curve(params, point):
    about = {"KEY_TYPE": EDWARDS, "EC_POINT": point, **({} if params is None else {"EC_PARAMS": params})}
    assert (told.type_of(about), told.bits(about), told.curve_name(about)) == ("ed25519", 256, "Ed25519")
    assert told.public_key(about) == ("Ed25519", POINT)


@pytest.mark.parametrize("params", [b"\x13\x0aedwards448", bytes.fromhex("06032b6571"), bytes.fromhex("06032b656e")])
def test_another_edwards_curve_is_not_taken_for_it(params):
    about = {"KEY_TYPE": EDWARDS, "EC_PARAMS": params, "EC_POINT": POINT}
    assert (told.type_of(about), told.bits(about), told.curve_name(about)) == ("ec_edwards", None, None)
    with pytest.raises(KeyUnfitError, match="the key is of type ec_edwards") as caught:
        told.public_key(about)
    assert "P-256, P-384 and P-521, and Ed25519 keys" in caught.value.hint


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (None, "the token tells no point for the key"),
        (b"", "the token tells no point"),
        (POINT[1:], "an Ed25519 key has 32 bytes, and this one has 31"),
        (b"\x04\x1f" + POINT, "and this one has 34"),
        (b"\x04\x21" + POINT + b"\0", "and this one has 35"),
        (b"\x04\x41\x04" + POINT * 2, "and this one has 67"),
    ],
)
def test_a_point_that_is_no_ed25519_key_is_refused(point, said):
    about = types.MappingProxyType({"KEY_TYPE": EDWARDS, "EC_POINT": point})
    with pytest.raises(KeyUnfitError, match=said):
        told.public_key(about)
