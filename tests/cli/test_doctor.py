"""`hsmjwt doctor`: a row for each step, the first failure's exit code, one login, and never an assertion."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from conftest import execute
from servers.granting import granted, write_config
from servers.scripted import Ca, Server, drip, free_port, json_reply, redirect, reply, silent

PATCHED = str(Path(__file__).parent.parent / "hsm" / "patched.py")
NO_RSA = ",".join(f"hide={number:#x}" for number in (0x1, 0xD, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45))
CHECKS = ["module", "token", "flags", "login", "key", "mechanism", "certificate", "endpoint", "clock"]
NO_RSA = ",".join(f"hide={number:#x}" for number in (0x1, 0xD, *range(0x40, 0x46)))


def at(seconds: float = 0.0, status: int = 405):
    """Answer as a token endpoint does that is asked by GET, with a clock that is so far ahead."""

    def act(line):
        stamp = {"Date": formatdate(time.time() + seconds, usegmt=True)}
        json_reply({"error": "invalid_request"}, status=status, headers=stamp)(line)

    return act


def rows(done) -> dict[str, dict[str, object]]:
    found = json.loads(done.out)
    assert [list(row) for row in found] == [["check", "ok", "detail", "hint"]] * 9
    assert [row["check"] for row in found] == CHECKS
    return {row["check"]: row for row in found}


def verdicts(done) -> str:
    """The rows as letters: y for ok, n for failed, - for not tried; certificates apart, which few keys here have."""
    shown = [row["ok"] for check, row in rows(done).items() if check != "certificate"]
    return "".join({True: "y", False: "n", None: "-"}[ok] for ok in shown)


def test_everything_is_looked_at_and_no_assertion_is_sent(hsmjwt, token):
    with Server(at()) as server:
        done = hsmjwt("doctor", "--token-url", server.url(), "--json", "--verbose")
    assert (done.code, verdicts(done)) == (0, "yyyyyyyy")
    found = {name: row["detail"] for name, row in rows(done).items()}
    assert found["module"] == f"{token.module} (HSMJWT_MODULE)"
    assert found["token"].startswith("pkcs11:token=t1;serial=")
    assert "LOGIN_REQUIRED" in found["flags"]
    assert found["login"] == f"with the PIN from file:{token.pin_file}"
    assert found["key"].startswith(found["token"] + ";object=k1;id=%01;type=private, 2048 bits")
    assert found["mechanism"] == "RS256 by CKM_SHA256_RSA_PKCS or CKM_RSA_PKCS"
    assert found["endpoint"] == f"{server.url()} answers a GET without an assertion: 405 (method not allowed)"
    assert re.fullmatch(r"within [1-5] s of the server's", found["clock"])
    (asked,) = server.requests
    assert (asked.method, asked.body) == ("GET", b"")
    assert not {"authorization", "cookie"} & set(asked.headers)
    assert "signed by" not in done.err
    assert "eyJ" not in done.err


def test_a_person_reads_a_line_for_each_step_and_a_hint_below_what_failed(quick):
    done = quick("doctor", HSMJWT_KEY="pkcs11:token=t1;object=absent")
    lines = done.out.splitlines()
    assert done.code == 6
    assert [line.split()[1] for line in lines if line[:4] in ("ok  ", "FAIL", "-   ")] == CHECKS
    assert [line[:4] for line in lines if not line.startswith(" ")] == ["ok  "] * 4 + ["FAIL"] + ["-   "] * 4
    failed = next(place for place, line in enumerate(lines) if line.startswith("FAIL"))
    assert "no key fits 'pkcs11:token=t1;object=absent;type=private'" in lines[failed]
    assert lines[failed + 1].strip() == "these private keys are on the token:"
    assert lines[failed + 2].strip().startswith("pkcs11:token=t1;serial=")


def test_one_login_is_enough_and_the_pin_is_read_once(token, tmp_path):
    calls, asked = tmp_path / "calls", tmp_path / "asked"
    source = f"command:sh -c 'echo x >> {asked}; cat {token.pin_file}'"
    command = [sys.executable, PATCHED, f"login@{calls}", "doctor", "--json", "--pin-source", source]
    done = execute(command, token.environ())
    assert (done.code, verdicts(done)) == (0, "yyyyyy--")
    assert len(calls.read_text().splitlines()) == len(asked.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("environ", "code", "seen", "detail"),
    [
        ({"HSMJWT_MODULE": "/nowhere.so"}, 4, "n-----yy", "'/nowhere.so'"),
        ({"HSMJWT_MODULE": "/etc/passwd"}, 4, "n-----yy", "'/etc/passwd'"),
        ({"SOFTHSM2_CONF": "/nowhere"}, 4, "n-----yy", "CKR_GENERAL_ERROR"),
        ({"HSMJWT_KEY": "pkcs11:token=other"}, 4, "yn----yy", "no token fits 'pkcs11:token=other'"),
        ({"HSMJWT_PIN_SOURCE": "file:/nowhere/pin"}, 3, "yyyn--yy", "'/nowhere/pin'"),
        ({"HSMJWT_PIN_SOURCE": None}, 5, "yyyn--yy", "no terminal"),
        ({"HSMJWT_PIN_SOURCE": None, "HSMJWT_PIN": "wrong-one"}, 5, "yyyn--yy", "CKR_PIN_INCORRECT"),
        ({"HSMJWT_KEY": "pkcs11:token=t1;object=k2"}, 6, "yyyyn-yy", "no key fits"),
        ({"HSMJWT_KEY": "pkcs11:token=t1;object=k1;type=public"}, 6, "yyyyn-yy", "public"),
    ],
    ids=["module", "library", "configuration", "token", "PIN file", "PIN", "wrong PIN", "key", "public key"],
)
def test_a_step_that_fails_has_its_exit_code_and_those_behind_it_are_not_tried(quick, environ, code, seen, detail):
    with Server(at()) as server:
        done = quick("doctor", "--token-url", server.url(), "--json", **environ)
    assert (done.code, verdicts(done)) == (code, seen)
    failed = next(row for row in rows(done).values() if row["ok"] is False)
    assert detail in failed["detail"]
    assert failed["hint"]
    assert {row["detail"] for row in rows(done).values() if row["ok"] is None} == {"not tried"}
    assert "wrong-one" not in done.out + done.err


@pytest.mark.parametrize(
    ("faults", "code", "seen", "detail"),
    [
        ("locked", 5, "yyn---", "is locked"),
        ("final", 5, "yyn---", "one try is left"),
        ("nopin", 5, "yyn---", "no user PIN"),
        ("low", 0, "yyyyyy", "has seen a wrong PIN"),
        (NO_RSA, 7, "yyyyyn", "the token cannot make RS256"),
        ("login=0x30", 7, "yyyn--", "CKR_DEVICE_ERROR"),
    ],
)
def test_what_the_tokens_flags_and_mechanisms_forbid_is_found(token, faults, code, seen, detail):
    done = execute([sys.executable, PATCHED, faults, "doctor", "--json"], token.environ())
    assert (done.code, verdicts(done)) == (code, seen + "--"), done.err
    assert any(detail in str(row["detail"]) for row in rows(done).values())


def test_a_silent_token_is_left_at_the_deadline_and_the_rows_so_far_are_shown(token):
    call = ("doctor", "--json", "--timeout", "1", "--token-url", "http://[::1]:1")
    began = time.monotonic()
    done = execute([sys.executable, PATCHED, "login~30", *call], token.environ())
    assert time.monotonic() - began < 4
    assert (done.code, verdicts(done)) == (11, "yyyn----")
    found = rows(done)
    assert found["login"]["detail"] == "no answer from the token within 1 s"
    assert found["key"]["detail"] == "not tried"
    assert found["endpoint"]["detail"] == "not tried: no time was left"


@pytest.mark.parametrize("answer", [silent(), drip(b"HTTP/1.1 200 OK\r\nX: ")], ids=["silent", "dripping"])
def test_a_slow_server_is_left_at_the_deadline(quick, answer):
    with Server(answer) as server:
        began = time.monotonic()
        done = quick("doctor", "--token-url", server.url(), "--timeout", "1", "--json")
        assert time.monotonic() - began < 4
    assert (done.code, verdicts(done)) == (9, "yyyyyyn-")
    assert rows(done)["endpoint"]["detail"] == f"no answer from the server '127.0.0.1:{server.port}' within 1 s"


@pytest.mark.parametrize(
    ("answer", "code", "detail"),
    [
        (at(status=200), 0, "200 (ok)"),
        (at(status=404), 0, "404 (not found)"),
        (at(status=500), 0, "500 (internal server error)"),
        (redirect("/login"), 0, "302 (found)"),
        (redirect("https://new.example/t", status=301), 10, "301 (moved permanently), to 'https://new.example/t'"),
        (redirect("https://new.example/token", status=308), 10, "308 (permanent redirect)"),
        (reply(status=503), 9, "503 (service unavailable)"),
        (reply(status=429), 9, "429 (too many requests)"),
    ],
)
def test_an_endpoint_that_answers_is_there_unless_it_says_otherwise(quick, answer, code, detail):
    with Server(answer) as server, Server(granted()) as other:
        done = quick("doctor", "--token-url", server.url(), "--json")
        assert other.accepted == 0
    assert done.code == code
    row = rows(done)["endpoint"]
    assert detail in row["detail"]
    assert (row["ok"], bool(row["hint"])) == (code == 0, code != 0)
    assert len(server.requests) == 1


def test_a_server_that_is_down_is_asked_once(quick):
    port = free_port()
    began = time.monotonic()
    done = quick("doctor", "--token-url", f"http://127.0.0.1:{port}/token", "--json")
    assert time.monotonic() - began < 3
    assert (done.code, verdicts(done)) == (9, "yyyyyyn-")
    assert rows(done)["endpoint"]["detail"] == f"the server '127.0.0.1:{port}' was not reached: connection refused"
    assert rows(done)["endpoint"]["hint"] == "look at the token URL, the network and the proxy"
    assert rows(done)["clock"]["detail"] == "nothing to compare with"


@pytest.mark.parametrize(("ahead", "side"), [(600, "behind"), (-600, "ahead of")])
def test_a_clock_that_differs_from_the_servers_is_a_failure(quick, ahead, side):
    with Server(at(ahead)) as server:
        done = quick("doctor", "--token-url", server.url(), "--json")
    assert (done.code, verdicts(done)) == (3, "yyyyyyyn")
    row = rows(done)["clock"]
    assert row["detail"].startswith("this clock is ")
    assert row["detail"].endswith(f" s {side} the server's")
    assert "timedatectl" in row["hint"]


def test_a_server_without_a_clock_proves_nothing(quick):
    with Server(json_reply({}, status=405)) as server:
        done = quick("doctor", "--token-url", server.url(), "--json")
    assert (done.code, verdicts(done)) == (0, "yyyyyyy-")


def test_a_companys_ca_is_believed_where_flag_or_profile_names_it(quick, tmp_path):
    ca = Ca(tmp_path)
    with Server(at(), tls=ca.context("127.0.0.1")) as server:
        unknown = quick("doctor", "--token-url", server.url(), "--json")
        flagged = quick("doctor", "--token-url", server.url(), "--ca-file", ca.file, "--json")
        text = f'[profiles.p]\nissuer = "i"\ntoken_url = "{server.url()}"\nca_file = "{ca.file}"\n'
        named = quick("doctor", "p", "--config", write_config(tmp_path, text), "--json")
    assert (unknown.code, verdicts(unknown)) == (9, "yyyyyyn-")
    assert "--ca-file" in rows(unknown)["endpoint"]["hint"]
    assert (verdicts(flagged), verdicts(named)) == ("yyyyyyyy", "yyyyyyyy")


def test_a_profile_names_key_and_server_and_is_the_default_where_one_is(quick, token, tmp_path):
    with Server(at()) as server:
        text = f"""
            default_profile = "p"
            [keys.k]
            uri = "{token.uri}"
            module = "{token.module}"
            pin_source = "file:{token.pin_file}"
            [profiles.p]
            key = "k"
            issuer = "i"
            token_url = "{server.url()}"
            [profiles.signs-only]
            key = "k"
            issuer = "i"
            audience = "a"
        """
        none = dict.fromkeys(("HSMJWT_KEY", "HSMJWT_MODULE", "HSMJWT_PIN_SOURCE"))
        call = ("doctor", "--json", "--config", write_config(tmp_path, text))
        assert verdicts(quick(*call, "p", **none)) == "yyyyyyyy"
        assert verdicts(quick(*call, **none)) == "yyyyyyyy"
        assert verdicts(quick(*call, "signs-only", **none)) == "yyyyyy--"
        other = quick(*call, "p", "--key", "pkcs11:token=t1;object=other", **none)
        assert (other.code, verdicts(other)) == (6, "yyyyn-yy")
        assert quick(*call, "unknown").code == 3
        flagged = quick(*call, "--token-url", server.url())  # flags alone: no default profile
        assert verdicts(flagged) == "yyyyyyyy"
    assert rows(flagged)["module"]["detail"].endswith("(HSMJWT_MODULE)")


def test_a_token_without_login_is_not_logged_in_to(token, tmp_path):
    calls = tmp_path / "calls"
    done = execute([sys.executable, PATCHED, f"nologin,login@{calls}", "doctor", "--json"], token.environ())
    assert rows(done)["login"]["detail"] == "the token needs none"
    assert not calls.exists()


def test_without_a_login_the_key_may_stay_hidden(quick):
    done = quick("doctor", "--pin-source", "none", "--json")
    assert (done.code, verdicts(done)) == (6, "yyyyn---")
    assert rows(done)["login"]["detail"] == "left out, as the PIN source 'none' asks for"


@pytest.mark.parametrize(
    ("more", "words"),
    [(("--token-url", "ftp://h/t"), "--token-url: the server's URL 'ftp://h/t'"), (("--key", "k1"), "--key: ")],
)
def test_what_cannot_be_meant_is_a_usage_error_and_no_row(quick, more, words):
    done = quick("doctor", *more)
    assert (done.code, done.out) == (2, "")
    assert f"hsmjwt: error: {words}" in done.err


def test_ctrl_c_ends_it_at_once(token):
    with Server(silent()) as server:
        command = [sys.executable, "-m", "hsmjwt", "doctor", "--token-url", server.url()]
        with subprocess.Popen(command, env=token.environ(), stdout=-1, stderr=-1, text=True) as process:
            while not server.requests:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (-signal.SIGINT, "", "hsmjwt: error: interrupted\n")
