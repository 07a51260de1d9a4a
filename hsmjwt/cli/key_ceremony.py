"""`hsmjwt key ceremony`: a key made by a reviewed file, before witnesses, with a signed transcript."""

from __future__ import annotations

from typing import Annotated, Any

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Access, Flag, Patient, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.errors import ConfigError, PolicyError, UsageError

_TIMEOUT = 300.0  # seconds: a card takes minutes for RSA-4096

_CEREMONY = """Make a key by a reviewed file, with a signed transcript.

The file names operator, witnesses and a folder, the key, a certificate or request, forms of the public key and a policy
for the audit. The transcript is signed by the new key, and hsmjwt verify checks it with the exported public key.

\b
Examples:
  hsmjwt key ceremony 2026-12-adobe.toml --check
  hsmjwt key ceremony 2026-12-adobe.toml --pin-source prompt
"""


@command(_CEREMONY, "file", access=Access, shared=Patient)
def ceremony(
    run: Run,
    *,
    file: Annotated[str | None, Word("FILE", "The ceremony file, in TOML.")] = None,
    check: Annotated[bool, Flag("--check", help="Say what would be done; nobody logs in.")] = False,
    access: Access,
    shared: Patient,
) -> None:
    """Hold a key ceremony."""
    from hsmjwt.custody import ceremony as custody
    from hsmjwt.custody import ceremony_file

    run.limit(shared.timeout, _TIMEOUT)
    if file is None:
        raise UsageError("no ceremony file is named", hint="hsmjwt key ceremony FILE.toml")
    settings = devices.load_settings(shared)
    try:
        data = run.read(
            file, ceremony_file.LARGEST + 1, what=f"ceremony file '{file}'", hint="a TOML file belongs there"
        )
    except UsageError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    wanted = ceremony_file.parse(data, file)
    device = access.device(str(wanted.token))
    choice = devices.choose(run, settings, device)
    opened = devices.open_with(run, settings, device)
    if check:
        planned = run.wait(lambda: custody.plan(opened, choice, wanted))
        if shared.json:
            run.console.result_json(planned)
        else:
            run.console.result("\n".join(map(one_line, _planned(planned))))
        return
    run.console.note(f"ceremony file {file}, SHA-256 {wanted.sha256}")
    done = run.wait(lambda: custody.perform(opened, choice, wanted))
    if done.failed:
        raise PolicyError(
            f"the new key does not pass the audit by {wanted.policy}: {'; '.join(done.failed)}",
            hint=f"the ceremony is complete, and its signed transcript is in '{wanted.out}'; "
            f"the key is kept as evidence until hsmjwt key delete '{done.key}'",
        )
    if shared.json:
        run.console.result_json(done.about)
    else:
        run.console.result("\n".join([done.key, *map(one_line, done.files)]))


def _planned(planned: dict[str, Any]) -> list[str]:
    lines = [
        f"ceremony file  {planned['ceremony']['file']} (SHA-256 {planned['ceremony']['sha256']})",
        f"operator       {planned['operator']}",
        f"witnesses      {', '.join(planned['witnesses'])}",
        f"token          {planned['token']['uri']}",
        f"folder         {planned['out']}",
    ]
    for number, step in enumerate(planned["steps"], 1):
        rest = {name: value for name, value in step.items() if name != "step" and value not in ([], None)}
        told = "; ".join(
            f"{name} {', '.join(value) if isinstance(value, list) else value}" for name, value in rest.items()
        )
        lines.append(f"{number}. {step['step']}: {told}")
    lines.append("nothing was done, and nobody has logged in; the label is free as far as that shows")
    return lines
