"""The compact form of a signed JWT (RFC 7515, section 7.1; RFC 7519, section 7): made, and taken apart for display."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.encoding import EncodingFault, b64u_decode, b64u_encode, dump, load_object, quoted
from hsmjwt.jose.keys import PublicKey

_JWS_AS_JSON = "it is JSON: a JWS in its JSON form (RFC 7515, 7.2), and a JWT has the compact one"
_JSON_FORMS = (  # told by its members
    ({"payload", "signature"}, _JWS_AS_JSON),
    ({"payload", "signatures"}, _JWS_AS_JSON),
    ({"ciphertext"}, "it is JSON: an encrypted token (JWE) in its JSON form (RFC 7516, 7.2)"),
    ({"access_token"}, "it is JSON: a token endpoint's answer, of which the member access_token is the token"),
    ({"jwt"}, "it is JSON, of which the member jwt is the token"),
)


class Signer(Protocol):
    """A private key that signs where it lives."""

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key."""
        ...

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        """Return the signature of the whole message in JOSE's form (RFC 7518, section 3).

        Raises KeyUnfitError where the key may not be used with the algorithm.
        """
        ...


class OpenKey(NamedTuple):
    """A key that is ready to sign, and the URI that selects it and no other.

    `algs` are the algorithms that it can and may sign with, the best first; none where nobody can tell.
    """

    signer: Signer
    uri: str
    algs: tuple[Algorithm, ...] = ()


class Parts(NamedTuple):
    """A JWT taken apart. `signing_input` holds the bytes as they stood in it: they are never written anew."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signature: bytes
    signing_input: bytes


def signing_input(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bytes:
    """Return what is signed: header and claims as base64url of compact JSON (RFC 7515, section 5.1).

    Members keep their order. Raises EncodingFault that names the claim or header parameter JSON cannot hold.
    """
    segments = dump(dict(header), noun="header parameter"), dump(dict(claims), noun="claim")
    return ".".join(b64u_encode(segment) for segment in segments).encode("ascii")


def sign_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], signer: Signer, alg: Algorithm) -> str:
    """Return the compact JWT, signed by `signer` with `alg`, which the header must name.

    Raises EncodingFault as `signing_input` does and for a header that names another algorithm, and what the signer
    raises, KeyUnfitError where the key may not be used with the algorithm.
    """
    if header.get("alg") != alg.name:
        raise EncodingFault(f"the header's alg is not {alg.name}, which is to sign")
    message_bytes = signing_input(header, claims)
    signature = signer.sign(message_bytes, alg)
    return f"{message_bytes.decode('ascii')}.{b64u_encode(signature)}"


def split(jwt: str) -> Parts:
    """Take a compact JWT apart without judging it (RFC 7519, section 7.2, steps 1 to 10).

    An empty signature is let through: whoever verifies says no to it. Raises EncodingFault that says what is in the
    way: no JWT, an encrypted one, a nested one, JSON that is no object, base64url in another spelling.
    """
    if jwt.startswith("{"):
        raise EncodingFault(_what_json(jwt))
    segments = jwt.split(".")
    if len(segments) != 3:  # header, payload, signature
        raise EncodingFault(_why_not_three(len(segments)))
    head, body, tail = segments
    header = _object(head, "header", "header parameter")
    if not body:
        raise EncodingFault("the payload is empty: a detached signature, not a JWT")
    try:
        claims = _object(body, "payload", "claim")
    except EncodingFault as error:
        other = _other_payload(header, body)
        if other is None:
            raise
        raise EncodingFault(other) from error
    try:
        signature = b64u_decode(tail)
    except EncodingFault as error:
        raise EncodingFault(f"the signature is not base64url: {error}") from None
    return Parts(header, claims, signature, f"{head}.{body}".encode("ascii"))


def _what_json(text: str) -> str:
    try:
        members = load_object(text).keys()
    except EncodingFault:
        members = {}.keys()
    for names, what in _JSON_FORMS:
        if names <= members:
            return what
    return "it is JSON: a JWT has the compact form, three parts with dots between them"


def _why_not_three(count: int) -> str:
    if count == 5:  # RFC 7516, section 9
        return "it has five parts: an encrypted token (JWE), which only its recipient can read"
    if count == 1:
        return "it has no dots: a JWT has three parts with dots between them, so this is an opaque token or no token"
    if count == 2:
        return "it has two parts: the signature and the dot before it are missing"
    return f"it has {count} parts: a JWT has three"


def _object(segment: str, part: str, noun: str) -> dict[str, Any]:
    try:
        data = b64u_decode(segment)
    except EncodingFault as error:
        raise EncodingFault(f"the {part} is not base64url: {error}") from None
    try:
        return load_object(data, noun=noun)
    except EncodingFault as error:
        raise EncodingFault(f"the {part}: {error}") from None


def _other_payload(header: dict[str, Any], body: str) -> str | None:
    """Return what a payload that holds no claims is, where that can be told."""
    if header.get("b64") is False:
        return "the payload is not encoded (the header parameter b64 is false, RFC 7797), so this is no JWT"
    content = header.get("cty")
    if isinstance(content, str) and content.lower().removeprefix("application/") == "jwt":
        return "the payload is itself a JWT (the header parameter cty says so): a nested token"
    try:
        inner = b64u_decode(body).decode("ascii")
    except ValueError:
        return None
    return "the payload is itself a token: a nested one" if re.fullmatch(r"ey[\w-]+(\.[\w-]*){2,4}", inner) else None


_FIELD = re.compile(r"(?:(?:proxy-)?authorization\s*:\s*)?bearer\s+", re.IGNORECASE)
_QUOTES = ('"', "'", "`")


def trim(text: str) -> str:
    """Return the token in what a person pasted, without what stands around it.

    Cut are white space and line ends, a byte order mark, `Bearer` with or without the name of its header field, and a
    pair of quotes around it all or around the token: none of them can be part of a token, and what is left is still
    read strictly. Raises EncodingFault where nothing is left, and for anything inside: white space, a second token.
    """
    token = _unquoted(text.strip().removeprefix("\ufeff").strip())
    token = _unquoted(_FIELD.sub("", token, count=1) if _FIELD.match(token) else token)
    if not token:
        raise EncodingFault("it is empty")
    words = token.split()
    if len(words) == 1:
        return token
    if all(word.count(".") >= 2 for word in words):  # of a compact form
        raise EncodingFault(f"there are {len(words)} tokens, where one belongs")
    if token.startswith("{"):
        raise EncodingFault(_what_json(token))
    first = words[0]
    if first.isalpha() and len(first) < 16 and not first.startswith("ey"):  # a scheme, not the beginning of a token
        raise EncodingFault(f"{quoted(first)} stands before the token")
    raise EncodingFault(f"white space inside the token, after character {len(first)}")


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in _QUOTES:  # a pair
        return text[1:-1].strip()
    return text
