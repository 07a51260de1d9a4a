"""The way in and the one place that ends the process; imports next to nothing before it is ready for Ctrl-C."""

# Not `signal`: that imports enum, and Ctrl-C within those milliseconds would show a traceback.
import _signal  # type: ignore[import-not-found]
import os
import sys

from hsmjwt import __version__
from hsmjwt.cli import quick

TYPE_CHECKING = False  # typing imports enum too
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


_stopped: list[int] = []  # the signal that was heeded


def entry() -> "NoReturn":
    """Run the command line of this process and end it."""
    heeded = _leave_interrupts_to_the_system()
    answered = quick.answer(sys.argv[1:], __version__)
    if isinstance(answered, int):
        os._exit(answered)
    from hsmjwt.cli.ends import INTERRUPTED, TERMINATED, StoppedError, become, heed_lost

    if answered is not None:
        try:
            become(*answered)
        except OSError:  # the longer road says it
            pass
    _start_in_utf_8()
    _fill_closed_descriptors()
    from hsmjwt.cli import lighter  # noqa: F401 - before everything that imports msgspec
    from hsmjwt.cli.gate import gate

    code = None
    sys.unraisablehook = lambda lost: heed_lost(lost) or sys.__unraisablehook__(lost)
    try:
        if heeded:
            _signal.signal(_signal.SIGINT, _stop)
        if _signal.getsignal(_signal.SIGTERM) == _signal.SIG_DFL:
            _signal.signal(_signal.SIGTERM, _stop)
        code = gate(sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except OSError:
                continue  # what could not be written has been reported where it was written
        _deaf()
    except KeyboardInterrupt:  # in one of the few instructions around the gate
        code = INTERRUPTED if code is None else code
    except StoppedError:
        code = TERMINATED if code is None else code
    if code == INTERRUPTED:  # by the signal itself, so that a shell's loop stops too
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGINT)
    # Nothing is finalised: a thread may still be inside the module, and a module's own code may crash at exit.
    os._exit(code)


def _leave_interrupts_to_the_system() -> bool:
    """Tell whether Ctrl-C is heeded at all, and let it end the process at once while there is nothing to clean up.

    SIGINT is blocked first: what came before raises here, once, and no other one can strike before the end of this.
    """
    mask = None
    try:
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
    except KeyboardInterrupt:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
        os.kill(os.getpid(), _signal.SIGINT)
    heeded = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler  # a shell's background job ignores it
    if heeded:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if mask is not None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    return heeded


def _stop(number: int, _frame: "FrameType | None") -> None:
    """Raise once; a second signal of either kind ends the process by itself, wherever the first one has got to."""
    from hsmjwt.cli.ends import StoppedError

    _signal.signal(number, _signal.SIG_DFL)  # not the other one's: that may wait for its turn already
    if _stopped:
        os.kill(os.getpid(), number)
    _stopped.append(number)
    raise KeyboardInterrupt if number == _signal.SIGINT else StoppedError


def _deaf() -> None:
    """Leave the rest to the system: there is nothing more to clean up."""
    for number in (_signal.SIGINT, _signal.SIGTERM):
        if _signal.getsignal(number) is _stop:
            _signal.signal(number, _signal.SIG_DFL)


def _start_in_utf_8() -> None:
    """Start anew in Python's UTF-8 mode where the locale says ASCII and PYTHONUTF8=0 keeps Python from that mode.

    Names of profiles, keys and files are UTF-8 whatever a locale says, and in ASCII they could not be told or opened.
    """
    if sys.getfilesystemencoding() == "ascii" and sys.executable:
        try:
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
        except OSError:
            pass  # ASCII words work all the same


def _fill_closed_descriptors() -> None:
    """Open what the caller closed, or the next file would take its place and a module print into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
