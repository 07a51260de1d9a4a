"""The set-up: pins, package, scripts, and what softhsm/ promises to a CI author."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = ("build", "runtime", "demo", "dev")
SCRIPTS = ("script/setup.sh", "script/demo", "script/test", "script/check", ".ci/run", "softhsm/install.sh")
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
# What this machine's user has set for hsmjwt or SoftHSM2 is no part of a test.
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("HSMJWT_", "SOFTHSM2_"))}


def pins(layer: str) -> dict[str, str]:
    """Return package -> version of a requirements file; every line of it must be understood, and every pin hashed."""
    text = (ROOT / "requirements" / f"{layer}.txt").read_text().replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            entry = re.fullmatch(r"([a-z0-9-]+)==(\S+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
            assert entry, line
            found[entry[1]] = entry[2]
    return found


def bash(code: str, *args: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", code, "bash", *args],
        cwd=cwd,
        env=ENVIRON | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def hsmjwt(*args: str, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hsmjwt", *args],
        cwd=cwd,
        env=ENVIRON | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(cwd / "state")} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def test_run_time_needs_six_packages_and_typer_has_no_upper_bound():
    needs = {Requirement(text).name: Requirement(text).specifier for text in PROJECT["project"]["dependencies"]}
    assert set(needs) == {"typer", "python-pkcs11", "asn1crypto", "requests", "cryptography", "msgspec"}
    assert "999" in needs["typer"]
    assert set(PROJECT["project"]["optional-dependencies"]) == {"demo"}


@pytest.mark.parametrize("layer", LAYERS)
def test_every_pin_has_hashes_and_no_file_names_an_index(layer):
    assert pins(layer)  # where an option would be no pin
    for ending in ("in", "txt"):
        assert "://" not in (ROOT / "requirements" / f"{layer}.{ending}").read_text()


def test_pins_lie_in_the_ranges_of_the_package():
    project, pinned = PROJECT["project"], pins("build") | pins("runtime") | pins("demo")
    ranges = [*PROJECT["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["demo"]]
    for need in map(Requirement, ranges):
        assert pinned[canonicalize_name(need.name)] in need.specifier, need
    assert pinned["typer"].startswith("0.28.")


def test_the_layers_pin_each_package_once():
    seen: dict[str, str] = {}
    for layer in LAYERS:
        for package, version in pins(layer).items():
            assert seen.setdefault(package, version) == version, f"{package} in {layer}.txt"


def test_this_environment_holds_what_its_packages_need():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_wheel_holds_modules_providers_and_the_type_marker(tmp_path):
    build = "import sys; from flit_core import buildapi; buildapi.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True)
    (file,) = tmp_path.glob("hsmjwt-*-py3-none-any.whl")
    with zipfile.ZipFile(file) as wheel:
        names = set(wheel.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "hsmjwt=hsmjwt.cli.main:entry" in wheel.read(entry_points).decode().replace(" ", "")
    wanted = {str(path.relative_to(ROOT)) for path in ROOT.glob("hsmjwt/**/*.py")}
    providers = {str(path.relative_to(ROOT)) for path in ROOT.glob("hsmjwt/providers/*.toml")}
    assert providers
    assert wanted | providers | {"hsmjwt/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script):
    assert bash('bash -n "$1"', script).stderr == ""


@pytest.mark.skipif(sys.prefix != str(ROOT / ".venv"), reason="runs in the environment that script/test made")
def test_set_up_changes_nothing_when_all_is_there(tmp_path):
    before = {path.name: path.stat().st_mtime_ns for path in (ROOT / ".venv").iterdir()}
    done = bash('set -eu; . "$1"; prepare demo; prepare dev', str(ROOT / "script/setup.sh"), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path.name: path.stat().st_mtime_ns for path in (ROOT / ".venv").iterdir()} == before


def test_set_up_refuses_a_python_that_is_too_old(tmp_path):
    old = tmp_path / "old python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13\nexit 1\n')
    old.chmod(0o755)
    done = bash("set -eu; . script/setup.sh; prepare demo; echo went on", PYTHON=str(old))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is Python 3.10.13; Python 3.11 or later is needed" in done.stderr


# Each row: what /etc/os-release says (ID, VERSION_ID, ID_LIKE), and the command for SoftHSM2 and Python's venv.
ELSEWHERE = (
    ("debian 13 ", "apt-get update && apt-get install -y --no-install-recommends softhsm2 python3-venv"),
    ("ubuntu 24.04 debian", "apt-get update && apt-get install -y --no-install-recommends softhsm2 python3-venv"),
    ("fedora 41 ", "dnf install -y softhsm"),
    ("rocky 9.3 rhel centos fedora", "dnf install -y softhsm"),
    ("alpine 3.20 ", "apk add softhsm"),
    ("arch none ", "pacman -S --needed softhsm"),
    ("opensuse-leap 15.6 suse opensuse", "zypper install softhsm"),
    ("macos none ", "brew install softhsm"),
)


@pytest.mark.parametrize(("system", "command"), ELSEWHERE)
def test_another_system_gets_one_command_and_no_installation(system, command):
    code = """. softhsm/install.sh
    system() { echo "$on_system"; }; id() { echo 0; }; apt_get() { echo installed; }
    install_packages softhsm2 python3-venv"""
    done = bash(code, on_system=system)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == [f"  {command}"]
    assert f"| `{command.removesuffix(' python3-venv')}` |" in (ROOT / "softhsm/README.md").read_text()


def test_an_unknown_system_is_told_what_is_absent():
    done = bash('. softhsm/install.sh; system() { echo "plan9 4 "; }; install_packages softhsm2')
    assert (done.returncode, done.stdout) == (1, "")
    assert "absent: softhsm2; install them in this system's own way" in done.stderr


def test_without_root_and_sudo_the_command_for_root_is_printed(tmp_path):
    code = """. softhsm/install.sh
    system() { echo "debian 12 "; }; id() { echo 1000; }; apt_get() { echo installed; }
    PATH=$1; install_packages softhsm2"""
    done = bash(code, str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    command = "apt-get update && apt-get install -y --no-install-recommends softhsm2"
    assert done.stderr.splitlines()[1:] == [f"  {command}"]


def test_with_sudo_it_is_said_before_it_runs(tmp_path):
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\n")
    sudo.chmod(0o755)
    code = """. softhsm/install.sh
    system() { echo "debian 12 "; }; id() { echo 1000; }; apt_get() { echo "ran $1" >&2; }
    PATH=$1:$PATH; install_packages softhsm2"""
    done = bash(code, str(tmp_path))
    assert done.returncode == 0
    assert [line.split("; ")[-1] for line in done.stderr.splitlines()] == [
        "installing with sudo apt-get, which may ask for your password",
        "ran install",
    ]


@pytest.mark.parametrize(("conf", "hashes"), [("softhsm2.conf", True), ("softhsm2-raw-rsa.conf", False)])
def test_the_softhsm_configurations_make_tokens_that_sign(tmp_path, conf, hashes):
    (tmp_path / "tokens").mkdir(mode=0o700)
    filled = tmp_path / "softhsm2.conf"
    filled.write_text((ROOT / "softhsm" / conf).read_text().replace("@TOKENS@", str(tmp_path / "tokens")))
    (tmp_path / "pin").touch(mode=0o600)
    (tmp_path / "pin").write_text("1234\n")
    environ = {
        "SOFTHSM2_CONF": str(filled),
        "HSMJWT_MODULE": next(path for path in MODULES if os.path.exists(path)),
        "HSMJWT_PIN_SOURCE": f"file:{tmp_path / 'pin'}",
    }
    made = "softhsm2-util --init-token --free --label raw --so-pin 12345678 --pin 1234"
    assert bash(made, cwd=tmp_path, SOFTHSM2_CONF=str(filled)).returncode == 0

    slots = json.loads(hsmjwt("slot", "list", "--json", cwd=tmp_path, **environ))
    (token,) = [slot["token"] for slot in slots if slot.get("token") and slot["token"]["label"] == "raw"]
    mechanisms = {name.removeprefix("CKM_") for name in token["mechanisms"]}
    assert "RSA_PKCS" in mechanisms
    assert ("SHA256_RSA_PKCS" in mechanisms) is hashes

    key = hsmjwt("key", "generate", "--key", "pkcs11:token=raw", "--label", "ci", cwd=tmp_path, **environ)
    jwt = hsmjwt("sign", "--key", key, "--iss", "ci", "--aud", "https://as.example", cwd=tmp_path, **environ)
    assert hsmjwt("verify", jwt, "--key", key, cwd=tmp_path, **environ)


def test_the_ci_script_of_the_softhsm_readme_works_as_printed(tmp_path):
    readme = (ROOT / "softhsm/README.md").read_text()
    (block,) = re.findall(r"(?m)(?:^    .*\n|^\n)+", readme[readme.index("token-test.sh") :])[:1]
    lines = [line.removeprefix("    ") for line in block.strip("\n").splitlines()]
    assert lines[0] == "#!/usr/bin/env bash"
    assert "curl" in lines[-1]
    if not shutil.which("curl"):
        lines.pop()
    command = tmp_path / "bin/hsmjwt"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hsmjwt "$@"\n')
    command.chmod(0o755)
    done = bash(
        "\n".join(lines),
        cwd=tmp_path,
        PATH=f"{command.parent}:{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        XDG_STATE_HOME=str(tmp_path / "state"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "access-token").read_text().strip()
    if shutil.which("curl"):
        assert json.loads(done.stdout.splitlines()[-1])["client_id"] == "ci"
