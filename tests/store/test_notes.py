"""Notes for the shortest road: left only beside the token they copy, and gone with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsmjwt.bearer import AccessToken
from hsmjwt.cli.quick import identity, note_text, source_line
from hsmjwt.compose import access
from hsmjwt.deadline import Deadline
from hsmjwt.store import note
from hsmjwt.store.file import FileStore
from hsmjwt.store.memory import MemoryStore

KEY, OTHER = "a1" * 32, "b2" * 32
TOKEN = AccessToken(value="AT-marker-51c2", token_type="bearer", fetched_at=1000.0, expires_at=4600.0)
NEWER = AccessToken(value="AT-newer-1", token_type="bearer", fetched_at=1001.0, expires_at=4601.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "hsmjwt"


def text(file: str, status: os.stat_result) -> str:
    return written(file, status, TOKEN.value)


def written(file: str, status: os.stat_result, value: str) -> str:
    return note_text(
        known_by="('1', (2, 3))",
        source=source_line(file, status),
        life=(1000.0, 4540.0, 4600.0),
        label="p",
        removes=["A", "B"],
        token=value,
    )


def notes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("quick"))


def filled(store: FileStore, *names: str) -> None:
    store.put(KEY, TOKEN)
    for name in names:
        store.leave_note(KEY, TOKEN, name, text)


def test_a_note_holds_seven_lines_in_a_file_of_ours_alone(store, folder):
    filled(store, "quick-70")
    path, source = folder / "quick-70", (folder / f"{KEY}.json").stat()
    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.read_text().split("\n") == [
        "('1', (2, 3))",
        f"{KEY}.json {' '.join(map(str, identity(source)))}",
        "1000.0 4540.0 4600.0",
        "p",
        "A B",
        TOKEN.value,
        "",
    ]
    assert notes(folder) == ["quick-70"]


def test_a_later_note_takes_the_place_of_an_earlier_one_also_of_a_link(store, folder, tmp_path):
    filled(store, "quick")
    victim = tmp_path / "victim"
    victim.write_text("not ours")
    (folder / "quick").unlink()
    (folder / "quick").symlink_to(victim)
    filled(store, "quick")
    assert not (folder / "quick").is_symlink()
    assert victim.read_text() == "not ours"
    store.put(KEY, NEWER)
    store.leave_note(KEY, NEWER, "quick", lambda file, status: written(file, status, NEWER.value))
    assert NEWER.value in (folder / "quick").read_text()


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277, 0o777])
def test_no_umask_makes_it_more_or_less_than_ours(store, folder, umask):
    before = os.umask(umask)
    try:
        filled(store, "quick")
    finally:
        os.umask(before)
    assert (folder / "quick").stat().st_mode & 0o7777 == 0o600


# --- no note


def test_there_is_no_note_without_its_token(store, folder, warnings):
    store.leave_note(KEY, TOKEN, "quick", text)  # not even a folder
    assert not folder.exists()
    store.put(OTHER, TOKEN)
    store.leave_note(KEY, TOKEN, "quick", text)
    assert notes(folder) == []
    assert warnings == []


def test_there_is_no_note_of_a_token_that_a_newer_one_has_replaced(store, folder):
    store.put(KEY, NEWER)
    store.leave_note(KEY, TOKEN, "quick", text)
    assert notes(folder) == []


def test_there_is_no_note_of_a_token_whose_file_is_not_ours(store, folder, warnings):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.json").chmod(0o644)
    store.leave_note(KEY, TOKEN, "quick", text)
    assert notes(folder) == []
    assert warnings == []


def test_there_is_no_note_in_a_folder_that_others_may_enter(store, folder):
    store.put(KEY, TOKEN)
    folder.chmod(0o750)
    store.leave_note(KEY, TOKEN, "quick", text)
    assert notes(folder) == []


def test_a_store_of_one_process_takes_no_note():
    access.leave_note(MemoryStore(), KEY, TOKEN, "quick", text)


def test_a_note_that_cannot_be_written_costs_nothing_and_leaves_nothing(store, folder, warnings):
    store.put(KEY, TOKEN)
    (folder / "quick").mkdir()
    store.leave_note(KEY, TOKEN, "quick", text)
    assert notes(folder) == ["quick"]  # the folder alone

    def full(_file: str, _status: os.stat_result) -> str:
        raise OSError(28, "no space left on device")

    store.leave_note(KEY, TOKEN, "quick-70", full)
    assert notes(folder) == ["quick"]
    assert warnings == []


@pytest.mark.parametrize("meanwhile", ["cleared", "replaced", "cleared and fetched anew"])
def test_what_happens_while_a_note_is_written_leaves_none(store, folder, meanwhile):
    store.put(KEY, TOKEN)

    def slow(file: str, status: os.stat_result) -> str:
        if meanwhile != "replaced":
            store.clear()
        if meanwhile != "cleared":
            store.put(KEY, NEWER)
        return text(file, status)

    store.leave_note(KEY, TOKEN, "quick", slow)
    assert notes(folder) == []
    assert all(TOKEN.value not in path.read_text() for path in folder.iterdir())


# --- clear and prune


def test_clear_removes_every_note_and_what_a_killed_writer_left(store, folder):
    filled(store, "quick", "quick-70", "quick-71")
    (folder / "quick-72.0123.tmp").write_text("half")
    (folder / "quick.0123.tmp").write_text("half")
    (folder / "quicker").write_text("of somebody else")
    assert store.clear() == 1
    assert sorted(path.name for path in folder.iterdir()) == ["quicker"]


def test_clear_of_one_profile_removes_all_notes_and_its_own_tokens(store, folder):
    store.put(KEY, TOKEN, profile="one")
    store.put(OTHER, TOKEN, profile="two")
    for key, name in ((KEY, "quick-70"), (OTHER, "quick-71")):
        store.leave_note(key, TOKEN, name, text)
    assert store.clear("one") == 1
    assert sorted(path.name for path in folder.iterdir()) == [f"{OTHER}.json"]


def test_clear_is_not_stopped_by_a_folder_in_the_place_of_a_note(store, folder):
    filled(store, "quick-71")
    (folder / "quick-70").mkdir()
    assert store.clear() == 1
    assert [path.name for path in folder.iterdir()] == ["quick-70"]


def test_who_brings_a_token_home_removes_notes_of_those_that_are_gone(store, folder):
    filled(store, "quick-70")
    store.put(OTHER, TOKEN)
    store.leave_note(OTHER, TOKEN, "quick-71", text)
    for name, content in (("quick-72", ""), ("quick-73", "one line"), ("quick-74", "\n\n\n"), ("quick-75", "x\ny z")):
        (folder / name).write_text(content)
    (folder / "quick-76").write_bytes(b"\xff\n\xff\n")
    (folder / "quick-77").symlink_to("quick-70")
    os.mkfifo(folder / "quick-78")
    (folder / "quick-79.01.tmp").write_text("half")
    with store.hold(KEY, Deadline(5)):
        store.put(KEY, NEWER)
    assert notes(folder) == ["quick-71"]


def test_prune_keeps_a_note_whose_token_stands(store, folder):
    filled(store, "quick", "quick-70")
    fd = os.open(folder, os.O_RDONLY)
    note.prune(fd, os.listdir(fd))
    assert notes(folder) == ["quick", "quick-70"]
    (folder / f"{KEY}.json").unlink()
    note.prune(fd, os.listdir(fd))
    os.close(fd)
    assert notes(folder) == []


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("quick", True),
        ("quick-", True),
        ("quick-70.01.tmp", True),
        ("quick.01.tmp", True),
        ("quicker", False),
        ("x-quick", False),
        ("", False),
        (f"{KEY}.json", False),
    ],
)
def test_a_note_is_known_by_its_name(name, is_one):
    assert note.is_note(name) is is_one


def test_notes_are_no_entries(store):
    filled(store, "quick", "quick-70")
    assert len(store.entries()) == 1
