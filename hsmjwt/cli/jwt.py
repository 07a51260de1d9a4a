"""`hsmjwt inspect` and `hsmjwt verify`: look at a JWT, and say whether a key stands behind it."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Annotated, Any

from hsmjwt import compose
from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Plain, Shared, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run, duration
from hsmjwt.errors import DeviceError, HsmjwtError, PolicyError, UsageError
from hsmjwt.jose.encoding import EncodingFault
from hsmjwt.jose.judge import SIGNATURE, Verdict, judge_other_key
from hsmjwt.jose.jws import Parts, split, trim
from hsmjwt.jose.keys import PublicKey

Jwt = Annotated[str, Word("JWT|-", help="The token, or - to read it from stdin.")]

_LONGEST = 4 * 1024 * 1024  # bytes of a token on stdin; a claim of 1 MiB is signed whole
_LAST_DATE = 253402300799  # 9999-12-31


_INSPECT = """Show what a JWT says. Nothing is verified.

\b
Examples:
  hsmjwt sign adobe | hsmjwt inspect -
  hsmjwt inspect eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.e30.c2ln --json
"""
_VERIFY = """Verify a JWT's signature with a key, and its claims. Exit code 7 for the signature, 8 for the claims.

\b
Examples:
  hsmjwt sign adobe | hsmjwt verify - --public-key adobe-jwt.pub.pem --aud api.omniture.com
  hsmjwt sign adobe | hsmjwt verify - --key 'pkcs11:token=prod;object=adobe-jwt' --json
"""


@command(_INSPECT, "jwt", shared=Plain)
def inspect(run: Run, *, jwt: Jwt, shared: Plain) -> None:
    """Decode a JWT."""
    run.limit(shared.timeout)
    parts = _parts(run, jwt)
    if shared.json:
        run.console.result_json(
            {"header": parts.header, "claims": parts.claims, "signature_bytes": len(parts.signature)}
        )
        return
    lines = ["header:", *_members(parts.header, times=False), "claims:", *_members(parts.claims, times=True)]
    lines.append(f"signature: {len(parts.signature)} bytes, not verified (hsmjwt verify does that)")
    run.console.result("\n".join(lines))


@command(_VERIFY, "jwt", device=Device, shared=Shared)
def verify(
    run: Run,
    *,
    jwt: Jwt,
    public_key: Annotated[str | None, Flag("--public-key", metavar="FILE", help="A public key, PEM or DER.")] = None,
    certificate: Annotated[
        str | None, Flag("--certificate", metavar="FILE", help="A certificate, whose validity is not judged.")
    ] = None,
    aud: Annotated[list[str] | None, Flag("--aud", metavar="TEXT", help="What aud must name.")] = None,
    iss: Annotated[str | None, Flag("--iss", metavar="TEXT", help="What iss must be.")] = None,
    typ: Annotated[str | None, Flag("--typ", metavar="TEXT", help="What the header's typ must be.")] = None,
    leeway: Annotated[str | None, Flag("--leeway", metavar="DURATION", help="How far clocks may differ (0).")] = None,
    no_time: Annotated[bool, Flag("--no-time", help="Do not look at exp and nbf.")] = False,
    device: Device,
    shared: Shared,
) -> int:
    """Verify a JWT."""
    run.limit(shared.timeout)
    slack = duration("--leeway", leeway or "0")
    named = [
        flag for flag, value in (("--public-key", public_key), ("--certificate", certificate)) if value is not None
    ]
    named += ["--key"] if device.key is not None else []
    if len(named) > 1:
        raise UsageError(f"several keys are given: {', '.join(named)}", hint="name one of them")
    parts = _parts(run, jwt)
    key: PublicKey | str
    if public_key is not None or certificate is not None:
        shown = public_key or certificate or ""
        key = _key_in(run, shown)
    else:
        from hsmjwt import custody

        settings = devices.load_settings(shared)
        choice = devices.choose(run, settings, device, missing="--key, --public-key or --certificate names one")
        opened = devices.open_with(run, settings, device)
        key = run.wait(lambda: custody.public_key(opened, choice))
        shown = str(choice.uri)
    if isinstance(key, str):
        verdict = judge_other_key(parts, key)
    else:
        verdict = compose.judge(
            parts, key, now=time.time(), aud=aud or None, iss=iss, typ=typ, leeway=slack, check_time=not no_time
        )
    return _tell(run, parts, verdict, shown, json_too=shared.json)


def _key_in(run: Run, path: str) -> PublicKey | str:
    """Return the public key in a file, or the name of its type where that is none which this version takes."""
    from hsmjwt.x509 import OtherKeyTypeError

    try:
        return devices.read_public(run, path)
    except UsageError as error:
        # read_public says which file it was, in an error of its own
        cause = error if isinstance(error, OtherKeyTypeError) else error.__context__
        if isinstance(cause, OtherKeyTypeError):
            return cause.kind
        raise


def _tell(run: Run, parts: Parts, verdict: Verdict, shown: str, *, json_too: bool) -> int:
    """Print the verdict and return its exit code."""
    if json_too:
        run.console.result_json(
            {
                "valid": verdict.valid,
                "header": parts.header,
                "claims": parts.claims,
                "key": shown,
                "reason": verdict.reason,
            }
        )
    elif verdict.valid:
        run.console.result(f"valid: signed by {one_line(shown)}")
    if not verdict.valid:
        kind: type[HsmjwtError] = DeviceError if verdict.exit_code == SIGNATURE else PolicyError
        run.console.error(kind(f"the token is not valid: {verdict.reason}", hint="hsmjwt inspect shows what it says"))
    return verdict.exit_code


def _parts(run: Run, jwt: str) -> Parts:
    try:
        text = jwt if jwt != "-" else run.read("-", _LONGEST, what="stdin", hint="pipe a token into hsmjwt").decode()
        return split(trim(text))
    except UnicodeDecodeError:
        raise UsageError("what is on stdin is not UTF-8 text") from None
    except EncodingFault as error:
        raise UsageError(
            f"this is no JWT that can be read: {error}",
            hint="a JWT has three parts of base64url, with dots between them",
        ) from None


def _members(members: dict[str, Any], *, times: bool) -> list[str]:
    lines = []
    for name, value in members.items():
        note = _moment(value) if times and name in ("exp", "iat", "nbf", "auth_time") else ""
        lines.append(f"  {one_line(name)}: {json.dumps(value, ensure_ascii=False)}{note}")
    return [one_line(line) for line in lines]


def _moment(value: object) -> str:
    """Return a time claim as a date for a person; nothing where no calendar holds it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_DATE:
        return ""
    return dt.datetime.fromtimestamp(int(value), tz=dt.UTC).strftime("  (%Y-%m-%d %H:%M:%S UTC)")


VERBS = {"inspect": inspect, "verify": verify}
