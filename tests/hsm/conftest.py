"""Fixtures for what happens on a token: hsmjwt and scripts in a process whose module misbehaves (see patched.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PATCHED = str(Path(__file__).parent / "patched.py")


@pytest.fixture
def patched(token) -> Callable[..., object]:
    """Run hsmjwt with faults: patched("flip,low", "sign", …); keyword arguments are variables, None removes one."""
    from conftest import execute

    def run(faults, *args, stdin=None, timeout=60, **environ):
        merged = {**token.environ(), **environ}
        kept = {name: value for name, value in merged.items() if value is not None}
        return execute([sys.executable, PATCHED, faults, *args], kept, stdin, timeout)

    return run


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
