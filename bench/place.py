"""The machine that is measured: a home of its own, tokens, a configuration, servers. All of it is thrown away."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from runs import Command
from server import AuthorizationServer, Trust, make_trust

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = sys.executable  # never a name on PATH, which may be a shim that starts another program first
HSMJWT = os.path.join(os.path.dirname(PYTHON), "hsmjwt")
LOOP = os.path.join(os.path.dirname(PYTHON), "pkcs11-loop")
LIBRARY = f"{LOOP}.so"
LABEL = "hsmjwt"  # what `hsmjwt softhsm init` calls its token
RSA_ID = "000001"  # what workers/make_keys.py gives the key `rsa`

_OLD_ENOUGH = 2.5  # seconds; the cache trusts a configuration that did not change just now

_PROFILE = """\
[keys.{name}]
uri = "pkcs11:token={label};object=rsa"
module = "{module}"
pin_source = "file:{pin_file}"
alg = "RS256"

[profiles.{name}]
key = "{name}"
client_id = "client"
issuer = "client"
audience = "{audience}"
token_url = "{url}"
"""
AUDIENCE = "https://as.example.com/token"


class Store(NamedTuple):
    """A SoftHSM2 token in a folder of its own."""

    conf: str
    module: str
    pin_file: str


class Place:
    """Folders and servers for one run of the bench."""

    def __init__(self, folder: str, http: AuthorizationServer, https: AuthorizationServer, trust: Trust) -> None:
        """Make the token that most parts use, a home, and the profile `bench` in it."""
        self.folder = folder
        self.http, self.https, self.trust = http, https, trust
        self.store = self.make_store("store", 2)
        self.home = self.make_home("home", ["bench"])

    def environ(self, *, home: str | None = None, store: Store | None = None) -> dict[str, str]:
        """Return the environment of a user; PYTHONDONTWRITEBYTECODE is not in it."""
        folder = home or self.home
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": folder,
            "XDG_RUNTIME_DIR": os.path.join(folder, "run"),
            "SOFTHSM2_CONF": (store or self.store).conf,
        }

    def make_store(self, name: str, keys: int) -> Store:
        """Make a token with that many private keys."""
        folder = os.path.join(self.folder, name)
        plain = {"PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8"}
        Command([HSMJWT, "softhsm", "init", "--dir", folder], plain).output()
        named = json.loads(Command([HSMJWT, "softhsm", "env", "--dir", folder, "--json"], plain).output())
        store = Store(named["SOFTHSM2_CONF"], named["HSMJWT_MODULE"], named["HSMJWT_PIN_SOURCE"].removeprefix("file:"))
        script = os.path.join(HERE, "workers", "make_keys.py")
        argv = [PYTHON, script, store.module, store.pin_file, str(keys)]
        Command(argv, {**plain, "SOFTHSM2_CONF": store.conf}).output()
        return store

    def make_home(self, name: str, profiles: list[str]) -> str:
        """Make a home folder whose configuration has these profiles, each with a key table of its own."""
        home = os.path.join(self.folder, name)
        for below in (".config/hsmjwt", "run"):
            os.makedirs(os.path.join(home, below), mode=0o700)
        path = os.path.join(home, ".config/hsmjwt/config.toml")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.writelines(self._tables(profile) for profile in profiles)
        return home

    def _tables(self, profile: str) -> str:
        return _PROFILE.format(
            name=profile,
            label=LABEL,
            module=self.store.module,
            pin_file=self.store.pin_file,
            audience=AUDIENCE,
            url=self.http.url,
        )

    def hsmjwt(self, *words: str, home: str | None = None, before: Callable[[], None] | None = None) -> Command:
        """Return the command line of hsmjwt."""
        environ = self.environ(home=home)
        return Command([HSMJWT, *words], environ) if before is None else Command([HSMJWT, *words], environ, before)

    def reference(self, script: str, *words: str) -> Command:
        """Return a script in Python that hsmjwt is compared with."""
        return Command([PYTHON, os.path.join(HERE, "reference", script), *words], self.environ())

    def bash(self, script: str) -> Command:
        """Return a bash script that signs."""
        path = os.path.join(HERE, "reference", script)
        words = (self.store.module, LABEL, RSA_ID, self.store.pin_file, "client", AUDIENCE)
        return Command(["/bin/bash", path, *words], self.environ())

    @property
    def key_words(self) -> tuple[str, ...]:
        """The words by which such a script is told the key."""
        return self.store.module, LABEL, "rsa", self.store.pin_file

    @property
    def key_flags(self) -> tuple[str, ...]:
        """The same as hsmjwt's flags."""
        uri = f"pkcs11:token={LABEL};object=rsa"
        return "--module", self.store.module, "--key", uri, "--pin-source", f"file:{self.store.pin_file}"

    def settle(self, home: str | None = None) -> None:
        """Wait until the configuration is old enough to be trusted without being read."""
        path = os.path.join(home or self.home, ".config/hsmjwt/config.toml")
        time.sleep(max(0.0, os.stat(path).st_ctime + _OLD_ENOUGH - time.time()))


@contextlib.contextmanager
def made() -> Iterator[Place]:
    """Make a place, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="hsmjwt-bench-") as folder:
        trust = make_trust(folder)
        with AuthorizationServer() as http, AuthorizationServer(trust.server) as https:
            yield Place(folder, http, https, trust)
