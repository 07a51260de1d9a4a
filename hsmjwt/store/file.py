"""Access tokens in a folder of ours, one file a key, shared by all processes of a user.

KEY.json holds a token, KEY.lock is locked by who fetches it, KEY.bad (or KEY.1.bad) is what was no token of ours,
KEY.*.tmp is being written; quick* are notes (see store/note.py). A lock file stands for one flight: who removes it, as
`clear` does, makes what that flight brings home worthless, so that no token that was asked for before `clear` is found
after it. Whoever brings a token home removes what has ended, of keys that nobody fetches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.private import make_folder, open_file
from hsmjwt.store import flight, note
from hsmjwt.store.record import VERSION, Bad, Record, load

T = TypeVar("T")

_NOTICE = "on-disk-notice"
_LOOKED_AT = 200  # files
_HEX = set("0123456789abcdef")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What may be told of a cached token: no part of it. Times are Unix seconds."""

    profile: str | None
    scope: str | None
    fetched_at: float
    expires_at: float

    def fresh(self, now: float, min_ttl: float) -> bool:
        """Tell whether the token may be served at `now`, by the rule of AccessToken."""
        life = AccessToken(value="", token_type="", fetched_at=self.fetched_at, expires_at=self.expires_at)
        return life.fresh(now, min_ttl)


