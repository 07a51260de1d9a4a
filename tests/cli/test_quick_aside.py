"""What makes the quick road step aside: whatever might change the answer, and whatever it should not trust."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import get_type_hints

import pytest
from cli.roads import Configs, Home, counting, profile, settle, spoil
from servers.granting import claims_of, granted
from servers.scripted import Server

import hsmjwt
from hsmjwt.cli import gate, typed
from hsmjwt.cli import quick as quick_file
from hsmjwt.cli.flags import Flag

A_DAY = 86400
MEANWHILE: list[Callable[[], None]] = []  # what happens before the server that names subjects answers


@pytest.fixture(scope="module")
def server():
    with Server(counting()) as started:
        yield started


@pytest.fixture(scope="module")
def naming():
    """A server whose access tokens name the subject of the assertion."""

    def reply(line):
        while MEANWHILE:
            MEANWHILE.pop()()
        granted(f"sub-{claims_of(line.request)['sub']}")(line)

    with Server(reply) as started:
        yield started


@pytest.fixture(scope="module")
def configs(server, naming, tmp_path_factory):
    url = server.url()
    plain = 'default_profile = "p"\n' + profile("p", url) + profile("q", url, issuer="j")
    named = profile("p", naming.url(), 'subject = "AAA"')
    return Configs(tmp_path_factory.mktemp("configs"), plain=(plain, 80), named=(named, 6))


@pytest.fixture
def home(token, configs):
    return Home(token, configs.take("plain"))


def aside(home: Home, *args: str, **more: object) -> str:
    """Check that a call takes the longer road and succeeds without a word; return what it printed."""
    done = home(*args, **more)
    assert done.road != "quick", done
    assert (done.code, done.err) == (0, ""), done
    return done.out


# --- the call


def test_a_note_answers_the_word_that_it_was_left_for_and_no_other(home):
    home.warm("p")
    (note,) = home.notes()
    shutil.copy2(note, home.cache / quick_file.note_name(["q"]))
    shutil.copy2(note, home.cache / quick_file.note_name([]))
    assert aside(home, "token", "q") != aside(home, "token", "p", "--no-cache")
    assert home("token", "nobody").code == 3


def test_a_name_is_known_by_its_letters_and_not_by_its_bytes():
    environ = {"HSMJWT_CONFIG": __file__}
    bytes_of_it = "ü".encode().decode("latin-1")  # what a locale of ISO 8859-1 makes of the same bytes
    known = [quick_file.fingerprint(environ, words, "1") for words in ([], ["ü"], [bytes_of_it], ["ü"])]
    assert known[1] == known[3]
    assert len(set(known)) == 3


@pytest.mark.parametrize(
    "args",
    [
        ("token", "--verbose"),
        ("token", "p", "--json"),
        ("token", "--json", "p"),
        ("token", "--timeout=5"),
        ("token", "--output", "raw"),
        ("header", "p", "--min-ttl", "60"),
        ("exec", "p", "--timeout", "5", "--", "printenv", "ACCESS_TOKEN"),
        ("exec", "--env", "ACCESS_TOKEN", "--", "printenv", "ACCESS_TOKEN"),
    ],
    ids=" ".join,
)
def test_a_flag_takes_the_longer_road(home, args):
    value = home.warm()
    home.warm("p")
    done = home(*args)
    assert (done.code, done.road) == (0, "typed")
    assert value in done.out or home("token", "p").out.strip() in done.out


def test_each_flag_of_the_three_verbs_steps_aside(home, monkeypatch, capfd):
    value = home.warm("p")
    for name, text in home.environ.items():
        monkeypatch.setenv(name, text)
    assert quick_file.answer(["token", "p"], hsmjwt.__version__) == 0
    flags = {
        each.name
        for verb in ("token", "header", "exec")
        for struct in (gate.declared(verb).function, *gate.declared(verb).groups.values())
        for each in (
            typed._declared(hint)
            for name, hint in get_type_hints(struct, include_extras=True).items()
            if hasattr(hint, "__metadata__")
        )
        if isinstance(each, Flag)
    }
    assert flags >= {"--output", "--json", "--fresh", "--iss", "--key", "--config", "--env", "--verbose"}
    for flag in (*flags, "--help", "-h", "-", "--"):
        for words in ([flag, "p"], ["p", flag], [f"{flag}=1", "p"], [flag]):
            for verb, more in (("token", []), ("header", []), ("exec", ["--", "true"])):
                if (verb, flag) != ("exec", "--"):
                    assert quick_file.answer([verb, *words, *more], hsmjwt.__version__) is None
    assert capfd.readouterr().out == f"{value}\n"


def test_other_verbs_and_further_words_step_aside(home):
    home.warm("p")
    for args in (
        ("token", "p", "p"),
        ("exec", "p", "x", "--", "true"),
        ("exec", "p"),
        ("exec", "p", "--"),
        ("exec", "p", "true"),
    ):
        done = home(*args)
        assert (done.code, done.out) == (2, "")
        assert done.road != "quick"
    assert home("sign", "p").road == "plain"


# --- cache, config, variables


def test_after_cache_clear_a_new_token_is_fetched(home):
    home.warm("p")
    for words in ((), ("p",)):
        home("token")
        old = home("token", "p")
        assert (old.road, len(home.notes())) == ("quick", 2)
        assert home("cache", "clear", *words).code == 0
        assert home.notes() == []
        assert aside(home, "token", "p") != old.out


def test_cache_clear_of_another_profile_costs_a_look_by_the_longer_road(home):
    value = home.warm("p")
    home.warm("q")
    assert home("cache", "clear", "q").code == 0
    assert home.notes() == []
    assert aside(home, "token", "p") == f"{value}\n"
    assert home("token", "p").road == "quick"


def test_the_token_that_another_process_fetched_is_served_from_then_on(home):
    old = home.warm("p")
    new = home("token", "p", "--fresh").out
    assert new != f"{old}\n"
    assert aside(home, "token", "p") == new
    again = home("token", "p")
    assert (again.out, again.road) == (new, "quick")


def test_a_token_whose_file_is_gone_or_open_to_others_is_not_served_from_the_note(home):
    old = home.warm("p")
    (entry,) = home.cache.glob("*.json")
    entry.chmod(0o640)
    done = home("token", "p")
    assert (done.code, done.road) == (0, "plain")
    assert done.out != f"{old}\n"
    assert "has mode 0640" in done.err
    old = home("token", "p").out
    next(home.cache.glob("*.json")).unlink()
    assert aside(home, "token", "p") != old


def test_an_edit_is_seen_also_one_that_keeps_size_and_mtime(token, configs):
    home = Home(token, configs.take("named"))
    assert home.warm("p") == "sub-AAA"
    text = home.config.read_text()
    spoil(home.config, text.replace("AAA", "BBB"), times=True)
    assert aside(home, "token", "p") == "sub-BBB\n"
    spoil(home.config, text, times=True)
    assert aside(home, "token", "p") == "sub-AAA\n"
    settle(home.config)
    assert aside(home, "token", "p") == "sub-AAA\n"
    assert home("token", "p").road == "quick"


def test_a_config_that_another_replaces_is_seen(token, configs):
    home = Home(token, configs.take("named"))
    home.warm("p")
    other = home.config.with_name("new.toml")
    shutil.copy(home.config, other)
    spoil(other, other.read_text().replace("AAA", "CCC"))
    other.chmod(0o600)
    os.utime(other, ns=(home.config.stat().st_mtime_ns,) * 2)
    os.replace(other, home.config)
    assert aside(home, "token", "p") == "sub-CCC\n"


def test_an_edit_while_the_token_is_fetched_is_seen(token, configs):
    """A note would tell the new config's state and the old one's token."""
    home = Home(token, configs.take("named"))
    text = home.config.read_text()
    MEANWHILE.append(lambda: spoil(home.config, text.replace("AAA", "EEE")))
    assert aside(home, "token", "p") == "sub-AAA\n"
    assert home.notes() == []
    assert aside(home, "token", "p") == "sub-EEE\n"


def test_a_link_that_is_led_elsewhere_is_seen(token, configs):
    home = Home(token, configs.take("named"))
    one, two = home.config.with_name("one.toml"), home.config.with_name("two.toml")
    home.config.rename(one)
    shutil.copy(one, two)
    spoil(two, two.read_text().replace("AAA", "DDD"))
    home.config.symlink_to(one)
    settle(two)
    assert home.warm("p") == "sub-AAA"
    home.config.unlink()
    home.config.symlink_to(two)
    assert aside(home, "token", "p") == "sub-DDD\n"
    assert home("token", "p").road == "quick"


def test_a_config_that_others_may_write_is_refused_at_once(home):
    home.warm("p")
    home.config.chmod(0o666)
    done = home("token", "p")
    assert (done.code, done.out) == (3, "")
    assert "can be written by others (mode 0666)" in done.err


def test_a_config_that_is_gone_or_leads_nowhere_is_refused_at_once(home):
    home.warm("p")
    away = home.config.with_name("away")
    home.config.rename(away)
    assert (home("token", "p").code, home("token", "p").out) == (3, "")
    home.config.symlink_to("nothing")
    done = home("token", "p")
    assert (done.code, done.out) == (3, "")
    assert "is a symlink to nothing" in done.err


def test_another_default_profile_is_another_token(home):
    old = home.warm()
    spoil(home.config, home.config.read_text().replace('default_profile = "p"', 'default_profile = "q"'))
    assert aside(home, "token") != f"{old}\n"


def test_profiles_have_notes_of_their_own(home):
    values = {words: home.warm(*words) for words in ((), ("p",), ("q",))}
    assert values[()] == values[("p",)] != values[("q",)]
    for words, value in values.items():
        done = home("token", *words)
        assert (done.out, done.road) == (f"{value}\n", "quick")


@pytest.mark.parametrize(
    ("environ", "same"),
    [
        ({"HSMJWT_PROFILE": "q"}, False),
        ({"HSMJWT_PROFILE": "p"}, True),
        ({"HSMJWT_KEY": "pkcs11:object=k1"}, False),
        ({"HSMJWT_PIN_SOURCE": "none"}, True),
    ],
    ids=str,
)
def test_another_value_of_a_variable_takes_the_longer_road(home, environ, same):
    old = home.warm()
    assert (aside(home, "token", **environ) == f"{old}\n") is same


def test_another_config_by_variable_is_another_token(home, configs):
    old = home.warm("p")
    path = str(configs.take("plain"))
    assert aside(home, "token", "p", HSMJWT_CONFIG=path) == f"{old}\n"  # it says the same, so the cache has it
    path = str(configs.take("named"))
    assert aside(home, "token", "p", HSMJWT_CONFIG=path) == "sub-AAA\n"
    assert home("token", "p", HSMJWT_CONFIG=path).road == "quick"
    assert home("token", "p", HSMJWT_CONFIG=f"{path}.none").code == 3
    elsewhere = os.path.relpath(path, "/")
    assert home("token", "p", HSMJWT_CONFIG=elsewhere).code == 3


def test_an_agent_is_never_passed_over(home):
    home.warm("p")
    for verb, more in (("token", ()), ("header", ()), ("exec", ("--", "printenv", "ACCESS_TOKEN"))):
        done = home(verb, "p", *more, HSMJWT_SOCKET="/nowhere/agent")
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith("hsmjwt: error: HSMJWT_SOCKET names an agent at '/nowhere/agent'")


def test_a_variable_of_the_command_changes_nothing(home):
    home.warm("p")
    for environ in ({"HTTPS_PROXY": "http://x:1"}, {"HSMJWT_PIN": "1"}, {"LANG": "C"}, {"HSMJWT_EXEC": "x:Y"}):
        assert home("token", "p", **environ).road == "quick"
    assert home("exec", "p", "--", "true", HSMJWT_EXEC="x:Y").road == "plain"


def test_a_note_of_another_version_is_not_served(home):
    value = home.warm("p")
    other = "import hsmjwt; hsmjwt.__version__ = '0.0.9'"
    assert aside(home, "token", "p", first=other) == f"{value}\n"
    assert home("token", "p", first=other).road == "quick"
    assert aside(home, "token", "p") == f"{value}\n"


# --- time


def later(seconds: float) -> str:
    return f"import time; real = time.time; time.time = lambda: real() + {seconds}"


@pytest.mark.parametrize(("seconds", "road"), [(3500, "quick"), (3541, "plain"), (3601, "plain"), (-A_DAY, "plain")])
def test_a_token_is_served_within_its_life_alone(home, seconds, road):
    """It lives an hour, and is served until a minute before its end; the clock may have been set back, too."""
    old = home.warm("p")
    done = home("token", "p", first=later(seconds))
    assert (done.code, done.err, done.road) == (0, "", road)
    assert (done.out == f"{old}\n") is (road == "quick")
    assert done.out == home("token", "p", first=later(seconds)).out
