"""A SoftHSM2 token in a folder, for tests and the demo: configuration, token store and PIN file in one place."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import MutableMapping

import msgspec

from hsmjwt import folders
from hsmjwt.errors import ConfigError, HsmjwtError, TokenError
from hsmjwt.hsm import discovery, provision
from hsmjwt.private import make_folder, open_file

_MARK = "made-by-hsmjwt"
_FILES = ("pin", "so-pin", "softhsm2.conf", _MARK)  # the mark last: what was begun can be ended by another try
_CONF = """\
# A SoftHSM2 token for tests, made by `hsmjwt softhsm init`. Nothing here protects a key: use it for tests only.
directories.tokendir = {tokens}
objectstore.backend = file
log.level = ERROR
slots.removable = false
"""


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
    try:
        return discovery.find_module(None, "nobody", uri_name="libsofthsm2.so").path
    except TokenError:
        raise TokenError("SoftHSM2 is not installed", hint="on Debian: apt-get install softhsm2") from None


def create(folder: str, label: str, environ: MutableMapping[str, str], module: str | None = None) -> SoftToken:
    """Make a token with a random PIN in `folder`, which must be absent or empty, and point SOFTHSM2_CONF to it.

    SoftHSM reads the variable when it is initialised, so this works once in a process. Nothing is left behind where it
    fails. Raises UsageError for a label that no token can have, ConfigError where the folder is in use, cannot be
    written or has a name that SoftHSM's configuration cannot hold, and what initialising a token raises.
    """
    provision.check_label(label)
    folder = _whole(folder)
    token = SoftToken(folder, module or find_module())
    # The configuration holds it on a line that SoftHSM cuts at the first of these, and trims.
    if not folder.isprintable() or folder != folder.strip() or "#" in folder or "=" in folder:
        raise ConfigError(f"SoftHSM's configuration cannot name the folder {folder!a}", hint="--dir names another")
    try:
        make_folder(folder)
        info = os.stat(folder)
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise ConfigError(
                f"the folder '{folder}' belongs to another user, or others may write in it", hint="--dir names another"
            )
        if os.listdir(folder):
            raise ConfigError(
                f"the folder '{folder}' is not empty", hint="hsmjwt softhsm remove, or another folder with --dir"
            )
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        pin, so_pin = _digits(), _digits()
        _write(os.path.join(folder, _MARK), label + "\n")
        make_folder(os.path.join(folder, "tokens"))
        _write(token.conf, _CONF.format(tokens=os.path.join(folder, "tokens")))
        _write(token.pin_file, pin)
        _write(os.path.join(folder, "so-pin"), so_pin)
        environ["SOFTHSM2_CONF"] = token.conf
        provision.init_token(os.path.realpath(token.module), label, pin, so_pin)
    except (OSError, HsmjwtError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _unwritable(folder, error) if isinstance(error, OSError) else error from None
    return token


def _unwritable(folder: str, error: OSError) -> ConfigError:
    return ConfigError(f"the folder '{folder}' cannot be written: {_reason(error)}", hint="--dir names another")


def read(folder: str) -> SoftToken:
    """Return the token that `create` made in `folder`; raises ConfigError where there is none."""
    folder = _whole(folder)
    _check_ours(folder)
    return SoftToken(folder, find_module())


def remove(folder: str) -> str | None:
    """Remove what `create` made, and the folder, a symbolic link followed, if nothing else is in it.

    Returns the folder where it is kept for what else is in it, else None. Raises ConfigError for a folder that `create`
    did not make, so that no real token is lost, and where something cannot be removed.
    """
    real = os.path.realpath(_whole(folder))
    _check_ours(real)
    try:
        for name in ("tokens", *_FILES):
            _remove(os.path.join(real, name))
        if os.listdir(real):
            return real
        os.rmdir(real)
    except OSError as error:
        raise ConfigError(
            f"the folder '{real}' cannot be removed: {_reason(error)}", hint="remove it by hand, or as its owner"
        ) from None
    return None


def _whole(folder: str) -> str:
    return folders.whole(folder, "the folder", "--dir")


def _check_ours(folder: str) -> None:
    if not os.path.isfile(os.path.join(folder, _MARK)):
        raise ConfigError(f"'{folder}' holds no token made by hsmjwt", hint="hsmjwt softhsm init makes one")


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()


def _digits() -> str:
    return "".join(secrets.choice("0123456789") for _ in range(12))


def _write(path: str, text: str) -> None:
    with open(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
        file.write(text)
