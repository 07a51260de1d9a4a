"""A static issuer: the two files that make keys the root of other systems' trust, without a server behind them.

Whoever is handed a JWT finds `ISSUER/.well-known/openid-configuration`, and through it the keys. No person ever logs in
here, so that the document names the implicit flow alone and an authorization endpoint at which nobody answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hsmjwt.errors import UsageError
from hsmjwt.oauth.endpoint import parse_endpoint, shown

KEYS_FILE = "jwks.json"
CONFIGURATION_FILE = ".well-known/openid-configuration"  # OpenID Connect Discovery 1.0, section 4
MANDATORY_ALG = "RS256"
"""What OpenID Connect Discovery 1.0, section 3, wants every issuer to sign with."""

_CLAIMS = ("iss", "sub", "aud", "exp", "iat")  # AWS looks for the member, which the specification only recommends
_WANTED = "an issuer is an https URL without query and fragment (OpenID Connect Discovery 1.0, section 3)"
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_NO_PATH = re.compile("[^A-Za-z0-9._~!$&'()*+,;=:@/%-]")  # what RFC 3986, section 3.3, has no place for
_DOT = re.compile("%2[Ee]")  # browsers and Node.js read it as a dot before they take dotted parts away


def check_issuer(text: str) -> str:
    """Return an issuer as it is given: verifiers compare it byte for byte (OpenID Connect Discovery 1.0, section 4.3).

    Raises UsageError for what is no https URL without query and fragment (section 3), and for what two programs may
    read as two different URLs.
    """
    if text and not text.lower().startswith("https://"):
        raise UsageError(f"the issuer {shown(text)} does not begin with https://", hint=_WANTED)
    try:
        parse_endpoint(text)
    except UsageError as error:
        raise UsageError(error.message.replace("the server's URL", "the issuer"), hint=error.hint or _WANTED) from None
    if not text.startswith("https://"):
        raise UsageError(f"the issuer {shown(text)} does not begin with https:// in lower case", hint=_WANTED)
    if "?" in text:
        raise UsageError(f"the issuer {shown(text)} has a query (?…)", hint=_WANTED)
    path = text.removeprefix("https://").partition("/")[2]
    odd = _NO_PATH.search(path)
    if odd is not None:
        hint = "percent-encoded it may be there; is it the name of something that is to be put in?"
        raise UsageError(f"the issuer {shown(text)} has a path that holds the character '{odd[0]}'", hint=hint)
    if f"/{path.removesuffix('/')}".endswith(f"/{CONFIGURATION_FILE}"):
        hint = f"an issuer is what stands before /{CONFIGURATION_FILE}"
        raise UsageError(f"the issuer {shown(text)} is the address of a discovery document", hint=hint)
    segments = _DOT.sub(".", path.removesuffix("/")).split("/") if path else []
    if not all(segments) or {".", ".."} & set(segments):
        raise UsageError(
            f"the issuer {shown(text)} has a path with an empty or a dotted part",
            hint="verifiers would look for its keys in different places",
        )
    if _BROKEN_ESCAPE.search(text):
        raise UsageError(
            f"the issuer {shown(text)} has a % that is not followed by two hexadecimal digits", hint=_WANTED
        )
    return text


def jwks_uri(issuer: str) -> str:
    """Return where the keys of a checked issuer are to be found."""
    return f"{_base(issuer)}/{KEYS_FILE}"


def configuration(issuer: str, algs: Iterable[str]) -> dict[str, Any]:
    """Return the discovery document of a checked issuer whose keys sign with `algs`.

    It has every member that is required where tokens are had by the implicit flow alone, which is the one that asks for
    no token endpoint (OpenID Connect Discovery 1.0, section 3).
    """
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{_base(issuer)}/authorize",  # required, and https
        "jwks_uri": jwks_uri(issuer),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": sorted(set(algs)),
        "claims_supported": list(_CLAIMS),
    }


def _base(issuer: str) -> str:
    return issuer.removesuffix("/")
