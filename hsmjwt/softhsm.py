"""A SoftHSM2 token in a folder, for tests and the demo: configuration, token store and PIN file in one place."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import MutableMapping

import msgspec

from hsmjwt.errors import ConfigError, TokenError
from hsmjwt.hsm import provision

_MARK = "made-by-hsmjwt"
_CONF = """\
# A SoftHSM2 token for tests, made by `hsmjwt softhsm init`. Nothing here protects a key: use it for tests only.
directories.tokendir = {tokens}
objectstore.backend = file
log.level = ERROR
slots.removable = false
"""
_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


class SoftToken(msgspec.Struct, frozen=True):
    """Where a token made by us lies: its folder, and in it configuration, PIN file and module."""

    folder: str
    module: str

    @property
    def conf(self) -> str:
        """Return the path for SOFTHSM2_CONF."""
        return os.path.join(self.folder, "softhsm2.conf")

    @property
    def pin_file(self) -> str:
        """Return the path of the file that holds the user's PIN."""
        return os.path.join(self.folder, "pin")

    def variables(self) -> dict[str, str]:
        """Return the environment that makes hsmjwt use this token; names the PIN's file, never the PIN."""
        return {
            "SOFTHSM2_CONF": self.conf,
            "HSMJWT_MODULE": self.module,
            "HSMJWT_PIN_SOURCE": f"file:{self.pin_file}",
        }


def find_module() -> str:
    """Return where SoftHSM2's module lies; raises TokenError with the command that installs it."""
    for path in _PLACES:
        if os.path.isfile(path):
            return path
    raise TokenError("SoftHSM2 is not installed", hint="on Debian: apt-get install softhsm2")


def create(folder: str, label: str, environ: MutableMapping[str, str], module: str | None = None) -> SoftToken:
    """Make a token with a random PIN in `folder`, which must be absent or empty, and point SOFTHSM2_CONF to it.

    SoftHSM reads the variable when it is initialised, so this works once in a process. Raises ConfigError where the
    folder is in use or cannot be written.
    """
    folder = os.path.abspath(folder)
    token = SoftToken(folder, module or find_module())
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.listdir(folder):
            raise ConfigError(
                f"the folder '{folder}' is not empty", hint="hsmjwt softhsm remove, or another folder with --dir"
            )
        os.mkdir(os.path.join(folder, "tokens"), mode=0o700)
        pin, so_pin = _digits(), _digits()
        _write(token.conf, _CONF.format(tokens=os.path.join(folder, "tokens")))
        _write(token.pin_file, pin)
        _write(os.path.join(folder, "so-pin"), so_pin)
        _write(os.path.join(folder, _MARK), label + "\n")
    except OSError as error:
        raise ConfigError(
            f"the folder '{folder}' cannot be written: {error.strerror}", hint="--dir names another"
        ) from None
    environ["SOFTHSM2_CONF"] = token.conf
    provision.init_token(os.path.realpath(token.module), label, pin, so_pin)
    return token


def read(folder: str) -> SoftToken:
    """Return the token that `create` made in `folder`; raises ConfigError where there is none."""
    folder = os.path.abspath(folder)
    if not os.path.isfile(os.path.join(folder, _MARK)):
        raise ConfigError(f"'{folder}' holds no token made by hsmjwt", hint="hsmjwt softhsm init makes one")
    return SoftToken(folder, find_module())


def remove(folder: str) -> None:
    """Remove what `create` made; raises ConfigError for any other folder, so that no real token is lost."""
    token = read(folder)
    try:
        shutil.rmtree(token.folder)
    except OSError as error:
        raise ConfigError(f"the folder '{folder}' cannot be removed: {error.strerror}") from None


def _digits() -> str:
    return "".join(secrets.choice("0123456789") for _ in range(12))


def _write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