class FileStore:
    """Keep access tokens in files that only we can read.

    A cache that is broken or cannot be written never costs the token: `get`, `put` and `hold` warn, once, and go on
    without it. `on_disk` says that the folder outlives a reboot, which is told to a person once.
    """

    def __init__(self, folder: str, *, warn: Callable[[str], None], on_disk: bool = False) -> None:
        self._path = folder
        self._warn = warn
        self._on_disk = on_disk
        self._warned = False
        self._held: dict[str, int] = {}  # by key: the descriptor of the lock that we hold

    def get(self, key: str) -> AccessToken | None:
        """Return the token that lies under the key (64 hex digits), fresh or not; never raises for a bad cache."""
        _check(key)
        try:
            with self._folder() as folder:
                try:
                    return load(folder, key).token
                except Bad as bad:
                    self._set_aside(folder, key, bad)
        except FileNotFoundError:
            pass  # no folder, or no file
        except OSError as error:
            self._unusable(error)
        return None

    def put(self, key: str, token: AccessToken, *, profile: str | None = None, scope: str | None = None) -> None:
        """Keep a token, if its life is known; `profile` and `scope` are what `entries` tells of it."""
        _check(key)
        if token.expires_at is None or not token.fetched_at < token.expires_at < float("inf"):
            return
        kept = Record(version=VERSION, key=key, profile=profile, scope=scope, token=token)
        try:
            content = msgspec.json.encode(kept)
            with self._folder(create=True) as folder:
                self._write(folder, key, content)
                if key in self._held:
                    _prune(folder, key, token.fetched_at)
        except (OSError, ValueError) as error:
            self._drop(key)
            self._unusable(error)

    def _drop(self, key: str) -> None:
        """Remove what lies under a key: a newer token was fetched, and the server may have ended this one for it."""
        with contextlib.suppress(OSError), self._folder() as folder:
            _remove(folder, f"{key}.json")

    def leave_note(self, key: str, token: AccessToken, name: str, text: Callable[[str, os.stat_result], str]) -> None:
        """Leave a copy of the token that lies under the key for the shortest road; see hsmjwt.store.note."""
        _check(key)
        with contextlib.suppress(OSError), self._folder() as folder:  # without a note the longer road serves
            note.leave(folder, key, token.value, name, text)

    @contextlib.contextmanager
    def hold(self, key: str, deadline: Deadline) -> Iterator[None]:
        """Let one process at a time fetch the token of this key; not to be entered twice for one key.

        The kernel frees the lock of a process that dies. Raises the deadline's error (BusyError) when the other is not
        done in time. Without a usable folder nothing is held.
        """
        _check(key)
        before = deadline.stage, deadline.error
        deadline.enter("another process that fetches the same access token")
        lock = None
        try:
            with self._folder(create=True) as folder:
                lock = flight.wait(folder, key, deadline)
        except OSError as error:
            self._unusable(error)
        finally:
            deadline.enter(*before)
        if lock is None:
            yield
            return
        self._held[key] = lock
        try:
            yield
        finally:
            del self._held[key]
            flight.end(lock)

    def entries(self) -> list[Entry]:
        """List what is cached, by profile and scope; files that are no tokens of ours are left out.

        Raises ConfigError where the folder is not usable.
        """
        nothing: list[Entry] = []
        return sorted(self._manage(_entries, nothing), key=lambda e: (e.profile or "", e.scope or "", e.expires_at))

    def clear(self, profile: str | None = None) -> int:
        """Remove the tokens of a profile, or all, and what was set aside; return how many tokens there were.

        What is being fetched meanwhile is not kept either. Raises ConfigError where the folder is not usable.
        """
        return self._manage(lambda folder: _clear(folder, profile), 0)

    def _manage(self, act: Callable[[int], T], nothing: T) -> T:
        """Do what a command about the cache itself wants: there a fault is an error."""
        try:
            with self._folder() as folder:
                return act(folder)
        except FileNotFoundError:
            return nothing
        except OSError as error:
            raise ConfigError(f"the token cache {self._path!r} cannot be used: {_reason(error)}") from error

    @contextlib.contextmanager
    def _folder(self, *, create: bool = False) -> Iterator[int]:
        """Open the folder, if it is ours alone; what is done in it goes through the descriptor."""
        if create:
            make_folder(self._path)
        link = os.lstat(self._path)
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it is a symbolic link of another user")
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"it belongs to user {status.st_uid}, not to us")
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise PermissionError(errno.EPERM, f"mode {mode:04o} lets others in (chmod 700 mends it)")
            yield folder
        finally:
            os.close(folder)

    def _unusable(self, error: OSError | ValueError) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"warning: the token cache {self._path!r} cannot be used, and no token is kept: {_reason(error)}"
            )

    def _set_aside(self, folder: int, key: str, bad: Bad) -> None:
        """Rename a bad file, unless another process holds the key: that one does it, or writes a good file."""
        lock = None if key in self._held else flight.begin(folder, key)
        if lock is None and key not in self._held:
            return
        try:
            if os.lstat(f"{key}.json", dir_fd=folder).st_ino == bad.inode:
                name = _rename_bad(folder, key)
                path = os.path.join(self._path, f"{key}.json")
                self._warn(f"warning: the cache file {path!r} {bad.why}, and was set aside as {name!r}")
        finally:
            if lock is not None:
                flight.end(lock)

    def _write(self, folder: int, key: str, content: bytes) -> None:
        if key in self._held:  # else another may be writing
            for name in os.listdir(folder):
                if _is_temporary(name, key):  # of a process that was killed
                    _remove(folder, name)
        temporary = f"{key}.{os.urandom(8).hex()}.tmp"
        fd = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
                inode = os.fstat(fd).st_ino
            if self._cleared(folder, key):
                return
            try:
                os.replace(temporary, f"{key}.json", src_dir_fd=folder, dst_dir_fd=folder)
            except FileNotFoundError:  # cleared in this moment
                return
        finally:
            _remove(folder, temporary)
        if self._cleared(folder, key):  # `clear` may have passed between the look and the rename
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(f"{key}.json", dir_fd=folder).st_ino == inode:
                    _remove(folder, f"{key}.json")
        elif self._on_disk:
            self._tell_once(folder)

    def _cleared(self, folder: int, key: str) -> bool:
        """Tell whether the cache was cleared since we began to fetch this token."""
        return key in self._held and not flight.is_at(folder, f"{key}.lock", self._held[key])

    def _tell_once(self, folder: int) -> None:
        try:
            os.close(open_file(_NOTICE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=folder))
        except OSError:
            return  # it was told
        self._warn(f'access tokens are kept on a disk, in {self._path!r}; cache = "runtime" in the config avoids it')


def _check(key: str) -> None:
    if len(key) != 64 or not set(key) <= _HEX:
        raise ValueError("a key of the token cache is a SHA-256 in hex")


