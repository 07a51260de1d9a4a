"""`hsmjwt key generate`: a key pair that is born on the token."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Annotated

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Flag, Patient, Place, command
from hsmjwt.cli.key_naming import named_key
from hsmjwt.cli.run import Run

_TIMEOUT = 300.0  # seconds: a card takes minutes for RSA-4096
_LOOK, _SAY = 1.0, 10.0  # seconds between two looks at what takes so long, and between two lines about it
_TYPES = ("rsa:2048", "rsa:3072", "rsa:4096", "p256", "p384", "p521", "ed25519")

_GENERATE = """Make a key pair on the token, and print its URI.

The private key is for signatures only, sensitive and not extractable: it cannot leave the token. Where the token takes
that, it signs by the one algorithm it is made for. It has signed once before its URI is printed.

\b
Examples:
  hsmjwt key generate --key 'pkcs11:token=prod' --label adobe-jwt
  hsmjwt key generate --key 'pkcs11:token=prod' --label google-jwt --type p256 --if-absent
"""


@command(_GENERATE, device=Place, shared=Patient)
def generate(
    run: Run,
    *,
    label: Annotated[str | None, Flag("--label", metavar="TEXT", help="The new key's label.")] = None,
    kind: Annotated[
        str | None,
        Flag(
            "--type",
            metavar="TYPE",
            help="rsa:2048, rsa:3072 (the default), rsa:4096, p256, p384, p521 or ed25519.",
            completes=_TYPES,
        ),
    ] = None,
    key_id: Annotated[str | None, Flag("--id", metavar="HEX", help="The new key's id (from its public key).")] = None,
    alg: Annotated[
        str | None,
        Flag("--alg", metavar="ALG", help="What it signs by (the type's usual one).", completes="algorithms"),
    ] = None,
    if_absent: Annotated[
        bool, Flag("--if-absent", help="Print the URI of a key that has the label and is what is asked for.")
    ] = False,
    device: Place,
    shared: Patient,
) -> None:
    """Make a key."""
    from hsmjwt.custody.generating import generate_key

    run.limit(shared.timeout, _TIMEOUT)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, needed=False)
    new = named_key(choice.uri, label, key_id, alg, kind, choice.rules.algs)
    opened = devices.open_with(run, settings, device)
    with _progress(run):
        made = run.wait(lambda: generate_key(opened, choice, new, if_absent=if_absent))
    if shared.json:
        run.console.result_json({"uri": made.uri, "created": made.created, "dropped": list(made.dropped)})
    else:
        run.console.result(made.uri)


@contextlib.contextmanager
def _progress(run: Run) -> Iterator[None]:
    """Tell a person at a terminal every ten seconds that the token is still at work."""
    from hsmjwt.custody.generating import MAKES

    over = threading.Event()

    def tell() -> None:
        began, said = None, 0.0
        while not over.wait(_LOOK):
            if run.deadline.stage != MAKES:
                continue
            now = time.monotonic()
            began = began or now
            if now - began >= said + _SAY:
                said += _SAY
                run.console.notice(f"{MAKES} ({said:.0f} s by now)")

    thread = threading.Thread(target=tell, name="hsmjwt-progress", daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread can be started: the key is worth more
        thread.start()
    try:
        yield
    finally:
        over.set()
