"""Taking a key off a token for good, once it is known who needs it and somebody has said yes."""

from __future__ import annotations

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.compose.halves import tables_for
from hsmjwt.custody.dependents import Dependents, dependents, refuse_protected
from hsmjwt.errors import HsmjwtError
from hsmjwt.hsm.deleting import Belongings, OnToken, belongings, destroy, refuse_lasting
from hsmjwt.hsm.slots import Slot


class Doomed(msgspec.Struct, frozen=True):
    """A key that may be deleted: what belongs to it on its token, and who needs it."""

    belongings: Belongings
    needed_by: Dependents
    slot: Slot

    @property
    def label(self) -> str:
        """Return the key's label for a person; bytes that are no UTF-8 show as replaced."""
        return (self.belongings.key.label or "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    @property
    def uri(self) -> str:
        """Return the key's URI."""
        return self.belongings.key.uri(self.slot.needed_id)

    @property
    def half(self) -> bool:
        """Tell whether only a public half is there."""
        return self.belongings.key.kind == "public"

    @property
    def certificates(self) -> tuple[str, ...]:
        """Return the URIs of the certificates beside the key."""
        return tuple(each.uri(self.slot.needed_id) for each in self.belongings.certificates)


def doomed_key(devices: Devices, choice: DeviceChoice) -> Doomed:
    """Find the one key that is chosen, with all that belongs to it; nothing is deleted.

    Raises KeyFault where it is not exactly one, PolicyError where its key table protects it, DeviceError where the
    token cannot be written or says that the key lasts; what a login raises.
    """
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    module.log_in(slot, devices.login(choice))
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    session = module.session(slot, write=True)
    found = belongings(session, choice.uri, slot.token, slot.needed_id)
    tables = {}
    for half in found.keys:
        for table in tables_for(devices.settings, module, slot, half.label, half.id):
            tables[table.name] = table
    refuse_protected(list(tables.values()), found.key.uri(slot.needed_id), "deleted")
    for half in found.keys:
        refuse_lasting(half, slot.needed_id)
    return Doomed(found, dependents(devices.settings, list(tables.values())), slot)


def delete_key(doomed: Doomed, *, certificates: bool) -> list[str]:
    """Delete the key, the private half first, and with `certificates` those beside it; return the URIs.

    A call that dies in between leaves what the next one for the same URI finds and deletes. Raises DeviceError where
    the token keeps something, and says what is gone by then.
    """
    gone: list[str] = []
    slot_id = doomed.slot.needed_id
    rest = doomed.belongings.certificates if certificates else ()
    every: tuple[OnToken, ...] = (*doomed.belongings.keys, *rest)
    for each in every:
        try:
            destroy(each, slot_id)
        except HsmjwtError as error:
            if not gone:
                raise
            hint = f"deleted by then: {', '.join(gone)}; run it again for the rest"
            raise type(error)(
                f"{error.message}; {each.uri(slot_id)} is still there", hint=hint, ckr=error.ckr
            ) from None
        gone.append(each.uri(slot_id))
    return gone
