"""The cache of access tokens where folders stand in the places of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsmjwt.bearer import AccessToken

KEY = "a1" * 32
TOKEN = AccessToken(value="AT", token_type="bearer", fetched_at=1000.0, expires_at=4600.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hsmjwt"


@pytest.mark.parametrize("there", ["nothing", "file", "folder", "full folder"])
def test_a_folder_in_a_tokens_place_is_set_aside_and_the_cache_works_again(store, folder, warnings, there):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.json").unlink()
    (folder / f"{KEY}.json").mkdir()
    (folder / f"{KEY}.json" / "letter").write_text("dear")
    if there == "file":
        (folder / f"{KEY}.bad").write_text("old")
    elif there != "nothing":
        (folder / f"{KEY}.bad").mkdir()
    if there == "full folder":
        (folder / f"{KEY}.bad" / "old").write_text("old")
    assert store.get(KEY) is None
    name = f"{KEY}.bad" if there in ("nothing", "folder") else f"{KEY}.1.bad"
    assert (folder / name / "letter").read_text() == "dear"
    assert [f"set aside as '{name}'" in warning for warning in warnings] == [True]
    store.put(KEY, TOKEN)
    assert store.get(KEY) == TOKEN
    assert len(warnings) == 1
    assert store.clear() == 1
    assert (folder / name / "letter").exists()


def test_a_bad_file_is_set_aside_beside_a_folder_that_was(store, folder, warnings):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.bad").mkdir()
    (folder / f"{KEY}.json").write_text("x")
    assert store.get(KEY) is None
    assert (folder / f"{KEY}.1.bad").read_text() == "x"
    assert store.clear() == 0
    assert not (folder / f"{KEY}.1.bad").exists()
    assert not (folder / f"{KEY}.bad").exists()
    assert len(warnings) == 1


def test_where_neither_name_is_free_the_folder_stays(store, folder, warnings):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.json").unlink()
    for name in ("json", "bad", "1.bad"):
        (folder / f"{KEY}.{name}").mkdir()
        (folder / f"{KEY}.{name}" / "letter").write_text(name)
    assert store.get(KEY) is None
    assert len(warnings) == 1
    assert {(folder / f"{KEY}.{name}" / "letter").read_text() for name in ("json", "bad", "1.bad")} == {
        *("json", "bad", "1.bad")
    }
