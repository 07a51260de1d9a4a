"""Taking a key that was made elsewhere onto a token: whole and proven, or not at all.

The public half is written first. It says whose half pair it is, should the process die before the private half is
there: the same import takes it up, and finishes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from hsmjwt.compose.devices import PROMPT, DeviceChoice, Devices
from hsmjwt.compose.halves import tables_for
from hsmjwt.custody.dependents import bound_algs, refuse_protected
from hsmjwt.custody.proof import self_test
from hsmjwt.errors import DeviceError, HsmjwtError, KeyFault, KeyUnfitError, LoginError, UsageError
from hsmjwt.hsm.creating import removed
from hsmjwt.hsm.importing import Imported, NewObjects, put_private, put_public
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import KeyObject, search
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyType, KeyUri
from hsmjwt.hsm.ways import best_mechanism
from hsmjwt.jose.algorithms import ALGORITHMS, Algorithm, by_default, misfit
from hsmjwt.jose.keys import PublicKey
from hsmjwt.keyrules import KeyRules
from hsmjwt.secret import Secret, SecretSource
from hsmjwt.softkey import SoftKey, read_private
from hsmjwt.x509.public import key_bits, key_identifier

_TAKEN = "take another --label or --id, or hsmjwt key delete the old one; nothing was changed"
_KINDS: tuple[KeyType, ...] = ("private", "public")  # apart: SoftHSM may hold what is neither, of a killed process
_SOURCES = "--passphrase-source names where it is: file:PATH, env:NAME, credential:NAME, fd:N or command:PROGRAM"


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A private key's file as it was read; `name` is how messages call it. Its repr hides the content."""

    name: str
    data: bytes
    passphrase: SecretSource | None = None

    def __repr__(self) -> str:
        """Show the name only."""
        return f"KeyFile(name={self.name!r})"


class ImportWanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the key is to be on the token; `id` None is chosen by its public half, `alg` None by table and type.

    `plain` allows to hand it over in the clear where the token cannot unwrap it.
    """

    label: str
    id: bytes | None = None
    alg: str | None = None
    plain: bool = False


class ImportedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is on the token now; `dropped` names the attributes that the token did not take.

    `encrypted` tells whether the file was: without that nobody asks for a passphrase.
    """

    uri: str
    unwrapped: bool
    encrypted: bool
    dropped: tuple[str, ...] = ()


def import_key(devices: Devices, choice: DeviceChoice, file: KeyFile, wanted: ImportWanted) -> ImportedKey:
    """Write the key pair onto the token that `choice` leaves, have it sign once, and say where it is.

    Raises UsageError for a file that holds no private key which can be used, or for the wrong passphrase; KeyFault
    where the label or the id is there already, PolicyError where a key in the way is protected;
    CannotUnwrapError where the key would have to be handed over in the clear and that is not allowed; what a login
    raises. The token is as it was then.
    """
    soft, encrypted = _read(devices, file)
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    module.log_in(slot, devices.login(choice))
    imported = _Work(devices, choice, module=module, slot=slot, soft=soft, wanted=wanted).done()
    return ImportedKey(
        uri=imported.private.uri(slot.needed_id),
        unwrapped=imported.unwrapped,
        encrypted=encrypted,
        dropped=imported.dropped,
    )


def _read(devices: Devices, file: KeyFile) -> tuple[SoftKey, bool]:
    asked = []

    def ask() -> Secret:
        asked.append(file.name)
        question = f"passphrase of '{file.name}'"
        if file.passphrase is not None and file.passphrase.kind == "none":
            raise UsageError("the private key is encrypted, and the passphrase source is none", hint=_SOURCES)
        if file.passphrase is not None:
            return devices.secret(file.passphrase, purpose="passphrase", question=question).secret
        try:
            return devices.secret(PROMPT, purpose="passphrase", question=question).secret
        except LoginError:
            raise UsageError(
                "the private key is encrypted, and nobody can be asked for its passphrase", hint=_SOURCES
            ) from None

    try:
        return read_private(file.data, ask), bool(asked)
    except UsageError as error:
        raise UsageError(f"'{file.name}': {error.message}", hint=error.hint) from None


