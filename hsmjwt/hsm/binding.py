"""Imports python-pkcs11 with asn1crypto put off: its five utility modules load on first use.

They cost 14 of 44 ms at every start and a signature never touches them. Everything in hsm/ takes python-pkcs11 from
here, so that it is loaded this way whoever comes first.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_PUT_OFF = frozenset(f"pkcs11.util.{name}" for name in ("dh", "dsa", "ec", "rsa", "x509"))


class _Later:
    """Finds the five modules where the usual finder does, and has them executed on first use.

    Not a subclass of importlib.abc.MetaPathFinder: that import alone costs more than it would save.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _PUT_OFF:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


_finder = _Later()
sys.meta_path.insert(0, _finder)
try:
    import pkcs11
    import pkcs11._pkcs11
finally:
    sys.meta_path.remove(_finder)

__all__ = ["pkcs11"]
