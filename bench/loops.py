"""Programs that sign and search in loops, driven side by side: loop.c and workers/signer.py."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Self

from place import HERE, LABEL, LOOP, PYTHON, Place, Store
from runs import Fault

_HEAD_START = 3_000_000  # nanoseconds between a request and the moment at which all begin


class Loop:
    """A program that has logged in and waits for work."""

    def __init__(self, argv: Sequence[str], environ: dict[str, str]) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._line() != "ready":
            raise Fault(f"'{os.path.basename(argv[0])}' did not start for {argv[-1]}")

    def _line(self) -> str:
        if self._process.stdout is None:
            raise AssertionError("a pipe was asked for")
        return self._process.stdout.readline().strip()

    def ask(self, verb: str, threads: int, count: int, start: int) -> None:
        """Set it to work."""
        if self._process.stdin is None:
            raise AssertionError("a pipe was asked for")
        print(verb, threads, count, start, file=self._process.stdin, flush=True)

    def answer(self) -> tuple[int, int]:
        """Wait for its answer: begin and end in nanoseconds."""
        words = self._line().split()
        if len(words) != 2:
            raise Fault("a loop ended before its work was done")
        return int(words[0]), int(words[1])

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.communicate()


def block(loops: Sequence[Loop], verb: str, threads: int, count: int) -> float:
    """Have all loops work at once, `count` times in each thread; return the wall time of one call in nanoseconds.

    With two threads or two processes that is the time in which the pair makes one.
    """
    start = time.monotonic_ns() + _HEAD_START
    for loop in loops:
        loop.ask(verb, threads, count, start)
    answers = [loop.answer() for loop in loops]
    spent = max(end for _, end in answers) - min(begin for begin, _ in answers)
    return spent / (len(loops) * threads * count)


@contextlib.contextmanager
def started(place: Place, store: Store, key: str, alg: str, pairs: int) -> Iterator[tuple[list[Loop], list[Loop]]]:
    """Start so many programs of both kinds, one after the other: SoftHSM rewrites its token file at each login."""
    words = (store.module, LABEL, store.pin_file, key, alg)
    worker = os.path.join(HERE, "workers", "signer.py")
    environ = place.environ(store=store)
    with contextlib.ExitStack() as stack:
        c_loops = [stack.enter_context(Loop((LOOP, *words), environ)) for _ in range(pairs)]
        python = [stack.enter_context(Loop((PYTHON, worker, *words), environ)) for _ in range(pairs)]
        yield c_loops, python
