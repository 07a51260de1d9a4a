"""`hsmjwt softhsm`: a SoftHSM2 token in a folder, for tests."""

from __future__ import annotations

import os
import shlex
from typing import Annotated, Any

from hsmjwt.cli.flags import Flag, Group, Plain, command
from hsmjwt.cli.run import Run
from hsmjwt.compose import soft

Dir = Annotated[str | None, Flag("--dir", metavar="DIR", help="The token's folder (./.softhsm).")]
Label = Annotated[str | None, Flag("--label", metavar="TEXT", help="The token's label (hsmjwt).")]

_FOLDER = ".softhsm"


_INIT = """Make a token with a random PIN, and print its folder.

\b
Examples:
  hsmjwt softhsm init
  hsmjwt softhsm init --dir /tmp/token --label ci
"""
_ENV = """Print the variables that make hsmjwt use the token.

They name the file that holds the PIN, never the PIN.

\b
Examples:
  eval "$(hsmjwt softhsm env)"
  hsmjwt softhsm env --dir /tmp/token
"""
_REMOVE = """Remove the token's folder, with all keys in it.

A folder that hsmjwt did not make is left alone, and so are other files in it.

\b
Examples:
  hsmjwt softhsm remove
  hsmjwt softhsm remove --dir /tmp/token
"""


@command(_INIT, shared=Plain)
def init(run: Run, *, dir: Dir = None, label: Label = None, shared: Plain) -> None:  # noqa: A002 - the flag's name
    """Make a token."""
    run.limit(shared.timeout)
    token = run.wait(lambda: soft.make_soft_token(dir or _FOLDER, label or "hsmjwt", os.environ))
    if shared.json:
        run.console.result_json({"dir": token.folder, **token.variables()})
    else:
        run.console.result(token.folder)
    run.console.note(f'next: eval "$(hsmjwt softhsm env --dir {shlex.quote(token.folder)})"')


@command(_ENV, shared=Plain)
def env(run: Run, *, dir: Dir = None, shared: Plain) -> None:  # noqa: A002
    """Print the token's variables."""
    run.limit(shared.timeout)
    variables: dict[str, Any] = soft.read_soft_token(dir or _FOLDER).variables()
    if shared.json:
        run.console.result_json(variables)
    else:
        run.console.result("\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items()))


@command(_REMOVE, shared=Plain)
def remove(run: Run, *, dir: Dir = None, shared: Plain) -> None:  # noqa: A002
    """Remove a token."""
    run.limit(shared.timeout)
    kept = soft.remove_soft_token(dir or _FOLDER)
    if kept is None:
        run.console.note(f"removed {dir or _FOLDER}")
    else:
        run.console.warn(f"warning: kept '{kept}': it holds other files")


VERBS = {
    "softhsm": Group("A SoftHSM2 token in a folder, for tests only.", {"init": init, "env": env, "remove": remove})
}
