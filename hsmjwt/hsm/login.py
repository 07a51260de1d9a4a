"""How a token is never locked by us: one lock, one attempt, and a note of a PIN that was refused.

The decision (`decide_flags`, `settled`, `decide_note`) is made of pure functions of the token's flags and the notes. A
note holds nothing from which a PIN could be guessed: for a file its identity, for any other source one byte of an HMAC
under a random salt, which a changed PIN differs from 255 times in 256 and which tells nobody the PIN.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import Iterator
from typing import Literal

import msgspec

from hsmjwt import whole_file
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError, HsmjwtError, LoginError
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.private import open_file
from hsmjwt.secret import Identity, Resolved, SecretSource

_POLL_FIRST, _POLL_LAST = 0.005, 0.05  # seconds between two looks at a lock that somebody else holds
_NOTES_KEPT = 8

# What a login may end with, by the name of its code: the PIN must not be sent again; or no PIN was compared, or it was
# found right. With any other code nobody can tell.
_REFUSED = ("CKR_PIN_INCORRECT", "CKR_PIN_INVALID", "CKR_PIN_LEN_RANGE", "CKR_PIN_LOCKED")
_NO_TRY_LOST = ("CKR_USER_", "CKR_SESSION_", "CKR_OPERATION_", "CKR_MECHANISM_", "CKR_KEY_", "CKR_PIN_EXPIRED")


class LoginFlags(msgspec.Struct, frozen=True):
    """What CK_TOKEN_INFO says about logins (PKCS#11 2.40, section 3.2)."""

    login_required: bool
    pin_initialized: bool
    count_low: bool
    final_try: bool
    locked: bool
    to_be_changed: bool


class LoginRules(msgspec.Struct, frozen=True):
    """What the user allows: `--allow-last-try` and `--retry-pin`."""

    allow_last_try: bool = False
    retry_pin: bool = False


class Note(msgspec.Struct, frozen=True):
    """What is remembered of one PIN source at one token.

    `outcome` is "attempt" while C_Login has not answered. `identity` is the file's, where the source is a file; `check`
    the first byte of HMAC-SHA-256 of the PIN under `salt`, where it is none.
    """

    source: str
    time: float
    outcome: Literal["attempt", "refused"]
    identity: Identity | None = None
    salt: bytes = b""
    check: bytes = b""

    def applies(self, source: SecretSource, presented: Resolved) -> bool:
        """Tell whether this note speaks of the very PIN that is presented now, as far as can be known."""
        if self.source != source.noted or self.identity != presented.identity:
            return False
        return self.identity is not None or self.check == _check(self.salt, presented)


def decide_flags(flags: LoginFlags, token: str, rules: LoginRules) -> str | None:
    """Refuse a login that the flags forbid (LoginError); return a warning where they ask for care.

    `token` is the token's label, for the message.
    """
    if flags.locked:
        raise LoginError(
            f"the PIN of token '{token}' is locked",
            hint="unlock it with the security officer's PIN",
            ckr="CKR_PIN_LOCKED",
        )
    if flags.to_be_changed:
        raise LoginError(f"the PIN of token '{token}' must be changed first", hint="use the token's own tool")
    if not flags.pin_initialized:
        raise LoginError(
            f"token '{token}' has no user PIN yet",
            hint="set one with the token's own tool, for example pkcs11-tool --init-pin",
            ckr="CKR_USER_PIN_NOT_INITIALIZED",
        )
    if flags.final_try and not rules.allow_last_try:
        raise LoginError(
            f"login withheld: one try is left before the PIN of token '{token}' is locked",
            hint="if you are sure of the PIN, --allow-last-try uses that try",
        )
    if flags.count_low or flags.final_try:
        return f"warning: the token '{token}' has seen a wrong PIN since the last login (few tries may be left)"
    return None


def settled(notes: list[Note], flags: LoginFlags) -> list[Note]:
    """Give each attempt without an outcome (its process was killed) the one that the token's flags tell.

    It counts as refused where the token shows that a try was lost, and for nothing otherwise.
    """
    if flags.count_low or flags.final_try or flags.locked:
        return [msgspec.structs.replace(note, outcome="refused") for note in notes]
    return [note for note in notes if note.outcome == "refused"]


def decide_note(notes: list[Note], source: SecretSource, presented: Resolved, rules: LoginRules) -> None:
    """Refuse to send a PIN that this token refused before (LoginError), unless `--retry-pin` is given."""
    if not rules.retry_pin and any(note.applies(source, presented) for note in notes):
        raise LoginError(
            f"login withheld: the token refused this PIN before (from {source.noted})",
            hint="correct the PIN; if it is right by now, --retry-pin sends it once more",
            ckr="CKR_PIN_INCORRECT",
        )


class LoginNotes:
    """The notes of one token, in a file of the state folder; to be used under the module's lock."""

    def __init__(self, folder: str, token: TokenInfo) -> None:
        """Name the file after the token's public identity; `folder` exists."""
        identity = "\0".join((token.manufacturer, token.model, token.serial))
        self._folder = folder
        self._path = os.path.join(
            folder, f"login-{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()[:32]}.json"
        )

    def read(self) -> list[Note]:
        """Return the notes, oldest first; raises ConfigError where the file cannot be read or makes no sense.

        A note that cannot be read may be the one that says "do not send this PIN", so it is not passed over.
        """
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=list[Note])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigError(
                f"the note of refused logins '{self._path}' cannot be read",
                hint="remove it if you are sure of the PIN; it keeps hsmjwt from sending a wrong one twice",
            ) from None

    @contextlib.contextmanager
    def attempt(self, notes: list[Note], source: SecretSource, presented: Resolved) -> Iterator[None]:
        """Note the attempt on disk, let the block make it, and note what came of it.

        `notes` are those that hold so far. What the block raises tells the outcome: nothing at all is a login, which
        removes every note. Where nobody can tell (the token failed, the process died) the attempt stays without an
        outcome. Of a PIN that a person typed nothing is noted.
        """
        note = None if source.kind == "prompt" else _note(source, presented)
        others = [known for known in notes if not known.applies(source, presented)]
        if note is not None:
            self._write([*others, note])
        try:
            yield
        except HsmjwtError as error:
            if error.ckr in _REFUSED and note is not None:
                self._refused(error, [*others, msgspec.structs.replace(note, outcome="refused")])
            elif (error.ckr or "").startswith(_NO_TRY_LOST):
                self._write(notes)
            raise
        self._write([])

    def _refused(self, error: HsmjwtError, notes: list[Note]) -> None:
        """Note that a PIN was refused; where that fails, the error still is that it was."""
        try:
            self._write(notes)
        except ConfigError as fault:
            raise type(error)(error.message, hint=f"correct the PIN source; {fault.message}", ckr=error.ckr) from None

    def _write(self, notes: list[Note]) -> None:
        """Replace the notes, on disk before this returns; no file is left where there is nothing to note."""
        try:
            if notes:
                whole_file.replace(self._path, msgspec.json.encode(notes[-_NOTES_KEPT:]), 0o600)
            elif os.path.lexists(self._path):
                os.remove(self._path)
                whole_file.sync_folder(self._folder)
        except OSError as error:
            raise ConfigError(
                f"the login cannot be noted in '{self._path}': {_reason(error)}",
                hint="a login is noted so that no wrong PIN is sent twice; XDG_STATE_HOME names another folder",
            ) from None


