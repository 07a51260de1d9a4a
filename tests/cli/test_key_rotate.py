"""`hsmjwt key rotate`: a new key is put into use once the provider takes it, and never before."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.checks import refused
from cryptography import x509
from servers.granting import claims_of, granted, write_config
from servers.scripted import Line, Reply, Server, json_reply

from hsmjwt.demo import Client, DemoServer

CONFIG = """\
# kept: to the byte
[keys.svc]
uri = "pkcs11:token=t1;object=k1"   # which key
{table}
[profiles.svc]
key = "svc"
client_id = "ci"
issuer = "ci"
token_url = "{url}"
{more}"""
REFUSED = json_reply({"error": "invalid_grant"}, status=400)
DOWN = json_reply({"error": "temporarily_unavailable"}, status=500)


class Case:
    """A config whose profile `svc` signs with k1, and a server that reads the JWK set which is published."""

    def __init__(self, folder: Path, quick, url: str) -> None:
        self.folder, self.quick, self.url = folder, quick, url
        self.web = folder / "web"
        self.web.mkdir(exist_ok=True)
        self.write()

    def write(self, table: str = "", more: str = "", uri: str = "pkcs11:token=t1;object=k1") -> None:
        text = CONFIG.format(url=self.url, table=table, more=more).replace("pkcs11:token=t1;object=k1", uri)
        self.config = Path(write_config(self.folder, text))

    def __call__(self, *args: str, **more: Any):
        return self.quick(*args, HSMJWT_CONFIG=str(self.config), HSMJWT_KEY=None, **more)

    def rotate(self, *args: str, **more: Any):
        return self("key", "rotate", "svc", *args, **more)

    def state(self, *args: str, **more: Any) -> dict[str, Any]:
        done = self.rotate("--json", *args, **more)
        assert done.code == 0, done.err
        value: dict[str, Any] = json.loads(done.out)
        return value

    def uri(self) -> str:
        return next(line.split('"')[1] for line in self.config.read_text().splitlines() if line.startswith("uri = "))

    def state_file(self) -> Path:
        (path,) = (self.folder / "token/home/.local/state/hsmjwt/rotation").glob("*.json")
        return path

    def certificate(self, state: dict[str, Any]) -> x509.Certificate:
        _, _, path = state["files"]
        return x509.load_pem_x509_certificate(Path(path).read_bytes())

    def published(self, folder: Path | None = None) -> list[str]:
        return [each["kid"] for each in json.loads(((folder or self.web) / "jwks.json").read_text())["keys"]]

    def thumbprint(self, uri: str) -> str:
        return str(json.loads(self("key", "show", uri, "--json").out)["thumbprint"])

    def labels(self) -> list[str]:
        rows = json.loads(self("key", "list", "--key", "pkcs11:token=t1", "--json").out)
        return sorted(row["label"] for row in rows)


@pytest.fixture
def case(tmp_path, quick) -> Iterator[Case]:
    """The server trusts what `web/jwks.json` holds at each request, k1 at first."""
    made = Case(tmp_path, quick, "http://127.0.0.1:1/token")
    (made.web / "jwks.json").write_text(made("jwks", "keys.svc").out)
    with DemoServer([Client(client_id="ci", jwks=str(made.web / "jwks.json"))]) as server:
        made.url = server.token_url
        made.write()
        yield made


@pytest.fixture
def scripted(tmp_path, quick) -> Iterator[Callable[..., tuple[Case, Server]]]:
    """Make a case whose server gives these replies, the last one again and again."""
    with contextlib.ExitStack() as stack:

        def start(*replies: Reply) -> tuple[Case, Server]:
            server = stack.enter_context(Server(*replies))
            return Case(tmp_path, quick, server.url()), server

        yield start


def test_one_run_makes_publishes_tries_and_switches_where_the_server_reads_what_is_published(case):
    old_text, old = case.config.read_text(), case.thumbprint("pkcs11:token=t1;object=k1")
    assert case("token", "svc").code == 0
    state = case.state("--out", str(case.web), "--grace", "1h")
    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert (state["step"], state["label"], state["kind"], state["alg"]) == (
        "switched",
        f"k1-{day}",
        "rsa:2048",
        "RS256",
    )
    new = case.uri()
    assert new == state["new"]["uri"]
    assert f"object=k1-{day};" in new
    assert case.config.read_text() == old_text.replace("pkcs11:token=t1;object=k1", new)
    assert case.published() == [old, case.thumbprint(new)] == [state["old"]["thumbprint"], state["new"]["thumbprint"]]
    assert case.certificate(state).subject.rfc4514_string() == f"CN=k1-{day}"
    assert case("verify", case("sign", "svc").out.strip(), "--public-key", state["files"][1]).code == 0
    assert all(Path(path).stat().st_mode & 0o777 == 0o644 for path in state["files"])
    fresh = case("token", "svc", "--json")
    assert json.loads(fresh.out)["cached"] is False


def test_in_the_grace_both_are_published_and_after_it_the_new_one_alone(case):
    state = case.state("--out", str(case.web), "--grace", "2d")
    assert (state["step"], len(case.published())) == ("switched", 2)
    assert case.state(steps=[("clock", 172700)])["step"] == "switched"
    assert "the old key stays published until" in case.rotate().out
    done = case.state(steps=[("clock", 172900)])
    assert (done["step"], done["old_deleted"]) == ("retired", False)
    assert case.published() == [state["new"]["thumbprint"]]
    assert len(case.labels()) == 2
    assert case("token", "svc", "--fresh").code == 0


def test_the_old_key_is_deleted_where_that_is_asked_for_and_confirmed(case):
    case.state("--out", str(case.web), "--grace", "0")
    assert case.state("--delete-old", "--yes")["old_deleted"] is True
    assert case.labels() == [f"k1-{time.strftime('%Y-%m-%d', time.gmtime())}"]
    refused(case.rotate("--delete-old", "--yes"), 2, "has left an old key to delete")
    assert len(case.labels()) == 1


def test_without_a_yes_nothing_is_deleted_and_no_new_rotation_begins(case):
    case.state("--out", str(case.web), "--grace", "0")
    done = case.rotate("--delete-old")
    assert (done.code, done.out) == (2, "")
    assert "there is no terminal on which to ask" in done.err
    assert len(case.labels()) == 2
    assert case.state("--delete-old", "--yes")["step"] == "retired"


def test_an_old_key_that_somebody_deleted_is_gone_all_the_same(case):
    case.state("--out", str(case.web), "--grace", "0")
    assert case("key", "delete", "pkcs11:token=t1;object=k1", "--yes").code == 0
    assert case.state("--delete-old", "--yes")["old_deleted"] is True


def test_delete_old_deletes_nothing_in_the_grace(case):
    case.state("--out", str(case.web), "--grace", "1h")
    waiting = case.state("--delete-old", "--yes")
    assert waiting["step"] == "switched"
    assert "and is not deleted before: run it again" in waiting["next"]
    assert len(case.labels()) == 2


def test_the_next_rotation_begins_from_the_new_key_and_publishes_where_the_last_one_did(case):
    first = case.state("--out", str(case.web), "--grace", "0")
    second = case.state("--next", "--grace", "0")
    assert second["old"] == first["new"]
    assert (second["label"], second["out"]) == (f"{first['label']}.2", str(case.web))
    assert case.state("--delete-old", "--yes")["old_deleted"] is True
    third = case.state("--grace", "0")
    assert third["old"] == second["new"]
    assert third["label"] == first["label"]  # the day is behind the first one's label, and that name is free again
    assert case.published() == [third["new"]["thumbprint"]]


def test_a_run_too_many_begins_no_rotation(case):
    first = case.state("--out", str(case.web), "--grace", "0")
    again = case.state()
    assert {**again, "next": None} == {**first, "next": None}
    assert len(case.labels()) == 2
    refused(case.rotate("--to", "pkcs11:token=t1;object=k1"), 2, "--to: this rotation is to pkcs11:", hint="--next")
    refused(case.rotate("--abandon"), 2, "could be given up", hint="--next --to OLD-KEY goes back")
    refused(case.rotate("--next", "--delete-old"), 2, "--next keeps the old key")


def test_what_the_config_names_of_the_key_in_use_stays_while_the_next_one_is_not_taken(scripted):
    case, _ = scripted(granted(), REFUSED)
    (case.folder / "old.pem").write_text(case("cert", "self-signed", "keys.svc", "--subject", "CN=svc").out)
    (case.folder / "old.pub").write_text(case("key", "export", "keys.svc").out)
    case.write(table='certificate = "old.pem"\npublic_key = "old.pub"\n')
    case.state("--out", str(case.web), "--grace", "0")
    refused(case.rotate("--next"), 10)
    assert len(json.loads(case("jwks", "keys.svc").out)["keys"][0]["x5c"]) == 1
    assert case("sign", "svc", "--aud", "x").code == 0


def test_any_profile_of_the_table_goes_on_with_its_rotation(case):
    case.write(more=f'kid = "given"\n[profiles.b]\nkey = "svc"\nissuer = "ci"\ntoken_url = "{case.url}"\n')
    refused(case.rotate("--out", str(case.web)), 2, "sends the kid 'given'")
    done = case("key", "rotate", "b", "--kid", "given-2", "--grace", "0", "--json")
    state = json.loads(done.out)
    assert (state["step"], state["profile"], case.published()) == ("retired", "svc", ["given-2"])
    assert len(case.labels()) == 2
    assert 'kid = "given-2"' in case.config.read_text()


def test_a_set_that_somebody_wrote_meanwhile_gets_both_keys_again(case):
    def overwrite() -> None:
        (case.web / "jwks.json").write_text(case("jwks", "keys.svc").out)

    case.write(more='kid = "given"\n')
    refused(case.rotate("--out", str(case.web)), 2)
    case.write()
    overwrite()
    state = case.state("--grace", "1h")
    assert (state["step"], len(case.published())) == ("switched", 2)
    overwrite()
    assert case.state()["step"] == "switched"
    assert case.published() == ["given", state["new"]["thumbprint"]]  # as it was known when that began


def test_a_key_that_becomes_protected_on_the_way_is_not_switched(case):
    case.write(more='kid = "given"\n')
    refused(case.rotate("--out", str(case.web)), 2)
    case.write(table="protected = true\n")
    refused(case.rotate(), 8, "[keys.svc]", "may not be rotated")
    assert case.uri() == "pkcs11:token=t1;object=k1"


def test_a_config_that_is_changed_while_the_server_thinks_is_not_written_over(scripted, token):
    token.make_key("third", "03")

    def edit_and_grant(line: Line) -> None:
        case.write(uri="pkcs11:token=t1;object=third")
        granted()(line)

    case, _ = scripted(edit_and_grant, granted())
    refused(case.rotate(), 11, "was changed meanwhile", hint="run it again")
    assert case.uri() == "pkcs11:token=t1;object=third"
    refused(case.rotate(), 3, "names neither the old key nor the new one", hint="--abandon")
    assert case.rotate("--abandon").code == 0
    assert case.state()["step"] == "switched"


def test_keys_of_others_in_the_published_set_stay(case):
    other = {"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ", "kid": "other", "odd": [1]}
    there = json.loads((case.web / "jwks.json").read_text())["keys"]
    (case.web / "jwks.json").write_text(json.dumps({"keys": [other, *there]}))
    case.state("--out", str(case.web), "--grace", "0")
    keys = json.loads((case.web / "jwks.json").read_text())["keys"]
    assert keys[0] == other
    assert [each["kid"] for each in keys[1:]] == [case.thumbprint(case.uri())]


def test_a_provider_that_takes_the_old_key_alone_keeps_it_in_use_until_it_knows_the_new_one(case, tmp_path):
    """As one to whose console the key is to be uploaded: the folder is none that it reads."""
    before = case.config.read_text()
    for _ in range(2):
        done = case.rotate("--grace", "0")
        refused(done, 10, "signature does not verify", hint="nothing was switched: upload what it wants of ")
    assert case.config.read_text() == before
    assert case("token", "svc").code == 0
    assert len(case.labels()) == 2  # the second run took the first one's key
    jwks = Path(done.err.partition("upload what it wants of ")[2].partition(",")[0])
    assert jwks.is_relative_to(tmp_path)
    (case.web / "jwks.json").write_text(jwks.read_text())  # the upload
    assert case.state()["step"] == "retired"
    assert case.thumbprint(case.uri()) == case.published(jwks.parent)[0]


def test_a_server_that_is_down_keeps_the_old_key_and_the_state(scripted):
    case, _ = scripted(DOWN, granted())
    before = case.config.read_text()
    refused(case.rotate("--timeout", "20s"), 9)
    assert case.config.read_text() == before
    assert case.state()["step"] == "switched"
    assert len(case.labels()) == 2


def test_the_exchange_that_tries_the_new_key_is_a_real_one_and_never_the_cache(scripted):
    case, server = scripted(granted())
    assert case("token", "svc").code == 0
    assert case.state()["step"] == "switched"
    assert len(server.requests) == 2
    assert case("token", "svc").code == 0
    assert len(server.requests) == 3  # the new key has no cached token yet


def test_all_profiles_of_the_table_must_be_taken(scripted):
    case, server = scripted(granted(), REFUSED, granted())
    signs = '[profiles.c]\nkey = "svc"\nissuer = "c"\naudience = "x"\n'
    case.write(more=f'[profiles.b]\nkey = "svc"\nissuer = "b"\ntoken_url = "{case.url}"\n{signs}')
    before = case.config.read_text()
    refused(case.rotate(), 10, "invalid_grant")
    assert case.config.read_text() == before
    assert case.state()["step"] == "switched"
    assert [claims_of(request)["iss"] for request in server.requests] == ["ci", "b", "ci", "b"]


@pytest.mark.parametrize("where", ["svc", "other"])
def test_a_protected_key_is_never_rotated(case, where):
    table = "protected = true\n"
    case.write(table=table if where == "svc" else f'[keys.other]\nuri = "pkcs11:token=t1;id=%01"\n{table}')
    refused(case.rotate(), 8, f"[keys.{where}]", "may not be rotated", hint="protected = true")
    assert case.labels() == ["k1"]


def test_a_kid_that_the_provider_gave_is_asked_for_and_then_changed_with_the_key(case):
    case.write(more='kid = "given-1"\n')
    keys = json.loads((case.web / "jwks.json").read_text())
    keys["keys"][0]["kid"] = "given-1"
    (case.web / "jwks.json").write_text(json.dumps(keys))
    assert case("token", "svc").code == 0
    refused(
        case.rotate("--out", str(case.web)), 2, "sends the kid 'given-1', which names the old key", hint="--kid TEXT"
    )
    assert case.published() == ["given-1", case.thumbprint(f"pkcs11:token=t1;object={case.labels()[1]}")]
    state = case.state("--kid", "given-2", "--grace", "0")
    assert state["step"] == "retired"
    assert case.published() == ["given-2"]
    assert 'kid = "given-2"\n' in case.config.read_text()
    assert case("token", "svc", "--fresh").code == 0


def test_a_kid_that_is_the_thumbprint_follows_the_key(case):
    case.write(more=f'headers = {{ kid = "{case.thumbprint("pkcs11:token=t1;object=k1")}" }}\n')
    assert case.state("--out", str(case.web), "--grace", "0")["step"] == "retired"
    assert f'headers = {{ kid = "{case.thumbprint(case.uri())}" }}\n' in case.config.read_text()
    assert case("token", "svc", "--fresh").code == 0


def test_what_else_the_table_says_of_the_key_changes_with_it(case):
    (case.folder / "old.pem").write_text(case("key", "export", "keys.svc").out)
    thumbprint = case.thumbprint("pkcs11:token=t1;object=k1")
    case.write(table=f'thumbprint = "{thumbprint}"\npublic_key = "old.pem"\nrequire = "device-born"\nalg = "RS256"\n')
    assert case("token", "svc").code == 0
    case.state("--out", str(case.web), "--grace", "0")
    text, new = case.config.read_text(), case.thumbprint(case.uri())
    assert f'thumbprint = "{new}"\npublic_key = "{case.web}/public-{new}.pem"\n' in text
    assert case("token", "svc", "--fresh").code == 0


def test_where_the_table_lists_several_algorithms_the_new_key_is_for_them_all(case):
    case.write(table='alg = ["PS256", "RS256"]\n')
    state = case.state("--out", str(case.web), "--grace", "0")
    assert (state["step"], state["alg"]) == ("retired", "PS256")
    assert "alg" not in state["old"]["jwk"]
    assert "alg" not in state["new"]["jwk"]
    shown = json.loads(case("key", "show", case.uri(), "--json").out)
    assert set(shown["algorithms"]) == {"PS256", "RS256"}
    assert case("sign", "svc", "--alg", "RS256").code == 0


def test_the_certificate_of_the_table_is_renewed_and_published_in_the_set(case):
    assert case("cert", "self-signed", "keys.svc", "--subject", "CN=svc,O=Example Inc.,C=NO").code == 0
    (case.folder / "old.pem").write_text(case("cert", "self-signed", "keys.svc", "--subject", "CN=svc,O=X,C=NO").out)
    case.write(table='certificate = "old.pem"\n')
    state = case.state("--out", str(case.web), "--grace", "1h")
    assert f'certificate = "{state["files"][2]}"\n' in case.config.read_text()
    assert case.certificate(state).subject.rfc4514_string() == "CN=svc,O=X,C=NO"
    old, new = json.loads((case.web / "jwks.json").read_text())["keys"]
    assert (len(old["x5c"]), len(new["x5c"])) == (1, 1)


def test_a_key_that_is_there_already_can_be_rotated_to(case, token):
    token.make_key("spare", "05")
    refused(case.rotate("--to", "pkcs11:token=t1;object=k1"), 2, "--to names the key that is in use already")
    refused(case.rotate("--to", "pkcs11:token=t1;object=none"), 6, "no key fits")
    state = case.state("--to", "pkcs11:token=t1;object=spare", "--out", str(case.web), "--grace", "1h")
    assert (state["step"], state["label"]) == ("switched", None)
    assert "object=spare;id=%05" in case.uri()
    assert case.labels() == ["k1", "spare"]


def test_a_key_on_another_token_is_none_to_rotate_to(case, token):
    """The table says of one token alone how to open it."""
    token.make_token("t2", "87654321")
    refused(case.rotate("--to", "pkcs11:token=t2;object=k1"), 2, "on another token than that of [keys.svc]")
    assert case.uri() == "pkcs11:token=t1;object=k1"


def test_a_key_that_the_table_forbids_is_not_switched_to(case):
    (case.folder / "strict.toml").write_text('extends = "device-born"\n[rules.bits]\nmin = 100000\nwhy = "none has"\n')
    (case.folder / "strict.toml").chmod(0o600)
    case.write(table='require = "./strict.toml"\n')
    refused(case.rotate("--out", str(case.web)), 8)
    assert case.uri() == "pkcs11:token=t1;object=k1"
    case.write()
    assert case.state()["step"] == "switched"


def test_a_key_past_its_day_is_rotated_and_the_switch_waits_for_the_new_day(case):
    case.write(table="not_after = 2024-01-01\n")
    refused(case.rotate("--out", str(case.web)), 8, "keys.svc.not_after")
    assert case.uri() == "pkcs11:token=t1;object=k1"
    assert len(case.labels()) == 2
    case.config.write_text(case.config.read_text().replace("2024", "2034"))
    assert case.state()["step"] == "switched"


@pytest.mark.parametrize("query", ["pin-value=31415926", "pin-source=file:{pin}"])
def test_how_the_uri_reaches_the_token_stays_and_a_pin_in_it_is_shown_nowhere(case, token, query):
    query = query.format(pin=token.pin_file)
    case.write(uri=f"pkcs11:token=t1;object=k1?{query}")
    fresh = Path(f"{case.config}.new")
    fresh.mkdir()
    done = case.rotate("--out", str(case.web), HSMJWT_PIN_SOURCE=None)
    assert (done.code, done.out) == (3, "")
    fresh.rmdir()
    again = case.rotate("--grace", "0", "--json", HSMJWT_PIN_SOURCE=None)
    assert again.code == 0, again.err
    assert case.uri().endswith(f";type=private?{query}")
    assert case("token", "svc", "--fresh", HSMJWT_PIN_SOURCE=None).code == 0
    assert "31415926" not in done.err + again.out + again.err + case.state_file().read_text()


def test_another_table_of_the_old_key_is_told_of_and_left(case):
    other = '[keys.other]\nuri = "pkcs11:token=t1;id=%01"\n'
    case.write(table=other)
    done = case.rotate("--out", str(case.web))
    assert (done.code, done.err) == (0, "hsmjwt: [keys.other] means the old key, too, and is not switched\n")
    assert other in case.config.read_text()


def test_a_config_that_cannot_be_written_gets_the_lines_told_and_is_taken_as_the_user_writes_it(case):
    fresh = Path(f"{case.config}.new")
    fresh.mkdir()  # in the way of the new file, also for root
    done = case.rotate("--out", str(case.web), "--grace", "0")
    refused(done, 3, "cannot be written", "the switch is yours to make", hint='keys.svc.uri = "pkcs11:token=t1;')
    assert case.uri() == "pkcs11:token=t1;object=k1"
    label = case.labels()[1]
    case.write(uri=f"pkcs11:object={label};token=t1")
    before = case.config.read_text()
    assert case.state()["step"] == "retired"
    assert case.config.read_text() == before


def test_a_mode_that_forbids_to_write_the_config_means_it(person):
    with Server(granted()) as server:
        case = Case(person.folder, person, server.url())
        os.chown(case.config, person.uid, person.uid if os.geteuid() == 0 else -1)
        case.config.chmod(0o400)
        before = case.config.read_text()
        refused(case.rotate(), 3, "cannot be written: permission denied", hint='keys.svc.uri = "pkcs11:token=t1;')
        assert case.config.read_text() == before
        case.config.chmod(0o600)
        assert case.state()["step"] == "switched"


def test_a_rotation_that_has_not_switched_can_be_given_up(case):
    old = case.published()
    case.write(more='kid = "given"\n')
    refused(case.rotate("--out", str(case.web)), 2, "sends the kid")
    assert len(case.published()) == 2
    done = case.rotate("--abandon")
    assert (done.code, done.err) == (0, "")
    assert "hsmjwt key delete 'pkcs11:token=t1;" in done.out
    assert len(case.published()) == len(old)
    refused(case.rotate("--abandon"), 2, "no rotation of the profile 'svc' is under way")
    case.write()
    case.state("--out", str(case.web))
    refused(case.rotate("--abandon"), 2, "no rotation of the profile 'svc' is under way")


def test_a_switch_that_somebody_took_back_keeps_the_old_key_published_and_can_be_given_up(case):
    state = case.state("--out", str(case.web), "--grace", "0s")
    assert state["step"] == "retired"
    again = case.state("--next", "--out", str(case.web), "--grace", "1h")
    case.write(uri=again["old"]["uri"])
    refused(
        case.rotate("--grace", "0"), 3, "names not the new key, which it was switched to", hint="--abandon gives it up"
    )
    assert case.published() == [again["old"]["thumbprint"], again["new"]["thumbprint"]]
    assert case.rotate("--abandon").code == 0
    assert case.published() == [again["old"]["thumbprint"]]
    assert case("token", "svc", "--fresh").code == 0


def test_an_old_key_that_the_config_still_names_is_not_deleted(case):
    case.state("--out", str(case.web), "--grace", "0")
    new = case.uri()
    case.write(uri=new, table='[keys.other]\nuri = "pkcs11:token=t1;id=%01"\n')
    refused(case.rotate("--delete-old", "--yes"), 3, "still named by [keys.other]", hint="nothing was deleted")
    assert len(case.labels()) == 2
    case.write(uri="pkcs11:token=t1;object=k1")
    refused(case.rotate("--delete-old", "--yes"), 3, "still named by [keys.svc]")
    assert len(case.labels()) == 2


def test_another_wish_than_the_one_under_way_is_refused(case, tmp_path, token):
    token.make_key("spare", "05")
    case.write(more='kid = "given"\n')
    assert case.rotate("--out", str(case.web)).code == 2
    refused(case.rotate("--out", str(tmp_path)), 2, f"--out: this rotation publishes in '{case.web}'")
    refused(case.rotate("--to", "pkcs11:token=t1;object=spare"), 2, "--to: this rotation is to pkcs11:token=t1;")
    case.write(uri="pkcs11:token=t1;object=spare")
    refused(case.rotate(), 3, "neither the old key nor the new one", hint="--abandon gives it up")


@pytest.mark.parametrize(
    ("uri", "table", "code", "words"),
    [
        ("pkcs11:token=t1", "", 3, "names no key in particular"),
        ("pkcs11:token=t1;object=no", "", 6, "no key fits"),
        ("pkcs11:token=t9;object=k1", "", 4, "no token fits"),
    ],
)
def test_what_cannot_be_rotated_is_said_before_anything_is_made(case, uri, table, code, words):
    case.write(table=table, uri=uri)
    refused(case.rotate(), code, words)
    assert case.labels() == ["k1"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "no profile is named"),
        (("nobody",), 3, "no profile 'nobody'"),
        (("svc", "--grace", "soon"), 2, "--grace: "),
        (("svc", "--yes"), 2, "--yes is for --delete-old"),
        (("svc", "--out", ""), 2, "--out is empty"),
        (("svc", "--abandon", "--next"), 2, "--abandon goes with none of the other flags"),
        (("svc", "--abandon", "--delete-old"), 2, "--abandon goes with none of the other flags"),
        (("svc", "--to", "keys.none"), 3, "there is no key table 'none'"),
        (("svc", "--delete-old"), 2, "has left an old key to delete"),
        (("svc", "--key", "pkcs11:"), 2, "there is no flag '--key'"),
    ],
)
def test_a_call_that_cannot_be_meant(case, args, code, words):
    refused(case("key", "rotate", *args), code, words)
    assert case.labels() == ["k1"]


def test_a_profile_without_a_key_table_has_nothing_to_switch(case):
    case.config.write_text(case.config.read_text().replace('key = "svc"\n', ""))
    done = case.quick("key", "rotate", "svc", HSMJWT_CONFIG=str(case.config))
    refused(done, 3, "names no key table, so there is nothing to switch")


DAMAGED: list[dict[str, Any]] = [
    {"version": 2},
    {"step": "made", "new": None},
    {"step": "planned", "new": None, "label": None},
    {"step": "planned", "new": None, "kind": "p9"},
    {"step": "gone"},
    {"times": {}},
    {"times": {"switched": "yesterday"}},
    {"grace_ends": None},
    {"grace_ends": "2026-01-01T00:00:00"},
    {"grace": -1},
    {"grace": 1e300},
    {"alg": "HS256"},
    {"out": "web"},
    {"old": {"uri": "k1", "thumbprint": "", "jwk": {"kty": "RSA", "kid": ""}}},
    {"old": {"uri": "pkcs11:object=k1", "thumbprint": "", "jwk": {}}},
]


def test_a_state_that_makes_no_sense_is_not_guessed_at(case):
    case.state("--out", str(case.web))
    path, config = case.state_file(), case.config.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    good = json.loads(path.read_text())
    for text in ("", "{}", '{"version": 1', '"x"', *(json.dumps(good | change) for change in DAMAGED)):
        path.write_text(text)
        refused(case.rotate("--grace", "1h"), 3, "makes no sense", "another version's")
        assert path.read_text() == text
    assert case.config.read_text() == config


def test_the_longest_grace_ends_with_the_calendar(case):
    assert case.state("--out", str(case.web), "--grace", "2932000d")["grace_ends"] == "9999-12-31T23:59:59Z"


def test_a_folder_that_takes_nothing_is_exit_3_and_the_run_after_it_goes_on(case):
    (case.folder / "file").write_text("")
    refused(case.rotate("--out", str(case.folder / "file" / "web")), 3, "cannot be", hint="--out names another folder")
    os.unlink(case.folder / "file")
    refused(case.rotate(), 10)
    assert len(case.labels()) == 2
