"""Streams of components (XEP-0114) in xmpp/stream.py: the handshake, and two namespaces that mean the same."""

from __future__ import annotations

import pytest

from xmpp import errors, ns, stanza
from xmpp.stanza import Stanza
from xmpp.stream import Element, Event, Limits, StreamOpen, StreamParser, Violation, open_stream
from xmpp.xml import parse_document

HEADER = f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' to='irc.montague.example'>"
PREFIXED = f"<s:stream xmlns:s='{ns.STREAMS}' xmlns:k='{ns.COMPONENT}' xmlns:j='{ns.CLIENT}' to='a.example'>"


def feed(text: str, header: str = HEADER) -> list[Event]:
    parser = StreamParser(ns.COMPONENT, Limits())
    parser.flow()
    opened, *events = parser.feed((header + text).encode())
    assert isinstance(opened, StreamOpen)
    return events


def only_stanza(text: str, header: str = HEADER) -> Stanza:
    (event,) = feed(text, header)
    assert isinstance(event, Stanza), event
    return event


def test_a_handshake_is_an_element_of_the_content_namespace() -> None:
    (event,) = feed("<handshake>aa\n</handshake>")
    assert isinstance(event, Element)
    assert (event.name, event.text) == (f"{ns.COMPONENT} handshake", "aa\n")


def test_no_other_element_of_the_content_namespace_is() -> None:
    (event,) = feed("<log/>")
    assert isinstance(event, Violation)
    assert isinstance(event.error, errors.UnsupportedStanzaType)


@pytest.mark.parametrize(
    "text",
    [
        "<message><body>x</body><error/></message>",
        "<message xmlns='jabber:client'><body>x</body><error/></message>",
        "<message><body xmlns='jabber:client'>x</body><error xmlns='jabber:client'/></message>",
        "<message xmlns='jabber:client'><body xmlns='jabber:component:accept'>x</body><error/></message>",
        "<c:message xmlns:c='jabber:client'><body>x</body><c:error/></c:message>",
    ],
)
def test_both_namespaces_are_the_content_namespace(text: str) -> None:
    read = only_stanza(text)
    assert read.inner == b"<body>x</body><error/>"
    assert read.flags == stanza.HAS_BODY | stanza.HAS_ERROR


def test_prefixes_of_the_header_for_either_are_resolved() -> None:
    read = only_stanza("<j:message><k:body>x</k:body><j:subject/><y xmlns='urn:y'/></j:message>", PREFIXED)
    assert read.inner == b'<body>x</body><subject/><y xmlns="urn:y"/>'
    assert read.flags == stanza.HAS_BODY | stanza.HAS_SUBJECT | stanza.HAS_OTHER


@pytest.mark.parametrize("namespace", [ns.CLIENT, ns.COMPONENT])
def test_what_is_forwarded_is_of_clients_whichever_it_says(namespace: str) -> None:
    """XEP-0297, 3.1: a forwarded stanza is qualified by 'jabber:client'."""
    read = only_stanza(
        f"<message><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='{ns.FORWARD}'>"
        f"<message xmlns='{namespace}'><body>x</body></message></forwarded></privilege></message>"
    )
    (privilege,) = parse_document(b"<message xmlns='jabber:server'>" + read.inner + b"</message>")
    assert [node.tag for node in privilege.iter()] == [
        "{urn:xmpp:privilege:2}privilege",
        "{urn:xmpp:forward:0}forwarded",
        "{jabber:client}message",
        "{jabber:client}body",
    ]


def test_an_iq_is_known_by_its_payload_in_either_namespace() -> None:
    inner = "<ping xmlns='urn:xmpp:ping'/>"
    for xmlns in "", " xmlns='jabber:client'":
        assert only_stanza(f"<iq{xmlns} type='get' id='1'>{inner}</iq>").payload == "urn:xmpp:ping ping"


@pytest.mark.parametrize("namespace", [ns.CLIENT, ns.SERVER, "jabber:component:connect"])
def test_a_header_of_another_content_namespace_is_refused(namespace: str) -> None:
    """XEP-0114, 3."""
    parser = StreamParser(ns.COMPONENT, Limits())
    (event,) = parser.feed(HEADER.replace(ns.COMPONENT, namespace).encode())
    assert isinstance(event, Violation)
    assert isinstance(event.error, errors.InvalidNamespace)


def test_components_are_no_clients_on_a_clients_stream() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.flow()
    _, event = parser.feed(
        f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'><message xmlns='{ns.COMPONENT}'/>".encode()
    )
    assert isinstance(event, Element)


def test_our_header_can_go_without_a_version() -> None:
    header = open_stream(namespace=ns.COMPONENT, from_="irc.montague.example", id="1", version=None)
    assert header == (
        b'<?xml version="1.0"?><stream:stream xmlns="jabber:component:accept" '
        b'xmlns:stream="http://etherx.jabber.org/streams" from="irc.montague.example" id="1">'
    )
