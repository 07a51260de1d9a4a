"""The shorter road to a key: the same key and the same answers as python-pkcs11's, in fewer calls."""

import json

import pytest

NOTED = ("findinit", "find", "findfinal", "attributes", "signinit", "sign")

BOTH = """
import json, os, patched, sys
from hsmjwt.hsm.objects import find_signing_key
from hsmjwt.hsm.uri import parse
signer = patched.signer()
session, token, direct = signer._module.session(signer._slot), signer._slot.token, signer._module.library.direct
uri = parse(os.environ["HSMJWT_KEY"])
straight, bound = (find_signing_key(session, uri, token, None, direct=road) for road in (direct, None))
same = straight.about == bound.about and straight.uri() == bound.uri() and straight.kind == bound.kind
told = sorted(straight.about)
print(json.dumps([same, straight.handle.handle == bound.handle.handle, told, len(straight.id or b"")]))
sys.stdout.flush()
os._exit(0)
"""
RSA = ["ALLOWED_MECHANISMS", "ALWAYS_AUTHENTICATE", "ID", "KEY_TYPE", "LABEL", "MODULUS", "PUBLIC_EXPONENT", "SIGN"]


@pytest.fixture
def both(patched):
    """Find a key by both roads: whether all is the same, whether the object is, what is told, how long its id is."""

    def run(faults="-", key="pkcs11:token=t1;object=k1"):
        done = patched(faults, "-c", BOTH, HSMJWT_KEY=key)
        assert (done.code, done.err) == (0, ""), done
        return json.loads(done.out)

    return run


def test_a_cold_signature_takes_one_search_one_question_and_one_answer(sign, calls):
    done = sign(",".join(f"{name}@{calls.file}" for name in NOTED))
    assert done.code == 0, done.err
    assert calls() == ["findinit", "find", "find", "findfinal", "attributes", "signinit", "sign"]


def test_an_rsa_key_is_the_same_by_both_roads(both):
    assert both() == [True, True, RSA, 1]


def test_a_key_on_a_curve_is_the_same_by_both_roads(both, patched):
    made = patched("-", "key", "generate", "--key", "pkcs11:token=t1", "--type", "p256", "--label", "curve")
    assert made.code == 0, made.err
    same, object_too, told, _ = both(key="pkcs11:token=t1;object=curve")
    assert (same, object_too) == (True, True)
    assert {"EC_PARAMS", "SIGN"} <= set(told)
    assert "MODULUS" not in told


def test_a_value_that_is_longer_than_expected_is_read_whole(both, token):
    token.make_key("long", "ab" * 700)
    assert both(key="pkcs11:object=long") == [True, True, RSA, 700]


@pytest.mark.parametrize("fault", ["untold", "unsaid"])
def test_what_is_not_told_is_left_out(both, fault):
    same, *rest = both(f"{fault}=0x120")
    assert rest == [True, [name for name in RSA if name != "MODULUS"], 1]
    assert same == (fault == "untold")  # of a token that leaves one out and says OK python-pkcs11 hears no further


@pytest.mark.parametrize("answer", ["0x12", "0x11", "0x6"])
def test_a_token_that_tells_none_where_one_is_not_told_is_asked_for_each(both, answer):
    assert both(f"bulk={answer}") == [True, True, RSA, 1]


def test_a_search_that_fails_is_ended(sign, calls):
    done = sign(f"find=0x30*1,findfinal@{calls.file}")
    assert (done.code, done.out) == (7, "")
    assert "C_FindObjects gave CKR_DEVICE_ERROR" in done.err
    assert calls() == ["findfinal"]


def test_a_search_that_does_not_end_is_told(sign):
    done = sign("findfinal=0x30*1")
    assert (done.code, done.out) == (7, "")
    assert "C_FindObjectsFinal gave CKR_DEVICE_ERROR" in done.err


@pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**63, 2**64 - 2])
def test_a_length_that_makes_no_sense_is_told_and_no_memory_taken_for_it(sign, length):
    done = sign(f"long=0x102:{length}")
    assert (done.code, done.out) == (7, "")
    assert f"C_GetAttributeValue gave a value of {length} bytes" in done.err


def test_a_search_that_finds_objects_without_an_end_is_given_up(sign, calls):
    done = sign(f"endless,findfinal@{calls.file}")
    assert (done.code, done.out) == (7, "")
    assert "C_FindObjects found 1048576 objects and no end" in done.err
    assert calls() == ["findfinal"]


def test_a_question_that_hangs_keeps_no_other_session_from_asking(patched):
    code = """
import os, sys, threading, patched
from hsmjwt.hsm.objects import find_signing_key
hung = threading.Event()
def make(before):
    def call(*args):
        if threading.current_thread().name == "hangs":
            hung.set()
            threading.Event().wait()
        return before(*args)
    return call
patched.replace("attributes", make)
signer = patched.signer()
module, slot = signer._module, signer._slot
def look(session):
    find_signing_key(session, signer._uri, slot.token, None, direct=module.library.direct)
sessions = [module.renew(slot) for _ in range(2)]
first, second = (threading.Thread(target=look, args=(session,), daemon=True) for session in sessions)
first.name = "hangs"
first.start()
print(hung.wait(20))
second.start()
second.join(20)
print(first.is_alive(), second.is_alive())
sys.stdout.flush()
os._exit(0)
"""
    done = patched("-", "-c", code)
    assert (done.out, done.err) == ("True\nTrue False\n", "")


def test_more_keys_than_one_call_returns_are_all_seen(sign, patched):
    made = patched(
        "-",
        "-c",
        """
import os, pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
session = lib.get_token(token_label="t1").open(rw=True, user_pin="31415926")
for number in range(2, 41):
    session.create_object({
        Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: KeyType.RSA, Attribute.TOKEN: True,
        Attribute.PRIVATE: True, Attribute.LABEL: "many", Attribute.ID: bytes([number]),
        Attribute.MODULUS: b"\\xff" * 256, Attribute.PRIVATE_EXPONENT: b"\\1" * 256,
    })
""",
    )
    assert made.code == 0, made.err
    done = sign(HSMJWT_KEY="pkcs11:object=many")
    assert (done.code, done.out) == (6, "")
    assert "39 keys fit 'pkcs11:object=many;type=private'" in done.err
