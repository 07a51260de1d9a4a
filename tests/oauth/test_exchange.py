from __future__ import annotations

from email.utils import formatdate
from urllib.parse import parse_qsl

import pytest
from servers.answers import JWT, NOW, SECRET, TOKEN, answer, read, refused, request, token

from hsmjwt.errors import ServerError, UsageError
from hsmjwt.oauth.exchange import (
    read_answer,
)


def test_the_seeds_request_has_its_three_fields_in_order():
    made = request(client_secret=None)
    names = [name for name, _ in made.form]
    assert names == ["grant_type", "client_id", "assertion"]
    assert made.form[0][1] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert made.method == "POST"
    assert parse_qsl(made.body.decode()) == list(made.form)


def test_a_client_secret_follows_the_client_id_and_further_fields_come_last():
    names = [name for name, _ in request(scope="a b", form={"resource": "r", "x": "y"}).form]
    assert names == ["grant_type", "client_id", "client_secret", "assertion", "scope", "resource", "x"]


def test_a_client_assertion_authenticates_the_client():
    made = request(grant="client-assertion", client_secret=None, scope="s")
    assert made.form == (
        ("grant_type", "client_credentials"),
        ("client_id", "cid"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", JWT),
        ("scope", "s"),
    )


def test_each_request_asks_for_json():
    assert request().headers["Accept"] == "application/json"
    assert request().headers["User-Agent"].startswith("hsmjwt/")


@pytest.mark.parametrize("name", ["grant_type", "assertion", "client_assertion", "client_id"])
def test_a_field_that_is_set_already_cannot_be_added(name):
    with pytest.raises(UsageError, match=name):
        request(form={name: "x"})


def test_a_client_secret_beside_a_client_assertion_is_refused():
    with pytest.raises(UsageError, match="client secret"):
        request(grant="client-assertion")


def test_half_a_surrogate_pair_in_the_form_is_refused():
    with pytest.raises(UsageError, match="scope"):
        request(scope="a\udc80")


def test_a_request_shows_none_of_its_secrets():
    made = request(form={"password": "hunter2-hunter2"})
    for shown in (repr(made), str(made), str(made.shown_form()), str(made.__rich_repr__())):
        assert JWT not in shown
        assert SECRET not in shown
        assert "hunter2" not in shown
        assert "cid" in shown
    assert set(made.sent) == {JWT, SECRET, "hunter2-hunter2"}
    assert made.shown_form()["assertion"] == "***"


def test_an_answer_does_not_show_its_body():
    assert TOKEN not in repr(answer(token()))
    assert TOKEN not in str(answer(token()).__rich_repr__())


def test_the_seeds_answer_is_taken_with_its_members_as_received():
    got = read({"access_token": TOKEN, "expires_in": 3600, "token_type": "bearer", "scope": None, "success": True})
    assert got.value == TOKEN
    assert got.token_type == "bearer"
    assert (got.fetched_at, got.expires_at) == (NOW, NOW + 3600)
    assert got.members == {"token_type": "bearer", "scope": None, "success": True}


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, 3600),
        ("3600", 3600),
        (3599.5, 3599.5),
        ("3599.5", 3599.5),
        (3600.0, 3600),
        ("3.6e3", 3600),
        (1, 1),
        (315359999, 315359999),
    ],
)
def test_a_life_is_a_number_or_numeric_text(expires_in, life):
    assert read(token(expires_in=expires_in)).expires_at == NOW + life


@pytest.mark.parametrize("expires_in", [0, 0.0, -0.0, "0", "0.0", "", None])
def test_no_life_is_no_reason_to_refuse(expires_in):
    got = read(token(expires_in=expires_in))
    assert got.expires_at is None
    assert "expires_in" not in got.members


def test_an_absent_life_is_no_reason_to_refuse():
    assert read(token()).expires_at is None


@pytest.mark.parametrize(
    "expires_in",
    [
        True,
        False,
        -1,
        -0.5,
        "-1",
        "soon",
        "3600s",
        " 3600",
        "1_000",
        "٣٦٠٠",
        "NaN",
        "Infinity",
        "1e999",
        "0x10",
        [3600],
        [],
        {},
        {"s": 3600},
        315576000,
        "315576000",
        10**20,
        "9" * 5000,
        "1 hour",
        " ",
        "\x1b[31m",
    ],
)
def test_any_other_life_is_refused(expires_in):
    error = refused(token(expires_in=expires_in))
    assert isinstance(error, ServerError)
    assert "expires_in" in error.message
    assert TOKEN not in error.message
    assert error.message.isprintable()


def test_adobes_expires_is_a_time_by_the_servers_clock():
    assert read(token(expires=NOW + 600)).expires_at == NOW + 600
    assert read(token(expires=NOW + 600), Date=formatdate(NOW + 100, usegmt=True)).expires_at == NOW + 500
    assert read(token(expires=NOW + 600)).members["expires"] == NOW + 600


@pytest.mark.parametrize("expires", [3600, "never", None, [], NOW - 1, NOW * 1000])
def test_an_expires_that_is_no_time_to_come_is_not_read(expires):
    assert read(token(expires=expires)).expires_at is None


def test_expires_in_goes_before_expires():
    assert read(token(expires_in=60, expires=NOW + 600)).expires_at == NOW + 60
    assert read(token(expires_in=0, expires=NOW + 600)).expires_at is None


def test_every_visible_ascii_character_is_good_in_a_token():
    value = "".join(map(chr, range(0x21, 0x7F)))
    assert read({"access_token": value, "token_type": "Bearer"}).value == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        7,
        True,
        ["AT-marker-51c2"],
        {"v": "AT-marker-51c2"},
        "AT marker-51c2",
        "AT-marker\n51c2",
        "AT-märker",
        "AT-marker-51c2 ",
        '"; touch PWNED #',
        "AT-marker\x7f",
        "AT-marker\x00",
    ],
)
def test_an_access_token_that_is_none_is_refused_and_not_shown(value):
    error = refused({"access_token": value, "token_type": "Bearer"})
    assert isinstance(error, ServerError)
    assert "access_token" in error.message
    assert "marker" not in error.message
    assert "PWNED" not in error.message


@pytest.mark.parametrize("value", [None, "", 7, ["Bearer"], "mac", "DPoP", "Bearer "])
def test_a_token_type_that_cannot_be_used_is_refused(value):
    error = refused({"access_token": TOKEN, "token_type": value})
    assert isinstance(error, ServerError)
    assert "type" in error.message
    assert TOKEN not in error.message


def test_the_caller_says_which_token_types_it_can_use():
    taken = read_answer(answer(token(token_type="DPoP")), request=request(), token_types=("bearer", "dpop"))
    assert taken.token_type == "DPoP"
