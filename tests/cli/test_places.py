"""Homes that are not there, closed or full, and umasks that take too much or nothing, each for an ordinary user.

What logs in is refused where that cannot be noted, since else nothing would keep a wrong PIN from being sent twice; all
the rest goes on.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from cli.checks import refused, told
from cli.roads import SETTLED
from servers.granting import MARK, granted, write_config
from servers.scripted import Server

ROOT_ALONE = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be somebody else")
URI = "pkcs11:token=t1;object=k1"

LOGGING_IN = {
    "sign": ("sign", "p", "--aud", "a"),
    "token": ("token", "p"),
    "header": ("header", "p"),
    "exec": ("exec", "p", "--", "true"),
    "key list": ("key", "list"),
    "key generate": ("key", "generate", "--key", "pkcs11:token=t1", "--label", "new", "--type", "rsa:2048"),
}
OTHERS = {
    "dry run": ("token", "p", "--dry-run"),
    "inspect": ("inspect", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"),
    "slot list": ("slot", "list"),
    "key list": ("key", "list", "--pin-source", "none"),
    "key export": ("key", "export", URI),
    "cache list": ("cache", "list"),
    "cache clear": ("cache", "clear"),
    "profile list": ("profile", "list"),
    "profile show": ("profile", "show", "p"),
    "profile check": ("profile", "check", "p"),
    "provider list": ("provider", "list"),
    "softhsm init": ("softhsm", "init", "--dir", "soft"),
    "softhsm env": ("softhsm", "env", "--dir", "soft"),
    "softhsm remove": ("softhsm", "remove", "--dir", "soft"),
}


@pytest.fixture
def server():
    with Server(*(granted(f"{MARK}-{number}") for number in range(1, 9))) as started:
        yield started


@pytest.fixture
def at_home(person, server):
    """The user has a config with the profile `p`, and no runtime folder."""
    if os.path.isdir(f"/run/user/{person.uid}"):
        pytest.skip("this user has a runtime folder that the system made")
    config = write_config(person.folder, f'[profiles.p]\nissuer = "i"\ntoken_url = "{server.url()}"\n')
    person.give(Path(config))
    person.environ = {**person.environ, "HSMJWT_CONFIG": config}
    del person.environ["XDG_RUNTIME_DIR"]
    return person


def check_verbs(person, reason: str, *, steps=(), **environ: str | None) -> None:
    """See each verb end in the error that names the reason, or go on where it does without a login."""
    for name, args in LOGGING_IN.items():
        done = person(*args, steps=steps, **environ)
        refused(done, 3, hint="XDG_STATE_HOME")
        assert reason in done.err, (name, done)
    done = person(*LOGGING_IN["sign"], "--json", steps=steps, **environ)
    assert reason in told(done)["message"]
    for name, args in OTHERS.items():
        done = person(*args, steps=steps, **environ)
        if args[0] == "cache" and "not a directory" in reason:
            refused(done, 3, "the token cache", "cannot be used: not a directory")
            continue
        assert (done.code, done.err) == (0, ""), (name, done)
    done = person("doctor", "p", "--json", steps=steps, **environ)
    found = {row["check"]: row for row in json.loads(done.out)}
    assert (done.code, found["flags"]["ok"], found["login"]["ok"], found["key"]["ok"]) == (3, True, False, None)
    assert reason in found["login"]["detail"]
    assert "XDG_STATE_HOME" in found["login"]["hint"]


def check_elsewhere(person, *, steps=(), **environ: str | None) -> None:
    """See everything work, but for the cache, where XDG_STATE_HOME names a place that is ours."""
    elsewhere = {**environ, "XDG_STATE_HOME": str(person.folder / "state")}
    assert person(*LOGGING_IN["sign"], steps=steps, **elsewhere).err == ""
    tokens = set()
    for _ in range(2):
        done = person("token", "p", steps=steps, **elsewhere)
        assert done.code == 0
        tokens.add(done.out.removeprefix(MARK))
        assert len(done.err.splitlines()) == 1
        assert done.err.startswith("hsmjwt: warning: ")
    assert len(tokens) == 2
    assert person("doctor", "p", steps=steps, **elsewhere).code == 0


@ROOT_ALONE
@pytest.mark.parametrize(
    ("home", "state"), [(None, "is not set"), ("", "is not set"), ("home", "is 'home', no absolute path,")]
)
def test_where_no_home_is_known_it_is_said_and_nothing_is_left_in_the_current_folder(at_home, home, state):
    check_verbs(at_home, f"HOME {state} and user 54321 has no home folder", HOME=home)
    check_elsewhere(at_home, HOME=home)
    assert {path.name for path in at_home.folder.iterdir()} == {
        *("config.toml", "home", "pin", "run", "softhsm2.conf", "state", "tokens")
    }
    assert list(at_home.home.iterdir()) == []


@pytest.mark.parametrize("home", ["closed", "closed/home", "/dev/null", "link"])
def test_a_home_where_nothing_can_be_made(at_home, home):
    """As service users have them: not theirs to write in, not there at all, no folder."""
    closed, link = at_home.folder / "closed", at_home.folder / "link"
    link.symlink_to("nowhere")
    closed.mkdir()
    at_home.give(closed)
    closed.chmod(0o500)
    named = os.path.join(at_home.folder, home)
    reasons = {"/dev/null": "not a directory", "link": "no such file or directory"}
    reason = reasons.get(home, "permission denied")
    check_verbs(at_home, f"the state folder '{named}/.local/state/hsmjwt' cannot be made: {reason}", HOME=named)
    check_elsewhere(at_home, HOME=named)


@pytest.mark.parametrize("where", ["state", "state made by root", "open to others", "a file"])
def test_a_state_folder_that_is_not_ours_alone(at_home, where):
    folder = at_home.home / ".local" / "state" / "hsmjwt"
    folder.parent.mkdir(parents=True)
    if where == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
    at_home.give(at_home.home)
    folder.chmod(0o770 if where == "open to others" else 0o500)
    reason = "permission denied"
    if where == "state made by root":  # as by sudo that keeps HOME
        if os.geteuid() != 0:
            pytest.skip("only root may give a folder away")
        os.chown(folder, 0, 0)
        reason = f"the state folder '{folder}' belongs to user 0, not to us (user 54321)"
    elif where == "open to others":
        reason = f"the state folder '{folder}' can be written by others (mode 0770; chmod 700 mends it)"
    elif where == "a file":
        reason = f"the state folder '{folder}' is no folder"
    check_verbs(at_home, reason)


@pytest.mark.parametrize("disk", ["read-only", "full"])
def test_a_home_on_a_disk_that_takes_nothing_more(at_home, mounts, disk):
    home, reason = str(at_home.home), "cannot be made: read-only file system"
    steps = [("read_only", home)]
    if disk == "full":
        steps, reason = [("full", home, at_home.uid)], "cannot be noted"
    check_verbs(at_home, reason, steps=steps)
    check_elsewhere(at_home, steps=steps)


def test_a_cached_token_is_served_from_a_disk_that_takes_nothing_more(at_home, server):
    assert at_home("token", "p").out == f"{MARK}-1\n"
    for folder in (at_home.home, *at_home.home.rglob("*")):
        folder.chmod(0o500 if folder.is_dir() else 0o400)
    for verb, out in (("token", f"{MARK}-1\n"), ("header", f"Authorization: Bearer {MARK}-1\n")):
        done = at_home(verb, "p")
        assert (done.code, done.out, done.err) == (0, out, "")
    assert at_home("exec", "p", "--", "printenv", "ACCESS_TOKEN").out == f"{MARK}-1\n"
    assert json.loads(at_home("cache", "list", "--json").out)[0]["fresh"]
    refused(at_home("cache", "clear"), 3, "the token cache", "permission denied")
    assert len(server.requests) == 1


def test_a_wrong_pin_on_a_full_disk_is_never_sent(at_home, mounts):
    (at_home.folder / "pin").write_text("11111111")
    full = [("full", str(at_home.home), at_home.uid)]
    refused(at_home(*LOGGING_IN["sign"], steps=full), 3, "cannot be noted", "no space left on device")
    slot = json.loads(at_home("slot", "list", "--json").out)[0]
    assert "USER_PIN_COUNT_LOW" not in slot["token"]["flags"]


@pytest.mark.parametrize("home", ["{}/", "{}//", "{}/.", "{}/two\nlines", "{}/blank and 'quote'", "{}/\udcff"])
def test_a_home_with_an_odd_name_is_a_home(at_home, server, home):
    named = home.format(at_home.home)
    os.makedirs(named, exist_ok=True)
    at_home.give(at_home.home)
    for number in range(2):
        done = at_home("token", "p", HOME=named)
        assert (done.code, done.out) == (0, f"{MARK}-1\n"), done
        assert len(done.err.splitlines()) == 1 - number  # that the cache lies on a disk is told once
    assert at_home(*LOGGING_IN["sign"], HOME=named).err == ""
    assert Path(named, ".local/state/hsmjwt").is_dir()
    assert len(server.requests) == 1


@pytest.mark.parametrize("run", ["run", "./run", ""])
def test_a_runtime_folder_with_a_relative_name_is_none(at_home, run):
    done = at_home("token", "p", XDG_RUNTIME_DIR=run)
    assert (done.code, done.out) == (0, f"{MARK}-1\n")
    assert f"'{at_home.home}/.cache/hsmjwt'" in done.err
    assert list(at_home.run.iterdir()) == []


@ROOT_ALONE
@pytest.mark.parametrize("mode", [0o700, 0o711, 0o777])
def test_after_su_nothing_is_left_in_the_folders_of_the_one_before(at_home, mode):
    """With all of the variables still there: what cannot be ours is told, and no file is made."""
    theirs = at_home.folder / "theirs"
    for name in ("run", "cache", "state", "config"):
        (theirs / name).mkdir(parents=True)
        (theirs / name).chmod(mode if name == "run" else 0o755)
    names = ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
    kept = {name: str(theirs / name.split("_")[1].lower().replace("runtime", "run")) for name in names}
    for name, args in LOGGING_IN.items():
        refused(at_home(*args, **kept), 3, f"state folder '{theirs}/state/hsmjwt' cannot be made: permission denied")
        assert list(theirs.rglob("*/*")) == [], name
    for args in OTHERS.values():
        assert at_home(*args, **kept).code == 0
    done = at_home("token", "p", **{**kept, "XDG_STATE_HOME": None})
    assert (done.code, done.out, len(done.err.splitlines())) == (0, f"{MARK}-1\n", 1)
    assert list(theirs.rglob("*/*")) == []


@pytest.mark.parametrize("umask", [0, 0o002, 0o027, 0o777])
def test_whatever_the_umask_our_files_are_ours_to_use_and_nobody_elses(at_home, server, umask):
    os.makedirs(at_home.folder / "new-home")
    at_home.home = at_home.folder / "new-home"
    at_home.give(at_home.home)
    at_home.environ["HOME"] = str(at_home.home)
    bad = {"HSMJWT_PIN_SOURCE": "env:WRONG", "WRONG": "1234567"}
    for _ in range(2):
        assert at_home("token", "p", steps=[("mask", umask)]).out == f"{MARK}-1\n"
    for message in ("the token refused the PIN", "the token refused this PIN before"):
        assert message in at_home(*LOGGING_IN["sign"], steps=[("mask", umask)], **bad).err
    files = at_home.files()
    assert {line.split()[0] for line in files} == {"0600", "0700"}
    assert {line.rpartition(".")[2] for line in files if line.startswith("0600")} >= {"json", "lock"}
    assert at_home(*LOGGING_IN["sign"], steps=[("mask", umask)]).code == 0
    assert len(server.requests) == 1


def test_a_note_is_served_wherever_it_can_be_read(at_home, server):
    """Without a thread, a current folder or more than one descriptor, as no longer road could."""
    home = at_home.home / "two\nlines"
    home.mkdir()
    at_home.give(home)
    at_home.environ["HOME"] = f"{home}/"
    time.sleep(SETTLED)  # a younger config leaves no note
    assert at_home("token", "p", steps=[("mask", 0o777)]).code == 0
    assert at_home("token", "p", steps=[("mask", 0o777)]).err == ""
    assert "0600 home/two\nlines/.cache/hsmjwt/quick-70" in at_home.files()
    home.chmod(0o500)
    bare = [("limit", "NPROC", 0), ("limit", "NOFILE", 4), ("gone", str(at_home.folder / "gone"))]
    for verb, out in (("token", f"{MARK}-1\n"), ("header", f"Authorization: Bearer {MARK}-1\n")):
        assert at_home(verb, "p", steps=bare) == (0, out, "")
    assert at_home("exec", "p", "--", "printenv", "ACCESS_TOKEN", steps=bare[2:]) == (0, f"{MARK}-1\n", "")
    assert at_home("sign", "p", "--aud", "a", steps=bare).code == 11
    assert len(server.requests) == 1
