"""How far a rotation has come: one readable file for each key table of a config, and one process at a time."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec

from hsmjwt import file_lock, whole_file
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.hsm.keygen import KINDS
from hsmjwt.hsm.uri import parse
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.claims import LAST_SECOND, rfc3339
from hsmjwt.private import make_folder, open_file

Step = Literal["planned", "made", "published", "accepted", "switched", "retired"]

_FOLDER: Final = "rotation"
_LONGEST_NAME: Final = 100  # characters of a file name that come from the table's


class KeyMark(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two keys: the full URI that selects it, its thumbprint (RFC 7638), and how it is published."""

    uri: str
    thumbprint: str
    jwk: dict[str, Any]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation under way, or the last one.

    `profile` is the one with which it was begun; any other one of the key table can go on with it. `old` is the key
    that the config named at the start, in the words of `written`, a PIN in them masked; `new` the one that takes its
    place, None until it is made with `label`, for `alg` and of the type `kind`. `step` is the last one that is done,
    `times` says when each was. `out` is the folder of what is published, `grace` how many seconds the old key counts
    after the switch, and `grace_ends` when that is over. `kid` is by which kid the provider knows the new key, where it
    chose one. Times are RFC 3339 in UTC.
    """

    version: Literal[1] = 1
    config: str
    profile: str
    table: str
    step: Step
    times: dict[str, str]
    old: KeyMark
    written: str
    new: KeyMark | None = None
    label: str | None = None
    kind: str | None = None
    alg: str
    kid: str | None = None
    out: str
    grace: Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
    grace_ends: str | None = None
    old_deleted: bool = False

    def after(self, step: Step, now: float, **changes: Any) -> State:
        """Return the state once a step is done; `now` is Unix time."""
        return msgspec.structs.replace(self, step=step, times={**self.times, step: moment(now)}, **changes)

    def grace_left(self, now: float) -> float:
        """Return for how many seconds the old key still counts, 0 when that is over."""
        if self.grace_ends is None:
            return 0.0
        return max(0.0, unix_time(self.grace_ends) - now)

    def check(self) -> None:
        """Raise ValueError or UsageError where what it says does not go together: a file is easily mended wrongly."""
        for text in (*self.times.values(), *(() if self.grace_ends is None else (self.grace_ends,))):
            unix_time(text)
        for key in (self.old, *(() if self.new is None else (self.new,))):
            parse(key.uri)
            if not all(isinstance(key.jwk.get(name), str) for name in ("kty", "kid")):
                raise ValueError(key.uri)
        is_planned = self.new is not None or (self.label is not None and self.kind in KINDS)
        is_begun = self.step in self.times and self.alg in ALGORITHMS and os.path.isabs(self.out)
        is_switched = self.step in ("switched", "retired")
        if not (is_planned and is_begun) or (self.step != "planned" and self.new is None):
            raise ValueError(self.step)
        if is_switched and (self.grace_ends is None or "switched" not in self.times):
            raise ValueError(self.step)


def moment(now: float) -> str:
    """Return Unix time as RFC 3339 in UTC; what no calendar holds becomes its last second."""
    return rfc3339(min(now, LAST_SECOND))


def unix_time(text: str) -> float:
    """Return the Unix time of RFC 3339; raises ValueError."""
    at = datetime.datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at.timestamp()


class StateFile:
    """The file that holds a State, below our state folder."""

    def __init__(self, state_folder: str, config: str, table: str) -> None:
        """Name the file after key table and config: two configs may have a table of the same name."""
        self._folder = os.path.join(state_folder, _FOLDER)
        place = f"{os.path.realpath(config)}\0{table}"
        digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.path = os.path.join(self._folder, f"{quote(table, safe=' ')[:_LONGEST_NAME]}-{digest}.json")

    @property
    def beside(self) -> str:
        """The folder beside the file for what is published where nobody names another one."""
        return self.path.removesuffix(".json")

    @contextlib.contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Let one process at a time into the block; raises BusyError at the deadline."""
        fd = -1
        try:
            make_folder(self._folder)
            fd = open_file(self.path.removesuffix(".json") + ".lock", os.O_RDWR | os.O_CREAT)
            file_lock.take(fd, deadline, "another hsmjwt that rotates this key")
        except OSError as error:
            raise self._unusable("locked", error) from None
        else:
            deadline.enter("the token")
            yield
        finally:
            if fd >= 0:
                os.close(fd)

    def read(self) -> State | None:
        """Return what the file says, None where there is none; raises ConfigError for one that makes no sense."""
        try:
            with open(self.path, "rb") as file:
                state = msgspec.json.decode(file.read(), type=State)
            state.check()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable("read", error) from None
        except (msgspec.MsgspecError, ValueError, OverflowError, UsageError):
            raise ConfigError(
                f"the state of the rotation '{self.path}' makes no sense, or is another version's",
                hint="it says which keys are under way: mend it, or move it away once you know what the config names",
            ) from None
        return state

    def write(self, state: State) -> State:
        """Put a state in the place of the last one, on the disk before this returns; returns it."""
        text = msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"
        try:
            whole_file.replace(self.path, text, 0o600)
        except OSError as error:
            raise self._unusable("written", error) from None
        return state

    def remove(self) -> None:
        """Remove the file."""
        try:
            os.unlink(self.path)
        except OSError as error:
            raise self._unusable("removed", error) from None

    def _unusable(self, what: str, error: OSError) -> ConfigError:
        reason = (error.strerror or "unknown reason").lower()
        return ConfigError(
            f"the state of the rotation '{self.path}' cannot be {what}: {reason}",
            hint="XDG_STATE_HOME names another place",
        )
