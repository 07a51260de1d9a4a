"""PKCS#11 return codes turned into hsmjwt's errors: the one place that knows what each CKR means for a user.

The codes are those of PKCS#11 3.1 (section 5.1, "Function return values"; pkcs11t.h); which of them call for a new
session comes from what real tokens do (Krill's table, the AWS CloudHSM notes).
"""

from __future__ import annotations

import re

from hsmjwt.errors import BusyError, DeviceError, HsmjwtError, KeyNotFoundError, KeyUnfitError, LoginError, TokenError
from hsmjwt.hsm.binding import pkcs11

# pkcs11t.h, without the CKR_ that stands before each. In hexadecimal, as it is written there and in every log.
_TABLE = """
001 CANCEL                        002 HOST_MEMORY                   003 SLOT_ID_INVALID
005 GENERAL_ERROR                 006 FUNCTION_FAILED               007 ARGUMENTS_BAD
008 NO_EVENT                      009 NEED_TO_CREATE_THREADS        00a CANT_LOCK
010 ATTRIBUTE_READ_ONLY           011 ATTRIBUTE_SENSITIVE           012 ATTRIBUTE_TYPE_INVALID
013 ATTRIBUTE_VALUE_INVALID       01b ACTION_PROHIBITED             020 DATA_INVALID
021 DATA_LEN_RANGE                030 DEVICE_ERROR                  031 DEVICE_MEMORY
032 DEVICE_REMOVED                040 ENCRYPTED_DATA_INVALID        041 ENCRYPTED_DATA_LEN_RANGE
042 AEAD_DECRYPT_FAILED           050 FUNCTION_CANCELED             051 FUNCTION_NOT_PARALLEL
054 FUNCTION_NOT_SUPPORTED        060 KEY_HANDLE_INVALID            062 KEY_SIZE_RANGE
063 KEY_TYPE_INCONSISTENT         064 KEY_NOT_NEEDED                065 KEY_CHANGED
066 KEY_NEEDED                    067 KEY_INDIGESTIBLE              068 KEY_FUNCTION_NOT_PERMITTED
069 KEY_NOT_WRAPPABLE             06a KEY_UNEXTRACTABLE             070 MECHANISM_INVALID
071 MECHANISM_PARAM_INVALID       082 OBJECT_HANDLE_INVALID         090 OPERATION_ACTIVE
091 OPERATION_NOT_INITIALIZED     0a0 PIN_INCORRECT                 0a1 PIN_INVALID
0a2 PIN_LEN_RANGE                 0a3 PIN_EXPIRED                   0a4 PIN_LOCKED
0b0 SESSION_CLOSED                0b1 SESSION_COUNT                 0b3 SESSION_HANDLE_INVALID
0b4 SESSION_PARALLEL_NOT_SUPPORTED 0b5 SESSION_READ_ONLY            0b6 SESSION_EXISTS
0b7 SESSION_READ_ONLY_EXISTS      0b8 SESSION_READ_WRITE_SO_EXISTS  0c0 SIGNATURE_INVALID
0c1 SIGNATURE_LEN_RANGE           0d0 TEMPLATE_INCOMPLETE           0d1 TEMPLATE_INCONSISTENT
0e0 TOKEN_NOT_PRESENT             0e1 TOKEN_NOT_RECOGNIZED          0e2 TOKEN_WRITE_PROTECTED
0f0 UNWRAPPING_KEY_HANDLE_INVALID 0f1 UNWRAPPING_KEY_SIZE_RANGE     0f2 UNWRAPPING_KEY_TYPE_INCONSISTENT
100 USER_ALREADY_LOGGED_IN        101 USER_NOT_LOGGED_IN            102 USER_PIN_NOT_INITIALIZED
103 USER_TYPE_INVALID             104 USER_ANOTHER_ALREADY_LOGGED_IN 105 USER_TOO_MANY_TYPES
110 WRAPPED_KEY_INVALID           112 WRAPPED_KEY_LEN_RANGE         113 WRAPPING_KEY_HANDLE_INVALID
114 WRAPPING_KEY_SIZE_RANGE       115 WRAPPING_KEY_TYPE_INCONSISTENT 120 RANDOM_SEED_NOT_SUPPORTED
121 RANDOM_NO_RNG                 130 DOMAIN_PARAMS_INVALID         140 CURVE_NOT_SUPPORTED
150 BUFFER_TOO_SMALL              160 SAVED_STATE_INVALID           170 INFORMATION_SENSITIVE
180 STATE_UNSAVEABLE              190 CRYPTOKI_NOT_INITIALIZED      191 CRYPTOKI_ALREADY_INITIALIZED
1a0 MUTEX_BAD                     1a1 MUTEX_NOT_LOCKED              1b0 NEW_PIN_MODE
1b1 NEXT_OTP                      1b5 EXCEEDED_MAX_ITERATIONS       1b6 FIPS_SELF_TEST_FAILED
1b7 LIBRARY_LOAD_FAILED           1b8 PIN_TOO_WEAK                  1b9 PUBLIC_KEY_INVALID
200 FUNCTION_REJECTED             201 TOKEN_RESOURCE_EXCEEDED       202 OPERATION_CANCEL_FAILED
203 KEY_EXHAUSTED
"""
CODES = {int(value, 16): f"CKR_{name}" for value, name in re.findall(r"(\w+) (\w+)", _TABLE)}
"""The return codes by value; what stands above 0x80000000 is a vendor's own and has no name."""

