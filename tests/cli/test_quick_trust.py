"""What the quick road trusts: a note as we left it, in a folder of ours alone, by the rules of the longer road."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.roads import Configs, Home, counting, profile, spoil
from servers.scripted import Server

import hsmjwt
from hsmjwt import folders
from hsmjwt.cli import quick as quick_file

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
has_none = pytest.mark.skipif(
    os.path.isdir(f"/run/user/{os.geteuid()}"), reason="this user has a runtime folder of its own"
)


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    with Server(counting()) as server:
        yield Configs(tmp_path_factory.mktemp("configs"), plain=(profile("p", server.url()), 40))


@pytest.fixture
def home(token, configs):
    return Home(token, configs.take("plain"))


def replaced(text: str, place: int, new: str) -> str:
    lines = text.split("\n")
    return "\n".join([*lines[:place], new, *lines[place + 1 :]])


def as_link(note: Path) -> None:
    note.rename(note.with_name("kept"))
    note.symlink_to("kept")


def as_pipe(note: Path) -> None:
    note.unlink()
    os.mkfifo(note, 0o600)


def as_folder(note: Path) -> None:
    note.unlink()
    note.mkdir()


SPOILT = {
    "a link": as_link,
    "a pipe": as_pipe,
    "open to others": lambda note: note.chmod(0o644),
    "open to a group": lambda note: note.chmod(0o660),
    "setuid": lambda note: note.chmod(0o4600),
    "not ours": lambda note: os.chown(note, 54321, 54321),
    "empty": lambda note: spoil(note, ""),
    "cut within the token": lambda note: spoil(note, note.read_text()[:-3]),
    "cut before the last line end": lambda note: spoil(note, note.read_text()[:-1]),
    "cut at a line": lambda note: spoil(note, note.read_text().rpartition("\n")[0].rpartition("\n")[0] + "\n"),
    "with more behind it": lambda note: spoil(note, note.read_text() + "x"),
    "with a line more": lambda note: spoil(note, note.read_text() + "\n"),
    "too large": lambda note: spoil(note, note.read_text() + "x" * 70000),
    "not ASCII": lambda note: spoil(note, note.read_text().replace("AT-", "Ä-")),
    "not UTF-8": lambda note: note.write_bytes(b"\xff" + note.read_bytes()),
    "garbage": lambda note: note.write_bytes(os.urandom(500)),
    "nulls, as after a crash": lambda note: note.write_bytes(bytes(note.stat().st_size)),
    "of another config": lambda note: spoil(
        note, replaced(note.read_text(), 0, "('0.1.0', '/x', (1, 2, 3, 4, 5), [])")
    ),
    "of a file that is not there": lambda note: spoil(note, replaced(note.read_text(), 1, "0.json 1 2 3 4 5")),
    "of a folder": lambda note: spoil(note, replaced(note.read_text(), 1, ".. 1 2 3 4 5")),
    "of no file": lambda note: spoil(note, replaced(note.read_text(), 1, "")),
    "of no life": lambda note: spoil(note, replaced(note.read_text(), 2, "nan nan nan")),
    "of two times": lambda note: spoil(note, replaced(note.read_text(), 2, "0.0 9e9")),
    "of the future": lambda note: spoil(note, replaced(note.read_text(), 2, "9e9 9.1e9 9.2e9")),
    "expired": lambda note: spoil(note, replaced(note.read_text(), 2, "1.0 2.0 3.0")),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_note_that_is_not_as_we_left_it_is_not_served(home, how):
    if how == "not ours" and os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    value = home.warm("p")
    (note,) = home.notes()
    SPOILT[how](note)
    done = home("token", "p")
    assert (*done.said, done.road) == (0, f"{value}\n", "", "plain")
    assert home("token", "p").road == "quick"


def test_a_folder_in_the_place_of_a_note_costs_speed_alone(home):
    value = home.warm("p")
    as_folder(home.notes()[0])
    for _ in range(2):
        done = home("token", "p")
        assert (*done.said, done.road) == (0, f"{value}\n", "", "plain")
    assert home("cache", "clear").code == 0


@has_none
@pytest.mark.parametrize("whose", [pytest.param("another user's", marks=root_only), "open to others"])
def test_a_runtime_folder_that_is_not_ours_alone_is_left_alone(home, whose):
    old = home.warm("p")
    run = home.cache.parent
    before = sorted(path.name for path in home.cache.iterdir())
    if whose == "open to others":
        run.chmod(0o755)
    else:
        os.chown(run, 54321, 54321)
    done = home("token", "p")
    assert (done.code, done.road) == (0, "plain")
    assert done.out != f"{old}\n"
    assert sorted(path.name for path in home.cache.iterdir()) == before
    on_disk = [home("token", "p") for _ in range(2)]
    assert [each.road for each in on_disk] == ["plain", "quick"]
    assert on_disk[1].out == done.out


@pytest.mark.parametrize("how", ["open to others", "a link", pytest.param("another user's", marks=root_only)])
def test_a_cache_folder_that_is_not_ours_alone_serves_no_note(home, how):
    home.warm("p")
    if how == "a link":
        home.cache.rename(home.cache.with_name("elsewhere"))
        home.cache.symlink_to("elsewhere")
    elif how == "open to others":
        home.cache.chmod(0o750)
    else:
        os.chown(home.cache, 54321, 54321)
    for _ in range(2):
        done = home("token", "p")
        assert (done.code, done.road) == (0, "plain")
        assert ("cannot be used" in done.err) is (how != "a link")


AS_SOMEBODY_ELSE = """
import os, sys
import hsmjwt
from hsmjwt.cli import quick
uid = int(sys.argv[1])
os.setgroups([]), os.setgid(uid), os.setuid(uid)
print(quick.answer(["token", "p"], hsmjwt.__version__))
"""


@contextlib.contextmanager
def entered_by_all(path: Path) -> Iterator[None]:
    """Let everybody into the folders that lead there."""
    folders = [(folder, folder.stat().st_mode) for folder in path.parents if folder != Path("/")]
    for folder, mode in folders:
        folder.chmod(mode | 0o011)
    try:
        yield
    finally:
        for folder, mode in folders:
            folder.chmod(mode)


@root_only
def test_another_user_is_served_nothing_of_ours_even_where_the_folders_are_open(home):
    """With our environment, as after su."""
    value = home.warm("p")
    note, folder, run = home.notes()[0], home.cache, home.cache.parent
    environ = home.environ | {"PYTHONPATH": str(Path(hsmjwt.__file__).parents[1])}

    def served(uid: int) -> str:
        command = [sys.executable, "-c", AS_SOMEBODY_ELSE, str(uid)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    ours, nothing = f"{value}\n0\n", "None\n"
    with entered_by_all(run), entered_by_all(home.config):
        assert (served(0), served(54321)) == (ours, nothing)
        for path, mode in ((run, 0o755), (folder, 0o755), (note, 0o644)):
            path.chmod(mode)
        assert served(54321) == nothing
        for path, mode in ((run, 0o700), (folder, 0o700), (note, 0o600)):
            path.chmod(mode)
            os.chown(path, 54321, 54321)
        assert (served(0), served(54321)) == (nothing, ours)  # who has it all may be served it
        os.chown(note, 0, 0)
        assert (served(0), served(54321)) == (nothing, nothing)
        for path in (run, note):
            os.chown(path, 0, 0)
        assert (served(0), served(54321)) == (nothing, nothing)
        os.chown(folder, 0, 0)
        assert (served(0), served(54321)) == (ours, nothing)


# --- the places, by the rules that hsmjwt.folders has


@pytest.mark.parametrize("run", ["", "relative", "/nowhere", "{0}/run", "{0}/run/", "{0}/open", "{0}/file", None])
@pytest.mark.parametrize("cache", ["{0}/cache/", "relative", None])
@pytest.mark.parametrize("home_folder", ["{0}/home/", "relative", None])
def test_the_cache_folder_is_the_one_that_the_longer_road_uses(tmp_path, monkeypatch, run, cache, home_folder):
    for name in ("run/hsmjwt", "open/hsmjwt", "cache/hsmjwt", "home/.cache/hsmjwt"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name).chmod(0o700)
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "file").write_text("")
    for name, value in (("XDG_RUNTIME_DIR", run), ("XDG_CACHE_HOME", cache), ("HOME", home_folder)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value.format(tmp_path))
    choice = folders.cache_dir(os.environ, os.geteuid())
    try:
        found = quick_file._folder()
    except FileNotFoundError as missing:
        assert not Path(choice.path).exists()
        found = missing.filename
    known_by_the_database = found is None and "home" not in os.environ.get("HOME", "")
    assert known_by_the_database or os.path.normpath(found) == os.path.normpath(choice.path)


@pytest.mark.parametrize("own", ["a file", "a link to nothing", "a folder", "nothing", "below a file"])
@pytest.mark.parametrize("by", ["XDG_CONFIG_HOME", "HOME"])
def test_the_config_is_the_one_that_the_longer_road_reads(tmp_path, own, by):
    environ = {by: f"{tmp_path}/", **({"XDG_CONFIG_HOME": "relative"} if by == "HOME" else {"HOME": "/nowhere"})}
    path = tmp_path / (".config" if by == "HOME" else ".") / "hsmjwt" / "config.toml"
    path.parent.parent.mkdir(exist_ok=True)
    if own == "below a file":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
    if own == "a file":
        path.write_text("")
    elif own == "a link to nothing":
        path.symlink_to("nothing")
    elif own == "a folder":
        path.mkdir()
    places = folders.config_files(environ)
    expected = next((place for place in places if os.path.lexists(place)), None)
    found = quick_file.config_path(environ)
    assert (found and os.path.normpath(found)) == (expected and os.path.normpath(expected))
    assert quick_file.config_path({**environ, "HSMJWT_CONFIG": "x/y"}) == "x/y"


def test_without_a_home_in_the_environment_the_longer_road_looks_for_the_config():
    assert quick_file.config_path({}) is None
    assert quick_file.config_path({"HOME": ""}) is None
    assert quick_file.fingerprint({"HOME": "relative"}, [], "1") is None
