"""The sessions of one token that sign, as many as threads sign at a time, and the keys that were found through them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from hsmjwt.errors import BusyError, DeviceError
from hsmjwt.hsm.direct import Direct
from hsmjwt.hsm.objects import KeyObject
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.keys import HiddenKey, PublicKey

_PAUSE = 1.0  # seconds until a token that failed to open a session is asked for one again


class Place:
    """A session that one thread uses at a time: who holds `turn` may use `session`, or put another one there."""

    __slots__ = ("session", "turn")

    def __init__(self, session: Any, turn: Any) -> None:
        """Take a session that nobody uses yet, and the lock that guards it."""
        self.session = session
        self.turn = turn


class Found:
    """A key that was found in one session, and serves in all of them until its token loses it."""

    def __init__(self, key: KeyObject, public_key: PublicKey | HiddenKey, direct: Direct | None) -> None:
        """Take the key as the search gave it, and the module's short road if it has one."""
        self.key = key
        self.public_key = public_key
        self._direct = direct
        self._there: dict[Place, KeyObject] = {}

    def within(self, place: Place) -> KeyObject:
        """Return the key as the session in a place uses it; the caller has the place's turn."""
        key = self._there.get(place)
        if key is None or key.handle.session is not place.session:
            key = self._there[place] = self.key.within(place.session, self._direct)
        return key


class Pool:
    """Places for threads that sign. The first has the session that is there already; more are opened on demand.

    A session does one thing at a time, so that threads on one session take turns. None is ever closed here: closing
    what another thread may be using kills the process, and closing the one that logged in logs out all of them.

    `found` holds the keys by their URIs, so that none is searched twice; who searches has its place's turn, and holds
    `finding`.
    """

    def __init__(self, first: Place, most: int, another: Callable[[], Any], pause: float = _PAUSE) -> None:
        """Begin with one place; `another` opens a further session, and raises BusyError where the token has none.

        Many tokens say so by a code that stands for any fault: after a DeviceError none is opened for `pause` seconds.
        """
        self._places: tuple[Place, ...] = (first,)
        self._most = most
        self._another = another
        self._pause = pause
        self._not_before = 0.0  # monotonic
        self._opening = threading.Lock()
        self.found: dict[KeyUri, Found] = {}
        self.finding = threading.Lock()
        self._next = itertools.count()

    def place(self) -> Place:
        """Return a place that is free at this moment, else one that is shared; the caller waits for its turn.

        Raises what opening a session raises, but for BusyError and DeviceError: then those that are there are shared.
        No place is handed over for good, so that a thread which is interrupted anywhere keeps none.
        """
        if self._most == 1:
            return self._places[0]
        for place in self._places:
            if not place.turn.locked():
                return place
        return self._one_more()

    def _one_more(self) -> Place:
        with self._opening:
            if len(self._places) < self._most and time.monotonic() >= self._not_before:
                try:
                    session = self._another()
                except BusyError:  # those that are there will do
                    self._most = len(self._places)
                except DeviceError:  # the same, or a fault that passes
                    self._not_before = time.monotonic() + self._pause
                else:
                    self._places += (Place(session, threading.Lock()),)
                    return self._places[-1]
        return self._places[next(self._next) % len(self._places)]
