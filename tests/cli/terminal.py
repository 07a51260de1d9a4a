"""A command with a terminal of its own, and a person who types there."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIN = "31415926"


class AtTerminal:
    """A command whose controlling terminal is ours, with stdin, stdout and stderr apart from it."""

    def __init__(self, token, folder: Path, *args: str, stdin: bytes = b"", ignored: Sequence[int] = ()) -> None:
        self.folder = folder
        (folder / "in").write_bytes(stdin)
        self.main, self.other = os.openpty()
        environ = token.environ() | {"PYTHONPATH": str(ROOT)}
        self.pid = os.fork()
        if self.pid == 0:
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
            os.login_tty(os.dup(self.other))
            os.dup2(os.open(folder / "in", os.O_RDONLY), 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.execve(sys.executable, [sys.executable, "-m", "hsmjwt", *args], environ)
        self.shown = ""

    def asked(self, text: str = "PIN of token", end: str = ": ", *, hidden: bool = True) -> None:
        """Wait for the question; what is typed shows then only where it is not hidden."""
        ends = time.monotonic() + 20
        while text not in self.shown or not self.shown.endswith(end):
            assert time.monotonic() < ends, self.shown
            if select.select([self.main], [], [], 0.2)[0]:
                self.shown += os.read(self.main, 1000).decode()
        assert self.echoes() is not hidden

    def type(self, text: str) -> None:
        os.write(self.main, text.encode())

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.other)[3] & termios.ECHO)

    def end(self) -> tuple[int, str, str]:
        """Wait for the end: its code, stdout and stderr. The terminal must echo again, and never have shown the PIN."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert self.echoes()
        while select.select([self.main], [], [], 0)[0]:
            self.shown += os.read(self.main, 1000).decode()
        os.close(self.main)
        os.close(self.other)
        assert PIN not in self.shown
        return code, (self.folder / "out").read_text(), (self.folder / "err").read_text()
