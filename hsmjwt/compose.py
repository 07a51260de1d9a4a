"""The composition root: the one file that picks concrete classes and puts them together.

Imports of what costs time stand inside the functions, so that a command loads only what it uses.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from hsmjwt import folders
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, HsmjwtError
from hsmjwt.hsm.uri import KeyUri, TokenInfo
from hsmjwt.private import make_folder, open_file
from hsmjwt.secret import Prompter, Resolved, SecretSource, resolve

if TYPE_CHECKING:
    from hsmjwt.bearer import AccessToken
    from hsmjwt.config import Settings
    from hsmjwt.hsm.login import LoginRules
    from hsmjwt.hsm.module import Login, Module
    from hsmjwt.hsm.slots import Slot
    from hsmjwt.jose.judge import Verdict
    from hsmjwt.jose.jws import Parts
    from hsmjwt.jose.keys import PublicKey
    from hsmjwt.oauth.assertion import Asserter, OpenKey
    from hsmjwt.oauth.broker import TokenBroker, TokenStore
    from hsmjwt.oauth.exchange import Answer
    from hsmjwt.oauth.profile import Profile
    from hsmjwt.oauth.transport import Transport
    from hsmjwt.softhsm import SoftToken
    from hsmjwt.store.file import FileStore


_A_DAY = 86400  # seconds

PROMPT = SecretSource(kind="prompt")
"""Where a PIN comes from that nobody names a source for."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What everything is told about the process it runs in: environment, time, and how to speak to people."""

    environ: Mapping[str, str]
    deadline: Deadline
    warn: Callable[[str], None]
    note: Callable[[str], None]
    prompt: Prompter | None


class DeviceChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which module to load and how to log in; what a flag, a key table or the environment said."""

    uri: KeyUri
    module: str | None
    module_by: str
    pin_source: SecretSource
    mounted: bool = False


def state_folder(environ: Mapping[str, str]) -> str:
    """Return the state folder, made where it is missing; raises ConfigError where it is not ours or cannot be."""
    path = folders.state_dir(environ)
    try:
        make_folder(path)
        info = os.stat(path)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise _unusable(path, f"cannot be made: {reason}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise _unusable(path, "is no folder")
    if info.st_uid != os.geteuid():  # as sudo leaves it that keeps HOME
        raise _unusable(path, f"belongs to user {info.st_uid}, not to us (user {os.geteuid()})")
    if info.st_mode & 0o022:
        raise _unusable(path, f"can be written by others (mode {stat.S_IMODE(info.st_mode):04o}; chmod 700 mends it)")
    return path


def _unusable(state_folder: str, why: str) -> ConfigError:
    return ConfigError(f"the state folder '{state_folder}' {why}", hint="XDG_STATE_HOME names another place")


class Devices:
    """The modules that this process has open, each once: a login holds for all that use the same token."""

    def __init__(
        self, settings: Settings, around: Surroundings, *, allow_last_try: bool = False, retry_pin: bool = False
    ) -> None:
        """Keep what every opening needs: config, the process's surroundings, and what the user allows in a login."""
        self.settings = settings
        self.around = around
        self._allowed = allow_last_try, retry_pin
        self._open: dict[str, Module] = {}
        self._piped: dict[tuple[SecretSource, str], Resolved] = {}

    def secret(self, source: SecretSource, *, purpose: str, question: str, mounted: bool = False) -> Resolved:
        """Read a secret; see hsmjwt.secret. A pipe behind `fd:N` is empty afterwards, and what it gave is kept."""
        around = self.around
        known = self._piped.get((source, purpose))
        if known is not None:
            return known
        read = resolve(
            source,
            purpose=purpose,
            question=question,
            prompt=around.prompt,
            environ=around.environ,
            deadline=around.deadline,
            mounted=mounted,
        )
        if source.kind == "fd":
            self._piped[source, purpose] = read
        return read

    @property
    def rules(self) -> LoginRules:
        """What the user allows in a login."""
        from hsmjwt.hsm.login import LoginRules

        allow_last_try, retry_pin = self._allowed
        return LoginRules(allow_last_try=allow_last_try, retry_pin=retry_pin)

    def module(self, choice: DeviceChoice) -> Module:
        """Find, load and initialise the module; the first time its lock is held afterwards (see hsm/module.py)."""
        from hsmjwt.hsm.discovery import find_module
        from hsmjwt.hsm.module import Module

        found = find_module(
            choice.module,
            choice.module_by,
            uri_path=choice.uri.module_path,
            uri_name=choice.uri.module_name,
            allowed=self.settings.allowed_modules,
        )
        around = self.around
        around.deadline.enter("the token")
        if found.real not in self._open:
            around.note(f"module {found.path} ({found.why})")
            try:
                state: str | HsmjwtError = state_folder(around.environ)
            except HsmjwtError as error:  # raised where something is to log in
                state = error
            self._open[found.real] = Module(found, state, around.deadline, around.warn)
        return self._open[found.real]

    def login(self, choice: DeviceChoice) -> Login:
        """Say how to log in with the chosen PIN source; it is read once, when the token asks for it."""
        from hsmjwt.hsm.module import Login

        read: list[Resolved] = []

        def pin(token: TokenInfo) -> Resolved:
            if not read:
                self.around.note(f"the PIN comes from {choice.pin_source.noted}")
                question = f"PIN of token '{token.label}' (serial {token.serial})"
                read.append(self.secret(choice.pin_source, purpose="PIN", question=question, mounted=choice.mounted))
            return read[0]

        return Login(choice.pin_source, pin, self.rules)


