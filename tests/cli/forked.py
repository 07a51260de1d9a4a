"""Runs hsmjwt many times without its start-up: one process loads everything, and a fork of it is each run.

Code, environment, descriptors, token and way out are those of any run; the start itself is for the tests that use the
`hsmjwt` fixture. Requests and answers are lines of JSON on two pipes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli import places
from cli.places import Step

LATER = ("idna", "encodings.idna", "traceback")
"""What is loaded from elsewhere when it is needed, and a user who may not read the interpreter's folder could not."""
NEVER = ("hsmjwt.__main__", "hsmjwt.demo")  # the one runs at once, the other takes long and needs what a user may lack
ROOT = Path(__file__).resolve().parents[2]


Call = tuple[Sequence[str], Mapping[str, str], Sequence[Step]]  # arguments, environment, and what comes first


class Forks:
    """The process that forks."""

    def __init__(self) -> None:
        there, self._requests = os.pipe()
        self._answers, back = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(there), str(back)],
            pass_fds=(there, back),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        )
        os.close(there)
        os.close(back)
        self._lines = open(self._answers)  # noqa: SIM115 - `close` closes it

    def run(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        stdin: bytes = b"",
        cwd: str = "/",
        steps: Sequence[Step] = (),
    ) -> tuple[int, str, str]:
        """Return exit code (minus the signal that ended it), stdout and stderr; `steps` come first, see places.py."""
        return self.together([(argv, environ, steps)], stdin, cwd)[0]

    def together(self, calls: Sequence[Call], stdin: bytes = b"", cwd: str = "/") -> list[tuple[int, str, str]]:
        """Run some at the same time; return what `run` would of each."""
        shared = {"stdin": stdin.hex(), "cwd": cwd}
        requests = [
            {**shared, "argv": argv, "environ": dict(environ), "steps": steps} for argv, environ, steps in calls
        ]
        os.write(self._requests, json.dumps(requests).encode() + b"\n")
        answers = json.loads(self._lines.readline())
        return [(code, bytes.fromhex(out).decode(), bytes.fromhex(err).decode()) for code, out, err in answers]

    def close(self) -> None:
        """End it."""
        os.close(self._requests)
        self._process.wait(10)
        self._lines.close()


def serve(requests: int, answers: int) -> None:
    places.prepare()
    import hsmjwt
    from hsmjwt.oauth import provider

    ours = {each.name for each in pkgutil.walk_packages(hsmjwt.__path__, "hsmjwt.")} - set(NEVER)
    for path in (*sorted(ours), *LATER):
        importlib.import_module(path)
    for name in provider.names():
        provider.load(name)
    from hsmjwt.cli import gate, typed

    typed.parse({"sign": gate.declared("sign")}, ["sign", "--iss", "i"])  # typer loads some of itself as it goes
    gc.freeze()  # or each fork copies what the collector touches
    with open(requests) as lines, open(answers, "w") as out:
        for line in lines:
            started = [Started(request) for request in json.loads(line)]
            print(json.dumps([each.ended() for each in started]), file=out, flush=True)


class Started:
    """A fork that runs."""

    def __init__(self, request: dict[str, Any]) -> None:
        stdin, self._out, self._err = self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
        stdin.write(bytes.fromhex(request["stdin"]))
        stdin.seek(0)
        self._pid = os.fork()
        if self._pid == 0:
            become(request, *(file.fileno() for file in self._files))

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return exit code, stdout and stderr."""
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        for file in (self._out, self._err):
            file.seek(0)
        said = status, self._out.read().hex(), self._err.read().hex()
        for file in self._files:
            file.close()
        return said


def become(request: dict[str, Any], *descriptors: int) -> None:
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    os.closerange(3, 256)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["hsmjwt", *request["argv"]]
    places.enter(request["steps"])
    from hsmjwt.cli.main import entry

    entry()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
