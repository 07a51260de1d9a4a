"""A key ceremony: one reviewed file, followed step by step, with a transcript that the new key signs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, assert_never

import msgspec

from hsmjwt.compose import policies
from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody import auditing, certificates
from hsmjwt.custody.ceremony_file import Ceremony, Format
from hsmjwt.custody.generating import bound_key, generate_key
from hsmjwt.custody.keys import public_key
from hsmjwt.custody.publishing import public_jwk
from hsmjwt.custody.report_html import page
from hsmjwt.custody.transcript import READABLE, SIGNED, Transcript, Verdict, refuse_folder
from hsmjwt.errors import HsmjwtError, KeyFault
from hsmjwt.hsm.facts import of_place
from hsmjwt.hsm.keygen import chosen_mechanisms
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri, format_token_uri, parse
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.der import armoured
from hsmjwt.x509.public import spki_der, spki_pem, spki_sha256
from hsmjwt.x509.ssh import ssh_line

_CERTIFICATES: Final = {  # name of the file, and of the armour (RFC 7468, sections 5 and 7)
    "self-signed": ("certificate.pem", "CERTIFICATE"),
    "csr": ("request.pem", "CERTIFICATE REQUEST"),
}
_AUDIT: Final = "audit.html"
_PUBLIC: Final[dict[Format, str]] = {
    "pem": "public.pem",
    "der": "public.der",
    "jwk": "public.jwk",
    "ssh": "public.ssh",
}


class Performed(NamedTuple):
    """What came of a ceremony: its transcript as it stands in the files, and what the audit does not pass."""

    about: dict[str, Any]
    key: str
    verdict: Verdict
    files: list[str]
    failed: list[str]


def plan(devices: Devices, choice: DeviceChoice, ceremony: Ceremony) -> dict[str, Any]:
    """Return what a ceremony would do, after a look at folder, policy and token with its mechanisms; nobody logs in.

    `label_free` says that no object of that label is visible so. Raises what `perform` raises before its first step.
    """
    refuse_folder(ceremony.out)
    policy = policies.load(ceremony.policy)
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    try:
        ceremony = _bound(devices, choice, module, slot, ceremony)
        _refuse_label(module.session(slot), slot, ceremony, sees_all=False)
        chosen_mechanisms(ceremony.new, module.mechanisms(slot))
    finally:
        module.settle()
    new = ceremony.new
    algs = [new.algorithm.name, *new.also]
    steps: list[dict[str, Any]] = [
        {"step": "generate", "type": new.kind.name, "label": new.label, "alg": algs if new.also else algs[0]}
    ]
    if ceremony.certificate is not None:
        kind, wanted = ceremony.certificate.kind, ceremony.certificate.wanted
        about = {"kind": kind, "subject": wanted.subject, "san": list(wanted.san)}
        days = {"days": wanted.days} if kind == "self-signed" else {}
        steps.append({"step": "certificate", **about, **days, "files": [_CERTIFICATES[kind][0]]})
    steps.append({"step": "export", "files": [_PUBLIC[each] for each in ceremony.formats]})
    steps.append({"step": "audit", "policy": policy.name, "rules": len(policy.rules), "files": [_AUDIT]})
    steps.append({"step": "sign the transcript", "files": [READABLE, SIGNED]})
    return {
        "ceremony": {"file": ceremony.path, "sha256": ceremony.sha256},
        "operator": ceremony.operator,
        "witnesses": list(ceremony.witnesses),
        "out": ceremony.out,
        "token": _token(slot),
        "label_free": True,
        "steps": steps,
    }


def perform(devices: Devices, choice: DeviceChoice, ceremony: Ceremony) -> Performed:
    """Follow the file: key, certificate or request, export, audit, and the transcript of it all.

    A failing audit is a verdict, and raises nothing: the key stays, as part of the evidence. Whatever else fails ends
    the ceremony, and the readable transcript says where; nothing is taken back then but what `generate_key` takes back.
    Raises ConfigError for a folder that is not empty or cannot be written, KeyFault for a label in use, DeviceError
    where the token makes no such keys, and what the steps raise.
    """
    refuse_folder(ceremony.out)
    policies.load(ceremony.policy)
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    try:
        ceremony = _bound(devices, choice, module, slot, ceremony)
    except HsmjwtError:
        module.settle()
        raise
    module.log_in(slot, devices.login(choice))
    _refuse_label(module.session(slot), slot, ceremony, sees_all=True)
    chosen_mechanisms(ceremony.new, module.mechanisms(slot))
    transcript = Transcript(ceremony)
    about = {"path": module.choice.path, "sha256": of_place(module, slot)["module_sha256"]}
    transcript.about.update(module=about, token=_token(slot))
    transcript.make_folder()
    return _Work(devices, choice, ceremony, transcript).done()


def _bound(devices: Devices, choice: DeviceChoice, module: Module, slot: Slot, ceremony: Ceremony) -> Ceremony:
    """Return the ceremony with the algorithms that key tables bind the new key to; raises PolicyError."""
    new, certificate = bound_key(devices, choice, module, slot, ceremony.new), ceremony.certificate
    if certificate is not None:
        wanted = msgspec.structs.replace(certificate.wanted, alg=new.algorithm.name)
        certificate = msgspec.structs.replace(certificate, wanted=wanted)
    return msgspec.structs.replace(ceremony, new=new, certificate=certificate)


class _Work:
    """The steps of one ceremony."""

    def __init__(self, devices: Devices, choice: DeviceChoice, ceremony: Ceremony, transcript: Transcript) -> None:
        self._devices, self._choice, self._ceremony, self._transcript = devices, choice, ceremony, transcript
        self._files: list[str] = []
        self._uri: str | None = None

    def done(self) -> Performed:
        ceremony, transcript, alg = self._ceremony, self._transcript, self._ceremony.new.algorithm
        named = None if ceremony.new.also else alg.name  # a JWK can name one
        with self._step("generate") as told:
            made = generate_key(self._devices, self._choice, ceremony.new)
            self._uri = told["uri"] = made.uri
            told["dropped"] = list(made.dropped)
            key = msgspec.structs.replace(self._choice, uri=parse(made.uri))
            public = public_key(self._devices, key)
            told.update(thumbprint=thumbprint(public), spki_sha256=spki_sha256(public).hex())
            told["jwk"] = public_jwk(public, named)
        if ceremony.certificate is not None:
            with self._step("certificate") as told:
                self._certify(key, told)
        with self._step("export") as told:
            told["files"] = [
                self._keep(_PUBLIC[each], _written(public, each, ceremony.new.label, named))
                for each in ceremony.formats
            ]
        with self._step("audit") as told:
            failed = self._audit(key, told)
        verdict: Verdict = "audit failed" if failed else "passed"
        with self._explained():
            self._files += transcript.finish(self._devices, key, alg, verdict)
        return Performed(transcript.about, made.uri, verdict, self._files, failed)

    def _audit(self, key: DeviceChoice, told: dict[str, Any]) -> list[str]:
        """Audit the key, and return in words what is not passed."""
        report = auditing.audit(self._devices, key, policy=self._ceremony.policy)
        (told["report"],) = auditing.as_json(report)
        told["files"] = [self._keep(_AUDIT, page(report).encode())]
        return [
            f"{each.attribute} is {each.found}, required is {each.required}"
            for each in report.keys[0].findings
            if each.result != "pass"
        ]

    def _certify(self, key: DeviceChoice, told: dict[str, Any]) -> None:
        plan = self._ceremony.certificate
        assert plan is not None  # noqa: S101 - the caller has looked
        name, armour = _CERTIFICATES[plan.kind]
        match plan.kind:
            case "self-signed":
                der = certificates.self_signed(self._devices, key, plan.wanted)
            case "csr":
                der = certificates.request(self._devices, key, plan.wanted)
            case _:
                assert_never(plan.kind)
        told.update(kind=plan.kind, subject=plan.wanted.subject, sha256=hashlib.sha256(der).hexdigest())
        told["files"] = [self._keep(name, armoured(armour, der).encode("ascii"))]

    def _keep(self, name: str, data: bytes) -> dict[str, str]:
        """Write a file, and return how the transcript names it."""
        self._files.append(self._transcript.keep(name, data))
        return {"name": name, "sha256": hashlib.sha256(data).hexdigest()}

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[dict[str, Any]]:
        """Write down a step before and after it; the block fills in what came of it."""
        with self._explained():
            self._transcript.begin(name)
            told: dict[str, Any] = {}
            try:
                yield told
            except HsmjwtError as error:
                self._transcript.failed(error, told)
                raise
            self._transcript.done(told)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Have an error say what is left."""
        try:
            yield
        except HsmjwtError as error:
            left = f"the ceremony was aborted, and '{os.path.join(self._ceremony.out, READABLE)}' says where"
            if self._uri is not None:
                left += f"; its key stays on the token until hsmjwt key delete '{self._uri}'"
            error.hint = left if error.hint is None else f"{error.hint}; {left}"
            raise


