"""What every token store must do, run over each of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError
from hsmjwt.store.file import FileStore
from hsmjwt.store.memory import MemoryStore

KEY = "a1" * 32
OTHER = "b2" * 32


def token(value: str = "AT-marker-51c2", **fields) -> AccessToken:
    return AccessToken(
        **({"value": value, "token_type": "bearer", "fetched_at": 1000.5, "expires_at": 4600.5} | fields)
    )


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path: Path):
    warnings: list[str] = []
    yield MemoryStore() if request.param == "memory" else FileStore(str(tmp_path / "cache"), warn=warnings.append)
    assert warnings == []


def test_nothing_is_found_in_an_empty_store(store):
    assert store.get(KEY) is None


def test_a_token_comes_back_as_it_was_put(store):
    members = {
        "token_type": "bearer",
        "scope": None,
        "success": True,
        "n": 2**63,
        "big": 10**30,
        "f": 0.1,
        "tiny": 5e-324,
        "text": 'é\u2028"\\\x01',
        "list": [{"a": []}, False],
    }
    put = token(members=members)
    store.put(KEY, put)
    got = store.get(KEY)
    assert got == put
    assert {name: type(value) for name, value in got.members.items()} == {n: type(v) for n, v in members.items()}


def test_keys_are_kept_apart_and_the_last_token_wins(store):
    store.put(KEY, token("one"))
    store.put(OTHER, token("two"))
    store.put(KEY, token("three"), profile="adobe", scope="read")
    assert store.get(KEY).value == "three"
    assert store.get(OTHER).value == "two"


def test_a_stale_token_is_found_since_the_caller_judges(store):
    store.put(KEY, token(fetched_at=1.0, expires_at=2.0))
    assert store.get(KEY).expires_at == 2.0


def test_a_token_of_unknown_life_is_not_kept(store):
    store.put(KEY, token(expires_at=None))
    assert store.get(KEY) is None
    store.put(KEY, token("known"))
    store.put(KEY, token("unknown", expires_at=None))
    assert store.get(KEY).value == "known"


def test_neither_the_store_nor_the_token_shows_it(store):
    store.put(KEY, token())
    with store.hold(KEY, Deadline(5)):
        assert "AT-marker" not in repr(store) + str(vars(store)) + repr(store.get(KEY))


def test_what_is_held_can_be_read_and_written(store):
    with store.hold(KEY, Deadline(5)):
        assert store.get(KEY) is None
        store.put(KEY, token())
        assert store.get(KEY) == token()
    assert store.get(KEY) == token()


def test_a_key_can_be_held_again_and_another_meanwhile(store):
    for _ in range(3):
        with store.hold(KEY, Deadline(0)), store.hold(OTHER, Deadline(None)):
            pass


def test_an_error_frees_the_key(store):
    with pytest.raises(RuntimeError), store.hold(KEY, Deadline(5)):
        raise RuntimeError
    with store.hold(KEY, Deadline(0)):
        pass


def test_who_waits_gives_up_at_its_deadline_and_the_holder_goes_on(store):
    deadline = Deadline(0.2)
    deadline.enter("the server", ConfigError)
    waited = []

    def wait():
        began = time.monotonic()
        with (
            pytest.raises(BusyError, match=r"no answer from another .* within 0.2 s") as caught,
            store.hold(KEY, deadline),
        ):
            pytest.fail("the key is held")
        waited.append((caught.value.exit_code, time.monotonic() - began))

    with store.hold(KEY, Deadline(5)):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        store.put(KEY, token())
    assert waited[0][0] == 11
    assert 0.1 < waited[0][1] < 2
    assert (deadline.stage, deadline.error) == ("the server", ConfigError)
    assert store.get(KEY) == token()
    with store.hold(KEY, Deadline(0)):
        pass


def test_while_it_waits_the_deadline_says_for_what(store):
    deadline = Deadline(5)
    with store.hold(KEY, Deadline(5)):
        thread = threading.Thread(target=lambda: store.hold(KEY, deadline).__enter__(), daemon=True)
        thread.start()
        time.sleep(0.1)
        assert "fetches the same access token" in deadline.stage
        assert "another" in deadline.exceeded().message
    thread.join(5)
    assert deadline.stage == "the token"


def test_twenty_threads_make_one_exchange(store):
    exchanges: list[str] = []
    served: list[str] = []
    barrier = threading.Barrier(20)

    def serve(name: str):
        barrier.wait()
        got = store.get(KEY)
        if got is None:
            with store.hold(KEY, Deadline(30)):
                got = store.get(KEY)
                if got is None:
                    exchanges.append(name)
                    time.sleep(0.1)
                    got = token(name)
                    store.put(KEY, got)
        served.append(got.value)

    threads = [threading.Thread(target=serve, args=(f"t{n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exchanges) == 1
    assert served == exchanges * 20
