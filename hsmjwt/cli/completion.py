"""What a shell offers for a word or a flag's value: nothing here fails, asks for a PIN or logs in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from hsmjwt import config
from hsmjwt.errors import HsmjwtError
from hsmjwt.oauth import provider


def offered(completes: str | tuple[str, ...], incomplete: str) -> list[str]:
    """Return the values that begin with what was typed; `completes` is a Flag's or a Word's."""
    values = completes if isinstance(completes, tuple) else _KINDS[completes]()
    return [value for value in values if value.startswith(incomplete)]


def _profiles() -> Sequence[str]:
    try:
        return sorted(config.load(None, os.environ).profiles)
    except HsmjwtError:
        return ()


def _providers() -> Sequence[str]:
    return provider.names()


def _keys() -> Sequence[str]:
    try:
        return [f"keys.{name}" for name in sorted(config.load(None, os.environ).keys)]
    except HsmjwtError:
        return ()


_KINDS: dict[str, Callable[[], Sequence[str]]] = {"profiles": _profiles, "providers": _providers, "keys": _keys}