def look_only(named: str | None, deadline: Deadline) -> Module:
    """Load and initialise a module to look at what it shows to anybody; with no folder it waits for no lock."""
    from hsmjwt.hsm.discovery import find_module
    from hsmjwt.hsm.module import Module

    no_folder = ConfigError("this only looks, and logs in nowhere")
    return Module(find_module(named, "the command line"), no_folder, deadline, lambda _: None)


def visible_keys(module: Module, slot: Slot) -> list[dict[str, Any]]:
    """Return a row for each key that a token shows now; see hsmjwt.hsm.listing."""
    from hsmjwt.hsm.listing import rows

    return rows(slot, module.session(slot), KeyUri())


def choice_of(profile: Profile) -> DeviceChoice:
    """Return a profile's part that is about module, key and login."""
    return DeviceChoice(
        uri=profile.key_uri,
        module=profile.module,
        module_by=profile.module_by,
        pin_source=profile.pin_source or PROMPT,
        mounted=profile.mounted,
    )


def open_key(devices: Devices, profile: Profile) -> OpenKey:
    """Log in, find the profile's key and return it with a signer that verifies each signature it makes."""
    from hsmjwt.hsm.signer import Pkcs11Signer
    from hsmjwt.oauth.assertion import OpenKey
    from hsmjwt.verify import Verified

    choice = choice_of(profile)
    module = devices.module(choice)
    try:
        slot = module.find_token(choice.uri)
        signer = Pkcs11Signer(module, slot, choice.uri, devices.login(choice), devices.around.note)
    finally:
        module.settle()
    devices.around.note(f"key {signer.uri}")
    return OpenKey(Verified(signer), signer.uri)


def asserter(devices: Devices, profile: Profile) -> Asserter:
    """Return what builds and signs the profile's assertions; the token is opened by the first one."""
    from hsmjwt.oauth.assertion import Asserter

    return Asserter(profile, lambda: open_key(devices, profile))


def token_store(settings: Settings, around: Surroundings, *, cached: bool) -> TokenStore:
    """Return where access tokens are kept: a folder of ours, or for this process only."""
    from hsmjwt.store.file import FileStore
    from hsmjwt.store.memory import MemoryStore

    if not cached or settings.cache == "none":
        return MemoryStore()
    place = folders.cache_dir(around.environ, os.geteuid())
    if place is None:
        around.warn("warning: no home and no runtime folder, so nothing is cached")
        return MemoryStore()
    if place.on_disk and settings.cache == "runtime":
        around.warn('warning: there is no runtime folder, so nothing is cached (cache = "runtime")')
        return MemoryStore()
    return FileStore(place.path, warn=around.warn, on_disk=place.on_disk)


def leave_note(
    store: TokenStore, key: str, token: AccessToken, name: str, text: Callable[[str, os.stat_result], str]
) -> None:
    """Leave a note of a token, where the store is one of files; see hsmjwt.store.note."""
    from hsmjwt.store.file import FileStore

    if isinstance(store, FileStore):
        store.leave_note(key, token, name, text)


def file_stores(around: Surroundings) -> list[FileStore]:
    """Return the stores in every folder that may hold tokens: a cron job may have another one than a login."""
    from hsmjwt.store.file import FileStore

    places = folders.cache_dirs(around.environ, os.geteuid())
    return [FileStore(place.path, warn=around.warn) for place in places]


def transport_for(devices: Devices, profile: Profile | None, ca_file: str | None = None) -> Transport:
    """Return what carries requests to a server, with the profile's certificates and proxy; `ca_file` goes before."""
    from hsmjwt.oauth.transport import Transport

    return Transport(
        ca_file=ca_file if ca_file is not None or profile is None else profile.ca_file,
        proxy=None if profile is None else profile.proxy,
        environ=devices.around.environ,
        warn=devices.around.warn,
    )


