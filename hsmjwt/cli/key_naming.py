"""What a key that comes onto a token is called: by flags, or by the URI that says which token it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hsmjwt.errors import UsageError

if TYPE_CHECKING:
    from hsmjwt.hsm.keygen import NewKey
    from hsmjwt.hsm.uri import KeyUri


def named_key(  # noqa: PLR0917 - the flags of both commands, in their order
    uri: KeyUri,
    label: str | None,
    key_id: str | None,
    alg: str | None,
    kind: str | None = None,
    listed: Sequence[str] = (),
) -> NewKey:
    """Put flags and URI together; see `parse_new_key`.

    Raises UsageError where they contradict each other, where neither says a label, and for what no token can hold.
    """
    from hsmjwt.hsm.keygen import parse_new_key

    name = label if label is not None else uri.object
    if name is None:
        raise UsageError("the new key has no label", hint="--label TEXT, or object=… in the URI")
    if uri.object not in (None, name):
        raise UsageError("--label and the URI's object differ", hint="leave one of them out")
    new = parse_new_key(kind, name, key_id, alg, listed)
    if uri.id is None:
        return new
    if new.id not in (None, uri.id):
        raise UsageError("--id and the URI's id differ", hint="leave one of them out")
    return msgspec.structs.replace(new, id=uri.id)
