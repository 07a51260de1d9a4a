"""An open PKCS#11 module: its tokens, the one login, and the sessions that share it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hsmjwt.deadline import Deadline
from hsmjwt.errors import (
    ConfigError,
    DeviceError,
    HsmjwtError,
    LoginError,
    TokenError,
    TokenNotFoundError,
    TokenNotUniqueError,
)
from hsmjwt.hsm import library as libraries
from hsmjwt.hsm.attributes import label_mapper
from hsmjwt.hsm.discovery import ModuleChoice
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.login import LoginNotes, LoginRules, ModuleLock, decide_flags, decide_note, settled
from hsmjwt.hsm.pool import Place, Pool
from hsmjwt.hsm.slots import Slot, fitting, read_slot, read_slots, uris
from hsmjwt.hsm.uri import KeyUri, TokenInfo
from hsmjwt.secret import Resolved, SecretSource

_SECOND_LOOK_AFTER = 0.02  # seconds; a token file that somebody else is writing is whole by then
_SESSION_WAIT = 0.5  # seconds for another program to give a session back
_UNWRITABLE = "where it keeps its keys may be read-only, another user's or gone; nothing was changed"
_PLACES = 8  # sessions of one token that sign at a time; small tokens have sixteen for everybody

PinReader = Callable[[TokenInfo], Resolved]


class Login(msgspec.Struct, frozen=True):
    """How to log in: where the PIN comes from, how to read it, and what the user allows.

    `read` may be called again, and gives what it gave at first.
    """

    source: SecretSource
    read: PinReader
    rules: LoginRules


class Module:
    """A module that is loaded and initialised.

    From the start until `settle` or the end of `login` this process holds the module's lock (see hsm/login.py). One
    session a token logs in and stays open for the life of the module, since closing it would log out all others.
    """

    def __init__(
        self,
        choice: ModuleChoice,
        state_folder: str | HsmjwtError,
        deadline: Deadline,
        warn: Callable[[str], None],
    ) -> None:
        """Take the lock, then load and initialise the module.

        `state_folder` exists and is ours; where there is none it is the error that says so, which is raised when
        something is to log in. Raises what `library.load` raises, BusyError when the lock is not had in time.
        """
        self.choice = choice
        self._state_folder = state_folder
        self._deadline = deadline
        self._warn = warn
        self._lock = ModuleLock(state_folder, choice.real, deadline) if isinstance(state_folder, str) else None
        self._login_turn = threading.RLock()  # the module's lock is one for the whole process
        self._untaken: dict[int, Any] = {}  # by slot: what logged in, until somebody has use for it
        self._looking: dict[int, Any] = {}  # by slot: what `session` handed out
        self._pools: dict[int, Pool] = {}
        self._logged_in: set[int] = set()
        try:
            self._hold()
        except ConfigError as error:  # what only looks at a token needs no lock
            self._state_folder, self._lock = error, None
        try:
            self.library = _load(choice.real)
        except BaseException:
            self.settle()
            raise

    def _hold(self) -> None:
        if self._lock is not None:
            self._lock.acquire()

    def settle(self) -> None:
        """Let the module's lock go: nothing will log in now."""
        if self._lock is not None:
            self._lock.release()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other hsmjwt processes out of the module while the block looks and then acts on what it saw."""
        self._hold()
        try:
            yield
        finally:
            self.settle()

    def slots(self) -> list[Slot]:
        """List the slots, as the module shows them now; never logs in. Warns of a token that cannot be read."""
        slots = self._slots()
        for slot in slots:
            if slot.problem is not None:
                self._warn(f"slot {slot.info.slot_id} ({slot.info.description}) cannot be read: {slot.problem}")
        return slots

    def _slots(self) -> list[Slot]:
        self.library.check_process()
        return read_slots(self.library.lib)

    def mechanisms(self, slot: Slot) -> list[str]:
        """Return the names of the token's mechanisms, unknown ones as hexadecimal."""
        self.library.check_process()
        with translated("C_GetMechanismList"):
            found = slot.handle.get_mechanisms()
        # python-pkcs11 puts a low line before the names that it does not offer itself.
        return sorted(item.name.lstrip("_") if hasattr(item, "name") else f"0x{int(item):08x}" for item in found)

    def find_tokens(self, uri: KeyUri) -> list[Slot]:
        """Return the slots whose initialised token fits the URI."""
        return fitting(uri, self.library.lib, self.slots())

    def find_token(self, uri: KeyUri) -> Slot:
        """Return the one slot whose token fits; raises TokenNotFoundError or TokenNotUniqueError.

        What may come from a file that another process was writing is looked at once more after a fresh initialise.
        """
        if not self.library.used:
            try:
                found = fitting(uri, self.library.lib, self._slots())
                if len(found) == 1 and found[0].makes_sense:
                    return found[0]
            except HsmjwtError:
                found = []
            if len(found) <= 1:
                self._start_afresh()
        slots = self.slots()
        found = fitting(uri, self.library.lib, slots)
        if len(found) == 1:
            return found[0]
        self.settle()  # nothing will log in now
        if found:
            hint = "\n  ".join(("add what tells them apart:", *uris(found)))
            raise TokenNotUniqueError(f"{len(found)} tokens fit '{uri.brief}'", hint=hint)
        raise TokenNotFoundError(f"no token fits '{uri.brief}'", hint=self._what_is_there(uri, slots))

    def _start_afresh(self) -> None:
        """Initialise the module once more, under its lock; nothing uses it yet."""
        held = self._lock is not None and self._lock.held
        self._hold()
        time.sleep(_SECOND_LOOK_AFTER)
        self.library.restart()
        if not held:
            self.settle()

    def _what_is_there(self, uri: KeyUri, slots: list[Slot]) -> str:
        there = uris([slot for slot in slots if slot.initialized])
        if there:
            hint = "\n  ".join(("these are there:", *there))
        else:
            hint = f"module '{self.choice.path}' shows no initialised token; hsmjwt slot list shows its slots"
            if "p11-kit" in self.choice.real:  # SoftHSM behind it without its configuration, for one
                hint += "; p11-kit leaves out modules that do not start: name the one that is meant with --module"
            elif "softhsm" in self.choice.real:
                hint += "; where SoftHSM looks for tokens is in the configuration that SOFTHSM2_CONF names"
        return "; ".join(part for part in (uri.unknown_hint(), hint) if part)

    def token_uris(self, slots: list[Slot]) -> list[str]:
        """Return a URI for each slot's token that selects it and no other."""
        return uris(slots)

    def session(self, slot: Slot, *, write: bool = False) -> Any:
        """Return a session that shares the login, if there is one; a read-only one is opened once for each token.

        It is for one thread to look at objects with; what signs has those of `pool`, and never one of these.
        """
        self.library.check_process()
        if write:
            return self._open(self._seen_again(slot, write=True), write=True)
        known = self._looking.get(slot.info.slot_id)
        if known is None:
            known = self._looking[slot.info.slot_id] = self._taken_or_opened(slot)
        return known

    def pool(self, slot: Slot) -> Pool:
        """Return the token's sessions that sign, which are theirs alone.

        The first is the one that logged in, unless `session` handed that out before. A module that is not shared has
        one place.
        """
        slot_id, library = slot.info.slot_id, self.library
        with self._login_turn:
            if slot_id not in self._pools:
                turn, most = (threading.Lock(), _PLACES) if library.shared else (library.turn, 1)
                self._pools[slot_id] = Pool(Place(self._taken_or_opened(slot), turn), most, lambda: self._further(slot))
            return self._pools[slot_id]

    def _taken_or_opened(self, slot: Slot) -> Any:
        """Take the session that logged in, which is taken once: two who use one disturb each other."""
        session = self._untaken.pop(slot.info.slot_id, None)
        return self.renew(slot) if session is None else session

    def _further(self, slot: Slot) -> Any:
        """Open one more session; where the token has none left there is no wait for it."""
        return self._open(self._seen_again(slot), patient=False)

    def renew(self, slot: Slot) -> Any:
        """Open another session in place of one that the token lost; the lost one is not closed."""
        return self._open(self._seen_again(slot))

    def _open(self, slot: Slot, *, write: bool = False, pin: str | None = None, patient: bool = True) -> Any:
        """Open a session on the token as it was just seen; with a PIN it logs in, once.

        Where the token has no session left, the patient wait for another program to give one back.
        """
        self.library.check_process()
        self.library.used = True
        for last in (not patient, True):
            try:
                with translated("C_OpenSession" if pin is None else "C_OpenSession or C_Login"):
                    return slot.opener.open(rw=write, user_pin=pin, attribute_mapper=label_mapper())
            except HsmjwtError as error:
                if last or error.ckr != "CKR_SESSION_COUNT":  # with that one nothing was sent
                    raise
            left = self._deadline.remaining()
            time.sleep(_SESSION_WAIT if left is None else min(_SESSION_WAIT, left))
        raise AssertionError("unreachable")  # pragma: no cover

    def login(self, slot: Slot, login: Login) -> Any:
        """Return a session that is logged in, where the token asks for a login; an open one otherwise.

        Raises what `log_in` raises.
        """
        self.log_in(slot, login)
        return self.session(slot)

    def shows_all(self, slot: Slot) -> bool:
        """Tell whether private objects show themselves: this process logged in, or the token asks for no login."""
        return slot.info.slot_id in self._logged_in or (slot.login is not None and not slot.login.login_required)

    def log_in(self, slot: Slot, login: Login) -> None:
        """Log in where the token asks for it and this process has not done so yet.

        The lock is let go while the PIN is read, taken again, and then everything is looked at afresh. Raises
        LoginError where the login is refused or withheld; ends with the lock let go.
        """
        assert slot.token is not None and slot.login is not None  # noqa: S101, PT018 - find_token returns no other
        self.library.check_process()
        with self._login_turn:
            try:
                if slot.info.slot_id in self._logged_in or not slot.login.login_required or login.source.kind == "none":
                    return
                self._needed_folder()
                decide_flags(slot.login, slot.token.label, login.rules)  # before anybody is asked for a PIN
                self.settle()
                presented = login.read(slot.token)
                self._hold()
                self._log_in(slot, login, presented)
            finally:
                self.settle()

    def login_again(self, slot: Slot, login: Login) -> Any:
        """Log in once more after the login got lost, if this process did so before; returns a new session.

        The PIN worked a moment ago, and yet it is not sent where it could be the last try.
        """
        with self._login_turn:
            self._untaken.pop(slot.info.slot_id, None)
            self._looking.pop(slot.info.slot_id, None)
            if slot.info.slot_id in self._logged_in:
                self._logged_in.discard(slot.info.slot_id)
                login = msgspec.structs.replace(login, rules=LoginRules())
            self.log_in(slot, login)
            return self._taken_or_opened(slot)

    def _log_in(self, slot: Slot, login: Login, presented: Resolved) -> None:
        try:
            with self._attempt(slot, login, presented) as seen:
                session = self._open(seen, pin=presented.secret.reveal())
        except LoginError as error:
            if error.ckr != "CKR_USER_ALREADY_LOGGED_IN":  # by somebody else in this process
                raise
            session = self._open(self._seen_again(slot))
        self._untaken[slot.info.slot_id] = session
        self._logged_in.add(slot.info.slot_id)

    @contextlib.contextmanager
    def context_login(self, slot: Slot, login: Login) -> Iterator[str]:
        """Hand out the PIN for one context-specific login, under the same rules as the first one."""
        assert slot.token is not None  # noqa: S101 - find_token returns no other
        if login.source.kind == "none":
            raise LoginError("the key asks for its PIN at each use, and the PIN source is none")
        with self._login_turn:
            self._needed_folder()
            presented = login.read(slot.token)
            self._hold()
            try:
                with self._attempt(slot, login, presented):
                    yield presented.secret.reveal()
            finally:
                self.settle()

    @contextlib.contextmanager
    def _attempt(self, slot: Slot, login: Login, presented: Resolved) -> Iterator[Slot]:
        """Look at the token and the notes once more, then have the block log in; the lock is held."""
        seen = self._seen_again(slot)
        assert seen.token is not None and seen.login is not None  # noqa: S101, PT018
        longest = self.library.longest_pin(seen.info.slot_id)
        if longest is not None and len(presented.secret.reveal().encode()) > longest:
            raise ConfigError(
                f"the PIN from {login.source.noted} is longer than the {longest} bytes that the token takes"
            )
        warning = decide_flags(seen.login, seen.token.label, login.rules)
        notes = LoginNotes(self._needed_folder(), seen.token)
        known = settled(notes.read(), seen.login)
        decide_note(known, login.source, presented, login.rules)
        if warning:
            self._warn(warning)
        with notes.attempt(known, login.source, presented):
            yield seen

    def _seen_again(self, slot: Slot, *, write: bool = False) -> Slot:
        """Look at the very token once more; raises TokenError where it is gone or another one is in its slot.

        One that is to be written and tells nothing any more is a DeviceError: SoftHSM's is lost to a login that it
        cannot write down.

        What may come from a file that another process was writing is looked at twice, the second time after a fresh
        initialise, as long as nothing uses the module yet.
        """
        assert slot.token is not None  # noqa: S101 - find_token returns no other
        now = read_slot(slot.handle)
        if not self.library.used and not now.makes_sense:
            self._start_afresh()
            now = next((each for each in self._slots() if each.token == slot.token), now)
        if now.token is None and now.problem and write:
            raise DeviceError(f"the token '{slot.token.label}' cannot be written: {now.problem}", hint=_UNWRITABLE)
        if now.token is None:
            raise TokenError(
                f"token '{slot.token.label}' is gone" + (f": {now.problem}" if now.problem else ""),
                hint="hsmjwt slot list shows what is there",
            )
        if now.token != slot.token:
            raise TokenError(f"another token took the place of '{slot.token.label}' in its slot")
        return now

    def _needed_folder(self) -> str:
        if isinstance(self._state_folder, str):
            return self._state_folder
        raise self._state_folder


def _load(path: str) -> libraries.Library:
    """Load a module; one that failed over a file that somebody else was writing gets a second chance."""
    try:
        return libraries.load(path)
    except HsmjwtError as error:
        if error.ckr != "CKR_GENERAL_ERROR":
            raise
    time.sleep(_SECOND_LOOK_AFTER)
    return libraries.load(path)
