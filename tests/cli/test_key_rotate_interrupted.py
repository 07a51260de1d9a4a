"""A rotation that is killed anywhere, or run twice at once, comes to the same end: one new key, in use."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.checks import refused
from cli.restoring import restored
from servers.granting import write_config

from hsmjwt.demo import Client, DemoServer

CONFIG = """\
[keys.svc]
uri = "pkcs11:token=t1;object=svc"
alg = "ES256"

[profiles.svc]
key = "svc"
issuer = "ci"
token_url = "{url}"
"""
BOUNDARIES = ("os.rename", "socket.connect")  # what is written takes its place by a rename
MOST = 30  # of them in a run; it has some ten


class Rotated:
    """A config whose key is `svc`, P-256, and a server that reads what is published."""

    def __init__(self, token, quick, folder: Path) -> None:
        self.token, self.quick, self.folder = token, quick, folder
        self.web = folder / "web"
        self.web.mkdir()
        self.first = quick(
            "key", "generate", "--key", "pkcs11:token=t1", "--label", "svc", "--type", "p256"
        ).out.strip()
        self.environ = {**token.environ(), "HSMJWT_CONFIG": str(folder / "config.toml")}
        del self.environ["HSMJWT_KEY"]

    def write(self, url: str) -> None:
        self.text = CONFIG.format(url=url)
        write_config(self.folder, self.text)
        (self.web / "jwks.json").write_text(self("jwks", "keys.svc").out)

    def __call__(self, *args: str, **more: Any):
        return self.quick(*args, **more, HSMJWT_CONFIG=self.environ["HSMJWT_CONFIG"], HSMJWT_KEY=None)

    @property
    def words(self) -> list[str]:
        return ["key", "rotate", "svc", "--out", str(self.web), "--grace", "0"]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "hsmjwt", *self.words]

    def finish(self) -> dict[str, Any]:
        """Run it once more, to the end."""
        done = self(*self.words, "--json")
        assert done.code == 0, done.err
        value: dict[str, Any] = json.loads(done.out)
        return value

    def check(self, state: dict[str, Any]) -> None:
        """Check that the new key is in use and published, and that nothing is left of any other."""
        new = state["new"]["uri"]
        assert (state["step"], state["old"]["uri"]) == ("retired", self.first)
        text = Path(self.environ["HSMJWT_CONFIG"]).read_text()
        assert text == self.text.replace("pkcs11:token=t1;object=svc", new)
        keys = json.loads((self.web / "jwks.json").read_text())["keys"]
        assert [each["kid"] for each in keys] == [state["new"]["thumbprint"]]
        rows = json.loads(self("key", "list", "--key", "pkcs11:token=t1", "--json").out)
        # SoftHSM writes a key's file attribute by attribute: a kill in there can leave one without a name.
        assert {row["uri"] for row in rows if row["label"] not in ("k1", "")} == {self.first, new}
        assert self("token", "svc").code == 0
        files = [f"{name}-{state['new']['thumbprint']}.pem" for name in ("certificate", "public")]
        assert sorted(path.name for path in self.web.iterdir()) == [files[0], "jwks.json", files[1]]
        assert not [path for path in self.folder.rglob("*.new") if path.is_file()]


@pytest.fixture
def rotated(token, quick, tmp_path) -> Iterator[Rotated]:
    made = Rotated(token, quick, tmp_path)
    (made.web / "jwks.json").write_text('{"keys": []}')
    with DemoServer([Client(client_id="ci", jwks=str(made.web / "jwks.json"))]) as server:
        made.write(server.token_url)
        yield made


def steps_left(rotated: Rotated) -> str | None:
    found = list((rotated.token.folder / "home/.local/state/hsmjwt/rotation").glob("*.json"))
    return json.loads(found[0].read_text())["step"] if found else None


def test_killed_at_any_boundary_of_its_steps_the_next_run_ends_as_it_would_have(rotated, tmp_path):
    reached = set()
    for count in range(1, MOST):
        with restored(tmp_path):
            done = rotated(*rotated.words, steps=[("struck", count, *BOUNDARIES)])
            if done.code == 0:
                break
            assert done.code == -signal.SIGKILL, done
            reached.add(steps_left(rotated))
            assert rotated("sign", "svc", "--aud", "x").code == 0  # whatever struck, one of the two keys is in use
            rotated.check(rotated.finish())
    assert reached >= {None, "planned", "made", "published", "accepted", "switched"}


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_the_next_run_ends_as_it_would_have(rotated, seed):
    rand = random.Random(seed)
    for _ in range(3):
        with subprocess.Popen(rotated.command(), env=rotated.environ, stdout=-3, stderr=-3) as process:
            time.sleep(rand.uniform(0.1, 0.8))  # a run takes about a second
            process.kill()
            process.wait()
    rotated.check(rotated.finish())


def test_three_at_once_take_turns_and_make_one_key(rotated):
    command = [*rotated.command()[:-1], "1h"]
    processes = [subprocess.Popen(command, env=rotated.environ, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    ends = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert {code for _, _, code in ends} <= {0, 11}, ends
    assert any(code == 0 for _, _, code in ends), ends
    for _, err, code in ends:  # who waited has read a config that the first one changed
        assert code == 0 or "was changed meanwhile" in err
    assert steps_left(rotated) == "switched"
    rotated.check(rotated.finish())


def test_one_that_waits_for_another_ends_in_time(rotated):
    hold = (
        "import sys; from hsmjwt.custody.rotation_state import StateFile; from hsmjwt.deadline import Deadline\n"
        "with StateFile(sys.argv[1], sys.argv[2], 'svc').turn(Deadline(None)):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()"
    )
    state = rotated.token.folder / "home/.local/state/hsmjwt"
    command = [sys.executable, "-c", hold, str(state), rotated.environ["HSMJWT_CONFIG"]]
    with subprocess.Popen(command, env=rotated.environ, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        done = rotated("key", "rotate", "svc", "--timeout", "1s")
        refused(done, 11, "no answer from another hsmjwt that rotates this key within 1 s")
        threading.Timer(1.0, holder.stdin.close).start()
        assert rotated("key", "rotate", "svc", "--out", str(rotated.web)).code == 0
