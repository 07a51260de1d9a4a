"""`hsmjwt exec`: the command takes our place, with tokens in its environment and nothing else of ours."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
from cli.checks import refused
from cli.roads import LONG, Configs, Home, counting, profile
from servers.granting import claims_of, granted
from servers.scripted import Server

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
roads = pytest.mark.parametrize("first", ["", LONG], ids=["quick", "plain"])


@pytest.fixture(scope="module")
def server():
    with Server(counting()) as started:
        yield started


@pytest.fixture(scope="module")
def configs(server, tmp_path_factory):
    url = server.url()
    key = '[keys.k]\nuri = "pkcs11:token=t1;object=k1"\npin_source = "{}"\n'
    secret = ('key = "k"', 'client_id = "c"', 'client_secret_source = "{}"')
    plain = 'default_profile = "p"\n' + profile("p", url) + profile("q", url, issuer="j")

    def sources(pin: str, of_client: str) -> str:
        lines = [line.format(of_client) for line in secret]
        return key.format(pin) + profile("s", url, *lines) + profile("t", url, *lines, issuer="t") + profile("p", url)

    return Configs(
        tmp_path_factory.mktemp("configs"),
        plain=(plain, 110),
        env=(sources("env:MY.PIN-1", "env:MY_SECRET"), 6),
        fd=(sources("fd:7", "fd:8"), 6),
    )


@pytest.fixture
def home(token, configs):
    return Home(token, configs.take("plain"))


def python(code: str, *args: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", code, *args)


def shell(code: str, *args: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", code, "sh", *args)


def seen(home: Home, *args: str, **more: object) -> dict[str, str]:
    """Return the environment that a command finds."""
    done = home("exec", *args, *python(SHOW), **more)
    assert (done.code, done.err) == (0, ""), done
    return json.loads(done.out)


# --- the command's own end


@roads
@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_the_exit_code_is_the_commands(home, first, code):
    home.warm()
    assert home("exec", *shell(f"exit {code}"), first=first).said == (code, "", "")


@roads
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGINT])
def test_death_by_a_signal_is_seen_as_such(home, first, number):
    home.warm()
    assert home("exec", *shell("kill -$1 $$", str(int(number))), first=first).said == (-number, "", "")


@roads
def test_the_process_is_the_same_one_and_signals_reach_the_command(home, first):
    home.warm()
    code = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: sys.exit(f"got {number}"))
print(os.getpid(), flush=True)
signal.pause()
"""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        command, environ = home.command("exec", *python(code), first=first)
        running = subprocess.Popen(command, env=environ, stdout=-1, stderr=-1, text=True)
        assert int(running.stdout.readline()) == running.pid
        running.send_signal(number)
        assert running.communicate(timeout=20) == ("", f"got {int(number)}\n")
        assert running.returncode == 1


@roads
def test_the_command_gets_its_signals_as_a_shell_hands_them_over(home, first):
    """SIGPIPE and SIGXFSZ, which Python ignores, have their effect; what the caller ignores stays ignored."""
    home.warm()
    ask = ("--", "grep", "-E", "^Sig(Ign|Blk|Cgt)", "/proc/self/status")
    direct = subprocess.run(ask[1:], capture_output=True, text=True, check=True, restore_signals=True)
    assert home("exec", *ask, first=first).out == direct.stdout
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        ignoring = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)\n{first}"
        done = home("exec", *ask, first=ignoring)
        ignored = int(re.search(r"SigIgn:\s*(\w+)", done.out)[1], 16)
        assert ignored == 1 << number - 1


@roads
def test_a_reader_that_goes_away_ends_the_command(home, first):
    home.warm()
    command, environ = home.command("exec", "--", "yes", first=first)
    running = subprocess.Popen(command, env=environ, stdout=-1, stderr=-1)
    assert running.stdout.read(4) == b"y\ny\n"
    running.stdout.close()
    assert running.wait(20) == -signal.SIGPIPE
    assert running.stderr.read() == b""


