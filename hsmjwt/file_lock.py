"""The lock of an open file, waited for no longer than the command may take."""

from __future__ import annotations

import fcntl
import time

from hsmjwt.deadline import Deadline

_PAUSE = 0.02  # seconds between two tries


def take(fd: int, deadline: Deadline, holder: str) -> None:
    """Take the lock of an open file or folder; closing the descriptor lets it go.

    `holder` says who has it meanwhile. Raises BusyError at the deadline, and OSError where there are no locks.
    """
    before = deadline.stage, deadline.error
    deadline.enter(holder)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            deadline.check()
            time.sleep(_PAUSE)
        else:
            deadline.enter(*before)
            return
