"""Completion in the shells themselves: bash, zsh and fish at a terminal, with hands on the Tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "hsmjwt" / "cli" / "shells"
CONFIG = """
[keys.adobe]
uri = "pkcs11:token=t1;object=k1"
[profiles.adobe]
provider = "adobe-analytics"
[profiles."two words"]
[profiles."it's $(touch PWNED)"]
[profiles.'q"`touch PWNED`']
[profiles.'b\\ck']
[profiles."c:olon=x"]
[profiles."æ"]
"""
SHELLS = {  # how each is started, what prints its arguments for us, and what its user writes into its start-up file
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        """show() { printf '<%s' '<'; printf '[%s]' "$@"; printf '>>\\n'; }""",
        'eval "$(hsmjwt --show-completion bash)"',
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        """show() { printf '<%s' '<'; printf '[%s]' "$@"; printf '>>\\n'; }""",
        'bindkey -e; autoload -Uz compinit; compinit -u -D; eval "$(hsmjwt --show-completion zsh)"',
    ),
    "fish": (
        ["fish", "--no-config"],
        """function show; printf '<%s' '<'; printf '[%s]' $argv; printf '>>\\n'; end""",
        "hsmjwt --show-completion fish | source",
    ),
}
TAB, HOME, END = "\t", "\x01", "\x05"


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, shell: str, environ: dict[str, str], folder: Path, *first: str) -> None:
        command, show, setup = SHELLS[shell]
        self.out = b""
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environ)
        self.pid = pid
        for line in (show, *(first or (setup,))):
            os.write(self.fd, f"{line}\n".encode())
        assert self.words("ready") == ["ready"]

    def words(self, typed: str) -> list[str]:
        """Type a line, Tab and all; return the words that the shell would have run."""
        os.write(self.fd, f"{typed}{HOME}show {END}\n".encode())
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.out += os.read(self.fd, 65536)
                except OSError:
                    break
            if shown := re.search(rb"<<\[(.*?)\]>>", self.out, re.DOTALL):
                self.out = self.out[shown.end() :]
                return shown[1].decode().split("][")
        raise AssertionError(self.out)

    def close(self) -> None:
        os.close(self.fd)  # the shell gets SIGHUP
        os.waitpid(self.pid, 0)


@pytest.fixture
def environ(token, tmp_path):
    """The environment of a user who has hsmjwt on the PATH."""
    program = tmp_path / "bin" / "hsmjwt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hsmjwt "$@"\n')
    program.chmod(0o755)
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "data.bin").touch()
    given = token.environ()
    return given | {
        "PATH": f"{program.parent}:{given['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HSMJWT_CONFIG": str(tmp_path / "c.toml"),
        "TERM": "xterm",
    }


@pytest.fixture(params=SHELLS)
def terminal(request, environ, tmp_path):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    started = Terminal(request.param, environ, tmp_path)
    yield started
    started.close()


def test_tab_completes_what_was_begun(terminal, tmp_path):
    for typed, expected in {
        "hsmjwt tok\t": ["token"],
        "hsmjwt token ad\t": ["token", "adobe"],
        "hsmjwt token tw\t": ["token", "two words"],
        "hsmjwt token 'tw\t": ["token", "two words"],
        "hsmjwt token it\t": ["token", "it's $(touch PWNED)"],
        "hsmjwt token 'it\t": ["token", "it's $(touch PWNED)"],
        'hsmjwt token "it\t': ["token", "it's $(touch PWNED)"],
        "hsmjwt token q\t": ["token", 'q"`touch PWNED`'],
        "hsmjwt token 'q\t": ["token", 'q"`touch PWNED`'],
        "hsmjwt token b\t": ["token", "b\\ck"],
        "hsmjwt token c:o\t": ["token", "c:olon=x"],
        "hsmjwt token æ\t": ["token", "æ"],
        "hsmjwt token --output=en\t": ["token", "--output=env"],
        "hsmjwt token --output en\t adobe": ["token", "--output", "env", "adobe"],
        "hsmjwt token --ca-file da\t": ["token", "--ca-file", "data.bin"],
        "hsmjwt token --ca-file=da\t": ["token", "--ca-file=data.bin"],
        "hsmjwt sign --key k\t": ["sign", "--key", "keys.adobe"],
        "hsmjwt sign --key=k\t": ["sign", "--key=keys.adobe"],
        "hsmjwt sign --key=p\t": ["sign", "--key=pkcs11:token=t1;object=k1"],
        "hsmjwt key show p\t": ["key", "show", "pkcs11:token=t1;object=k1"],
        "hsmjwt key show 'p\t": ["key", "show", "pkcs11:token=t1;object=k1"],
        'hsmjwt key show "pkcs11:tok\t': ["key", "show", "pkcs11:token=t1;object=k1"],
        "hsmjwt key show pkcs11:token=t1\\;o\t": ["key", "show", "pkcs11:token=t1;object=k1"],
        "hsmjwt exec ad\t -- true": ["exec", "adobe", "--", "true"],
        "hsmjwt exec adobe -- hsmj\t": ["exec", "adobe", "--", "hsmjwt"],
        "hsmjwt exec adobe -- cat da\t": ["exec", "adobe", "--", "cat", "data.bin"],
    }.items():
        assert terminal.words(typed) == ["hsmjwt", *expected], typed
    assert not (tmp_path / "PWNED").exists()


def test_tab_offers_no_file_where_a_profile_belongs(terminal):
    assert terminal.words("hsmjwt token da\t") == ["hsmjwt", "token", "da"]


@pytest.mark.parametrize("shell", SHELLS)
def test_behind_the_hyphens_of_exec_the_command_completes_itself(environ, tmp_path, shell):
    more = "/usr/share/bash-completion/bash_completion"
    if shutil.which(shell) is None or (shell == "bash" and not os.path.exists(more)):
        pytest.skip(f"{shell} or its package bash-completion is not installed")
    first = [f". {more}"] if shell == "bash" else []
    terminal = Terminal(shell, environ, tmp_path, *first, SHELLS[shell][2])
    words = terminal.words("hsmjwt exec adobe -- hsmjwt token tw\t")
    assert words == ["hsmjwt", "exec", "adobe", "--", "hsmjwt", "token", "two words"]
    terminal.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_good_grammar(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", SCRIPTS / f"hsmjwt.{shell}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bash_completes_from_its_words_alone(environ, tmp_path):
    code = """
eval "$(hsmjwt --show-completion bash)"
complete -p hsmjwt
COMP_WORDS=(hsmjwt token ad) COMP_CWORD=2
_hsmjwt_completion hsmjwt ad token
declare -p COMPREPLY
"""
    done = subprocess.run(["bash", "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["complete -F _hsmjwt_completion hsmjwt", 'declare -a COMPREPLY=([0]="adobe")']
    assert done.stderr == ""


def test_fish_lists_values_with_their_meaning(environ, tmp_path):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    code = "hsmjwt --show-completion fish | source; complete -C 'hsmjwt token ad'; complete -C 'hsmjwt cache '"
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "adobe\tadobe-analytics" in done.stdout.splitlines()
    assert {line.partition("\t")[0] for line in done.stdout.splitlines()} == {"adobe", "list", "clear"}


def test_zsh_takes_the_script_from_its_folder_of_functions(environ, tmp_path):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "_hsmjwt").write_text((SCRIPTS / "hsmjwt.zsh").read_text())
    setup = f"bindkey -e; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D"
    terminal = Terminal("zsh", environ, tmp_path, setup)
    for typed in ("ad", "tw"):
        assert terminal.words(f"hsmjwt token {typed}\t")[2] in {"adobe", "two words"}
    terminal.close()
