"""SoftHSM2 tokens for tests and the demo."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsmjwt.softhsm import SoftToken


def make_soft_token(folder: str, label: str, environ: MutableMapping[str, str]) -> SoftToken:
    """Make a SoftHSM2 token for tests; see hsmjwt.softhsm."""
    from hsmjwt import softhsm

    return softhsm.create(folder, label, environ)


def read_soft_token(folder: str) -> SoftToken:
    """Return a token that `make_soft_token` made."""
    from hsmjwt import softhsm

    return softhsm.read(folder)


def remove_soft_token(folder: str) -> str | None:
    """Remove a token that `make_soft_token` made; return its folder where that is kept for what else is in it."""
    from hsmjwt import softhsm

    return softhsm.remove(folder)
