"""Modules, tokens and logins: from what was chosen to what is open."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from hsmjwt import folders
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, HsmjwtError
from hsmjwt.hsm.uri import KeyUri, TokenInfo
from hsmjwt.keyrules import KeyRules, bounds, named_first
from hsmjwt.private import make_folder
from hsmjwt.secret import Prompter, Resolved, SecretSource, resolve

if TYPE_CHECKING:
    from hsmjwt.config import Settings
    from hsmjwt.guard.policy import Bound, Purpose
    from hsmjwt.hsm.login import LoginRules
    from hsmjwt.hsm.module import Login, Module
    from hsmjwt.hsm.signer import Pkcs11Signer
    from hsmjwt.hsm.slots import Slot
    from hsmjwt.jose.algorithms import Algorithm
    from hsmjwt.jose.jws import OpenKey, Signer
    from hsmjwt.oauth.profile import Profile

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
    """Which module to load and how to log in; what a flag, a key table or the environment said.

    `rules` is what the key table says of its key that was named, nothing where none was.
    """

    uri: KeyUri
    module: str | None
    module_by: str
    pin_source: SecretSource
    mounted: bool = False
    rules: KeyRules = KeyRules()


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

    return rows(slot, module.session(slot), KeyUri(), module.library.direct)


def choice_of(profile: Profile) -> DeviceChoice:
    """Return a profile's part that is about module, key and login."""
    return DeviceChoice(
        uri=profile.key_uri,
        module=profile.module,
        module_by=profile.module_by,
        pin_source=profile.pin_source or PROMPT,
        mounted=profile.mounted,
        rules=profile.rules,
    )


class FoundSigner(NamedTuple):
    """A signer of a key that was found.

    `rules` is what all key tables say that mean the key, however it was named; `named` what the table says that was.
    """

    signer: Pkcs11Signer
    rules: tuple[KeyRules, ...]
    named: KeyRules

    @property
    def limits(self) -> tuple[KeyRules, ...]:
        """What limits the use of the key: its own tables, and the one that was named where that is another."""
        return named_first(self.named, self.rules)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """What binds the key's signatures."""
        return bounds(self.limits)

    @property
    def algs(self) -> tuple[Algorithm, ...]:
        """The algorithms that the key can and may sign with, the best first.

        Raises PolicyError where its tables agree on none, KeyUnfitError and DeviceError where it can do none of theirs.
        """
        from hsmjwt.guard.policy import bound_to
        from hsmjwt.jose.algorithms import ALGORITHMS

        allowed = [ALGORITHMS[name] for name in bound_to(self.bounds)]
        if not allowed:
            return self.signer.algs
        able = tuple(alg for alg in allowed if alg in self.signer.algs)
        if not able:
            self.signer.ways(allowed[0])  # which says why not
        return able


def find_signer(devices: Devices, choice: DeviceChoice, module: Module, slot: Slot, login: Login) -> FoundSigner:
    """Log in and find the key; nothing of its tables is asked yet but what tells its public half."""
    from hsmjwt.compose import halves
    from hsmjwt.hsm.signer import Pkcs11Signer

    half = halves.half_for(devices.settings, module, slot)
    signer = Pkcs11Signer(module, slot, choice.uri, login, devices.around.note, half=half)
    rules = halves.rules_for(devices.settings, module, slot, signer.key.label, signer.key.id)
    halves.check_halves(devices.settings, rules, signer)
    return FoundSigner(signer, rules, choice.rules)


def open_signer(devices: Devices, choice: DeviceChoice, purpose: Purpose, alg: str | None = None) -> OpenKey:
    """Log in, find the key and return it with a signer for one purpose, which verifies each signature that it makes.

    `alg` is what it is to sign with, where that is known. Raises PolicyError where a key table forbids it: the one that
    was named before the token is opened, any other that means the key before anything is signed. A self-test is for
    the key's own custodian, and only its algorithm is asked for.
    """
    from hsmjwt.compose import halves
    from hsmjwt.guard.policy import Permitted, bound_to, check_alg, check_end
    from hsmjwt.jose.jws import OpenKey
    from hsmjwt.jose.keys import HiddenKey
    from hsmjwt.verify import Verified

    testing = purpose == "self-test"

    def checked(limits: tuple[Bound, ...]) -> tuple[Bound, ...]:
        bound_to(limits)  # tables that agree on none are the matter, whichever is asked for
        if alg is not None:
            check_alg(limits, alg)
        return tuple(each._replace(not_after=None) for each in limits) if testing else limits

    check_end(checked(bounds((choice.rules,))), time.time())
    module = devices.module(choice)
    try:
        slot = module.find_token(choice.uri)
        found = find_signer(devices, choice, module, slot, devices.login(choice))
        limits, algs = checked(found.bounds), found.algs
        if not testing:
            check_usable(devices, module, slot, found)
    finally:
        module.settle()
    devices.around.note(f"key {found.signer.uri}")
    if isinstance(found.signer.known, HiddenKey):
        signer: Signer = halves.Unverified(found.signer, devices.around.warn)
    else:
        signer = Verified(found.signer)
    return OpenKey(Permitted(signer, purpose, limits, time.time), found.signer.uri, algs)


def check_usable(devices: Devices, module: Module, slot: Slot, found: FoundSigner) -> None:
    """Raise what forbids every use of a key that was found, whatever it is to sign.

    KeyUnfitError where it is another one than a table of it says, PolicyError where it is used no more, or does not
    keep the audit policy that a table requires.
    """
    from hsmjwt.compose import halves
    from hsmjwt.guard.policy import check_end

    check_end(found.bounds, time.time())
    for rules in found.rules:
        if rules.thumbprint is not None:
            halves.check_thumbprint(rules, found.signer.public_key, found.signer.uri)
    for rules in found.limits:
        if rules.require is not None:
            from hsmjwt.compose import requirements

            requirements.check(devices, module, slot, found.signer.key, module.session(slot), rules=rules)
