"""`hsmjwt demo`: every step shown, on a real token and a real server, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import execute


@pytest.fixture
def place(tmp_path, softhsm_module) -> dict[str, str]:
    """The environment of somebody who has SoftHSM2 and nothing else, with a folder for what is temporary."""
    for name in ("home", "tmp", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    folders = {"HOME": "home", "TMPDIR": "tmp", "XDG_RUNTIME_DIR": "run"}
    return {"PATH": os.environ["PATH"], **{name: str(tmp_path / folder) for name, folder in folders.items()}}


def demo(place, *args: str):
    return execute([sys.executable, "-m", "hsmjwt", "demo", *args], place)


def left(place) -> list[str]:
    return [name for variable in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR") for name in os.listdir(place[variable])]


def start(place, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hsmjwt", "demo", *args]
    return subprocess.Popen(command, env=place, stdin=-3, stdout=-1, stderr=-1, text=True)


def lines_until(process, text: str) -> list[str]:
    lines = []
    while not lines or text not in lines[-1]:
        line = process.stdout.readline()
        assert line, process.communicate()
        lines.append(line.rstrip("\n"))
    return lines


def test_every_step_is_shown_and_nothing_is_left_behind(place):
    done = demo(place)
    assert (done.code, done.err) == (0, "")
    steps = [line for line in done.out.splitlines() if re.match(r"\d\. ", line)]
    assert steps == [
        "1. a SoftHSM2 token",
        "2. an RSA key, born on the token",
        "3. an authorization server that verifies",
        "4. an assertion, signed by the token and checked",
        "5. an access token, for a new assertion",
        "6. a protected resource, opened with it",
        "7. the access token once more",
    ]
    assert "sensitive yes, extractable no, ever extractable no, born on the token yes" in done.out
    assert '{"client_id": "demo-client", ' in done.out
    assert "from the cache: the server has granted 1 in all" in done.out
    assert "eyJ" not in done.out
    assert "demo_" not in done.out
    assert left(place) == []


def test_as_json_it_is_one_summary(place):
    done = demo(place, "--json")
    assert (done.code, done.err) == (0, "")
    about = json.loads(done.out)
    assert (about["granted"], about["cached"], about["whoami"]["client_id"]) == (1, True, "demo-client")
    assert about["key"].startswith("pkcs11:token=demo;")
    assert about["url"].startswith("http://127.0.0.1:")
    assert left(place) == []


def test_a_users_own_settings_take_no_part(place, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("no TOML at all")
    own = {
        "HSMJWT_CONFIG": str(config),
        "HSMJWT_PROFILE": "none",
        "HSMJWT_MODULE": "/nowhere.so",
        "HSMJWT_KEY": "pkcs11:token=other",
        "HSMJWT_PIN": "wrong",
        "SOFTHSM2_CONF": "/nowhere",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
    }
    assert demo({**place, **own}).code == 0
    assert left(place) == []


def test_what_is_kept_is_a_token_that_works(place):
    done = demo(place, "--keep")
    assert done.code == 0
    said = re.fullmatch(r'hsmjwt: kept: (.*); eval "\$\(hsmjwt softhsm env --dir (.*)\)" uses it\n', done.err)
    assert said, done.err
    folder = said[1]
    assert folder == said[2]
    variables = json.loads(
        execute([sys.executable, "-m", "hsmjwt", "softhsm", "env", "--dir", folder, "--json"], place).out
    )
    command = [sys.executable, "-m", "hsmjwt", "sign", "--key", "pkcs11:token=demo", "--iss", "i", "--aud", "a"]
    signed = execute(command, {**place, **variables})
    assert (signed.code, signed.out[:3]) == (0, "eyJ"), signed.err
    assert os.stat(os.path.dirname(folder)).st_mode & 0o077 == 0


def test_while_it_serves_what_it_says_can_be_typed(place, tmp_path):
    with start(place, "--serve") as process:
        shown = lines_until(process, "hsmjwt token")
        typed = [line for line in shown[shown.index("") :] if line.startswith("  ")]
        assert len(typed) == 2
        script = "\n".join((f'hsmjwt() {{ "{sys.executable}" -m hsmjwt "$@"; }}', *typed))
        done = execute(["sh", "-c", script], place)
        (folder,) = os.listdir(place["TMPDIR"])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("demo_")
    assert (process.returncode, err) == (-signal.SIGINT, "hsmjwt: error: interrupted\n")
    assert folder.startswith("hsmjwt-demo-")
    assert os.listdir(place["TMPDIR"]) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, -signal.SIGINT)]
)
@pytest.mark.parametrize("when", ["at work", "serving"])
def test_a_signal_ends_it_and_its_folder(place, number, code, when):
    with start(place, "--serve") as process:
        if when == "serving":
            lines_until(process, "hsmjwt token")
        else:
            while not any(os.path.isdir(os.path.join(each.path, "softhsm")) for each in os.scandir(place["TMPDIR"])):
                time.sleep(0.005)
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=10)
        assert time.monotonic() - began < 5
    assert process.returncode == code
    assert left(place) == []


def test_a_reader_that_goes_ends_it_quietly(place):
    with start(place) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 141
    assert left(place) == []


def test_what_is_in_the_way_is_said_before_the_first_step(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more in (("--port", port), ("--port", port, "--serve"), ("--port", port, "--json")):
            done = demo(place, *more)
            assert (done.code, done.out) == (2, "")
            words = f"hsmjwt: error: cannot listen on port {port}: address already in use"
            assert done.err.splitlines()[:2] == [words, "hsmjwt: hint: port 0 takes a free one"]
    assert left(place) == []


def test_without_the_extra_it_says_what_to_install(place):
    script = (
        "import sys; sys.modules['authlib'] = None; sys.argv[0] = 'hsmjwt'; from hsmjwt.cli.main import entry; entry()"
    )
    done = execute([sys.executable, "-c", script, "demo"], place)
    assert (done.code, done.out) == (2, "")
    assert "hint: in a clone of hsmjwt: pip install '.[demo]'" in done.err
    assert left(place) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--client", "ci"), "--client and --public-key (or --jwks) go together"),
        (("--public-key", "f", "--serve"), "--client and --public-key (or --jwks) go together"),
        (("--client", "ci", "--public-key", "f"), "--client and --public-key or --jwks are for --serve"),
        (("--port", "65536"), "65536"),
        (("--port", "-1"), "-1"),
        (("--port", "http"), "http"),
    ],
)
def test_flags_that_cannot_be_meant_are_a_usage_error(quick, args, words):
    done = quick("demo", *args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
