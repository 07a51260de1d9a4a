"""`hsmjwt cache list` and `hsmjwt cache clear`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from servers.granting import MARK, flags, granted, write_config
from servers.scripted import Server


def fill(quick, url: str, folder: Path) -> str:
    """Cache a token of the profile `one`, one of the profile `[/red]`, and one of no profile."""
    names = "".join(f'[profiles."{name}"]\nissuer = "i"\ntoken_url = "{url}"\n' for name in ("one", "[/red]"))
    config = write_config(folder, names.replace('"one"]\n', '"one"]\nscope = "r w"\n'))
    for call in (("one",), ("[/red]",), flags(url)):
        done = quick("token", *call, "--config", config)
        assert done.code == 0, done.err
    return config


def test_the_list_is_of_one_profile_where_one_is_named(quick, tmp_path):
    with Server(granted(), granted(), granted()) as server:
        fill(quick, server.url(), tmp_path)
    assert [row["profile"] for row in json.loads(quick("cache", "list", "one", "--json").out)] == ["one"]
    assert json.loads(quick("cache", "list", "nobody", "--json").out) == []


def test_the_list_tells_profile_scope_and_end_and_no_part_of_a_token(quick, tmp_path):
    with Server(granted(scope="granted"), granted(), granted()) as server:
        fill(quick, server.url(), tmp_path)
    rows = json.loads(quick("cache", "list", "--json").out)
    assert [list(row) for row in rows] == [["profile", "scope", "expires_at", "fresh"]] * 3
    assert [(row["profile"], row["scope"], row["fresh"]) for row in rows] == [
        (None, None, True),
        ("[/red]", None, True),
        ("one", "granted", True),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["expires_at"]) for row in rows)
    table = quick("cache", "list").out.splitlines()
    assert table[0].split() == ["PROFILE", "SCOPE", "EXPIRES", "FRESH"]
    assert [line.split()[0] for line in table[1:]] == ["-", "[/red]", "one"]
    for shown in (json.dumps(rows), *table):
        assert MARK[:5] not in shown


def test_an_empty_cache_is_an_empty_list_and_looking_makes_no_folder(quick, token):
    assert quick("cache", "list", "--json").out == "[]\n"
    assert quick("cache", "list").out == "PROFILE  SCOPE  EXPIRES  FRESH\n"
    assert quick("cache", "clear", "--json").out == '{"removed": 0}\n'
    assert list(Path(token.environ()["XDG_RUNTIME_DIR"]).iterdir()) == []


def test_clear_of_a_profile_leaves_the_others_and_of_all_leaves_none(quick, tmp_path):
    with Server(granted()) as server:
        config = fill(quick, server.url(), tmp_path)
        done = quick("cache", "clear", "one")
        assert (done.code, done.out, done.err) == (0, "", "")
        assert [row["profile"] for row in json.loads(quick("cache", "list", "--json").out)] == [None, "[/red]"]
        quick("token", "one", "--config", config)
        assert len(server.requests) == 4
        quick("token", "[/red]", "--config", config)
        assert len(server.requests) == 4
    assert quick("cache", "clear", "--json").out == '{"removed": 3}\n'
    assert quick("cache", "list", "--json").out == "[]\n"


def test_a_profile_of_which_nothing_is_cached_is_said_to_be_so(quick, tmp_path):
    with Server(granted()) as server:
        fill(quick, server.url(), tmp_path)
    done = quick("cache", "clear", "oen")
    assert (done.code, done.out) == (0, "")
    assert done.err == "hsmjwt: no token of the profile 'oen' is cached\n"
    assert len(json.loads(quick("cache", "list", "--json").out)) == 3


def test_clear_needs_no_config_that_can_be_read(quick, tmp_path):
    with Server(granted()) as server:
        config = fill(quick, server.url(), tmp_path)
    Path(config).write_text("no TOML")
    assert quick("cache", "clear", "--json", HSMJWT_CONFIG=config).out == '{"removed": 3}\n'


def test_what_was_kept_without_a_runtime_folder_is_listed_and_cleared_too(quick, token):
    """As by a cron job, which has another environment than a login."""
    with Server(granted()) as server:
        call = ("token", *flags(server.url()))
        quick(*call)
        quick(*call, XDG_RUNTIME_DIR=None)
        assert len(server.requests) == (1 if os.path.isdir(f"/run/user/{os.geteuid()}") else 2)
    kept = len(server.requests)
    assert len(json.loads(quick("cache", "list", "--json").out)) == kept
    assert quick("cache", "clear", "--json").out == f'{{"removed": {kept}}}\n'
    for folder in (token.environ()["XDG_RUNTIME_DIR"], token.environ()["HOME"]):
        assert not [path for path in Path(folder).rglob("*.json") if "login" not in path.name]


@pytest.mark.parametrize("verb", ["list", "clear"])
def test_a_cache_that_cannot_be_used_is_an_error_here(quick, token, verb):
    folder = Path(token.environ()["XDG_RUNTIME_DIR"], "hsmjwt")
    folder.write_text("")
    done = quick("cache", verb)
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[0] == f"hsmjwt: error: the token cache '{folder}' cannot be used: not a directory"


def test_one_folder_that_cannot_be_used_does_not_keep_the_other_from_being_cleared(quick, token):
    with Server(granted()) as server:
        quick("token", *flags(server.url()), XDG_RUNTIME_DIR=None)
    Path(token.environ()["XDG_RUNTIME_DIR"], "hsmjwt").write_text("")
    assert quick("cache", "clear").code == 3
    assert list(Path(token.environ()["HOME"]).rglob(".cache/hsmjwt/*.json")) == []
