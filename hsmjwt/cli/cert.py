"""`hsmjwt cert`: certificates and requests that the device's key signs, put beside their key, and shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Group, KeyArgument, Shared, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.errors import UsageError
from hsmjwt.hsm.uri import display

if TYPE_CHECKING:
    from hsmjwt.custody.certificates import Wanted

_OF_KEYS = ("pkcs11:", "keys.")  # how what names a key begins

_SELF_SIGNED = """Make a certificate signed by its own key, as PEM.

Consoles that know a key by its certificate take it. It is good from five minutes ago, for clocks that are behind.

\b
Examples:
  hsmjwt cert self-signed keys.adobe --subject 'CN=adobe-jwt,O=Example\\, Inc.,C=US' > adobe-jwt.crt
  hsmjwt cert self-signed keys.web --subject CN=web --san dns:web.example.com --days 90 --json
"""
_CSR = """Make a certificate request (PKCS#10), as PEM.

\b
Examples:
  hsmjwt cert csr keys.seal --subject 'CN=svc,O=Example AS,organizationIdentifier=NTRNO-123456785,C=NO' > seal.csr
  hsmjwt cert csr 'pkcs11:token=prod;object=web' --subject CN=web --san dns:web.example.com --alg ES256
"""
_IMPORT = """Put a key's certificate on the token, beside its key.

Of several in the file the key's own is taken, in whatever order they stand; the others stay in the file.

\b
Examples:
  hsmjwt cert import seal.pem keys.seal
  hsmjwt cert import renewed.pem 'pkcs11:token=prod;object=web' --replace
"""
_SHOW = """Show a certificate: a key's, or those in a file.

A key's is the one that its key table names, else the one beside it on the token.

\b
Examples:
  hsmjwt cert show keys.seal
  hsmjwt cert show --file seal.pem --json
"""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Flags of what a certificate or a request says, and in which form it is printed."""

    subject: Annotated[
        str | None,
        Flag("--subject", metavar="NAME", help="Whom it is about, as RFC 4514 writes it: CN=svc,O=Example,C=NO."),
    ] = None
    san: Annotated[
        list[str] | None,
        Flag("--san", metavar="TYPE:VALUE", help="Another name: dns:, email:, uri: or ip:; may be repeated."),
    ] = None
    key_usage: Annotated[
        list[str] | None,
        Flag(
            "--key-usage",
            metavar="USAGE",
            help="What the key is for (digitalSignature); may be repeated.",
            completes=("digitalSignature", "nonRepudiation"),
        ),
    ] = None
    alg: Annotated[
        str | None,
        Flag("--alg", metavar="ALG", help="The signature algorithm (the key's).", completes="algorithms"),
    ] = None
    pem: Annotated[bool, Flag("--pem", help="PEM (the default).")] = False
    der: Annotated[bool, Flag("--der", help="DER, the bytes themselves.")] = False


@command(_SELF_SIGNED, "named", content=Content, device=Device, shared=Shared)
def self_signed(
    run: Run,
    *,
    named: KeyArgument = None,
    days: Annotated[str | None, Flag("--days", metavar="N", help="For how many days it is good (365).")] = None,
    content: Content,
    device: Device,
    shared: Shared,
) -> None:
    """Make a certificate."""
    from hsmjwt.custody import certificates as custody

    _refuse_two_forms(shared, pem=content.pem, der=content.der)
    choice, opened = _opened(run, named, device, shared)
    wanted = _wanted(content, custody.DAYS if days is None else _days(days))
    der = run.wait(lambda: custody.self_signed(opened, choice, wanted))
    _print_made(run, "CERTIFICATE", der, content, shared)


@command(_CSR, "named", content=Content, device=Device, shared=Shared)
def csr(run: Run, *, named: KeyArgument = None, content: Content, device: Device, shared: Shared) -> None:
    """Make a request."""
    from hsmjwt.custody import certificates as custody

    _refuse_two_forms(shared, pem=content.pem, der=content.der)
    choice, opened = _opened(run, named, device, shared)
    wanted = _wanted(content, custody.DAYS)
    der = run.wait(lambda: custody.request(opened, choice, wanted))
    _print_made(run, "CERTIFICATE REQUEST", der, content, shared)


@command(_IMPORT, "file", "named", device=Device, shared=Shared)
def import_certificate(
    run: Run,
    *,
    file: Annotated[str, Word("FILE", "Certificates as PEM or DER; - for stdin.")],
    named: KeyArgument = None,
    replace: Annotated[bool, Flag("--replace", help="Remove another certificate of the key.")] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Put a certificate on the token."""
    from hsmjwt.custody import certified as custody

    if file.lower().startswith("pkcs11:") or (named is not None and not named.lower().startswith(_OF_KEYS)):
        raise UsageError("the file comes first, the key behind it", hint="hsmjwt cert import FILE KEY")
    run.limit(shared.timeout)
    ders = devices.read_certificates(run, file)
    choice, opened = _opened(run, named, device, shared)
    name = f"'{display(file)}'"
    done = run.wait(lambda: custody.import_certificate(opened, choice, ders, named=name, replace=replace))
    for subject in done.left_out:
        run.console.note(f"left in the file: the certificate of '{subject}'")
    if not done.created:
        run.console.warn("this certificate is on the token already")
    if shared.json:
        run.console.result_json({"uri": done.uri, "created": done.created, "replaced": list(done.replaced)})
    else:
        run.console.result(done.uri)


@command(_SHOW, "named", device=Device, shared=Shared)
def show(
    run: Run,
    *,
    named: KeyArgument = None,
    file: Annotated[str | None, Flag("--file", metavar="FILE", help="Show this file's; - for stdin.")] = None,
    pem: Annotated[bool, Flag("--pem", help="PEM, with the chain where there is one.")] = False,
    der: Annotated[bool, Flag("--der", help="DER, the bytes themselves, of the first alone.")] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Show a certificate."""
    from hsmjwt.custody import certified as custody
    from hsmjwt.x509.der import armoured

    _refuse_two_forms(shared, pem=pem, der=der)
    if named is not None and not named.lower().startswith(_OF_KEYS):
        name = display(named)
        raise UsageError(f"'{name}' names no key", hint=f"--file '{name}' shows the certificates in a file")
    run.limit(shared.timeout)
    ders = [] if file is None else devices.read_certificates(run, file)
    of_key = False
    if file is None or named is not None or device.key is not None:
        choice, opened = _opened(run, named, device, shared)
        of_key = choice.uri.type != "cert"
        if file is None:
            ders = run.wait(lambda: custody.show_certificate(opened, choice))
        else:
            name = f"'{display(file)}'"
            ders = run.wait(lambda: custody.with_own_first(opened, choice, ders, named=name))
    if der:
        run.console.result_bytes(ders[0])
    elif pem:
        run.console.result("".join(armoured("CERTIFICATE", each) for each in ders))
    else:
        rows = [custody.about(each, time.time()) for each in ders]
        rows[0]["matches_key"] = True if of_key else None
        if shared.json:
            run.console.result_json({**rows[0], "chain": rows[1:]})
        else:
            run.console.result("\n\n".join(map(_text, rows)))


def _wanted(content: Content, days: int) -> Wanted:
    from hsmjwt.custody.certificates import USAGES, Wanted

    if content.subject is None and not content.san:
        raise UsageError("the subject is missing", hint="--subject 'CN=svc,O=Example,C=NO'")
    return Wanted(
        subject=content.subject or "",
        san=tuple(content.san or ()),
        days=days,
        alg=content.alg,
        key_usage=tuple(content.key_usage or USAGES),
    )


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise UsageError(f"--days: '{text}' is no number of days", hint="for example --days 365")
    return int(text)


def _opened(run: Run, named: str | None, device: Device, shared: Shared) -> tuple[DeviceChoice, Devices]:
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, named=named)
    return choice, devices.open_with(run, settings, device)


def _refuse_two_forms(shared: Shared, *, pem: bool, der: bool) -> None:
    if pem and der:
        raise UsageError("two forms are asked for at once", hint="one of --pem and --der")
    if shared.json and (pem or der):
        raise UsageError("--json and another form contradict each other", hint="--json alone has the PEM in it")


def _print_made(run: Run, label: str, der: bytes, content: Content, shared: Shared) -> None:
    from hsmjwt.custody.certified import about
    from hsmjwt.x509.der import armoured
    from hsmjwt.x509.names import name_text, parse_name

    if content.der:
        run.console.result_bytes(der)
    elif not shared.json:
        run.console.result(armoured(label, der))
    elif label == "CERTIFICATE":
        run.console.result_json(about(der, time.time()))
    else:
        subject = name_text(parse_name(content.subject or ""))
        run.console.result_json({"subject": subject, "san": content.san or [], "pem": armoured(label, der)})


_SHOWN = (  # names of `about`, and how a person reads them
    ("subject", "subject"),
    ("issuer", "issuer"),
    ("serial", "serial"),
    ("not_before", "not before"),
    ("not_after", "not after"),
    ("san", "names"),
    ("key_usage", "key usage"),
    ("extended_key_usage", "purposes"),
    ("ca", "authority"),
    ("key", "public key"),
    ("signature_algorithm", "signed with"),
    ("self_signed", "self-signed"),
    ("matches_key", "the key's own"),
    ("sha256", "SHA-256"),
    ("x5t#S256", "x5t#S256"),
    ("subject_key_id", "key id"),
)


def _text(row: dict[str, Any]) -> str:
    """Return what `about` tells as lines for a person."""
    shown = dict(row)
    shown["key"] = row["key_type"] + (f", {row['bits']} bits" if row["bits"] else "")
    shown["not_after"] += f" ({_left(row['days_left'])})"
    width = max(len(name) for _, name in _SHOWN)
    lines = [
        f"{name:{width}}  {_word(shown[member])}" for member, name in _SHOWN if shown.get(member) not in (None, [], "")
    ]
    return "\n".join(one_line(line) for line in lines)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _left(days: int) -> str:
    if days < 0:
        return "EXPIRED"
    return f"{days} day{'' if days == 1 else 's'} left"


VERBS = {
    "cert": Group(
        "Certificates signed by the device's key.",
        {"self-signed": self_signed, "csr": csr, "import": import_certificate, "show": show},
    )
}