def probe(devices: Devices, profile: Profile | None, url: str, ca_file: str | None) -> Answer:
    """Ask the token endpoint without an assertion; return its answer."""
    return transport_for(devices, profile, ca_file).probe(url, devices.around.deadline)


def token_broker(devices: Devices, profile: Profile, store: TokenStore) -> TokenBroker:
    """Return what hands out the profile's access tokens, from the store or the server."""
    from hsmjwt.oauth.broker import TokenBroker

    around = devices.around

    def client_secret() -> str | None:
        if profile.client_secret is None:
            return None
        read = devices.secret(profile.client_secret, purpose="client secret", question="client secret")
        return read.secret.reveal()

    return TokenBroker(
        profile,
        asserter=asserter(devices, profile),
        store=store,
        transport=lambda: transport_for(devices, profile),
        client_secret=client_secret,
        deadline=around.deadline,
        note=around.note,
    )


def dry_run(profile: Profile, *, exchanging: bool) -> dict[str, Any]:
    """Return what would be signed and sent, with `***` for what only the key or a secret gives; loads no module."""
    from hsmjwt.oauth.assertion import draft

    header, claims = draft(profile, profile.alg, time.time())
    value: dict[str, Any] = {"header": header, "claims": claims}
    if exchanging:
        from hsmjwt.oauth.exchange import build_request

        request = build_request(
            grant=profile.grant,
            url=profile.token_url or "",
            jwt="***",
            client_id=profile.client_id,
            scope=profile.scope,
            client_secret=None if profile.client_secret is None else "***",
            form=profile.form,
        )
        value["request"] = {
            "method": request.method,
            "url": request.url,
            "headers": request.headers,
            "form": request.shown_form(),
        }
    if profile.unresolved:
        value["unresolved"] = list(profile.unresolved)
    return value


def warn_of_retirement(profile: Profile, around: Surroundings) -> float | None:
    """Say that a provider's grant has ended, once a day for each profile.

    Returns the Unix time at which it is due again; None where there is nothing to say, or nothing noted.
    """
    if profile.retired is None:
        return None
    name = hashlib.sha256(f"{profile.provider}\0{profile.name}".encode("utf-8", "replace")).hexdigest()[:16]
    try:
        stamp = os.path.join(state_folder(around.environ), f"retired-{name}")
        if os.path.exists(stamp) and 0 <= time.time() - os.stat(stamp).st_mtime < _A_DAY:
            return os.stat(stamp).st_mtime + _A_DAY
        os.close(open_file(stamp, os.O_RDONLY | os.O_CREAT))
        os.utime(stamp)
    except (OSError, HsmjwtError) as error:
        around.note(f"that a warning was given cannot be noted: {error}")
    around.warn(f"warning: {profile.retired}")
    return None


def load_public(data: bytes, *, certified: bool = False) -> PublicKey:
    """Read a public key or the key of a certificate from a file's bytes; nothing but a certificate if `certified`."""
    from hsmjwt.x509 import public as x509

    return x509.load_certified(data) if certified else x509.load_public(data)


def judge(parts: Parts, key: PublicKey, **wanted: Any) -> Verdict:
    """Verify a token's signature in software, then its claims; see hsmjwt.jose.judge."""
    from hsmjwt import verify
    from hsmjwt.jose import judge as judging

    return judging.judge(parts, key, check=verify.valid, **wanted)


def public_pem(key: PublicKey) -> str:
    """Return a public key as PEM."""
    from hsmjwt.x509 import public as x509

    return x509.spki_pem(key)


def public_der(key: PublicKey) -> bytes:
    """Return a public key as DER."""
    from hsmjwt.x509 import public as x509

    return x509.spki_der(key)


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Return a public key as a JWK, named by its thumbprint (RFC 7638)."""
    from hsmjwt.jose.algorithms import by_default
    from hsmjwt.jose.jwk import thumbprint, to_jwk

    return {**to_jwk(key), "kid": thumbprint(key), "use": "sig", "alg": by_default(key).name}


def make_soft_token(folder: str, label: str, environ: MutableMapping[str, str]) -> SoftToken:
    """Make a SoftHSM2 token for tests; see hsmjwt.softhsm."""
    from hsmjwt import softhsm

    return softhsm.create(folder, label, environ)


def read_soft_token(folder: str) -> SoftToken:
    """Return a token that `make_soft_token` made."""
    from hsmjwt import softhsm

    return softhsm.read(folder)


def remove_soft_token(folder: str) -> str | None:
    """Remove a token that `make_soft_token` made; return its folder where that is kept for what else is in it."""
    from hsmjwt import softhsm

    return softhsm.remove(folder)
