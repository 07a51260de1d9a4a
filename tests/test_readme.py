"""README.md against what it speaks of: help, exit codes, variables, configuration, messages, and the walk-through."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hsmjwt import config, errors, secret

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "hsmjwt").rglob("*.py")))
# Reads the header fields from stdin, as curl -H @- does: a fresh Debian has no curl.
CURL = """#!{python}
import sys, urllib.request
fields = dict(line.rstrip("\\n").split(": ", 1) for line in sys.stdin)
with urllib.request.urlopen(urllib.request.Request(sys.argv[-1], headers=fields)) as answer:
    sys.stdout.write(answer.read().decode())
"""
# What differs from run to run, and the same for all runs.
PASSING = (
    (r"serial=[0-9a-f]+", "serial=S"),
    (r"(%[0-9A-F]{2})+", "%"),
    (r"demo_[\w-]+", "demo_T"),
    (r"/\S+/(libsofthsm2\.so|\.softhsm)", r"/\1"),
    (r"\d+", "0"),
)


def section(title: str) -> str:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README)
    assert found, title
    return found[1]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"(?ms)^```{kind}\n(.*?)^```$", text)


def rows(text: str, head: str) -> list[list[str]]:
    """Return the cells of the table whose first head is `head`."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {head} |"):
            next(lines)
            break
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert found, head
    return found


def quoted(cells: list[str]) -> list[str]:
    """Return what stands between back-quotes."""
    return re.findall(r"`([^`]+)`", " ".join(cells))


def fields(struct: type, *but: str) -> set[str]:
    return set(struct.__struct_fields__) - set(but)


@pytest.fixture(scope="module")
def environ(tmp_path_factory) -> dict[str, str]:
    """The environment of somebody who has just installed hsmjwt, and nothing of this machine's user."""
    home = tmp_path_factory.mktemp("readme")
    (home / "bin").mkdir()
    runtime = home / "run"  # or the cache would be the user's own, in /run/user
    runtime.mkdir(mode=0o700)
    commands = {"hsmjwt": f'#!/bin/sh\nexec "{sys.executable}" -m hsmjwt "$@"\n'}
    if not shutil.which("curl"):
        commands["curl"] = CURL.format(python=sys.executable)
    for name, text in commands.items():
        (home / "bin" / name).write_text(text)
        (home / "bin" / name).chmod(0o755)
    return {
        "PATH": f"{home / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "LANG": "C.UTF-8",
    }


