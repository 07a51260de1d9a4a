"""Which PKCS#11 module to load, and why: looks at files, loads none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

import msgspec

from hsmjwt.errors import ConfigError, TokenError

_P11_KIT_FOLDERS = ("/etc/pkcs11/modules", "/usr/share/p11-kit/modules")
_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/opt/homebrew/lib",
)
# What Debian, Fedora and Homebrew call them, after the proxy that serves all that p11-kit knows.
_USUAL = (
    "p11-kit-proxy.so",
    "p11-kit-proxy.dylib",
    "pkcs11/p11-kit-proxy.so",
    "softhsm/libsofthsm2.so",
    "pkcs11/libsofthsm2.so",
    "libykcs11.so",
    "libykcs11.dylib",
    "opensc-pkcs11.so",
    "pkcs11/opensc-pkcs11.so",
    "libtpm2_pkcs11.so",
    "libtpm2_pkcs11.so.1",
)


class ModuleChoice(msgspec.Struct, frozen=True):
    """A module's file as it was named, its real path (the one to load and to lock), and why it was taken."""

    path: str
    real: str
    why: str


def find_module(
    named: str | None,
    named_by: str,
    *,
    uri_path: str | None = None,
    uri_name: str | None = None,
    allowed: Sequence[str] = (),
) -> ModuleChoice:
    """Choose the module.

    `named` is what a flag, a key table or HSMJWT_MODULE says and `named_by` which of them; then comes a URI's
    `module-path`, only where `allowed` (the config's `allowed_modules`) has it, its `module-name` among those found,
    and at last p11-kit's proxy and the usual places. Raises ConfigError for a path that may not be loaded and
    TokenError where there is none.
    """
    if named:
        return ModuleChoice(named, _checked(named, named_by), named_by)
    if uri_path:
        real = os.path.realpath(uri_path)
        if real not in {os.path.realpath(path) for path in allowed}:
            raise ConfigError(
                f"the URI's module-path '{uri_path}' is not among the config's allowed_modules",
                hint=f"add it there, or name the module with --module '{uri_path}'",
            )
        why = "the URI's module-path"
        return ModuleChoice(uri_path, _checked(uri_path, why), f"{why}, allowed by the config")
    found = list(_installed())
    if uri_name:
        for path in found:
            if uri_name in _names(path):
                why = "the URI's module-name"
                return ModuleChoice(path, _checked(path, why), f"{why} '{uri_name}'")
        raise TokenError(
            f"no module named '{uri_name}' was found", hint="found: " + (", ".join(found) or "none at all")
        )
    for path in found:
        if os.path.basename(path).startswith("p11-kit-proxy"):
            return ModuleChoice(path, _checked(path, "p11-kit"), "p11-kit's proxy, which serves the modules it knows")
    for path in found:
        return ModuleChoice(path, _checked(path, "the usual places"), "the first of the usual places that has one")
    raise TokenError(
        "no PKCS#11 module was found",
        hint="--module PATH or HSMJWT_MODULE names one; for SoftHSM2: apt-get install softhsm2",
    )


def _checked(path: str, named_by: str) -> str:
    """Refuse a path that another user could have placed; loading a module runs its code."""
    if any("\ud800" <= char <= "\udfff" for char in path) or "\0" in path:
        raise ConfigError(f"the module path from {named_by} is not UTF-8 text, or holds NUL: {path!a}")
    if not os.path.isabs(path):
        raise ConfigError(
            f"the module path '{path}' from {named_by} is relative", hint=f"write it as '{os.path.abspath(path)}'"
        )
    real = os.path.realpath(path)
    try:
        info = os.stat(real)
    except OSError as error:
        raise TokenError(
            f"module '{path}' from {named_by} cannot be read: {error.strerror}",
            hint="hsmjwt slot list without --module shows what is found",
        ) from None
    if not stat.S_ISREG(info.st_mode):
        raise TokenError(f"module '{path}' from {named_by} is no file")
    if info.st_uid not in (0, os.getuid()):
        raise ConfigError(
            f"module '{path}' belongs to user {info.st_uid}, and may run as us", hint="chown root it, or copy it"
        )
    if info.st_mode & 0o022:
        raise ConfigError(
            f"module '{path}' can be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod go-w '{real}'",
        )
    return real


def _installed() -> Iterable[str]:
    """Yield the modules that are there: the usual places, then what p11-kit's own files name."""
    seen = set()
    candidates = [os.path.join(folder, name) for name in _USUAL for folder in _LIBRARY_FOLDERS]
    for path in (*candidates, *_p11_kit_modules()):
        real = os.path.realpath(path)
        if real not in seen and os.path.isfile(real):
            seen.add(real)
            yield path


def _p11_kit_modules() -> Iterable[str]:
    for folder in _P11_KIT_FOLDERS:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            if name.endswith(".module"):
                yield from _module_of(os.path.join(folder, name))


def _module_of(file: str) -> Iterable[str]:
    """Yield where the library of a p11-kit module file lies (`module: PATH`, relative to p11-kit's own folder)."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            values = [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == "module"]
    except OSError:
        return
    for value in values:
        if os.path.isabs(value):
            yield value
        else:
            for folder in _LIBRARY_FOLDERS:
                yield os.path.join(folder, "pkcs11", value)
                yield os.path.join(folder, value)


def _names(path: str) -> set[str]:
    """Return what a URI's `module-name` may call this file (RFC 7512, section 2.3: without prefix and suffix too)."""
    base = os.path.basename(path)
    stem = base.split(".so")[0].split(".dylib")[0]
    return {base, stem, stem.removeprefix("lib")}
