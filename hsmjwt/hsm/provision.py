"""Initialises a token that is free, with both its PINs: for SoftHSM2 in tests and the demo."""

from __future__ import annotations

from hsmjwt.errors import TokenError
from hsmjwt.hsm import library
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import translated


def init_token(module: str, label: str, pin: str, so_pin: str) -> None:
    """Initialise the module's last slot and set the user's PIN; `module` is a real path that is not loaded yet.

    Raises what C_InitToken and C_InitPIN give, TokenError where the module has no free slot.
    """
    loaded = library.load(module)
    with translated("C_GetSlotList"):
        slots = loaded.lib.get_slots()
    if not slots:
        raise TokenError(f"module '{module}' has no slot for a new token")
    loaded.init_token(slots[-1].slot_id, so_pin, label)
    loaded.restart()  # SoftHSM gives the new token a slot of its own, which a fresh start shows
    with translated("C_InitPIN"):
        for slot in loaded.lib.get_slots():
            token = slot.get_token()
            if token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED and token.label == label:
                session = token.open(rw=True, so_pin=so_pin)
                session.init_pin(pin)
                session.close()
                break
        else:
            raise TokenError(
                f"module '{module}' did not keep the new token", hint="look at the folder and the disk's space"
            )
    loaded.restart()  # and another one shows that the user's PIN is set