@pytest.fixture(scope="module")
def helps(environ) -> dict[str, str]:
    """What each command's --help prints, by the command as it is typed."""

    def ask(command: str) -> tuple[str, str]:
        done = subprocess.run(
            [*command.split(), "--help"],
            env=environ,
            executable=str(Path(environ["HOME"], "bin/hsmjwt")),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return command, done.stdout

    found: dict[str, str] = {}
    waiting = ["hsmjwt"]
    with ThreadPoolExecutor(4) as pool:
        while waiting:
            answers = dict(pool.map(ask, waiting))
            found |= answers
            waiting = [f"{command} {name}" for command, text in answers.items() for name in below(text)]
    return found


def below(text: str) -> list[str]:
    """Return the commands that a help text lists."""
    _, _, commands = text.partition("\nCommands:\n")
    return re.findall(r"(?m)^  ([a-z0-9-]+)", commands)


@pytest.mark.parametrize("command", ["hsmjwt", "hsmjwt token"])
def test_usage_blocks_are_what_help_prints(command, helps):
    (shown,) = [block for block in blocks(README, "console") if block.startswith(f"$ {command} --help\n")]
    assert shown.partition("\n")[2] == helps[command]


def test_the_table_of_commands_has_each_once(helps):
    listed = [quoted(row[:1])[0] for row in rows(section("Commands"), "command")]
    assert sorted(listed) == sorted(command for command, text in helps.items() if not below(text))


def test_every_flag_that_is_named_is_there(helps):
    of_others = re.compile(r"curl --[^\n]*|--require-hashes|--upgrade pip")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", of_others.sub("", README)))
    known = set(re.findall(r"--[a-z][a-z-]*", "\n".join(helps.values()))) | {"--version"}
    assert len(named) > 30
    assert named <= known


def test_the_table_of_exit_codes_is_that_of_the_errors():
    def classes(root: type[errors.HsmjwtError]) -> Iterator[type[errors.HsmjwtError]]:
        yield root
        for each in root.__subclasses__():
            yield from classes(each)

    ours = {each.exit_code: each.code for each in classes(errors.HsmjwtError) if each.__module__ == "hsmjwt.errors"}
    listed = [(int(row[0]), row[1]) for row in rows(section("Exit codes"), "code")]
    assert listed == sorted((ours | {0: "ok", 130: "interrupted"}).items())


def test_the_table_of_variables_has_those_that_are_read():
    listed = [name for row in rows(section("Environment"), "variable") for name in quoted(row[:1])]
    assert len(set(listed)) == len(listed)
    assert [name for name in listed if f'"{name}"' not in CODE] == []
    assert set(re.findall(r'"((?:HSMJWT|XDG)_[A-Z_]+)"', CODE)) <= set(listed)


def test_the_configuration_shown_is_read_and_its_keys_are_all_there_are():
    text = section("Configuration")
    (example,) = blocks(text, "toml")
    settings = config.parse(example.encode(), "README.md")
    assert settings.profile("reports").key == "adobe"
    named = [name for row in rows(text, "key") for name in quoted(row[:1])]
    assert sorted(named) == sorted(fields(config.ProfileTable, "name"))
    sentence = re.search(r"A key table has ([^.]*)\.", text)
    assert sentence
    assert set(quoted([sentence[1]])) == fields(config.KeyTable, "name")
    top = {"default_profile", "allowed_modules", "cache", "keys", "profiles"}
    assert top == fields(config.Settings, "path", "source", "searched", "identity", "broken")
    assert top <= set(re.findall(r"(?m)^\[?(\w+)", example))


def test_the_table_of_pin_sources_has_those_that_can_be_used():
    listed = [quoted(row[:1])[0] for row in rows(section("Where the PIN comes from"), "source")]
    assert {secret.parse_source(form.replace("fd:N", "fd:3")).kind for form in listed} == {
        "file",
        "credential",
        "command",
        "fd",
        "env",
        "prompt",
        "none",
    }
    with pytest.raises(errors.UsageError) as caught:
        secret.parse_source("unheard-of")
    assert caught.value.hint is not None
    assert [form for form in listed if form not in caught.value.hint] == []


def test_the_forms_of_output_are_all_listed(helps):
    listed = "|".join(quoted(row[:1])[0] for row in rows(section("Commands"), "form"))
    assert f"--output {listed}\n" in helps["hsmjwt token"]


def test_the_messages_to_look_for_are_those_that_are_printed():
    messages = re.findall(r"(?m)^- `([^`]+)`", section("Troubleshooting"))
    assert len(messages) > 15
    assert [message for message in messages if message not in CODE] == []


def test_nobody_is_told_to_put_an_access_token_into_a_command_line():
    assert not re.search(r"""-H\s+["']?\$\(""", README)


def test_the_profile_shown_is_what_init_writes(environ, tmp_path):
    shown = section("Profiles")
    config = tmp_path / "config.toml"
    script = f"hsmjwt {re.search(r'hsmjwt (profile init .+)', shown)[1]} --config '{config}'"
    subprocess.run(["bash", "-ec", script], env=environ, capture_output=True, check=True)
    block = re.search(r"(?ms)^    # Adobe.*?\n(?=^\S)", shown)[0]
    assert config.read_text() == "".join(line.removeprefix("    ") for line in block.rstrip().splitlines(True)) + "\n"


def masked(line: str) -> str:
    for pattern, text in PASSING:
        line = re.sub(pattern, text, line)
    return line


def test_the_walk_through_runs_as_printed(environ, tmp_path):
    text = section("Walk-through")
    script = tmp_path / "walk.sh"
    # Where a command fails before the one that ends the server.
    rescue = "trap 'kill $(jobs -p) 2>/dev/null || :' EXIT"
    script.write_text("\n".join(["set -euo pipefail", rescue, *blocks(text, "sh")]))
    folder = tmp_path / "empty"
    folder.mkdir()
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            ["bash", str(script)],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert code == 0, err.read_text()

    printed = out.read_text().splitlines()
    lines = {masked(line) for line in printed}
    samples = [line for block in blocks(text, "text") for line in block.splitlines()]
    assert len(samples) > 10
    assert [line for line in samples if masked(line) not in lines] == []

    whoami = json.loads(printed[-1])
    assert whoami["client_id"] == "TestClient"
    assert whoami["subject"].endswith("@AdobeOrg")
    assert not (folder / ".softhsm").exists()
    port = re.search(r"http://127\.0\.0\.1:(\d+)/token", out.read_text())
    assert port
    with contextlib.closing(socket.socket()) as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", int(port[1])))
