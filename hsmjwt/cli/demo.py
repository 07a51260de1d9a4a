"""`hsmjwt demo`: the whole flow on a throwaway SoftHSM2 token and a local authorization server."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from typing import TYPE_CHECKING, Annotated, Any

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Flag, command
from hsmjwt.cli.output import Console
from hsmjwt.cli.run import Run
from hsmjwt.compose import access, forms, soft
from hsmjwt.compose.devices import DeviceChoice, Devices, Surroundings
from hsmjwt.config import Settings
from hsmjwt.deadline import wait_for_a_signal
from hsmjwt.errors import ConfigError, ServerError, UsageError
from hsmjwt.hsm.uri import parse
from hsmjwt.oauth.profile import Profile, SigningFlags, resolve
from hsmjwt.secret import parse_source

if TYPE_CHECKING:
    from hsmjwt import demo
    from hsmjwt.softhsm import SoftToken

_CLIENT = "demo-client"
_TIMEOUT = 60.0  # seconds
_TRIES = 50  # to remove the folder
_LAST_PORT = 65535


_DEMO = """Show the whole flow on a throwaway token and a local server.

A SoftHSM2 token is made in a temporary folder, and the authorization server runs on this machine. With --serve it
stays up; with --client and --public-key, or --jwks, it runs alone and prints its URL once it listens. A JWK set is
read again at each request, so that a key counts as soon as it is published.

\b
Examples:
  hsmjwt demo
  hsmjwt demo --serve --client ci --public-key ci.pub.pem --port 8080
"""


@command(_DEMO)
def show(
    run: Run,
    *,
    keep: Annotated[bool, Flag("--keep", help="Keep the token's folder, and say where it is.")] = False,
    serve: Annotated[bool, Flag("--serve", help="Keep the authorization server up.")] = False,
    client: Annotated[str | None, Flag("--client", metavar="ID", help="Serve this client alone.")] = None,
    public_key: Annotated[
        str | None, Flag("--public-key", metavar="FILE", help="The client's public key, PEM or DER.")
    ] = None,
    jwks: Annotated[str | None, Flag("--jwks", metavar="FILE", help="The JWK set that the client publishes.")] = None,
    port: Annotated[str | None, Flag("--port", metavar="N", help="The server's port (a free one).")] = None,
    timeout: Annotated[str | None, Flag("--timeout", metavar="DURATION", help="End after this long (60s).")] = None,
    verbose: Annotated[bool, Flag("--verbose", help="Say what is done.")] = False,
    json: Annotated[bool, Flag("--json", help="Print a summary as JSON instead of the steps.")] = False,
) -> None:
    """Run the demo."""
    import tempfile

    from hsmjwt import demo

    del verbose
    run.console.final = False
    if public_key is not None and jwks is not None:
        raise UsageError("--public-key and --jwks both name the client's keys", hint="leave one of them out")
    files = public_key or jwks
    if (client is None) != (files is None):
        raise UsageError("--client and --public-key (or --jwks) go together", hint="name both, with --serve")
    if client is not None:
        if not serve:
            raise UsageError("--client and --public-key or --jwks are for --serve", hint="add --serve")
        if keep or timeout is not None:
            raise UsageError("a server that runs alone has no folder to keep and no time limit", hint="leave it out")
        pem = None if public_key is None else forms.public_pem(devices.read_public(run, public_key))
        alone = demo.Client(client_id=client, public_key_pem=pem, jwks=jwks)
        _serve_alone(run, alone, _port(port), as_json=json)
        return
    run.limit(timeout, _TIMEOUT)
    demo.DemoServer([], _port(port)).close()  # what is in its way is said before the first step
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a terminal that closes must not leave the folder behind
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    try:
        folder = tempfile.mkdtemp(prefix="hsmjwt-demo-")
    except OSError as error:
        raise ConfigError(f"no temporary folder can be made: {error.strerror}", hint="TMPDIR names a place") from None
    try:
        _Walk(run, folder, as_json=json).go(_port(port), serve=serve, keep=keep)
    finally:
        if not keep:
            _remove(folder)


def _remove(folder: str) -> None:
    """Remove a folder into which a thread that was left may still be writing."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
        if not os.path.exists(folder):
            return


def _port(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _LAST_PORT):
        raise UsageError(f"--port: '{text}' is no port", hint=f"0 to {_LAST_PORT}; 0 takes a free one")
    return int(text)


def _serve_alone(run: Run, client: demo.Client, port: int, *, as_json: bool) -> None:
    from hsmjwt import demo

    def announce(url: str) -> None:
        if as_json:
            run.console.result_json({"url": url, "token_url": f"{url}/token"})
        else:
            run.console.result(url)

    demo.serve([client], port, announce)