# A code, the class of error it is for the user, and what to do about it.
_LOGIN = {
    "CKR_PIN_INCORRECT": ("the token refused the PIN", "correct the PIN source; hsmjwt does not send this PIN again"),
    "CKR_PIN_INVALID": ("the token refused the PIN", "it holds characters that the token does not take"),
    "CKR_PIN_LEN_RANGE": ("the token refused the PIN", "it is shorter or longer than the token takes"),
    "CKR_PIN_EXPIRED": ("the PIN has expired", "set a new PIN with the token's own tool"),
    "CKR_PIN_LOCKED": ("the PIN is locked", "unlock it with the security officer's PIN and the token's own tool"),
    "CKR_USER_PIN_NOT_INITIALIZED": ("the token has no user PIN yet", "set one with the token's own tool"),
    "CKR_USER_ALREADY_LOGGED_IN": ("somebody is logged in on this token already", None),
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": ("another user is logged in on this token", None),
    "CKR_USER_TOO_MANY_TYPES": ("another user is logged in on this token", None),
    "CKR_USER_TYPE_INVALID": ("the token does not know this kind of login", None),
    "CKR_USER_NOT_LOGGED_IN": ("the token asks for a login", "name a PIN source, for example --pin-source prompt"),
    "CKR_NEW_PIN_MODE": ("the token asks for a new PIN", "set one with the token's own tool"),
    "CKR_NEXT_OTP": ("the token asks for the next one-time password", "log in once with the token's own tool"),
}
_KEY = {
    "CKR_KEY_FUNCTION_NOT_PERMITTED": (
        "the key may not be used for this",
        "its CKA_SIGN attribute must be true; SoftHSM says the same of a key whose file is damaged",
    ),
    "CKR_KEY_TYPE_INCONSISTENT": ("the key's type does not fit the algorithm", None),
    "CKR_KEY_SIZE_RANGE": ("the key's size is outside what the token takes", None),
    "CKR_KEY_EXHAUSTED": ("the key has reached the number of signatures that it may make", None),
}
_GONE = ("CKR_OBJECT_HANDLE_INVALID", "CKR_KEY_HANDLE_INVALID")
_TOKEN = {
    "CKR_TOKEN_NOT_PRESENT": "the token is gone",
    "CKR_TOKEN_NOT_RECOGNIZED": "the module does not recognise the token",
    "CKR_DEVICE_REMOVED": "the token was removed",
    "CKR_SLOT_ID_INVALID": "the slot is gone",
    "CKR_CRYPTOKI_NOT_INITIALIZED": "the module lost its state",
}
_BUSY = {
    "CKR_SESSION_COUNT": "the token has no session left",
    "CKR_TOKEN_RESOURCE_EXCEEDED": "the token is at the end of its resources",
}
_DEVICE = {
    "CKR_TOKEN_WRITE_PROTECTED": ("the token cannot be written", None),
    "CKR_SESSION_READ_ONLY": ("the token cannot be written", None),
    "CKR_DEVICE_MEMORY": ("the token is full, or out of memory", None),
}

EMPTY = frozenset({"CKR_TOKEN_NOT_PRESENT", "CKR_TOKEN_NOT_RECOGNIZED", "CKR_DEVICE_REMOVED"})
"""Answers of C_GetTokenInfo that mean: there is no token in this slot."""

UNTOLD = frozenset(
    {
        "CKR_ATTRIBUTE_TYPE_INVALID",
        "CKR_ATTRIBUTE_SENSITIVE",
        "CKR_ATTRIBUTE_VALUE_INVALID",
        "CKR_FUNCTION_FAILED",
    }
)
"""Answers of C_GetAttributeValue about an attribute that the token will not tell; some answer so for all about one."""

KEY_LOST = frozenset({"CKR_USER_NOT_LOGGED_IN", *_GONE})
"""Codes of REOPEN that leave the session as good as it was."""

