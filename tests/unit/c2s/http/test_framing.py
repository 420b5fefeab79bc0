"""Streams in pieces that stand alone (c2s/http/framing.py): RFC 7395, 3."""

from __future__ import annotations

import pytest
from lxml import etree

from c2s.http.framing import CLOSE, alone, opening, unframed
from c2s.stream import Header
from xmpp import errors, ns
from xmpp.errors import StreamError
from xmpp.stream import CLOSE_STREAM, Limits, StreamOpen, StreamParser
from xmpp.xml import element, parse_document


def opened(message: bytes) -> StreamOpen:
    parser = StreamParser(ns.CLIENT, Limits(), is_framed=True)
    parser.push(unframed(message))
    event = parser.next_event()
    assert isinstance(event, StreamOpen)
    return event


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        (b'<message to="a@b"><body>x</body></message>', f"{{{ns.CLIENT}}}message"),
        (b"<presence/>", f"{{{ns.CLIENT}}}presence"),
        (b'<iq type="result" id="1"/>', f"{{{ns.CLIENT}}}iq"),
        (b"<stream:features/>", f"{{{ns.STREAMS}}}features"),
        (b"<stream:features><a xmlns='b'/></stream:features>", f"{{{ns.STREAMS}}}features"),
        (errors.NotWellFormed().to_bytes(), f"{{{ns.STREAMS}}}error"),
        (element("a", ns.SM, {"h": "1"}), f"{{{ns.SM}}}a"),
        (element("success", ns.SASL), f"{{{ns.SASL}}}success"),
    ],
)
def test_whatever_a_stream_writes_is_a_document_of_its_own(written: bytes, tag: str) -> None:
    assert etree.fromstring(alone(written)).tag == tag


def test_our_header_is_an_open() -> None:
    header = parse_document(opening(Header("a.example", "s1", "romeo@a.example")))
    assert header.tag == f"{{{ns.FRAMING}}}open"
    assert {str(name): header.get(name) for name in header.attrib} == {
        "version": "1.0", "from": "a.example", "id": "s1", "to": "romeo@a.example", f"{{{ns.XML}}}lang": "en",
    }  # fmt: skip
    assert etree.fromstring(CLOSE).tag == f"{{{ns.FRAMING}}}close"


def test_theirs_is_the_header_of_a_stream() -> None:
    message = f"<open xmlns='{ns.FRAMING}' to='a.example' from='r@a.example' version='1.0' xml:lang='de'/>".encode()
    found = opened(message)
    assert (found.to, found.from_, found.version, found.lang) == ("a.example", "r@a.example", "1.0", "de")
    bare = opened(f"<open xmlns='{ns.FRAMING}'/>".encode())
    assert (bare.to, bare.from_, bare.version, bare.lang) == (None, None, None, None)


def test_attributes_stay_what_they_are() -> None:
    found = opened(f"""<open xmlns='{ns.FRAMING}' to='a&quot;&gt;&lt;b' version='1.0'/>""".encode())
    assert found.to == 'a"><b'


def test_the_end_is_the_end() -> None:
    assert unframed(f"<close xmlns='{ns.FRAMING}'/>".encode()) == CLOSE_STREAM
    assert unframed(f"<close xmlns='{ns.FRAMING}' see-other-uri='wss://x/'></close>".encode()) == CLOSE_STREAM


def test_all_else_is_left_alone() -> None:
    for message in (b"<message/>", b"", b" <open/>", b"<iq xmlns='jabber:client'/>", b"</x>"):
        assert unframed(message) == message


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (b"<open", "bad-format"),
        (b"<open <", "not-well-formed"),
        (b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'><!-- --></open>", "restricted-xml"),
        (b"<open xmlns='urn:x'/>", "invalid-namespace"),
        (b"<open/>", "unsupported-stanza-type"),
        (b"<closed xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>", "invalid-namespace"),
        (b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'><a/></open>", "bad-format"),
        (b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/><message/>", "bad-format"),
    ],
)
def test_what_is_neither(message: bytes, condition: str) -> None:
    with pytest.raises(StreamError) as caught:
        unframed(message)
    assert caught.value.condition == condition
