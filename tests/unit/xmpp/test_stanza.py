"""Stanzas as values, and how they are written (xmpp/stanza.py). Reading them is tests/unit/xmpp/test_stream.py."""

from __future__ import annotations

import msgpack
import pytest

from xmpp import errors, ns, stanza
from xmpp.stanza import Stanza, encode, is_answerable
from xmpp.xml import element, parse_document

GET = stanza.iq(
    type="get",
    id="1",
    to="example.org",
    from_="juliet@example.org/a",
    payload=f"{ns.PING} ping",
    inner=element("ping", ns.PING),
)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (stanza.presence(to=None, from_=None), "<presence/>"),
        (stanza.message(to="a@b", from_="c@d/e", type="chat", id="1", lang="en", inner=b"<body>x</body>"),
         '<message to="a@b" from="c@d/e" type="chat" id="1" xml:lang="en"><body>x</body></message>'),
        (GET, '<iq to="example.org" from="juliet@example.org/a" type="get" id="1"><ping xmlns="urn:xmpp:ping"/></iq>'),
        (stanza.message(to="a@b/<&\">'\t", from_=None, id="\n"),
         "<message to=\"a@b/&lt;&amp;&quot;&gt;'&#9;\" id=\"&#10;\"/>"),
        (stanza.presence(to="", from_=None, id=""), '<presence to="" id=""/>'),
    ],
)  # fmt: skip
def test_a_stanza_is_its_tags_around_its_inner_bytes(value: Stanza, written: str) -> None:
    assert encode(value).decode() == written


def test_further_attributes_are_written_with_prefixes_of_their_own() -> None:
    extra = (("b", "<"), ("urn:x to", "1"), ("urn:x?a&b=' c", "2"), (f"{ns.XML} space", "preserve"))
    written = encode(stanza.message(to="a@b", from_=None)._replace(extra=extra))
    assert dict(parse_document(written).attrib.items()) == {
        "to": "a@b", "b": "<", "{urn:x}to": "1", "{urn:x?a&b='}c": "2", f"{{{ns.XML}}}space": "preserve",
    }  # fmt: skip


def test_the_xml_namespace_has_no_other_prefix() -> None:
    """Namespaces in XML 1.0, 3: a reader would refuse the whole stream."""
    written = encode(stanza.message(to=None, from_=None)._replace(extra=((f"{ns.XML} base", "a"),)))
    assert written == b'<message xml:base="a"/>'


def test_a_missing_to_may_be_filled_in() -> None:
    assert encode(stanza.presence(to=None, from_=None), "a@b") == b'<presence to="a@b"/>'
    assert encode(stanza.presence(to="c@d", from_=None), "a@b") == b'<presence to="c@d"/>'


def test_the_content_namespace_may_be_declared() -> None:
    written = encode(stanza.message(to=None, from_=None, inner=b"<body/>"), xmlns=ns.CLIENT)
    assert written == b'<message xmlns="jabber:client"><body/></message>'


def test_children_are_read_on_demand() -> None:
    message = stanza.message(to=None, from_=None, inner=b"<body>a</body><x xmlns='urn:x'/><x xmlns='urn:x' b='2'/>")
    assert [child.tag for child in message.children()] == ["{jabber:client}body", "{urn:x}x", "{urn:x}x"]
    first = message.child("urn:x", "x")
    assert first is not None
    assert dict(first.attrib.items()) == {}
    assert message.child("urn:x", "body") is None
    assert stanza.presence(to=None, from_=None).children() == []


def test_a_result_goes_back_to_who_asked() -> None:
    answer = stanza.result(GET, b"<a/>")
    assert answer == stanza.iq(type="result", id="1", to="juliet@example.org/a", from_="example.org", inner=b"<a/>")
    assert stanza.result(GET).inner == b""


@pytest.mark.parametrize("value", [GET, stanza.message(to="a@b", from_="c@d/e", id="2", lang="de", inner=b"<body/>")])
def test_an_error_goes_back_without_the_content(value: Stanza) -> None:
    answer = stanza.error(value, errors.Forbidden("No."))
    assert (answer.kind, answer.type, answer.id) == (value.kind, "error", value.id)
    assert (answer.to, answer.from_) == (value.from_, value.to)
    assert answer.flags == stanza.HAS_ERROR
    assert [child.tag for child in answer.children()] == ["{jabber:client}error"]
    assert not is_answerable(answer)


@pytest.mark.parametrize(
    ("kind", "type", "answerable"),
    [
        (stanza.MESSAGE, None, True),
        (stanza.MESSAGE, "chat", True),
        (stanza.MESSAGE, "error", False),
        (stanza.PRESENCE, "unavailable", True),
        (stanza.PRESENCE, "error", False),
        (stanza.IQ, "get", True),
        (stanza.IQ, "set", True),
        (stanza.IQ, "result", False),
        (stanza.IQ, "error", False),
        (stanza.MESSAGE, "result", True),
    ],
)
def test_neither_errors_nor_results_are_answered(kind: int, type: str | None, answerable: bool) -> None:
    assert is_answerable(Stanza(kind, type, None, None, None, None, 0, None, None, b"")) is answerable


def test_a_stanza_travels_as_a_plain_array() -> None:
    value = GET._replace(extra=(("urn:x to", "\u00e9"),), lang="en")
    packed: bytes = msgpack.packb(value)
    assert stanza.from_wire(msgpack.unpackb(packed, use_list=False)) == value


def test_flags_are_bits_of_their_own() -> None:
    flags = [
        value
        for name, value in vars(stanza).items()
        if name.startswith(("HAS_", "HINT_", "CARBONS_", "BAD_")) and name.isupper()
    ]
    flags += [stanza.TO_FULL, stanza.BY_INTEREST, stanza.OF_PRIVATE_ROOM]
    assert sorted(flags) == [1 << bit for bit in range(len(flags))]
    assert len(flags) == 26