def _written(public: PublicKey, form: Format, label: str, alg: str | None) -> bytes:
    match form:
        case "pem":
            return spki_pem(public).encode("ascii")
        case "der":
            return spki_der(public)
        case "jwk":
            return json.dumps(public_jwk(public, alg), indent=2).encode("ascii") + b"\n"
        case "ssh":
            return ssh_line(public, label).encode() + b"\n"
        case _:
            assert_never(form)


def _refuse_label(session: Any, slot: Slot, ceremony: Ceremony, *, sees_all: bool) -> None:
    """Raise KeyFault where an object that the session sees has the new key's label.

    Without a login it seldom `sees_all`: a public half is taken for the one of a whole key then.
    """
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    found = search(session, KeyUri(object=ceremony.new.label), slot.token)
    if found:
        key = next((key for key in found if key.kind == "private"), found[0])
        uri = key.uri(slot.needed_id)
        if key.kind == "public" and not sees_all:
            uri = str(msgspec.structs.replace(parse(uri), type=None))
        raise KeyFault(
            f"the label {ceremony.new.label!r} is in use: {uri}",
            hint="a ceremony makes a new key: name another label; where an aborted ceremony has left this one, "
            f"hsmjwt key delete '{uri}' removes it",
        )


def _token(slot: Slot) -> dict[str, str]:
    token = slot.token
    assert token is not None  # noqa: S101 - find_token returns no other
    return {"uri": format_token_uri(token, slot.needed_id), **msgspec.structs.asdict(token)}
