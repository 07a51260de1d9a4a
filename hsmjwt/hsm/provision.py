"""Initialises a token that is free, with both its PINs: for SoftHSM2 in tests and the demo."""

from __future__ import annotations

from hsmjwt.errors import TokenError, UsageError
from hsmjwt.hsm import library
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import translated

_LABEL_BYTES = 32  # PKCS#11 2.40, section 3.2: a blank-padded field of CK_TOKEN_INFO


def check_label(label: str) -> None:
    """Raise UsageError for a label that no token can have."""
    if any("\ud800" <= char <= "\udfff" for char in label):
        raise UsageError(f"the token's label {label!a} is not UTF-8 text")
    if not label.strip() or not label.isprintable():
        raise UsageError(f"the token's label {label!a} is empty or holds a control character")
    if len(label.encode()) > _LABEL_BYTES:
        raise UsageError(f"the token's label is longer than {_LABEL_BYTES} bytes")


def init_token(module: str, label: str, pin: str, so_pin: str) -> None:
    """Initialise a free slot of the module and set the user's PIN; `module` is a real path that is not loaded yet.

    A token that is initialised already is never touched. Raises UsageError for a label that no token can have, what
    C_InitToken and C_InitPIN give, TokenError where the module has no free slot.
    """
    check_label(label)
    loaded = library.load(module)
    done = pkcs11.TokenFlag.TOKEN_INITIALIZED
    with translated("C_GetSlotList"):
        tokens = [slot.get_token() for slot in loaded.lib.get_slots()]
    free = [token.slot.slot_id for token in tokens if not token.flags & done]
    if not free:
        raise TokenError(f"module '{module}' has no free slot for a new token")
    known = {token.serial for token in tokens}
    loaded.init_token(free[0], so_pin, label)
    loaded.restart()  # SoftHSM gives the new token a slot of its own, which a fresh start shows
    with translated("C_InitPIN"):
        tokens = [slot.get_token() for slot in loaded.lib.get_slots()]
        made = [token for token in tokens if token.flags & done and token.serial not in known]
        if len(made) != 1:
            raise TokenError(
                f"module '{module}' did not keep the new token", hint="look at the folder and the disk's space"
            )
        session = made[0].open(rw=True, so_pin=so_pin)
        session.init_pin(pin)
        session.close()
    loaded.restart()  # and another one shows that the user's PIN is set
