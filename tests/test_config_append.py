"""Text at the end of a config file: what was there stays to the byte, whoever else writes and however it ends."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from hsmjwt import config
from hsmjwt.config_append import extend, place
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError

NEW = '[profiles.new]\nissuer = "i"\n'
OLD = 'cache = "none"\n\n[profiles.old]\nissuer = "o"\n'


def add(path, text=NEW, seconds=10.0):
    seen = []

    def text_for(settings):
        seen.append(settings)
        return text

    extend(str(path), text_for, Deadline(seconds))
    return seen[-1]


def write(path, data=OLD, mode=0o600):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("old", "between"),
    [
        (OLD, b"\n"),
        (OLD.rstrip(), b"\n\n"),
        (OLD + "# a comment that no line end follows", b"\n\n"),
        (OLD + "\n\n", b"\n"),
        ("", b""),
        ("\ufeff", b""),
        ("\ufeff" + OLD, b"\n"),
        (OLD.replace("\n", "\r\n"), b"\r\n"),
        ("\ufeff" + OLD.replace("\n", "\r\n").rstrip(), b"\r\n\r\n"),
        ("# naïve\n[profiles.'ö']\nissuer = \"ü\"\n", b"\n"),
        ("profiles.old.issuer = 'o'\n", b"\n"),
        ("[profiles]\nold = { issuer = 'o' }\n", b"\n"),
    ],
)
def test_the_old_bytes_are_the_beginning_and_the_new_text_has_the_files_line_ends(tmp_path, old, between):
    path = write(tmp_path / "c.toml", old)
    before = config.parse(old.encode(), str(path))
    assert add(path).profiles == before.profiles
    ending = b"\r\n" if b"\r\n" in old.encode() else b"\n"
    assert path.read_bytes() == old.encode() + between + NEW.encode().replace(b"\n", ending)
    after = config.load(str(path), {})
    assert {name: after.profiles[name] for name in before.profiles} == before.profiles
    assert after.profiles["new"].issuer == "i"


@pytest.mark.parametrize(
    ("old", "why"),
    [
        ("profiles = { old = { issuer = 'o' } }\n", "takes no further tables at its end: "),
        ("[profiles.old\n", "not TOML"),
        ("x = '''\n", "not TOML"),
        ("cache = { a = 1,\n", "not TOML"),
        ("colour = 1\n", "unknown key 'colour'"),
        ("[profiles.old]\nissuer = 'o'\n[profiles.other]\nkye = 'k'\n", "unknown key 'kye'"),
        (b"\xff\xfe[\x00", "not UTF-8"),
        (OLD.replace("\n", "\r"), "not TOML"),
        ("[profiles.new]\n", "takes no further tables at its end: "),
    ],
)
def test_a_file_that_would_be_no_config_afterwards_is_left_as_it_is(tmp_path, old, why):
    path = write(tmp_path / "c.toml", old)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        add(path)
    assert why in caught.value.message
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.toml"]


def test_a_missing_file_is_made_for_us_alone_and_so_are_the_folders_that_were_missing(tmp_path):
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "there").chmod(0o755)
    path = tmp_path / "there" / "a" / "b" / "c.toml"
    mask = os.umask(0o277)
    try:
        add(path)
    finally:
        os.umask(mask)
    assert path.read_text() == NEW
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)]
    assert modes[0] == 0o600
    assert all(mode & 0o077 == 0 for mode in modes)
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o755


def test_folders_are_made_with_mode_0700(tmp_path):
    add(tmp_path / "a" / "b" / "c.toml")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def synced(work):
    """Return what is on the disk by name when the work is done: each path that went through fsync, in that order."""
    paths = []

    def watch(frame, event, function):
        if event == "c_call" and function is os.fsync:
            paths.append(os.readlink(f"/proc/self/fd/{frame.f_locals['fd']}"))

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return paths


def test_a_file_that_was_made_is_on_the_disk_with_its_name_and_its_folders(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "a" / "b" / "c.toml"
    folders = [str(path.parents[number]) for number in range(3)]
    assert synced(lambda: add(path)) == [str(path), *folders]
    assert synced(lambda: add(path, NEW.replace("new", "newer"))) == [str(path)]
    monkeypatch.chdir(tmp_path)
    for name, above in (("d.toml", ["."]), ("x/d.toml", ["x", "."]), ("y//z/d.toml", ["y/z", "y", "."])):
        assert synced(lambda name=name: add(name)) == [str(tmp_path / each) for each in (name, *above)]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o755])
def test_mode_owner_and_inode_of_the_file_stay(tmp_path, mode):
    path = write(tmp_path / "c.toml", mode=mode)
    if os.geteuid() == 0:
        os.chown(path, 0, 4321)
    before = path.stat()
    add(path)
    after = path.stat()
    for field in ("st_mode", "st_uid", "st_gid", "st_ino"):
        assert getattr(after, field) == getattr(before, field)


def test_a_symlink_stays_one_and_what_it_reaches_is_written_to(tmp_path):
    (tmp_path / "real").mkdir()
    real = write(tmp_path / "real" / "c.toml")
    link = tmp_path / "link.toml"
    link.symlink_to("real/c.toml")
    add(link)
    assert link.is_symlink()
    assert real.read_text() == f"{OLD}\n{NEW}"
    assert os.listdir(real.parent) == ["c.toml"]


def test_a_symlink_to_nothing_makes_no_file_at_its_other_end(tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "elsewhere.toml")
    with pytest.raises(ConfigError, match="is a symlink to nothing"):
        add(link)
    assert not (tmp_path / "elsewhere.toml").exists()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused_as_for_reading(tmp_path, mode):
    path = write(tmp_path / "c.toml", mode=mode)
    with pytest.raises(ConfigError, match=f"can be written by others \\(mode {mode:04o}\\)"):
        add(path)
    assert path.read_text() == OLD


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused_as_for_reading(tmp_path):
    path = write(tmp_path / "c.toml")
    os.chown(path, 4321, -1)
    with pytest.raises(ConfigError, match="belongs to user 4321"):
        add(path)
    assert path.read_text() == OLD


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "fifo", tmp_path / "folder", Path("/dev/full")):
        with pytest.raises(ConfigError):
            add(path)
    with pytest.raises(ConfigError, match="cannot be written: not a directory"):
        add(write(tmp_path / "file") / "c.toml")


def test_a_refusal_of_the_text_makes_no_file_and_no_folder(tmp_path):
    def refuse(_settings):
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        extend(str(tmp_path / "a" / "c.toml"), refuse, Deadline(5))
    assert os.listdir(tmp_path) == []


def test_a_file_that_would_be_too_long_to_be_read_is_not_made_longer(tmp_path):
    path = write(tmp_path / "c.toml", "#" * (config.LARGEST - 5) + "\n")
    with pytest.raises(ConfigError, match="would be longer than 16 MiB"):
        add(path)
    assert path.stat().st_size == config.LARGEST - 4


@pytest.mark.parametrize("old", [OLD, None])
def test_many_at_once_lose_nothing(tmp_path, old):
    path = tmp_path / "folder" / "c.toml"
    if old is not None:
        path.parent.mkdir()
        write(path, old)
    children = []
    for number in range(12):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for turn in range(5):
                    add(path, f'[profiles.p{number}-{turn}]\nissuer = "i"\n', seconds=30)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(children)
    profiles = set(config.load(str(path), {}).profiles)
    assert profiles - {"old"} == {f"p{number}-{turn}" for number in range(12) for turn in range(5)}
    assert path.read_text().startswith(old or "[profiles.")


def test_a_process_that_is_killed_leaves_a_config_with_all_that_was_there(tmp_path):
    path = write(tmp_path / "c.toml")
    chance = random.Random(7)
    filling = "x" * 9_000  # of several pages, so that there is something to be torn
    for turn in range(25):
        before = path.read_bytes()
        there = set(config.parse(before, "c").profiles)
        pid = os.fork()
        if pid == 0:
            number = 0
            while True:
                add(path, f'[profiles.p{turn}-{number}]\nissuer = "{filling}"\n', seconds=30)
                number += 1
        time.sleep(chance.uniform(0.005, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert path.read_bytes().startswith(before)
        names = [name for name in config.load(str(path), {}).profiles if name not in there]
        assert names == [f"p{turn}-{number}" for number in range(len(names))]
    assert len(config.load(str(path), {}).profiles) > 10


def test_the_lock_of_another_is_waited_for_until_the_deadline(tmp_path):
    path = write(tmp_path / "c.toml")
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another hsmjwt that writes the config file within"):
            add(path, seconds=0.2)
        assert path.read_text() == OLD
        threading.Timer(0.2, lambda: fcntl.flock(other, fcntl.LOCK_UN)).start()
        add(path)
    assert path.read_text() == f"{OLD}\n{NEW}"


def test_a_file_that_an_editor_puts_in_place_while_we_wait_is_the_one_that_is_written_to(tmp_path):
    path = write(tmp_path / "c.toml")
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def replace():
            os.replace(write(tmp_path / "edited", OLD + "# edited\n"), path)
            fcntl.flock(other, fcntl.LOCK_UN)

        threading.Timer(0.2, replace).start()
        add(path)
        assert Path(f"/proc/self/fd/{other.fileno()}").read_text() == OLD
    assert path.read_text() == f"{OLD}# edited\n\n{NEW}"


def test_a_file_that_is_replaced_under_our_hands_is_told_and_not_written_over(tmp_path):
    path = write(tmp_path / "c.toml")

    def text_for(_settings):
        os.replace(write(tmp_path / "edited", "# edited\n"), path)
        return NEW

    with pytest.raises(ConfigError, match="replaced by another program"):
        extend(str(path), text_for, Deadline(5))
    assert path.read_text() == "# edited\n"


def test_what_another_appends_in_between_is_kept(tmp_path):
    path = write(tmp_path / "c.toml")

    def text_for(_settings):
        with path.open("a") as other:
            other.write("# theirs\n")
        return NEW

    extend(str(path), text_for, Deadline(5))
    assert path.read_text() == f"{OLD}# theirs\n\n{NEW}"


class TestPlace:
    def test_a_flag_wins_over_the_variable_and_that_over_the_file_in_use(self, tmp_path):
        environ = {"XDG_CONFIG_HOME": str(tmp_path), "HSMJWT_CONFIG": "/v.toml"}
        assert place("/f.toml", environ) == "/f.toml"
        assert place(None, environ) == "/v.toml"
        environ.pop("HSMJWT_CONFIG")
        assert place(None, environ) == str(tmp_path / "hsmjwt" / "config.toml")

    def test_an_empty_variable_names_nothing(self, tmp_path):
        environ = {"HOME": str(tmp_path), "HSMJWT_CONFIG": ""}
        assert place(None, environ) == str(tmp_path / ".config" / "hsmjwt" / "config.toml")

    def test_a_file_in_use_that_cannot_be_read_is_no_reason_to_make_another(self, tmp_path):
        (tmp_path / "hsmjwt").mkdir()
        write(tmp_path / "hsmjwt" / "config.toml", "no TOML")
        with pytest.raises(ConfigError, match="not TOML"):
            place(None, {"XDG_CONFIG_HOME": str(tmp_path)})
