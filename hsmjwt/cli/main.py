"""The way in and the one place that ends the process; imports next to nothing before it is ready for Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130


def entry() -> NoReturn:
    """Run the command line of this process and end it."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a shell's background job ignores it
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while nothing is there to clean up, no traceback either
    _fill_closed_descriptors()
    from hsmjwt.cli.gate import gate

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = gate(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            continue  # what could not be written has been reported where it was written
    if code == INTERRUPTED:  # by the signal itself, so that a shell's loop stops too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    # Nothing is finalised: a thread may still be inside the module, and a module's own code may crash at exit.
    os._exit(code)


def _fill_closed_descriptors() -> None:
    """Open what the caller closed, or the next file would take its place and a module print into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
