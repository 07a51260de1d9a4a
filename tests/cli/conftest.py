"""What the tests of the command line share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cli import places
from cli.forked import Call, Forks
from cli.places import Step


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

    def run(*args: str, stdin: bytes = b"", steps: Sequence[Step] = (), **environ: str | None) -> Ran:
        merged = {**token.environ(), **environ}
        given = {name: value for name, value in merged.items() if value is not None}
        return Ran(*forks.run(args, given, stdin, str(tmp_path), steps))

    return run


class Person:
    """An ordinary user, for whom the modes of files count: where root runs the tests, one whom no database knows."""

    uid = places.NOBODY_KNOWS if os.geteuid() == 0 else os.geteuid()

    def __init__(self, forks: Forks, token) -> None:
        self.forks = forks
        self.folder: Path = token.folder
        self.environ = token.environ()
        self.home, self.run = (Path(self.environ[name]) for name in ("HOME", "XDG_RUNTIME_DIR"))
        self.give(token.folder)

    def __call__(self, *args: str, steps: Sequence[Step] = (), cwd: Path | None = None, **environ: str | None) -> Ran:
        """Run hsmjwt as this user; the steps are taken before, while root may take them."""
        argv, given, steps = self.call(*args, steps=steps, **environ)
        return Ran(*self.forks.run(argv, given, b"", str(cwd or self.folder), steps))

    def call(self, *args: str, steps: Sequence[Step] = (), **environ: str | None) -> Call:
        """Return arguments, environment and steps of a run."""
        merged = {**self.environ, **environ}
        given = {name: value for name, value in merged.items() if value is not None}
        return args, given, [*steps, *([("user", self.uid)] if os.geteuid() == 0 else [])]

    def give(self, path: Path) -> None:
        """Make a file or a folder, with all that is in it, this user's own."""
        for each in (path, *path.rglob("*")):
            os.chown(each, self.uid, -1, follow_symlinks=False)

    def files(self) -> list[str]:
        """List what lies in home and runtime folder, with each one's mode."""
        found = sorted(path for folder in (self.home, self.run) for path in folder.rglob("*"))
        return [f"{path.stat().st_mode & 0o7777:04o} {path.relative_to(self.folder)}" for path in found]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        if not all(above.stat().st_mode & 0o001 for above in folder.parents):
            pytest.skip("temporary folders lie where nobody else may enter")
        yield folder


@pytest.fixture
def person(open_folder, forks, token_template) -> Iterator[Person]:
    """A user with a token and a home of their own."""
    copy = type(token_template)(open_folder / "p", token_template.module)
    shutil.copytree(token_template.folder, copy.folder, ignore=lambda *_: ("home", "run"))
    copy.write_conf()
    yield Person(forks, copy)
    for path in open_folder.rglob("*"):  # or a user who is not root could not remove what is closed
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)


@pytest.fixture(scope="session")
def mounts() -> None:
    """Skip where the system lets nobody mount."""
    if os.geteuid() != 0 or not places.may_mount():
        pytest.skip("only root may mount, and not in every container")
