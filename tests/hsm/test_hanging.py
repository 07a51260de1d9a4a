"""A module that hangs holds nobody: Ctrl-C, SIGTERM and the deadline end the command at once."""

import signal
import time

import pytest

SIGN = ("sign", "--iss", "i", "--aud", "a")
HANGS = 60  # seconds; far more than any test waits


def wait_for(path, process):
    """Wait until the call that will hang has begun."""
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail("the call was never made")


def end(process, number):
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err.decode(), time.monotonic() - began


@pytest.mark.parametrize("function", ["sign", "login", "init", "find"])
def test_ctrl_c_ends_a_hung_call_at_once_with_a_message(start, calls, tmp_path, function):
    process = start(f"{function}~{HANGS},{function}@{calls.file}", *SIGN)
    wait_for(tmp_path / "calls", process)
    code, out, err, took = end(process, signal.SIGINT)
    assert code == -signal.SIGINT
    assert out == b""
    assert err == "hsmjwt: error: interrupted\n"
    assert took < 3


def test_sigterm_ends_a_hung_signature(start, calls, tmp_path):
    process = start(f"sign~{HANGS},sign@{calls.file}", *SIGN)
    wait_for(tmp_path / "calls", process)
    code, out, err, took = end(process, signal.SIGTERM)
    assert (code, out) == (143, b"")
    assert err.startswith("hsmjwt: error: ")
    assert took < 3


@pytest.mark.parametrize("function", ["sign", "login", "init", "slotlist"])
def test_the_deadline_ends_a_hung_call(patched, function):
    began = time.monotonic()
    done = patched(f"{function}~{HANGS}", *SIGN, "--timeout", "1")
    assert (done.code, done.out) == (11, "")
    assert "within 1 s" in done.err
    assert time.monotonic() - began < 8


def test_a_key_generation_that_hangs_ends_at_its_deadline(patched):
    done = patched(f"keypair~{HANGS}", "key", "generate", "--label", "new", "--timeout", "1", HSMJWT_KEY=None)
    assert (done.code, done.out) == (11, "")
    assert "which makes the key" in done.err


def test_an_interrupted_wait_for_the_lock_leaves_it_to_the_others(start, calls, tmp_path, hsmjwt):
    holder = start(f"login~{HANGS},login@{calls.file}", *SIGN)
    wait_for(tmp_path / "calls", holder)
    waiting = start(f"init@{calls.file}", *SIGN)
    time.sleep(1)
    assert end(waiting, signal.SIGINT)[0] == -signal.SIGINT
    assert calls() == ["login 1"]
    holder.kill()
    holder.wait()
    assert hsmjwt(*SIGN).code == 0
