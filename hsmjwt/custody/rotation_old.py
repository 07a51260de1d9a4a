"""The old key of a rotation that is over: looked at once more before it goes."""

from __future__ import annotations

import contextlib

from hsmjwt.compose.devices import DeviceChoice, Devices, open_signer
from hsmjwt.custody.deleting import Doomed, doomed_key
from hsmjwt.custody.rotation_state import State
from hsmjwt.errors import ConfigError, KeyNotFoundError, KeyUnfitError
from hsmjwt.jose.jwk import thumbprint


def doomed(devices: Devices, choice: DeviceChoice, state: State) -> Doomed | None:
    """Return the old key, which `choice` reaches, with all that goes with it; None where it is gone already.

    Raises KeyUnfitError where another key is behind its URI now, ConfigError where the config still names it, and what
    `deleting.doomed_key` raises.
    """
    with contextlib.suppress(KeyNotFoundError):  # where a run that was killed has left the public half alone
        public = open_signer(devices, choice, "self-test").signer.public_key
        if thumbprint(public) != state.old.thumbprint:
            raise KeyUnfitError(f"the key '{state.old.uri}' is not the old one any more", hint="nothing was deleted")
    try:
        found = doomed_key(devices, choice)
    except KeyNotFoundError:
        return None
    if found.needed_by.tables:
        tables = ", ".join(f"[keys.{name}]" for name in found.needed_by.tables)
        raise ConfigError(
            f"the old key is still named by {tables} of the config: {found.uri}",
            hint=f"nothing was deleted; hsmjwt key delete '{found.uri}' deletes it all the same",
        )
    return found