def _note(source: SecretSource, presented: Resolved) -> Note:
    if presented.identity is not None:
        return Note(source.noted, time.time(), "attempt", identity=presented.identity)
    salt = os.urandom(16)
    return Note(source.noted, time.time(), "attempt", salt=salt, check=_check(salt, presented))


def _check(salt: bytes, presented: Resolved) -> bytes:
    return hmac.digest(salt, presented.secret.reveal().encode(), "sha256")[:1]


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown reason").lower()


class ModuleLock:
    """One lock for each module and user, across processes.

    SoftHSM rewrites its token file at every login and another process's C_Initialize may read it half written; and two
    processes that each look at the flags before they log in lock a card together. So it is held from before
    C_Initialize until the outcome of the login is on disk, but never while a PIN source is read.
    """

    def __init__(self, folder: str, module: str, deadline: Deadline) -> None:
        """Name the lock after the module's real path; `folder` exists."""
        self._path = os.path.join(folder, f"module-{hashlib.sha256(os.fsencode(module)).hexdigest()[:32]}.lock")
        self._deadline = deadline
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Tell whether this process holds the lock."""
        return self._fd is not None

    def acquire(self) -> None:
        """Wait for the lock until the deadline; raises BusyError then. Taking it twice is taking it once."""
        if self._fd is not None:
            return
        try:
            fd = open_file(self._path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise ConfigError(
                f"the module's lock '{self._path}' cannot be made: {_reason(error)}",
                hint="XDG_STATE_HOME names another folder for it",
            ) from None
        try:
            self._wait(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _wait(self, fd: int) -> None:
        deadline, wait = self._deadline, _POLL_FIRST
        before = deadline.stage, deadline.error
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                deadline.enter("the hsmjwt process that holds this module's lock", BusyError)
                deadline.check()
                left = deadline.remaining()
                time.sleep(wait if left is None else min(wait, left))
                wait = min(wait * 1.5, _POLL_LAST)
            except OSError as error:
                raise ConfigError(
                    f"the module's lock '{self._path}' cannot be taken: {_reason(error)}",
                    hint="XDG_STATE_HOME names another folder for it",
                ) from None
        deadline.enter(*before)

    def release(self) -> None:
        """Let it go; harmless where it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
