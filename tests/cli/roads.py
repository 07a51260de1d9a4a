"""Runs of hsmjwt with a profile whose config is old enough to leave a note for the next call, and the road each took.

A config that was changed less than two seconds ago leaves none, so a test file writes all it needs at once (`Configs`)
and waits for them together.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from servers.granting import granted
from servers.scripted import Line, Reply

ROOT = Path(__file__).resolve().parents[2]
SETTLED = 2.1  # seconds
QUICK = {"hsmjwt", "hsmjwt.cli", "hsmjwt.cli.main", "hsmjwt.cli.quick"}
ENDS = "hsmjwt.cli.ends"  # for `exec`: it replaces the process

# Runs the command line, and where it ends or becomes another program, writes down what is loaded. {first} goes before.
TELL = """
import os, sys
file, end = sys.argv.pop(1), os._exit
def tell():
    with open(file, "w") as out:
        out.write("\\n".join(sys.modules))
def ended(code):
    tell()
    end(code)
os._exit = ended
sys.addaudithook(lambda event, _: tell() if event == "os.exec" else None)
{first}
from hsmjwt.cli.main import entry
entry()
"""
LONG = "from hsmjwt.cli import quick; quick.answer = lambda *_: None"
TYPED = f"{LONG}; from hsmjwt.cli.flags import Command; Command.plain = lambda *_: None"


class Ran(NamedTuple):
    """What a command printed, how it ended (minus the signal), and what it had loaded by then."""

    code: int
    out: str
    err: str
    modules: frozenset[str]

    @property
    def said(self) -> tuple[int, str, str]:
        """What the caller sees."""
        return self.code, self.out, self.err

    @property
    def road(self) -> Literal["quick", "plain", "typed"]:
        """Which road it took."""
        ours = {name for name in self.modules if name.partition(".")[0] == "hsmjwt"}
        if ours - {ENDS} == QUICK:
            return "quick"
        assert "hsmjwt.cli.gate" in self.modules, self
        return "typed" if "typer" in self.modules else "plain"


class Home:
    """A user with a token, a runtime folder and a config of their own."""

    def __init__(self, token, config: Path) -> None:
        self.token = token
        self.config = config
        self.environ: dict[str, str] = token.environ()
        self.environ |= {"XDG_CONFIG_HOME": str(config.parents[1]), "PYTHONPATH": str(ROOT)}
        self.cache = Path(self.environ["XDG_RUNTIME_DIR"], "hsmjwt")

    def __call__(
        self,
        *args: str,
        first: str = "",
        redirect: str = "",
        stdin: bytes = b"",
        fds: tuple[int, ...] = (),
        **environ: str | None,
    ) -> Ran:
        """Run hsmjwt in a process of its own, whose code is preceded by `first`; None removes a variable."""
        command, given = self.command(*args, first=first, **environ)
        if redirect:
            command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
        done = subprocess.run(
            command,
            env=given,
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
            pass_fds=fds,
            cwd=self.token.folder,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), self.loaded())

    def command(self, *args: str, first: str = "", **environ: str | None) -> tuple[list[str], dict[str, str]]:
        """Return the command line and environment of a run."""
        merged: Mapping[str, str | None] = {**self.environ, **environ}
        given = {name: value for name, value in merged.items() if value is not None}
        return [sys.executable, "-c", TELL.format(first=first), str(self._told), *args], given

    def loaded(self) -> frozenset[str]:
        """Return what the last run had loaded."""
        names = self._told.read_text().splitlines()
        self._told.unlink()
        return frozenset(names)

    @property
    def _told(self) -> Path:
        return self.token.folder / "modules"

    def notes(self) -> list[Path]:
        """List what was left for the quick road."""
        return sorted(self.cache.glob("quick*")) if self.cache.exists() else []

    def warm(self, *words: str, **environ: str | None) -> str:
        """Have a note left for a call with these words, and return the access token in it."""
        fetched = self("token", *words, **environ)
        assert (fetched.code, fetched.err, fetched.road) == (0, "", "plain"), fetched
        kept = self("token", *words, **environ)
        assert kept.road == "quick", kept
        assert kept.said == fetched.said
        return kept.out.removesuffix("\n")


class Configs:
    """Config files, each in a folder of its own below XDG_CONFIG_HOME, and all of them settled."""

    def __init__(self, folder: Path, **texts: tuple[str, int]) -> None:
        """Write each text so many times, and wait."""
        self._left = {
            name: iter([self._write(folder / f"{name}-{number}", text) for number in range(count)])
            for name, (text, count) in texts.items()
        }
        time.sleep(SETTLED)

    def take(self, name: str) -> Path:
        """Return one that nobody has had; StopIteration says that more are wanted."""
        return next(self._left[name])

    @staticmethod
    def _write(folder: Path, text: str) -> Path:
        path = folder / "hsmjwt" / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path


def settle(path: Path) -> None:
    """Wait until a changed config leaves notes again."""
    time.sleep(max(0.0, SETTLED - (time.time() - path.stat().st_ctime)))


def counting(prefix: str = "AT-marker-", **members: object) -> Reply:
    """Grant another access token to each request."""
    numbers = itertools.count(1)

    def reply(line: Line) -> None:
        granted(f"{prefix}{next(numbers)}", **members)(line)

    return reply


def profile(name: str, url: str, *lines: str, issuer: str = "i") -> str:
    """Write a profile of the generic provider."""
    return "\n".join((f"[profiles.{name}]", f'issuer = "{issuer}"', f'token_url = "{url}"', *lines, "\n"))


def spoil(path: Path, text: str, *, times: bool = False) -> None:
    """Rewrite a file in place; `times` keeps its mtime."""
    before = path.stat()
    with open(path, "r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()
    if times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
