"""Which file is loaded as the module, and which never is."""

import os
import shutil
from pathlib import Path

import pytest

from hsmjwt.errors import ConfigError, TokenError
from hsmjwt.hsm.discovery import Places, find_module

SIGN = ("sign", "--iss", "i", "--aud", "a")


@pytest.fixture
def copy(tmp_path, softhsm_module):
    file = tmp_path / "libsofthsm2.so"
    shutil.copy(softhsm_module, file)
    file.chmod(0o755)
    return file


def libm():
    folders = ("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/lib")
    return next(path for path in (f"{folder}/libm.so.6" for folder in folders) if os.path.exists(path))


def test_a_file_that_is_no_module_is_named_with_what_it_is(hsmjwt, tmp_path):
    text = tmp_path / "text.so"
    text.write_text("no library\n")
    cases = {
        str(tmp_path / "none.so"): (4, "no such file"),
        str(text): (4, "cannot be loaded"),
        libm(): (4, "no C_GetFunctionList"),
        str(tmp_path): (4, "is no regular file"),
        "/dev/null": (4, "is no regular file"),
        "lib/softhsm.so": (3, "is relative"),
    }
    for path, (code, words) in cases.items():
        done = hsmjwt(*SIGN, "--module", path)
        assert (done.code, done.out) == (code, ""), (path, done.err)
        assert words in done.err
        assert "--module" in done.err
        assert "Traceback" not in done.err


def test_an_empty_path_is_not_taken_for_none():
    with pytest.raises(ConfigError, match="is empty"):
        find_module("", "[keys.prod]")


def test_a_path_that_is_no_text_is_refused_before_it_is_loaded(hsmjwt):
    done = hsmjwt(*SIGN, "--module", b"/tmp/\xff.so")
    assert (done.code, done.out) == (3, "")
    assert r"\udcff" in done.err
    with pytest.raises(ConfigError, match="NUL"):
        find_module("/tmp/\0.so", "--module")


def test_a_module_that_others_may_write_is_refused(copy):
    for mode in (0o757, 0o775, 0o777, 0o646):
        copy.chmod(mode)
        with pytest.raises(ConfigError, match=f"can be written by others .mode 0{mode:o}") as caught:
            find_module(str(copy), "--module")
        assert "chmod go-w" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_module_of_another_user_is_refused(copy):
    os.chown(copy, 65534, 0)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        find_module(str(copy), "--module")


def test_a_symlink_is_followed_and_what_it_reaches_is_judged_and_loaded(hsmjwt, copy, tmp_path):
    link = tmp_path / "link.so"
    link.symlink_to(copy)
    done = hsmjwt(*SIGN, "--module", str(link), "--verbose")
    assert done.code == 0, done.err
    assert f"module {link} (--module)" in done.err
    assert find_module(str(link), "--module").real == str(copy)
    copy.chmod(0o777)
    assert hsmjwt(*SIGN, "--module", str(link)).code == 3


def test_the_module_path_of_a_uri_counts_only_where_the_config_allows_it(copy, tmp_path):
    with pytest.raises(ConfigError, match="not among the config's allowed_modules"):
        find_module(None, "nobody", uri_path=str(copy))
    link = tmp_path / "allowed.so"
    link.symlink_to(copy)
    choice = find_module(None, "nobody", uri_path=str(copy), allowed=[str(link)])
    assert (choice.path, choice.real) == (str(copy), str(copy))
    copy.chmod(0o777)
    with pytest.raises(ConfigError, match="can be written by others"):
        find_module(None, "nobody", uri_path=str(copy), allowed=[str(link)])


def test_the_module_path_of_a_uri_end_to_end(hsmjwt, copy, tmp_path):
    config = tmp_path / "config.toml"
    key = f"pkcs11:token=t1;object=k1?module-path={copy}"
    config.write_text("")
    refused = hsmjwt(*SIGN, "--config", str(config), "--key", key, HSMJWT_MODULE=None)
    assert (refused.code, refused.out) == (3, "")
    config.write_text(f'allowed_modules = ["{copy}"]\n')
    done = hsmjwt(*SIGN, "--config", str(config), "--key", key, "--verbose", HSMJWT_MODULE=None)
    assert done.code == 0, done.err
    assert f"module {copy} (the URI's module-path, allowed by the config)" in done.err


