"""Flags that several commands share: each is declared once, as a field of a Struct.

`takes` turns the Structs that a command's function asks for into the parameters that typer sees. The function itself
runs later, outside typer: typer turns Ctrl-C into a return value and a closed pipe into exit code 1.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from typer import Option
from typer.models import OptionInfo

from hsmjwt.cli.run import Run
from hsmjwt.errors import UsageError

Action = Callable[[Run], int | None]

_UNSET = "give it a value; is a shell variable unset?"


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """Flags of every command."""

    timeout: Annotated[str | None, Option("--timeout", metavar="DURATION", help="End after this long (30s).")] = None
    verbose: Annotated[bool, Option("--verbose", help="Say what is done, and what the module prints.")] = False
    json: Annotated[bool, Option("--json", help="Print the result as JSON; an error too, on stderr.")] = False


class Shared(Plain, frozen=True, kw_only=True):
    """Flags of every command that reads the configuration."""

    config: Annotated[str | None, Option("--config", metavar="FILE", help="Read this configuration file.")] = None


class Patient(Shared, frozen=True, kw_only=True):
    """The same flags where a card may take minutes."""

    timeout: Annotated[str | None, Option("--timeout", metavar="DURATION", help="End after this long (5m).")] = None


class ModuleFlag(msgspec.Struct, frozen=True, kw_only=True):
    """The flag that chooses a module."""

    module: Annotated[str | None, Option("--module", metavar="PATH", help="The PKCS#11 module to load.")] = None


class Device(ModuleFlag, frozen=True, kw_only=True):
    """Flags that choose a module, a key and a login."""

    key: Annotated[str | None, Option("--key", metavar="URI", help="The key: a pkcs11: URI or keys.NAME.")] = None
    pin_source: Annotated[
        str | None,
        Option(
            "--pin-source",
            metavar="SPEC",
            help="Where the PIN is: env:NAME, file:PATH, credential:NAME, fd:N, command:PROGRAM, prompt or none.",
        ),
    ] = None
    allow_last_try: Annotated[bool, Option("--allow-last-try", help="Log in even with the last try.")] = False
    retry_pin: Annotated[bool, Option("--retry-pin", help="Send a PIN again that the token refused.")] = False


class Place(Device, frozen=True, kw_only=True):
    """The same flags where the URI says which tokens, and not only which key."""

    key: Annotated[str | None, Option("--key", metavar="URI", help="The token, as a pkcs11: URI (RFC 7512).")] = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that say what is to be signed."""

    provider: Annotated[str | None, Option("--provider", metavar="NAME", help="A built-in provider (generic).")] = None
    alg: Annotated[str | None, Option("--alg", metavar="ALG", help="The signature algorithm (the key's).")] = None
    iss: Annotated[str | None, Option("--iss", metavar="TEXT", help="The claim iss: who signs.")] = None
    sub: Annotated[str | None, Option("--sub", metavar="TEXT", help="The claim sub: for whom (iss).")] = None
    aud: Annotated[
        list[str] | None, Option("--aud", metavar="TEXT", help="The claim aud (the token URL); may be repeated.")
    ] = None
    scope: Annotated[str | None, Option("--scope", metavar="TEXT", help="The scope to ask for.")] = None
    exp: Annotated[
        str | None, Option("--exp", metavar="WHEN", help="The claim exp: 5m from now, @EPOCH or an RFC 3339 time.")
    ] = None
    nbf: Annotated[str | None, Option("--nbf", metavar="WHEN", help="The claim nbf: not valid before.")] = None
    now: Annotated[str | None, Option("--now", metavar="WHEN", help="Another clock, for the claims only.")] = None
    jti: Annotated[
        str | None, Option("--jti", metavar="auto|none|VALUE", help="The claim jti; auto is a random UUID.")
    ] = None
    typ: Annotated[str | None, Option("--typ", metavar="TEXT", help="The header field typ (JWT).")] = None
    kid: Annotated[str | None, Option("--kid", metavar="TEXT", help="The header field kid.")] = None
    claim: Annotated[
        list[str] | None, Option("--claim", metavar="NAME=TEXT", help="Another claim, a text; may be repeated.")
    ] = None
    claim_json: Annotated[
        list[str] | None, Option("--claim-json", metavar="NAME=JSON", help="Another claim, any JSON; may be repeated.")
    ] = None
    claims_file: Annotated[
        str | None, Option("--claims-file", metavar="FILE|-", help="More claims: a JSON object, - for stdin.")
    ] = None
    header: Annotated[
        list[str] | None,
        Option("--header", metavar="NAME=VALUE", help="Another header field, a text; may be repeated."),
    ] = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that say which server is meant."""

    token_url: Annotated[str | None, Option("--token-url", metavar="URL", help="The token endpoint.")] = None
    ca_file: Annotated[
        str | None, Option("--ca-file", metavar="FILE", help="Trust these certificates instead of the system's.")
    ] = None


class Exchange(Endpoint, frozen=True, kw_only=True):
    """Flags of the commands that exchange the assertion for an access token."""

    grant: Annotated[
        str | None, Option("--grant", metavar="GRANT", help="jwt-bearer (the default) or client-assertion.")
    ] = None
    client_id: Annotated[str | None, Option("--client-id", metavar="ID", help="The form field client_id.")] = None
    min_ttl: Annotated[
        str | None, Option("--min-ttl", metavar="DURATION", help="Life a cached token must have left (60s).")
    ] = None
    fresh: Annotated[bool, Option("--fresh", help="Fetch a new token even where the cache holds one.")] = False
    no_cache: Annotated[bool, Option("--no-cache", help="Neither read nor write the cache.")] = False


def takes(**groups: type[msgspec.Struct]) -> Callable[[Callable[..., int | None]], Callable[..., Action]]:
    """Give a command the fields of the named Structs as flags; its function gets each Struct under that name.

    What typer calls returns the work to do. The caller hands it the Run, which is the function's first argument, once
    typer is out of the way.
    """

    def wrap(function: Callable[..., int | None]) -> Callable[..., Action]:
        hints = get_type_hints(function, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in groups and name != "run"
        ]
        fields: dict[str, list[str]] = {}
        for group, struct in groups.items():
            kinds = get_type_hints(struct, include_extras=True)
            fields[group] = [field.name for field in msgspec.structs.fields(struct)]
            parameters += [
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name]
                )
                for field in msgspec.structs.fields(struct)
            ]
        single = {parameter.name for parameter in parameters if _is_single(parameter.annotation)}
        labels = {each.name: _names(each.annotation)[0] for each in parameters if _names(each.annotation)}

        @functools.wraps(function)
        def collect(**values: Any) -> Action:
            for name, value in values.items():
                _refuse_flag(labels.get(name, name), value, labels.values())
            for name in single:
                values[name] = _one(labels[name], values[name])
            built = {
                group: struct(**{name: values.pop(name) for name in fields[group]}) for group, struct in groups.items()
            }
            return lambda run: function(run, **values, **built)

        seen = [
            parameter.replace(annotation=_repeatable(parameter.annotation)) if parameter.name in single else parameter
            for parameter in parameters
        ]
        del collect.__wrapped__  # or inspect would look through it
        collect.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
        collect.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
        return collect

    return wrap


def _names(annotation: Any) -> list[str]:
    """Return a flag's names; typer takes the first of them for a default until it looks closer."""
    option = next((extra for extra in get_args(annotation) if isinstance(extra, OptionInfo)), None)
    return [] if option is None else [name for name in (option.default, *(option.param_decls or ())) if name]


def _is_single(annotation: Any) -> bool:
    return get_args(annotation)[0] == (str | None) and bool(_names(annotation))


def _repeatable(annotation: Any) -> Any:
    """Let typer collect every value of a flag: by itself it keeps the last of two and says nothing."""
    return Annotated[(list[str] | None, *get_args(annotation)[1:])]


def _refuse_flag(label: str, value: object, flags: Collection[str]) -> None:
    """Refuse a flag as the value of another: an unquoted empty variable makes `--iss $X --aud b` of what was meant."""
    for text in value if isinstance(value, list) else (value,):
        if text in flags:
            raise UsageError(f"{label} needs a value, and {text} is a flag", hint=_UNSET)


def _one(label: str, values: list[str] | None) -> str | None:
    if not values:
        return None
    if len(values) > 1:
        raise UsageError(f"{label} is given {len(values)} times", hint="leave all but one out")
    if not values[0]:
        raise UsageError(f"{label} is empty", hint=_UNSET)
    return values[0]
