"""Which domains a certificate is for (s2s/certificates.py)."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from cluster.certificates import SRV_NAME, XMPP_ADDRESS, generate
from cluster.trust import Authorities
from s2s.certificates import Names, identify, names_of
from tests.support.pki import NOW, dns, issue, raw_names

ROOT = issue("root", ca=True)
AUTHORITIES = Authorities([ROOT.certificate])


def der_string(tag: int, text: str) -> bytes:
    encoded = text.encode()
    length = bytes([len(encoded)]) if len(encoded) < 128 else bytes([0x81, len(encoded)])
    return bytes([tag]) + length + encoded


def xmpp(address: str) -> x509.GeneralName:
    return x509.OtherName(XMPP_ADDRESS, der_string(0x0C, address))


def srv(name: str) -> x509.GeneralName:
    return x509.OtherName(SRV_NAME, der_string(0x16, name))


def covers(domain: str, *names: x509.GeneralName) -> bool:
    return names_of(issue("leaf", names=names).der).cover(domain)


@pytest.mark.parametrize(
    ("name", "domain", "is_covered"),
    [
        ("a.example", "a.example", True),
        ("A.Example", "a.eXample", True),
        ("a.example.", "a.example", True),
        ("a.example", "a.example.", True),
        ("a.example", "b.a.example", False),
        ("a.example", "example", False),
        ("a.example", "xa.example", False),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("xn--bcher-kva.example", "Bücher.example", True),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bucher.example", False),
        ("*.example", "a.example", True),
        ("*.example", "example", False),
        ("*.example", "b.a.example", False),
        ("*.a.example", "xn--bcher-kva.a.example", True),
        ("*.a.example", "bücher.a.example", True),
        ("*", "localhost", False),
        ("*.", "localhost", False),
        ("*.*.example", "b.a.example", False),
        ("a*.example", "ab.example", False),
        ("*a.example", "ba.example", False),
        ("b.*.example", "b.a.example", False),
        ("192.0.2.1", "192.0.2.1", False),
        ("*.0.2.1", "192.0.2.1", False),
        (".example", "a.example", False),
        (" a.example", "a.example", False),
        ("a.example\0.evil.example", "a.example", False),
        ("", "", False),
        ("a.example", "", False),
        ("a.example", "user@a.example", False),
        ("a.example", "a.example/resource", False),
    ],
)
def test_dns_names(name: str, domain: str, is_covered: bool) -> None:
    assert covers(domain, x509.DNSName(name)) is is_covered


@pytest.mark.parametrize(
    ("name", "domain", "is_covered"),
    [
        ("a.example", "a.example", True),
        ("A.EXAMPLE", "a.example", True),
        ("bücher.example", "bücher.example", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "bücher.example", True),
        ("*.example", "a.example", False),
        ("user@a.example", "a.example", False),
        ("a.example/res", "a.example", False),
        ("", "a.example", False),
        ("b.example", "a.example", False),
        ("[::1]", "::1", False),
        ("é" * 60 + ".example", "é" * 60 + ".example", False),
    ],
)
def test_xmpp_addresses(name: str, domain: str, is_covered: bool) -> None:
    assert covers(domain, xmpp(name)) is is_covered


@pytest.mark.parametrize(
    ("name", "domain", "is_covered"),
    [
        ("_xmpp-server.a.example", "a.example", True),
        ("_XMPP-Server.A.example", "a.example", True),
        ("_xmpps-server.a.example", "a.example", True),
        ("_xmpp-server.xn--bcher-kva.example", "bücher.example", True),
        ("_xmpp-client.a.example", "a.example", False),
        ("_xmpp-server._tcp.a.example", "a.example", False),
        ("_xmpp-server.*.example", "a.example", False),
        ("_xmpp-server", "a.example", False),
        ("_xmpp-server.", "", False),
        ("a.example", "a.example", False),
    ],
)
def test_srv_names(name: str, domain: str, is_covered: bool) -> None:
    assert covers(domain, srv(name)) is is_covered


def test_addresses_are_compared_as_addresses() -> None:
    names = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("192.0.2.1", "2001:db8::1")]
    assert covers("192.0.2.1", *names)
    assert covers("[2001:DB8:0::1]", *names)
    assert not covers("192.0.2.2", *names)
    assert not covers("192.0.2.1", *dns("a.example"))


def test_the_common_name_is_none() -> None:
    assert names_of(issue("a.example").der) == Names()
    assert not names_of(issue("a.example", names=dns("b.example")).der).cover("a.example")


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"\x0c",
        b"\x0c\x09",
        b"\x0c\x08a.example",
        b"\x0c\x0aa.example",
        b"\x0c\x80a.example",
        b"\x0c\x89a.example",
        b"\x16\x09a.example",
        b"\x0c\x02\xff\xfe",
        b"\x02\x01\x05",
    ],
)
def test_malformed_addresses_are_no_names(name: bytes) -> None:
    """As raw DER, because the library refuses to write some of them."""
    oid = bytes.fromhex("06082b06010505070805")
    other = oid + b"\xa0" + bytes([len(name)]) + name
    general = b"\xa0" + bytes([len(other)]) + other + b"\x82\x09b.example"
    certificate = issue("leaf", extensions=[raw_names(b"\x30" + bytes([len(general)]) + general)]).der
    assert not names_of(certificate).cover("a.example")


@given(st.binary(max_size=60))
def test_malformed_names_never_raise(content: bytes) -> None:
    assert isinstance(names_of(issue("leaf", extensions=[raw_names(content)]).der), Names)


@given(st.binary(max_size=60))
def test_what_is_no_certificate_has_no_names(content: bytes) -> None:
    assert names_of(content) == Names()


@given(st.text(max_size=40))
def test_no_domain_makes_it_raise(domain: str) -> None:
    assert Names(frozenset(["*.example"]), frozenset(["a.example"])).cover(domain) in (True, False)


def test_names_that_are_not_ascii_are_no_dns_names() -> None:
    general = b"\x82\x0a\xc3\xbc.example"
    assert names_of(issue("leaf", extensions=[raw_names(b"\x30\x0c" + general)]).der) == Names()


def test_who_is_trusted_and_named_has_proved_it() -> None:
    leaf = issue("leaf", ROOT, names=[*dns("a.example"), xmpp("b.example")])
    peer = identify([leaf.der], AUTHORITIES, NOW)
    assert peer.proves("a.example")
    assert peer.proves("b.example")
    assert not peer.proves("c.example")
    assert (peer.is_trusted, peer.problem, peer.chain) == (True, "", (leaf.der,))


def test_who_is_not_trusted_proves_nothing_but_has_names() -> None:
    peer = identify([issue("leaf", names=dns("a.example")).der], AUTHORITIES, NOW)
    assert not peer.proves("a.example")
    assert peer.names.cover("a.example")
    assert peer.problem == "the certificate is self-signed"


def test_who_shows_none_proves_nothing() -> None:
    peer = identify([], AUTHORITIES, NOW)
    assert not peer.proves("a.example")
    assert peer == ((), False, "there is no certificate", Names())


def test_names_of_other_kinds_do_not_evade_a_constraint() -> None:
    narrow = issue("narrow", ROOT, ca=True, extensions=[(x509.NameConstraints(dns("ok.example"), None), True)])
    leaf = issue("leaf", narrow, names=[*dns("ok.example"), xmpp("bank.example"), srv("_xmpp-server.bank.example")])
    peer = identify([leaf.der, narrow.der], AUTHORITIES, NOW)
    assert peer.proves("ok.example")
    assert not peer.proves("bank.example")


def test_our_own_certificates_are_read_back() -> None:
    pem, _ = generate(["bücher.example"], datetime.now(UTC))
    names = names_of(ssl.PEM_cert_to_DER_cert(pem.decode()))
    assert "bücher.example" in names.xmpp
    assert "xn--bcher-kva.example" in names.srv & names.dns
