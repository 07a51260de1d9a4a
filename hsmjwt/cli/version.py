"""What `hsmjwt --version --json` tells: enough for a bug report, and nothing secret."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from typing import Any

from hsmjwt import __version__
from hsmjwt.errors import HsmjwtError
from hsmjwt.hsm.discovery import find_module

_DEPENDENCIES = ("typer", "python-pkcs11", "asn1crypto", "requests", "cryptography", "msgspec")


def about() -> dict[str, Any]:
    """Return the versions of hsmjwt, Python and the dependencies, and the module's path and SHA-256 (null if none)."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "dependencies": {name: importlib.metadata.version(name) for name in _DEPENDENCIES},
        "module": _module(),
    }


def _module() -> dict[str, str] | None:
    try:
        found = find_module(os.environ.get("HSMJWT_MODULE") or None, "HSMJWT_MODULE")
        with open(found.real, "rb") as file:
            return {"path": found.path, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except (HsmjwtError, OSError):
        return None
