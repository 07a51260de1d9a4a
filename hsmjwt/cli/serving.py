"""From a Profile to an access token: what `token`, `header` and `exec` share, and the note for the next call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hsmjwt import __version__
from hsmjwt.bearer import AccessToken
from hsmjwt.cli import quick
from hsmjwt.cli.flags import Claims, Device, Exchange, Shared
from hsmjwt.cli.run import Run
from hsmjwt.compose import access
from hsmjwt.compose.devices import Devices
from hsmjwt.config import Settings
from hsmjwt.errors import UsageError
from hsmjwt.hsm.uri import display
from hsmjwt.oauth.broker import Served
from hsmjwt.oauth.profile import Profile
from hsmjwt.secret import SecretSource, parse_source


class Flags(NamedTuple):
    """The flags of a command that hands out access tokens."""

    claims: Claims
    exchange: Exchange
    device: Device
    shared: Shared

    @property
    def given(self) -> bool:
        """Tell whether there is any."""
        return self != Flags(Claims(), Exchange(), Device(), Shared())


def served(run: Run, opened: Devices, profile: Profile, *, flags: Flags, words: list[str] | None) -> Served:
    """Return the profile's access token, from the cache or the server.

    The profile comes from the settings in `opened`. `words` are those of a call that has no flags but `flags`: without
    any, the shortest road may answer it next time; see cli/quick.py.
    """
    warns_again = access.warn_of_retirement(profile, opened.around)
    store = access.token_store(opened.settings, opened.around, cached=not flags.exchange.no_cache)
    broker = access.token_broker(opened, profile, store)
    got = run.wait(lambda: broker.token(fresh=flags.exchange.fresh))
    name = None if words is None or flags.given else quick.note_name(words)
    if name is None or run.console.has_warned or not quick.fits(got.token.value):
        return got
    known_by = _fingerprint(opened.settings, profile, words or [])
    if known_by is not None:
        access.leave_note(store, broker.key, got.token, name, _note(known_by, profile, got.token, warns_again))
    return got


def removed(profile: Profile) -> list[str]:
    """Return the variables that the profile's secrets come from, which a command must not see."""
    return [source.target for source in _sources(profile) if source.kind == "env"]


def descriptors(profile: Profile) -> list[int]:
    """Return the descriptors that the profile's secrets come from, likewise."""
    return [int(source.target) for source in _sources(profile) if source.kind == "fd"]


def label(profile: Profile) -> str:
    """Return the profile's name as HSMJWT_EXEC holds it: blanks and what is not ASCII as percent-encoded UTF-8."""
    name = (profile.name or "").encode()
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte != 0x25 else f"%{byte:02X}" for byte in name)


def _sources(profile: Profile) -> list[SecretSource]:
    return [source for source in (profile.pin_source, profile.client_secret) if source is not None]


def _fingerprint(settings: Settings, profile: Profile, words: list[str]) -> str | None:
    """Return what a note is known by; None where none may be left.

    The config must be the very one that was read, and no variable that the note repeats may hold a secret.
    """
    if descriptors(profile) or _tells_a_secret(os.environ):
        return None
    try:
        path = quick.config_path(os.environ)
        same = path is not None and quick.identity(os.stat(path)) == settings.identity
        return quick.fingerprint(os.environ, words, __version__) if same else None
    except OSError:
        return None


def _tells_a_secret(environ: Mapping[str, str]) -> bool:
    """Tell whether a variable may hold a PIN: in a URI, among a command's arguments, or where a source belongs."""
    values = [environ.get(name, "") for name in quick.TOLD]
    if any(display(value) != value for value in values):
        return True
    source = environ.get("HSMJWT_PIN_SOURCE", "")
    try:
        return source != "" and parse_source(source).noted != source
    except UsageError:  # nobody reads it where the key's own source comes first
        return True


def _note(
    known_by: str, profile: Profile, token: AccessToken, warns_again: float | None
) -> Callable[[str, os.stat_result], str]:
    until, end = token.serve_until(profile.min_ttl) or 0.0, token.expires_at or 0.0
    life = (token.fetched_at, until if warns_again is None else min(until, warns_again), end)

    def text(file: str, status: os.stat_result) -> str:
        return quick.note_text(
            known_by=known_by,
            source=quick.source_line(file, status),
            life=life,
            label=label(profile),
            removes=removed(profile),
            token=token.value,
        )

    return text
