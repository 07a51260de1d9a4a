"""From flags to an open module: what the commands that look at tokens and keys share."""

from __future__ import annotations

import os

from hsmjwt import config
from hsmjwt.cli.flags import Device, Shared
from hsmjwt.cli.prompt import terminal_prompt
from hsmjwt.cli.run import Run
from hsmjwt.compose import forms
from hsmjwt.compose.devices import PROMPT, DeviceChoice, Devices, Surroundings
from hsmjwt.config import Settings
from hsmjwt.errors import UsageError
from hsmjwt.hsm.uri import KeyUri, display
from hsmjwt.jose.keys import PublicKey
from hsmjwt.keychoice import choose_key, named_uri

_LARGEST_KEY = 1024 * 1024  # bytes of a public key or certificate


def surroundings(run: Run) -> Surroundings:
    """Describe this process to what is composed."""
    return Surroundings(
        environ=os.environ,
        deadline=run.deadline,
        warn=run.console.warn,
        note=run.console.note,
        prompt=terminal_prompt(run.deadline),
    )


def open_with(run: Run, settings: Settings, device: Device | None = None) -> Devices:
    """Return what opens tokens for this run, with what the flags allow in a login."""
    around = surroundings(run)
    if device is None:
        return Devices(settings, around)
    return Devices(settings, around, allow_last_try=device.allow_last_try, retry_pin=device.retry_pin)


def load_settings(shared: Shared) -> Settings:
    """Read the configuration that the flags and the environment name."""
    config.refuse_agent(os.environ)
    return config.load(shared.config, os.environ)


def read_public(run: Run, path: str, *, certified: bool = False) -> PublicKey:
    """Read a public key from a file, a certificate if `certified`; raises UsageError where none can be read."""
    wanted = f"a {'certificate' if certified else 'public key or a certificate'} belongs there, as PEM or DER"
    data = run.read(path, _LARGEST_KEY, what=f"'{path}'", hint=wanted)
    try:
        return forms.load_public(data, certified=certified)
    except UsageError as error:
        raise UsageError(f"'{path}': {error.message}", hint=error.hint or wanted) from None


def read_certificates(run: Run, path: str) -> list[bytes]:
    """Read certificates, PEM or DER, from a file or with `-` from stdin; returns each as DER, in the file's order."""
    from hsmjwt.x509.certificate import read_chain

    name, wanted = f"'{display(path)}'", "certificates belong there, as PEM or DER"  # a URI, by a slip, may hold a PIN
    data = run.read(path, _LARGEST_KEY, what=name, hint=wanted)
    try:
        return read_chain(data)
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint or wanted) from None


def choose(
    run: Run,
    settings: Settings,
    device: Device,
    *,
    named: str | None = None,
    needed: bool = True,
    missing: str = "an argument names it: 'pkcs11:token=…;object=…', or keys.NAME of the config; HSMJWT_KEY does, too",
) -> DeviceChoice:
    """Turn flags, a key table and the environment into a choice of module, key and login.

    `named` is the command's own argument: a URI or `keys.NAME`. Where no key is named at all, `needed` decides between
    UsageError, whose hint is `missing`, and the URI that fits everything; without it HSMJWT_KEY does not count, since a
    listing is no use of a key.
    """
    if named is not None:
        if device.key is not None:
            raise UsageError("the key is given twice, as an argument and with --key", hint="leave one of them out")
        if not named.startswith("keys."):
            named_uri(settings, named)  # here, so that the message does not call it --key
    text = named if named is not None else device.key
    environ = dict(os.environ)
    if not needed:
        environ.pop("HSMJWT_KEY", None)
    chosen = choose_key(settings, environ, key=text, module=device.module, pin_source=device.pin_source)
    for warning in chosen.warnings:
        run.console.warn(f"warning: {warning}")
    if chosen.uri is None and needed:
        raise UsageError("no key is named", hint=missing)
    return DeviceChoice(
        uri=chosen.uri or KeyUri(),
        module=chosen.module,
        module_by=chosen.module_by,
        pin_source=chosen.pin_source or PROMPT,
        mounted=chosen.mounted,
        rules=chosen.rules,
    )
