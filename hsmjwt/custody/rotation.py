"""Rotation of a profile's key: the next key is made, published, tried at the provider, and only then put into use.

Each step is done when the state file says so, and can be done again: a process that is killed between the two loses
nothing. The old key counts until the config names the new one, and is published until the grace is over. It is the
rotation of a key table: the profile names that one, and each other profile of the table changes its key with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hsmjwt import config
from hsmjwt.compose import access
from hsmjwt.compose.devices import DeviceChoice, Devices, choice_of, open_signer, state_folder
from hsmjwt.compose.halves import tables_for
from hsmjwt.config import KeyTable, Settings
from hsmjwt.custody import certificates, rotation_files, rotation_names, rotation_old
from hsmjwt.custody.deleting import Doomed, delete_key
from hsmjwt.custody.dependents import refuse_protected
from hsmjwt.custody.generating import generate_key
from hsmjwt.custody.keys import found
from hsmjwt.custody.proof import self_test
from hsmjwt.custody.publishing import public_jwk
from hsmjwt.custody.rotation_state import KeyMark, State, StateFile, Step, moment, unix_time
from hsmjwt.custody.rotation_switch import Switch
from hsmjwt.errors import BusyError, ConfigError, KeyUnfitError, ServerError, UsageError
from hsmjwt.guard.policy import bound_to
from hsmjwt.hsm.keygen import KINDS, NewKey, parse_new_key
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri, display, parse
from hsmjwt.jose.algorithms import ALGORITHMS, by_default, preferred
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import PublicKey
from hsmjwt.keyrules import KeyRules
from hsmjwt.oauth.profile import Profile, SigningFlags, resolve

GRACE: Final = 86400.0  # seconds; servers keep a JWK set for a day at most, as a rule


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asks for; None where it is left to what the state says, or to us.

    `to` is a key that is there already, `kid` what the provider calls the new key. With `finish` no other
    rotation begins, with `anew` one does though the last one's old key was not deleted.
    """

    grace: float | None = None
    to: DeviceChoice | None = None
    out: str | None = None
    kid: str | None = None
    finish: bool = False
    anew: bool = False


