"""One flight at a time for each key of a token cache: who fetches a token holds a lock on its file KEY.lock.

The kernel frees the lock of a process that dies. A lock on a file that was removed meanwhile is none: the next flight
has another file.
"""

from __future__ import annotations

import fcntl
import os
import time

from hsmjwt.deadline import Deadline
from hsmjwt.private import open_file

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1  # seconds between two tries for a lock


def wait(folder: int, key: str, deadline: Deadline) -> int:
    """Lock a key and return the lock's descriptor; raises the deadline's error where another holds it until then."""
    pause = _FIRST_PAUSE
    while (lock := begin(folder, key)) is None:
        left = deadline.remaining()
        if left == 0.0:
            raise deadline.exceeded()
        time.sleep(pause if left is None else min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    return lock


def begin(folder: int, key: str) -> int | None:
    """Lock a key if nobody else has, and return the lock's descriptor.

    A file that was removed before we had its lock counts for nothing.
    """
    lock = open_file(f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = is_at(folder, f"{key}.lock", lock)
    except BlockingIOError:
        ours = False
    except OSError:
        os.close(lock)
        raise
    if ours:
        return lock
    os.close(lock)
    return None


def end(lock: int) -> None:
    """Let the next one in."""
    fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
    os.close(lock)


def is_at(folder: int, name: str, fd: int) -> bool:
    """Tell whether the open file still is the one of that name."""
    try:
        there = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
