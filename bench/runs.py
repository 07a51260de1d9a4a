"""CPU time of whole processes, taken in turns.

CPU time, since a wall clock also counts what else the machine does; of the whole process, since a user waits for the
interpreter too; in turns and in another order each round, since a machine is slower in one minute than in the next.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

_WARM_UP = 2  # rounds that do not count: they write .pyc files and fill the page cache


class Fault(Exception):
    """A command that did not do what was to be measured."""


def nothing() -> None:
    """Do nothing before a run."""


class Command(NamedTuple):
    """A command to measure; `before` is called ahead of each run and does not count, `ends` are good exit codes."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    before: Callable[[], None] = nothing
    ends: Sequence[int] = (0,)

    def output(self) -> str:
        """Run it once and return what it prints; raises Fault with the end of what it complains of."""
        self.before()
        done = subprocess.run(
            self.argv, env=dict(self.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return done.stdout
        said = [line for line in done.stderr.splitlines() if "hint:" not in line]
        raise Fault(f"'{_short(self.argv)}' ended with {done.returncode}: {'; '.join(said[-3:]) or 'no message'}")

    def cpu(self) -> float:
        """Run it once, its output thrown away; return user and system time in milliseconds, all children included."""
        usage = self._usage()
        return (usage.ru_utime + usage.ru_stime) * 1000

    def peak(self) -> float:
        """Run it once, its output thrown away; return the most memory that it had at a time, in MiB."""
        return self._usage().ru_maxrss / 1024

    def _usage(self) -> resource.struct_rusage:
        """Run it; posix_spawn, since after a fork the child would pay for the pages of this process."""
        self.before()
        streams = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(2)]
        pid = os.posix_spawn(self.argv[0], list(self.argv), self.environ, file_actions=streams)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in self.ends:
            raise Fault(f"'{_short(self.argv)}' ended with {code} while it was measured")
        return usage


def _short(argv: Sequence[str]) -> str:
    words = " ".join([os.path.basename(argv[0]), *argv[1:]])
    return words if len(words) <= 60 else words[:57] + "…"


def in_turns(commands: Mapping[str, Command], rounds: int) -> dict[str, list[float]]:
    """Return the CPU times of each command by its name: the same place in each list is the same round."""
    order = list(commands)
    shuffle = random.Random(1).shuffle  # noqa: S311 - the order of commands is no secret
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(-_WARM_UP, rounds):
        shuffle(order)
        for name in order:
            spent = commands[name].cpu()
            if number >= 0:
                times[name].append(spent)
    return times
