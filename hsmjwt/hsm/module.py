"""An open PKCS#11 module: its tokens, the one login, and the sessions that share it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, HsmjwtError, LoginError, TokenError, TokenNotFoundError, TokenNotUniqueError
from hsmjwt.hsm import library as libraries
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.discovery import ModuleChoice
from hsmjwt.hsm.faults import PIN_REFUSED, translated
from hsmjwt.hsm.login import LoginFlags, LoginNotes, LoginRules, ModuleLock, decide_flags, decide_note, settled
from hsmjwt.hsm.objects import label_mapper
from hsmjwt.hsm.uri import KeyUri, LibraryInfo, SlotInfo, TokenInfo, format_token_uri
from hsmjwt.secret import Resolved, SecretSource

_SECOND_LOOK_AFTER = 0.02  # seconds; a token file that somebody else is writing is whole by then

PinReader = Callable[[TokenInfo], Resolved]


class Slot(msgspec.Struct, frozen=True):
    """A slot as the module shows it; `token`, `flags` and `login` are None or empty where it is empty."""

    info: SlotInfo
    handle: Any
    token: TokenInfo | None = None
    flags: tuple[str, ...] = ()
    login: LoginFlags | None = None


class Login(msgspec.Struct, frozen=True):
    """How to log in: where the PIN comes from, how to read it, and what the user allows."""

    source: SecretSource
    read: PinReader
    rules: LoginRules


class Module:
    """A module that is loaded and initialised.

    From `open` until `settle` or the end of `login` this process holds the module's lock (see hsm/login.py). One
    session logs in and stays open for the life of the module, since closing it would log out all others.
    """

    def __init__(
        self, choice: ModuleChoice, state_folder: str | None, deadline: Deadline, warn: Callable[[str], None]
    ) -> None:
        """Take the lock, then load and initialise the module.

        `state_folder` exists and is ours; None where there is none, and then nothing can log in. Raises what
        `library.load` raises, BusyError when the lock is not had in time.
        """
        self.choice = choice
        self._state_folder = state_folder
        self._warn = warn
        self._deadline = deadline
        self._lock = None if state_folder is None else ModuleLock(state_folder, choice.real, deadline)
        self._keepers: dict[TokenInfo, Any] = {}
        self._logged_in: set[TokenInfo] = set()
        if self._lock is not None:
            self._lock.acquire()
        try:
            self.library = _load(choice.real)
        except BaseException:
            self.settle()
            raise

    def settle(self) -> None:
        """Let the module's lock go: nothing will log in now."""
        if self._lock is not None:
            self._lock.release()

    def slots(self) -> list[Slot]:
        """List the slots, as the module shows them now; never logs in."""
        self.library.check_process()
        with translated("C_GetSlotList"):
            handles = self.library.lib.get_slots()
        return [self._slot(handle) for handle in handles]

    def _slot(self, handle: Any) -> Slot:
        info = SlotInfo(
            slot_id=handle.slot_id, description=handle.slot_description, manufacturer=handle.manufacturer_id
        )
        try:
            with translated("C_GetTokenInfo"):
                return _with_token(info, handle, handle.get_token())
        except TokenError:
            return Slot(info, handle)
        except HsmjwtError as error:  # one broken reader must not hide the others
            self._warn(f"slot {handle.slot_id} ({handle.slot_description}) cannot be read: {error.message}")
            return Slot(info, handle)

    def mechanisms(self, slot: Slot) -> list[str]:
        """Return the names of the token's mechanisms, unknown ones as hexadecimal."""
        with translated("C_GetMechanismList"):
            found = slot.handle.get_mechanisms()
        return sorted(item.name if hasattr(item, "name") else f"0x{int(item):08x}" for item in found)

    def find_tokens(self, uri: KeyUri) -> list[Slot]:
        """Return the slots whose initialised token fits the URI."""
        lib = self.library.lib
        about = LibraryInfo(
            description=lib.library_description, manufacturer=lib.manufacturer_id, version=lib.library_version
        )
        if not uri.matches_library(about):
            return []
        return [
            slot
            for slot in self.slots()
            if slot.token is not None
            and "TOKEN_INITIALIZED" in slot.flags
            and uri.matches_slot(slot.info)
            and uri.matches_token(slot.token)
        ]

    def find_token(self, uri: KeyUri) -> Slot:
        """Return the one slot whose token fits; raises TokenNotFoundError or TokenNotUniqueError.

        What may come from a file that another process was writing is looked at once more after a fresh initialise.
        """
        try:
            slot = self._one_token(uri)
            if slot.login is None or slot.login.pin_initialized or not slot.login.login_required:
                return slot
        except TokenNotUniqueError:
            raise
        except HsmjwtError:
            if self._keepers:
                raise
        if not self._keepers:
            time.sleep(_SECOND_LOOK_AFTER)
            self.library.restart()
        return self._one_token(uri)

    def _one_token(self, uri: KeyUri) -> Slot:
        found = self.find_tokens(uri)
        if len(found) == 1:
            return found[0]
        if found:
            raise TokenNotUniqueError(
                f"{len(found)} tokens fit '{uri}'", hint=_listed("add what tells them apart:", self.token_uris(found))
            )
        every = [slot for slot in self.slots() if slot.token is not None and "TOKEN_INITIALIZED" in slot.flags]
        if every:
            hint = _listed("these are there:", self.token_uris(every))
        else:
            hint = f"module '{self.choice.path}' shows no initialised token; hsmjwt slot list shows its slots"
        if uri.unknown:
            hint = f"{uri.unknown_hint()}; {hint}"
        raise TokenNotFoundError(f"no token fits '{uri}'", hint=hint)

    def token_uris(self, slots: list[Slot]) -> list[str]:
        """Return a URI for each slot's token that selects it and no other, with the slot's id only where it must."""
        tokens = [slot.token for slot in self.slots() if slot.token is not None and "TOKEN_INITIALIZED" in slot.flags]
        return [
            format_token_uri(slot.token, slot.info.slot_id if self._ambiguous(slot.token, tokens) else None)
            for slot in slots
            if slot.token is not None
        ]

    def slot_id_needed(self, slot: Slot) -> int | None:
        """Return the slot's id where label and serial do not tell its token from another one."""
        tokens = [other.token for other in self.slots() if other.token is not None]
        return slot.info.slot_id if slot.token is not None and self._ambiguous(slot.token, tokens) else None

    @staticmethod
    def _ambiguous(token: TokenInfo, tokens: list[TokenInfo]) -> bool:
        return sum(other.label == token.label and other.serial == token.serial for other in tokens) > 1

    def session(self, slot: Slot, *, write: bool = False) -> Any:
        """Open a session that shares the login, if there is one; a read-only one is opened once for each token."""
        assert slot.token is not None  # noqa: S101 - find_token returns no other
        self.library.check_process()
        if not write and slot.token in self._keepers:
            return self._keepers[slot.token]
        with translated("C_OpenSession"):
            session = slot.handle.get_token().open(rw=write, attribute_mapper=label_mapper())
        if not write:
            self._keepers.setdefault(slot.token, session)
        return session

    def renew(self, slot: Slot) -> Any:
        """Open another session in place of one that the token lost; the lost one is not closed."""
        assert slot.token is not None  # noqa: S101
        self._keepers.pop(slot.token, None)
        return self.session(slot)

    def login(self, slot: Slot, login: Login) -> Any:
        """Return a session that is logged in, where the token asks for a login; an open one otherwise.

        The lock is let go while the PIN is read, taken again, and then everything is looked at afresh. Raises
        LoginError where the login is refused or withheld; ends with the lock let go.
        """
        assert slot.token is not None and slot.login is not None  # noqa: S101, PT018
        try:
            if slot.token in self._logged_in or not slot.login.login_required or login.source.kind == "none":
                return self.session(slot)
            if self._lock is None:
                raise ConfigError("there is no state folder, and without its lock nothing logs in", hint="set HOME")
            decide_flags(slot.login, slot.token.label, login.rules)
            self._lock.release()
            presented = login.read(slot.token)
            self._lock.acquire()
            with self._attempt(slot, login, presented):
                with translated("C_Login"):
                    session = slot.handle.get_token().open(
                        user_pin=presented.secret.reveal(), attribute_mapper=label_mapper()
                    )
                self._keepers[slot.token] = session
            self._logged_in.add(slot.token)
            return session
        finally:
            self.settle()

    @contextlib.contextmanager
    def _attempt(self, slot: Slot, login: Login, presented: Resolved) -> Iterator[None]:
        """Look at the token and the notes once more, then have the block log in; the lock is held."""
        token = slot.token
        assert token is not None and self._state_folder is not None  # noqa: S101, PT018
        now = self._slot(slot.handle)
        if now.token is None or now.login is None:
            raise TokenError(f"token '{token.label}' is gone", hint="hsmjwt slot list shows what is there")
        if now.token != token:
            raise TokenError(f"another token took the place of '{token.label}' in its slot")
        longest = self.library.longest_pin(slot.info.slot_id)
        if longest is not None and len(presented.secret.reveal().encode()) > longest:
            raise ConfigError(
                f"the PIN from {login.source.noted} is longer than the {longest} bytes that the token takes"
            )
        warning = decide_flags(now.login, token.label, login.rules)
        notes = LoginNotes(self._state_folder, token)
        known = settled(notes.read(), now.login)
        decide_note(known, login.source, presented, login.rules)
        if warning:
            self._warn(warning)
        with notes.attempt(known, login.source, presented) as outcome:
            try:
                yield
                outcome.accepted = True
            except HsmjwtError as error:
                outcome.refused = error.ckr in PIN_REFUSED
                outcome.moot = error.ckr == "CKR_USER_ALREADY_LOGGED_IN"
                raise

    @contextlib.contextmanager
    def context_login(self, slot: Slot, login: Login, presented: Resolved) -> Iterator[str]:
        """Hand out the PIN for one context-specific login, under the same rules as the first one."""
        if self._lock is None:
            raise LoginError("the key asks for its PIN at each use, and there is no state folder to note it in")
        self._lock.acquire()
        try:
            with self._attempt(slot, login, presented):
                yield presented.secret.reveal()
        finally:
            self.settle()


