"""The cache of access tokens as `hsmjwt token` uses it: what is served, and that it never costs the token."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.granting import MARK, claims_of, flags, granted, write_config
from servers.scripted import Server, json_reply

USERS_FOLDER = f"/run/user/{os.geteuid()}"


def entries(token) -> list[Path]:
    return sorted(Path(token.environ()["XDG_RUNTIME_DIR"], "hsmjwt").glob("*.json"))


def edit(path: Path, **changes: object) -> None:
    record = json.loads(path.read_text())
    record["token"].update(changes)
    path.write_text(json.dumps(record))


def test_a_hit_needs_neither_module_nor_pin_nor_server(hsmjwt, token, tmp_path):
    module = tmp_path / "module.so"
    shutil.copy(os.path.realpath(token.module), module)
    with Server(granted()) as server:
        call = ("token", *flags(server.url()), "--module", str(module))
        assert hsmjwt(*call).code == 0
    module.unlink()
    token.pin_file.unlink()
    done = hsmjwt(*call, "--verbose", SOFTHSM2_CONF=None)
    assert (done.code, done.out) == (0, f"{MARK}\n")
    assert "the access token comes from the cache" in done.err
    assert hsmjwt(*call, "--fresh").code == 4


def test_a_hit_loads_none_of_what_signs_and_asks(token):
    script = """