REOPEN = frozenset(
    {
        "CKR_OPERATION_ACTIVE",
        "CKR_OPERATION_NOT_INITIALIZED",
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_SESSION_CLOSED",
        *KEY_LOST,
    }
)
"""Codes after which a new session and a new search are worth one try."""

_SPELLING = {  # python-pkcs11's class names that are not the code's own words
    "AnotherUserAlreadyLoggedIn": "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    "FunctionCancelled": "CKR_FUNCTION_CANCELED",
    "SessionReadWriteSOExists": "CKR_SESSION_READ_WRITE_SO_EXISTS",
    "SlotIDInvalid": "CKR_SLOT_ID_INVALID",
    "TokenNotRecognised": "CKR_TOKEN_NOT_RECOGNIZED",
}

_TOLD_BY_TEXT = {  # python-pkcs11 raises its bare base class for these
    "already initialized": "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    "not initialized": "CKR_CRYPTOKI_NOT_INITIALIZED",
    "Buffer was too small": "CKR_BUFFER_TOO_SMALL",
    "User type invalid": "CKR_USER_TYPE_INVALID",
    "Parallel not supported": "CKR_SESSION_PARALLEL_NOT_SUPPORTED",
}


def rv_name(value: int) -> str:
    """Return the name of a return code, or its hexadecimal value where it has none (a vendor's own)."""
    return CODES.get(value, f"0x{value:x}")


def ckr_name(error: BaseException) -> str | None:
    """Return the CKR name behind one of python-pkcs11's exceptions; None where there is no return code."""
    kind = type(error).__name__
    if kind in _SPELLING:
        return _SPELLING[kind]
    name = "CKR_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).upper()
    if name in CODES.values():
        return name
    text = str(error)
    unmapped = re.search(r"Unmapped error code 0x([0-9a-fA-F]+)", text)
    if unmapped:
        return rv_name(int(unmapped[1], 16))
    return next((ckr for words, ckr in _TOLD_BY_TEXT.items() if words in text), None)


def fault(operation: str, ckr: str) -> HsmjwtError:
    """Build the error for a return code that `operation` gave; of several functions the code tells which it was."""
    seen = f"{'C_Login' if ckr.startswith('CKR_PIN_') and 'C_Login' in operation else operation} gave {ckr}"
    if ckr in _LOGIN:
        message, hint = _LOGIN[ckr]
        return LoginError(f"{message} ({seen})", hint=hint, ckr=ckr)
    if ckr in _KEY:
        message, hint = _KEY[ckr]
        return KeyUnfitError(f"{message} ({seen})", hint=hint, ckr=ckr)
    if ckr in _GONE:
        return KeyNotFoundError(f"the key is gone ({seen})", hint="hsmjwt key list shows what is there", ckr=ckr)
    if ckr in _TOKEN:
        return TokenError(f"{_TOKEN[ckr]} ({seen})", hint="hsmjwt slot list shows what is there", ckr=ckr)
    if ckr in _BUSY:
        return BusyError(f"{_BUSY[ckr]} ({seen})", hint="other programs hold the rest; try again", ckr=ckr)
    if ckr in _DEVICE:
        message, hint = _DEVICE[ckr]
        return DeviceError(f"{message} ({seen})", hint=hint, ckr=ckr)
    if ckr.startswith("CKR_MECHANISM"):
        return DeviceError(
            f"the token lacks the mechanism ({seen})", hint="hsmjwt slot list --json names those it has", ckr=ckr
        )
    return DeviceError(
        f"the token failed ({seen})", hint="hsmjwt doctor looks at each step; --verbose says more", ckr=ckr
    )


class translated:  # noqa: N801 - it reads as the function that it is
    """Turn whatever a python-pkcs11 call raises into one of hsmjwt's errors.

    `operation` is the PKCS#11 function's name, or several that one call of python-pkcs11 makes. The original exception
    is not chained: it may show values of a template. Not made by contextlib: that takes a microsecond more, and a
    token may sign in fifty.
    """

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise what the error means for a user; errors of ours, and what is no fault at all, pass."""
        if not isinstance(error, Exception) or isinstance(error, HsmjwtError):
            return
        if not isinstance(error, pkcs11.PKCS11Error):  # struct.error, ValueError, UnicodeError … come out of it too
            seen = f"{self._operation} gave an answer that makes no sense ({type(error).__name__})"
            raise DeviceError(seen) from None
        ckr = ckr_name(error)
        if ckr is None:
            raise DeviceError(f"{self._operation} failed", hint="--verbose says more") from None
        raise fault(self._operation, ckr) from None