@pytest.fixture
def places(tmp_path):
    """Folders in place of the system's own: one of libraries, one of p11-kit's module files."""
    library, kit = tmp_path / "lib", tmp_path / "modules"
    for folder in (library / "pkcs11", library / "softhsm", kit):
        folder.mkdir(parents=True)
    return library, kit, Places((str(library),), (str(kit),))


def made(path):
    path.write_bytes(b"")
    path.chmod(0o644)
    return str(path)


def test_the_proxy_comes_before_the_usual_places_and_those_before_what_p11_kit_names(places):
    library, kit, searched = places
    with pytest.raises(TokenError, match="no PKCS#11 module was found"):
        find_module(None, "nobody", places=searched)
    own = made(library / "pkcs11" / "own.so")
    (kit / "own.module").write_text("# comment\nmodule: own.so\npriority: 1\n")
    (kit / "absolute.module").write_text(f"module:{library / 'gone.so'}\n")
    (kit / "readme.txt").write_text("module: nothing.so\n")
    assert find_module(None, "nobody", places=searched).path == own
    soft = made(library / "softhsm" / "libsofthsm2.so")
    assert find_module(None, "nobody", places=searched).path == soft
    proxy = made(library / "p11-kit-proxy.so")
    choice = find_module(None, "nobody", places=searched)
    assert (choice.path, choice.why) == (proxy, "p11-kit's proxy, which serves the modules it knows")


def test_a_module_name_picks_among_those_found(places):
    library, kit, searched = places
    soft, own = made(library / "softhsm" / "libsofthsm2.so"), made(library / "pkcs11" / "own.so")
    (kit / "own.module").write_text("module: own.so\n")
    for name in ("libsofthsm2.so", "libsofthsm2", "softhsm2", "SoftHSM2"):
        assert find_module(None, "nobody", uri_name=name, places=searched).path == soft
    assert find_module(None, "nobody", uri_name="own", places=searched).path == own
    with pytest.raises(TokenError, match="no module named 'soft' was found") as caught:
        find_module(None, "nobody", uri_name="soft", places=searched)
    assert soft in caught.value.hint
    assert own in caught.value.hint


def test_what_is_named_goes_before_what_the_uri_says(copy):
    choice = find_module(str(copy), "HSMJWT_MODULE", uri_path="/elsewhere.so", uri_name="other")
    assert (choice.path, choice.why) == (str(copy), "HSMJWT_MODULE")


def test_softhsm_without_a_configuration_that_can_be_read_has_its_own_hint(hsmjwt, token):
    elsewhere = token.folder / "elsewhere.conf"
    elsewhere.write_text("directories.tokendir = /nonexistent\n")
    for conf in ("/nonexistent", str(elsewhere)):
        done = hsmjwt(*SIGN, SOFTHSM2_CONF=conf)
        assert (done.code, done.out) == (4, "")
        assert "SoftHSM cannot read its configuration" in done.err
        assert "set SOFTHSM2_CONF" in done.err


def test_softhsm_with_another_configuration_than_meant_says_which_variable_decides(hsmjwt, token):
    (token.folder / "empty").mkdir()
    elsewhere = token.folder / "elsewhere.conf"
    elsewhere.write_text(f"directories.tokendir = {token.folder / 'empty'}\n")
    done = hsmjwt(*SIGN, SOFTHSM2_CONF=str(elsewhere))
    assert (done.code, done.out) == (4, "")
    assert "shows no initialised token" in done.err
    assert "SOFTHSM2_CONF" in done.err


def test_a_module_that_does_not_start_is_a_token_fault(sign, calls):
    done = sign(f"init=0x30,init@{calls.file}")
    assert (done.code, done.out) == (4, "")
    assert "cannot be started (C_Initialize gave CKR_DEVICE_ERROR)" in done.err
    assert calls() == ["init"]


def test_a_first_look_that_fails_over_a_half_written_file_is_taken_again(sign, calls):
    for faults in ("init=5*1", "slotlist=5*1", "nopin*1"):
        assert sign(f"{faults},login@{calls.file}").code == 0
    assert calls() == ["login 1"] * 3


@pytest.mark.parametrize("kept", [5000, 300_000])
def test_a_module_that_was_cut_short_is_no_module(hsmjwt, token, tmp_path, kept):
    cut = tmp_path / "cut.so"
    cut.write_bytes(Path(token.module).read_bytes()[:kept])
    done = hsmjwt("slot", "list", "--module", str(cut))
    assert (done.code, done.out) == (4, "")
    assert "cannot be loaded: the file is cut short" in done.err