class _Work:
    """One import, in a process that is logged in."""

    def __init__(
        self,
        devices: Devices,
        choice: DeviceChoice,
        *,
        module: Module,
        slot: Slot,
        soft: SoftKey,
        wanted: ImportWanted,
    ) -> None:
        assert slot.token is not None  # noqa: S101 - find_token returns no other
        self._devices, self._module, self._slot, self._soft, self._wanted = devices, module, slot, soft, wanted
        self._token = slot.token
        # What a key table demands of its key is not asked of the signature that comes before anybody has the key.
        self._choice = msgspec.structs.replace(choice, rules=KeyRules())
        self._mechanisms = frozenset(module.mechanisms(slot))
        self._session: Any = module.session(slot, write=True)
        self._id = wanted.id or self._usual_id()
        self._algs = self._algorithms()
        self._new = NewObjects(wanted.label, self._id, self._allowed())

    def done(self) -> Imported:
        self._refuse_whole()
        with self._module.alone():  # or of two that start together both would find the label free
            public, imported = self._put()
        try:
            self_test(self._devices, self._choice, self._uri(imported.private), self._algs[0].name)
        except HsmjwtError as error:
            raise removed((imported.private.handle, public.handle), error, self._wanted.label) from None
        return imported

    def _put(self) -> tuple[KeyObject, Imported]:
        public = self._unless_taken()
        self._devices.around.deadline.enter("the token, which takes the key")
        if public is None:
            public = put_public(self._session, self._token, self._new, self._soft.public_key)
        try:
            imported = put_private(
                self._session, self._token, self._new, self._soft, self._mechanisms, plain=self._wanted.plain
            )
        except HsmjwtError as error:
            raise removed([public.handle], error, self._wanted.label) from None
        self._devices.around.deadline.enter("the token")
        return public, imported

    def _usual_id(self) -> bytes:
        """Return the id by the public key; where the key is there under another label, one that depends on ours, too.

        Two pairs with one id would have each other's halves.
        """
        usual = key_identifier(self._soft.public_key)
        twins = [
            key
            for key in self._everything()
            if key.id == usual and key.label != self._wanted.label and self._holds(key)
        ]
        if not twins:
            return usual
        self._devices.around.warn(f"warning: this very key is on the token already: {self._uri(twins[0])}")
        return hashlib.sha256(key_bits(self._soft.public_key) + self._wanted.label.encode()).digest()[:20]

    def _algorithms(self) -> list[Algorithm]:
        """Return what the key is to sign by: as asked for, else as its key table says, else its type's usual one."""
        settings, key = self._devices.settings, self._soft.public_key
        tables = tables_for(settings, self._module, self._slot, self._wanted.label, self._id)
        names = bound_algs(settings, tables, self._wanted.alg, self._choice.rules)
        algs = [ALGORITHMS[name] for name in names] or [by_default(key)]
        for alg in algs:
            reason = misfit(alg, key)
            if reason is not None:
                raise KeyUnfitError(reason, hint="--alg names another one; nothing was changed")
        return algs

    def _allowed(self) -> tuple[str, ...]:
        """Return the mechanisms that the key is to allow, one an algorithm: hash on the token where it offers that."""
        return tuple(dict.fromkeys(best_mechanism(alg.name, self._mechanisms) for alg in self._algs))

    def _refuse_whole(self) -> None:
        """Raise KeyFault where both halves of this very pair are there, and say whether they sign."""
        private, public = self._ours(self._everything())
        if not (private and public):
            return
        self._refuse_protected(private)
        uri = self._uri(private[0])
        try:
            self_test(self._devices, self._choice, uri, self._algs[0].name)
        except (KeyFault, DeviceError) as error:
            raise KeyFault(
                f"this very key is on the token already, and does not sign ({error.message}): {uri}",
                hint=f"if an interrupted import has left it, hsmjwt key delete '{uri}' takes it off",
            ) from None
        raise KeyFault(f"this very key is on the token already: {uri}", hint="nothing was changed")

    def _unless_taken(self) -> KeyObject | None:
        """Return the public half that an interrupted import of this key has left; None where there is nothing.

        Raises KeyFault where the label or the id is taken.
        """
        every = self._everything()
        private, public = self._ours(every)
        named = [key for key in every if key.label == self._wanted.label or key.id == self._id]
        if not private and len(public) == 1 and named == public:
            self._devices.around.warn(f"taking up what an interrupted import has left: {self._uri(public[0])}")
            return public[0]
        if named:
            self._refuse_protected(named)
            first = min(named, key=lambda key: key.kind)
            raise KeyFault(f"there is a key with this label or id already: {self._uri(first)}", hint=_TAKEN)
        return None

    def _ours(self, every: list[KeyObject]) -> tuple[list[KeyObject], list[KeyObject]]:
        """Return the private and the public objects with label and id of this import, if that is the public half."""
        alike = [key for key in every if (key.label, key.id) == (self._wanted.label, self._id)]
        public = [key for key in alike if key.kind == "public" and self._holds(key)]
        return ([key for key in alike if key.kind == "private"], public) if public else ([], [])

    def _holds(self, key: KeyObject) -> bool:
        try:
            known: PublicKey = key.public_key()
        except KeyUnfitError:  # no type of ours, or a half that tells no numbers
            return False
        return known == self._soft.public_key

    def _refuse_protected(self, keys: list[KeyObject]) -> None:
        for key in keys:
            tables = tables_for(self._devices.settings, self._module, self._slot, key.label, key.id)
            refuse_protected(tables, self._uri(key), "written over")

    def _everything(self) -> list[KeyObject]:
        return [key for kind in _KINDS for key in search(self._session, KeyUri(type=kind), self._token)]

    def _uri(self, key: KeyObject) -> str:
        return key.uri(self._slot.needed_id)
