"""`hsmjwt key import`: a key that was made elsewhere, onto the token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Flag, Place, Shared, Word, command
from hsmjwt.cli.key_naming import named_key
from hsmjwt.cli.run import Run
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.secret import SecretSource, parse_source

if TYPE_CHECKING:
    from hsmjwt.compose.devices import DeviceChoice
    from hsmjwt.custody.importing import ImportedKey, ImportWanted

_LARGEST = 1024 * 1024  # bytes of a key's file
_LONGEST_PATH = 512  # characters; the base64 of a key on P-256 has two hundred, of an RSA key a thousand and more
_IMPORT = """Put a private key from a file onto the token, and print its URI.

Takes PEM and DER: PKCS#8, PKCS#1, SEC1 and OpenSSH's format, encrypted ones too, and the JSON of a Google service
account. The token unwraps the key as sensitive and not extractable; where it cannot, --allow-plain-import hands it over
in the clear. Copies of the file stay where they are: a key is safer that was born on the token (key generate).

\b
Examples:
  hsmjwt key import app.pem --key 'pkcs11:token=prod' --label github-app --remove-file
  hsmjwt key import AuthKey.p8 --key 'pkcs11:token=prod' --label apple --passphrase-source prompt
"""
_FROM_VARIABLE = "out of a variable: printenv NAME | hsmjwt key import - …; what stands on a command line, others see"
_NOT_BORN = "the key was not born on the device: copies may exist elsewhere, in backups and wherever its file has been"
_VOUCHES = "overwriting vouches for no medium: journals, snapshots, backups and flash may still hold it"


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that say what the key is to be, and what becomes of its file."""

    label: Annotated[str | None, Flag("--label", metavar="TEXT", help="The key's label on the token.")] = None
    key_id: Annotated[str | None, Flag("--id", metavar="HEX", help="The key's id (from its public key).")] = None
    alg: Annotated[
        str | None,
        Flag("--alg", metavar="ALG", help="What it signs by (the type's usual one).", completes="algorithms"),
    ] = None
    passphrase_source: Annotated[
        str | None,
        Flag("--passphrase-source", metavar="SPEC", help="Where the file's passphrase is, as with --pin-source."),
    ] = None
    allow_plain_import: Annotated[
        bool, Flag("--allow-plain-import", help="Hand the key over in the clear if the token cannot unwrap it.")
    ] = False
    remove_file: Annotated[
        bool, Flag("--remove-file", help="Overwrite and remove the file once the key has signed.")
    ] = False


@command(_IMPORT, "path", flags=Import, device=Place, shared=Shared)
def import_key(
    run: Run,
    *,
    path: Annotated[str, Word("FILE|-", "The key's file, or - for stdin.")],
    flags: Import,
    device: Place,
    shared: Shared,
) -> None:
    """Import a key."""
    from hsmjwt.custody import importing, keyfile

    run.limit(shared.timeout)
    if "\n" in path or "PRIVATE KEY" in path or len(path) > _LONGEST_PATH:
        raise UsageError("FILE is to be the name of a file, and this looks like the key itself", hint=_FROM_VARIABLE)
    passphrase = _passphrase(flags.passphrase_source)
    if flags.remove_file and path == "-":
        raise UsageError("--remove-file names no file: the key comes from stdin", hint="leave one of them out")
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, needed=False)
    wanted = _wanted(flags, choice)
    if flags.remove_file:
        keyfile.check_removable(path)
    name = "stdin" if path == "-" else path
    data = run.read(path, _LARGEST, what=f"'{name}'", hint="a private key belongs there, as PEM or DER")
    warning = None if path == "-" else keyfile.read_by_others(path)
    if warning is not None:
        run.console.warn(warning)
    file = importing.KeyFile(name=name, data=data, passphrase=passphrase)
    opened = devices.open_with(run, settings, device)
    imported = run.wait(lambda: importing.import_key(opened, choice, file, wanted))
    _tell(run, imported, named=passphrase is not None)
    if flags.remove_file:
        try:
            keyfile.remove(path, data)
        except ConfigError as error:
            raise ConfigError(
                f"the key is on the token as {imported.uri}, and {error.message}", hint=error.hint
            ) from None
        run.console.warn(f"'{path}' was overwritten and removed; {_VOUCHES}")
    if shared.json:
        run.console.result_json(
            {
                "uri": imported.uri,
                "born_on_device": False,
                "unwrapped": imported.unwrapped,
                "dropped": list(imported.dropped),
                "file_removed": flags.remove_file,
            }
        )
    else:
        run.console.result(imported.uri)


def _passphrase(spec: str | None) -> SecretSource | None:
    if spec is None:
        return None
    try:
        return parse_source(spec)
    except UsageError as error:
        raise UsageError(f"--passphrase-source: {error.message}", hint=error.hint) from None


def _wanted(flags: Import, choice: DeviceChoice) -> ImportWanted:
    """Return what the key is to be; raises what `named_key` raises."""
    from hsmjwt.custody.importing import ImportWanted

    new = named_key(choice.uri, flags.label, flags.key_id, flags.alg)
    return ImportWanted(label=new.label, id=new.id, alg=flags.alg, plain=flags.allow_plain_import)


def _tell(run: Run, imported: ImportedKey, *, named: bool) -> None:
    """Say what the new key is not."""
    run.console.warn(_NOT_BORN)
    if not imported.unwrapped:
        run.console.warn("the token could not unwrap it: it was handed over in the clear, inside this process")
    if imported.dropped:
        text = f"the token did not take {', '.join(imported.dropped)}: the key is there without"
        run.console.warn(text)
    if named and not imported.encrypted:
        run.console.warn("warning: the file is not encrypted, so that nothing was read from --passphrase-source")
