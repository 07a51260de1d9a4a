"""What is tried once more, and what is not."""

import re

import pytest

from hsmjwt.hsm.faults import CODES, REOPEN, fault

VALUES = {name: value for value, name in CODES.items()}


@pytest.mark.parametrize("code", sorted(REOPEN))
def test_a_lost_session_is_replaced_once(sign, calls, code):
    noted = f"open@{calls.file},login@{calls.file}"
    once = sign(f"signinit=0x{VALUES[code]:x}*1,{noted}", "--verbose")
    assert once.code == 0, once.err
    assert f"the session was lost ({code})" in once.err
    # The login is asked for again only where it is what got lost; the token says that it never was.
    again = ["open", "login 1", "open"] if code == "CKR_USER_NOT_LOGGED_IN" else ["open"]
    assert calls() == ["open", "login 1", *again]


def test_a_session_that_stays_lost_ends_the_command(sign, calls):
    done = sign(f"sign=0xb3,signinit@{calls.file}")
    assert (done.code, done.out) == (7, "")
    assert "CKR_SESSION_HANDLE_INVALID" in done.err
    assert calls() == ["signinit", "signinit"]


def test_a_session_lost_before_the_search_is_replaced_too(sign):
    for faults in ("findinit=0xb3*1", "findinit=0x101*1", "find=0x91*1", "attributes=0x82*2"):
        done = sign(faults)
        assert done.code == 0, (faults, done.err)
        assert "Exception ignored" not in done.err


@pytest.mark.parametrize("code", ["0x5", "0x6", "0x30", "0x31", "0x32", "0xe0", "0x190", "0x62", "0x203", "0x80000001"])
def test_what_another_session_cannot_mend_is_not_tried_again(sign, calls, code):
    done = sign(f"sign={code},signinit@{calls.file}")
    assert done.code == fault("C_Sign", CODES.get(int(code, 16), code)).exit_code
    assert done.out == ""
    assert (CODES.get(int(code, 16)) or code) in done.err
    assert calls() == ["signinit"]


def test_a_fault_in_the_middle_of_a_search_is_told_once_and_without_a_traceback(sign):
    for function in ("findinit", "find", "findfinal", "attributes"):
        done = sign(f"{function}=0x30", "--verbose")
        assert (done.code, done.out) == (7, "")
        assert "CKR_DEVICE_ERROR" in done.err
        assert "Traceback" not in done.err
        assert "Exception" not in done.err


def test_who_was_logged_out_behind_our_back_is_logged_in_again_once(sign, calls):
    noted = f"login@{calls.file}"
    done = sign(f"loggedout=1,{noted}")
    assert done.code == 0, done.err
    assert calls() == ["login 1", "login 1"]


def test_no_login_is_made_again_where_it_could_be_the_last_try(sign, calls):
    done = sign(f"loggedout=1,final,login@{calls.file}", "--allow-last-try")
    assert (done.code, done.out) == (5, "")
    assert "one try is left" in done.err
    assert calls() == ["login 1"]


def test_a_session_that_is_not_to_be_had_is_waited_for_once(sign, calls):
    done = sign(f"open=0xb1*1,login@{calls.file}")
    assert done.code == 0, done.err
    assert calls() == ["login 1"]
    full = sign(f"open=0xb1,login@{calls.file}")
    assert (full.code, full.out) == (11, "")
    assert "CKR_SESSION_COUNT" in full.err
    assert calls() == ["login 1"]


@pytest.mark.parametrize("looks", [1, 2])
def test_another_token_in_the_same_slot_is_refused(sign, calls, looks):
    done = sign(f"serial={looks},login@{calls.file}")
    assert (done.code, done.out) == (4, "")
    assert "another token took the place of 't1'" in done.err
    assert calls() == []


def test_another_key_under_the_same_name_is_refused(patched, token):
    """The key is deleted and made anew, with label and id as before, between two signatures."""
    code = """
import os, patched
from hsmjwt.errors import KeyUnfitError
from hsmjwt.hsm import keygen
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import ALGORITHMS
signer = patched.signer()
signer.sign(b"x", ALGORITHMS["RS256"])
module, slot = signer._module, signer._slot
session = module.session(slot, write=True)
for key in search(session, KeyUri(), slot.token):
    key.handle.destroy()
keygen.generate(session, keygen.NewKey(keygen.KINDS["rsa:2048"], "k1", b"\\x01"), slot.token, None)
try:
    signer.sign(b"x", ALGORITHMS["RS256"])
except KeyUnfitError as error:
    print(error.exit_code, error.message)
"""
    done = patched("-", "-c", code)
    assert re.match(r"6 another key took the place of 'pkcs11:token=t1;.*object=k1", done.out), done


def test_another_key_that_another_signer_found_meanwhile_is_refused(patched):
    """What the second signer signs with is its own key, and never that of the first."""
    code = """
import patched
from hsmjwt.errors import KeyUnfitError
from hsmjwt.hsm import keygen
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.signer import Pkcs11Signer
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.verify import Verified
alg = ALGORITHMS["RS256"]
first = patched.signer()
first.sign(b"x", alg)
module, slot = first._module, first._slot
session = module.session(slot, write=True)
for key in search(session, KeyUri(), slot.token):
    key.handle.destroy()
keygen.generate(session, keygen.NewKey(keygen.KINDS["rsa:2048"], "k1", b"\x01"), slot.token, None)
def attempt():
    try:
        Verified(first).sign(b"x", alg)
    except KeyUnfitError as error:
        print(error.exit_code, error.message)
attempt()  # from now on nobody has the key that is gone
second = Pkcs11Signer(module, slot, first._uri, first._login, lambda _: None)
attempt()
Verified(second).sign(b"x", alg)
attempt()
"""
    done = patched("-", "-c", code)
    assert (done.code, done.err) == (0, "")
    told = done.out.splitlines()
    assert len(told) == 3
    assert all(re.match(r"6 another key took the place of 'pkcs11:token=t1;.*object=k1", line) for line in told), told


def test_a_key_that_was_deleted_meanwhile_is_told_as_missing(patched):
    code = """
import patched
from hsmjwt.errors import KeyNotFoundError
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import ALGORITHMS
signer = patched.signer()
session = signer._module.session(signer._slot, write=True)
for key in search(session, KeyUri(), signer._slot.token):
    key.handle.destroy()
try:
    signer.sign(b"x", ALGORITHMS["RS256"])
except KeyNotFoundError as error:
    print(error.exit_code, error.message)
"""
    done = patched("-", "-c", code)
    assert done.out.startswith("6 no key fits 'pkcs11:token=t1;object=k1;type=private'"), done


def test_nothing_is_finalised_once_a_session_was_open_whatever_the_token_shows(patched, calls):
    code = """
import patched
from hsmjwt.errors import TokenError
from hsmjwt.hsm.uri import KeyUri
signer = patched.signer()
module, slot = signer._module, signer._slot
for look in (lambda: module.renew(slot), lambda: module.find_token(KeyUri())):
    patched.answer("tokeninfo", "0x5*9")
    try:
        look()
    except TokenError as error:
        print(error.message)
    patched.answer("tokeninfo", "0x5*0")
"""
    done = patched(f"finalize@{calls.file}", "-c", code)
    assert "token 't1' is gone: the token failed (C_GetTokenInfo gave CKR_GENERAL_ERROR)\n" in done.out, done
    assert "no token fits" in done.out
    assert calls() == []
