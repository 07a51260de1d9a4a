"""Fixtures for what happens on a token: hsmjwt and scripts in a process whose module misbehaves (see patched.py)."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

PATCHED = str(Path(__file__).parent / "patched.py")


PROXY = next(iter(glob.glob("/usr/lib*/*/p11-kit-proxy.so") + glob.glob("/usr/lib*/p11-kit-proxy.so")), None)


class Proxy(NamedTuple):
    """p11-kit's proxy with SoftHSM behind it and nothing else that the machine has, for `patched`."""

    path: str
    fault: str


class Result(NamedTuple):
    """What a command printed and how it ended; a death by signal N is -N."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def forker():
    """The process that runs patched.py for all tests."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, PATCHED, "--serve"], stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def patched(token, forker, tmp_path) -> Callable[..., Result]:
    """Run hsmjwt with faults: patched("flip,low", "sign", …); keyword arguments are variables, None removes one."""

    def run(faults, *args, **environ):
        merged = {**token.environ(), **environ}
        streams = [tmp_path / f"patched-{name}" for name in ("in", "out", "err")]
        for stream in streams:
            stream.write_bytes(b"")
        request = {
            "argv": [faults, *args],
            "environ": {name: value for name, value in merged.items() if value is not None},
            "streams": [os.fspath(stream) for stream in streams],
        }
        print(json.dumps(request), file=forker.stdin, flush=True)
        code = int(forker.stdout.readline())
        return Result(code, *(stream.read_bytes().decode() for stream in streams[1:]))

    return run


@pytest.fixture
def proxy(token, tmp_path) -> Proxy:
    """The proxy, where it is there: its path as module, and the fault that shows it SoftHSM alone."""
    if PROXY is None:
        pytest.skip("p11-kit-proxy.so is not there: apt-get install p11-kit")
    folder = tmp_path / "p11-kit"
    folder.mkdir()
    (folder / "softhsm2.module").write_text(f"module: {token.module}\n")
    return Proxy(PROXY, f"p11kit={PROXY}:{folder}")


@pytest.fixture
def sign(patched) -> Callable[..., object]:
    """Sign with faults: sign("flip", "--verbose", HSMJWT_KEY=…)."""

    def run(faults="-", *args, **environ):
        return patched(faults, "sign", "--iss", "i", "--aud", "a", *args, **environ)

    return run


@pytest.fixture
def start(token) -> Callable[..., subprocess.Popen[bytes]]:
    """Start hsmjwt with faults and do not wait for it."""
    running = []

    def begin(faults, *args, **environ):
        process = subprocess.Popen(
            [sys.executable, PATCHED, faults, *args],
            env={**token.environ(), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def calls(tmp_path) -> Callable[[], list[str]]:
    """The calls that faults of the form NAME@FILE noted; `calls.file` is the file to name."""

    def noted():
        return path.read_text().split("\n")[:-1] if path.exists() else []

    path = tmp_path / "calls"
    noted.file = os.fspath(path)
    return noted


@pytest.fixture
def in_process(patched) -> Callable[[str], str]:
    """Run Python code in a process that has the token's environment; return what it prints."""

    def run(code):
        done = patched("-", "-c", code)
        assert done.code == 0, done.err
        return done.out

    return run
