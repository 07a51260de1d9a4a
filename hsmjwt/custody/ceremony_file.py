"""The file of a key ceremony: reviewed before, followed to the letter, and kept with what came of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar, get_args

import msgspec

from hsmjwt.compose import policies
from hsmjwt.custody.certificates import DAYS, Wanted
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.hsm.keygen import NewKey, parse_new_key
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.hsm.uri import parse as parse_uri
from hsmjwt.keyrules import is_policy_file
from hsmjwt.nearest import did_you_mean
from hsmjwt.toml_lines import KeyPath
from hsmjwt.toml_tables import Source, decoded, dotted, loaded, where

T = TypeVar("T")

CertificateKind = Literal["self-signed", "csr"]
Format = Literal["pem", "der", "jwk", "ssh"]

LARGEST: Final = 1024 * 1024  # bytes; a file of this size was reviewed by nobody
_NOUN: Final = "ceremony file"

# What each key's value must be: the kinds of toml_tables.
_TOP: Final = {
    "operator": "text",
    "witnesses": "texts",
    "out": "text",
    "key": "table",
    "certificate": "table",
    "export": "table",
    "audit": "table",
}
_KEY: Final = {"token": "secret", "label": "text", "type": "text", "alg": "text"}
_CERTIFICATE: Final = {"kind": "text", "subject": "text", "days": "count", "san": "texts"}
_EXPORT: Final = {"formats": "texts"}
_AUDIT: Final = {"policy": "text"}
_SAYS_WHO: Final = ("pin_value", "pin_source", "module_path", "module_name")
_OF_OBJECT: Final = ("object", "id", "type")


class CertificatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the new key signs of itself: a certificate, or a request for one."""

    kind: CertificateKind
    wanted: Wanted


class Ceremony(msgspec.Struct, frozen=True, kw_only=True):
    """A ceremony file, checked as far as that goes without a token; `out` and the path of a policy are whole paths."""

    path: str
    text: str
    sha256: str
    operator: str
    witnesses: tuple[str, ...]
    out: str
    token: KeyUri
    new: NewKey
    certificate: CertificatePlan | None
    formats: tuple[Format, ...]
    policy: str


def parse(data: bytes, path: str) -> Ceremony:
    """Read the bytes of the ceremony file at `path`, of which relative paths in it count from; raises ConfigError."""
    if len(data) > LARGEST:
        raise ConfigError(f"{_NOUN} {path!r} is longer than {LARGEST // 1024} KiB")
    text = decoded(data, path, _NOUN)
    return _Reader(Source(path, text, _NOUN), path).ceremony(loaded(text, path, _NOUN), data)


