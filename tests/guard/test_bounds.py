"""What binds a key: one algorithm (RFC 8725) unless its tables agree on several, and the end of its use."""

from __future__ import annotations

import pytest

from hsmjwt.errors import PolicyError
from hsmjwt.guard.policy import Bound, Permitted, bound_to, check_alg, check_end
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.jws import signing_input

END = 1_800_000_000
RS, PS, BOTH = Bound("r", ("RS256",)), Bound("p", ("PS256",)), Bound("b", ("PS256", "RS256"))
FREE = Bound("f", (), END)


@pytest.mark.parametrize(
    ("tables", "algs"),
    [
        ((), ()),
        ((FREE,), ()),
        ((RS,), ("RS256",)),
        ((FREE, BOTH), ("PS256", "RS256")),
        ((BOTH, RS), ("RS256",)),
        ((Bound("x", ("RS256", "ES256", "PS256")), BOTH), ("RS256", "PS256")),
    ],
)
def test_what_all_tables_list_is_left_in_the_first_ones_order(tables, algs):
    assert bound_to(tables) == algs


def test_tables_that_agree_on_nothing_leave_nothing():
    with pytest.raises(PolicyError) as caught:
        bound_to((RS, FREE, PS))
    assert caught.value.message == (
        "refused by the rule keys.p.alg: key tables bind one key to different algorithms: [keys.r] to RS256, "
        "[keys.p] to PS256"
    )
    for alg in ("RS256", "PS256", "ES256"):
        with pytest.raises(PolicyError):
            check_alg((RS, FREE, PS), alg)


def test_another_algorithm_than_a_tables_is_refused_by_its_rule():
    for tables in ((), (FREE,), (BOTH, RS)):
        check_alg(tables, "RS256")
    with pytest.raises(PolicyError, match=r"^refused by the rule keys\.r\.alg: PS256 is asked for, .* to RS256$"):
        check_alg((BOTH, RS), "PS256")
    with pytest.raises(PolicyError, match=r"^refused by the rule keys\.b\.alg: .* to PS256 or RS256$"):
        check_alg((BOTH, RS), "RS512")


def test_a_key_is_used_to_its_last_second_and_no_longer():
    check_end((RS, FREE), END + 0.999)
    with pytest.raises(PolicyError, match=r"^refused by the rule keys\.f\.not_after: .* 2027-01-15T08:00:00Z, and"):
        check_end((RS, FREE), END + 1)


class Counting:
    """A Signer that counts what reaches it."""

    public_key = None

    def __init__(self):
        self.signed = 0

    def sign(self, _message, _alg):
        self.signed += 1
        return b"signature"


def test_what_is_not_allowed_does_not_reach_the_key():
    now = [END]
    inner = Counting()
    signer = Permitted(inner, "assertion", (BOTH, FREE), lambda: now[0])
    message = signing_input({"typ": "JWT", "alg": "PS256"}, {"iss": "i"})
    assert signer.sign(message, ALGORITHMS["PS256"]) == b"signature"
    with pytest.raises(PolicyError, match=r"keys\.b\.alg"):
        signer.sign(message, ALGORITHMS["PS512"])
    with pytest.raises(PolicyError, match="what-a-key-signs"):
        signer.sign(b"anything", ALGORITHMS["PS256"])
    now[0] = END + 1  # in a process that lives on
    with pytest.raises(PolicyError, match=r"keys\.f\.not_after"):
        signer.sign(message, ALGORITHMS["PS256"])
    assert inner.signed == 1