import sys
from hsmjwt.cli.gate import gate
code = gate(sys.argv[1:])
slow = ("pkcs11", "requests", "urllib3", "cryptography", "asn1crypto", "ssl", "flask", "importlib.metadata", "rich")
print(code, *(name for name in slow if name in sys.modules), file=sys.stderr)
"""
    with Server(granted()) as server:
        call = [sys.executable, "-c", script, "token", *flags(server.url())]
        said = []
        for _ in range(2):
            done = subprocess.run(call, env=token.environ(), capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout == f"{MARK}\n"
            said.append(done.stderr.split())
    assert "requests" in said[0]
    assert said[1] == ["0"]


def test_what_is_cached_keeps_its_end_and_loses_life(quick):
    with Server(granted(extra={"a": [1]})) as server:
        first, second = (json.loads(quick("token", *flags(server.url()), "--json").out) for _ in range(2))
    assert (first.pop("cached"), second.pop("cached")) == (False, True)
    assert second.pop("expires_in") <= first.pop("expires_in") <= 3600
    assert first == second
    assert first["extra"] == {"a": [1]}


def test_fresh_replaces_and_no_cache_leaves_the_cached_token_alone(quick, token):
    with Server(*(granted(f"t{number}") for number in range(1, 5))) as server:
        call = ("token", *flags(server.url()))
        assert quick(*call, "--no-cache").out == "t1\n"
        assert entries(token) == []
        assert quick(*call).out == "t2\n"
        assert quick(*call, "--no-cache").out == "t3\n"
        assert quick(*call).out == "t2\n"
        assert quick(*call, "--fresh").out == "t4\n"
        assert quick(*call).out == "t4\n"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("age", "min_ttl", "served"),
    [
        (0, "60", True),
        (3541, "60", False),
        (3541, "10", True),
        (0, "1d", True),
        (3250, "1d", False),
        (3601, "0", False),
    ],
)
def test_min_ttl_is_the_life_that_must_be_left_and_a_tenth_at_most(quick, token, age, min_ttl, served):
    with Server(granted("one"), granted("two")) as server:
        call = ("token", *flags(server.url()), "--min-ttl", min_ttl)
        quick(*call)
        (entry,) = entries(token)
        edit(entry, fetched_at=time.time() - age, expires_at=time.time() - age + 3600)
        assert quick(*call).out == ("one\n" if served else "two\n")


def test_a_token_from_the_future_is_not_served(quick, token):
    """The clock was set back since it was fetched: nobody knows how much of its life is over."""
    with Server(granted("one"), granted("two")) as server:
        call = ("token", *flags(server.url()))
        quick(*call)
        (entry,) = entries(token)
        edit(entry, fetched_at=time.time() + 600, expires_at=time.time() + 4200)
        assert quick(*call).out == "two\n"
        assert quick(*call).out == "two\n"
    assert len(server.requests) == 2


def test_a_short_life_is_still_served(quick):
    with Server(granted(expires_in=20)) as server:
        quick("token", *flags(server.url()))
        assert json.loads(quick("token", *flags(server.url()), "--json").out)["cached"]


@pytest.mark.parametrize("spoil", ["truncated", "foreign", "of another key", "readable by others"])
def test_a_bad_file_is_set_aside_with_a_warning(quick, token, spoil):
    with Server(granted("one"), granted("two")) as server:
        call = ("token", *flags(server.url()))
        quick(*call)
        (entry,) = entries(token)
        text = entry.read_text()
        if spoil == "truncated":
            entry.write_text(text[:-20])
        elif spoil == "foreign":
            entry.write_text('{"access_token": "AT-marker-51c2"}')
        elif spoil == "of another key":
            entry.write_text(text.replace(entry.stem, "0" * 64))
        else:
            entry.chmod(0o644)
        done = quick(*call)
        assert (done.code, done.out) == (0, "two\n")
        assert done.err.startswith(f"hsmjwt: warning: the cache file '{entry}' ")
        assert done.err.endswith(f"and was set aside as '{entry.stem}.bad'\n")
        assert entry.with_suffix(".bad").exists()
        again = quick(*call)
        assert (again.out, again.err) == ("two\n", "")


@pytest.mark.parametrize("wrong", ["a file in its place", "open to others", "no folder at all"])
def test_a_cache_that_cannot_be_used_costs_a_warning_and_not_the_token(quick, token, wrong):
    runtime = Path(token.environ()["XDG_RUNTIME_DIR"])
    more = {}
    if wrong == "a file in its place":
        (runtime / "hsmjwt").write_text("")
    elif wrong == "open to others":
        (runtime / "hsmjwt").mkdir(mode=0o755)
    else:
        more = {"XDG_RUNTIME_DIR": None, "XDG_CACHE_HOME": "/dev/null/x"}
        if os.path.isdir(USERS_FOLDER):
            pytest.skip("this user has a runtime folder of its own")
    with Server(granted()) as server:
        for _ in range(2):
            done = quick("token", *flags(server.url()), **more)
            assert (done.code, done.out) == (0, f"{MARK}\n")
            assert done.err.startswith("hsmjwt: warning: the token cache ")
            assert len(done.err.splitlines()) == 1
    assert len(server.requests) == 2


def test_folder_and_file_are_ours_alone(hsmjwt, token):
    with Server(granted()) as server:
        hsmjwt("token", *flags(server.url()))
    folder = Path(token.environ()["XDG_RUNTIME_DIR"], "hsmjwt")
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {0o600}
    assert not any(MARK in path.name for path in folder.iterdir())


@pytest.mark.skipif(os.path.isdir(USERS_FOLDER), reason="this user has a runtime folder of its own")
def test_that_the_cache_lies_on_a_disk_is_told_once(quick, token, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    home = Path(token.environ()["HOME"])
    with Server(granted()) as server:
        first = quick("token", *flags(server.url()), XDG_RUNTIME_DIR=str(shared))
        second = quick("token", *flags(server.url(), "--scope", "s"), XDG_RUNTIME_DIR=None)
        elsewhere = quick("token", *flags(server.url()), XDG_RUNTIME_DIR=None, XDG_CACHE_HOME=str(tmp_path / "c"))
    assert f"access tokens are kept on a disk, in '{home}/.cache/hsmjwt'" in first.err
    assert (first.code, len(first.err.splitlines()), second.code, second.err) == (0, 1, 0, "")
    assert len(list((home / ".cache/hsmjwt").glob("*.json"))) == 2
    assert len(list((tmp_path / "c/hsmjwt").glob("*.json"))) == 1
    assert f"'{tmp_path}/c/hsmjwt'" in elsewhere.err
    assert list(shared.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
@pytest.mark.skipif(os.path.isdir(USERS_FOLDER), reason="this user has a runtime folder of its own")
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_runtime_folder_of_another_user_is_left_alone(quick, tmp_path, mode):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(mode)
    os.chown(theirs, 54321, -1)
    with Server(granted()) as server:
        done = quick("token", *flags(server.url()), XDG_RUNTIME_DIR=str(theirs))
    assert (done.code, done.out) == (0, f"{MARK}\n")
    assert len(done.err.splitlines()) == 1
    assert list(theirs.iterdir()) == []


def test_the_config_can_keep_tokens_off_disks_or_cache_none(quick, token, tmp_path):
    runtime, home = (Path(token.environ()[name]) for name in ("XDG_RUNTIME_DIR", "HOME"))
    with Server(granted()) as server:
        call = ("token", *flags(server.url()), "--config")
        none = write_config(tmp_path, 'cache = "none"\n')
        assert quick(*call, none).err == ""
        assert list(runtime.iterdir()) == []
        runtime_only = write_config(tmp_path, 'cache = "runtime"\n')
        if not os.path.isdir(USERS_FOLDER):
            done = quick(*call, runtime_only, XDG_RUNTIME_DIR=None)
            assert done.out == f"{MARK}\n"
            assert done.err == (
                'hsmjwt: warning: there is no runtime folder, so nothing is cached (cache = "runtime")\n'
            )
            assert not (home / ".cache").exists()
        assert quick(*call, runtime_only).err == ""
        assert len(entries(token)) == 1


def test_what_shapes_the_token_has_a_place_of_its_own(quick, token, tmp_path):
    with Server(granted()) as server, Server(granted()) as other:
        base = ("--iss", "i", "--token-url", server.url())
        variants = [
            (),
            ("--client-id", "cid"),
            ("--scope", "s"),
            ("--sub", "t"),
            ("--aud", "b"),
            ("--exp", "60"),
            ("--jti", "none"),
            ("--kid", "k"),
            ("--claim", "x=1"),
            ("--claim-json", "x=1"),
            ("--header", "x=1"),
            ("--grant", "client-assertion"),
            ("--module", os.path.realpath(token.module)),
        ]
        for more in variants:
            assert quick("token", *base, *more).code == 0
        assert len(server.requests) == len(variants)
        quick("token", "--iss", "i", "--token-url", other.url())
        assert len(other.requests) == 1
        same = [
            ("--timeout", "9"),
            ("--min-ttl", "9"),
            ("--pin-source", "env:PIN"),
            ("--verbose",),
            ("--allow-last-try",),
            ("--key", "pkcs11:object=k1;token=t1?pin-source=/nowhere"),
        ]
        for more in same:
            assert quick("token", *base, *more, PIN="31415926").out == f"{MARK}\n"
        assert len(server.requests) == len(variants)


def test_an_edit_of_the_profile_that_keeps_size_and_time_is_seen(quick, tmp_path):
    def answer(line):
        granted(f"sub-{claims_of(line.request)['sub']}")(line)

    with Server(answer) as server:
        text = f'[profiles.p]\nissuer = "i"\nsubject = "AAA"\ntoken_url = "{server.url()}"\n'
        outputs = []
        for subject in ("AAA", "BBB", "AAA"):
            config = write_config(tmp_path, text.replace("AAA", subject))
            os.utime(config, (1_900_000_000,) * 2)
            outputs.append(quick("token", "p", "--config", config).out)
    assert outputs == ["sub-AAA\n", "sub-BBB\n", "sub-AAA\n"]
    assert len(server.requests) == 2


def test_an_edit_of_a_claims_file_that_keeps_size_and_time_is_seen(quick, tmp_path):
    file = tmp_path / "claims.json"

    def answer(line):
        granted(f"sub-{claims_of(line.request)['sub']}")(line)

    with Server(answer) as server:
        outputs = []
        for subject in ("CCC", "DDD", "CCC"):
            file.write_text(json.dumps({"sub": subject}))
            os.utime(file, (1_900_000_000,) * 2)
            outputs.append(quick("token", *flags(server.url(), "--claims-file", str(file))).out)
    assert outputs == ["sub-CCC\n", "sub-DDD\n", "sub-CCC\n"]
    assert len(server.requests) == 2


def test_profiles_share_nothing_even_where_they_say_the_same(quick, tmp_path):
    with Server(granted("one"), granted("two")) as server:
        text = "".join(f'[profiles.{name}]\nissuer = "i"\ntoken_url = "{server.url()}"\n' for name in ("a", "b"))
        config = write_config(tmp_path, text)
        assert [quick("token", name, "--config", config).out for name in "aba"] == ["one\n", "two\n", "one\n"]
        assert quick("cache", "clear", "a").code == 0
        assert quick("token", "b", "--config", config).out == "two\n"
    assert len(server.requests) == 2


def test_another_time_zone_changes_nothing(quick):
    with Server(granted()) as server:
        call = ("token", *flags(server.url()), "--json")
        zones = ("Pacific/Kiritimati", "Etc/GMT+12", "UTC", "No/Such")
        about = [json.loads(quick(*call, steps=[("zone", zone)]).out) for zone in zones]
    assert [each["cached"] for each in about] == [False, True, True, True]
    assert len({each["expires_at"] for each in about}) == 1
    assert about[0]["expires_at"].endswith("Z")
    for zone in zones:
        done = quick("sign", "--iss", "i", "--aud", "a", "--exp", "60", "--json", steps=[("zone", zone)])
        claims = json.loads(done.out)["claims"]
        assert claims["exp"] - claims["iat"] == 60
        assert abs(claims["iat"] - time.time()) < 10


def test_a_failed_exchange_keeps_nothing_and_a_cached_token_outlives_a_server_that_is_down(quick, token):
    with Server(json_reply({"error": "invalid_grant"}, status=400), granted()) as server:
        call = ("token", *flags(server.url()))
        assert quick(*call).code == 10
        assert entries(token) == []
        assert quick(*call).code == 0
    assert quick(*call).out == f"{MARK}\n"


def test_expired_tokens_do_not_pile_up(quick, token):
    with Server(granted()) as server:
        for scope in ("a", "b"):
            quick("token", *flags(server.url(), "--scope", scope))
        for entry in entries(token):
            edit(entry, fetched_at=time.time() - 7200, expires_at=time.time() - 3600)
        assert [row["fresh"] for row in json.loads(quick("cache", "list", "--json").out)] == [False, False]
        quick("token", *flags(server.url(), "--scope", "c"))
    assert len(entries(token)) == 1
    assert len(list(entries(token)[0].parent.iterdir())) == 2
