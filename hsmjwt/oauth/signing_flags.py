"""The flags that say what is signed and where it goes, as raw text: what a command line or a library caller gave."""

from __future__ import annotations

import msgspec

from hsmjwt.errors import UsageError

# Fields whose text may hold any byte: file names, and a source that may be one.
_ANY_BYTES = frozenset(("pin_source", "ca_file", "claims_file_name", "module"))


class SigningFlags(msgspec.Struct, frozen=True, kw_only=True):
    """One field for each flag, None or empty where it was not given.

    `claims_file` is what the file held, `claims_file_name` its name for messages. `order` holds the names of the fields
    `claim`, `claim_json` and `claims_file`, once for each time that they were given: claims are written in that order.
    """

    provider: str | None = None
    key: str | None = None
    module: str | None = None
    pin_source: str | None = None
    alg: str | None = None
    iss: str | None = None
    sub: str | None = None
    aud: tuple[str, ...] = ()
    scope: str | None = None
    exp: str | None = None
    nbf: str | None = None
    now: str | None = None
    jti: str | None = None
    typ: str | None = None
    kid: str | None = None
    claim: tuple[str, ...] = ()
    claim_json: tuple[str, ...] = ()
    claims_file: bytes | None = None
    claims_file_name: str = "-"
    order: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    grant: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    min_ttl: str | None = None
    timeout: str | None = None
    ca_file: str | None = None

    def check(self) -> None:
        """Raise UsageError for a flag that is empty, or no Unicode text: argv holds bytes."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            label = "--" + name.replace("_", "-")
            for text in value if isinstance(value, tuple) else (value,):
                if not isinstance(text, str):
                    continue
                if not text:
                    raise UsageError(f"{label} is empty", hint="give it a value; is a shell variable unset?")
                if name not in _ANY_BYTES and any("\ud800" <= character <= "\udfff" for character in text):
                    raise UsageError(f"{label} is not UTF-8 text")
