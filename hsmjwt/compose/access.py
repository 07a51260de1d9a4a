"""From a profile to its assertions and access tokens: key, store, transport and broker."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hsmjwt import folders
from hsmjwt.compose.devices import Devices, Surroundings, choice_of, open_signer, state_folder
from hsmjwt.errors import HsmjwtError
from hsmjwt.private import open_file

if TYPE_CHECKING:
    from hsmjwt.bearer import AccessToken
    from hsmjwt.config import Settings
    from hsmjwt.jose.jws import OpenKey
    from hsmjwt.oauth.assertion import Asserter
    from hsmjwt.oauth.broker import TokenBroker, TokenStore
    from hsmjwt.oauth.exchange import Answer
    from hsmjwt.oauth.profile import Profile
    from hsmjwt.oauth.transport import Transport
    from hsmjwt.store.file import FileStore

_A_DAY = 86400  # seconds


def open_key(devices: Devices, profile: Profile) -> OpenKey:
    """Log in, find the profile's key and return it with a signer that makes assertions alone."""
    return open_signer(devices, choice_of(profile), "assertion", profile.alg)


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
