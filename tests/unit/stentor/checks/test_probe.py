"""What a stream offers, read without a socket (stentor/checks/probe.py, Greeting)."""

from __future__ import annotations

import pytest

from s2s.features import Features
from stentor.checks.probe import Greeting, Next
from xmpp import ns
from xmpp.stream import CLOSE_STREAM

HEADER = (
    "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'"
    " from='b.example' to='a.example' id='1' version='1.0'>"
)
BEFORE = f"<stream:features><starttls xmlns='{ns.TLS}'><required/></starttls></stream:features>"
PROCEED = f"<proceed xmlns='{ns.TLS}'/>"
AFTER = (
    f"<stream:features><mechanisms xmlns='{ns.SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>"
    f"<dialback xmlns='{ns.DIALBACK_FEATURE}'><errors/></dialback><bidi xmlns='{ns.BIDI_FEATURE}'/></stream:features>"
)
OFFERED = Features(has_external=True, has_dialback=True, has_dialback_errors=True, has_bidi=True)


def talk(greeting: Greeting, text: str, size: int) -> bytes:
    """The peer says this, so many bytes at a time; what is written to it."""
    data = text.encode()
    return b"".join(greeting.receive(data[i : i + size]) for i in range(0, len(data), size))


def step(greeting: Greeting) -> Next:
    """What it needs now."""
    return greeting.next


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_starttls_then_features(size: int) -> None:
    greeting = Greeting("b.example", "a.example", is_secure=False)
    begin = greeting.begin()
    for part in (b'to="b.example"', b'from="a.example"', b'xmlns="jabber:server"', b'version="1.0"'):
        assert part in begin
    assert talk(greeting, HEADER + BEFORE, size) == f'<starttls xmlns="{ns.TLS}"/>'.encode()
    assert step(greeting) is Next.READ
    assert talk(greeting, PROCEED, size) == b""
    assert step(greeting) is Next.TLS
    assert greeting.tls_established() == begin
    assert talk(greeting, HEADER + AFTER, size) == CLOSE_STREAM
    assert step(greeting) is Next.NOTHING
    offer = greeting.offer
    assert (offer.problem, offer.has_starttls, offer.is_secure, offer.features) == ("", True, True, OFFERED)


def test_direct_tls_needs_no_starttls() -> None:
    greeting = Greeting("b.example", "a.example", is_secure=True)
    assert talk(greeting, HEADER + AFTER, 50) == CLOSE_STREAM
    assert greeting.offer.features == OFFERED
    assert not greeting.offer.has_starttls


def test_what_came_in_clear_behind_proceed_is_not_believed() -> None:
    greeting = Greeting("b.example", "a.example", is_secure=False)
    talk(greeting, HEADER + BEFORE + PROCEED + HEADER + AFTER, 10_000)
    assert step(greeting) is Next.TLS
    greeting.tls_established()
    assert greeting.receive(b" ") == b""
    assert greeting.offer.features == Features()


def test_features_without_starttls_are_those_of_a_stream_in_clear() -> None:
    greeting = Greeting("b.example", "a.example", is_secure=False)
    assert talk(greeting, HEADER + AFTER, 10_000) == CLOSE_STREAM
    assert not greeting.offer.is_secure
    assert greeting.offer.features == OFFERED


def test_dialback_may_be_declared_in_the_header_alone() -> None:
    greeting = Greeting("b.example", "a.example", is_secure=True)
    talk(greeting, HEADER.replace(" id=", " xmlns:db='jabber:server:dialback' id=") + "<stream:features/>", 10_000)
    assert greeting.offer.has_dialback
    assert not greeting.offer.features.has_dialback


@pytest.mark.parametrize(
    ("said", "problem", "condition"),
    [
        (
            HEADER + "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
            "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>Who?</text></stream:error></stream:stream>",
            "the server ends the stream: host-unknown (Who?)",
            "host-unknown",
        ),
        (HEADER + "<stream:error/>", "the server ends the stream: undefined-condition", "undefined-condition"),
        (HEADER + "</stream:stream>", "closed the stream before", ""),
        (HEADER.replace(" version='1.0'>", ">"), "no XMPP 1.0", ""),
        (HEADER + f"<failure xmlns='{ns.TLS}'/>", "refuses STARTTLS", ""),
        (HEADER + "<message/>", "something else than its features", ""),
        (HEADER + f"<x>{'y' * 70_000}</x>", "is no XMPP stream: The stanza is too large.", ""),
        ("SSH-2.0-OpenSSH_9.2\r\n", "is no XMPP stream", ""),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "is no XMPP stream", ""),
    ],
)
def test_why_a_stream_ends_early(said: str, problem: str, condition: str) -> None:
    greeting = Greeting("b.example", "a.example", is_secure=True)
    talk(greeting, said, 10_000)
    assert step(greeting) is Next.NOTHING
    assert problem in greeting.offer.problem
    assert greeting.offer.condition == condition


def test_a_connection_that_ends_is_told() -> None:
    greeting = Greeting("b.example", "a.example", is_secure=True)
    talk(greeting, HEADER, 10_000)
    greeting.receive_eof()
    assert step(greeting) is Next.NOTHING
    assert "closed the connection" in greeting.offer.problem


def test_clients_streams_are_read_likewise() -> None:
    greeting = Greeting("b.example", "", ns.CLIENT, is_secure=True)
    assert b"from=" not in greeting.begin()
    talk(greeting, HEADER.replace("jabber:server", "jabber:client") + "<stream:features/>", 10_000)
    assert (greeting.next, greeting.offer.problem) == (Next.NOTHING, "")
