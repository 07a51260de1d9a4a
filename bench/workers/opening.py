"""Opens a key by hsmjwt's own pieces, the way access.open_key does, with the parts of it in sight."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from hsmjwt.compose.devices import Devices, Surroundings, choice_of
from hsmjwt.config import Settings
from hsmjwt.deadline import Deadline
from hsmjwt.hsm.module import Login, Module
from hsmjwt.hsm.signer import Pkcs11Signer
from hsmjwt.hsm.slots import Slot
from hsmjwt.oauth.profile import SigningFlags, resolve


class Opened(NamedTuple):
    """A module with a key that is ready to sign; nothing verifies its signatures yet."""

    module: Module
    slot: Slot
    login: Login
    signer: Pkcs11Signer

    @property
    def session(self) -> Any:
        """Return the session that is logged in."""
        return self.module.login(self.slot, self.login)


def silent(_text: str) -> None:
    """Tell nobody."""


def open_key(module_path: str, token: str, pin_file: str, key: str, alg: str) -> Opened:
    """Load, log in and find the key."""
    around = Surroundings(environ=os.environ, deadline=Deadline(None), warn=silent, note=silent, prompt=None)
    uri = f"pkcs11:token={token};object={key}"
    flags = SigningFlags(key=uri, module=module_path, pin_source=f"file:{pin_file}", alg=alg, iss="bench", aud=("a",))
    profile = resolve(Settings(), flags, None, os.environ, exchanging=False)
    choice = choice_of(profile)
    devices = Devices(Settings(), around)
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    login = devices.login(choice)
    return Opened(module, slot, login, Pkcs11Signer(module, slot, choice.uri, login, silent))
