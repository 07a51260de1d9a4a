"""Deleting on tokens that refuse it, or die at it: what is told, and what the next run finds."""

from __future__ import annotations

import json

import pytest
from cli.checks import told

K1 = "pkcs11:token=t1;object=k1"


@pytest.fixture
def delete(patched):
    """Delete k1 with faults, by its short URI or the whole one."""

    def run(faults="-", named=K1):
        return patched(faults, "key", "delete", named, "--yes", "--json")

    return run


@pytest.fixture
def halves(patched):
    """Return which halves of k1 are there: whether the private one, and whether a public one."""

    def rows():
        found = json.loads(patched("-", "key", "list", "--key", "pkcs11:token=t1", "--json").out)
        return [(row["private"], row["has_public"]) for row in found]

    return rows


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("readonly", "the token cannot be written (C_OpenSession gave CKR_TOKEN_WRITE_PROTECTED)"),
        ("destroy=0x1b", "the token does not let it be deleted (C_DestroyObject gave CKR_ACTION_PROHIBITED)"),
        ("destroy=0xe2", "the token cannot be written (C_DestroyObject gave CKR_TOKEN_WRITE_PROTECTED)"),
        ("destroy=0xb5", "the token cannot be written (C_DestroyObject gave CKR_SESSION_READ_ONLY)"),
        ("destroy=0x30", "the token failed (C_DestroyObject gave CKR_DEVICE_ERROR)"),
    ],
)
def test_a_token_that_refuses_keeps_the_whole_key(delete, halves, fault, words):
    done = delete(fault)
    assert (done.code, done.out) == (7, "")
    assert words in told(done)["message"]
    assert halves() == [(True, True)]


@pytest.mark.parametrize("code", ["0x5", "0x6", "0x30"])
def test_a_fault_that_may_be_a_token_that_cannot_be_written_is_told_as_one(delete, code):
    assert "it may not be writable" in told(delete(f"destroy={code}"))["hint"]


def test_what_is_gone_by_the_time_of_a_fault_is_told_and_the_next_run_does_the_rest(patched, delete, halves):
    uri = json.loads(patched("-", "key", "show", K1, "--json").out)["uri"]
    done = patched("-", "-c", SECOND_FAILS, "key", "delete", K1, "--yes", "--json")
    assert (done.code, done.out) == (7, "")
    assert "type=public is still there" in told(done)["message"]
    assert f"deleted by then: {uri}" in told(done)["hint"]
    assert halves() == [(False, True)]
    done = delete(named=uri)
    assert done.code == 0, done.err
    assert json.loads(done.out)["deleted"] == [uri.replace("type=private", "type=public")]
    assert halves() == []


SECOND_FAILS = """
import patched, sys
calls = []
def second(before):
    def call(*args):
        calls.append(args)
        return before(*args) if len(calls) == 1 else 0x30
    return call
patched.replace("destroy", second)
from hsmjwt.cli.main import entry
sys.argv = ["hsmjwt", *sys.argv[1:]]
entry()
"""


@pytest.mark.parametrize("moment", ["destroy!", "destroy!!"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_is_killed_is_finished_by_the_next_one(patched, delete, halves, moment, whole):
    uri = json.loads(patched("-", "key", "show", K1, "--json").out)["uri"] if whole else K1
    assert delete(moment, uri).code == -9
    assert halves() == ([(True, True)] if moment == "destroy!" else [(False, True)])
    done = delete(named=uri)
    assert done.code == 0, done.err
    assert halves() == []
