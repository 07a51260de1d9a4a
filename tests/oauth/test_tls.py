from __future__ import annotations

import os
import pathlib
import ssl

import pytest
import requests
from servers.posting import TOKEN, failure, post, request, transport
from servers.scripted import (
    Authorities,
    Ca,
    Server,
    close_after,
    json_reply,
    reply,
    silent,
)

from hsmjwt import deadline
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.oauth import tls
from hsmjwt.oauth.failure import ConnectionFault, TlsFault


@pytest.fixture(scope="module")
def authorities(tmp_path_factory) -> Authorities:
    folder = tmp_path_factory.mktemp("ca")
    return Authorities(Ca(folder, "Our CA"), Ca(folder, "Another CA"))


def test_a_ca_file_is_believed(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        assert post(server.url(), ca_file=authorities.ours.file).status == 200


def test_a_certificate_counts_for_a_name_too(authorities, named_host):
    with Server(json_reply(TOKEN), tls=authorities.ours.context(named_host, "127.0.0.1")) as server:
        assert post(server.url(name=named_host), ca_file=authorities.ours.file).status == 200


def test_beside_a_ca_file_nothing_is_believed(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        sender = transport(ca_file=authorities.ours.file)
        sender.post(request(server.url()), Deadline(10))
    assert sender._context is not None
    assert sender._context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_file_of_the_environment_is_believed_unless_one_is_named(authorities, variable):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        environ = {variable: authorities.ours.file}
        assert post(server.url(), environ=environ).status == 200
        failure(server.url(), TlsFault, environ=environ, ca_file=authorities.other.file)
        environ = {variable: authorities.other.file}
        failure(server.url(), TlsFault, environ=environ)
        assert post(server.url(), environ=environ, ca_file=authorities.ours.file).status == 200


def test_ssl_cert_file_goes_before_requests_ca_bundle(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        environ = {"SSL_CERT_FILE": authorities.ours.file, "REQUESTS_CA_BUNDLE": authorities.other.file}
        assert post(server.url(), environ=environ).status == 200


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_a_hashed_folder_of_the_environment_is_believed(authorities, variable, tmp_path):
    hashed = os.popen(f"openssl x509 -in '{authorities.ours.file}' -noout -subject_hash").read().strip()
    if not hashed:
        pytest.skip("no openssl command")
    (tmp_path / f"{hashed}.0").symlink_to(authorities.ours.file)
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        assert post(server.url(), environ={variable: str(tmp_path)}).status == 200


@pytest.mark.parametrize("shape", ["crlf", "bom", "no last line end", "company", "der", "both"])
def test_a_ca_file_is_read_in_every_usual_shape(authorities, shape, tmp_path):
    pem = pathlib.Path(authorities.ours.file).read_bytes()
    other = pathlib.Path(authorities.other.file).read_bytes()
    data = {
        "crlf": pem.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + pem,
        "no last line end": pem.rstrip(),
        "company": "Aussteller: Prüfstelle\n".encode() + pem + b"# end\n",
        "der": ssl.PEM_cert_to_DER_cert(pem.decode()),
        "both": other + pem,
    }[shape]
    path = tmp_path / "ca.crt"
    path.write_bytes(data)
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        assert post(server.url(), ca_file=str(path)).status == 200


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("source", ["flag", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_file_without_a_certificate_is_refused_before_anything_is_signed(content, source, tmp_path):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    flag = str(path) if source == "flag" else None
    environ = {} if source == "flag" else {source: str(path)}
    with pytest.raises(ConfigError) as caught:
        transport(ca_file=flag, environ=environ).prepare("https://as.example.test/t")
    assert str(path) in caught.value.message
    assert source == "flag" or source in caught.value.message


def test_a_ca_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="SSL_CERT_DIR"):
        tls.context(None, {"SSL_CERT_DIR": str(tmp_path / "absent")}, print)
    with pytest.raises(ConfigError, match="is a directory"):
        tls.context(str(tmp_path), {}, print)


@pytest.mark.parametrize("source", ["flag", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_file_that_is_a_fifo_is_refused_at_once(source, tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    environ = {} if source == "flag" else {source: path}
    sender = transport(ca_file=path if source == "flag" else None, environ=environ)
    limit = Deadline(3)
    with pytest.raises(ConfigError, match="cannot be read: it is no regular file"):
        deadline.run(lambda: sender.prepare("https://as.example.test/t"), limit)


def test_a_ca_file_that_is_a_device_or_too_large_is_refused(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    with pytest.raises(ConfigError, match="more than 16 MiB"):
        tls.context(str(path), {}, print)
    with pytest.raises(ConfigError, match="no regular file"):
        tls.context("/dev/zero", {}, print)


def test_where_no_folder_is_known_the_bundle_of_requests_is_believed():
    assert os.path.samefile(tls.DEFAULT_CA_BUNDLE_PATH, requests.certs.where())


def test_without_any_setting_some_list_of_cas_is_believed():
    made = tls.context(None, {}, print)
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    assert made.keylog_filename is None


def test_a_ca_that_is_not_known_is_a_tls_fault_with_a_hint(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        error = failure(server.url(), TlsFault, ca_file=authorities.other.file)
        failure(server.url(), TlsFault)
    assert f"'127.0.0.1:{server.port}' comes from a CA that is not trusted here" in error.message
    assert "--ca-file" in (error.hint or "")
    assert server.requests == []


@pytest.mark.parametrize("names", [["as.example.test"], ["127.0.0.1"], ["localhost.example.test", "*.localhost"]])
def test_a_certificate_for_another_name_is_a_tls_fault(authorities, names, named_host):
    with Server(json_reply(TOKEN), tls=authorities.ours.context(*names)) as server:
        error = failure(server.url(name=named_host), TlsFault, ca_file=authorities.ours.file)
    assert "is for another name" in error.message
    assert server.requests == []


def test_a_certificate_for_another_address_is_a_tls_fault(authorities):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.2")) as server:
        assert "is for another address" in failure(server.url(), TlsFault, ca_file=authorities.ours.file).message


@pytest.mark.parametrize(("begins", "ends", "words"), [(-9, -1, "has expired"), (1, 9, "is not valid yet")])
def test_a_certificate_out_of_its_time_is_a_tls_fault(authorities, begins, ends, words):
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1", begins=begins, ends=ends)) as server:
        error = failure(server.url(), TlsFault, ca_file=authorities.ours.file)
    assert words in error.message
    assert "clock" in (error.hint or "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_tls_version_is_a_tls_fault(authorities):
    context = authorities.ours.context("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Server(json_reply(TOKEN), tls=context) as server:
        assert "TLS" in failure(server.url(), TlsFault, ca_file=authorities.ours.file).message


def test_a_server_that_speaks_no_tls_is_a_tls_fault(authorities):
    with Server(reply(b"this is plain http", status=400), deaf=True) as server:
        error = failure(server.url().replace("http:", "https:"), TlsFault)
    assert "does not speak TLS" in error.message


def test_silence_in_the_handshake_is_a_tls_fault():
    with Server(silent()) as server:
        error = failure(server.url().replace("http:", "https:"), TlsFault, patience=0.3)
    assert error.message == f"the server '127.0.0.1:{server.port}' was silent in the TLS handshake for 0.3 s"


def test_a_connection_that_closes_in_the_handshake_is_a_connection_fault():
    with Server(close_after(b""), deaf=True) as server:
        failure(server.url().replace("http:", "https:"), ConnectionFault)


def test_a_key_log_is_dropped_with_one_warning(authorities, tmp_path, monkeypatch):
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    warnings: list[str] = []
    with Server(json_reply(TOKEN), tls=authorities.ours.context("127.0.0.1")) as server:
        sender = transport(environ=dict(os.environ), ca_file=authorities.ours.file, warnings=warnings)
        for _ in range(2):
            assert sender.post(request(server.url()), Deadline(10)).status == 200
    assert not log.exists()
    assert len(warnings) == 1
    assert "SSLKEYLOGFILE" in warnings[0]
