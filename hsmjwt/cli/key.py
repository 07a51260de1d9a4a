"""`hsmjwt key`: make keys on a token, list them, and hand out their public halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Group, KeyArgument, Place, Shared, command
from hsmjwt.cli.key_audit import audit
from hsmjwt.cli.key_ceremony import ceremony
from hsmjwt.cli.key_delete import delete
from hsmjwt.cli.key_generate import generate
from hsmjwt.cli.key_import import import_key
from hsmjwt.cli.key_rotate import rotate
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.compose import forms
from hsmjwt.errors import UsageError

_LIST = """List keys, each with the URI that selects it.

Logs in where --key leaves exactly one token; else it shows what is visible without a login.

\b
Examples:
  hsmjwt key list --key 'pkcs11:token=prod' --pin-source prompt
  hsmjwt key list --json
"""
_SHOW = """Show what the token says of a key.

\b
Examples:
  hsmjwt key show 'pkcs11:token=prod;object=adobe-jwt'
  hsmjwt key show keys.adobe --json
"""
_EXPORT = """Print a key's public half, and never a private one.

PEM, DER, a JWK, or the line that OpenSSH and git hosts take. --json prints an object with pem, jwk and ssh, and goes
with no form but --jwk, which is JSON itself.

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


@command(_SHOW, "named", device=Device, shared=Shared)
def show(run: Run, *, named: KeyArgument = None, device: Device, shared: Shared) -> None:
    """Show a key."""
    from hsmjwt.custody.showing import show_key

    about = _read(run, named, device, shared, show_key)
    if shared.json:
        run.console.result_json(about)
        return
    apart = {"token", "certificate", *(("curve",) if about["curve"] is None else ())}
    shown = {name.replace("_", " "): _word(value) for name, value in about.items() if name not in apart}
    if about["allowed_mechanisms"] == ():  # an empty list allows all
        shown["allowed mechanisms"] = "any"
    token, certificate = about["token"], about["certificate"]
    shown["token"] = f"{token['label']} (serial {token['serial']}, {token['model']}, {token['manufacturer']})"
    shown["certificate"] = "none" if certificate is None else certificate["subject"] or "one that cannot be read"
    if certificate is None:
        if about["has_certificate"]:
            shown["certificate"] = "? (the token shows no public half)"
    else:
        none_of_its_own = certificate["matches"] is False
        shown["has certificate"] = "no (that of another key lies beside it)" if none_of_its_own else "yes"
        ends = "expired" if certificate["expired"] else "expires"
        shown[f"certificate {ends}"] = certificate["not_after"] or "?"
        matches = {True: "yes", False: "no, it is another key's", None: "? (the token shows no public half)"}
        shown["certificate matches"] = matches[certificate["matches"]]
    width = max(map(len, shown))
    run.console.result("\n".join(one_line(f"{name:{width}}  {value}") for name, value in shown.items()))


@command(_EXPORT, "named", device=Device, shared=Shared)
def export(
    run: Run,
    *,
    named: KeyArgument = None,
    pem: Annotated[bool, Flag("--pem", help="PEM, a SubjectPublicKeyInfo (the default).")] = False,
    der: Annotated[bool, Flag("--der", help="DER, the bytes themselves.")] = False,
    jwk: Annotated[bool, Flag("--jwk", help="A JSON Web Key.")] = False,
    ssh: Annotated[bool, Flag("--ssh", help="A line as OpenSSH and git hosts take it, with the key's label.")] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Print a public key."""
    from hsmjwt.custody import keys as custody
    from hsmjwt.custody import publishing

    if pem + der + jwk + ssh > 1:
        raise UsageError("several forms are asked for at once", hint="one of --pem, --der, --jwk, --ssh")
    if shared.json and (pem or der or ssh):
        form = "--pem" if pem else "--der" if der else "--ssh"
        raise UsageError(
            f"{form} and --json contradict each other",
            hint="--json alone has pem, jwk and ssh in it, --jwk is JSON itself",
        )
    if jwk:
        run.console.result_json(_read(run, named, device, shared, publishing.jwk_of))
        return
    public, label = _read(run, named, device, shared, custody.labelled_key)
    if der:
        run.console.result_bytes(forms.public_der(public))
    elif shared.json:
        jwk_too = _read(run, named, device, shared, publishing.jwk_of)
        run.console.result_json({"pem": forms.public_pem(public), "jwk": jwk_too, "ssh": forms.ssh_line(public, label)})
    elif ssh:
        run.console.result(forms.ssh_line(public, label))
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
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


VERBS = {
    "key": Group(
        "Keys on a token.",
        {
            "list": list_keys,
            "generate": generate,
            "show": show,
            "export": export,
            "import": import_key,
            "delete": delete,
            "audit": audit,
            "rotate": rotate,
            "ceremony": ceremony,
        },
    )
}
