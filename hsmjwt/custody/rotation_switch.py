"""What a rotation changes in the config: the values of the key table that belong to the key, and a profile's kid."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hsmjwt import config_edit
from hsmjwt.config import KeyTable, Settings
from hsmjwt.custody import rotation_files
from hsmjwt.custody.rotation_state import State
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.hsm.uri import display, parse
from hsmjwt.keyrules import SELECTS
from hsmjwt.oauth.profile import Profile
from hsmjwt.profile_text import quoted
from hsmjwt.toml_lines import KeyPath
from hsmjwt.toml_tables import dotted


class Switch:
    """The switch of one key table, which a profile asks for and all profiles of the table share."""

    def __init__(self, settings: Settings, table: KeyTable) -> None:
        """Keep what the config says before it."""
        self._settings, self._table = settings, table

    def is_made(self, state: State) -> bool:
        """Tell whether the config names the new key already, in whatever words."""
        if state.new is None:
            return False
        named, new = parse(self._table.uri), parse(state.new.uri)
        says = [name for name in SELECTS if name != "type" and getattr(named, name) is not None]
        of_object = "object" in says or "id" in says
        return of_object and all(getattr(named, name) == getattr(new, name) for name in says)

    def after(self, profile: Profile, state: State) -> Profile:
        """Return a profile of the table as it will be after the switch."""
        of_key = ("keys", self._table.name)
        rules = {key[-1]: value for key, value in self._changes(state).items() if key[:2] == of_key}
        uri = parse(rules.pop("uri"))
        header = dict(profile.header)
        if "kid" in header:
            header["kid"] = self._new_kid(profile.name or "", header["kid"], state)
        return msgspec.structs.replace(
            profile, key_uri=uri, rules=msgspec.structs.replace(profile.rules, **rules), header=header
        )

    def make(self, state: State, deadline: Deadline, check: Callable[[Settings], None]) -> None:
        """Write it into the config, as far as nobody has done so; raises ConfigError that says what is to be written.

        `check` is asked about the config just before, see `config_edit.edit`. Whoever has written the URI of the new
        key in words of their own keeps them.
        """
        changes = self._changes(state)
        if self.is_made(state):
            del changes["keys", self._table.name, "uri"]
        changes = {key: value for key, value in changes.items() if self._value(key) != value}
        if not changes:
            return
        try:
            config_edit.edit(self._settings.path or "", changes, deadline, check)
        except ConfigError as error:
            lines = "; ".join(f"{dotted(key)} = {quoted(display(value))}" for key, value in changes.items())
            raise ConfigError(
                f"{error.message}; the provider takes the new key, and the switch is yours to make",
                hint=f"let the config say {lines}; then run it again",
            ) from None

    def _changes(self, state: State) -> dict[KeyPath, str]:
        """Return the values that the config is to have."""
        assert state.new is not None  # noqa: S101 - nothing is switched to a key that is not made
        path = ("keys", self._table.name)
        _, mark, query = self._table.uri.partition("?")  # how to reach the token: it is the same one
        changes: dict[KeyPath, str] = {(*path, "uri"): state.new.uri + mark + query}
        for name, value in (
            ("thumbprint", state.new.thumbprint),
            ("certificate", rotation_files.certificate_path(state.out, state.new.thumbprint)),
            ("public_key", rotation_files.public_path(state.out, state.new.thumbprint)),
        ):
            if getattr(self._table, name) is not None:
                changes[*path, name] = value
        for each in self._settings.profiles.values():
            if each.key != self._table.name:
                continue
            if each.kid is not None:
                changes["profiles", each.name, "kid"] = self._new_kid(each.name, each.kid, state)
            elif "kid" in each.headers:
                kid = self._new_kid(each.name, each.headers["kid"], state)
                changes["profiles", each.name, "headers", "kid"] = kid
        return changes

    def _new_kid(self, name: str, kid: str, state: State) -> str:
        """Return what stands for a profile's kid after the switch."""
        assert state.new is not None  # noqa: S101 - see above
        if kid in (state.old.thumbprint, state.new.thumbprint):
            return state.new.thumbprint
        if state.kid is None or kid not in (state.old.jwk.get("kid"), state.kid):
            raise UsageError(
                f"the profile {name!r} sends the kid {kid!r}, which names the old key",
                hint=f"upload what the provider wants of the files in '{state.out}'; then "
                "--kid TEXT says what the provider calls the new key",
            )
        return state.kid

    def _value(self, key: KeyPath) -> object:
        """Return what the config says at a place that `_changes` names."""
        if key[0] == "keys":
            return getattr(self._table, key[-1])
        profile = self._settings.profiles[key[1]]
        return profile.headers.get("kid") if "headers" in key[2:] else profile.kid
