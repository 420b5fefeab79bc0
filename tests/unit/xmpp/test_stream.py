"""The stream parser: the same events however the bytes are cut, one form for every stanza, every refusal of RFC 6120."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xmpp import errors, ns, stanza
from xmpp.stanza import Stanza, encode
from xmpp.stream import (
    CLOSE_STREAM,
    Element,
    Event,
    Limits,
    StreamClose,
    StreamOpen,
    StreamParser,
    Violation,
    open_stream,
)
from xmpp.xml import parse_document

DECLARATION = "<?xml version='1.0'?>"
PLAIN = (
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.org' "
    "version='1.0'>"
)
# Headers that say the same in other words (RFC 6120, 4.8): by prefix, what closes them, the default namespace.
HEADERS = {
    "plain": (PLAIN, "</stream:stream>", ns.CLIENT),
    "declared": (DECLARATION + PLAIN, "</stream:stream>", ns.CLIENT),
    "more prefixes": (
        PLAIN.replace(" to=", " xmlns:p='urn:p' xmlns:q=\"jabber:client\" xml:lang='de' to="),
        "</stream:stream >",
        ns.CLIENT,
    ),
    "another prefix": (
        "<s:stream\n\txmlns:s = 'http://etherx.jabber.org/streams'\n\txmlns = \"jabber:client\"\n>",
        "</s:stream\n>",
        ns.CLIENT,
    ),
    "streams is the default": (
        "<stream xmlns='http://etherx.jabber.org/streams' xmlns:q='jabber:client'>",
        "</stream>",
        ns.STREAMS,
    ),
    "no default": (
        "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns:q='jabber:client'>",
        "</stream:stream>",
        "",
    ),
    "an attribute looks like a declaration": (
        "<stream:stream to=' xmlns=\"urn:not\"' from=\"> xmlns:q='urn:not'\" xmlns='jabber:client' "
        "xmlns:stream='http://etherx.jabber.org/streams'>",
        "</stream:stream>",
        ns.CLIENT,
    ),
}
PIECES = (1, 2, 3, 7, 50, 333)

# First-level elements that are good in any stream whose default namespace is the content namespace.
CONTENT = {
    "plain": "<message to='juliet@example.org' type='chat' id='1'><body>Art thou not Romeo?</body></message>",
    "empty": "<presence/>",
    "empty with space": "<presence />",
    "empty in two tags": "<presence></presence>",
    "spaces in tags": "<message\n to = 'a@b'\t><body\n>x</body ></message\r\n >",
    "iq": "<iq type='get' id='a'><query xmlns='jabber:iq:roster'/></iq>",
    "greater-than in attributes": "<message id='>' to=\"a>b/>\"><body a='/>'>x</body></message>",
    "greater-than in text": "<message>/></message>",
    "quotes in text": '<message><body>it\'s "so" > that</body></message>',
    "quotes in attributes": "<message id='\"' type=\"it's\"/>",
    "CDATA": "<message><body><![CDATA[</body></message><message a='>]] ]>]]></body></message>",
    "entities": "<message id='&lt;&#x41;&#10;&quot;&apos;&gt;'><body>&amp;&#x41;&#66;&#x1F600;&lt;/message></body></message>",
    "not ASCII": "<message id='é'><body>Ünï€öde 😀\u2028</body></message>",
    "own declaration": "<message xmlns='jabber:client'><body>x</body></message>",
    "declaration on a child": "<message><body xmlns='jabber:client'>x</body><subject xmlns = \"jabber:client\"/></message>",
    "prefix on the stanza": "<message xmlns:x='urn:x'><x:a x:b='1' b='2'><c/></x:a></message>",
    "prefixed stanza": "<c:message xmlns:c='jabber:client'><c:body>x</c:body><body/></c:message >",
    "prefixed stanza, other default": "<c:message xmlns:c='jabber:client' xmlns='urn:x'><c:body/><y/></c:message>",
    "prefix on a child": "<message><x:a xmlns:x='urn:x' x:b='1'><x:c/></x:a></message>",
    "namespaced attribute": "<message xmlns:x='urn:x' x:to='nobody' xml:lang='en' xml:space='preserve'/>",
    "prefix of the stream inside": "<message><a xmlns='urn:a'><stream:error/></a></message>",
    "prefix of the stream taken": "<message xmlns:stream='urn:s'><stream:a/></message>",
    "forwarded": (
        "<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' to='a@b'><body>x</body>"
        "</message></forwarded></message>"
    ),
    "namespace taken back": "<message><a xmlns=''><b/></a></message>",
    "namespace that is no URI": "<message><a xmlns='{a}b'><c xmlns='jabber:client' xmlns:d='e}f' d:g='1'/></a></message>",
    "no stanza": "<r xmlns='urn:xmpp:sm:3'/>",
    "no stanza, with text": "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AG&#65;<![CDATA[B]]>=</auth>",
    "stream error": "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
}
WHOLE = DECLARATION + PLAIN + "\n".join(CONTENT.values()) + " \t\r\n" + "".join(CONTENT.values()) + "</stream:stream>"


def cut(data: str | bytes, size: int) -> list[bytes]:
    """The bytes in pieces of this size; 0 for one piece."""
    data = data.encode() if isinstance(data, str) else data
    return [data[i : i + size] for i in range(0, len(data), size)] if size else [data]


def comparable(events: Iterable[Event]) -> list[object]:
    """Errors have no equality of their own: their class stands for them."""
    return [type(event.error) if isinstance(event, Violation) else event for event in events]


def feed(pieces: Iterable[bytes], limits: Limits = Limits(), *, hibernate: bool = False) -> list[Event]:  # noqa: B008
    """As an established stream reads: everything that each piece completes."""
    parser = StreamParser(ns.CLIENT, limits)
    events = parser.flow()
    for piece in pieces:
        events += parser.feed(piece)
        if hibernate:
            parser.hibernate()
    return events


def step(pieces: Iterable[bytes], limits: Limits = Limits(), *, hibernate: bool = False) -> list[Event]:  # noqa: B008
    """As a negotiation reads: one event at a time."""
    parser = StreamParser(ns.CLIENT, limits)
    events: list[Event] = []
    for piece in pieces:
        parser.push(piece)
        while (event := parser.next_event()) is not None:
            events.append(event)
            if hibernate:
                parser.hibernate()
    return events


def refusal(data: str | bytes, limits: Limits = Limits(), size: int = 0) -> type[errors.StreamError]:  # noqa: B008
    """The error that this input ends with, the same in both ways of reading."""
    fed, stepped = feed(cut(data, size), limits)[-1], step(cut(data, size), limits)[-1]
    assert isinstance(fed, Violation)
    assert isinstance(stepped, Violation)
    assert type(fed.error) is type(stepped.error)
    return type(fed.error)


def only_stanza(content: str, header: str = PLAIN) -> Stanza:
    """The one stanza of a stream."""
    opened, event = feed([(header + content).encode()])
    assert isinstance(opened, StreamOpen)
    assert isinstance(event, Stanza), event
    return event


def infoset(node: etree._Element) -> tuple[object, ...]:
    """What canonical XML keeps of an element, less the choice of prefixes."""
    content = [node.text or "", *(part for child in node for part in (infoset(child), child.tail or ""))]
    return (node.tag, dict(node.attrib.items()), *content)


def tree(document: str | bytes) -> tuple[object, ...]:
    """What the first child of a document means."""
    return infoset(parse_document(document.encode() if isinstance(document, str) else document)[0])


def infoset_of(read: Stanza) -> tuple[object, ...]:
    """What a stanza means when it is written to a plain stream."""
    return tree(f"{PLAIN}{encode(read).decode()}</stream:stream>")


# --- the same events, however the bytes are cut


@pytest.mark.parametrize("content", CONTENT.values(), ids=CONTENT.keys())
def test_a_cut_at_any_byte_changes_nothing(content: str) -> None:
    data = (PLAIN + content + " " + content + "</stream:stream>").encode()
    whole = feed([data])
    assert [type(event) for event in whole] == [StreamOpen, type(whole[1]), type(whole[1]), StreamClose]
    for at in range(len(data) + 1):
        assert feed([data[:at], data[at:]]) == whole, data[:at]
        assert step([data[:at], data[at:]]) == whole, data[:at]


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize("hibernate", [False, True], ids=["awake", "hibernating"])
def test_pieces_of_any_size_make_the_same_events(size: int, hibernate: bool) -> None:
    whole = feed([WHOLE.encode()])
    assert len(whole) == 2 * len(CONTENT) + 2
    assert isinstance(whole[-1], StreamClose)
    assert feed(cut(WHOLE, size), hibernate=hibernate) == whole
    assert step(cut(WHOLE, size), hibernate=hibernate) == whole


@pytest.mark.parametrize(("header", "close", "default"), HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("hibernate", [False, True], ids=["awake", "hibernating"])
def test_headers_may_say_the_same_in_other_words(header: str, close: str, default: str, hibernate: bool) -> None:
    q = "" if default == ns.CLIENT else "q:"
    data = (
        f"{header}<{q}message to='a@b'><{q}body>x</{q}body><a xmlns='urn:a' b='>'/></{q}message> <{q}presence/>{close}"
    )
    for size in (0, *PIECES):
        for read in (feed, step):
            opened, message, presence, closed = read(cut(data, size), hibernate=hibernate)
            assert isinstance(opened, StreamOpen)
            assert isinstance(message, Stanza)
            assert (message.kind, message.to, message.flags) == (
                stanza.MESSAGE,
                "a@b",
                stanza.HAS_BODY | stanza.HAS_OTHER,
            )
            assert infoset_of(message) == tree(data)
            assert isinstance(presence, Stanza)
            assert presence == Stanza(stanza.PRESENCE, None, None, None, None, None, 0, None, None, b"")
            assert closed == StreamClose()


@given(st.data())
def test_random_cuts_make_the_same_events(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(CONTENT.values())), max_size=4))
    stream = (DECLARATION + PLAIN + " ".join(chosen) + "</stream:stream>").encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = feed([stream])
    assert len(whole) == len(chosen) + 2
    hibernate = data.draw(st.booleans())
    assert feed(pieces, hibernate=hibernate) == whole
    assert step(pieces, hibernate=hibernate) == whole


def test_a_stanza_is_told_by_its_last_byte() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.flow()
    parser.feed(PLAIN.encode())
    for content in CONTENT.values():
        assert parser.feed(content[:-1].encode()) == []
        assert len(parser.feed(content[-1].encode())) == 1, content


# --- what the events say


def test_the_header_is_told_as_the_peer_wrote_it() -> None:
    (opened,) = feed([b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
                      b"to='EXAMPLE.org' from='juliet@&#x65;xample.org' id='&lt;1>' version='1.0' xml:lang='de' more='x'>"])  # fmt: skip
    assert opened == StreamOpen(
        "EXAMPLE.org", "juliet@example.org", "<1>", "1.0", "de",
        {"to": "EXAMPLE.org", "from": "juliet@example.org", "id": "<1>", "version": "1.0", f"{ns.XML} lang": "de", "more": "x"},
    )  # fmt: skip
    (bare,) = feed([b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"])
    assert bare == StreamOpen(None, None, None, None, None, {})


def test_our_header_is_read_back() -> None:
    header = open_stream(namespace=ns.CLIENT, from_="example.org", id="a&'\"<b>", to="juliet@example.org", lang="en")
    (opened,) = feed([header])
    assert isinstance(opened, StreamOpen)
    assert opened[:5] == ("juliet@example.org", "example.org", "a&'\"<b>", "1.0", "en")
    assert feed([header, CLOSE_STREAM])[1:] == [StreamClose()]


def test_a_stanza_is_its_attributes_and_its_inner_bytes() -> None:
    message = only_stanza(
        "<message to='juliet@example.org' from='a' type='chat' id='&quot;1&quot;' xml:lang='en'><body>&#65; > </body></message>"
    )
    assert message == Stanza(
        stanza.MESSAGE, "chat", "juliet@example.org", "a", '"1"', "en", stanza.HAS_BODY, None, None,
        b"<body>&#65; > </body>",
    )  # fmt: skip


def test_further_attributes_are_kept() -> None:
    message = only_stanza("<message b='1' xmlns:x='urn:x' x:to='nobody' to='a' xml:space='preserve'/>")
    assert message.extra == (("b", "1"), ("urn:x to", "nobody"), (f"{ns.XML} space", "preserve"))
    assert message.to == "a"


def test_only_an_iq_has_a_payload() -> None:
    assert (
        only_stanza("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/><a/></iq>").payload
        == "jabber:iq:roster query"
    )
    assert only_stanza("<iq type='result' id='1'/>").payload is None
    assert only_stanza("<message><query xmlns='jabber:iq:roster'/></message>").payload is None


@pytest.mark.parametrize(
    ("child", "flags"),
    [
        ("<body/>", stanza.HAS_BODY),
        ("<body xmlns='jabber:client'/>", stanza.HAS_BODY),
        ("<body xmlns='jabber:server'/>", stanza.HAS_OTHER),
        ("<body xmlns='http://www.w3.org/1999/xhtml'/>", stanza.HAS_OTHER),
        ("<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='jabber:client'/></html>", stanza.HAS_OTHER),
        ("<subject/><thread/>", stanza.HAS_SUBJECT | stanza.HAS_THREAD),
        ("<error type='cancel'/>", stanza.HAS_ERROR),
        ("<x xmlns='http://jabber.org/protocol/muc'/>", stanza.HAS_MUC),
        ("<x xmlns='http://jabber.org/protocol/muc#user'/>", stanza.HAS_MUC_USER),
        ("<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/>", stanza.HAS_DELAY),
        ("<c xmlns='http://jabber.org/protocol/caps'/>", stanza.HAS_CAPS),
        ("<request xmlns='urn:xmpp:receipts'/>", stanza.HAS_RECEIPT_REQUEST),
        ("<received xmlns='urn:xmpp:receipts' id='1'/>", stanza.HAS_RECEIPT),
        ("<store xmlns='urn:xmpp:hints'/>", stanza.HINT_STORE),
        ("<no-store xmlns='urn:xmpp:hints'/>", stanza.HINT_NO_STORE),
        ("<no-permanent-store xmlns='urn:xmpp:hints'/>", stanza.HINT_NO_PERMANENT_STORE),
        ("<no-copy xmlns='urn:xmpp:hints'/>", stanza.HINT_NO_COPY),
        ("<private xmlns='urn:xmpp:carbons:2'/>", stanza.CARBONS_PRIVATE),
        ("<composing xmlns='http://jabber.org/protocol/chatstates'/>", stanza.HAS_CHAT_STATE),
        ("<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", stanza.HAS_MARKER),
        ("<markable xmlns='urn:xmpp:chat-markers:0'/>", stanza.HAS_OTHER),
        ("<event xmlns='http://jabber.org/protocol/pubsub#event'/>", stanza.HAS_EVENT),
        ("<result xmlns='urn:xmpp:mam:2' id='1'/>", stanza.HAS_EVENT),
        ("<data xmlns='http://jabber.org/protocol/ibb' seq='0' sid='s'/>", stanza.HAS_EVENT),
        ("<rtt xmlns='urn:xmpp:rtt:0' seq='1'/>", stanza.HAS_EVENT),
        ("<pubsub xmlns='http://jabber.org/protocol/pubsub'/>", stanza.HAS_OTHER),
        ("<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='a@b'/>", stanza.HAS_STANZA_ID),
        ("<origin-id xmlns='urn:xmpp:sid:0' id='1'/>", stanza.HAS_ORIGIN_ID),
        ("<referenced-stanza xmlns='urn:xmpp:sid:0' id='1'/>", stanza.HAS_OTHER),
        ("text alone", 0),
    ],
)
def test_flags_tell_the_direct_children(child: str, flags: int) -> None:
    assert only_stanza(f"<message>{child}</message>").flags == flags


def test_flags_are_those_of_one_stanza() -> None:
    _, first, second = feed([f"{PLAIN}<message><body/></message><message><subject/></message>".encode()])
    assert isinstance(first, Stanza)
    assert isinstance(second, Stanza)
    assert (first.flags, second.flags) == (stanza.HAS_BODY, stanza.HAS_SUBJECT)


def test_an_element_that_is_no_stanza_tells_its_text() -> None:
    _, element = feed([f"{PLAIN}<auth xmlns='{ns.SASL}' mechanism='PLAIN'>AG&#65;<![CDATA[B]]>=</auth>".encode()])
    assert element == Element(f"{ns.SASL} auth", {"mechanism": "PLAIN"}, b"AG&#65;<![CDATA[B]]>=")
    assert element.text == "AGAB="
    _, element = feed([f"{PLAIN}<s:auth xmlns:s='{ns.SASL}'><s:a>x</s:a>y</s:auth>".encode()])
    assert isinstance(element, Element)
    assert (element.name, element.text) == (f"{ns.SASL} auth", "xy")


def test_text_of_an_element_keeps_no_tree() -> None:
    _, element = feed([f"{PLAIN}<auth xmlns='{ns.SASL}'>AA==</auth>".encode()])
    assert isinstance(element, Element)
    assert type(element.text) is str


def test_a_server_stream_has_its_own_content_namespace() -> None:
    header = PLAIN.replace(ns.CLIENT, ns.SERVER)
    parser = StreamParser(ns.SERVER, Limits())
    parser.flow()
    _, message = parser.feed(f"{header}<message><body/></message>".encode())
    assert isinstance(message, Stanza)
    assert message.flags == stanza.HAS_BODY
    (other,) = parser.feed(b"<message xmlns='jabber:client'/>")
    assert isinstance(other, Element), "not a stanza of this stream"


# --- one form for every stanza


@pytest.mark.parametrize("content", [c for c in CONTENT.values() if not c.startswith(("<r ", "<auth", "<stream:e"))])
def test_an_encoded_stanza_means_what_it_meant(content: str) -> None:
    read = only_stanza(content)
    again = encode(read).decode()
    assert infoset_of(read) == tree(f"{PLAIN}{content}</stream:stream>")
    assert encode(only_stanza(again)).decode() == again, "once written, it stays as it is"


@pytest.mark.parametrize(
    ("content", "inner"),
    [
        ("<message><body xmlns='jabber:client'>x</body></message>", "<body>x</body>"),
        ("<message xmlns='jabber:client'><body >x</body ></message>", "<body >x</body >"),
        ("<q:message xmlns:q='jabber:client'><q:body>x</q:body></q:message>", "<body>x</body>"),
        ("<message xmlns:x='urn:x'><x:a x:b='1'/></message>", '<a xmlns="urn:x" xmlns:n0="urn:x" n0:b="1"/>'),
        ("<message><stream:a/></message>", '<a xmlns="http://etherx.jabber.org/streams"/>'),
        ("<message><body>jabber:client</body></message>", "<body>jabber:client</body>"),
        ("<message><body>stream: it, he said</body></message>", "<body>stream: it, he said</body>"),
    ],
)
def test_inner_bytes_need_no_declaration_from_outside(content: str, inner: str) -> None:
    assert only_stanza(content).inner == inner.encode()


def test_a_child_that_names_the_content_namespace_is_of_any_content_namespace() -> None:
    message = only_stanza("<message><body xmlns='jabber:client'>x</body></message>")
    (body,) = parse_document(b"<message xmlns='jabber:server'>" + message.inner + b"</message>")
    assert body.tag == "{jabber:server}body"


def test_what_is_forwarded_stays_what_it_says_it_is() -> None:
    message = only_stanza(CONTENT["forwarded"])
    (forwarded,) = parse_document(b"<message xmlns='jabber:server'>" + message.inner + b"</message>")
    assert forwarded[0].tag == "{jabber:client}message"  # XEP-0297, 3.1
    assert forwarded[0][0].tag == "{jabber:client}body"


def test_what_is_forwarded_by_prefix_stays_what_it_says_it_is() -> None:
    header = HEADERS["more prefixes"][0]
    message = only_stanza(
        "<message><forwarded xmlns='urn:xmpp:forward:0'><q:message><q:body/></q:message></forwarded></message>", header
    )
    (forwarded,) = parse_document(b"<message xmlns='jabber:server'>" + message.inner + b"</message>")
    assert [e.tag for e in forwarded.iter()] == [
        "{urn:xmpp:forward:0}forwarded",
        "{jabber:client}message",
        "{jabber:client}body",
    ]


NAMESPACES = ("urn:a", "urn:b", "http://example.org/?a=1&b='2'", ns.CLIENT, ns.STREAMS, "{odd}")
TEXT = st.text(st.sampled_from("ab :=/<>&'\"\t\n\r]{}é€😀\u0085\u2028"), max_size=8)


@st.composite
def character_data(draw: st.DrawFn) -> str:
    """Text in one of its spellings."""
    text = draw(TEXT)
    match draw(st.sampled_from(["escaped", "numbers", "CDATA"])):
        case "escaped":
            return escape(text).replace("&gt;", draw(st.sampled_from([">", "&gt;"]))).replace("]]>", "]]&gt;")
        case "numbers":
            return "".join(f"&#x{ord(c):X};" for c in text)
        case _:
            return "<![CDATA[" + text.replace("]]>", "]]]]><![CDATA[>") + "]]>"


@st.composite
def elements(draw: st.DrawFn, scope: dict[str, str], depth: int = 0) -> str:
    """An element with everything that XML allows in a stream, inside of these declarations; at depth 0 a stanza."""
    scope = dict(scope)
    declared = draw(
        st.dictionaries(st.sampled_from(["p", "q", "n0", "stream"]), st.sampled_from(NAMESPACES), max_size=2)
    )
    if draw(st.booleans()) if depth else scope[""] != ns.CLIENT and ns.CLIENT not in (scope | declared).values():
        declared[""] = ns.CLIENT if not depth else draw(st.sampled_from(["", *NAMESPACES]))
    scope.update(declared)
    written = [f"xmlns{':' if p else ''}{p}={quoteattr(uri)}" for p, uri in declared.items()]
    prefixes = [p for p in scope if p]
    used = set()
    for _ in range(draw(st.integers(0, 3))):
        prefix, local = draw(st.sampled_from(["", "xml", *prefixes])), draw(st.sampled_from(["a", "id", "to", "lang"]))
        name = (scope.get(prefix, "xml") if prefix else None, local)
        if name not in used:
            used.add(name)
            value = quoteattr(draw(TEXT), {"\n": "\n", "\t": draw(st.sampled_from(["\t", "&#9;"]))})
            written.append(f"{prefix}{':' if prefix else ''}{local}={value}")
    if depth:
        tag = draw(st.sampled_from(["", *prefixes])), draw(st.sampled_from(["body", "x", "message", "été"]))
    else:
        stanzas = [p for p, uri in scope.items() if uri == ns.CLIENT]
        tag = draw(st.sampled_from(stanzas)), draw(st.sampled_from(["message", "presence", "iq"]))
    name_written = ":".join(filter(None, tag))
    start = " ".join(["<" + name_written, *draw(st.permutations(written))])
    content = [
        draw(character_data() if depth > 3 or draw(st.booleans()) else elements(scope, depth + 1))
        for _ in range(draw(st.integers(0, 3)))
    ]
    if not content and draw(st.booleans()):
        return start + draw(st.sampled_from(["/>", " />"]))
    return f"{start}{draw(st.sampled_from(['', ' ']))}>{''.join(content)}</{name_written}{draw(st.sampled_from(['', ' ']))}>"


SCOPES = {
    "plain": {"": ns.CLIENT, "stream": ns.STREAMS},
    "more prefixes": {"": ns.CLIENT, "stream": ns.STREAMS, "p": "urn:p", "q": ns.CLIENT},
    "another prefix": {"": ns.CLIENT, "s": ns.STREAMS},
    "streams is the default": {"": ns.STREAMS, "q": ns.CLIENT},
    "no default": {"": "", "stream": ns.STREAMS, "q": ns.CLIENT},
}


@given(st.data())
def test_any_stanza_means_the_same_in_any_stream(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SCOPES)))
    header, close, _ = HEADERS[name]
    content = data.draw(elements(SCOPES[name]))
    read = only_stanza(content, header)
    again = encode(read).decode()
    assert infoset_of(read) == tree(f"{header}{content}{close}")
    assert infoset_of(only_stanza(again)) == infoset_of(read), "and again, in the next stream"
    size = data.draw(st.integers(1, 40))
    assert feed(cut(header + content, size))[1:] == [read]
    assert step(cut(header + content, size))[1:] == [read]


# --- refusals

FRAGMENTS = (
    PLAIN, DECLARATION, "<message>", "</message>", "<body>", "</body>", "<presence/>", "</stream:stream>", "<", ">",
    "/>", "&", ";", "&lt;", "&x;", "'", '"', "<!--", "-->", "<![CDATA[", "]]>", "<?x ", "?>", "<!DOCTYPE x>", "\0", " ",
    "\n", "x", "\u00e9", "\ufffe", "\ufeff", " xmlns='", " xmlns:", "=", "jabber:client", "stream:", "<a:b", "<iq id='",
    "<message xmlns:x='a}b'><x:y x:z='1'/></message>", "<a xmlns='a}'>", "</a>",
)  # fmt: skip


@given(
    st.lists(st.one_of(st.sampled_from(FRAGMENTS).map(str.encode), st.binary(max_size=3)), max_size=20),
    st.sampled_from(
        [b"", PLAIN.encode(), (PLAIN + "<message>").encode(), PLAIN.encode("utf-16"), PLAIN.encode("utf-16-be")]
    ),
    st.integers(0, 9),
)
def test_no_bytes_do_more_than_end_the_stream(fragments: list[bytes], before: bytes, size: int) -> None:
    pieces = [piece for fragment in (before, *fragments) for piece in cut(fragment, size)]
    for read in (feed, step):
        events = read(pieces, Limits(2_000, 8, 8, 20), hibernate=bool(size % 2))
        ends = [at for at, event in enumerate(events) if isinstance(event, Violation | StreamClose)]
        assert ends in ([], [len(events) - 1])


@pytest.mark.parametrize("read", [feed, step])
@pytest.mark.parametrize("end", ["<message></body>", "</stream:stream>"])
def test_nothing_is_read_behind_the_end(read: Callable[[list[bytes]], list[Event]], end: str) -> None:
    ended = read([(PLAIN + end).encode()])
    assert len(ended) == 2
    for more in ("<presence/>", "<", "\0", "<!-- -->", PLAIN + "<presence/>"):
        assert comparable(read([(PLAIN + end).encode(), more.encode()])) == comparable(ended)
        assert comparable(read([(PLAIN + end + more).encode()])) == comparable(ended)


RESTRICTED = {
    "comment": "<!-- -->",
    "processing instruction": "<?php ?>",
    "almost a declaration": "<?xml-stylesheet href='a'?>",
    "general entity": "<message><body>&nbsp;</body></message>",
    "entity in an attribute": "<message id='&id;'/>",
    "comment in a stanza": "<message><!-- --></message>",
    "comment between elements": "<message><body/><!-- --><body/></message>",
    "comment before a stanza": "<presence/> <!-- --><presence/>",
    "processing instruction in a stanza": "<message><body><?x?></body></message>",
}
DTD = {
    "empty": "<!DOCTYPE stream>",
    "external": "<!DOCTYPE stream SYSTEM 'file:///etc/passwd'>",
    "entities": "<!DOCTYPE stream [<!ENTITY a 'b'>]>",
    "external entity": "<!DOCTYPE stream [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
    "parameter entity": "<!DOCTYPE stream [<!ENTITY % a SYSTEM 'http://example.org/a.dtd'> %a;]>",
    "default attribute": "<!DOCTYPE stream [<!ATTLIST message to CDATA 'juliet@example.org'>]>",
    "billion laughs": (
        "<!DOCTYPE lolz [<!ENTITY l0 'lol'>"
        + "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))
        + "]>"
    ),
}
MALFORMED = {
    "wrong end tag": "<message></body>",
    "wrong order": "<message><a><b></a></b></message>",
    "end without a start": "</message>",
    "unquoted attribute": "<message id=1/>",
    "attribute twice": "<message id='1' id='2'/>",
    "attribute twice by namespace": "<message xmlns:a='urn:a' xmlns:b='urn:a' a:c='' b:c=''/>",
    "attributes without space": "<message id='1'to='2'/>",
    "less-than in an attribute": "<message id='<'/>",
    "bare ampersand": "<message><body>a & b</body></message>",
    "unfinished reference": "<message><body>&amp</body></message>",
    "end of CDATA alone": "<message><body>]]></body></message>",
    "no name": "<message><></message>",
    "name begins with a digit": "<message><1/></message>",
    "two colons": "<message xmlns:a='urn:a'><a:b:c/></message>",
    "unbound prefix": "<message><x:y/></message>",  # RFC 6120, 11.3: namespace-well-formed
    "unbound prefix of an attribute": "<message x:y=''/>",
    "unbound prefix of a stanza": "<x:message/>",
    "prefix taken back": "<message xmlns:x=''/>",
    "reserved prefix": "<message xmlns:xml='urn:x'/>",
    "reserved namespace": "<message xmlns:x='http://www.w3.org/2000/xmlns/'/>",
    "the prefix xmlns": "<message xmlns:xmlns='urn:x'/>",
    "another prefix for xml": "<message xmlns:x='http://www.w3.org/XML/1998/namespace'/>",
    "NUL": "<message><body>\0</body></message>",
    "NUL in a tag": "<message\0/>",
    "NUL in an attribute": "<message id='\0'/>",
    "control character": "<message><body>\x0b</body></message>",
    "control character by number": "<message><body>&#11;</body></message>",
    "NUL by number": "<message><body>&#0;</body></message>",
    "surrogate by number": "<message><body>&#xD800;</body></message>",
    "beyond Unicode": "<message><body>&#x110000;</body></message>",
    "no character": "<message><body>\uffff</body></message>",
    "no character by number": "<message id='&#xFFFE;'/>",
    "declaration inside": DECLARATION,
    "declaration in a stanza": f"<message>{DECLARATION}</message>",
    "declaration of an element": "<!ELEMENT message ANY>",
    "DTD inside": "<!DOCTYPE stream>",
}


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("content", RESTRICTED.values(), ids=RESTRICTED.keys())
def test_xml_that_streams_do_not_have_is_restricted(content: str, size: int) -> None:
    assert refusal(PLAIN + content, size=size) is errors.RestrictedXml  # RFC 6120, 11.1


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("before", ["<!-- -->", "<?x y?>", *DTD.values()], ids=["comment", "instruction", *DTD])
def test_nor_may_it_stand_before_the_header(before: str, size: int) -> None:
    assert (
        refusal(DECLARATION + before + PLAIN + "<message><body>&l9;</body></message>", size=size)
        is errors.RestrictedXml
    )
    assert refusal(before + PLAIN, size=size) is errors.RestrictedXml


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_xml_that_is_not_well_formed_ends_the_stream(content: str, size: int) -> None:
    assert refusal(PLAIN + content, size=size) is errors.NotWellFormed


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(
    "bad", [b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3("], ids=repr
)
def test_bytes_that_are_not_utf_8_end_the_stream(bad: bytes, size: int) -> None:
    """RFC 6120, 4.9.3.22: "has otherwise improperly encoded the stream"."""
    for before, behind in (
        ("<message><body>", "</body></message>"),
        ("<message><body>\u20ac\U0001f600", "</body></message>"),
        ("<message><body><![CDATA[", "]]></body></message>"),
        ("<message id='", "'/>"),
        ("<m", "/>"),
    ):
        for start in (PLAIN, DECLARATION + PLAIN[:20]):
            data = (start + before * (start == PLAIN)).encode() + bad + behind.encode()
            assert refusal(data, size=size) is errors.UnsupportedEncoding


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("behind", [b"\xff", b"\xc3(", "\u20ac".encode()[:2], "\u20ac".encode()])
def test_what_is_behind_the_fault_does_not_count(behind: bytes, size: int) -> None:
    for fault in ("<message><body>\0", "<message id='<", "<message><x:y/>", "<a>\uffff"):
        assert refusal((PLAIN + fault).encode() + behind, size=size) is errors.NotWellFormed


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("encoding", ["UTF-16", "ISO-8859-1", "US-ASCII", "windows-1252", "nonsense"])
def test_streams_are_utf_8(encoding: str, size: int) -> None:
    declared = f"<?xml version='1.0' encoding='{encoding}'?>"
    assert refusal(declared + PLAIN, size=size) is errors.UnsupportedEncoding  # RFC 6120, 11.6


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_not_guessed(encoding: str, size: int) -> None:
    for header in (PLAIN, DECLARATION + PLAIN, PLAIN + "<message/>"):
        assert refusal(header.encode(encoding), size=size) is errors.UnsupportedEncoding


@pytest.mark.parametrize("encoding", ["utf-32", "cp037"])
def test_nor_are_those_that_no_xml_parser_knows(encoding: str) -> None:
    assert refusal(PLAIN.encode(encoding)) is errors.UnsupportedEncoding


@pytest.mark.parametrize(
    "declaration",
    ["", DECLARATION, "<?xml version='1.0' encoding='UTF-8'?>", '<?xml version="1.0" encoding="utf-8"?>\n'],
)
def test_an_xml_declaration_may_be_there(declaration: str) -> None:
    assert [type(event) for event in feed(cut(declaration + PLAIN, 1))] == [StreamOpen]


@pytest.mark.parametrize("size", [0, 1])
def test_a_byte_order_mark_is_a_character(size: int) -> None:
    for header in (PLAIN, DECLARATION + PLAIN):
        assert refusal("\ufeff" + header, size=size) is errors.NotWellFormed  # RFC 6120, 11.6


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("<stream:stream xmlns='jabber:client' xmlns:stream='urn:x'>", errors.InvalidNamespace),
        ("<stream xmlns='jabber:client'>", errors.InvalidNamespace),
        ("<stream>", errors.InvalidNamespace),
        (PLAIN.replace(ns.CLIENT, ns.SERVER), errors.InvalidNamespace),
        (PLAIN.replace(ns.CLIENT, "jabber:component:accept"), errors.InvalidNamespace),
        (PLAIN.replace("'example.org'", "' xmlns=\"jabber:client\"'").replace("'jabber:client'", "'urn:x'"), errors.InvalidNamespace),
        ("<stream:features xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>", errors.BadFormat),
        ("<message xmlns='jabber:client'>", errors.BadFormat),
        ("<html>", errors.BadFormat),
        (PLAIN.replace("version='1.0'>", "version='1.0'/>"), errors.BadFormat),
        ("<stream:stream>", errors.NotWellFormed),
        ("stream <", errors.NotWellFormed),
        ("GET / HTTP/1.1\r\n\r\n", errors.NotWellFormed),
        (DECLARATION + DECLARATION + PLAIN, errors.NotWellFormed),
    ],
)  # fmt: skip
def test_a_header_that_is_no_stream_of_ours_is_refused(
    header: str, error: type[errors.StreamError], size: int
) -> None:  # fmt: skip
    assert refusal(header, size=size) is error  # RFC 6120, 4.8.1 and 4.8.2


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(
    "content",
    ["x", " x", "<presence/>x<presence/>", "<presence/> x", "x</stream:stream>", "&#32;<presence/>", "<![CDATA[ ]]><presence/>",
     "&amp;</stream:stream>", "<presence/>é<presence/>", "\u00a0<presence/>"],
)  # fmt: skip
def test_text_between_stanzas_is_bad_format(content: str, size: int) -> None:
    assert refusal(PLAIN + content, size=size) is errors.BadFormat


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("content", ["<pubsub/>", "<Message/>", "<body>x</body>", "<q:a xmlns:q='jabber:client'/>"])
def test_a_stanza_of_no_known_kind_is_refused(content: str, size: int) -> None:
    assert refusal(PLAIN + content, size=size) is errors.UnsupportedStanzaType  # RFC 6120, 4.9.3.24


def test_what_was_complete_before_a_violation_is_told() -> None:
    good = f"{PLAIN}<message id='1'/><presence/>"
    for bad in ("<!-- -->", "</iq>", "x<presence/>", "<pubsub/>"):
        for read in (feed, step):
            *events, end = read([(good + bad).encode()])
            assert events == feed([good.encode()])
            assert isinstance(end, Violation)


# --- limits


def test_a_stanza_is_limited_in_bytes_however_it_comes() -> None:
    for content in (
        "<message><body>{}</body></message>",
        "<message id='{}'/>",
        "<message {}/>",
        "<message></message{} >",
    ):
        fill = "x" if "{}<" in content or "'{}'" in content else " "
        content = content.format(fill * (200 - len(content) + 2))
        assert len(content) == 200
        for before in ("", " " * 300, "<presence/>"):
            for size in (0, 1, 7, 199, 200, 201):
                pieces = cut(PLAIN + before + content, size)
                for read in (feed, step):
                    assert isinstance(read(pieces, Limits(200))[-1], Stanza)
                    end = read(pieces, Limits(199))[-1]
                    assert isinstance(end, Violation)
                    assert type(end.error) is errors.StreamPolicyViolation


@pytest.mark.parametrize(
    "start", ["<message ", "<message id='", "<message><body>", "<message><body><![CDATA[", "<message>&", "<message></message ",
              "<message xmlns:", "<m", "<!--", "<?x ", "<![CDATA["],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 50])
def test_what_never_ends_meets_the_limit(start: str, size: int) -> None:
    parser = StreamParser(ns.CLIENT, Limits(2_000))
    events = parser.flow() + parser.feed(PLAIN.encode())
    filler = b" " if start.endswith(" ") else b"x"
    given = 0
    for piece in (*cut(start, size), *[filler * size] * (4_000 // size)):
        events += parser.feed(piece)
        given += len(piece)
        if len(events) > 1:
            break
    assert comparable(events[1:]) == [errors.StreamPolicyViolation]
    assert 2_000 < given <= 2_000 + size
    assert parser.feed(filler) == []


@pytest.mark.parametrize("start", ["<message id='", "<message ", "<message><body a='", "<message><body>", "<m"])
def test_a_large_stanza_may_not_come_byte_by_byte(start: str) -> None:
    """Expat reads an unfinished tag again with each piece: the time grows with the square of the bytes."""
    parser = StreamParser(ns.CLIENT, Limits())
    events = parser.flow() + parser.feed((PLAIN + start).encode())
    filler = b" " if start.endswith(" ") else b"x"
    given = 0
    while len(events) == 1 and given < 100_000:
        events += parser.feed(filler)
        given += 1
    assert comparable(events[1:]) == [errors.StreamPolicyViolation]
    assert 20_000 < given < 30_000
    assert parser.feed(filler) == []


@pytest.mark.parametrize("before", ["", "<presence/>", "<presence/> \n"])
@pytest.mark.parametrize("content", ["<message id='{}'/>", "<message><body>{}</body></message>"])
def test_the_largest_stanza_may_come_in_pieces_of_100_bytes(content: str, before: str) -> None:
    largest = content.format("x" * (Limits().stanza_bytes - len(content) + 2))
    assert len(largest) == Limits().stanza_bytes
    for read in (feed, step):
        events = read(cut(PLAIN + before + largest + "<presence/>", 100))
        assert [type(event) for event in events[-2:]] == [Stanza, Stanza]


def test_pieces_are_counted_for_each_stanza() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.flow()
    parser.feed(PLAIN.encode())
    stanza_ = f"<message id='{'x' * 15_000}'/>".encode()
    for _ in range(5):
        events = [event for piece in cut(stanza_, 1) for event in parser.feed(piece)]
        assert [type(event) for event in events] == [Stanza]
    # the same, when each piece ends one stanza and begins the next
    parser.feed(stanza_[:100])
    for _ in range(5):
        pieces = [*cut(stanza_[100:-1], 1), stanza_[-1:] + stanza_[:100]]
        events = [event for piece in pieces for event in parser.feed(piece)]
        assert [type(event) for event in events] == [Stanza]


def test_larger_limits_allow_more() -> None:
    limits = Limits(stanza_bytes=1_000_000)
    large = f"<message id='{'x' * 999_000}'/>"
    assert isinstance(feed(cut(PLAIN + large, 500), limits)[-1], Stanza)


def test_a_header_is_limited_too() -> None:
    header = PLAIN.replace("example.org", "x" * 500)
    for size in (0, 1, 50):
        assert [type(event) for event in feed(cut(header, size), Limits(len(header)))] == [StreamOpen]
        assert refusal(header, Limits(len(header) - 1), size) is errors.StreamPolicyViolation
        assert refusal(PLAIN.replace("version", "a='' " * 9 + "version").replace("a=", "{}=").format(*"bcdefghij"),
                       Limits(attributes=10), size) is errors.StreamPolicyViolation  # fmt: skip


@pytest.mark.parametrize("size", [0, 50])
def test_whitespace_keepalives_are_not_limited(size: int) -> None:
    parser = StreamParser(ns.CLIENT, Limits(200))
    parser.flow()
    parser.feed(PLAIN.encode())
    for piece in cut(" \n" * 1_000, size):
        assert parser.feed(piece) == []
    assert [type(event) for event in parser.feed(b"<presence/>")] == [Stanza]


@pytest.mark.parametrize("size", [0, 1])
def test_elements_are_limited_in_depth(size: int) -> None:
    def nested(levels: int) -> str:
        return "<message>" + "<a>" * (levels - 1) + "</a>" * (levels - 1) + "</message>"

    assert isinstance(feed(cut(PLAIN + nested(5), size), Limits(depth=5))[-1], Stanza)
    assert refusal(PLAIN + nested(6), Limits(depth=5), size) is errors.StreamPolicyViolation
    assert refusal(PLAIN + nested(1_000_000)[:200_000], Limits(), size and 1_000) is errors.StreamPolicyViolation


@pytest.mark.parametrize("size", [0, 1])
def test_elements_are_limited_in_number_for_each_stanza(size: int) -> None:
    def wide(elements: int) -> str:
        return "<message>" + "<a/>" * (elements - 1) + "</message>"

    assert isinstance(feed(cut(PLAIN + wide(10) * 3, size), Limits(elements=10))[-1], Stanza)
    assert refusal(PLAIN + wide(11), Limits(elements=10), size) is errors.StreamPolicyViolation


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("content", ["<message {}/>", "<message><body {}/></message>", "<r xmlns='urn:xmpp:sm:3' {}/>"])
def test_attributes_are_limited_for_each_element(content: str, size: int) -> None:
    def many(attributes: int) -> str:
        return PLAIN + content.format(" ".join(f"a{i}=''" for i in range(attributes)))

    assert isinstance(feed(cut(many(10), size), Limits(attributes=10))[-1], Stanza | Element)
    assert refusal(many(11), Limits(attributes=10), size) is errors.StreamPolicyViolation


def test_limits_may_change_while_the_stream_lives() -> None:
    parser = StreamParser(ns.CLIENT, Limits(100))
    parser.flow()
    parser.feed(PLAIN.encode().replace(b" to='example.org' version='1.0'", b""))
    parser.limits = Limits(1_000)
    assert [type(event) for event in parser.feed(b"<message><body>" + b"x" * 500 + b"</body></message>")] == [Stanza]


# --- negotiation, sleep and end

STARTTLS = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
AUTH = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>"
HEADER = (DECLARATION + PLAIN).encode()


def name_of(event: Event | None) -> str:
    """What kind of event it is; the local name of an element."""
    return event.name.rpartition(" ")[2] if isinstance(event, Element) else type(event).__name__


def test_what_was_sent_in_clear_behind_starttls_is_thrown_away() -> None:
    for behind in (b"", AUTH, b"<auth", b"\0", HEADER + AUTH, b"</stream:stream>"):
        parser = StreamParser(ns.CLIENT, Limits())
        parser.push(HEADER + STARTTLS + behind)
        assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "starttls"]
        parser.push(AUTH)
        parser.restart(drop=True)  # RFC 6120, 5.4.3.3
        assert parser.next_event() is None
        parser.push(HEADER + b"<presence/>")
        assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "Stanza"]


def test_what_was_parsed_in_part_behind_starttls_is_thrown_away_too() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADER + STARTTLS + AUTH[:9])
    assert [name_of(parser.next_event()) for _ in range(3)] == ["StreamOpen", "starttls", "NoneType"]
    parser.restart(drop=True)
    parser.push(HEADER)
    assert name_of(parser.next_event()) == "StreamOpen"


def test_the_new_stream_may_follow_auth_at_once() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADER + AUTH + HEADER + b"<presence/>")
    assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "auth"]
    parser.restart()
    assert [name_of(parser.next_event()) for _ in range(3)] == ["StreamOpen", "Stanza", "NoneType"]


@pytest.mark.parametrize("at", range(1, len(HEADER)))
def test_the_new_stream_may_follow_auth_in_pieces(at: int) -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADER + AUTH + HEADER[:at])
    assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "auth"]
    parser.restart()
    assert parser.next_event() is None
    parser.push(HEADER[at:])
    assert name_of(parser.next_event()) == "StreamOpen"


def test_a_restart_keeps_what_was_looked_at_already() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADER + AUTH + PLAIN[:20].encode())
    assert [name_of(parser.next_event()) for _ in range(3)] == ["StreamOpen", "auth", "NoneType"]
    parser.restart()
    parser.push(PLAIN[20:].encode())
    assert name_of(parser.next_event()) == "StreamOpen"


def test_a_restart_may_change_the_header() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADERS["streams is the default"][0].encode() + AUTH + HEADER + b"<message><body/></message>")
    assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "auth"]
    parser.restart()
    assert name_of(parser.next_event()) == "StreamOpen"
    message = parser.next_event()
    assert isinstance(message, Stanza)
    assert message.inner == b"<body/>"


def test_flowing_begins_with_what_was_pushed() -> None:
    stanzas = "".join(CONTENT.values()).encode()
    whole = feed([HEADER + stanzas])[1:]
    for at in range(0, len(stanzas), 11):
        parser = StreamParser(ns.CLIENT, Limits())
        parser.push(HEADER + AUTH + stanzas[:at])
        assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "auth"]
        assert parser.flow() + parser.feed(stanzas[at:]) == whole


def test_flowing_goes_on_where_stepping_stood() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADER + b"<message><bo")
    assert [name_of(parser.next_event()) for _ in range(2)] == ["StreamOpen", "NoneType"]
    parser.push(b"dy/></mess")
    assert parser.flow() == []
    assert [name_of(event) for event in parser.feed(b"age><presence/>")] == ["Stanza", "Stanza"]


def test_one_event_at_a_time_while_stepping() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    assert parser.next_event() is None
    parser.push(HEADER + b"<presence/> <presence/>\n</stream:stream>")
    assert [name_of(parser.next_event()) for _ in range(5)] == [
        "StreamOpen",
        "Stanza",
        "Stanza",
        "StreamClose",
        "NoneType",
    ]


def test_a_stream_sleeps_only_between_stanzas() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.flow()
    assert not parser.hibernate(), "there is nothing to give up"
    parser.feed(PLAIN[:20].encode())
    assert not parser.hibernate()
    parser.feed(PLAIN[20:].encode())
    assert parser.hibernate()
    assert not parser.hibernate(), "it sleeps"
    for part in ("<mess", "age><bo", "dy/>", "</message"):
        assert parser.feed(part.encode()) == []
        assert not parser.hibernate(), part
    assert [name_of(event) for event in parser.feed(b">  ")] == ["Stanza"]
    assert parser.hibernate()
    assert parser.feed(b" ") == []
    assert [name_of(event) for event in parser.feed(b"</stream:stream>")] == ["StreamClose"]
    assert not parser.hibernate()


def test_a_stream_that_wakes_holds_the_same_rules() -> None:
    for content in (*RESTRICTED.values(), *MALFORMED.values(), DECLARATION, "x", "<pubsub/>", "<x:y/>"):
        parser = StreamParser(ns.CLIENT, Limits())
        parser.flow()
        parser.feed(HEADER)
        assert parser.hibernate()
        assert comparable(parser.feed(content.encode())[-1:]) == comparable(feed([HEADER + content.encode()])[-1:])


def test_a_closed_parser_says_nothing() -> None:
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(HEADER + b"<presence/>")
    assert name_of(parser.next_event()) == "StreamOpen"
    parser.close()
    parser.push(b"<presence/>")
    assert parser.next_event() is None
    assert parser.feed(b"<presence/>") == []
    assert not parser.hibernate()


def test_a_violation_says_what_is_written_to_the_peer() -> None:
    _, end = feed([(PLAIN + "<!-- -->").encode()])
    assert isinstance(end, Violation)
    (error,) = parse_document(PLAIN.encode() + end.error.to_bytes() + CLOSE_STREAM)
    assert error.tag == f"{{{ns.STREAMS}}}error"
    assert error[0].tag == f"{{{ns.STREAM_ERRORS}}}restricted-xml"
