"""Objects that come onto a token, by whichever call: what they have in common, and what it means where one fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hsmjwt.errors import DeviceError, HsmjwtError
from hsmjwt.hsm.faults import translated

REFUSED_TEMPLATE = frozenset(  # the last is tpm2-pkcs11's
    {
        *("CKR_ATTRIBUTE_TYPE_INVALID", "CKR_ATTRIBUTE_VALUE_INVALID", "CKR_ATTRIBUTE_READ_ONLY"),
        *("CKR_TEMPLATE_INCONSISTENT", "CKR_GENERAL_ERROR"),
    }
)
"""A token's ways to say that it does not take a template."""

UNSAID = frozenset({"CKR_DEVICE_ERROR", "CKR_FUNCTION_FAILED", "CKR_GENERAL_ERROR"})
"""What a token says that is full or cannot be written, and what it says of much else."""

MAY_BE_FULL = "it may be full, or not writable"
_NOT_KEPT = UNSAID | {"CKR_OBJECT_HANDLE_INVALID"}  # SoftHSM's for a full disk

BEYOND = ("DECRYPT", "UNWRAP", "DERIVE", "SIGN_RECOVER")
"""What a private key is not to do besides to sign."""

EDWARDS = bytes.fromhex("06032b6570"), bytes.fromhex("130c") + b"edwards25519"
"""CKA_EC_PARAMS of Ed25519: the OID of RFC 8410, or the name as a PrintableString (PKCS#11 3.0, section 2.3.10)."""


def created(session: Any, template: Mapping[Any, Any]) -> Any:
    """Return the handle of a new object, in a session that may write; raises what the token says of it."""
    try:
        with translated("C_CreateObject"):
            return session.create_object(template)
    except HsmjwtError as error:
        if error.ckr not in _NOT_KEPT:
            raise
        raise DeviceError(
            f"the token does not keep what is written to it (C_CreateObject gave {error.ckr})",
            hint=f"{MAY_BE_FULL}; nothing was changed",
            ckr=error.ckr,
        ) from None


def removed(handles: Iterable[Any], error: HsmjwtError, label: str) -> HsmjwtError:
    """Take objects off the token; return `error`, which says so where one of them stays behind."""
    left = False
    for half in handles:
        try:
            with translated("C_DestroyObject"):
                half.destroy()
        except HsmjwtError:
            left = True
    if not left:
        return error
    hint = f"the key '{label}' is still on the token: hsmjwt key delete, or the token's own tool, removes it"
    return type(error)(error.message, hint=hint, ckr=error.ckr)
