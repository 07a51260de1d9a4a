"""How a command may end: by a signal, or by another program in its place. For the way in, so free of slow imports."""

# Not `signal`: that imports enum, and Ctrl-C within those milliseconds would show a traceback.
import _signal  # type: ignore[import-not-found]
import os

INTERRUPTED, TERMINATED = 130, 143

# What the interpreter ignores from its start on, so that nobody can tell what the caller had wished.
_IGNORED = (_signal.SIGPIPE, _signal.SIGXFSZ)


class StoppedError(BaseException):
    """SIGTERM: raised in the main thread, so that it ends like Ctrl-C does."""


def heed_lost(unraisable: object) -> bool:
    """End by the signal whose exception was raised in a callback, where nobody can catch it; else return False."""
    error = getattr(unraisable, "exc_value", None)
    if not isinstance(error, KeyboardInterrupt | StoppedError):
        return False
    number = _signal.SIGINT if isinstance(error, KeyboardInterrupt) else _signal.SIGTERM
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return True


def become(command: list[str], environ: dict[str, str]) -> None:
    """Replace this process by a command, found on the PATH of `environ`, with the signals as a shell hands them over.

    Returns only by OSError, where there is no such program or the system cannot run it.
    """
    if not command[0]:  # the search would find the folders of the PATH
        raise FileNotFoundError
    before = {number: _signal.getsignal(number) for number in (*_IGNORED, _signal.SIGINT, _signal.SIGTERM)}
    for number, handler in before.items():
        if number in _IGNORED or handler != _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606 - no shell is what is wanted
    finally:  # it failed
        for number, handler in before.items():
            if handler is not None:
                _signal.signal(number, handler)
