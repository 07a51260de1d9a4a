"""A signature that leaves hsmjwt is right, whichever way the token made it; a wrong one never leaves."""

import base64
import json
import time

import jwt
import pytest

NOW = ("--now", "@1395327936", "--jti", "none")


def claims(token):
    return jwt.decode(token.strip(), options={"verify_signature": False})


@pytest.fixture
def public_pem(hsmjwt, token):
    return hsmjwt("key", "export", token.uri, HSMJWT_KEY=None).out


def test_both_ways_give_the_same_bytes_and_they_verify(sign, public_pem):
    whole = sign("-", *NOW, "--verbose")
    hidden = sign("hide=0x40", *NOW, "--verbose")
    assert "signed by CKM_SHA256_RSA_PKCS" in whole.err
    assert "signed by CKM_RSA_PKCS\n" in hidden.err
    assert whole.out == hidden.out
    jwt.decode(whole.out.strip(), public_pem, ["RS256"], audience="a", options={"verify_exp": False})


def test_a_mechanism_that_is_listed_and_then_refused_is_passed_over(sign):
    done = sign("refuse=0x40", *NOW, "--verbose")
    assert (done.code, done.out) == (0, sign("-", *NOW).out)
    assert "the token lists CKM_SHA256_RSA_PKCS and refuses it" in done.err


def test_a_mechanism_that_served_and_is_refused_later_is_passed_over_too(patched):
    code = """
import ctypes, patched
from hsmjwt.jose.algorithms import ALGORITHMS
refused, said = [], []
def refuse(before):
    def call(session, mechanism, key):
        return 0x70 if ctypes.cast(mechanism, patched.ULONGS)[0] in refused else before(session, mechanism, key)
    return call
patched.replace("signinit", refuse)
signer = patched.signer(say=said.append)
first = signer.sign(b"x", ALGORITHMS["RS256"])
refused.append(0x40)
print(first == signer.sign(b"x", ALGORITHMS["RS256"]) == signer.sign(b"x", ALGORITHMS["RS256"]), *said, sep="\\n")
"""
    done = patched("-", "-c", code)
    by = [
        "signed by CKM_SHA256_RSA_PKCS",
        "the token lists CKM_SHA256_RSA_PKCS and refuses it (CKR_MECHANISM_INVALID)",
        "CKM_SHA256_RSA_PKCS is passed over: the token refused it",
        "signed by CKM_RSA_PKCS",
    ]
    assert done.out.splitlines() == ["True", *by], done


@pytest.mark.parametrize("faults", ["hide=0x40,hide=1", "refuse=0x40,refuse=1", "hide=0x40,refuse=1"])
def test_a_token_without_any_way_is_a_device_fault(sign, faults):
    done = sign(faults, "--alg", "RS256")
    assert (done.code, done.out) == (7, "")
    assert "CKM_SHA256_RSA_PKCS or CKM_RSA_PKCS" in done.err


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ("flip", "does not verify"),
        ("hide=0x40,flip", "does not verify"),
        ("length=255", "a signature of 255 bytes, where the key makes 256"),
        ("length=0", "an empty signature"),
        ("length=300", "a signature of 300 bytes"),
        ("length=549755813887", "a signature of 8192 bytes"),
        ("length=18446744073709551615", "a signature of 8192 bytes"),
        ("sign=0x150", "CKR_BUFFER_TOO_SMALL"),
    ],
)
def test_a_wrong_signature_is_never_printed(sign, faults, said):
    done = sign(faults)
    assert (done.code, done.out) == (7, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_claims_are_of_the_moment_of_the_signature_not_of_the_start(sign, token):
    began = time.time()
    done = sign("-", "--exp", "60", "--pin-source", f"command:sh -c 'sleep 2; cat {token.pin_file}'")
    assert done.code == 0, done.err
    signed = claims(done.out)
    assert signed["iat"] >= int(began + 2)
    assert signed["exp"] == signed["iat"] + 60


def test_what_a_module_prints_reaches_no_result_and_shows_with_verbose_alone(sign):
    quiet, verbose = sign("chatter"), sign("chatter", "--verbose")
    assert "hello" not in quiet.out + quiet.err
    assert quiet.out.count(".") == verbose.out.count(".") == 2
    assert "the module says hello" in verbose.err
    assert "hello" not in verbose.out


def test_a_claim_of_a_mebibyte_is_signed_whole(sign, tmp_path):
    file = tmp_path / "claims.json"
    file.write_text(json.dumps({"big": "x" * 2**20}))
    for faults in ("-", "hide=0x40"):
        done = sign(faults, "--claims-file", str(file))
        assert done.code == 0, done.err
        assert len(claims(done.out)["big"]) == 2**20


def test_a_key_that_tells_no_modulus_is_verified_with_its_public_half(sign):
    assert sign("untold=0x120").code == 0
    assert sign("untold=0x120,flip").code == 7


def test_a_key_that_does_not_say_it_may_sign_is_not_tried(sign):
    done = sign("untold=0x108")
    assert (done.code, done.out) == (6, "")
    assert "CKA_SIGN" in done.err


@pytest.mark.parametrize(("value", "name"), [("3", "ec"), ("2", "dh"), ("0x80001234", "0x80001234")])
def test_a_key_of_another_type_is_named_and_refused(sign, value, name):
    done = sign(f"tell=0x100:{value}")
    assert (done.code, done.out) == (6, "")
    assert f"the key is of type {name}" in done.err


def test_a_token_that_ignores_search_templates_cannot_swap_the_key(sign, token):
    token.make_key("k2", "02")
    done = sign("anyobject", "--verbose")
    assert done.code == 0, done.err
    assert "object=k1" in done.err
    assert sign("anyobject", HSMJWT_KEY="pkcs11:token=t1").code == 6


def test_the_signature_is_of_what_was_asked_for(sign, public_pem):
    done = sign("-", "--claim", "x=y")
    body = done.out.split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["x"] == "y"
    jwt.decode(done.out.strip(), public_pem, ["RS256"], audience="a")
