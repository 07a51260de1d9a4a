"""A key that asks for the PIN before each signature (CKA_ALWAYS_AUTHENTICATE)."""

import pytest


@pytest.fixture
def careful(token):
    """The user's own key: k2, which asks for its PIN each time."""
    token.make_key("k2", "02", ALWAYS_AUTHENTICATE=True)
    return {"HSMJWT_KEY": "pkcs11:token=t1;object=k2"}


def notes(token):
    return list((token.folder / "home" / ".local" / "state" / "hsmjwt").glob("login-*.json"))


def test_the_same_pin_is_sent_once_more_and_read_once(sign, token, careful, calls, tmp_path):
    reads = tmp_path / "reads"
    source = f"command:sh -c 'echo read >> {reads}; cat {token.pin_file}'"
    done = sign(f"signinit@{calls.file},login@{calls.file}", "--pin-source", source, **careful)
    assert done.code == 0, done.err
    assert calls() == ["login 1", "signinit", "login 2"]
    assert reads.read_text() == "read\n"
    assert notes(token) == []


def test_both_ways_of_signing_take_it(sign, careful, calls):
    done = sign(f"refuse=0x40,login@{calls.file}", "--verbose", **careful)
    assert done.code == 0, done.err
    assert "signed by CKM_RSA_PKCS\n" in done.err
    assert calls() == ["login 1", "login 2"]


def test_a_mechanism_refused_before_the_pin_leaves_no_attempt_behind(sign, token, careful, calls):
    """With the count low an attempt without an outcome would count as a refused PIN."""
    done = sign(f"low,refuse=0x40,login@{calls.file}", **careful)
    assert done.code == 0, done.err
    assert calls() == ["login 1", "login 2"]


def test_a_pin_that_is_refused_the_second_time_is_noted(sign, token, careful, calls):
    """The token takes the PIN for the user, and then says no for the key."""
    done = sign(f"context=0xa0,login@{calls.file}", **careful)
    assert (done.code, done.out) == (5, "")
    assert "the token refused the PIN (C_Login gave CKR_PIN_INCORRECT)" in done.err
    assert len(notes(token)) == 1
    withheld = sign(f"login@{calls.file}", **careful)
    assert withheld.code == 5
    assert "login withheld" in withheld.err
    assert calls() == ["login 1", "login 2"]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("0x7fffffffff", "makes no sense (MemoryError)"),
        ("0xffffffffffffffff", "makes no sense (OverflowError)"),
        ("3", "CKR_BUFFER_TOO_SMALL"),
    ],
)
def test_a_size_that_makes_no_sense_ends_it(sign, careful, size, said):
    """python-pkcs11 asks for the size of the signature first; it makes those that a login stands before."""
    done = sign(f"huge={size}", **careful)
    assert (done.code, done.out) == (7, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_flags_count_for_it_too(patched, careful, calls):
    code = """
import patched
from hsmjwt.errors import LoginError
from hsmjwt.jose.algorithms import ALGORITHMS
signer = patched.signer()
patched.flag("final", "")
try:
    signer.sign(b"x", ALGORITHMS["RS256"])
except LoginError as error:
    print(error.message)
"""
    done = patched(f"login@{calls.file}", "-c", code, **careful)
    assert "one try is left" in done.out
    assert calls() == ["login 1"]


def test_no_empty_pin_is_sent_where_the_source_is_none(sign, token, calls):
    token.make_key("k3", "03", PRIVATE=False)
    asks = "tell=0x202:1"  # CKA_ALWAYS_AUTHENTICATE; SoftHSM makes no such key that is visible without a login
    done = sign(f"{asks},login@{calls.file}", "--pin-source", "none", HSMJWT_KEY="pkcs11:token=t1;object=k3")
    assert (done.code, done.out) == (5, "")
    assert "asks for its PIN at each use" in done.err
    assert calls() == []
