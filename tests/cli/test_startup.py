"""What a command loads: start-up is paid at each run, so it is tested on sys.modules, never on milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.roads import ENDS, QUICK, Configs, Home, profile
from servers.granting import granted
from servers.scripted import Server

ROOT = Path(__file__).resolve().parents[2]
SIGN = ("--iss", "ci", "--client-id", "ci")
NEVER = {"importlib.metadata", "dataclasses", "rich", "flask", "authlib", "pydantic", "redis", "asyncio", "tempfile"}
HTTP = {"requests", "urllib3", "http.client", "certifi", "ssl"}
TOKEN = {"pkcs11", "ctypes"}
HEAVY = {"asn1crypto", "cryptography"}
# Runs the command line, and at its end writes down what is loaded.
TELL = """
import os, sys
end, file = os._exit, sys.argv.pop(1)
def tell(code):
    with open(file, "w") as out:
        out.write("\\n".join(sys.modules))
    end(code)
os._exit = tell
from hsmjwt.cli.main import entry
entry()
"""


@pytest.fixture
def loaded(token, tmp_path):
    """Return the modules that a command has loaded when it ends, and the top-level packages of all of them."""

    def run(*args: str, code: int = 0, stdin: bytes = b"") -> set[str]:
        environ = token.environ() | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", TELL, str(tmp_path / "modules"), *args]
        done = subprocess.run(command, env=environ, input=stdin, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        names = set((tmp_path / "modules").read_text().splitlines())
        return names | {name.partition(".")[0] for name in names}

    return run


def test_signing_loads_the_token_and_a_verifier_and_no_http(loaded):
    names = loaded("sign", *SIGN[:2], "--aud", "a")
    assert names & (NEVER | HTTP | {"asn1crypto"}) == set()
    assert {"pkcs11", "cryptography", "hsmjwt.verify"} <= names
    others = {"token", "cache", "doctor", "demo", "key", "slot", "jwt", "softhsm", "version", "usage"}
    assert names & {f"hsmjwt.cli.{verb}" for verb in others} == set()
    assert (
        names & {"hsmjwt.x509", "hsmjwt.custody", "hsmjwt.store.file", "hsmjwt.oauth.exchange", "hsmjwt.oauth.redact"}
        == set()
    )


def test_a_cached_token_is_served_without_the_device_and_without_http(loaded, demo_server):
    fetched = loaded("token", *SIGN, "--token-url", demo_server.token_url)
    assert {"requests", "pkcs11"} <= fetched
    assert "asn1crypto" not in fetched
    # urllib3 asks importlib.metadata for h2's version
    assert fetched & NEVER - {"importlib.metadata", "tempfile"} == set()
    cached = loaded("token", *SIGN, "--token-url", demo_server.token_url)
    assert cached & (NEVER | HTTP | TOKEN | HEAVY) == set()
    assert demo_server.stats.granted == 1


def test_a_cache_hit_loads_four_modules_of_ours_and_next_to_nothing_else(token, tmp_path):
    alone = subprocess.run(
        [sys.executable, "-c", "import os, sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    with Server(granted()) as server:
        configs = Configs(tmp_path / "configs", plain=(profile("p", server.url()), 1))
        home = Home(token, configs.take("plain"))
        home.warm("p")
    for verb in ("token", "header"):
        assert home(verb, "p").modules - set(alone.stdout.split()) - {"time"} == QUICK
    more = {ENDS, "warnings"}  # the search in the PATH has a use for it
    assert home("exec", "p", "--", "true").modules - set(alone.stdout.split()) - {"time"} - more == QUICK


def test_a_verb_and_a_profile_without_flags_do_not_load_typer(token, tmp_path):
    with Server(granted()) as server:
        path = tmp_path / "hsmjwt" / "config.toml"
        path.parent.mkdir()
        path.write_text(profile("p", server.url(), 'audience = "a"'))
        home = Home(token, path)
        for args in (("sign", "p"), ("token", "p"), ("header", "p"), ("exec", "p", "--", "true"), ("doctor", "p")):
            assert home(*args).road == "plain"
    jwt = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"
    for args in (("cache", "clear", "p"), ("key", "list"), ("slot", "list"), ("inspect", jwt)):
        assert home(*args).road == "plain"
    assert home("sign", "p", "--json").road == "typed"


def test_a_dry_run_loads_neither(loaded):
    for command in ("sign", "token"):
        url = ("--token-url", "https://as.example/token") if command == "token" else ()
        names = loaded(command, *SIGN[:2], "--aud", "a", *url, "--dry-run")
        assert names & (NEVER | HTTP | TOKEN | HEAVY) == set()


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"),
        ("--version",),
        ("cache", "list"),
        ("softhsm", "--help"),
        ("sign", "--help"),
    ],
    ids=" ".join,
)
def test_what_needs_no_token_loads_none(loaded, args):
    assert loaded(*args) & (NEVER | HTTP | TOKEN | HEAVY) == set()


def test_help_lists_all_commands_without_what_they_work_with(loaded):
    names = loaded("--help")
    assert names & (HTTP | TOKEN | HEAVY | NEVER) == set()


def test_listings_load_no_http_and_no_parser_of_certificates(loaded):
    for args in (("slot", "list"), ("key", "list")):
        assert loaded(*args) & (NEVER | HTTP) == set()
    assert loaded("slot", "list") & HEAVY == set()


def test_every_module_imports_alone():
    package = ROOT / "hsmjwt"
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in package.rglob("*.py")
        if path.name != "__main__.py"
    )
    # A fork for each: importing them one after the other would hide what one of them forgets. Others' modules are
    # loaded before, and none of ours.
    code = """
import asn1crypto.x509, cryptography.x509, importlib, json, msgspec, os, pkcs11, requests, sys, typer
failed = []
for name in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            os.write(2, f"{name}: {error!r}\\n".encode())
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        failed.append(name)
print(json.dumps(failed))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [], done.stderr
