"""The slots of a module and the tokens in them, as they show themselves before any login."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from hsmjwt.errors import HsmjwtError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import EMPTY, translated
from hsmjwt.hsm.login import LoginFlags
from hsmjwt.hsm.uri import KeyUri, LibraryInfo, SlotInfo, TokenInfo, format_token_uri


class Slot(msgspec.Struct, frozen=True):
    """A slot as it was when it was read; `token`, `flags` and `login` are None or empty where it is empty.

    `handle` is python-pkcs11's slot, and `opener` its token, which opens sessions. `twin` says that another token has
    the same label and serial number, so that only the slot's id tells them apart. `problem` says why a token that is
    there cannot be read.
    """

    info: SlotInfo
    handle: Any
    token: TokenInfo | None = None
    flags: tuple[str, ...] = ()
    login: LoginFlags | None = None
    opener: Any = None
    twin: bool = False
    problem: str | None = None

    @property
    def initialized(self) -> bool:
        """Tell whether there is a token that may hold keys."""
        return self.token is not None and "TOKEN_INITIALIZED" in self.flags

    @property
    def makes_sense(self) -> bool:
        """Tell whether the flags are those of a token in use: it asks for no login, or has a user PIN."""
        return self.login is not None and (self.login.pin_initialized or not self.login.login_required)

    @property
    def needed_id(self) -> int | None:
        """Return the slot's id where nothing else tells its token from another one."""
        return self.info.slot_id if self.twin else None


def read_slots(lib: Any) -> list[Slot]:
    """Read all slots of a module, python-pkcs11's `lib`; raises what C_GetSlotList and C_GetSlotInfo give."""
    with translated("C_GetSlotList"):
        handles = lib.get_slots()
    slots = [read_slot(handle) for handle in handles]
    names = Counter((slot.token.label, slot.token.serial) for slot in slots if slot.token is not None)
    return [
        msgspec.structs.replace(slot, twin=slot.token is not None and names[slot.token.label, slot.token.serial] > 1)
        for slot in slots
    ]


def read_slot(handle: Any) -> Slot:
    """Read one slot; what goes wrong with its token is kept in it, so that one broken reader hides no other."""
    info = SlotInfo(slot_id=handle.slot_id, description=handle.slot_description, manufacturer=handle.manufacturer_id)
    try:
        with translated("C_GetTokenInfo"):
            token = handle.get_token()
            flags = tuple(str(flag.name) for flag in pkcs11.TokenFlag if flag in token.flags)
            about = TokenInfo(
                label=token.label,
                serial=token.serial.decode("utf-8", "replace").rstrip("\0 "),
                model=token.model,
                manufacturer=token.manufacturer_id,
            )
    except HsmjwtError as error:
        return Slot(info, handle, problem=None if error.ckr in EMPTY else error.message)
    login = LoginFlags(
        login_required="LOGIN_REQUIRED" in flags,
        pin_initialized="USER_PIN_INITIALIZED" in flags,
        count_low="USER_PIN_COUNT_LOW" in flags,
        final_try="USER_PIN_FINAL_TRY" in flags,
        locked="USER_PIN_LOCKED" in flags,
        to_be_changed="USER_PIN_TO_BE_CHANGED" in flags,
    )
    return Slot(info, handle, about, flags, login, token)


def fitting(uri: KeyUri, lib: Any, slots: list[Slot]) -> list[Slot]:
    """Return the slots whose initialised token fits the URI, library attributes included."""
    about = LibraryInfo(
        description=lib.library_description, manufacturer=lib.manufacturer_id, version=lib.library_version
    )
    if not uri.matches_library(about):
        return []
    return [
        slot
        for slot in slots
        if slot.token is not None and slot.initialized and uri.matches_slot(slot.info) and uri.matches_token(slot.token)
    ]


def uris(slots: list[Slot]) -> list[str]:
    """Return a URI for each slot's token that selects it and no other, with the slot's id only where it must."""
    return [format_token_uri(slot.token, slot.needed_id) for slot in slots if slot.token is not None]
