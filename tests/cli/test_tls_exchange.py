"""`hsmjwt token` over https: which certificates are believed, what is said of others; a retired provider."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from servers.granting import MARK, flags, granted, write_config
from servers.scripted import Ca, Server, reply, tunnel


@pytest.fixture(scope="module")
def ca(tmp_path_factory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


def test_a_companys_own_ca_is_believed_where_it_is_named(quick, ca):
    with Server(granted(), tls=ca.context("127.0.0.1")) as server:
        done = quick("token", *flags(server.url()), "--ca-file", ca.file)
        assert (done.code, done.out) == (0, f"{MARK}\n")
        done = quick("token", *flags(server.url(), "--scope", "other"), SSL_CERT_FILE=ca.file)
        assert (done.code, done.out) == (0, f"{MARK}\n")


@pytest.mark.parametrize(
    ("name", "ends", "words"),
    [
        ("127.0.0.1", 1, "comes from a CA that is not trusted here"),
        ("127.0.0.2", 1, "is for another address"),
        ("127.0.0.1", -1, "has expired"),
    ],
    ids=["unknown CA", "another address", "expired"],
)
def test_a_certificate_that_does_not_hold_is_told_once_and_not_tried_again(quick, ca, name, ends, words):
    with Server(granted(), tls=ca.context(name, begins=-2, ends=ends)) as server:
        done = quick("token", *flags(server.url()), SSL_CERT_FILE=None if "CA" in words else ca.file)
    assert (done.code, done.out) == (9, "")
    assert words in done.err
    assert server.accepted == 1
    assert server.requests == []


def test_a_server_without_tls_is_not_tried_again(quick):
    with Server(reply(b"plain http", status=400), deaf=True) as server:
        done = quick("token", *flags(server.url().replace("http", "https")))
    assert (done.code, done.out) == (9, "")
    assert f"the server '127.0.0.1:{server.port}' does not speak TLS on this port" in done.err
    assert server.accepted == 1


def test_a_ca_file_that_is_none_costs_no_signature(quick, token):
    done = quick("token", *flags("https://127.0.0.1:1/t"), "--ca-file", str(token.pin_file), "--verbose")
    assert (done.code, done.out) == (3, "")
    assert f"the CA file '{token.pin_file}' holds no certificate" in done.err
    assert "signed by" not in done.err


def test_the_key_log_variable_is_dropped_with_a_warning(quick, ca, tmp_path):
    log = tmp_path / "keys"
    with Server(granted(), tls=ca.context("127.0.0.1")) as server:
        done = quick("token", *flags(server.url()), "--ca-file", ca.file, SSLKEYLOGFILE=str(log))
    assert done.code == 0
    assert "warning: SSLKEYLOGFILE is set and was ignored" in done.err
    assert not log.exists()


def test_a_retired_provider_is_warned_of_once_a_day_for_each_profile(quick, token, ca, tmp_path):
    """The provider's own host, behind a proxy that leads here."""
    text = ""
    for name in ("one", "two"):
        text += f'[profiles.{name}]\nprovider = "adobe-analytics"\nclient_id = "c"\nsubject = "{name}@AdobeOrg"\n'
        text += f'ca_file = "{ca.file}"\n'
    config = write_config(tmp_path, text)
    with Server(granted(), tls=ca.context("api.omniture.com")) as server, Server(tunnel(server.port)) as proxy:

        def warned(profile: str) -> bool:
            through = f"http://127.0.0.1:{proxy.port}"
            done = quick("token", profile, "--config", config, HTTPS_PROXY=through)
            assert (done.code, done.out) == (0, f"{MARK}\n"), done.err
            assert done.err.count("Adobe retired this grant on 2021-08-18") == len(done.err.splitlines())
            return bool(done.err)

        assert [warned("one"), warned("one"), warned("two"), warned("two")] == [True, False, True, False]
        assert len(server.requests) == 2
        stamps = list((Path(token.environ()["HOME"]) / ".local/state/hsmjwt").glob("retired-*"))
        assert len(stamps) == 2
        for stamp in stamps:
            os.utime(stamp, (time.time() - 86401,) * 2)
        assert warned("one")
        os.utime(next(iter(stamps)), (time.time() + 900,) * 2)  # a clock that was set back
        assert warned("one") or warned("two")


def test_this_machine_is_nobodys_retired_provider(quick):
    with Server(granted()) as server:
        call = ("--provider", "adobe-analytics", "--client-id", "c", "--sub", "s", "--token-url", server.url())
        done = quick("token", *call)
    assert (done.code, done.err) == (0, "")
