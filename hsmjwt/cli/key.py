"""`hsmjwt key`: make keys on a token, list them, and hand out their public halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Group, Patient, Place, Shared, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.compose import forms
from hsmjwt.errors import UsageError

KeyArgument = Annotated[str | None, Word("KEY", "A pkcs11: URI or keys.NAME of the config.", "keys")]

_GENERATE_TIMEOUT = 300.0  # seconds: a card takes minutes for RSA-4096


_LIST = """List keys, each with the URI that selects it.

Logs in where --key leaves exactly one token; else it shows what is visible without a login.

\b
Examples:
  hsmjwt key list --key 'pkcs11:token=prod' --pin-source prompt
  hsmjwt key list --json
"""
_GENERATE = """Make a key pair on the token, and print its URI.

The private key is for signatures only, sensitive and not extractable: it cannot leave the token.

\b
Examples:
  hsmjwt key generate --key 'pkcs11:token=prod' --label adobe-jwt
  hsmjwt key generate --key 'pkcs11:token=prod' --label google-jwt --type p256 --id 0a1b
"""
_SHOW = """Show what the token says of a key.

\b
Examples:
  hsmjwt key show 'pkcs11:token=prod;object=adobe-jwt'
  hsmjwt key show keys.adobe --json
"""
_EXPORT = """Print a key's public half: PEM, DER or a JWK.

\b
Examples:
  hsmjwt key export 'pkcs11:token=prod;object=adobe-jwt' > adobe-jwt.pub.pem
  hsmjwt key export keys.adobe --jwk
"""


@command(_LIST, device=Place, shared=Shared)
def list_keys(run: Run, *, device: Place, shared: Shared) -> None:
    """List keys."""
    from hsmjwt.custody import keys as custody

    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, needed=False)
    opened = devices.open_with(run, settings, device)
    rows = run.wait(lambda: custody.list_keys(opened, choice))
    if shared.json:
        run.console.result_json(rows)
        return
    if not rows:
        run.console.warn("no key is visible")
    run.console.table(
        ("LABEL", "ID", "TYPE", "HALF", "SIGNS", "TOKEN", "URI"),
        [
            (
                row["label"] or "-",
                row["id"] or "-",
                f"{row['type'] or '?'}" + (f":{row['bits']}" if row["bits"] else ""),
                "private" if row["private"] else "public",
                _word(row["sign"]),
                row["token"]["label"],
                row["uri"],
            )
            for row in rows
        ],
    )


@command(_GENERATE, device=Place, shared=Patient)
def generate(
    run: Run,
    *,
    label: Annotated[str | None, Flag("--label", metavar="TEXT", help="The new key's label.")] = None,
    kind: Annotated[
        str | None, Flag("--type", metavar="TYPE", help="rsa:2048, rsa:3072 (the default), rsa:4096 or p256.")
    ] = None,
    key_id: Annotated[str | None, Flag("--id", metavar="HEX", help="The new key's id (from its public key).")] = None,
    device: Place,
    shared: Patient,
) -> None:
    """Make a key."""
    from hsmjwt.custody import keys as custody
    from hsmjwt.hsm.keygen import parse_new_key

    run.limit(shared.timeout, _GENERATE_TIMEOUT)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, needed=False)
    name = label if label is not None else choice.uri.object
    if name is None:
        raise UsageError("the new key has no label", hint="--label TEXT, or object=… in the URI")
    if choice.uri.object not in (None, name):
        raise UsageError("--label and the URI's object differ", hint="leave one of them out")
    new = parse_new_key(kind or "rsa:3072", name, key_id)
    if choice.uri.id is not None:
        if new.id not in (None, choice.uri.id):
            raise UsageError("--id and the URI's id differ", hint="leave one of them out")
        new = msgspec.structs.replace(new, id=choice.uri.id)
    opened = devices.open_with(run, settings, device)
    uri = run.wait(lambda: custody.generate_key(opened, choice, new))
    if shared.json:
        run.console.result_json({"uri": uri})
    else:
        run.console.result(uri)


@command(_SHOW, "named", device=Device, shared=Shared)
def show(run: Run, *, named: KeyArgument = None, device: Device, shared: Shared) -> None:
    """Show a key."""
    from hsmjwt.custody import keys as custody

    about = _read(run, named, device, shared, custody.show_key)
    if shared.json:
        run.console.result_json(about)
        return
    token = about.pop("token")
    about["token"] = f"{token['label']} (serial {token['serial']}, {token['model']}, {token['manufacturer']})"
    width = max(len(name) for name in about)
    lines = (f"{name.replace('_', ' '):{width}}  {_word(value)}" for name, value in about.items())
    run.console.result("\n".join(one_line(line) for line in lines))


@command(_EXPORT, "named", device=Device, shared=Shared)
def export(
    run: Run,
    *,
    named: KeyArgument = None,
    pem: Annotated[bool, Flag("--pem", help="PEM, a SubjectPublicKeyInfo (the default).")] = False,
    der: Annotated[bool, Flag("--der", help="DER, the bytes themselves.")] = False,
    jwk: Annotated[bool, Flag("--jwk", help="A JSON Web Key.")] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Print a public key."""
    from hsmjwt.custody import keys as custody

    if pem + der + jwk > 1:
        raise UsageError("several forms are asked for at once", hint="one of --pem, --der, --jwk")
    if der and shared.json:
        raise UsageError("--der and --json contradict each other", hint="--jwk, or --json alone, prints JSON")
    public = _read(run, named, device, shared, custody.public_key)
    if der:
        run.console.result_bytes(forms.public_der(public))
    elif jwk:
        run.console.result_json(forms.public_jwk(public))
    elif shared.json:
        run.console.result_json({"pem": forms.public_pem(public), "jwk": forms.public_jwk(public)})
    else:
        run.console.result(forms.public_pem(public))


def _read(run: Run, named: str | None, device: Device, shared: Shared, read: Callable[..., Any]) -> Any:
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, named=named)
    opened = devices.open_with(run, settings, device)
    return run.wait(lambda: read(opened, choice))


def _word(value: object) -> str:
    if value is None:
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


VERBS = {"key": Group("Keys on a token.", {"list": list_keys, "generate": generate, "show": show, "export": export})}