class _Walk:
    """The steps of the demo, each shown when it is done."""

    def __init__(self, run: Run, folder: str, *, as_json: bool) -> None:
        self._run = run
        self._console: Console = run.console
        self._folder = folder
        self._json = as_json
        self._step = 0
        self._settings = Settings()
        # Nothing of the user's own configuration, cache or notes takes part.
        self._environ = {"HOME": folder, "XDG_RUNTIME_DIR": folder, "XDG_STATE_HOME": os.path.join(folder, "state")}

    def go(self, port: int, *, serve: bool, keep: bool) -> None:
        from hsmjwt import demo
        from hsmjwt.custody import keys as custody
        from hsmjwt.custody.generating import generate_key
        from hsmjwt.custody.showing import show_key
        from hsmjwt.hsm.keygen import parse_new_key

        wait = self._run.wait
        token = wait(lambda: soft.make_soft_token(os.path.join(self._folder, "softhsm"), "demo", os.environ))
        self._say("a SoftHSM2 token", f"made in {token.folder}")
        choice = self._choice(token, "pkcs11:token=demo")
        opened = Devices(self._settings, self._around())
        new = parse_new_key("rsa:2048", "demo-key", None)
        uri = wait(lambda: generate_key(opened, choice, new)).uri
        key = self._choice(token, uri)
        about = wait(lambda: show_key(opened, key))
        self._say("an RSA key, born on the token", uri, _born(about))
        pem = forms.public_pem(wait(lambda: custody.public_key(opened, key)))
        client = demo.Client(client_id=_CLIENT, public_key_pem=pem)
        with demo.DemoServer([client], port) as server:
            self._say("an authorization server that verifies", f"{server.url} knows the public half of {_CLIENT}'s key")
            summary = {"url": server.url, "key": uri, **self._flow(server, self._profile(server, uri, token), opened)}
            if self._json:
                self._console.result_json(summary)
            if serve:
                self._keep_serving(server, token, uri)
        if keep:
            folder = shlex.quote(token.folder)
            self._console.warn(f'kept: {token.folder}; eval "$(hsmjwt softhsm env --dir {folder})" uses it')

    def _flow(self, server: demo.DemoServer, profile: Profile, opened: Devices) -> dict[str, Any]:
        made = self._run.wait(access.asserter(opened, profile).assertion)
        self._say(
            "an assertion, signed by the token and checked",
            f"header  {json.dumps(made.header)}",
            f"claims  {json.dumps(made.claims)}",
            f"signature of {len(made.jwt.rpartition('.')[2])} base64url characters, verified with the public half",
        )
        store = access.token_store(opened.settings, opened.around, cached=True)
        broker = access.token_broker(opened, profile, store)
        first = self._run.wait(broker.token)
        life = 0.0 if first.token.expires_at is None else first.token.expires_at - first.token.fetched_at
        self._say(
            "an access token, for a new assertion",
            f"POST {server.token_url} answered with a {first.token.token_type} token",
            f"it has {len(first.token.value)} characters and lives {life:.0f} s",
        )
        answer = self._run.wait(lambda: _whoami(server.url, first.token.value))
        self._say("a protected resource, opened with it", f"GET {server.url}/api/whoami says {json.dumps(answer)}")
        again = self._run.wait(broker.token)
        if not again.cached or again.token.value != first.token.value:
            raise ServerError("the second request did not come from the cache")
        granted = server.stats.granted
        self._say("the access token once more", f"from the cache: the server has granted {granted} in all")
        return {"whoami": answer, "cached": again.cached, "granted": granted}

    def _profile(self, server: demo.DemoServer, uri: str, token: SoftToken) -> Profile:
        flags = SigningFlags(
            key=uri,
            module=token.module,
            pin_source=f"file:{token.pin_file}",
            iss=_CLIENT,
            client_id=_CLIENT,
            token_url=server.token_url,
        )
        return resolve(self._settings, flags, None, self._environ, exchanging=True)

    def _choice(self, token: SoftToken, uri: str) -> DeviceChoice:
        source = parse_source(f"file:{token.pin_file}")
        return DeviceChoice(uri=parse(uri), module=token.module, module_by="the demo", pin_source=source)

    def _around(self) -> Surroundings:
        around = devices.surroundings(self._run)
        return Surroundings(
            environ=self._environ, deadline=around.deadline, warn=around.warn, note=around.note, prompt=None
        )

    def _keep_serving(self, server: demo.DemoServer, token: SoftToken, uri: str) -> None:
        lines = [
            "",
            f"The server stays up at {server.url} until Ctrl-C. In another shell:",
            f'  eval "$(hsmjwt softhsm env --dir {shlex.quote(token.folder)})"',
            f"  hsmjwt token --key '{uri}' --iss {_CLIENT} --client-id {_CLIENT} --token-url {server.token_url}",
        ]
        if not self._json:
            self._console.result("\n".join(lines))
        wait_for_a_signal()

    def _say(self, what: str, *details: str) -> None:
        self._step += 1
        if not self._json:
            self._console.result("\n".join((f"{self._step}. {what}", *(f"   {line}" for line in details))))


def _born(about: dict[str, Any]) -> str:
    def said(name: str) -> str:
        return {True: "yes", False: "no"}.get(about[name], "unknown")

    return (
        f"sensitive {said('sensitive')}, extractable {said('extractable')}, "
        f"ever extractable {'no' if about['never_extractable'] else 'unknown'}, born on the token {said('local')}"
    )


def _whoami(url: str, access_token: str) -> dict[str, Any]:
    import http.client

    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", "/api/whoami", headers={"Authorization": f"Bearer {access_token}"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise ServerError(f"the protected resource answered {response.status}")
    answer: dict[str, Any] = json.loads(body)
    return answer


VERBS = {"demo": show}
