"""Which PKCS#11 module to load, and why: looks at files, loads none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

import msgspec

from hsmjwt.errors import ConfigError, TokenError

# What Debian, Fedora and Homebrew call them, after the proxy that serves all that p11-kit knows.
_NAMES = (
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


class Places(msgspec.Struct, frozen=True):
    """The folders that are searched: those of libraries, and those of p11-kit's module files."""

    libraries: tuple[str, ...]
    p11_kit: tuple[str, ...]


USUAL = Places(
    (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
        "/opt/homebrew/lib",
    ),
    ("/etc/pkcs11/modules", "/usr/share/p11-kit/modules"),
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
    places: Places = USUAL,
) -> ModuleChoice:
    """Choose the module.

    `named` is what a flag, a key table or HSMJWT_MODULE says and `named_by` which of them; then comes a URI's
    `module-path`, only where `allowed` (the config's `allowed_modules`) has it, its `module-name` among those that
    `places` have, and at last the first of these: p11-kit's proxy, if there is one. Raises ConfigError for a path that
    may not be loaded and TokenError where there is none.
    """
    if named is not None:
        return _choice(named, named_by)
    if uri_path is not None:
        real = os.path.realpath(uri_path)
        if real not in {os.path.realpath(path) for path in allowed}:
            raise ConfigError(
                f"the URI's module-path '{uri_path}' is not among the config's allowed_modules",
                hint=f"add it there, or name the module with --module '{uri_path}'",
            )
        return _choice(uri_path, "the URI's module-path, allowed by the config")
    if uri_name is not None:
        found = list(_installed(places))
        for path in found:
            if uri_name.lower() in _names(path):
                return _choice(path, f"the URI's module-name '{uri_name}'")
        raise TokenError(
            f"no module named '{uri_name}' was found", hint="found: " + (", ".join(found) or "none at all")
        )
    for path in _installed(places):
        proxy = os.path.basename(path).startswith("p11-kit-proxy")
        why = "p11-kit's proxy, which serves the modules it knows" if proxy else "the first that the usual places have"
        return _choice(path, why)
    raise TokenError(
        "no PKCS#11 module was found",
        hint="--module PATH or HSMJWT_MODULE names one; for SoftHSM2: apt-get install softhsm2",
    )


def _choice(path: str, why: str) -> ModuleChoice:
    """Refuse a path that another user could have placed: loading a module runs its code."""
    if any("\ud800" <= char <= "\udfff" for char in path) or "\0" in path:
        raise ConfigError(f"the module path {path!a} ({why}) is not UTF-8 text, or holds NUL")
    if not os.path.isabs(path):
        raise ConfigError(
            f"the module path '{path}' ({why}) is {'relative' if path else 'empty'}",
            hint=_written_whole(path) if path else None,
        )
    real = os.path.realpath(path)
    try:
        info = os.stat(real)
    except OSError as error:
        raise TokenError(
            f"module '{path}' ({why}) cannot be read: {(error.strerror or 'no reason given').lower()}",
            hint="--module names a PKCS#11 library",
        ) from None
    if not stat.S_ISREG(info.st_mode):
        raise TokenError(f"module '{path}' ({why}) is no regular file", hint="--module names a PKCS#11 library")
    if info.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"module '{path}' ({why}) belongs to user {info.st_uid}, neither to root nor to us",
            hint=f"chown root '{real}', or copy it",
        )
    if info.st_mode & 0o022:
        raise ConfigError(
            f"module '{path}' ({why}) can be written by others (mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod go-w '{real}'",
        )
    return ModuleChoice(path, real, why)


def _written_whole(path: str) -> str:
    try:
        return f"write it as '{os.path.abspath(path)}'"
    except OSError:  # the current folder was removed
        return "write the whole path"


def _installed(places: Places) -> Iterable[str]:
    """Yield the modules that are there: the usual places, then what p11-kit's own files name."""
    seen = set()
    candidates = [os.path.join(folder, name) for name in _NAMES for folder in places.libraries]
    for path in (*candidates, *_p11_kit_modules(places)):
        real = os.path.realpath(path)
        if real not in seen and os.path.isfile(real):
            seen.add(real)
            yield path


def _p11_kit_modules(places: Places) -> Iterable[str]:
    for folder in places.p11_kit:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            if name.endswith(".module"):
                yield from _module_of(os.path.join(folder, name), places)


def _module_of(file: str, places: Places) -> Iterable[str]:
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
            for folder in places.libraries:
                yield os.path.join(folder, "pkcs11", value)
                yield os.path.join(folder, value)


def _names(path: str) -> set[str]:
    """Return what a URI's `module-name` may call this file, in lower case.

    RFC 7512, section 2.4, wants the name without prefix and suffix, in any case; the file's own name is taken too.
    """
    base = os.path.basename(path).lower()
    stem = base.split(".so")[0].split(".dylib")[0]
    return {base, stem, stem.removeprefix("lib")}
