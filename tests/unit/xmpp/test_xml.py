"""Small pieces of XML, written by string work and read by lxml (xmpp/xml.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xmpp import ns
from xmpp.xml import (
    canonical,
    canonical_element,
    child_texts,
    element,
    escape_attribute,
    escape_text,
    parse_children,
    parse_document,
    serialise,
    split_tag,
    text_of,
)

# XML 1.0, 2.2: Char. Control characters but three, surrogates and two non-characters are none.
CHARACTERS = st.one_of(
    st.sampled_from("<>&\"'\t\n\r ]"),
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"),
)
TEXT = st.text(CHARACTERS, max_size=20)


@given(TEXT, TEXT)
def test_what_is_written_is_read(value: str, text: str) -> None:
    written = element("a", "urn:a", {"b": value, "xml:lang": "en", "c": None}, text, element("d", None, None, text))
    read = parse_document(written)
    assert read.tag == "{urn:a}a"
    assert dict(read.attrib.items()) == {"b": value, f"{{{ns.XML}}}lang": "en"}
    assert text_of(read) == text_of(read[0]) == text
    assert read[0].tag == "{urn:a}d"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (element("a"), b"<a/>"),
        (element("a", None, {}, ""), b"<a/>"),
        (element("a", "urn:a"), b'<a xmlns="urn:a"/>'),
        (element("a", "urn:?b=1&c=<>"), b'<a xmlns="urn:?b=1&amp;c=&lt;&gt;"/>'),
        (element("a", None, {"b": None, "c": ""}), b'<a c=""/>'),
        (element("a", None, None, "<b/>", b"<b/>"), b"<a>&lt;b/&gt;<b/></a>"),
        (element("a", None, None, "\u00e9"), b"<a>\xc3\xa9</a>"),
    ],
)
def test_elements_are_written_shortly(written: bytes, expected: bytes) -> None:
    assert written == expected


def test_white_space_in_attributes_is_not_normalised() -> None:
    assert escape_attribute("a\tb\nc\rd\"e'f") == "a&#9;b&#10;c&#13;d&quot;e'f"  # XML 1.0, 3.3.3
    assert escape_attribute("plain") == "plain"


def test_text_cannot_end_a_section_nor_lose_its_carriage_return() -> None:
    assert escape_text("]]>\r\n\"'&<") == "]]&gt;&#13;\n\"'&amp;&lt;"  # XML 1.0, 2.4 and 2.11
    assert escape_text("plain") == "plain"


def test_children_are_those_of_a_stanza() -> None:
    body, x = parse_children(b"text <body>a</body> text <x xmlns='urn:x'/>")
    assert (body.tag, x.tag) == ("{jabber:client}body", "{urn:x}x")
    assert parse_children(b"") == parse_children(b"text") == []
    (body,) = parse_children(b"<body/>", ns.SERVER)
    assert body.tag == "{jabber:server}body"


def test_a_child_is_serialised_without_what_follows_it() -> None:
    x, _ = parse_children(b"<x xmlns='urn:x'><y/></x> tail <z/>")
    assert serialise(x) == b'<x xmlns="urn:x"><y/></x>'
    body, _ = parse_children(b"<body>a</body> tail <z/>")
    assert parse_document(serialise(body)).tag == "{jabber:client}body", "it stands alone"


def test_text_of_nothing_is_empty() -> None:
    assert text_of(None) == text_of(parse_document(b"<a/>")) == ""
    assert text_of(parse_document(b"<a>b<c/>d</a>")) == "b"


def test_namespaces_that_are_no_uris_are_read() -> None:
    assert parse_document(b"<a xmlns='%%'/>").tag == "{%%}a"  # Namespaces in XML 1.0, 2.1: not checked


@pytest.mark.parametrize(
    ("tag", "parts"),
    [("a", ("", "a")), ("{urn:a}b", ("urn:a", "b")), ("{a}b}c", ("a}b", "c")), ("{{}}a", ("{}", "a"))],
)
def test_a_namespace_may_have_braces(tag: str, parts: tuple[str, str]) -> None:
    assert split_tag(tag) == parts
    assert split_tag(str(parse_document(element(parts[1], parts[0] or None)).tag)) == parts


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("<a xmlns='jabber:client' xmlns:p='urn:p'><b/></a>", "<a><b/></a>"),
        ("<p:a xmlns:p='urn:p'><p:b/><c/></p:a>", '<a xmlns="urn:p"><b/><c xmlns=""/></a>'),
        ("<a/>", '<a xmlns=""/>'),
        ("<a xmlns='jabber:client'><b xmlns='urn:b'><c xmlns='jabber:client'/></b></a>",
         '<a><b xmlns="urn:b"><c xmlns="jabber:client"/></b></a>'),
        ("<a xmlns='urn:a'><![CDATA[<&>]]>b<c/>d</a>", '<a xmlns="urn:a">&lt;&amp;&gt;b<c/>d</a>'),
        ("<a xmlns='urn:a' xmlns:p='urn:a' p:b='1' b='&#10;\"' xml:lang='en'/>",
         '<a xmlns="urn:a" xmlns:n0="urn:a" n0:b="1" b="&#10;&quot;" xml:lang="en"/>'),
        ("<a xmlns='urn:a'>&#13;</a>", '<a xmlns="urn:a">&#13;</a>'),
        ("<a xmlns='{b}' xmlns:p='}' p:c=''/>", '<a xmlns="{b}" xmlns:n0="}" n0:c=""/>'),
    ],
)  # fmt: skip
def test_the_canonical_form_declares_each_namespace_where_it_is_used(document: str, expected: str) -> None:
    read = parse_document(document.encode())
    assert canonical_element(read, ns.CLIENT).decode() == expected
    again = parse_document(b"<x xmlns='jabber:client'>" + canonical_element(read, ns.CLIENT) + b"</x>")[0]
    assert canonical_element(again, ns.CLIENT).decode() == expected


def test_the_canonical_content_is_the_element_without_its_tags() -> None:
    read = parse_document(b"<a xmlns='urn:a'>b<c/>d &amp; e<f>g</f></a>")
    assert canonical(read, "urn:a") == b"b<c/>d &amp; e<f>g</f>"
    assert canonical(read, "urn:x") == b'b<c xmlns="urn:a"/>d &amp; e<f xmlns="urn:a">g</f>'


def test_entities_are_not_expanded_nor_fetched() -> None:
    document = b"<!DOCTYPE a [<!ENTITY b 'c'><!ENTITY d SYSTEM 'file:///etc/hostname'>]><a>&b;&d;</a>"
    assert etree.tostring(parse_document(document)) == b"<a>&b;&d;</a>"


def test_the_texts_of_children_are_those_of_one_namespace() -> None:
    query = parse_document(
        b"<query xmlns='urn:a'><b>1</b><c/><b xmlns='urn:x'>2</b><b xmlns='{urn:a}'>3</b><x:d xmlns:x='urn:a'>4</x:d></query>"
    )
    assert child_texts(query, "urn:a") == {"b": "1", "c": "", "d": "4"}
