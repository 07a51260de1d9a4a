"""Making a key: nothing half made is left, neither by an error nor by a process that is killed.

A note is on the disk before the token begins (see hsmjwt/hsm/unfinished.py), and the key bears the note's mark for its
id until it has signed. Whoever makes the next key on the token finds the note: before that signature what bears the
mark is removed, after it the key is whole, and gets the id that it was to have.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices, state_folder
from hsmjwt.compose.halves import tables_for
from hsmjwt.custody.dependents import bound_algs
from hsmjwt.custody.leftovers import TAKEN, Bench, Leftovers
from hsmjwt.errors import DeviceError, HsmjwtError, KeyFault, KeyUnfitError, LoginError
from hsmjwt.hsm.creating import removed
from hsmjwt.hsm.keygen import NewKey, NewPair, chosen_mechanisms, generate, rename
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import KeyObject, public_key_of, search
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.unfinished import Unfinished, UnfinishedNotes, begun
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.hsm.ways import ways_left
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.x509.public import key_identifier

_PATIENCE = 10.0  # seconds that a Ctrl-C gives the token to end, so that the new key can be removed
_SAID_AFTER = 0.5  # seconds

MAKES = "the token, which makes the key"
"""The stage in which a token may take minutes."""


class Generated(msgspec.Struct, frozen=True):
    """A key that is there now: its URI, whether it is new, and the attributes that the token did not take."""

    uri: str
    created: bool
    dropped: tuple[str, ...] = ()


def generate_key(devices: Devices, choice: DeviceChoice, new: NewKey, *, if_absent: bool = False) -> Generated:
    """Make a key pair on the token that `choice` leaves, and return the private key's URI.

    The id comes from the public key (RFC 7093, section 2, method 1) unless one is given. The new key signs once, and is
    taken off the token again where that signature does not verify. With `if_absent` a key that has the label already
    and is what was asked for is returned in its place. Raises KeyFault where label or id are taken, DeviceError where
    the token cannot make the key, PolicyError where the key table binds its key to other algorithms, and what a login
    raises.
    """
    folder = state_folder(devices.around.environ)
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    assert slot.token is not None and slot.login is not None  # noqa: S101, PT018 - find_token returns no other
    if choice.pin_source.kind == "none" and slot.login.login_required:
        module.settle()
        raise LoginError("the token asks for a login before it makes a key, and the PIN source is none")
    try:
        new = bound_key(devices, choice, module, slot, new)
    except HsmjwtError:
        module.settle()
        raise
    module.log_in(slot, devices.login(choice))
    notes = UnfinishedNotes(folder, slot.token, devices.around.deadline)
    with notes.turn():
        return _Work(Bench(devices, choice, module, slot, notes), new).done(if_absent=if_absent)


def bound_key(devices: Devices, choice: DeviceChoice, module: Module, slot: Slot, new: NewKey) -> NewKey:
    """Return the new key with the algorithms that its key tables list, where none is asked for.

    Of further ones that are asked for those are left out that the tables do not list. Raises PolicyError where they
    bind it to others.
    """
    tables = tables_for(devices.settings, module, slot, new.label, new.id)
    algs = bound_algs(devices.settings, tables, new.alg, choice.rules)
    if new.alg is not None:
        agreed = bound_algs(devices.settings, tables, None, choice.rules)
        return msgspec.structs.replace(new, also=tuple(alg for alg in new.also if not agreed or alg in agreed))
    able = tuple(alg for alg in algs if new.kind.takes(ALGORITHMS[alg]))
    if not able:  # none is listed, or none that the type makes, which this refuses
        bound_algs(devices.settings, tables, new.algorithm.name, choice.rules)
        return new
    return msgspec.structs.replace(new, alg=able[0], also=able[1:])


class _Work:
    """The making of one key, in a process that is logged in and whose turn it is."""

    def __init__(self, bench: Bench, new: NewKey) -> None:
        self._bench, self._new = bench, new
        self._around, self._module, self._slot, self._notes = bench.around, bench.module, bench.slot, bench.notes
        self._stopped, self._over = threading.Event(), threading.Event()
        self._over.set()  # nothing has begun
        self._hint = TAKEN

    def done(self, *, if_absent: bool) -> Generated:
        left = Leftovers(self._bench, self._new)
        for note in self._notes.read():
            finished = left.tidied(note)
            if finished is not None:
                return Generated(finished, created=True)
        self._hint = left.hint
        with self._abandoned_in_order():
            with self._module.alone():  # or of two that start together both would find the label free
                known = self._known(if_absent=if_absent)
                if known is not None:
                    return Generated(known, created=False)
                mechanisms = chosen_mechanisms(self._new, self._module.mechanisms(self._slot))
                session = self._bench.session
                self._over.clear()
                self._heed()
                before = self._bench.shells()
                note = begun(self._new, None if before is None else len(before))
                self._notes.keep(note)
                try:
                    self._around.deadline.enter(MAKES)
                    pair = generate(session, self._new, self._bench.token, note.mark, mechanisms)
                except HsmjwtError as error:
                    raise self._undone(error, None, note) from None
            self._around.deadline.enter("the token")
            made = self._proven(pair, note, mechanisms)
        self._tell(made)
        return Generated(self._bench.uri(made.private), created=True, dropped=made.dropped)

    # What is there already.

    def _known(self, *, if_absent: bool) -> str | None:
        """Return the URI of the key that has the label, if it will do in place of a new one; None where there is none.

        Raises KeyFault where label or id are taken.
        """
        session, new = self._module.session(self._slot), self._new
        found = search(session, KeyUri(object=new.label), self._bench.token)
        if not found and new.id is not None:
            found = search(session, KeyUri(id=new.id), self._bench.token)
            if_absent = False  # another label is another key
        if not found:
            return None
        private = [key for key in found if key.kind == "private"]
        names = ", ".join(self._bench.uri(key) for key in (private or found)[:2])
        if not private:
            raise KeyFault(
                f"only a public key has this label or id, and no private one: {names}",
                hint=f"hsmjwt key delete '{self._bench.uri(found[0])}' removes it if nobody needs it; {self._hint}",
            )
        if not if_absent:
            raise KeyFault(f"there is a key with this label or id already: {names}", hint=self._hint)
        if len(private) > 1:
            raise KeyFault(f"there are {len(private)} keys with this label already: {names}", hint=self._hint)
        wrong = self._amiss(session, private[0])
        if wrong is not None:
            raise KeyFault(f"there is a key with this label already, and {wrong}: {names}", hint=self._hint)
        return self._bench.uri(private[0])

    def _amiss(self, session: Any, key: KeyObject) -> str | None:
        """Return in words why a key is not what is asked for, None where it is."""
        new = self._new
        try:
            public = public_key_of(session, key)
        except KeyUnfitError as error:
            return error.message
        if not new.kind.describes(public):
            return f"it is no {new.kind.name}"
        if new.id not in (None, key.id):
            return "its id is another one"
        if key.about.get("SENSITIVE") is not True or key.about.get("EXTRACTABLE") is not False:
            return "the token does not say that it is sensitive and not extractable"
        if key.about.get("SIGN") is not True:
            return "it may not sign"
        for alg in (new.algorithm.name, *new.also):
            if not ways_left(alg, key.allowed, None):
                return f"it does not allow {alg}"
        return None

    # The new key.

    def _proven(self, pair: NewPair, note: Unfinished, mechanisms: Sequence[str]) -> NewPair:
        """Have the key sign, and give it its id; where anything goes wrong it is removed again."""
        now: NewPair | None = pair
        try:
            named = self._named(pair, note)
            if named is None:  # the token lets no id change: it is to have the right one from the start
                now = None
                error = pair.removed(DeviceError("the token lets no id change"))
                if error.hint is not None:
                    raise error
                self._heed()
                now = generate(self._bench.session, self._new, self._bench.token, None, mechanisms)
                named = self._named(now, note)
            self._heed()
        except HsmjwtError as error:
            raise self._undone(error, now, note) from None
        self._notes.drop(note)
        assert named is not None  # noqa: S101 - a key that has the id from the start needs no other one
        return named

    def _named(self, pair: NewPair, note: Unfinished) -> NewPair | None:
        """Have the key sign, and give both halves their id; return None where that is asked for and cannot be had."""
        self._heed()
        public = self._bench.signs(self._bench.uri(pair.private), self._new.algorithm.name)
        self._heed()
        if self._new.id is not None and not pair.marked:
            return pair
        final = self._new.id or key_identifier(public)
        self._notes.keep(msgspec.structs.replace(note, final=final, public=key_identifier(public)))
        if rename((pair.public, pair.private), final):
            return pair.named(final)
        self._notes.keep(note)
        return pair if self._new.id is None else None

    def _undone(self, error: HsmjwtError, pair: NewPair | None, note: Unfinished) -> HsmjwtError:
        """Remove what there is of a new key; return `error`, which says so where that fails."""
        told = error if pair is None else pair.removed(error)
        if pair is None or pair.marked:
            with contextlib.suppress(HsmjwtError):  # a session that is lost: the note stays, and the next run looks
                told = removed([half.handle for half in self._bench.keys(KeyUri(id=note.mark))], error, self._new.label)
                if told is error:
                    self._notes.drop(note)
        elif told is error:
            self._notes.drop(note)
        return told

    def _tell(self, pair: NewPair) -> None:
        """Say what the token did not take, and what that means."""
        if pair.dropped:
            text = f"the token did not take {', '.join(pair.dropped)}: the key was made without"
            if any(name.startswith("CKA_ALLOWED_MECHANISMS") for name in pair.dropped):
                text += f"; alg = {self._new.algorithm.name!r} in its key table binds it to that algorithm"
            self._around.warn(text)
        if pair.beyond:
            self._around.warn(f"warning: the token lets the key do more than sign: {', '.join(pair.beyond)}")

    # Ctrl-C, SIGTERM and the end of time.

    @contextlib.contextmanager
    def _abandoned_in_order(self) -> Iterator[None]:
        with self._around.deadline.on_abandon(self._abandon):
            try:
                yield
            finally:
                self._over.set()

    def _abandon(self) -> None:
        """Wait for the token to end, and for the new key to be removed; runs in the thread that ends the process."""
        self._stopped.set()
        if self._around.deadline.over() or self._over.wait(_SAID_AFTER):
            return
        self._around.warn("waiting for the token to end, so that nothing is left on it; Ctrl-C ends at once")
        if not self._over.wait(_PATIENCE):
            self._around.warn("the token is still at work: the next key generate on it removes what it leaves")

    def _heed(self) -> None:
        """End the work where the process is about to end."""
        if self._stopped.is_set():
            raise HsmjwtError("interrupted")
