"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from cli.forked import Forks


class Ran(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    started = Forks()
    yield started
    started.close()


@pytest.fixture
def quick(token, tmp_path, forks) -> Callable[..., Ran]:
    """Run hsmjwt as `hsmjwt` does, in the test's folder and without waiting for its start-up; see cli/forked.py."""

    def run(*args: str, stdin: bytes = b"", **environ: str | None) -> Ran:
        merged = {**token.environ(), **environ}
        given = {name: value for name, value in merged.items() if value is not None}
        return Ran(*forks.run(args, given, stdin, str(tmp_path)))

    return run