# --- what there is no command for


@roads
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("no-such-command-here",), 127, "there is no command 'no-such-command-here'"),
        (("./no-such-file",), 127, "there is no command './no-such-file'"),
        (("/etc/passwd/x",), 127, "there is no command '/etc/passwd/x'"),
        (("",), 127, "there is no command ''"),
        (("--help",), 127, "there is no command '--help'"),
        (("/",), 126, "the command '/' cannot be run: permission denied"),
        (("./plain",), 126, "the command './plain' cannot be run: permission denied"),
        (("./script",), 126, "the command './script' cannot be run: exec format error"),
        (("./lost",), 127, "there is no command './lost'"),
        (("folder-of-the-path",), 126, "the command 'folder-of-the-path' cannot be run: permission denied"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_command_that_is_not_there_or_cannot_be_run(home, first, command, code, words):
    home.warm()
    folder = home.token.folder
    (folder / "plain").write_text("#!/bin/sh\n")
    for name, text in (("script", "echo no first line\n"), ("lost", "#!/no/such/interpreter\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "folder-of-the-path").mkdir()
    done = home("exec", "--", *command, first=first, PATH=f"{home.environ['PATH']}:{folder}")
    refused(done, code, words)
    assert ("#!/bin/sh" in done.err) is (command == ("./script",))


def test_a_token_that_no_environment_can_hold(token, tmp_path):
    with Server(granted("A" * 140_000)) as server:
        configs = Configs(tmp_path / "configs", long=(profile("p", server.url()), 1))
        done = Home(token, configs.take("long"))("exec", "p", "--", "true")
    refused(done, 126, "the command 'true' cannot be run: argument list too long")


def test_a_call_without_a_command_or_without_hyphens_is_a_usage_error(home, server):
    asked = len(server.requests)
    for args in (("exec",), ("exec", "p"), ("exec", "--"), ("exec", "p", "--"), ("exec", "--json", "--")):
        refused(home(*args), 2, "no command is given", hint="hsmjwt exec PROFILE -- CMD ARG …")
    refused(home("exec", "p", "true", "x"), 2, "-- is missing before 'true'")
    refused(home("exec", "p", "q", "--", "true"), 2, "too many arguments before --: 'q'")
    refused(home("exec", "--no-such-flag", "--", "true"), 2, "there is no flag '--no-such-flag'")
    assert len(server.requests) == asked


# --- the words behind the hyphens


WORDS = ("--json", "--", "--help", "p", "-x", "", "--verbose", "a b", "$(x)", "ä", "\n", "--env", "--timeout=0")


@roads
@pytest.mark.parametrize("before", [(), ("p",)], ids=["none", "p"])
def test_what_stands_behind_the_hyphens_is_left_as_it_is(home, first, before):
    home.warm(*before)
    done = home("exec", *before, "--", "printf", "[%s]", *WORDS, first=first)
    assert (done.code, done.out, done.err) == (0, "".join(f"[{word}]" for word in WORDS), "")
    nested = home("exec", *before, "--", "env", "A=1", "sh", "-c", 'echo "$A $0 $1"', "--", "--", first=first)
    assert nested.out == "1 -- --\n"
    assert home("exec", *before, *shell("exit 7"), "--json", first=first).said == (7, "", "")


def test_flags_before_the_hyphens_are_ours(home, server):
    done = home(
        "exec", "--iss", "i", "--token-url", server.url(), "--", "sh", "-c", 'echo "$1 $HSMJWT_EXEC"', "--", "--iss"
    )
    assert done.said == (0, "--iss :ACCESS_TOKEN\n", "")
    refused(home("exec", "--iss", "--", "true"), 2, "--iss needs a value")


# --- environment


@roads
def test_the_command_finds_the_token_and_no_pin(home, first):
    value = home.warm("p")
    found = seen(home, "p", first=first, OTHER="x", HSMJWT_PIN="1234")
    assert found["ACCESS_TOKEN"] == value
    assert found["HSMJWT_EXEC"] == "p:ACCESS_TOKEN"
    kept = {name: text for name, text in home.environ.items() if name != "HSMJWT_PIN_SOURCE"}
    assert {name: found.get(name) for name in kept} == kept
    assert found["OTHER"] == "x"
    assert found.keys() & {"HSMJWT_PIN", "HSMJWT_PIN_SOURCE"} == set()


@roads
def test_variables_that_secrets_come_from_are_gone(token, configs, first):
    home = Home(token, configs.take("env"))
    home.environ |= {"MY.PIN-1": token.pin_file.read_text(), "MY_SECRET": "s3cr3t", "MY_OTHER": "stays"}
    home.warm("s")
    found = seen(home, "s", first=first)
    assert found.keys() & {"MY.PIN-1", "MY_SECRET"} == set()
    assert found["MY_OTHER"] == "stays"
    assert seen(home, "p", first=first)["MY_SECRET"] == "s3cr3t"  # of a profile that is not in use
    both = home("exec", "--env", "A=s", "--env", "B=p", *python(SHOW))
    assert json.loads(both.out).keys() & {"MY.PIN-1", "MY_SECRET"} == set()


def test_a_pin_source_among_the_flags_is_gone_too(home):
    found = seen(home, "p", "--pin-source", "env:FLAGGED", FLAGGED=home.token.pin_file.read_text())
    assert "FLAGGED" not in found


@roads
def test_the_locale_that_python_sets_for_itself_is_not_the_commands(home, first):
    home.warm()
    spoken = {"LANG": None, "LC_ALL": None, "LC_CTYPE": None}
    for given, seen in (({}, "None"), ({"LANG": "C"}, "None"), ({"LC_CTYPE": "C.UTF-8"}, "C.UTF-8")):
        done = home("exec", "--", "sh", "-c", "echo ${LC_CTYPE-None}", first=first, **{**spoken, **given})
        assert (done.code, done.out) == (0, f"{seen}\n"), given


def test_a_variable_without_a_name_is_not_passed_on_and_harms_nobody(home):
    home.warm()
    for first in ("", LONG):
        nameless = f"import os; os.environ._data[b''] = b'x'\n{first}"
        assert home("exec", "--", "printenv", "HSMJWT_EXEC", first=nameless).said == (0, "p:ACCESS_TOKEN\n", "")


def test_several_tokens_each_in_a_variable_of_its_own(home, server):
    p, q = home.warm("p"), home.warm("q")
    asked = len(server.requests)
    found = seen(home, "--env", "ONE=p", "--env", "TWO=q", "--env", "THREE", "--env", "_4=p")
    assert [found[name] for name in ("ONE", "TWO", "THREE", "_4")] == [p, q, p, p]
    assert "ACCESS_TOKEN" not in found
    assert found["HSMJWT_EXEC"] == "p:ONE q:TWO p:THREE p:_4"
    assert len(home.notes()) == 2  # none for a call that has no words but may mean another profile
    found = seen(home, "q", "--env", "X", "--env", "Y=p", "--json", "--timeout", "20", ACCESS_TOKEN="theirs")
    assert (found["X"], found["Y"], found["ACCESS_TOKEN"]) == (q, p, "theirs")
    assert len(server.requests) == asked


def test_a_pipe_that_two_profiles_name_is_read_once(token, configs):
    home = Home(token, configs.take("fd"))
    secret = token.folder / "secret"
    secret.write_text("s3cret")
    found = seen(home, "--env", "A=s", "--env", "B=t", redirect=f"7<{token.pin_file} 8<{secret}")
    assert found["A"] != found["B"]


def test_what_the_pin_source_of_the_environment_names_is_gone_whoever_goes_before_it(token, configs):
    home = Home(token, configs.take("env"))
    named = {"HSMJWT_PIN_SOURCE": "env:OTHER_PIN", "OTHER_PIN": "x", "MY_SECRET": "s"}
    named["MY.PIN-1"] = token.pin_file.read_text()
    for _ in range(2):
        assert seen(home, "s", **named).keys() & named.keys() == set()


def test_one_profile_in_two_variables_is_asked_for_once(home, server):
    asked = len(server.requests)
    found = seen(home, "--env", "A=p", "--env", "B=p", "--env", "C", "--fresh")
    assert found["A"] == found["B"]
    assert len(server.requests) == asked + 2
    found = seen(
        home,
        "--env",
        "A",
        "--env",
        "B",
        "--iss",
        "i",
        "--token-url",
        server.url(),
        "--claims-file",
        "-",
        stdin=b'{"x": 1}',
    )
    assert found["A"] == found["B"]
    assert claims_of(server.requests[-1])["x"] == 1
    assert found["HSMJWT_EXEC"] == ":A :B"


def test_flags_are_for_the_token_without_a_profile_of_its_own(home, server):
    seen(home, "--env", "A=q", "--env", "B", "--sub", "me", "--no-cache")
    subjects = [claims_of(request)["sub"] for request in server.requests[-2:]]
    assert subjects == ["j", "me"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--env", ""), "--env: '' is no name of a variable"),
        (("--env", "1A"), "--env: '1A' is no name of a variable"),
        (("--env", "A-B=p"), "--env: 'A-B' is no name of a variable"),
        (("--env", "Ä=p"), "--env: 'Ä' is no name of a variable"),
        (("--env", "A\n=p"), "is no name of a variable"),
        (("--env", "=p"), "--env: '' is no name of a variable"),
        (("--env", "A="), "--env A= names no profile"),
        (("--env", "HSMJWT_EXEC"), "--env: HSMJWT_EXEC is one of hsmjwt's own variables"),
        (("--env", "A=p", "--env", "A=q"), "--env names A 2 times"),
        (("p", "--env", "A=q"), "no --env takes the token of the profile 'p'"),
        (("--iss", "x", "--env", "A=q"), "flags say what to sign, and each --env names a profile"),
        (("--env", "--json"), "--env needs a value, and --json is a flag"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused_before_anything_is_signed(home, server, args, words):
    asked = len(server.requests)
    refused(home("exec", *args, "--", "true"), 2, words)
    assert len(server.requests) == asked


def test_one_exec_inside_another_adds_its_tokens_and_overwrites_none(home):
    p, q = home.warm("p"), home.warm("q")
    outer = {"ACCESS_TOKEN": p, "HSMJWT_EXEC": "p:ACCESS_TOKEN"}
    found = seen(home, "--env", "SECOND=q", **outer)
    assert (found["ACCESS_TOKEN"], found["SECOND"]) == (p, q)
    assert found["HSMJWT_EXEC"] == "p:ACCESS_TOKEN q:SECOND"
    for args in ((), ("q",), ("--env", "ACCESS_TOKEN=q"), ("--env", "X=p", "--env", "ACCESS_TOKEN")):
        done = home("exec", *args, "--", "true", **outer)
        refused(done, 2, "ACCESS_TOKEN holds the token of another hsmjwt exec", hint="--env NAME")
    odd = {"HSMJWT_EXEC": "a%20b:c:ONE :TWO"}
    for name in ("ONE", "TWO"):
        refused(home("exec", "--env", f"{name}=p", "--", "true", **odd), 2, f"{name} holds the token")
    assert seen(home, **odd)["HSMJWT_EXEC"] == "a%20b:c:ONE :TWO p:ACCESS_TOKEN"
    assert seen(home, HSMJWT_EXEC="")["HSMJWT_EXEC"] == "p:ACCESS_TOKEN"
    again = (sys.executable, "-m", "hsmjwt", "exec", "--env", "IN=q", "--", "printenv", "HSMJWT_EXEC")
    assert home("exec", "--", *again, HSMJWT_PIN_SOURCE="none").out == "p:ACCESS_TOKEN q:IN\n"