def _peek(folder: int, key: str) -> Record | None:
    """Read a token's file and touch nothing; None where there is none of ours."""
    try:
        return load(folder, key)
    except (Bad, FileNotFoundError):
        return None


def _entries(folder: int) -> list[Entry]:
    records = [_peek(folder, key) for key in _keys(os.listdir(folder))]
    return [
        Entry(profile=r.profile, scope=r.scope, fetched_at=r.token.fetched_at, expires_at=r.token.expires_at or 0.0)
        for r in records
        if r is not None
    ]


def _prune(folder: int, ours: str, now: float) -> None:
    """Remove tokens that ended by `now` and what failed flights left, but for keys that somebody fetches.

    Of a large folder each fetch looks at a part, wherever that begins: a token must not cost more for many others.
    """
    names = os.listdir(folder)
    note.prune(folder, _some([name for name in names if note.is_note(name)]))
    for key in _some(_keys(names)):
        if key == ours or not _ended(folder, key, now):
            continue
        with contextlib.suppress(OSError):  # the next one will
            lock = flight.begin(folder, key)
            if lock is None:
                continue
            try:
                if _ended(folder, key, now):  # now that nobody else writes it
                    for name in (f"{key}.json", *(name for name in names if _is_temporary(name, key)), f"{key}.lock"):
                        _remove(folder, name)
            finally:
                flight.end(lock)


def _some(names: list[str]) -> list[str]:
    if len(names) <= _LOOKED_AT:
        return names
    start = int.from_bytes(os.urandom(4), "big") % len(names)
    return [*names[start:], *names[:start]][:_LOOKED_AT]


def _ended(folder: int, key: str, now: float) -> bool:
    """Tell whether a key has no token, or one that ended; a file that is no token of ours is somebody's to look at."""
    try:
        return (load(folder, key).token.expires_at or 0.0) <= now
    except FileNotFoundError:
        return True
    except (Bad, OSError):
        return False


def _rename_bad(folder: int, key: str) -> str:
    """Set KEY.json aside and return its new name: KEY.bad, or KEY.1.bad where file and folder are in each other's way.

    Raises OSError where neither is free.
    """
    try:
        os.replace(f"{key}.json", f"{key}.bad", src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return f"{key}.bad"
    os.replace(f"{key}.json", f"{key}.1.bad", src_dir_fd=folder, dst_dir_fd=folder)
    return f"{key}.1.bad"


def _clear(folder: int, profile: str | None) -> int:
    removed = 0
    names = os.listdir(folder)
    for key in _keys(names):
        for name in (f"{key}.bad", f"{key}.1.bad"):
            _remove(folder, name)
        if not _of_profile(folder, key, profile):
            continue
        _remove(folder, f"{key}.lock")  # first: from here on no flight of before brings a token home
        if _of_profile(folder, key, profile):
            removed += _remove(folder, f"{key}.json")
        for name in names:
            if _is_temporary(name, key):
                _remove(folder, name)
    note.clear(folder, os.listdir(folder))  # last: a note that is made from now on names a token that is gone
    return removed


def _of_profile(folder: int, key: str, profile: str | None) -> bool:
    """Tell whether a key's files go with a profile; where nobody can say, they do."""
    record = None if profile is None else _peek(folder, key)
    return record is None or record.profile == profile


def _keys(names: list[str]) -> list[str]:
    """List the keys that have a file of any kind."""
    kinds = ("json", "lock", "bad", "tmp")
    heads = {name.partition(".")[0] for name in names if name.rpartition(".")[2] in kinds}
    return sorted(head for head in heads if len(head) == 64 and set(head) <= _HEX)


def _is_temporary(name: str, key: str) -> bool:
    return name.startswith(f"{key}.") and name.endswith(".tmp")


def _remove(folder: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    except IsADirectoryError:  # somebody's, and never a token; what is in it is not ours to remove
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=folder)
        return False
    return True


def _reason(error: OSError | ValueError) -> str:
    return ((error.strerror if isinstance(error, OSError) else None) or "it cannot be written as JSON").lower()
