"""Domains as DNS and TLS write them (s2s/domains.py)."""

from __future__ import annotations

import pytest

from s2s.domains import ip_literal, to_ascii


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("_dmarc.under_score.example", "_dmarc.under_score.example"),
        ("localhost", "localhost"),
    ],
)
def test_a_domain_becomes_a_labels(domain: str, name: str) -> None:
    assert to_ascii(domain) == name


@pytest.mark.parametrize(
    "domain",
    ["", ".", "..", "a..b", "-a.example", "a-.example", "a b", "a\\.b", "a\0b", "x" * 64 + ".example", "é" * 300, "[::1]",
     "a." * 127 + "example", "\u2028", "*.example"],
)  # fmt: skip
def test_what_is_no_name_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match="is not a domain name"):
        to_ascii(domain)


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("2001:db8:0::1", "2001:db8::1"),
        ("[192.0.2.1", None),
        ("192.0.2.300", None),
        ("example.org", None),
        ("", None),
    ],
)
def test_ip_literals(domain: str, address: str | None) -> None:
    assert ip_literal(domain) == address
