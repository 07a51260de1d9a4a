"""Audit policies: what their files may say, and when what is known of a key keeps them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from hsmjwt.compose import policies
from hsmjwt.errors import ConfigError
from hsmjwt.guard.keypolicy import ATTRIBUTES, judge, parse, passed

BUILT_IN = ["device-born", "fips-186-5", "imported"]


def rule(attribute: str, *lines: str) -> str:
    return "\n".join((f"[rules.{attribute}]", *lines, 'why = "it matters"', ""))


def results(text: str, **stated) -> dict[str, str]:
    return {each.attribute: each.result for each in judge(parse(text, "mine", "mine.toml"), stated)}


def test_the_built_in_policies_are_those_that_are_documented():
    assert policies.names() == BUILT_IN
    for name in BUILT_IN:
        policy = policies.load(name)
        assert policy.name == name
        assert policy.description
        assert all(each.why for each in policy.rules)


@pytest.mark.parametrize(
    ("attribute", "line", "kept", "broken"),
    [
        ("sensitive", "is = true", True, False),
        ("extractable", "is = false", False, True),
        ("same_label", "is = 0", 0, 1),
        ("bits", "min = 2048", 2048, 2047),
        ("bits", "max = 4096", 4096, 4097),
        ("public_exponent", "odd = true", 65537, 65538),
        ("curve", 'one_of = ["P-256", "P-384"]', "P-384", "secp256k1"),
        ("key_gen_mechanism", 'is_not = "none"', "EC_KEY_PAIR_GEN", "none"),
        ("token_firmware", 'min = "5.7"', "5.10", "5.6"),
        ("token_firmware", 'min = "5.7"', "5.7.1", "unknown"),
        ("allowed_mechanisms", 'only = ["EDDSA", "ECDSA_SHA256"]', ("EDDSA",), ("EDDSA", "ECDSA")),
        ("allowed_mechanisms", 'only = ["EDDSA"]', ("EDDSA",), ()),
        ("token_flags", 'has = ["LOGIN_REQUIRED"]', ("RNG", "LOGIN_REQUIRED"), ("RNG",)),
    ],
)
def test_a_rule_is_kept_broken_or_unknown(attribute, line, kept, broken):
    text = rule(attribute, line)
    assert results(text, **{attribute: kept}) == {attribute: "pass"}
    assert results(text, **{attribute: broken}) == {attribute: "fail"}
    assert results(text, **{attribute: None}) == {attribute: "unknown"}
    assert results(text) == {attribute: "unknown"}


def test_an_unknown_attribute_of_the_key_is_never_passed():
    policy = parse(rule("sensitive", "is = true") + rule("local", "is = true"), "mine", "mine.toml")
    assert passed(judge(policy, {"sensitive": True, "local": True}))
    assert not passed(judge(policy, {"sensitive": True, "local": None}))
    assert not passed(judge(policy, {"sensitive": True}))


def test_an_audit_without_a_finding_did_not_pass():
    policy = parse(rule("bits", "min = 2048", 'types = ["rsa"]'), "mine", "mine.toml")
    [finding] = judge(policy, {"type": "ec"})
    assert (finding.attribute, finding.found, finding.required, finding.result) == ("type", "ec", "rsa", "fail")
    assert not passed(())


def test_a_rule_for_one_type_says_nothing_of_another_and_counts_where_the_type_is_unknown():
    text = rule("bits", "min = 2048", 'types = ["rsa"]')
    assert results(text + rule("sign", "is = true"), type="ec", bits=256, sign=True) == {"sign": "pass"}
    assert results(text, type="rsa", bits=1024) == {"bits": "fail"}
    assert results(text, type=None, bits=1024) == {"bits": "fail"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_policy_passes_nothing_where_nothing_is_known(name):
    findings = judge(policies.load(name), dict.fromkeys(ATTRIBUTES))
    assert findings
    assert {each.result for each in findings} == {"unknown"}


def good_rsa() -> dict:
    return {"type": "rsa", "bits": 2048, "public_exponent": 65537, "hash_on_token": True}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, set()),
        ({"bits": 2047}, {"bits"}),
        ({"bits": 2049}, {"bits"}),
        ({"public_exponent": 2**16 + 1}, set()),
        ({"public_exponent": 2**16 - 1}, {"public_exponent"}),
        ({"public_exponent": 2**16 + 2}, {"public_exponent"}),
        ({"public_exponent": 2**256 - 1}, set()),
        ({"public_exponent": 2**256 + 1}, {"public_exponent"}),
        ({"hash_on_token": False}, {"hash_on_token"}),
        ({"type": "ec", "curve": "P-521"}, set()),
        ({"type": "ec", "curve": None}, {"curve"}),
        ({"type": "ed25519", "curve": "Ed25519"}, set()),
        ({"type": "dsa"}, {"type"}),
    ],
)
def test_fips_186_5_asks_for_sizes_exponents_and_curves(change, broken):
    findings = judge(policies.load("fips-186-5"), {**good_rsa(), **change})
    assert {each.attribute for each in findings if each.result != "pass"} == broken


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        (rule("sensitve", "is = true"), 1, "unknown attribute 'sensitve'", "'sensitive'"),
        ("\n" + rule("xyz", "is = true"), 2, "unknown attribute 'xyz'", "always_sensitive"),
        (rule("bits", "minimum = 2048"), 2, "unknown key 'minimum' in [rules.bits]", "'min'"),
        (rule("sensitive", "min = 1"), 2, "unknown key 'min' in [rules.sensitive]", "is"),
        (rule("bits", 'min = "2048"'), 2, "rules.bits.min must be a number", None),
        (rule("bits", "min = true"), 2, "rules.bits.min must be a number", None),
        (rule("sensitive", "is = 1"), 2, "rules.sensitive.is must be true or false", None),
        (rule("curve", "one_of = []"), 2, "rules.curve.one_of must be a list of texts", None),
        (rule("token_firmware", 'min = "new"'), 2, "must be a version", None),
        (rule("token_firmware", f'min = "{"9" * 5000}"'), 2, "must be a version", None),
        (rule("token_firmware", 'min = "\u0665.7"'), 2, "must be a version", None),
        (rule("bits"), 1, "[rules.bits] requires nothing", "min"),
        (rule("bits", "min = 1", 'types = ["dsa"]'), 3, "types in [rules.bits]", None),
        (rule("not_after", 'is = "2031-11-02"'), 1, "the config's key table", None),
        ("[rules.bits]\nmin = 2048\n", 1, "does not say why", "why"),
        ("[rules.bits]\nmin = 2048\nwhy = ' '\n", 3, "does not say why", "why"),
        ("rule = 1\n", 1, "unknown key 'rule'", "'rules'"),
        ("description = 1\n", 1, "description must be text", None),
        ("[rules]\nbits = 2048\n", 2, "rules.bits must be a table", None),
        ("rules = {}\n", 1, "a policy has rules", None),
        ("[rules.bits\n", 1, "not TOML", None),
    ],
)
def test_a_policy_file_that_cannot_be_meant_is_refused_with_its_line(text, line, words, hint):
    with pytest.raises(ConfigError) as caught:
        parse(text, "mine", "/p/mine.toml")
    assert caught.value.message.startswith(f"policy file '/p/mine.toml', line {line}")
    assert words in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_a_policy_extends_another_one_and_its_own_rules_win(tmp_path):
    (tmp_path / "base.toml").write_text('extends = "imported"\n' + rule("modifiable", "is = false"))
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n' + rule("decrypt", "is = true"))
    policy = policies.load(str(tmp_path / "mine.toml"))
    wanted = {each.attribute: each.wanted for each in policy.rules}
    assert wanted["modifiable"] == {"is": False}
    assert wanted["decrypt"] == {"is": True}
    assert set(wanted) == {each.attribute for each in policies.load("imported").rules} | {"modifiable"}


def test_a_policy_that_extends_itself_ends_and_says_by_which_way(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "./other.toml"\n')
    (tmp_path / "other.toml").write_text('extends = "mine.toml"\n')
    with pytest.raises(ConfigError, match=r"extends itself: \S+/mine.toml -> \S+/other.toml -> \S+/mine.toml$"):
        policies.load(str(tmp_path / "mine.toml"))


def test_a_policy_extends_so_many_others_and_no_more(tmp_path):
    for number in range(10):
        (tmp_path / f"p{number}.toml").write_text(f'extends = "p{number + 1}.toml"\n')
    (tmp_path / "p9.toml").write_text(rule("bits", "min = 2048"))
    assert policies.load(str(tmp_path / "p2.toml")).rules
    with pytest.raises(ConfigError, match=r"p1\.toml' extends more than"):
        policies.load(str(tmp_path / "p1.toml"))


@pytest.mark.parametrize("trusted", [True, False])
def test_a_policy_is_read_from_a_file_and_never_from_a_pipe_that_could_end_in_the_middle(tmp_path, trusted):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="is no regular file"):
        policies.load(str(tmp_path / "pipe.toml"), trusted=trusted)


def test_a_number_that_is_too_long_for_a_person_is_shown_all_the_same():
    [finding] = judge(parse(rule("public_exponent", f"max = 0x1{'0' * 5000}"), "mine", "mine.toml"), {"type": "rsa"})
    assert finding.required == f"0x1{'0' * 5000} or less"


def test_no_name_of_a_policy_is_a_path():
    with pytest.raises(ConfigError, match="unknown policy 'device_born'") as caught:
        policies.load("device_born")
    assert "device-born" in (caught.value.hint or "")


def test_a_policy_that_signing_depends_on_is_not_writable_by_others(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(rule("bits", "min = 2048"))
    path.chmod(0o666)
    assert policies.load(str(path)).rules
    with pytest.raises(ConfigError, match="can be written by others"):
        policies.load(str(path), trusted=True)


def test_the_policies_are_part_of_the_package():
    """What the build takes into a wheel is all that lies in the package's folder."""
    folder = Path(policies.__file__).parents[1] / "policies"
    assert sorted(path.stem for path in folder.glob("*.toml")) == BUILT_IN
    for path in folder.glob("*.toml"):
        tomllib.loads(path.read_text())
