"""A module in the process: threads, forks, who initialised it, and that nothing is unloaded while it is used."""

import subprocess
import sys

import pytest

SIGN = ("sign", "--iss", "i", "--aud", "a")

THREADS = """
import json, os, sys, threading, time, patched
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.verify import Verified
signers = [patched.signer() for _ in range(int(sys.argv[1]))]
alg, failures, made = ALGORITHMS["RS256"], [], []
def work(number):
    signer = Verified(signers[number % len(signers)])
    end, count = time.monotonic() + float(sys.argv[2]), 0
    try:
        while time.monotonic() < end:
            signer.sign(b"%d %d" % (number, count), alg)
            count += 1
    except BaseException as error:
        failures.append(repr(error))
    made.append(count)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([len(made), min(made) > 0, failures]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize(("signers", "faults"), [("8", "-"), ("1", "-"), ("8", "init=0xA*1"), ("1", "already")])
def test_eight_threads_sign_and_every_signature_verifies(patched, signers, faults):
    done = patched(faults, "-c", THREADS, signers, "0.8")
    assert (done.code, done.out, done.err) == (0, "[8, true, []]\n", "")


def test_threads_that_log_in_for_each_signature_take_turns(patched, token):
    token.make_key("k2", "02", ALWAYS_AUTHENTICATE=True)
    done = patched("-", "-c", THREADS, "1", "0.6", HSMJWT_KEY="pkcs11:object=k2")
    assert (done.code, done.out, done.err) == (0, "[8, true, []]\n", "")


SHARED = """
import os
from hsmjwt.hsm import library
loaded = library.load(os.path.realpath(os.environ["HSMJWT_MODULE"]))
print(loaded.shared, library.load(loaded.path) is loaded)
loaded.restart()
print(loaded.shared, len(loaded.lib.get_slots()) > 0)
"""


def test_a_module_that_can_lock_is_initialised_with_locking(patched, calls):
    done = patched(f"init@{calls.file},finalize@{calls.file}", "-c", SHARED)
    assert done.out == "True True\nTrue True\n", done.err
    assert calls() == ["init", "finalize", "init"]


def test_a_module_that_cannot_lock_is_initialised_without_and_shared_by_no_threads(patched, calls):
    done = patched(f"init=0xA*1,init@{calls.file}", "-c", SHARED)
    assert done.out.startswith("False True\n"), done.err
    assert calls()[:2] == ["init", "init"]


def test_a_module_that_somebody_else_initialised_is_neither_shared_nor_finalised(patched, calls):
    done = patched(f"already,finalize@{calls.file}", "-c", SHARED)
    assert done.out == "False True\nFalse True\n", done.err
    assert calls() == []


def test_nothing_is_finalised_or_unloaded_when_the_process_ends(patched, calls):
    code = "import patched\nsigner = patched.signer()"
    done = patched(f"finalize@{calls.file}", "-c", code)
    assert (done.code, done.err) == (0, "")
    assert calls() == []


def test_the_module_stays_loaded_after_its_objects_are_gone(patched):
    code = """
import gc, os
from hsmjwt.hsm import library
path = os.path.realpath(os.environ["HSMJWT_MODULE"])
loaded = library.load(path)
for _ in range(3):
    loaded.restart()  # each drops python-pkcs11's object, which closes the library
library._loaded.clear()
del loaded
gc.collect()
print(path in open("/proc/self/maps").read())
"""
    assert patched("-", "-c", code).out == "True\n"


def test_a_forked_child_is_refused_before_it_reaches_the_module(patched, calls):
    code = """
import os, sys, patched
from hsmjwt.errors import UsageError
from hsmjwt.hsm import library
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import ALGORITHMS
signer = patched.signer()
module, slot = signer._module, signer._slot
pid = os.fork()
if pid == 0:
    os.remove(sys.argv[1])  # what the parent did so far
    ways = [
        lambda: signer.sign(b"x", ALGORITHMS["RS256"]),
        lambda: module.find_token(KeyUri()),
        lambda: module.session(slot, write=True),
        lambda: module.login(slot, signer._login),
        lambda: module.mechanisms(slot),
        lambda: library.load(module.library.path),
    ]
    for way in ways:
        try:
            way()
        except UsageError as error:
            print(error.exit_code, "forked" in error.message)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
signer.sign(b"x", ALGORITHMS["RS256"])
print("the parent goes on")
"""
    noted = f"signinit@{calls.file},tokeninfo@{calls.file},open@{calls.file}"
    done = patched(noted, "-c", code, calls.file)
    assert done.out == "2 True\n" * 6 + "the parent goes on\n", done
    assert calls() == ["signinit"]  # the parent's


def test_signing_through_p11_kit(patched, proxy):
    done = patched(proxy.fault, *SIGN, "--verbose", HSMJWT_MODULE=proxy.path)
    assert done.code == 0, done.err
    assert "signed by CKM_SHA256_RSA_PKCS" in done.err
    found = patched(proxy.fault, *SIGN, "--verbose", HSMJWT_MODULE=None)
    assert found.code == 0, found.err
    assert "p11-kit's proxy, which serves the modules it knows" in found.err


def test_a_wrong_pin_is_sent_once_through_p11_kit(token, patched, proxy):
    token.pin_file.write_text("00000000")
    first, again = (patched(proxy.fault, *SIGN, HSMJWT_MODULE=proxy.path) for _ in range(2))
    assert (first.code, again.code) == (5, 5)
    assert "login withheld" in again.err


def test_threads_sign_through_p11_kit(patched, proxy):
    code = "import os; os.environ['HSMJWT_MODULE'] = os.environ['PROXY']\n" + THREADS
    done = patched(proxy.fault, "-c", code, "8", "0.6", PROXY=proxy.path)
    assert (done.code, done.out, done.err) == (0, "[8, true, []]\n", "")


def test_softhsm_without_a_configuration_behind_p11_kit_is_hinted_at(patched, proxy):
    done = patched(proxy.fault, *SIGN, HSMJWT_MODULE=proxy.path, SOFTHSM2_CONF="/nonexistent")
    assert (done.code, done.out) == (4, "")
    assert "p11-kit leaves out modules that do not start" in done.err


def test_python_pkcs11_is_loaded_without_asn1crypto_and_its_modules_work_when_used():
    code = """
import sys
from hsmjwt.hsm.binding import pkcs11
import hsmjwt.hsm.signer, hsmjwt.hsm.module
print("asn1crypto" in sys.modules, "typer" in sys.modules)
import pkcs11.util.ec
print(pkcs11.util.ec.encode_named_curve_parameters("secp256r1").hex())
print(any("Later" in type(finder).__name__ for finder in sys.meta_path))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n06082a8648ce3d030107\nFalse\n"


SECOND = """
import os, sys, patched
from hsmjwt.errors import TokenNotFoundError
from hsmjwt.jose.algorithms import ALGORITHMS
first = patched.signer()
os.environ["HSMJWT_KEY"] = "pkcs11:token=absent;object=k1"
try:
    patched.signer()
except TokenNotFoundError:
    print(len(first.sign(b"still there", ALGORITHMS["RS256"])))
sys.stdout.flush()
os._exit(0)
"""


def test_who_looks_for_a_token_in_vain_takes_the_module_from_nobody(patched, calls):
    done = patched(f"finalize@{calls.file}", "-c", SECOND)
    assert (done.code, done.out, done.err) == (0, "256\n", "")
    assert calls() == []