class Rotation:
    """The rotation of one profile's key, as far as it goes in one run."""

    def __init__(
        self, devices: Devices, flags: SigningFlags, profile: str, wish: Wish, clock: Callable[[], float] = time.time
    ) -> None:
        """Look up the profile; `flags` hold what every opening of a token takes. Raises what resolving it raises."""
        self._devices, self._flags, self._wish, self._clock = devices, flags, wish, clock
        self._settings: Settings = devices.settings
        self._environ, self._deadline = devices.around.environ, devices.around.deadline
        self._name = profile
        table = self._settings.profile(profile).key
        self.profile = self._resolved(profile)
        if table is None or self._settings.path is None:
            raise ConfigError(
                f"the profile {profile!r} names no key table, so there is nothing to switch",
                hint='[keys.NAME] with uri = "pkcs11:…", and key = "NAME" in the profile',
            )
        self._table: KeyTable = self._settings.keys[table]
        self._path = self._settings.path
        self._switch = Switch(self._settings, self._table)
        self.file = StateFile(state_folder(self._environ), self._path, table)

    def run(self) -> State:
        """Go on from where the last run ended, as far as it goes; return the state then.

        Raises PolicyError for a protected key, ServerError where the provider does not take the new one, ConfigError
        where the config cannot be written, and what token and server raise. Whatever is raised, the next run goes on.
        """
        with self.file.turn(self._deadline):
            self._refuse_changed()
            state = self.file.read()
            if self._wish.finish and (state is None or state.old_deleted):
                hint = "hsmjwt key list shows the keys that are there, and hsmjwt key delete deletes one"
                raise UsageError(f"no rotation of the profile {self._name!r} has left an old key to delete", hint=hint)
            state = self._planned(state) if state is None or self._is_over(state) else self._resumed(state)
            if state.step == "planned":
                state = self._made(state)
            if state.step == "made":
                state = self._published(state)
            if state.step == "published":
                state = self._accepted(state)
            if state.step == "accepted":
                state = self._switched(state)
            if state.step == "switched" and not state.grace_left(self._clock()):
                state = self._retired(state)
            return state

    def abandon(self) -> State:
        """Give up a rotation before the switch, or after somebody took that back; return the last state.

        The new key is taken out of what is published. Raises UsageError where there is nothing to give up, or where the
        config names the new key.
        """
        with self.file.turn(self._deadline):
            self._refuse_changed()
            state = self.file.read()
            if state is None or state.step == "retired" or self._switch.is_made(state):
                back = "the config names the new key; once the grace is over, --next --to OLD-KEY goes back"
                raise UsageError(
                    f"no rotation of the profile {self._name!r} is under way that could be given up",
                    hint=None if state is None or state.old_deleted else back,
                )
            if state.new is not None and rotation_files.is_published(state.out):
                rotation_files.put(state.out, [state.old.jwk], self._deadline, gone=state.new.jwk)
            self.file.remove()
            return state

    def doomed(self, state: State) -> Doomed | None:
        """Return the old key of a rotation that is over; see `rotation_old.doomed`."""
        return rotation_old.doomed(self._devices, self._choice_for(state.old.uri), state)

    def delete(self, state: State, doomed: Doomed | None) -> State:
        """Delete the old key with its certificates, and write down that it is gone."""
        with self.file.turn(self._deadline):
            if self.file.read() != state:
                raise BusyError("another hsmjwt has gone on with the rotation meanwhile", hint="run it again")
            if doomed is not None:
                delete_key(doomed, certificates=True)
            return self.file.write(msgspec.structs.replace(state, old_deleted=True))

    # What is there at the start.

    def _resolved(self, name: str, *, exchanging: bool | None = True) -> Profile:
        return resolve(self._settings, self._flags, name, self._environ, exchanging=exchanging)

    def _refuse_changed(self) -> None:
        """Raise BusyError where the config is not what it was before it was this process's turn."""
        self._refuse_other(config.load(self._path, self._environ))

    def _refuse_other(self, now: Settings) -> None:
        if now.keys.get(self._table.name) != self._table or now.profiles != self._settings.profiles:
            raise BusyError(f"config file {self._path!r} was changed meanwhile", hint="run it again")

    def _is_over(self, state: State) -> bool:
        """Tell whether the next rotation may begin; a run too many begins none as long as the old key is to delete."""
        if state.step != "retired" or self._wish.finish:
            return False
        return state.old_deleted or self._wish.anew or not self._switch.is_made(state)

    def _resumed(self, state: State) -> State:
        """Check that a rotation under way is the one that is meant, and heed what is asked for anew."""
        wish = self._wish
        is_switched = state.step in ("switched", "retired")
        is_old = not is_switched and display(self._table.uri) == state.written
        if not (is_old or state.step == "retired" or self._switch.is_made(state)):
            raise ConfigError(
                f"a rotation is under way, and [keys.{self._table.name}] names {self._unexpected(state)}",
                hint=f"--abandon gives it up; '{self.file.path}' says how far it has come",
            )
        if wish.out is not None and os.path.abspath(wish.out) != state.out:
            raise UsageError(f"--out: this rotation publishes in '{state.out}'", hint="leave --out away")
        if wish.to is not None and (
            state.new is None or open_signer(self._devices, wish.to, "self-test").uri != state.new.uri
        ):
            to = f"a new key, '{state.label}'" if state.new is None else state.new.uri
            then = "--next takes another key, once the grace is over" if is_switched else "--abandon gives this one up"
            raise UsageError(f"--to: this rotation is to {to}", hint=f"leave --to away; {then}")
        if not is_switched:
            refuse_protected([self._table], state.old.uri, "rotated")
        if state.step in ("published", "accepted") or (state.step == "switched" and state.grace_left(self._clock())):
            # whoever wrote the whole set meanwhile knew but one of the keys
            rotation_files.put(state.out, [state.old.jwk, _new(state).jwk], self._deadline)
        changes: dict[str, Any] = {}
        if wish.kid is not None:
            changes["kid"] = wish.kid
        if wish.grace is not None:
            changes["grace"] = wish.grace
            if state.step == "switched":
                changes["grace_ends"] = moment(unix_time(state.times["switched"]) + wish.grace)
        changed = msgspec.structs.replace(state, **changes)
        return state if changed == state else self.file.write(changed)

    @staticmethod
    def _unexpected(state: State) -> str:
        return (
            "not the new key, which it was switched to"
            if state.step == "switched"
            else "neither the old key nor the new one"
        )

    # The steps.

    def _planned(self, last: State | None) -> State:
        """Choose the next key, or the label that it is to have, and write that down before anything is made.

        What is published goes where it went at the `last` rotation, unless another folder is named.
        """
        profile, wish = self.profile, self._wish
        choice = choice_of(profile)
        opened = open_signer(self._devices, choice, "self-test")
        key, session, slot = there = found(self._devices, choice, "private")
        tables = tables_for(self._settings, self._devices.module(choice), slot, key.label, key.id)
        refuse_protected([*tables, self._table], opened.uri, "rotated")
        self._refuse_vague(opened.uri)
        for each in tables:
            if each.name != self._table.name:
                self._devices.around.warn(f"[keys.{each.name}] means the old key, too, and is not switched")
        public = opened.signer.public_key
        chain = certificates.certificate_of(self._devices, choice, there, public)
        alg = (preferred(profile.algs, opened.algs) or by_default(public)).name
        plan: dict[str, Any] = {}
        if wish.to is None:
            new = self._next_key(public, alg, key.label or self._table.name)
            label = rotation_names.free(new.label, lambda each: bool(search(session, KeyUri(object=each), key.token)))
            plan = {"label": label, "kind": new.kind.name}
        else:
            self._refuse_elsewhere(wish.to, slot)
            plan = {"new": self._mark(wish.to, alg)}
            if plan["new"].thumbprint == thumbprint(public):
                raise UsageError("--to names the key that is in use already", hint="name another one, or leave it away")
        state = State(
            config=os.path.realpath(self._path),
            profile=self._name,
            table=self._table.name,
            step="planned",
            times={"planned": moment(self._clock())},
            old=KeyMark(
                uri=opened.uri,
                thumbprint=thumbprint(public),
                jwk=self._jwk(public, alg, kid=profile.header.get("kid"), chain=chain),
            ),
            written=display(self._table.uri),
            alg=alg,
            kid=wish.kid,
            out=self._folder(last),
            grace=GRACE if wish.grace is None else wish.grace,
            **plan,
        )
        return self.file.write(state)

    def _next_key(self, public: PublicKey, alg: str, label: str) -> NewKey:
        """Return the next key: of the same type and for the same algorithm, labelled with the day."""
        kind = next((name for name, each in KINDS.items() if each.describes(public)), None)
        if kind is None:
            raise KeyUnfitError("no key of the old one's type and size is made any more", hint=_MAKE_ONE)
        day = moment(self._clock())[:10]
        return parse_new_key(kind, rotation_names.dated(label, day), None, alg)

    def _refuse_vague(self, uri: str) -> None:
        """Raise ConfigError where a second key on the token would make the config's URI fit both."""
        named = parse(self._table.uri)
        if named.object is None and named.id is None:
            raise ConfigError(
                f"the URI of [keys.{self._table.name}] names no key in particular, and would fit the next one as well",
                hint=f'write uri = "{uri}"',
            )

    def _folder(self, last: State | None) -> str:
        if self._wish.out is not None:
            return os.path.abspath(self._wish.out)
        return self.file.beside if last is None else last.out

    def _refuse_elsewhere(self, to: DeviceChoice, slot: Slot) -> None:
        """Raise UsageError for a key on another token, of which the table knows neither module nor PIN."""
        module = self._devices.module(to)
        if module is not self._devices.module(choice_of(self.profile)) or module.find_token(to.uri).token != slot.token:
            raise UsageError(
                f"--to names a key on another token than that of [keys.{self._table.name}]",
                hint="give it a key table of its own, with its pin_source, and name that one in the profile",
            )

    def _mark(self, choice: DeviceChoice, alg: str) -> KeyMark:
        """Return what a key on the token is, after a signature."""
        opened = open_signer(self._devices, choice, "self-test")
        public = self_test(self._devices, choice, opened.uri, alg)
        return KeyMark(uri=opened.uri, thumbprint=thumbprint(public), jwk=self._jwk(public, alg))

    def _made(self, state: State) -> State:
        """Make the key; where a run before this one has made it, that is the one."""
        if state.new is not None:
            return self._did(state, "made")
        assert state.label is not None and state.kind is not None  # noqa: S101, PT018 - the plan has one or the other
        new = parse_new_key(state.kind, state.label, None, state.alg)
        new = msgspec.structs.replace(new, also=self._algs(state.alg)[1:])
        old = choice_of(self.profile)
        token = msgspec.structs.replace(old.uri, object=None, id=None, type=None)
        self._say(f"makes the key '{state.label}'")
        made = generate_key(self._devices, msgspec.structs.replace(old, uri=token), new, if_absent=True)
        return self._did(state, "made", new=self._mark(self._choice_for(made.uri), state.alg))

    def _published(self, state: State) -> State:
        """Write the JWK set with both keys, the public key and its certificate."""
        new = _new(state)
        choice = self._choice_for(new.uri)
        public = open_signer(self._devices, choice, "self-test").signer.public_key
        there = found(self._devices, choice, "private")
        chain = certificates.certificate_of(self._devices, choice, there, public)
        own = rotation_files.certificate_there(state.out, public)
        if not chain:
            subject = rotation_names.subject(state.old.jwk, there.key.label or self._table.name)
            wanted = certificates.Wanted(subject=subject, alg=state.alg)
            chain = [own or certificates.self_signed(self._devices, choice, wanted)]
        jwk = self._jwk(public, state.alg, kid=state.kid, chain=chain if "x5c" in state.old.jwk else ())
        rotation_files.publish(state.out, [state.old.jwk, jwk], public, chain[0], self._deadline)
        return self._did(state, "published", new=msgspec.structs.replace(new, jwk=jwk))

    def _accepted(self, state: State) -> State:
        """Try the new key at the provider: a real exchange for each profile that the switch would change."""
        new = _new(state)
        opened = open_signer(self._devices, self._choice_for(new.uri), "self-test")
        if thumbprint(opened.signer.public_key) != new.thumbprint:
            raise KeyUnfitError(
                f"the key '{new.uri}' is not the one that was published", hint="--abandon gives the rotation up"
            )
        if state.kid is not None and new.jwk.get("kid") != state.kid:
            new = msgspec.structs.replace(new, jwk={**new.jwk, "kid": state.kid})
            rotation_files.put(state.out, [state.old.jwk, new.jwk], self._deadline)
            state = self.file.write(msgspec.structs.replace(state, new=new))
        for profile in self._users():
            trial = self._switch.after(profile, state)
            store = access.token_store(self._settings, self._devices.around, cached=False)
            self._say(f"tries the new key with the profile '{profile.name}'")
            try:
                access.token_broker(self._devices, trial, store).token(fresh=True)
            except ServerError as error:
                more = "" if error.hint is None else f"; {error.hint}"
                error.hint = (
                    f"the provider does not take the new key yet, and nothing was switched: upload what it wants of "
                    f"{', '.join(rotation_files.paths(state.out, new.thumbprint))}, then run it again{more}"
                )
                raise
        return self._did(state, "accepted")

    def _users(self) -> list[Profile]:
        """Return the profiles that the switch would change and that exchange something, this one first."""
        others = [
            self._resolved(each.name, exchanging=None)
            for each in self._settings.profiles.values()
            if each.key == self._table.name and each.name != self._name
        ]
        return [self.profile, *(each for each in others if each.token_url is not None)]

    def _switched(self, state: State) -> State:
        """Put the new key into the config, unless somebody has done that already."""
        self._switch.make(state, self._deadline, self._refuse_other)
        now = self._clock()
        return self._did(state, "switched", grace_ends=moment(now + state.grace))

    def _retired(self, state: State) -> State:
        """Publish the new key alone."""
        rotation_files.put(state.out, [_new(state).jwk], self._deadline, gone=state.old.jwk)
        return self._did(state, "retired")

    # What they share.

    def _algs(self, alg: str) -> tuple[str, ...]:
        """Return what both keys are to sign by: `alg`, and what else for such keys the table lists."""
        row = ALGORITHMS[alg]
        listed = map(ALGORITHMS.__getitem__, bound_to(self.profile.bounds))
        alike = (each.name for each in listed if (each.kty, each.crv) == (row.kty, row.crv))
        return tuple(dict.fromkeys((alg, *alike)))

    def _jwk(self, public: PublicKey, alg: str, **more: Any) -> dict[str, Any]:
        """Return a key as it is published: without alg where it signs by several, as `publish` does it."""
        return public_jwk(public, alg if len(self._algs(alg)) == 1 else None, **more)

    def _choice_for(self, uri: str) -> DeviceChoice:
        """Return how to reach a key by its URI, with no table that says anything of it."""
        return msgspec.structs.replace(choice_of(self.profile), uri=parse(uri), rules=KeyRules())

    def _did(self, state: State, step: Step, **changes: Any) -> State:
        self._say(step)
        return self.file.write(state.after(step, self._clock(), **changes))

    def _say(self, text: str) -> None:
        self._devices.around.note(f"rotation of '{self._name}': {text}")


_MAKE_ONE: Final = "make one with hsmjwt key generate, and name it with --to KEY"


def _new(state: State) -> KeyMark:
    assert state.new is not None  # noqa: S101 - every step after `made` has it
    return state.new
