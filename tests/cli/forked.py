"""Runs hsmjwt many times without its start-up: one process loads everything, and a fork of it is each run.

Code, environment, descriptors, token and way out are those of any run; the start itself is for the tests that use the
`hsmjwt` fixture. Requests and answers are lines of JSON on two pipes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Forks:
    """The process that forks."""

    def __init__(self) -> None:
        there, self._requests = os.pipe()
        self._answers, back = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(there), str(back)],
            pass_fds=(there, back),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        os.close(there)
        os.close(back)
        self._lines = open(self._answers)  # noqa: SIM115 - `close` closes it

    def run(
        self, argv: Sequence[str], environ: Mapping[str, str], stdin: bytes = b"", cwd: str = "/"
    ) -> tuple[int, str, str]:
        """Return exit code (minus the signal that ended it), stdout and stderr."""
        request = {"argv": argv, "environ": dict(environ), "stdin": stdin.hex(), "cwd": cwd}
        os.write(self._requests, json.dumps(request).encode() + b"\n")
        code, out, err = json.loads(self._lines.readline())
        return code, bytes.fromhex(out).decode(), bytes.fromhex(err).decode()

    def close(self) -> None:
        """End it."""
        os.close(self._requests)
        self._process.wait(10)
        self._lines.close()


def serve(requests: int, answers: int) -> None:
    from hsmjwt.cli.gate import VERBS

    for path in (*VERBS.values(), "hsmjwt.cli.typed", "hsmjwt.custody", "hsmjwt.oauth.transport", "hsmjwt.verify"):
        importlib.import_module(path)
    gc.freeze()  # or each fork copies what the collector touches
    with open(requests) as lines, open(answers, "w") as out:
        for line in lines:
            print(json.dumps(run(json.loads(line))), file=out, flush=True)


def run(request: dict[str, Any]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(bytes.fromhex(request["stdin"]))
        stdin.seek(0)
        pid = os.fork()
        if pid == 0:
            become(request, stdin.fileno(), out.fileno(), err.fileno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read().hex(), err.read().hex()


def become(request: dict[str, Any], *descriptors: int) -> None:
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    os.closerange(3, 256)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["hsmjwt", *request["argv"]]
    from hsmjwt.cli.main import entry

    entry()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
