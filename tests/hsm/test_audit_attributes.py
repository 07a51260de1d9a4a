"""What an audit reads of a token that tells less than it is asked, or tells it in its own way."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys

import pytest

ASKED = {  # by the names of policies: CKA numbers (PKCS#11 2.40, pkcs11t.h) of what device-born asks for
    "local": 0x163,
    "key_gen_mechanism": 0x166,
    "sensitive": 0x103,
    "always_sensitive": 0x165,
    "extractable": 0x162,
    "never_extractable": 0x164,
    "private": 0x2,
    "token_object": 0x1,
    "sign": 0x108,
    "dates": 0x110,
}


class Today(datetime.date):
    """A day that the process which makes a key can read."""

    def __repr__(self) -> str:
        return f"__import__('datetime').date({self.year}, {self.month}, {self.day})"


def audit(patched, token, faults, *args, code=0):
    done = patched(faults, "key", "audit", "--json", *args, HSMJWT_KEY=token.uri)
    assert done.code == code, done
    return json.loads(done.out)


def missed(report) -> dict[str, str]:
    return {each["attribute"]: each["result"] for each in report["findings"] if each["result"] != "pass"}


@pytest.mark.parametrize("fault", ["untold", "unsaid"])
@pytest.mark.parametrize("name", ASKED)
def test_an_attribute_that_the_token_does_not_tell_is_unknown_and_not_passed(patched, token, name, fault):
    report = audit(patched, token, f"{fault}={ASKED[name]}", code=8)
    assert missed(report) == {name: "unknown"}
    assert [each["found"] for each in report["findings"] if each["attribute"] == name] == ["unknown"]
    assert report["attributes"][name] is None


def test_a_key_that_shows_no_modulus_is_known_by_its_public_half(patched, token):
    whole = audit(patched, token, "-")
    report = audit(patched, token, f"untold={0x120}")
    assert report["key"]["thumbprint"] == whole["key"]["thumbprint"]
    assert report["attributes"]["same_public_key"] == 0


def test_a_token_that_answers_no_question_for_several_attributes_is_asked_for_each(patched, token):
    whole = audit(patched, token, "-")
    report = audit(patched, token, "bulk=0x12")
    assert (report["attributes"], report["findings"]) == (whole["attributes"], whole["findings"])


def test_a_token_that_does_not_know_allowed_mechanisms_cannot_show_where_the_hash_is_made(patched, token):
    report = audit(patched, token, f"untold={0x40000600}", "--policy", "fips-186-5", code=8)
    assert report["attributes"]["allowed_mechanisms"] is None
    assert missed(report) == {"hash_on_token": "unknown"}


def test_a_token_without_a_mechanism_for_ready_hashes_makes_the_hash_itself(patched, token):
    raw = ",".join(f"hide={number}" for number in (0x1, 0x3, 0xD))  # RSA_PKCS, RSA_X_509, RSA_PKCS_PSS
    report = audit(patched, token, f"{raw},untold={0x40000600}", "--policy", "fips-186-5")
    assert report["attributes"]["hash_on_token"] is True


def test_a_mechanism_that_nobody_knows_may_sign_ready_hashes(patched, token):
    faults = ",".join((*(f"hide={number}" for number in (0x1, 0x3, 0xD)), f"untold={0x40000600}", "show=0x80000001"))
    report = audit(patched, token, faults, "--policy", "fips-186-5", code=8)
    assert missed(report) == {"hash_on_token": "unknown"}


@pytest.mark.parametrize("day", [b"20319931", b"00000000", b"2031 1 1"])
def test_a_date_that_is_none_is_unknown(patched, token, day, tmp_path):
    token.make_key("dated", "0d", PRIVATE=False, START_DATE=Today.today())
    (tmp_path / "c.toml").write_text('[keys.k]\nuri = "pkcs11:token=t1;object=dated"\nmax_age = "365d"\n')
    (tmp_path / "c.toml").chmod(0o600)
    told = f"tell={0x110}:{int.from_bytes(day, sys.byteorder)}"
    report = audit(patched, token, told, "keys.k", "--config", str(tmp_path / "c.toml"), code=8)
    assert missed(report) == {"private": "fail", "dates": "unknown", "max_age": "unknown"}
    assert report["attributes"]["start_date"] is None


def test_a_token_that_finds_more_than_it_was_asked_for_confuses_no_key_with_another(patched, token):
    token.make_key("k2", "02")
    report = audit(patched, token, "anyobject")
    assert report["key"]["label"] == "k1"
    assert (report["attributes"]["same_label"], report["attributes"]["same_public_key"]) == (0, 0)


def test_flags_of_another_length_than_a_byte_are_unknown(patched, token):
    report = audit(patched, token, f"long={0x163}:2", code=8)
    assert missed(report) == {"local": "unknown"}


_GONE = """
import os, patched
from hsmjwt.hsm.facts import of_place
from hsmjwt.hsm.uri import parse

module, _ = patched.opened()
slot = module.find_token(parse("pkcs11:token=t1"))
whole = of_place(module, slot)
os.remove(module.choice.real)
print({name for name, value in of_place(module, slot).items() if value != whole[name]}, len(whole["module_sha256"]))
"""


def test_a_module_whose_file_is_gone_has_an_unknown_hash(patched, token, tmp_path):
    copy = shutil.copy(os.path.realpath(token.module), tmp_path / "module.so")
    done = patched("-", "-c", _GONE, HSMJWT_MODULE=str(copy))
    assert (done.code, done.out) == (0, "{'module_sha256'} 64\n"), done


_BOTH_ROADS = """
import patched
from hsmjwt.hsm.facts import of_key, of_token
from hsmjwt.hsm.objects import find_signing_key
from hsmjwt.hsm.uri import parse

module, login = patched.opened()
direct = module.library.direct
slot = module.find_token(parse("pkcs11:token=t1"))
session = module.login(slot, login)
found = []
for road in (direct, None):
    module.library.direct = road
    every = of_token(module, slot, session)
    for facts in every:
        uri = parse(f"pkcs11:object={facts.label}")
        key = find_signing_key(session, uri, slot.token, None, direct=road)
        assert of_key(module, slot, session, key) == facts, (of_key(module, slot, session, key), facts)
    found.append(every)
assert direct is not None
assert found[0] == found[1], found
print([(each.label, getattr(each.public_key, "kty", None), each.stated["same_public_key"])
    for each in sorted(found[0], key=lambda each: each.label)])
"""


def test_both_roads_to_the_attributes_and_both_ways_of_asking_tell_the_same(patched, token):
    code = (
        "import os, pkcs11\n"
        "from pkcs11.util.ec import encode_named_curve_parameters as curve\n"
        "token = pkcs11.lib(os.environ['HSMJWT_MODULE']).get_token(token_label='t1')\n"
        "with token.open(rw=True, user_pin='31415926') as s:\n"
        "    params = {pkcs11.Attribute.EC_PARAMS: curve('secp256r1')}\n"
        "    pair = s.create_domain_parameters(pkcs11.KeyType.EC, params, local=True)\n"
        "    pair.generate_keypair(store=True, label='e1', id=b'e')\n"
        "    pair.generate_keypair(store=True, label='e2', id=b'')[0].destroy()\n"
    )
    made = token.python(code)
    assert made.code == 0, made.err
    done = patched("-", "-c", _BOTH_ROADS)
    assert (done.code, done.err) == (0, ""), done
    assert done.out == "[('e1', 'EC', None), ('e2', None, None), ('k1', 'RSA', 0)]\n"  # e2 could be e1 once more
