"""How a rotation names what it makes."""

from __future__ import annotations

import pytest

from hsmjwt.custody.rotation_names import dated, free, subject
from hsmjwt.x509.names import name_der, parse_name


@pytest.mark.parametrize("label", ["k1", 'a,b+c="d"\\<e>;f', "#1", "# 2", " x ", "ключ", "k" * 64])
def test_a_certificate_is_about_the_label_whatever_that_holds(label):
    assert name_der(parse_name(subject({}, label))).endswith(label.strip().encode())


def test_a_certificate_holds_as_much_of_a_label_as_a_name_may():
    assert subject({}, "k" * 65) == f"CN={'k' * 64}"
    assert subject({}, " ") == "CN=key"


def test_a_label_has_one_day_behind_it():
    assert dated("k1", "2026-12-01") == dated("k1-2025-01-01.2", "2026-12-01") == "k1-2026-12-01"
    assert free("k1", {"k1", "k1.2"}.__contains__) == "k1.3"
