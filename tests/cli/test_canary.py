"""Known secrets are driven through every error path that can be reached, and looked for in all that is said and kept.

The PIN from each of its sources, a client secret, a proxy's password, the assertion and the access token: none may be
in stdout, stderr, the state folder or the cache, in any of the spellings below, but where the access token was asked
for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from servers.scripted import Server, free_port, json_reply, redirect, reply

ROOT = Path(__file__).resolve().parents[2]
PATCHED = Path(__file__).parent.parent / "hsm" / "patched.py"
PIN, WRONG_PIN = "S3cr3tPin-7461", "Wr0ngPin+9/99"
CLIENT_SECRET, PROXY_PASSWORD, ACCESS_TOKEN = "cl13nt/S3cr3t+&=x", "Pr0xy-Passw0rd", "AT-marker-51c2.aaaa_BBBB"
SECRETS = (PIN, WRONG_PIN, CLIENT_SECRET, PROXY_PASSWORD)
LOUD = ("--verbose", "--json")


def spellings(secret: str) -> set[str]:
    """The ways in which a secret may be written by whoever quotes, encodes or hashes it."""
    raw = secret.encode()
    found = {secret, secret[::-1], quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], raw.hex()}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        inner = whole[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    for kind in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(kind, raw).digest()
        found |= {digest.hex(), base64.b64encode(digest).decode()[:20], base64.urlsafe_b64encode(digest).decode()[:20]}
    return found


SPELLINGS = {spelling: secret for secret in SECRETS for spelling in spellings(secret)}


class Cage:
    """A token with the known PIN, and everything that hsmjwt says and keeps while it is used."""

    def __init__(self, token, forks) -> None:
        self.token = token
        self.forks = forks
        self.key = "pkcs11:token=cage;object=k"
        self.environ = token.environ() | {
            "PYTHONPATH": str(ROOT),
            "HSMJWT_PIN_SOURCE": "env:CANARY",
            "CANARY": PIN,
            "WRONG": WRONG_PIN,
            "SECRET": CLIENT_SECRET,
            "HSMJWT_KEY": self.key,
        }
        self.printed: list[tuple[str, str]] = []

    def run(self, *args: str, shown: bool = True, code: str | None = None, **environ: str) -> tuple[int, str, str]:
        """Run hsmjwt, as `code` in a process of its own if that is given, and keep what is printed for `close`."""
        merged = self.environ | environ
        if code is None:
            ended, out, err = self.forks.run(args, merged)
        else:
            command = [sys.executable, *code.split(), *args]
            done = subprocess.run(
                command, env=merged, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
            )
            ended, out, err = done.returncode, done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        self.printed += [(f"stderr of {args}", err), *([(f"stdout of {args}", out)] if shown else [])]
        return ended, out, err

    def kept(self) -> list[tuple[str, str]]:
        """All files below the home and the runtime folder, with their names."""
        paths = [path for name in ("home", "run") for path in (self.token.folder / name).rglob("*")]
        return [(f"file {path}", f"{path} {path.read_bytes().decode('latin-1')}") for path in paths if path.is_file()]

    def close(self, *assertions: str, cached: bool = False) -> None:
        """Look for the secrets, and for assertions that were sent, in all that was printed and kept."""
        parts = [part for jwt in assertions for part in jwt.split(".") if len(part) > len("eyJhbGciOiJSUzI1NiJ9")]
        hunted = {**SPELLINGS, **dict.fromkeys(parts, "the assertion")}
        kept = self.kept()
        for place, text in (*self.printed, *kept):
            for spelling, secret in hunted.items():
                assert spelling not in text, f"{secret} in {place}"
        for place, text in (*self.printed, *([] if cached else kept)):
            for spelling in spellings(ACCESS_TOKEN):
                assert spelling not in text, f"the access token in {place}"


@pytest.fixture(scope="module")
def cage_template(tmp_path_factory, token_template, forks):
    folder = tmp_path_factory.mktemp("cage") / "token"
    shutil.copytree(token_template.folder, folder)
    token = type(token_template)(folder, token_template.module)
    token.write_conf()
    token.make_token("cage", pin=PIN)
    cage = Cage(token, forks)
    made = cage.run("key", "generate", "--key", "pkcs11:token=cage", "--label", "k", "--type", "rsa:2048")
    assert made[0] == 0, made
    return token


@pytest.fixture
def cage(tmp_path, cage_template, forks):
    shutil.copytree(cage_template.folder, tmp_path / "token")
    token = type(cage_template)(tmp_path / "token", cage_template.module)
    token.write_conf()
    for name in ("home", "run"):
        shutil.rmtree(token.folder / name)
    return Cage(token, forks)


SIGN = ("sign", "--iss", "i", "--aud", "a", *LOUD)


def test_the_pin_from_each_source_right_and_wrong(cage, tmp_path):
    def source(kind: str, secret: str) -> tuple[str, ...]:
        file = tmp_path / f"{kind}-{len(secret)}"
        file.write_text(f"{secret}\n")
        file.chmod(0o600)
        name = "CANARY" if secret == PIN else "WRONG"
        return {
            "env": ("--pin-source", f"env:{name}"),
            "file": ("--pin-source", f"file:{file}"),
            "command": ("--pin-source", f"command:printf '%s\\n' '{secret}'"),
            "pin-value": ("--key", f"{cage.key}?pin-value={quote(secret, safe='')}"),
            "pin-source": ("--key", f"{cage.key}?pin-source=file:{quote(str(file))}"),
        }[kind]

    for kind in ("env", "file", "command", "pin-value", "pin-source"):
        assert cage.run(*SIGN, *source(kind, PIN))[0] == 0
        for _ in range(2):  # refused by the token, then withheld by us
            code, _, err = cage.run(*SIGN, *source(kind, WRONG_PIN))
            assert (code, "CKR_PIN_INCORRECT" in err) == (5, True)
        assert any("refused" in text for _, text in cage.kept()), "there is a note of it"
        cage.close()
    assert cage.run("doctor", *LOUD, *source("env", WRONG_PIN))[0] == 5
    assert cage.run("doctor", *LOUD, *source("pin-value", PIN))[0] == 0
    assert cage.run("key", "list", *LOUD, *source("pin-value", PIN))[0] == 0
    cage.close()


def test_a_pin_that_cannot_be_one_and_a_source_that_fails(cage, tmp_path):
    (tmp_path / "mode").write_text(PIN)
    (tmp_path / "mode").chmod(0o644)
    for number, text in enumerate((f"{PIN}\n{PIN}", f"{PIN}\r", f"{PIN}\0", f"{PIN}" * 400, f"\ufeff{PIN}")):
        file = tmp_path / f"bad-{number}"
        file.write_text(text)
        file.chmod(0o600)
        assert cage.run(*SIGN, "--pin-source", f"file:{file}")[0] == 3
    (tmp_path / "latin").write_bytes(PIN.encode() + b"\xff")
    (tmp_path / "latin").chmod(0o600)
    for source in (
        f"file:{tmp_path}/latin",
        f"file:{tmp_path}/mode",
        f"command:sh -c 'echo {PIN}; exit 3'",
        f"command:/nowhere/{'x' * 20} {PIN}",
        f"command:sh -c 'printf {PIN}{PIN}%070000d'",
    ):
        assert cage.run(*SIGN, "--pin-source", source)[0] == 3
    for wrong in (PIN, f"{PIN}:x", f"pin:{PIN}", f"env:{PIN}=", f"fd:{PIN}", f"command:'{PIN}"):
        assert cage.run(*SIGN, "--pin-source", wrong)[0] == 2
    for uri in (
        f"{cage.key}?pin-value={PIN}&pin-value={PIN}",
        f"{cage.key};pin-value={PIN}",
        f"{cage.key}?pin-value={PIN} x",
    ):
        assert cage.run(*SIGN, "--key", uri)[0] == 2
    (tmp_path / "config.toml").write_text(f'[keys.k]\nuri = "{cage.key}?pin-value={PIN}"\npin_sauce = "{PIN}"\n')
    assert cage.run("sign", "p", *LOUD, "--config", str(tmp_path / "config.toml"))[0] == 3
    (tmp_path / "config.toml").write_text(
        f'[keys.k]\nuri = "{cage.key}"\npin_source = "{PIN}"\n[profiles.p]\nkey = "k"\n'
    )
    assert cage.run("sign", "p", *LOUD, "--config", str(tmp_path / "config.toml"))[0] in (2, 3)
    cage.close()


FAULTS = [
    ("sign=0x30", 7),
    ("sign=0x5", 7),
    ("signinit=0x63", None),
    ("signinit=0x68", None),
    ("login=0x5", None),
    ("login=0xa4", 5),
    ("locked", 5),
    ("final", 5),
    ("nopin", 5),
    ("flip", 7),
    ("open=0x31", None),
    ("findinit=0x32", None),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=[row[0] for row in FAULTS])
def test_whatever_the_token_answers(cage, fault, code):
    ended, out, _ = cage.run(*SIGN, code=f"{PATCHED} {fault}")
    assert ended == code or (code is None and ended in range(4, 8))
    assert out == ""
    cage.close()


def echoes() -> dict:
    """Answers that quote what was sent, or hide an access token where none belongs."""

    def quoting(make):
        def act(line):
            body = line.request.body.decode()
            make(body, line.request.form, dict(line.request.headers))(line)

        return act

    page = {"Content-Type": "text/html"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    token = {"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600}
    twice = f'{{"access_token":"{ACCESS_TOKEN}","access_token":"{ACCESS_TOKEN}"}}'
    refusal = {"error": "invalid_grant", "error_description": f"not {ACCESS_TOKEN}"}
    return {
        "form as description": quoting(lambda b, f, h: json_reply({"error": "x", "error_description": b}, status=400)),
        "fields as members": quoting(lambda b, f, h: json_reply({"error": "x", **f, "headers": h}, status=401)),
        "everything as a page": quoting(
            lambda b, f, h: reply(f"<p>{b} {f} {h}</p>".encode(), status=500, headers=page)
        ),
        "assertion as error code": quoting(lambda b, f, h: json_reply({"error": f.get("assertion", b)}, status=400)),
        "location": quoting(lambda b, f, h: redirect(f"https://other.example/?{b}")),
        "header field": quoting(lambda b, f, h: reply(b"", status=403, headers={"WWW-Authenticate": f"Bearer {b}"})),
        "token without a type": json_reply({"access_token": ACCESS_TOKEN}),
        "token of another type": json_reply({**token, "token_type": ACCESS_TOKEN}),
        "token with a blank": json_reply({**token, "access_token": f"{ACCESS_TOKEN} x"}),
        "token twice": reply(twice.encode()),
        "token and a life that is none": json_reply({**token, "expires_in": f"soon {ACCESS_TOKEN}"}),
        "token in broken JSON": reply(json.dumps(token).encode()[:-10]),
        "token as form": reply(f"access_token={ACCESS_TOKEN}&token_type=bearer".encode(), headers=form),
        "token in a list": json_reply([token]),
        "token as text": json_reply(ACCESS_TOKEN),
        "token in an error": json_reply({"error": "invalid_grant", **token}),
        "token with 400": json_reply({**refusal, **token}, status=400),
        "token not in UTF-8": reply(json.dumps(token).encode() + b"\xff"),
    }


PROFILE = """
[keys.k]
uri = "pkcs11:token=cage;object=k"
[profiles.p]
key = "k"
issuer = "i"
client_id = "c"
token_url = "{url}"
client_secret_source = "env:SECRET"
form = {{ extra = "harmless" }}
"""


@pytest.mark.parametrize("name", echoes())
def test_whatever_the_server_answers(cage, tmp_path, name):
    with Server(echoes()[name]) as server:
        (tmp_path / "config.toml").write_text(PROFILE.format(url=server.url()))
        ended, out, _ = cage.run("token", "p", "--config", str(tmp_path / "config.toml"), *LOUD)
    assert ended in (9, 10)
    assert out == ""
    sent = server.requests[0].form
    assert sent["assertion"].count(".") == 2
    cage.close(sent["assertion"])


def test_the_access_token_is_where_it_was_asked_for_and_nowhere_else(cage, tmp_path):
    with Server(json_reply({"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600})) as server:
        (tmp_path / "config.toml").write_text(PROFILE.format(url=server.url()))
        at = ("--config", str(tmp_path / "config.toml"), "--verbose")
        for args in (("token", "p"), ("token", "p", "--json"), ("header", "p"), ("token", "p", "--output", "env")):
            code, out, _ = cage.run(*args, *at, shown=False)
            assert (code, ACCESS_TOKEN in out) == (0, True)
        for args in (("cache", "list"), ("cache", "list", "--json"), ("doctor", "p"), ("token", "p", "--dry-run")):
            cage.run(*args, *at)
    sent = server.requests[0].form["assertion"]
    cage.close(sent, cached=True)
    assert sum(ACCESS_TOKEN in text for _, text in cage.kept()) == 1
    assert cage.run("cache", "clear", "--verbose")[0] == 0
    cage.close(sent)


PROXIES = [
    "http://user:{0}@127.0.0.1:{1}",
    "http://user:{0}@127.0.0.1:{1}/path",
    "http://user:{0}@:{1}",
    "http://user:{0}/x@127.0.0.1:{1}",
    "socks5://user:{0}@127.0.0.1:{1}",
    "user:{0}@127.0.0.1:{1}",
]


@pytest.mark.parametrize("url", PROXIES)
def test_a_proxy_that_does_not_answer_or_makes_no_sense(cage, tmp_path, url):
    proxy = url.format(PROXY_PASSWORD, free_port())
    away = ("--iss", "i", "--token-url", "https://as.example/token", "--timeout", "0.9", *LOUD)
    assert cage.run("token", *away, HTTPS_PROXY=proxy)[0] in (3, 9)
    assert cage.run("doctor", *away[2:], HTTPS_PROXY=proxy)[0] in (3, 9)
    config = PROFILE.format(url="https://as.example/token") + f"proxy = '{proxy}'\ntimeout = 0.9\n"
    (tmp_path / "config.toml").write_text(config)
    assert cage.run("token", "p", "--config", str(tmp_path / "config.toml"), *LOUD)[0] in (3, 9)
    cage.close()


def test_a_proxy_that_refuses(cage):
    with Server(reply(b"", status=407, headers={"Proxy-Authenticate": "Basic"})) as proxy:
        url = f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"
        code, _, _ = cage.run("token", "--iss", "i", "--token-url", "https://as.example/token", *LOUD, HTTPS_PROXY=url)
    assert code == 9
    assert (
        base64.b64encode(f"user:{PROXY_PASSWORD}".encode()).decode() in proxy.requests[0].headers["proxy-authorization"]
    )
    cage.close()


# Each replaces a function that a run needs, so that an error comes up which nobody foresaw, and tells all it was given.
BUGS = {
    "network": "import socket; socket.getaddrinfo = socket.create_connection = socket.socket.connect = bug",
    "request": "import http.client; http.client.HTTPConnection.request = http.client.HTTPConnection.putrequest = bug",
    "login": "import hsmjwt.hsm.module; hsmjwt.hsm.module.decide_note = bug",
    "secret": "import hsmjwt.secret; hsmjwt.secret._checked = bug",
    "signature": "import hsmjwt.verify; hsmjwt.verify.Verified.sign = bug",
    "answer": "import hsmjwt.oauth.broker; hsmjwt.oauth.broker.read_answer = bug",
    "result": "import hsmjwt.cli.token; hsmjwt.cli.token.described = bug",
}
BUG = """
def bug(*args, **kwargs):
    secrets = [getattr(each, "_text", each) for each in args]
    raise RuntimeError(f"told: {secrets} {args} {kwargs}")
"""


@pytest.mark.parametrize(
    ("place", "flags"),
    [*((place, ("--verbose", "--json")) for place in BUGS), ("network", ()), ("network", ("--json",)), ("secret", ())],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_error_that_nobody_expects(cage, tmp_path, place, flags):
    (tmp_path / "sitecustomize.py").write_text(f"{BUG}\n{BUGS[place]}\n")
    with Server(json_reply({"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 60})) as server:
        (tmp_path / "config.toml").write_text(PROFILE.format(url=server.url()))
        args = ("token", "p", "--config", str(tmp_path / "config.toml"), "--no-cache", *flags)
        code, out, err = cage.run(*args, code="-m hsmjwt", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (code, out) in ((1, ""), (9, "")), err
    if code == 1:
        assert "please report this" in err
        assert ("hsmjwt: at " in err) is ("--verbose" in flags)
    if "--json" in flags:
        assert json.loads(err.splitlines()[-1])["error"]["exit"] == code
    assert "eyJ" not in err
    assert "told: " not in err
    cage.close()
