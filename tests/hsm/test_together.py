"""Processes that start at the same time: none disturbs another, and no PIN is sent twice."""

import os
import subprocess
import sys
import time

import pytest

SIGN = ("sign", "--iss", "i", "--aud", "a")
WRONG = "00000000"
ROUNDS = int(os.environ.get("HSMJWT_TEST_ROUNDS", "1"))  # of whole commands; ten take 30 to 60 s on two cores


def ended(processes):
    """The exit codes and what was printed, once all have ended."""
    done = [process.communicate(timeout=60) for process in processes]
    return [process.returncode for process in processes], done


def wait_for(file, process):
    for _ in range(600):
        if file.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail("it never began")


def test_twenty_that_sign_at_once_all_succeed(token):
    command = [sys.executable, "-m", "hsmjwt", *SIGN]
    for _ in range(ROUNDS):
        processes = [
            subprocess.Popen(command, env=token.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(20)
        ]
        codes, done = ended(processes)
        assert codes == [0] * 20, [err for _, err in done if err]
        assert all(out.count(b".") == 2 and err == b"" for out, err in done)


def test_twenty_that_sign_at_once_ten_times_over_all_succeed(patched):
    """Processes that have everything imported and begin in the same instant: harder on the token than commands."""
    code = """
import os, sys, threading, traceback, patched
from hsmjwt.jose.algorithms import ALGORITHMS
import hsmjwt.hsm.signer, hsmjwt.secret

def child(gate):
    code = 1
    try:
        os.read(gate, 1)
        signer = patched.signer()
        signer.sign(b"x", ALGORITHMS["RS256"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

failed = 0
for _ in range(10):
    gate, hold = os.pipe()
    children = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            child(gate)
        children.append(pid)
    os.close(hold)
    failed += sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
    os.close(gate)
print("failed", failed)
"""
    done = patched("-", "-c", code)
    assert (done.code, done.out, done.err) == (0, "failed 0\n", "")


def test_twenty_with_a_wrong_pin_make_one_login(start, token, calls):
    token.pin_file.write_text(WRONG)
    processes = [start(f"login@{calls.file}", *SIGN) for _ in range(20)]
    codes, done = ended(processes)
    assert codes == [5] * 20
    assert all(out == b"" for out, _ in done)
    assert calls() == ["login 1"]
    assert sum(b"CKR_PIN_INCORRECT" in err for _, err in done) == 1
    assert sum(b"login withheld" in err for _, err in done) == 19


@pytest.mark.parametrize(
    ("moment", "pin"),
    [("login!", "31415926"), ("login!", WRONG), ("login!!", "31415926")],
    ids=["before-it-was-sent", "wrong-before-it-was-sent", "after-it-was-taken"],
)
def test_killed_between_attempt_and_outcome_where_no_try_was_lost(sign, token, calls, moment, pin):
    token.pin_file.write_text(pin)
    assert sign(f"{moment},login@{calls.file}").code == -9
    done = sign(f"login@{calls.file}")
    assert done.code == (5 if pin == WRONG else 0), done.err
    assert calls() == ["login 1", "login 1"]


def test_killed_after_the_token_said_no_counts_as_refused(sign, token, calls):
    token.pin_file.write_text(WRONG)
    assert sign(f"login!!,login@{calls.file}").code == -9
    done = sign(f"login@{calls.file}")
    assert (done.code, done.out) == (5, "")
    assert "login withheld" in done.err
    assert calls() == ["login 1"]


def test_killed_where_the_token_had_seen_a_wrong_pin_before_counts_as_refused(sign, token, calls):
    assert sign(f"low,login!,login@{calls.file}").code == -9
    withheld = sign(f"low,login@{calls.file}")
    assert withheld.code == 5
    assert "login withheld" in withheld.err
    assert sign(f"low,login@{calls.file}", "--retry-pin").code == 0
    assert calls() == ["login 1", "login 1"]


def test_the_lock_is_not_held_while_a_pin_source_is_read(start, hsmjwt, token, tmp_path):
    reading, ready = tmp_path / "reading", tmp_path / "ready"
    wait = f"touch {reading}; while [ ! -e {ready} ]; do sleep 0.05; done; cat {token.pin_file}"
    slow = start("-", *SIGN, "--pin-source", f'command:sh -c "{wait}"')
    wait_for(reading, slow)
    meanwhile = hsmjwt(*SIGN, "--timeout", "10")
    assert meanwhile.code == 0, meanwhile.err
    assert slow.poll() is None
    ready.touch()
    assert ended([slow])[0] == [0]


def test_the_lock_is_held_while_somebody_logs_in_and_waiting_for_it_ends_at_the_deadline(start, sign, calls, tmp_path):
    holder = start(f"login~60,login@{calls.file}", *SIGN)
    wait_for(tmp_path / "calls", holder)
    began = time.monotonic()
    done = sign(f"init@{calls.file}", "--timeout", "1")
    assert (done.code, done.out) == (11, "")
    assert "holds this module's lock" in done.err
    assert time.monotonic() - began < 8
    assert calls() == ["login 1"]  # the second process has not even initialised the module


def test_a_lock_is_free_once_its_holder_was_killed(start, hsmjwt, calls, tmp_path):
    holder = start(f"login~60,login@{calls.file}", *SIGN)
    wait_for(tmp_path / "calls", holder)
    holder.kill()
    assert hsmjwt(*SIGN, "--timeout", "10").code == 0


def test_of_processes_that_make_a_key_of_one_label_one_does(token):
    command = [sys.executable, "-m", "hsmjwt", "key", "generate", "--key", "pkcs11:token=t1", "--label", "race"]
    started = [
        subprocess.Popen([*command, "--type", "rsa:2048"], env=token.environ(), stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert sorted(each.wait(60) for each in started) == [0, 6, 6, 6]
