"""Flags and words of the command line: each shared flag is declared once, as a field of a Struct.

`command` turns a function into a Command, which two roads reach. A call without flags is the plain road: the words are
handed over and every Struct has its defaults, with no parser loaded. All else goes through typer (see typed.py), which
reads the same declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from hsmjwt.cli.run import Run

Action = Callable[[Run], int | None]
Completes = Literal["profiles", "variables", "providers", "keys", "tokens", "published", "algorithms"]


class Flag(NamedTuple):
    """What typer has to know of a flag; `completes` says what a shell offers for its value, here or a closed choice.

    Where it says nothing, a metavar that begins with FILE, PATH or DIR stands for the names of files.
    """

    name: str
    metavar: str | None = None
    help: str = ""
    completes: Completes | tuple[str, ...] | None = None


class Word(NamedTuple):
    """What typer has to know of an argument that is no flag."""

    metavar: str
    help: str = ""
    completes: Completes | None = None


KeyArgument = Annotated[str | None, Word("KEY", "A pkcs11: URI or keys.NAME of the config.", "keys")]
"""The key that a command is about."""


class Command:
    """A command: its function, the names of its words in order, and the Structs of flags that the function takes.

    A star before the last word's name says that it may be repeated: the function gets a list, None for none.
    """

    def __init__(
        self,
        function: Callable[..., int | None],
        about: str,
        words: tuple[str, ...],
        groups: Mapping[str, type[msgspec.Struct]],
    ) -> None:
        self.function = function
        self.about = about
        self.words = tuple(word.removeprefix("*") for word in words)
        self.groups = groups
        self.repeats = bool(words) and words[-1].startswith("*")

    def plain(self, given: Sequence[str]) -> Action | None:
        """Return the work of a call without flags; None where typer has to look at it, if only to say what is wrong."""
        if any(_is_flag(text) for text in given) or (len(given) > len(self.words) and not self.repeats):
            return None
        optional = self.function.__kwdefaults__ or {}
        if any(name not in optional for name in self.words[len(given) :]):
            return None
        values: dict[str, str | list[str]] = dict(zip(self.words, given, strict=False))
        if self.repeats and len(given) >= len(self.words):
            values[self.words[-1]] = list(given[len(self.words) - 1 :])
        built = {name: struct() for name, struct in self.groups.items()}
        return lambda run: self.function(run, **values, **built)


class Group(NamedTuple):
    """A verb with commands of its own."""

    about: str
    commands: Mapping[str, Command]


def command(about: str, *words: str, **groups: type[msgspec.Struct]) -> Callable[[Callable[..., int | None]], Command]:
    """Make a Command of a function: it gets the Run, its words and own flags by name, and each Struct by its name."""

    def wrap(function: Callable[..., int | None]) -> Command:
        return Command(function, about, words, groups)

    return wrap


def _is_flag(text: str) -> bool:
    return text.startswith("-") and text != "-"  # a lone one stands for stdin


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    """Flags of every command."""

    timeout: Annotated[str | None, Flag("--timeout", metavar="DURATION", help="End after this long (30s).")] = None
    verbose: Annotated[bool, Flag("--verbose", help="Say what is done, and what the module prints.")] = False
    json: Annotated[bool, Flag("--json", help="Print the result as JSON; an error too, on stderr.")] = False


class Shared(Plain, frozen=True, kw_only=True):
    """Flags of every command that reads the configuration."""

    config: Annotated[str | None, Flag("--config", metavar="FILE", help="Read this configuration file.")] = None


class Patient(Shared, frozen=True, kw_only=True):
    """The same flags where a card may take minutes."""

    timeout: Annotated[str | None, Flag("--timeout", metavar="DURATION", help="End after this long (5m).")] = None


class ModuleFlag(msgspec.Struct, frozen=True, kw_only=True):
    """The flag that chooses a module."""

    module: Annotated[str | None, Flag("--module", metavar="PATH", help="The PKCS#11 module to load.")] = None


PinSource = Annotated[
    str | None,
    Flag(
        "--pin-source",
        metavar="SPEC",
        help="Where the PIN is: env:NAME, file:PATH, credential:NAME, fd:N, command:PROGRAM, prompt or none.",
    ),
]
AllowLastTry = Annotated[bool, Flag("--allow-last-try", help="Log in even with the last try.")]
RetryPin = Annotated[bool, Flag("--retry-pin", help="Send a PIN again that the token refused.")]


class Access(ModuleFlag, frozen=True, kw_only=True):
    """Flags that choose a module and a login, where the key is named otherwise."""

    pin_source: PinSource = None
    allow_last_try: AllowLastTry = False
    retry_pin: RetryPin = False

    def device(self, key: str | None = None) -> Device:
        """Return the same choice with a key."""
        return Device(key=key, **msgspec.structs.asdict(self))


class Device(ModuleFlag, frozen=True, kw_only=True):
    """Flags that choose a module, a key and a login."""

    key: Annotated[
        str | None, Flag("--key", metavar="URI", help="The key: a pkcs11: URI or keys.NAME.", completes="keys")
    ] = None
    pin_source: PinSource = None
    allow_last_try: AllowLastTry = False
    retry_pin: RetryPin = False


class Place(Device, frozen=True, kw_only=True):
    """The same flags where the URI says which tokens, and not only which key."""

    key: Annotated[
        str | None, Flag("--key", metavar="URI", help="The token, as a pkcs11: URI (RFC 7512).", completes="tokens")
    ] = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that say what is to be signed."""

    provider: Annotated[
        str | None, Flag("--provider", metavar="NAME", help="A built-in provider (generic).", completes="providers")
    ] = None
    alg: Annotated[
        str | None, Flag("--alg", metavar="ALG", help="The signature algorithm (the key's).", completes="algorithms")
    ] = None
    iss: Annotated[str | None, Flag("--iss", metavar="TEXT", help="The claim iss: who signs.")] = None
    sub: Annotated[str | None, Flag("--sub", metavar="TEXT", help="The claim sub: for whom (iss).")] = None
    aud: Annotated[
        list[str] | None, Flag("--aud", metavar="TEXT", help="The claim aud (the token URL); may be repeated.")
    ] = None
    scope: Annotated[str | None, Flag("--scope", metavar="TEXT", help="The scope to ask for.")] = None
    exp: Annotated[
        str | None, Flag("--exp", metavar="WHEN", help="The claim exp: 5m from now, @EPOCH or an RFC 3339 time.")
    ] = None
    nbf: Annotated[str | None, Flag("--nbf", metavar="WHEN", help="The claim nbf: not valid before.")] = None
    now: Annotated[str | None, Flag("--now", metavar="WHEN", help="Another clock, for the claims only.")] = None
    jti: Annotated[
        str | None, Flag("--jti", metavar="auto|none|VALUE", help="The claim jti; auto is a random UUID.")
    ] = None
    typ: Annotated[str | None, Flag("--typ", metavar="TEXT", help="The header field typ (JWT).")] = None
    kid: Annotated[str | None, Flag("--kid", metavar="TEXT", help="The header field kid.")] = None
    claim: Annotated[
        list[str] | None, Flag("--claim", metavar="NAME=TEXT", help="Another claim, a text; may be repeated.")
    ] = None
    claim_json: Annotated[
        list[str] | None, Flag("--claim-json", metavar="NAME=JSON", help="Another claim, any JSON; may be repeated.")
    ] = None
    claims_file: Annotated[
        str | None, Flag("--claims-file", metavar="FILE|-", help="More claims: a JSON object, - for stdin.")
    ] = None
    header: Annotated[
        list[str] | None,
        Flag("--header", metavar="NAME=VALUE", help="Another header field, a text; may be repeated."),
    ] = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that say which server is meant."""

    token_url: Annotated[str | None, Flag("--token-url", metavar="URL", help="The token endpoint.")] = None
    ca_file: Annotated[
        str | None, Flag("--ca-file", metavar="FILE", help="Trust these certificates instead of the system's.")
    ] = None


class Exchange(Endpoint, frozen=True, kw_only=True):
    """Flags of the commands that exchange the assertion for an access token."""

    grant: Annotated[
        str | None,
        Flag(
            "--grant",
            metavar="GRANT",
            help="jwt-bearer (the default) or client-assertion.",
            completes=("jwt-bearer", "client-assertion"),
        ),
    ] = None
    client_id: Annotated[str | None, Flag("--client-id", metavar="ID", help="The form field client_id.")] = None
    min_ttl: Annotated[
        str | None,
        Flag("--min-ttl", metavar="DURATION", help="Life a cached token must have left (60s, a tenth at most)."),
    ] = None
    fresh: Annotated[bool, Flag("--fresh", help="Fetch a new token even where the cache holds one.")] = False
    no_cache: Annotated[bool, Flag("--no-cache", help="Neither read nor write the cache.")] = False