class _Reader:
    """Turns a TOML document into a Ceremony, or into an error that names the line."""

    def __init__(self, source: Source, path: str) -> None:
        self.source = source
        self.folder = os.path.dirname(os.path.abspath(path))
        self.path = path

    def ceremony(self, document: dict[str, Any], data: bytes) -> Ceremony:
        """Check the whole document."""
        top = self.table((), document, _TOP, needed=("operator", "witnesses", "out", "key"))
        key = self.table(("key",), top["key"], _KEY, needed=("token", "label", "type"))
        audit = self.table(("audit",), top.get("audit", {}), _AUDIT)
        return Ceremony(
            path=self.path,
            text=data.decode(),  # to the letter: the digest is over it
            sha256=hashlib.sha256(data).hexdigest(),
            operator=top["operator"],
            witnesses=self.witnesses(top),
            out=os.path.join(self.folder, top["out"]),
            token=self.token(key["token"]),
            new=self.new_key(key),
            certificate=self.certificate(top),
            formats=self.formats(self.table(("export",), top.get("export", {}), _EXPORT).get("formats", ["pem"])),
            policy=self.policy(audit.get("policy", policies.DEFAULT)),
        )

    def table(
        self, path: KeyPath, table: Mapping[str, Any], known: Mapping[str, str], needed: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Return a table's values, each of its kind, and none missing that is needed."""
        values = self.source.table(path, table, known)
        for name in needed:
            if name not in values:
                raise self.source.fault(path, f"{name} is missing {where(path)}", hint=_EXAMPLES[name])
        for name, value in values.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not (text.strip() and text.isprintable()):
                    raise self.source.fault((*path, name), f"{name} {where(path)} is blank, or has control characters")
        return values

    def witnesses(self, top: Mapping[str, Any]) -> tuple[str, ...]:
        """Return who looks on: somebody else than the operator, each named once."""
        named = [top["witnesses"]] if isinstance(top["witnesses"], str) else top["witnesses"]
        people = [" ".join(name.split()).casefold() for name in (top["operator"], *named)]
        if len(set(people)) < len(people):
            raise self.source.fault(
                ("witnesses",), "operator and witnesses are not all different people", hint="name each of them once"
            )
        return tuple(named)

    def token(self, text: str) -> KeyUri:
        """Return the token's URI; how to reach and to open it is for who runs the ceremony to say."""
        uri = self.fault_of(("key", "token"), lambda: parse_uri(text))
        if any(getattr(uri, name) is not None for name in _SAYS_WHO):
            raise self.source.fault(
                ("key", "token"),
                "token in [key] names a PIN or a module, and a file that many read is no place for them",
                hint="--pin-source, --module, or the environment",
            )
        if any(getattr(uri, name) is not None for name in _OF_OBJECT) or uri.unknown:
            raise self.source.fault(
                ("key", "token"), "token in [key] says more than which token it is", hint="label names the new key"
            )
        if uri == KeyUri():
            raise self.source.fault(("key", "token"), "token in [key] fits every token", hint=_EXAMPLES["token"])
        return uri

    def new_key(self, key: Mapping[str, Any]) -> NewKey:
        """Return what to make."""
        new = self.fault_of(("key", "type"), lambda: parse_new_key(key["type"], key["label"], None))
        if "alg" not in key:
            return new
        return self.fault_of(("key", "alg"), lambda: parse_new_key(key["type"], key["label"], None, key["alg"]))

    def certificate(self, top: Mapping[str, Any]) -> CertificatePlan | None:
        """Return what the key is to sign of itself, by whatever it is made for; None where nothing is asked for."""
        if "certificate" not in top:
            return None
        path = ("certificate",)
        table = self.table(path, top["certificate"], _CERTIFICATE, needed=("kind", "subject"))
        kind = self.choice((*path, "kind"), table["kind"], get_args(CertificateKind))
        if kind == "csr" and "days" in table:
            raise self.source.fault(
                (*path, "days"), "a request says no days: who issues the certificate does", hint="remove it"
            )
        texts = table.get("san", [])
        san = (texts,) if isinstance(texts, str) else tuple(texts)
        subject = table["subject"]
        self.fault_of((*path, "subject"), lambda: Wanted(subject=subject))
        self.fault_of((*path, "san"), lambda: Wanted(subject=subject, san=san))
        days = table.get("days", DAYS)
        wanted = self.fault_of((*path, "days"), lambda: Wanted(subject=subject, san=san, days=days))
        return CertificatePlan(kind=kind, wanted=wanted)

    def formats(self, named: str | list[str]) -> tuple[Format, ...]:
        """Return the forms of the public key, each once."""
        texts = [named] if isinstance(named, str) else named
        return tuple(dict.fromkeys(self.choice(("export", "formats"), text, get_args(Format)) for text in texts))

    def policy(self, named: str) -> str:
        """Return a policy's name, or the whole path of its file, told by a slash or its ending."""
        return os.path.join(self.folder, named) if is_policy_file(named) else named

    def choice(self, path: KeyPath, text: str, known: tuple[Any, ...]) -> Any:
        """Return a text that must be one of some."""
        if text not in known:
            raise self.source.fault(
                path,
                f"{dotted(path)}: {text!r} is unknown",
                hint=did_you_mean(text, known, noun=f"values of {path[-1]}"),
            )
        return text

    def fault_of(self, path: KeyPath, call: Callable[[], T]) -> T:
        """Return what `call` makes of a value, a fault in it as one of the file."""
        try:
            return call()
        except UsageError as error:
            message, hint = error.message, error.hint
        raise self.source.fault(path, f"{path[-1]} {where(path[:-1])}: {message}", hint=hint)


_EXAMPLES: Final = {
    "operator": 'who runs the ceremony: operator = "Ada Example"',
    "witnesses": 'who looks on: witnesses = ["Grace Example"]',
    "out": 'the folder for all that comes of it: out = "ceremony-2026-12-01"',
    "key": 'the key to make: [key] with token = "pkcs11:token=prod", label and type',
    "token": 'such as token = "pkcs11:token=prod"',
    "label": 'such as label = "adobe-2026-12"',
    "type": 'such as type = "rsa:3072", or "p256"',
    "kind": 'kind = "self-signed" or "csr"',
    "subject": 'such as subject = "CN=adobe-jwt,O=Example Inc.,C=NO"',
}