def _load(path: str) -> libraries.Library:
    try:
        return libraries.load(path)
    except HsmjwtError as error:
        if error.ckr != "CKR_GENERAL_ERROR":
            raise
    time.sleep(_SECOND_LOOK_AFTER)
    try:
        return libraries.load(path)
    except HsmjwtError as error:
        if error.ckr == "CKR_GENERAL_ERROR" and "softhsm" in path:
            raise TokenError(
                "SoftHSM cannot read its configuration (C_Initialize gave CKR_GENERAL_ERROR)",
                hint='set SOFTHSM2_CONF to a softhsm2.conf that you may read, or: eval "$(hsmjwt softhsm env)"',
                ckr=error.ckr,
            ) from None
        raise


def _with_token(info: SlotInfo, handle: Any, token: Any) -> Slot:
    flags = tuple(str(flag.name) for flag in pkcs11.TokenFlag if flag in token.flags)
    return Slot(
        info,
        handle,
        TokenInfo(
            label=token.label,
            serial=token.serial.decode("utf-8", "replace").rstrip(),
            model=token.model,
            manufacturer=token.manufacturer_id,
        ),
        flags,
        LoginFlags(
            login_required="LOGIN_REQUIRED" in flags,
            initialized="TOKEN_INITIALIZED" in flags,
            pin_initialized="USER_PIN_INITIALIZED" in flags,
            count_low="USER_PIN_COUNT_LOW" in flags,
            final_try="USER_PIN_FINAL_TRY" in flags,
            locked="USER_PIN_LOCKED" in flags,
            to_be_changed="USER_PIN_TO_BE_CHANGED" in flags,
            protected_path="PROTECTED_AUTHENTICATION_PATH" in flags,
        ),
    )


def _listed(first: str, lines: list[str]) -> str:
    return "\n  ".join((first, *lines))
