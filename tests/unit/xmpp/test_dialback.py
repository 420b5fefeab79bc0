"""Keys and elements of Server Dialback (xmpp/dialback.py; XEP-0185, XEP-0220)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp import errors, ns
from xmpp.dialback import RESULT, VERIFY, Dialback, answer, ask, is_key, make_key, parse
from xmpp.stream import Element, Limits, StreamParser, Violation, open_stream

SECRET = b"s3cr3tf0rd14lb4ck"
KEY = "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3"


def read(written: bytes) -> Element:
    """What a peer's parser makes of it, in a stream with our header."""
    parser = StreamParser(ns.SERVER, Limits())
    parser.push(open_stream(namespace=ns.SERVER, from_="a.example") + written)
    assert parser.next_event() is not None
    event = parser.next_event()
    assert isinstance(event, Element), event
    return event


def test_the_key_of_the_standard() -> None:
    """XEP-0220, 2.1.1."""
    assert make_key(SECRET, "montague.example", "capulet.example", "D60000229F") == KEY
    assert is_key(KEY, SECRET, "montague.example", "capulet.example", "D60000229F")


@pytest.mark.parametrize(
    ("receiving", "originating", "stream_id", "secret"),
    [
        ("capulet.example", "montague.example", "D60000229F", SECRET),
        ("montague.example", "capulet.example", "D60000229", SECRET),
        ("montague.example", "capulet.example", "D60000229F", b"another"),
        ("montague.example", "juliet.example", "D60000229F", SECRET),
    ],
)
def test_a_key_is_good_for_its_stream_and_its_domains_alone(
    receiving: str, originating: str, stream_id: str, secret: bytes
) -> None:
    assert not is_key(KEY, secret, receiving, originating, stream_id)


@given(st.text())
def test_no_other_text_is_the_key(text: str) -> None:
    assert is_key(text, SECRET, "montague.example", "capulet.example", "D60000229F") == (text == KEY)


def test_a_question_is_read_as_it_was_written() -> None:
    asked = ask(RESULT, to="montague.example", from_="capulet.example", key=KEY)
    assert parse(read(asked)) == Dialback(RESULT, "montague.example", "capulet.example", key=KEY)
    asked = ask(VERIFY, to="capulet.example", from_="montague.example", key=KEY, id="a&'\"<b>")
    assert parse(read(asked)) == Dialback(VERIFY, "capulet.example", "montague.example", id="a&'\"<b>", key=KEY)


def test_a_key_may_stand_on_lines_of_its_own() -> None:
    asked = f"<db:result from='capulet.example' to='montague.example'>\n   {KEY}\n </db:result>".encode()
    assert parse(read(asked)).key == KEY


@pytest.mark.parametrize(
    ("outcome", "type", "condition"),
    [(True, "valid", ""), (False, "invalid", ""), (errors.ItemNotFound("Not here."), "error", "item-not-found")],
)
@pytest.mark.parametrize("id", ["", "D60000229F"])
def test_an_answer_is_read_as_it_was_written(
    outcome: bool | errors.StanzaError, type: str, condition: str, id: str
) -> None:
    question = Dialback(VERIFY if id else RESULT, "montague.example", "capulet.example", id, key=KEY)
    read_back = parse(read(answer(question, outcome)))
    assert read_back == Dialback(question.name, "capulet.example", "montague.example", id, type, condition=condition)


def test_an_error_without_a_condition_has_an_undefined_one() -> None:
    for inner in ("", "<error/>", "<error><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>x</text></error>"):
        event = read(f"<db:result from='a.example' to='b.example' type='error'>{inner}</db:result>".encode())
        assert parse(event).condition == "undefined-condition"


def test_addresses_are_prepared() -> None:
    event = read(b"<db:result from='Capulet.Example.' to='B\xc3\x9cCHER.example'>k</db:result>")
    assert parse(event) == Dialback(RESULT, "bücher.example", "capulet.example", key="k")


@pytest.mark.parametrize(
    "attributes",
    ["", "to='a.example'", "from='a.example'", "to='a@a.example' from='b.example'", "to='a.example' from='b.example/c'",
     "to='' from='b.example'", "to='a b' from='b.example'"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["result", "verify"])
def test_what_has_no_domains_is_addressed_improperly(attributes: str, name: str) -> None:
    with pytest.raises(errors.ImproperAddressing):
        parse(read(f"<db:{name} id='1' {attributes}>key</db:{name}>".encode()))


@pytest.mark.parametrize(
    "element",
    ["<db:verify from='a.example' to='b.example'>key</db:verify>",
     "<db:result from='a.example' to='b.example' type='perhaps'/>"],
)  # fmt: skip
def test_what_has_no_id_or_another_type_is_malformed(element: str) -> None:
    with pytest.raises(errors.BadFormat):
        parse(read(element.encode()))


def test_the_prefix_is_the_one_that_old_servers_know() -> None:
    """XEP-0220, 2.4.1."""
    asked = ask(RESULT, to="montague.example", from_="capulet.example", key="k")
    assert asked == b'<db:result from="capulet.example" to="montague.example">k</db:result>'


# --- the parser, in streams that declare the prefix


def events(header: str, *stanzas: str) -> list[object]:
    parser = StreamParser(ns.SERVER, Limits())
    parser.push(header.encode())
    assert parser.next_event() is not None
    parser.push("".join(stanzas).encode())
    return list(parser.flow())


HEADER = f"<stream:stream xmlns='jabber:server' xmlns:db='{ns.DIALBACK}' xmlns:stream='{ns.STREAMS}' version='1.0'>"


def test_stanzas_of_a_stream_with_dialback_are_not_written_anew() -> None:
    inner = b"<body >as it came</body >"
    (stanza,) = events(HEADER, "<message>", inner.decode(), "</message>")
    assert getattr(stanza, "inner") == inner  # noqa: B009  # the union has other members


def test_a_stanza_that_uses_the_prefix_is_written_anew() -> None:
    (stanza,) = events(HEADER, "<message><db:x/></message>")
    assert getattr(stanza, "inner") == f'<x xmlns="{ns.DIALBACK}"/>'.encode()  # noqa: B009


@pytest.mark.parametrize(
    "header",
    [HEADER.replace(ns.DIALBACK, "urn:x"), HEADER.replace(":db=", ":d="), HEADER.replace(" xmlns:db=", " xmlns:c='urn:c' xmlns:db=")],
)  # fmt: skip
def test_other_prefixes_are_resolved(header: str) -> None:
    prefix = "d" if ":d=" in header else "db"
    (stanza,) = events(header, f"<message><{prefix}:x /></message>")
    expected = "urn:x" if "urn:x" in header else ns.DIALBACK
    assert getattr(stanza, "inner") == f'<x xmlns="{expected}"/>'.encode()  # noqa: B009


@pytest.mark.parametrize(
    ("header", "has_dialback"),
    [(HEADER, True), (HEADER.replace(":db=", ":d="), True), (HEADER.replace(ns.DIALBACK, "urn:x"), False)],
)
def test_a_header_says_whether_its_server_knows_dialback(header: str, has_dialback: bool) -> None:
    parser = StreamParser(ns.SERVER, Limits())
    parser.push(header.encode())
    opened = parser.next_event()
    assert not isinstance(opened, Violation)
    assert getattr(opened, "has_dialback") == has_dialback  # noqa: B009
