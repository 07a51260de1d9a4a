"""One cache, many processes: one exchange, whoever dies meanwhile, and other users see nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.granting import MARK, flags, granted
from servers.scripted import Server, silent

import hsmjwt as hsmjwt_package
from hsmjwt.demo import Client, DemoServer


def start(token, *args: str, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hsmjwt", *args]
    return subprocess.Popen(command, env={**token.environ(), **environ}, stdin=-3, stdout=-1, stderr=-1, text=True)


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_twenty_processes_on_an_empty_cache_make_one_exchange(hsmjwt, token):
    pem = hsmjwt("key", "export", token.uri, HSMJWT_KEY=None).out
    with DemoServer([Client(client_id="i", public_key_pem=pem)]) as server:
        call = ("token", "--iss", "i", "--token-url", server.token_url)
        running = [start(token, *call) for _ in range(20)]
        ends = [(*process.communicate(timeout=60), process.returncode) for process in running]
        assert (server.stats.granted, server.stats.refused) == (1, 0)
    assert {(err, code) for _, err, code in ends} == {("", 0)}
    assert len({out for out, _, _ in ends}) == 1


def test_kill_9_of_the_one_that_fetches_lets_another_go_on(token):
    with Server(silent(), granted()) as server:
        first = start(token, "token", *flags(server.url()))
        wait_for(lambda: server.requests)
        second = start(token, "token", *flags(server.url()), "--verbose")
        time.sleep(0.6)
        assert (second.poll(), len(server.requests)) == (None, 1)
        first.send_signal(signal.SIGKILL)
        out, err = second.communicate(timeout=20)
        first.communicate()
    assert (second.returncode, out) == (0, f"{MARK}\n"), err
    assert len(server.requests) == 2


def test_who_waits_for_anothers_exchange_gives_up_at_its_deadline(token, hsmjwt):
    with Server(silent()) as server:
        first = start(token, "token", *flags(server.url()))
        wait_for(lambda: server.requests)
        began = time.monotonic()
        done = hsmjwt("token", *flags(server.url()), "--timeout", "1")
        assert time.monotonic() - began < 4
        other = hsmjwt("token", *flags(server.url(), "--scope", "s"), "--timeout", "1")
        first.kill()
        first.communicate()
    assert (done.code, done.out) == (11, "")
    assert "no answer from another process that fetches the same access token within 1 s" in done.err
    assert other.code == 9
    assert len(server.requests) == 2


def test_clear_during_an_exchange_keeps_what_it_brings_out_of_the_cache(token, hsmjwt):
    def slow(line):
        line.wait(1.5)
        granted("before")(line)

    with Server(slow, granted("after")) as server:
        first = start(token, "token", *flags(server.url()))
        wait_for(lambda: server.requests)
        assert hsmjwt("cache", "clear").code == 0
        out, err = first.communicate(timeout=20)
        assert (first.returncode, out, err) == (0, "before\n", "")
        assert hsmjwt("token", *flags(server.url())).out == "after\n"


AS_SOMEBODY_ELSE = """
import importlib, os, sys
from hsmjwt.cli.gate import VERBS
later = ("cli.main", "cli.typed", "custody.keys", "hsm.signer", "oauth.transport", "verify")
for name in (*VERBS.values(), *(f"hsmjwt.{name}" for name in later)):
    importlib.import_module(name)  # while the interpreter's folder, perhaps root's own, can be read
os.setgroups([]), os.setgid(54321), os.setuid(54321)
sys.modules["hsmjwt.cli.main"].entry()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
def test_another_user_is_served_nothing_of_ours(token, hsmjwt, tmp_path):
    """With our runtime folder in its environment, as after su, and with the same calls."""
    package = Path(hsmjwt_package.__file__).resolve()
    if not all(folder.stat().st_mode & 0o001 for folder in package.parents):
        pytest.skip("the project lies in a folder that nobody else may enter")
    home, pin, tokens = tmp_path / "other-home", tmp_path / "other-pin", tmp_path / "other-tokens"
    home.mkdir()
    shutil.copytree(token.folder / "tokens", tokens)
    shutil.copy(token.pin_file, pin)
    conf = tmp_path / "other.conf"
    conf.write_text(token.conf.read_text().replace(str(token.folder / "tokens"), str(tokens)))
    for path in (home, pin, tokens, *tokens.rglob("*")):
        os.chown(path, 54321, 54321)
    environ = token.environ() | {"HOME": str(home), "SOFTHSM2_CONF": str(conf), "HSMJWT_PIN_SOURCE": f"file:{pin}"}
    folders = [(path, path.stat().st_mode) for path in (tmp_path, *tmp_path.parents) if path != Path("/")]
    with Server(granted("ours"), granted("theirs")) as server:
        assert hsmjwt("token", *flags(server.url())).out == "ours\n"
        try:
            for path, mode in folders:
                path.chmod(mode | 0o011)
            command = [sys.executable, "-c", AS_SOMEBODY_ELSE, "token", *flags(server.url())]
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        finally:
            for path, mode in folders:
                path.chmod(mode)
        assert (done.returncode, done.stdout) == (0, "theirs\n"), done.stderr
        assert hsmjwt("token", *flags(server.url())).out == "ours\n"
    assert len(server.requests) == 2
    assert [path.parent.parent.parent for path in home.rglob("*.json")] == [home]
