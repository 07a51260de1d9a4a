"""Read a descriptor, or what a program prints, until a deadline."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from hsmjwt.deadline import Deadline

_TICK = 0.05  # seconds between two looks at a program that runs
_PATIENCE = 1.0  # seconds for a start or an end that the system delays


def read_to_end(fd: int, most: int, deadline: Deadline, ended: Callable[[], bool] = lambda: False) -> bytes:
    """Read until the end, or until `most` bytes are there.

    `ended` tells that nobody of interest will write any more: what lies in the pipe is all then, though somebody else
    may hold it open. Raises OSError, and the deadline's error.
    """
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    raw = b""
    while len(raw) < most:
        deadline.check()
        over = ended()
        left = deadline.remaining()
        if poller.poll(0 if over else 1000 * (_TICK if left is None else min(_TICK, left))):
            with contextlib.suppress(BlockingIOError):  # another reader was faster
                chunk = os.read(fd, most - len(raw))
                if not chunk:
                    break
                raw += chunk
        elif over:
            break
    return raw


def output_of(words: Sequence[str], environ: Mapping[str, str], most: int, deadline: Deadline) -> tuple[int, bytes]:
    """Run a program without a shell; return its exit code (minus a signal's number) and what it printed.

    It reads nothing, shares our stderr and runs in a session of its own, so that all it starts can be ended with it;
    so it has no terminal to ask on. Where it has printed `most` bytes it is killed; the output is that long then. A
    child that it leaves behind may hold the pipe open: the program's own end is the end. Raises OSError or ValueError
    where it cannot be started, and the deadline's error, having killed it.
    """
    child = _Child()
    with deadline.on_abandon(child.end):
        process = child.start(words, environ)
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            with process.stdout as printed:
                raw = read_to_end(printed.fileno(), most, deadline, lambda: process.poll() is not None)
            while len(raw) < most and process.poll() is None:
                deadline.check()
                time.sleep(_TICK / 10)
        finally:
            child.end()
    return process.returncode, raw


class _Child:
    """A program that no longer runs after `end`, though another thread may be starting it at that moment."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False
        self._lock = threading.Lock()

    def start(self, words: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        with self._lock:
            if self._over:
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
            self._process = subprocess.Popen(
                list(words), stdin=null, stdout=pipe, stderr=_stderr(), env=dict(environ), start_new_session=True
            )
        return self._process

    def end(self) -> None:
        """Kill the program's group if the program still runs: once it is reaped, its number may be another's."""
        held = self._lock.acquire(timeout=_PATIENCE)
        self._over = True
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # a set-uid program may not be ours to kill
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(timeout=_PATIENCE)
        if held:
            self._lock.release()


def _stderr() -> int | None:
    """Return where our own messages go: descriptor 2 may have been given away, so that no module prints there."""
    try:
        return None if sys.stderr is None else sys.stderr.fileno()
    except (OSError, ValueError):  # a stream of a test's or an application's own
        return None
