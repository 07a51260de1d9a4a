"""Every return code becomes one of hsmjwt's errors, with its name and an exit code."""

import inspect
import json
import re

import pytest
from pkcs11 import exceptions

from hsmjwt.errors import DeviceError, HsmjwtError
from hsmjwt.hsm.faults import CODES, ckr_name, fault, rv_name, translated

CLASSES = [
    kind for _, kind in inspect.getmembers(exceptions, inspect.isclass) if issubclass(kind, exceptions.PKCS11Error)
]
NO_CODE = {"PKCS11Error", "MultipleObjectsReturned", "MultipleTokensReturned", "NoSuchKey", "NoSuchToken"}
EXITS = {
    4: "TOKEN_NOT_PRESENT TOKEN_NOT_RECOGNIZED DEVICE_REMOVED SLOT_ID_INVALID CRYPTOKI_NOT_INITIALIZED",
    5: "PIN_INCORRECT PIN_INVALID PIN_LEN_RANGE PIN_EXPIRED PIN_LOCKED USER_PIN_NOT_INITIALIZED USER_NOT_LOGGED_IN "
    "USER_ALREADY_LOGGED_IN USER_ANOTHER_ALREADY_LOGGED_IN USER_TOO_MANY_TYPES USER_TYPE_INVALID NEW_PIN_MODE NEXT_OTP",
    6: "KEY_FUNCTION_NOT_PERMITTED KEY_TYPE_INCONSISTENT KEY_SIZE_RANGE KEY_EXHAUSTED KEY_HANDLE_INVALID "
    "OBJECT_HANDLE_INVALID",
    11: "SESSION_COUNT TOKEN_RESOURCE_EXCEEDED",
}
EXIT_OF = {f"CKR_{name}": code for code, names in EXITS.items() for name in names.split()}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_exception_of_python_pkcs11_has_the_name_of_its_code(kind):
    name = ckr_name(kind())
    if kind.__name__ in NO_CODE:
        assert name is None
    else:
        assert name in CODES.values()


@pytest.mark.parametrize("code", [*CODES.values(), "0x80000001"])
def test_each_code_ends_with_the_exit_code_of_its_kind_and_says_its_name(code):
    error = fault("C_Sign", code)
    assert error.exit_code == EXIT_OF.get(code, 7)
    assert error.ckr == code
    assert f"C_Sign gave {code}" in error.message
    assert error.message[0].islower()
    assert not error.message.endswith(".")


def test_the_codes_that_have_no_class_are_read_from_the_text():
    texts = {
        "Unmapped error code 0x68": "CKR_KEY_FUNCTION_NOT_PERMITTED",
        "Unmapped error code 0x80000068": "0x80000068",
        "Initialisation error (already initialized)": "CKR_CRYPTOKI_ALREADY_INITIALIZED",
        "OS exception while loading /opt/0x30/lib.so": None,
    }
    assert {text: ckr_name(exceptions.PKCS11Error(text)) for text in texts} == texts
    assert rv_name(0xA0) == "CKR_PIN_INCORRECT"
    assert rv_name(0x80000001) == "0x80000001"


def test_a_pin_that_is_refused_is_told_of_c_login_whatever_else_the_call_did():
    assert "(C_Login gave CKR_PIN_LOCKED)" in fault("C_OpenSession or C_Login", "CKR_PIN_LOCKED").message
    assert "(C_OpenSession or C_Login gave" in fault("C_OpenSession or C_Login", "CKR_SESSION_COUNT").message


@pytest.mark.parametrize("error", [ValueError("secret"), UnicodeError("secret"), AttributeError("secret")])
def test_what_else_comes_out_of_the_binding_is_told_without_its_text(error):
    with pytest.raises(DeviceError) as caught, translated("C_Sign"):
        raise error
    assert type(error).__name__ in caught.value.message
    assert "secret" not in caught.value.message
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, HsmjwtError("as it is")])
def test_what_is_no_fault_of_the_token_passes(error):
    with pytest.raises(error if isinstance(error, type) else type(error)), translated("C_Sign"):
        raise error


@pytest.mark.parametrize("road", ["key", "msgspec.structs.replace(key, hand=None)"])
def test_every_code_comes_through_both_roads_to_a_signature(patched, road):
    """One process: C_Sign answers with each code in turn, a vendor's own among them."""
    code = """
import json, msgspec, patched, sys
from hsmjwt.errors import HsmjwtError
from hsmjwt.hsm.faults import CODES
from hsmjwt.hsm.ways import WAYS
patched.answer("signinit", "0")
patched.replace("sign", lambda before: lambda *args: value)
signer = patched.signer()
key = signer._found.within(signer._pool.place())
key = eval(sys.argv[1])
told = {}
for value in [*CODES, 0x80000001, 0xFFFFFFFF]:
    try:
        key.sign(b"x", WAYS["RS256"][0])
    except HsmjwtError as error:
        told[value] = [error.ckr, error.exit_code]
print(json.dumps(told))
"""
    done = patched("-", "-c", code, road)
    assert done.code == 0, done.err
    told = {int(value): tuple(seen) for value, seen in json.loads(done.out).items()}
    every = [*CODES, 0x80000001, 0xFFFFFFFF]
    assert told == {value: (rv_name(value), EXIT_OF.get(rv_name(value), 7)) for value in every}


def test_the_name_of_a_code_is_in_the_json_error(sign):
    done = sign("sign=0x30", "--json")
    error = json.loads(done.err.splitlines()[-1])["error"]
    assert (done.code, error["exit"], error["code"], error["ckr"]) == (7, 7, "device", "CKR_DEVICE_ERROR")
    assert re.search(r"C_Sign gave CKR_DEVICE_ERROR", error["message"])
