"""What an earlier run has left of a key that it was making: finished where the key has signed, removed where not."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import Any

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody.proof import self_test
from hsmjwt.errors import DeviceError, HsmjwtError, KeyFault, KeyUnfitError
from hsmjwt.hsm.creating import removed
from hsmjwt.hsm.keygen import NewKey, rename
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import NAMES, KeyObject, search
from hsmjwt.hsm.shells import may_hold_shells, shells
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.unfinished import Unfinished, UnfinishedNotes
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.keys import PublicKey
from hsmjwt.keyrules import KeyRules
from hsmjwt.x509.public import key_identifier

TAKEN = "take another --label or --id; nothing was changed"
"""What to do where a name is taken."""


class Bench:
    """Where a process that is logged in makes keys: one token, the session that writes to it, the notes about it."""

    def __init__(
        self, devices: Devices, choice: DeviceChoice, module: Module, slot: Slot, notes: UnfinishedNotes
    ) -> None:
        """Take the token in a slot; nothing is opened yet."""
        assert slot.token is not None  # noqa: S101 - find_token returns no other
        self.around, self.module, self.slot, self.notes = devices.around, module, slot, notes
        self.token = slot.token
        self._devices = devices
        # What a key table demands of its key is not asked of the signature that comes before anybody has the key.
        self._choice = msgspec.structs.replace(choice, rules=KeyRules())

    @cached_property
    def session(self) -> Any:
        """The session that writes."""
        return self.module.session(self.slot, write=True)

    def keys(self, uri: KeyUri) -> list[KeyObject]:
        """Return the keys that a URI selects, by name alone."""
        return search(self.session, uri, self.token, NAMES)

    def uri(self, key: KeyObject) -> str:
        """Return a key's full URI."""
        return key.uri(self.slot.needed_id)

    def signs(self, uri: str, alg: str) -> PublicKey:
        """Have a key sign once, and return its public half; raises what `self_test` raises."""
        return self_test(self._devices, self._choice, uri, alg)

    def shells(self) -> list[int] | None:
        """Return the objects without name and content, by number; None where none can be on the token."""
        direct = self.module.library.direct
        if direct is None or not may_hold_shells(self.token):
            return None
        return shells(direct, self.session.handle)


class Leftovers:
    """What notes tell of keys that earlier runs were making, looked after before `new` is made.

    `hint` says what to do where the name of the new key is taken.
    """

    def __init__(self, bench: Bench, new: NewKey) -> None:
        """Take the place where the new key is to be made."""
        self._bench, self._new, self.hint = bench, new, TAKEN

    def tidied(self, note: Unfinished) -> str | None:
        """Finish or remove what an earlier run has left; return the URI of a key that is what is asked for now."""
        marked = self._bench.keys(KeyUri(object=note.label, id=note.mark))
        if note.final is None:
            if note.label == self._new.label and not marked:
                # Where a token took the id that was asked for, and no mark, there is no telling whose it is.
                self.hint = "an interrupted run may have left it: hsmjwt key delete removes it if nobody uses it"
            self._sweep(note)
            self._clear(note, marked)
            return None
        named = self._bench.keys(KeyUri(object=note.label, id=note.final))
        if sum(half.kind == "private" for half in (*marked, *named)) == 1:
            rename(marked, note.final)
            try:
                return self._finished(note)
            except HsmjwtError as error:
                if not isinstance(error, KeyFault) and error.ckr is not None:  # the token's trouble, not the key's
                    self._fail(note, error)
                    return None
                self._bench.around.warn(
                    f"warning: the key '{note.label}' of an interrupted run is no good: {error.message}"
                )
        self._clear(note, marked + self._public_halves(note))
        return None

    def _finished(self, note: Unfinished) -> str | None:
        """Have a key sign once more that has its last id by now, and keep it."""
        assert note.final is not None  # noqa: S101 - the caller has looked
        found = [
            self._bench.keys(KeyUri(object=note.label, id=each, type="private")) for each in (note.final, note.mark)
        ]
        uri = self._bench.uri((found[0] or found[1])[0])
        self._bench.signs(uri, note.alg)
        self._bench.notes.drop(note)
        self._bench.around.warn(f"finished the key that an interrupted run had made: {uri}")
        return uri if note.is_of(self._new) else None

    def _public_halves(self, note: Unfinished) -> list[KeyObject]:
        """Return the objects with a key's last id that hold the very public key that its note speaks of."""
        found = []
        for half in search(
            self._bench.session, KeyUri(object=note.label, id=note.final, type="public"), self._bench.token
        ):
            with contextlib.suppress(KeyUnfitError):
                if key_identifier(half.public_key()) == note.public:
                    found.append(half)
        return found

    def _clear(self, note: Unfinished, left: list[KeyObject]) -> None:
        """Remove what is left of a key that was never handed out."""
        names = ", ".join(self._bench.uri(half) for half in left)
        fault = DeviceError(f"what an interrupted run has left cannot be removed: {names}")
        failed = removed((half.handle for half in left), fault, note.label)
        if failed is not fault:
            self._fail(note, failed)
            return
        if left:
            self._bench.around.warn(f"removed what an interrupted run had left of a new key: {names}")
        self._bench.notes.drop(note)

    def _sweep(self, note: Unfinished) -> None:
        """Remove what is no key yet, where there was no such thing when the note was written."""
        found, direct = self._bench.shells(), self._bench.module.library.direct
        if note.shells != 0 or not found or direct is None:
            return
        try:
            for number in found:
                direct.destroy(self._bench.session.handle, number)
        except HsmjwtError as error:
            self._fail(note, error)
            return
        self._bench.around.warn(f"removed what an interrupted run had left of a new key: {len(found)} without a name")

    def _fail(self, note: Unfinished, error: HsmjwtError) -> None:
        """Raise the error that keeps the note, unless another key is in hand."""
        if note.label == self._new.label:
            raise error
        self._bench.around.warn(f"warning: {error.message}")
