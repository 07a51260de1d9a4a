"""PKCS#11 return codes turned into hsmjwt's errors: the one place that knows what each CKR means for a user.

The classes follow PKCS#11 2.40, section 6.3 ("Function return values"); which of them call for a new session comes from
what real tokens do (Krill's table, the AWS CloudHSM notes).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from hsmjwt.errors import BusyError, DeviceError, HsmjwtError, KeyNotFoundError, KeyUnfitError, LoginError, TokenError
from hsmjwt.hsm.binding import pkcs11

_BY_VALUE = {  # PKCS#11 2.40, pkcs11t.h: those a module gives to us directly, or that python-pkcs11 has no class for
    0x01: "CKR_CANCEL",
    0x02: "CKR_HOST_MEMORY",
    0x03: "CKR_SLOT_ID_INVALID",
    0x05: "CKR_GENERAL_ERROR",
    0x06: "CKR_FUNCTION_FAILED",
    0x07: "CKR_ARGUMENTS_BAD",
    0x08: "CKR_NO_EVENT",
    0x09: "CKR_NEED_TO_CREATE_THREADS",
    0x0A: "CKR_CANT_LOCK",
    0x30: "CKR_DEVICE_ERROR",
    0x31: "CKR_DEVICE_MEMORY",
    0x32: "CKR_DEVICE_REMOVED",
    0x68: "CKR_KEY_FUNCTION_NOT_PERMITTED",
    0xA0: "CKR_PIN_INCORRECT",
    0xA1: "CKR_PIN_INVALID",
    0xA2: "CKR_PIN_LEN_RANGE",
    0xA4: "CKR_PIN_LOCKED",
    0xB6: "CKR_SESSION_EXISTS",
    0xE0: "CKR_TOKEN_NOT_PRESENT",
    0xE1: "CKR_TOKEN_NOT_RECOGNIZED",
    0xE2: "CKR_TOKEN_WRITE_PROTECTED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x150: "CKR_BUFFER_TOO_SMALL",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x191: "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    0x1A0: "CKR_MUTEX_BAD",
    0x1A1: "CKR_MUTEX_NOT_LOCKED",
    0x200: "CKR_FUNCTION_REJECTED",
    0x203: "CKR_KEY_EXHAUSTED",
}

# A code, the class of error it is for the user, and what to do about it.
_LOGIN = {
    "CKR_PIN_INCORRECT": ("the token refused the PIN", "correct the PIN source; hsmjwt does not send this PIN again"),
    "CKR_PIN_INVALID": ("the token refused the PIN", "it holds characters that the token does not take"),
    "CKR_PIN_LEN_RANGE": ("the token refused the PIN", "it is shorter or longer than the token takes"),
    "CKR_PIN_EXPIRED": ("the PIN has expired", "set a new PIN with the token's own tool"),
    "CKR_PIN_LOCKED": ("the PIN is locked", "unlock it with the security officer's PIN and the token's own tool"),
    "CKR_USER_PIN_NOT_INITIALIZED": ("the token has no user PIN yet", "set one with the token's own tool"),
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": ("another user is logged in on this token", None),
    "CKR_USER_TOO_MANY_TYPES": ("another user is logged in on this token", None),
    "CKR_USER_TYPE_INVALID": ("the token does not know this kind of login", None),
    "CKR_USER_NOT_LOGGED_IN": ("the token asks for a login", "name a PIN source, for example --pin-source prompt"),
}
_KEY = {
    "CKR_KEY_FUNCTION_NOT_PERMITTED": ("the key may not be used for this", "its CKA_SIGN attribute must be true"),
    "CKR_KEY_TYPE_INCONSISTENT": ("the key's type does not fit the algorithm", None),
    "CKR_KEY_SIZE_RANGE": ("the key's size is outside what the token takes", None),
    "CKR_KEY_EXHAUSTED": ("the key has reached the number of signatures that it may make", None),
}
_TOKEN = {
    "CKR_TOKEN_NOT_PRESENT": "the token is gone",
    "CKR_TOKEN_NOT_RECOGNIZED": "the module does not recognise the token",
    "CKR_DEVICE_REMOVED": "the token was removed",
    "CKR_SLOT_ID_INVALID": "the slot is gone",
    "CKR_CRYPTOKI_NOT_INITIALIZED": "the module lost its state",
}
_BUSY = {"CKR_SESSION_COUNT": "the token has no session left"}

REOPEN = frozenset(
    {
        "CKR_OPERATION_ACTIVE",
        "CKR_OPERATION_NOT_INITIALIZED",
        "CKR_SESSION_HANDLE_INVALID",
        "CKR_SESSION_CLOSED",
        "CKR_OBJECT_HANDLE_INVALID",
        "CKR_KEY_HANDLE_INVALID",
        "CKR_USER_NOT_LOGGED_IN",
    }
)
"""Codes after which a new session and a new search are worth one try."""

PIN_REFUSED = frozenset({"CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_LOCKED"})
"""Answers of C_Login that mean: this PIN must not be sent again."""

_SPELLING = {  # python-pkcs11's class names that are not the code's own words
    "AnotherUserAlreadyLoggedIn": "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    "SessionReadWriteSOExists": "CKR_SESSION_READ_WRITE_SO_EXISTS",
    "SlotIDInvalid": "CKR_SLOT_ID_INVALID",
    "TokenNotRecognised": "CKR_TOKEN_NOT_RECOGNIZED",
}

_TOLD_BY_TEXT = {  # python-pkcs11 raises its bare base class for these
    "already initialized": "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    "not initialized": "CKR_CRYPTOKI_NOT_INITIALIZED",
    "Buffer was too small": "CKR_BUFFER_TOO_SMALL",
    "User type invalid": "CKR_USER_TYPE_INVALID",
}


def rv_name(value: int) -> str:
    """Return the name of a return code, or its hexadecimal value where it has none here (a vendor's own)."""
    return _BY_VALUE.get(value, f"0x{value:x}")


def ckr_name(error: BaseException) -> str | None:
    """Return the CKR name behind one of python-pkcs11's exceptions; None where there is no return code."""
    text = str(error)
    found = re.search(r"0x([0-9a-fA-F]+)", text)
    name = type(error).__name__
    if name != "PKCS11Error":
        if name in _SPELLING:
            return _SPELLING[name]
        return "CKR_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper()
    if found:
        return rv_name(int(found.group(1), 16))
    for words, name in _TOLD_BY_TEXT.items():
        if words in text:
            return name
    return None


def fault(operation: str, ckr: str) -> HsmjwtError:
    """Build the error for a return code that `operation` gave."""
    seen = f"{operation} gave {ckr}"
    if ckr in _LOGIN:
        message, hint = _LOGIN[ckr]
        return LoginError(f"{message} ({seen})", hint=hint, ckr=ckr)
    if ckr in _KEY:
        message, hint = _KEY[ckr]
        return KeyUnfitError(f"{message} ({seen})", hint=hint, ckr=ckr)
    if ckr in _TOKEN:
        return TokenError(f"{_TOKEN[ckr]} ({seen})", hint="hsmjwt slot list shows what is there", ckr=ckr)
    if ckr in _BUSY:
        return BusyError(f"{_BUSY[ckr]} ({seen})", hint="other programs hold the rest; try again", ckr=ckr)
    if ckr in ("CKR_OBJECT_HANDLE_INVALID", "CKR_KEY_HANDLE_INVALID"):
        return KeyNotFoundError(f"the key is gone ({seen})", hint="hsmjwt key list shows what is there", ckr=ckr)
    if ckr in ("CKR_TOKEN_WRITE_PROTECTED", "CKR_SESSION_READ_ONLY"):
        return DeviceError(f"the token cannot be written ({seen})", ckr=ckr)
    if ckr == "CKR_DEVICE_MEMORY":
        return DeviceError(f"the token is full, or out of memory ({seen})", ckr=ckr)
    if ckr.startswith("CKR_MECHANISM"):
        return DeviceError(
            f"the token lacks the mechanism ({seen})", hint="hsmjwt slot list --json names those it has", ckr=ckr
        )
    return DeviceError(
        f"the token failed ({seen})", hint="hsmjwt doctor looks at each step; --verbose says more", ckr=ckr
    )


@contextlib.contextmanager
def translated(operation: str) -> Iterator[None]:
    """Turn whatever a python-pkcs11 call raises into one of hsmjwt's errors.

    `operation` is the PKCS#11 function's name. The original exception is not chained: it may show values of a template.
    """
    try:
        yield
    except HsmjwtError:
        raise
    except pkcs11.PKCS11Error as error:
        ckr = ckr_name(error)
        if ckr is None:
            raise DeviceError(f"{operation} failed", hint="--verbose says more") from None
        raise fault(operation, ckr) from None
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 - struct.error, ValueError, UnicodeError … come out of the binding too
        raise DeviceError(f"{operation} gave an answer that makes no sense ({type(error).__name__})") from None
