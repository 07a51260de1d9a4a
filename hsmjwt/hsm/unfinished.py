"""Notes of keys that are being made, on the disk before the token begins: they tell what a killed process left.

Until it has signed for the first time a new key bears 20 random bytes for its id, its mark. An object with the mark and
the label of a note is what that note's process made, and nobody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator

import msgspec

from hsmjwt import whole_file
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.hsm.keygen import NewKey
from hsmjwt.hsm.login import ModuleLock
from hsmjwt.hsm.uri import TokenInfo

_MARK_BYTES = 20


class Unfinished(msgspec.Struct, frozen=True):
    """A key that is being made, or was when its process died.

    `id`, `alg` and `also` are what was asked for. `final` is None until the key has signed; from then on it is the id
    that both halves are to have, and `public` tells the public key (RFC 7093, section 2, method 1). `shells` is how
    many objects without name and content there were before (see hsmjwt/hsm/shells.py), None where nobody looked.
    """

    label: str
    mark: bytes
    kind: str
    alg: str
    id: bytes | None
    time: float
    final: bytes | None = None
    public: bytes | None = None
    shells: int | None = None
    also: tuple[str, ...] = ()

    def is_of(self, new: NewKey) -> bool:
        """Tell whether this is the very key that is asked for now."""
        asked = new.label, new.kind.name, new.algorithm.name, new.also, new.id
        return (self.label, self.kind, self.alg, self.also, self.id) == asked


def begun(new: NewKey, shells: int | None) -> Unfinished:
    """Return the note of a key that is about to be made, with a mark of its own."""
    mark = os.urandom(_MARK_BYTES)
    return Unfinished(
        new.label, mark, new.kind.name, new.algorithm.name, new.id, time.time(), shells=shells, also=new.also
    )


class UnfinishedNotes:
    """The notes of one token, in a file of the state folder."""

    def __init__(self, folder: str, token: TokenInfo, deadline: Deadline) -> None:
        """Name the file after the token's public identity; `folder` exists."""
        identity = "\0".join((token.manufacturer, token.model, token.serial)).encode("utf-8", "replace")
        self._path = os.path.join(folder, f"making-{hashlib.sha256(identity).hexdigest()[:32]}.json")
        self._lock = ModuleLock(folder, self._path, deadline)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only process that makes keys on the token, whatever module it takes: a note of its own is no leftover.

        To be entered without the module's lock, which others take in there.
        """
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def read(self) -> list[Unfinished]:
        """Return the notes; raises ConfigError where the file cannot be read or makes no sense."""
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=list[Unfinished])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigError(
                f"the note of unfinished keys '{self._path}' cannot be read",
                hint="remove it once hsmjwt key list shows no half of a key that you do not know",
            ) from None

    def keep(self, note: Unfinished) -> None:
        """Write a note in place of the one with its mark, on the disk before this returns; raises ConfigError."""
        self._write([*(each for each in self.read() if each.mark != note.mark), note])

    def drop(self, note: Unfinished) -> None:
        """Remove a note."""
        self._write([each for each in self.read() if each.mark != note.mark])

    def _write(self, notes: list[Unfinished]) -> None:
        try:
            if notes:
                whole_file.replace(self._path, msgspec.json.encode(notes), 0o600)
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            whole_file.sync_folder(os.path.dirname(self._path))
        except OSError as error:
            raise ConfigError(
                f"the new key cannot be noted in '{self._path}': {(error.strerror or 'unknown reason').lower()}",
                hint="it is noted so that nothing half made stays behind; XDG_STATE_HOME names another folder",
            ) from None
