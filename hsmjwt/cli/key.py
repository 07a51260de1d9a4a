"""`hsmjwt key`: make keys on a token, list them, and hand out their public halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from typer import Argument, Option, Typer

from hsmjwt import compose
from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Shared, takes
from hsmjwt.cli.run import Run
from hsmjwt.errors import UsageError

KeyArgument = Annotated[str | None, Argument(metavar="[KEY]", help="A pkcs11: URI or keys.NAME of the config.")]

_GENERATE_TIMEOUT = 300.0  # seconds: a card takes minutes for RSA-4096


def add(app: Typer) -> None:
    """Add the verb's commands."""
    group = Typer(help="Keys on a token.")
    group.command("list", help=_LIST)(list_keys)
    group.command("generate", help=_GENERATE)(generate)
    group.command("show", help=_SHOW)(show)
    group.command("export", help=_EXPORT)(export)
    app.add_typer(group, name="key")


_LIST = """List keys, each with the URI that selects it.

Logs in where --key leaves exactly one token; else it shows what is visible without a login.

\b
Examples:
  hsmjwt key list --key 'pkcs11:token=prod' --pin-source prompt
  hsmjwt key list --json
"""
_GENERATE = """Make a key pair on the token, for signatures only, and print the private key's URI.

The private key is sensitive and not extractable: it cannot leave the token.

\b
Examples:
  hsmjwt key generate --key 'pkcs11:token=prod' --label adobe-jwt
  hsmjwt key generate --key 'pkcs11:token=prod' --label adobe-jwt --type rsa:3072 --id 0a1b
"""
_SHOW = """Show what the token says of a key.

\b
Examples:
  hsmjwt key show 'pkcs11:token=prod;object=adobe-jwt'
  hsmjwt key show keys.adobe --json
"""
_EXPORT = """Print a key's public half, as PEM (SubjectPublicKeyInfo) unless another form is asked for.

\b
Examples:
  hsmjwt key export 'pkcs11:token=prod;object=adobe-jwt' > adobe-jwt.pub.pem
  hsmjwt key export keys.adobe --jwk
"""


@takes(device=Device, shared=Shared)
def list_keys(run: Run, *, device: Device, shared: Shared) -> None:
    """List keys."""
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, needed=False)
    opened = devices.open_with(run, settings, device)
    rows = run.wait(lambda: compose.list_keys(opened, choice))
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


@takes(device=Device, shared=Shared)
def generate(
    run: Run,
    *,
    label: Annotated[str | None, Option("--label", metavar="TEXT", help="The new key's label.")] = None,
    type: Annotated[str, Option("--type", metavar="TYPE", help="rsa:2048, rsa:3072 or rsa:4096.")] = "rsa:3072",  # noqa: A002
    id: Annotated[str | None, Option("--id", metavar="HEX", help="The new key's id (from its public key).")] = None,  # noqa: A002
    device: Device,
    shared: Shared,
) -> None:
    """Make a key."""
    from hsmjwt.hsm.keygen import parse_new_key

    run.limit(shared.timeout, _GENERATE_TIMEOUT)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, needed=False)
    name = label if label is not None else choice.uri.object
    if name is None:
        raise UsageError("the new key has no label", hint="--label TEXT, or object=… in the URI")
    if choice.uri.object not in (None, name):
        raise UsageError("--label and the URI's object differ", hint="leave one of them out")
    new = parse_new_key(type, name, id)
    if new.id is None and choice.uri.id is not None:
        new = msgspec.structs.replace(new, id=choice.uri.id)
    opened = devices.open_with(run, settings, device)
    uri = run.wait(lambda: compose.generate_key(opened, choice, new))
    if shared.json:
        run.console.result_json({"uri": uri})
    else:
        run.console.result(uri)


@takes(device=Device, shared=Shared)
def show(run: Run, *, named: KeyArgument = None, device: Device, shared: Shared) -> None:
    """Show a key."""
    about = _read(run, named, device, shared, compose.show_key)
    if shared.json:
        run.console.result_json(about)
        return
    token = about.pop("token")
    about["token"] = f"{token['label']} (serial {token['serial']}, {token['model']}, {token['manufacturer']})"
    width = max(len(name) for name in about)
    run.console.result("\n".join(f"{name.replace('_', ' '):{width}}  {_word(value)}" for name, value in about.items()))


@takes(device=Device, shared=Shared)
def export(
    run: Run,
    *,
    named: KeyArgument = None,
    pem: Annotated[bool, Option("--pem", help="PEM (the default).")] = False,
    der: Annotated[bool, Option("--der", help="DER, the bytes themselves.")] = False,
    jwk: Annotated[bool, Option("--jwk", help="A JSON Web Key.")] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Print a public key."""
    if pem + der + jwk > 1:
        raise UsageError("several forms are asked for at once", hint="one of --pem, --der, --jwk")
    public = _read(run, named, device, shared, compose.public_key)
    if der and not shared.json:
        run.console.result_bytes(compose.public_der(public))
    elif jwk:
        run.console.result_json(compose.public_jwk(public))
    elif shared.json:
        run.console.result_json({"pem": compose.public_pem(public), "jwk": compose.public_jwk(public)})
    else:
        run.console.result(compose.public_pem(public))


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
