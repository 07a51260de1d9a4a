"""`hsmjwt inspect` and `hsmjwt verify`: look at a JWT, and say whether a key stands behind it."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Annotated, Any

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Plain, Shared, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run, duration
from hsmjwt.compose import forms
from hsmjwt.errors import DeviceError, HsmjwtError, PolicyError, UsageError
from hsmjwt.jose.claims import LAST_SECOND
from hsmjwt.jose.encoding import EncodingFault
from hsmjwt.jose.judge import SIGNATURE, Verdict, judge_other_key, judge_set
from hsmjwt.jose.jwkset import MAX_BYTES, KeySet, SecretFault, load_set
from hsmjwt.jose.jws import Parts, split, trim
from hsmjwt.jose.keys import PublicKey

Jwt = Annotated[str, Word("JWT|-", help="The token, or - to read it from stdin.")]

_LONGEST = 4 * 1024 * 1024  # bytes of a token on stdin; a claim of 1 MiB is signed whole
_FAULTS_SHOWN = 5
_LEAKED = "leave its private members out; where others could read the file, the key is theirs too: replace it"


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
  hsmjwt sign adobe | hsmjwt verify - --jwks published-keys.json --json
"""


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that name a file with the key; at most one of them may be given."""

    public_key: Annotated[str | None, Flag("--public-key", metavar="FILE", help="A public key, PEM or DER.")] = None
    certificate: Annotated[
        str | None,
        Flag("--certificate", metavar="FILE", help="A certificate, whose validity is not judged."),
    ] = None
    jwks: Annotated[
        str | None,
        Flag("--jwks", metavar="FILE", help="A JWK set, of which the token's kid names the key; or one JWK."),
    ] = None

    def given(self) -> list[tuple[str, str]]:
        """Return which of them are given, with their files."""
        flags = ("--public-key", self.public_key), ("--certificate", self.certificate), ("--jwks", self.jwks)
        return [(flag, path) for flag, path in flags if path is not None]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that say what header and claims must be."""

    aud: Annotated[list[str] | None, Flag("--aud", metavar="TEXT", help="What aud must name; may be repeated.")] = None
    iss: Annotated[str | None, Flag("--iss", metavar="TEXT", help="What iss must be.")] = None
    typ: Annotated[str | None, Flag("--typ", metavar="TEXT", help="What the header's typ must be.")] = None
    leeway: Annotated[str | None, Flag("--leeway", metavar="DURATION", help="How far clocks may differ (0).")] = None
    no_time: Annotated[bool, Flag("--no-time", help="Do not look at exp and nbf.")] = False


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


@command(_VERIFY, "jwt", keyfile=KeyFile, wanted=Wanted, device=Device, shared=Shared)
def verify(run: Run, *, jwt: Jwt, keyfile: KeyFile, wanted: Wanted, device: Device, shared: Shared) -> int:
    """Verify a JWT."""
    run.limit(shared.timeout)
    if wanted.no_time and wanted.leeway is not None:
        raise UsageError("--leeway is about times, and --no-time looks at none", hint="leave one of them out")
    slack = duration("--leeway", wanted.leeway or "0")
    flag, path = _key_file(keyfile, device, jwt)
    parts = _parts(run, jwt)

    def judge_one(key: PublicKey) -> Verdict:
        return forms.judge(
            parts,
            key,
            now=time.time(),
            aud=wanted.aud or None,
            iss=wanted.iss,
            typ=wanted.typ,
            leeway=slack,
            check_time=not wanted.no_time,
        )

    if flag == "--jwks":
        verdict, used = judge_set(parts, _set_in(run, path), judge_one)
        return _tell(run, parts, verdict, path if used is None else f"{path}, {used.name}", json_too=shared.json)
    key: PublicKey | str
    if flag is None:
        from hsmjwt.custody import keys as custody

        settings = devices.load_settings(shared)
        choice = devices.choose(run, settings, device, missing="--key, --public-key, --certificate or --jwks names one")
        opened = devices.open_with(run, settings, device)
        key, path = run.wait(lambda: custody.public_key(opened, choice)), str(choice.uri)
    else:
        key = _key_in(run, path, certified=flag == "--certificate")
    verdict = judge_other_key(parts, key) if isinstance(key, str) else judge_one(key)
    return _tell(run, parts, verdict, path, json_too=shared.json)


def _key_file(keyfile: KeyFile, device: Device, jwt: str) -> tuple[str | None, str]:
    """Return the flag that names a file with the key, and the file; None where the key is on a token."""
    given = keyfile.given()
    named = [flag for flag, _ in given] + (["--key"] if device.key is not None else [])
    if len(named) > 1:
        raise UsageError(f"several keys are given: {', '.join(named)}", hint="name one of them")
    if not given:
        return None, ""
    flag, path = given[0]
    if device != Device():
        raise UsageError(f"{flag} names a file, and other flags say how to reach a token", hint="leave one of them out")
    if path == jwt == "-":
        raise UsageError(f"the token and {flag} are both to come from stdin", hint="name a file for one of them")
    return flag, path


def _set_in(run: Run, path: str) -> KeySet:
    """Return the keys in a file, and say which were passed over because they are damaged."""
    wanted = 'a JWK set belongs there, {"keys": […]}, or one JWK'
    if path.startswith(("https://", "http://")):
        raise UsageError("--jwks names a file, and this is a URL", hint="fetch the key set first: curl -o FILE URL")
    data = run.read(path, MAX_BYTES, what=f"'{path}'", hint=wanted)
    try:
        keys = load_set(data)
    except SecretFault as error:
        raise UsageError(f"'{path}': {error}", hint=_LEAKED) from None
    except EncodingFault as error:
        raise UsageError(f"'{path}': no key set can be read: {error}", hint=wanted) from None
    faults = [over.reason for over in keys.passed_over if over.faulty]
    for reason in faults[:_FAULTS_SHOWN]:
        run.console.warn(f"warning: '{path}': {reason}; the key is passed over")
    if len(faults) > _FAULTS_SHOWN:
        run.console.warn(f"warning: '{path}': {len(faults) - _FAULTS_SHOWN} more keys are passed over")
    for over in keys.passed_over:
        if not over.faulty:
            run.console.note(f"'{path}': {over.reason}; the key is passed over")
    return keys


def _key_in(run: Run, path: str, *, certified: bool) -> PublicKey | str:
    """Return the public key in a file, or the name of its type where that is none which this version takes."""
    from hsmjwt.x509.public import OtherKeyTypeError

    try:
        return devices.read_public(run, path, certified=certified)
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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        return ""
    return dt.datetime.fromtimestamp(int(value), tz=dt.UTC).strftime("  (%Y-%m-%d %H:%M:%S UTC)")


VERBS = {"inspect": inspect, "verify": verify}
