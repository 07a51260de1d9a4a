"""How a token is never locked by us: one lock, one attempt, and a note of a PIN that was refused.

The decision (`decide`) is a pure function of the token's flags and the note. The note holds nothing from which a PIN
could be guessed: for a file its identity, for any other source one byte of an HMAC under a random salt, which a
changed PIN differs from 255 times in 256 and which tells nobody the PIN.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import Iterator

import msgspec

from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError, LoginError
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.secret import Resolved, SecretSource

_POLL_FIRST, _POLL_LAST = 0.005, 0.05
_NOTES_KEPT = 8


class LoginFlags(msgspec.Struct, frozen=True):
    """What CK_TOKEN_INFO says about logins (PKCS#11 2.40, section 4.3)."""

    login_required: bool
    initialized: bool
    pin_initialized: bool
    count_low: bool
    final_try: bool
    locked: bool
    to_be_changed: bool
    protected_path: bool = False


class Note(msgspec.Struct, frozen=True):
    """What is remembered of one PIN source at one token.

    `outcome` is "attempt" while C_Login has not answered, "refused" after it refused. `identity` is the file's device,
    inode, size, mtime_ns and ctime_ns; `check` the first byte of HMAC-SHA-256 of the PIN under `salt`, in hex.
    """

    source: str
    time: float
    outcome: str
    identity: tuple[int, int, int, int, int] | None = None
    salt: str | None = None
    check: str | None = None

    def applies(self, source: SecretSource, presented: Resolved) -> bool:
        """Tell whether this note speaks of the very PIN that is presented now, as far as can be known."""
        if self.source != source.noted:
            return False
        if self.identity is not None or presented.identity is not None:
            return self.identity == presented.identity
        return self.salt is not None and self.check == _check(bytes.fromhex(self.salt), presented)


class LoginRules(msgspec.Struct, frozen=True):
    """What the user allows: `--allow-last-try` and `--retry-pin`."""

    allow_last_try: bool = False
    retry_pin: bool = False


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
    if flags.count_low:
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
    if rules.retry_pin:
        return
    for note in notes:
        if note.applies(source, presented):
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

    def write(self, notes: list[Note]) -> None:
        """Replace the notes, on disk before this returns."""
        fresh = self._path + ".new"
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(notes[-_NOTES_KEPT:]))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
            _sync_folder(os.path.dirname(self._path))
        except OSError as error:
            raise ConfigError(
                f"the login cannot be noted in '{self._path}': {error.strerror}",
                hint="a login is noted so that no wrong PIN is sent twice; XDG_STATE_HOME names another folder",
            ) from None

    def clear(self) -> None:
        """Forget everything: a login worked."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._path)

    @contextlib.contextmanager
    def attempt(self, notes: list[Note], source: SecretSource, presented: Resolved) -> Iterator[Attempt]:
        """Note the attempt, let the block make it, and note what it says of the outcome.

        The block reports through the object it is given. Where it reports nothing (it raised something else, or the
        process died) the attempt stays without an outcome.
        """
        outcome = Attempt()
        note = None if source.kind == "prompt" else _note(source, presented)
        others = [known for known in notes if known.source != source.noted]
        if note is not None:
            self.write([*others, note])
        try:
            yield outcome
        finally:
            if outcome.accepted:
                self.clear()
            elif outcome.moot:
                self.write(notes)
            elif outcome.refused and note is not None:
                self.write([*others, msgspec.structs.replace(note, outcome="refused")])


class Attempt:
    """What came of one C_Login: accepted, refused, or moot (no PIN was compared); all False where nobody knows."""

    accepted = False
    refused = False
    moot = False


def _note(source: SecretSource, presented: Resolved) -> Note:
    if presented.identity is not None:
        return Note(source.noted, time.time(), "attempt", identity=presented.identity)
    salt = os.urandom(16)
    return Note(source.noted, time.time(), "attempt", salt=salt.hex(), check=_check(salt, presented))


def _check(salt: bytes, presented: Resolved) -> str:
    return hmac.new(salt, presented.secret.reveal().encode(), hashlib.sha256).hexdigest()[:2]


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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

    def acquire(self) -> None:
        """Wait for the lock until the deadline; raises BusyError then. Taking it twice is taking it once."""
        if self._fd is not None:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the module's lock '{self._path}' cannot be made: {error.strerror}",
                hint="XDG_STATE_HOME names another folder for it",
            ) from None
        wait = _POLL_FIRST
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    left = self._deadline.remaining()
                    if left == 0.0:
                        raise BusyError(
                            "another hsmjwt process is starting with this module, and did not finish in time",
                            hint="try again; --timeout DURATION waits longer",
                        ) from None
                    time.sleep(wait if left is None else min(wait, left))
                    wait = min(wait * 1.5, _POLL_LAST)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Let it go; harmless where it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
