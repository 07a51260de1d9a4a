"""Fixtures that several test files share: SoftHSM2 tokens of one's own, and hsmjwt as its user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# Run by nohup or in a shell's background, and a command would inherit that it is deaf to what the tests send.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

settings.register_profile("hsmjwt", deadline=None)  # two busy cores: 200 ms an example would say nothing
settings.load_profile("hsmjwt")

PIN = "31415926"
SO_PIN = "27182818"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)


class Result(NamedTuple):
    """What a command printed and how it ended; a death by signal N is -N."""

    code: int
    out: str
    err: str


class Token:
    """A SoftHSM2 token store in a folder: the token `t1` with the RSA-2048 key `k1` (id 01), and more where asked."""

    def __init__(self, folder: Path, module: str) -> None:
        self.folder = folder
        self.module = module
        self.conf = folder / "softhsm2.conf"
        self.pin_file = folder / "pin"
        self.uri = "pkcs11:token=t1;object=k1"

    def environ(self) -> dict[str, str]:
        """The environment of a user who has this token, an empty home and nothing else."""
        home, run = self.folder / "home", self.folder / "run"
        home.mkdir(exist_ok=True)
        run.mkdir(mode=0o700, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(run),  # without it the cache would be that of whoever runs the tests
            "LANG": "C.UTF-8",
            "SOFTHSM2_CONF": str(self.conf),
            "HSMJWT_MODULE": self.module,
            "HSMJWT_PIN_SOURCE": f"file:{self.pin_file}",
            "HSMJWT_KEY": self.uri,
        }

    def write_conf(self, *lines: str) -> None:
        """Write the configuration, with further lines where asked."""
        base = (f"directories.tokendir = {self.folder / 'tokens'}", "objectstore.backend = file", "log.level = ERROR")
        self.conf.write_text("\n".join((*base, *lines, "")))

    def python(self, code: str, *args: str, **environ: str) -> Result:
        """Run Python code in a process of its own, which has this token's environment."""
        return execute([sys.executable, "-c", code, *args], {**self.environ(), **environ})

    def make_token(self, label: str, pin: str = PIN) -> None:
        """Add another token to the store."""
        call = "from hsmjwt.hsm.provision import init_token; import sys; init_token(*sys.argv[1:])"
        done = self.python(call, os.path.realpath(self.module), label, pin, SO_PIN)
        assert done.code == 0, done.err

    def make_key(self, label: str, key_id: str = "02", token: str = "t1", **template: object) -> None:
        """Add an RSA-2048 key pair whose private half has further attributes, by their PKCS#11 names."""
        done = self.python(_MAKE_KEY, token, label, key_id, PIN, repr(template))
        assert done.code == 0, done.err


_MAKE_KEY = """
import os, pkcs11, sys
token, label, key_id, pin, template = sys.argv[1:]
lib = pkcs11.lib(os.environ["HSMJWT_MODULE"])
with lib.get_token(token_label=token).open(rw=True, user_pin=pin) as session:
    more = {pkcs11.Attribute[name]: value for name, value in eval(template).items()}
    session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label=label, id=bytes.fromhex(key_id),
        capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY, private_template=more)
"""


def execute(
    command: Sequence[str], environ: Mapping[str, str], stdin: bytes | None = None, timeout: float = 60
) -> Result:
    """Run a command to its end."""
    done = subprocess.run(
        command, env=dict(environ), input=stdin or b"", capture_output=True, timeout=timeout, check=False
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="session")
def named_host() -> str:
    """The name `localhost`, where it resolves: a folder made by debootstrap has no /etc/hosts."""
    try:
        socket.getaddrinfo("localhost", 80)
    except OSError:
        pytest.skip("localhost does not resolve here")
    return "localhost"


@pytest.fixture(scope="session")
def softhsm_module() -> str:
    """Where SoftHSM2's module lies; the tests are nothing without it."""
    named = os.environ.get("HSMJWT_TEST_MODULE")
    for path in (named, *MODULES) if named else MODULES:
        if os.path.exists(path):
            return path
    pytest.fail("SoftHSM2 is not installed: bash script/test installs it on Debian")


@pytest.fixture(scope="session")
def token_template(tmp_path_factory: pytest.TempPathFactory, softhsm_module: str) -> Token:
    """A token made once; each test works on a copy."""
    token = Token(tmp_path_factory.mktemp("token-template"), softhsm_module)
    (token.folder / "tokens").mkdir(mode=0o700)
    token.write_conf()
    token.pin_file.write_text(PIN)
    token.pin_file.chmod(0o600)
    token.make_token("t1")
    token.make_key("k1", "01")
    return token


@pytest.fixture
def token(tmp_path: Path, token_template: Token) -> Token:
    """A token of the test's own."""
    folder = tmp_path / "token"
    shutil.copytree(token_template.folder, folder)
    for name in ("home", "run"):
        shutil.rmtree(folder / name, ignore_errors=True)
    copy = Token(folder, token_template.module)
    copy.write_conf()
    return copy


Hsmjwt = Callable[..., Result]


@pytest.fixture
def hsmjwt(token: Token) -> Hsmjwt:
    """Run hsmjwt as the token's user does; keyword arguments are variables (None removes one), stdin is bytes."""

    def run(*args: str, stdin: bytes | None = None, timeout: float = 60, **environ: str | None) -> Result:
        merged = {**token.environ(), **environ}
        return execute(
            [sys.executable, "-m", "hsmjwt", *args],
            {name: value for name, value in merged.items() if value is not None},
            stdin,
            timeout,
        )

    return run


@pytest.fixture
def demo_server(token: Token, hsmjwt: Hsmjwt) -> Iterator[object]:
    """The demo's authorization server, which knows key k1 as the client `ci`."""
    from hsmjwt.demo import Client, DemoServer

    pem = hsmjwt("key", "export", token.uri, HSMJWT_KEY=None).out
    with DemoServer([Client(client_id="ci", public_key_pem=pem)]) as server:
        yield server
