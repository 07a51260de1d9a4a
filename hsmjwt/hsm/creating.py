"""Objects that are written to a token, and what it means where the token does not keep one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsmjwt.errors import DeviceError, HsmjwtError
from hsmjwt.hsm.faults import translated

_NOT_KEPT = frozenset(  # what a token says that is full, or not writable; SoftHSM the first
    {"CKR_OBJECT_HANDLE_INVALID", "CKR_FUNCTION_FAILED", "CKR_GENERAL_ERROR", "CKR_DEVICE_ERROR"}
)


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
            hint="it may be full, or not writable; nothing was changed",
            ckr=error.ckr,
        ) from None
