"""Ctrl-C and SIGTERM at any moment: an end by the signal, a word at most, never a traceback, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers.scripted import Server, silent

from hsmjwt.pipes import _Child

ROOT = Path(__file__).resolve().parents[2]
SIGN = ("sign", "--iss", "i", "--aud", "a")
# Says that the interpreter's own start is over, where nothing of ours runs yet.
READY = """
import os, signal, sys
from hsmjwt.cli.main import entry
try:
    os.write(int(sys.argv.pop(1)), b"x")
    entry()
except KeyboardInterrupt as early:
    there = early.__traceback__.tb_next
    if there and (there.tb_next or there.tb_lineno != entry.__code__.co_firstlineno):
        raise  # it was not here, nor at the call itself, where nothing of ours runs yet
    signal.signal(2, signal.SIG_DFL)
    os.kill(os.getpid(), 2)
"""


class Running:
    """A command that has just begun."""

    def __init__(self, token, *args: str, **environ: str) -> None:
        ready, theirs = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", READY, str(theirs), *args],
            env=token.environ() | {"PYTHONPATH": str(ROOT)} | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs,),
        )
        os.close(theirs)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def end(self, *signals: int) -> tuple[int, str, str]:
        """Send signals one after the other, and wait for the end."""
        for number in signals:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out.decode(), err.decode()


def after(milliseconds: float, token, args: tuple[str, ...], *signals: int) -> tuple[int, str, str]:
    running = Running(token, *args)
    time.sleep(milliseconds / 1000)
    return running.end(*signals)


def swept(steps, token, args: tuple[str, ...], *signals: int) -> list[tuple[int, str, str]]:
    """End the command at each of these moments; two run side by side."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda step: after(step, token, args, *signals), steps))


def test_ctrl_c_ends_sign_at_any_moment(token):
    ends = swept([0, 1, 2, 4, 8, 16, *range(30, 190, 16), 250, 400], token, SIGN, signal.SIGINT)
    assert {code for code, _, _ in ends} <= {-signal.SIGINT, 0}
    assert -signal.SIGINT in {code for code, _, _ in ends}
    for code, out, err in ends:
        assert err in (("", "hsmjwt: error: interrupted\n") if code else ("",))
        assert bool(out) is (code == 0)


def test_ctrl_c_ends_token_while_the_server_is_silent(token):
    with Server(silent()) as server:
        args = ("token", "--iss", "i", "--token-url", server.url(), "--no-cache")
        ends = swept([0, 4, 30, *range(60, 600, 60)], token, args, signal.SIGINT)
    assert {code for code, _, _ in ends} == {-signal.SIGINT}
    assert {out for _, out, _ in ends} == {""}
    assert {err for _, _, err in ends} <= {"", "hsmjwt: error: interrupted\n"}


@pytest.mark.parametrize("step", [0, 20, 60, 100, 140])
def test_an_impatient_ctrl_c_is_no_worse(token, step):
    for signals in ((signal.SIGINT,) * 2, (signal.SIGINT,) * 20, (signal.SIGTERM, signal.SIGINT)):
        code, _, err = after(step, token, SIGN, *signals)
        assert code in (0, -signal.SIGINT, -signal.SIGTERM, 143)
        assert err in ("", "hsmjwt: error: interrupted\n", "hsmjwt: error: terminated\n")


def test_sigterm_ends_with_143(token):
    with Server(silent()) as server:
        args = ("token", "--iss", "i", "--token-url", server.url(), "--no-cache", "--json")
        (early, *_), *ends = swept([0, 400, 600], token, args, signal.SIGTERM)
    assert early in (-signal.SIGTERM, 143)
    for code, out, err in ends:
        assert (code, out) == (143, "")
        assert err.startswith("hsmjwt: error: terminated\n{")
        assert '"exit": 143' in err


def test_a_background_job_that_ignores_ctrl_c_goes_on(token):
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; "$@" & wait $!', "sh", sys.executable, "-m", "hsmjwt", *SIGN],
        env=token.environ(),
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0
    quiet = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.SIG_IGN)\n" + READY, "2", *SIGN],
        env=token.environ() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(0.15)
    quiet.send_signal(signal.SIGINT)
    out, _ = quiet.communicate(timeout=10)
    assert (quiet.returncode, out.count(b"\n")) == (0, 1)


def test_the_program_that_was_to_print_the_pin_is_ended_too(token, tmp_path):
    program = f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 30'"
    for number in (signal.SIGINT, signal.SIGTERM):
        running = Running(token, *SIGN, "--pin-source", f"command:{program}")
        file = tmp_path / "pid"
        for _ in range(500):
            if file.exists() and file.read_text().endswith("\n"):
                break
            time.sleep(0.01)
        code, out, _ = running.end(number)
        assert (code, out) == ({signal.SIGINT: -2, signal.SIGTERM: 143}[number], "")
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
        file.unlink()


def test_nothing_of_an_interrupted_command_disturbs_the_next(token, hsmjwt):
    swept(range(40, 160, 20), token, SIGN, signal.SIGINT)
    done = hsmjwt(*SIGN, timeout=10)
    assert (done.code, done.err) == (0, "")


def test_a_program_is_not_started_once_all_is_over():
    child = _Child()
    child.end()
    with pytest.raises(OSError, match="Interrupted"):
        child.start(["sleep", "30"], {})
