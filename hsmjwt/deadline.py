"""One deadline for a whole command, and a way to wait for calls that nothing can interrupt.

A C function that hangs in a vendor's module cannot be interrupted from Python, and a signal handler does not run until
it returns; another thread does. So the work runs in a daemon thread and the caller waits for it: Ctrl-C reaches the
caller at once, and the deadline ends the wait whatever the work is doing. The caller must end the process then, since
the thread cannot be stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from hsmjwt.errors import BusyError, HsmjwtError

T = TypeVar("T")

_TICK = 0.2  # how often the waiting thread looks at a clock that may be paused
_NOTICE_AFTER = 2.0  # a person wonders by then (yubikey-agent waits 5 s, which is late for a shell)


class Deadline:
    """The moment by which a command must have ended.

    `stage` says what the command waits for, and `error` which class of error the end of time is there; whoever starts
    a new stage sets both with `enter`. The clock stands still while a person types (`paused`).
    """

    def __init__(self, seconds: float | None) -> None:
        """Start the clock; None never ends."""
        self._began = time.monotonic()
        self._end = None if seconds is None else self._began + seconds
        self._paused_at: float | None = None
        self.seconds = seconds
        self.stage = "the token"
        self.error: type[HsmjwtError] = BusyError
        self._cleanups: list[Callable[[], None]] = []

    def remaining(self) -> float | None:
        """Return the seconds left, 0 when it is over, None when it never ends."""
        if self._end is None:
            return None
        paused_at = self._paused_at  # once: another thread may set it
        return max(0.0, self._end - (time.monotonic() if paused_at is None else paused_at))

    def extend_to(self, seconds: float) -> None:
        """Set another length, counted from the same start."""
        self._end = self._began + seconds
        self.seconds = seconds

    def over(self) -> bool:
        """Tell whether the time is up."""
        return self.remaining() == 0.0

    def check(self) -> None:
        """Raise the stage's error once the time is up."""
        if self.over():
            raise self.exceeded()

    def exceeded(self) -> HsmjwtError:
        """Build the error of the stage in which the time ran out."""
        return self.error(
            f"no answer from {self.stage} within {_plain(self.seconds)}",
            hint="--timeout DURATION allows more time",
        )

    def enter(self, stage: str, error: type[HsmjwtError] = BusyError) -> None:
        """Note what is waited for from here on."""
        self.stage, self.error = stage, error

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock, for as long as a person types."""
        self._paused_at = started = time.monotonic()
        try:
            yield
        finally:
            if self._end is not None:
                self._end += time.monotonic() - started
            self._paused_at = None

    @property
    def is_paused(self) -> bool:
        """Tell whether a person is typing."""
        return self._paused_at is not None

    @contextlib.contextmanager
    def on_abandon(self, cleanup: Callable[[], None]) -> Iterator[None]:
        """Have `cleanup` called if the process ends while the block runs (a terminal's echo, a child process)."""
        self._cleanups.append(cleanup)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # `abandon` may have taken it
                self._cleanups.remove(cleanup)

    def abandon(self) -> None:
        """Run what `on_abandon` still holds, newest first; the process ends after this.

        One that fails must neither hide why the process ends nor keep the others from running.
        """
        with contextlib.suppress(IndexError):  # the thread that was left may be faster
            while True:
                cleanup = self._cleanups.pop()
                with contextlib.suppress(Exception):
                    cleanup()


def wait_for_a_signal() -> NoReturn:
    """Wait until a signal's handler raises.

    In short steps, for the system may hand a signal to another thread, and no lock that this one waits for hears of it.
    """
    while True:
        time.sleep(_TICK)


def run(call: Callable[[], T], deadline: Deadline, notice: Callable[[str], None] | None = None) -> T:
    """Run `call` in a daemon thread and wait for it until the deadline.

    `notice` is called once with the stage when the wait has lasted two seconds. Raises whatever `call` raises, the
    stage's error at the deadline, BusyError where the system allows no further thread, and passes KeyboardInterrupt on
    at once. After the deadline and Ctrl-C the thread goes on, and the caller should end the process.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            result.append(call())
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread as it is
            failure.append(error)

    thread = threading.Thread(target=work, name="hsmjwt-call", daemon=True)
    began = time.monotonic()
    try:
        thread.start()
    except RuntimeError:
        hint = "ulimit -u, or the container's limit of processes, allows too few"
        raise BusyError("no thread can be started any more", hint=hint) from None
    while thread.is_alive():
        left = deadline.remaining()
        if left == 0.0:
            raise deadline.exceeded()
        if notice is not None and not deadline.is_paused and time.monotonic() - began >= _NOTICE_AFTER:
            notice(deadline.stage)
            notice = None
        thread.join(_TICK if left is None else min(_TICK, left))
    if failure:
        raise failure[0]
    return result[0]


def _plain(seconds: float | None) -> str:
    return "the time allowed" if seconds is None else f"{seconds:g} s"
