"""Message Archive Management (XEP-0313) with preferences (XEP-0441), stanza-ids (XEP-0359) and hints (XEP-0334)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lxml import etree

from router.archive_query import COUNTED_OF_TEXT, FIELDS, SEARCH_S, TEXT_FIELD, parse_id
from router.entity import Session
from router.features import archive as archive_feature
from router.features.archive import LISTED
from router.features.disco import account_info, server_info
from router.settings import Settings
from storage import archive
from storage.accounts import Account
from storage.archive import Preferences
from storage.log import ARCHIVE, FROM_OWNER, QUEUE, TO_OWNER, Row, time_of
from tests.support.turns import DOMAIN, NOW, World, error, load_from, parse
from xmpp import ns
from xmpp.errors import ItemNotFound
from xmpp.stanza import HAS_EVENT
from xmpp.timestamp import format_moment
from xmpp.xml import parse_document, text_of

JULIET, ROMEO, STRANGER = "juliet@example.com", "romeo@example.com", "tybalt@example.net"
BALCONY, ORCHARD = f"{JULIET}/balcony", f"{ROMEO}/orchard"
KEEPING = Settings(domains=frozenset({DOMAIN}), archive_page=50)
BODY = "<body>Art thou not Romeo?</body>"
NOT_FOUND = error("item-not-found", "cancel")
BAD_REQUEST = error("bad-request", "modify")
NOT_IMPLEMENTED = error("feature-not-implemented", "cancel")
FORBIDDEN = error("forbidden", "auth")


def message(to: str, inner: str = BODY, type: str | None = "chat", from_: str | None = None) -> str:
    head = "".join(f' {name}="{value}"' for name, value in (("to", to), ("from", from_), ("type", type)) if value)
    return f"<message{head}>{inner}</message>" if inner else f"<message{head}/>"


class Scene:
    """Juliet and Romeo, each with one session, who write to each other."""

    def __init__(self, settings: Settings = KEEPING) -> None:
        self.world = World(settings)
        self.juliets = self.world.account(JULIET)
        self.romeos = self.world.account(ROMEO)
        self.juliet = self.world.online(self.juliets, "balcony")
        self.romeo = self.world.online(self.romeos, "orchard")

    def prefer(self, default: str | None = None, always: tuple[str, ...] = (), never: tuple[str, ...] = ()) -> None:
        """Juliet's preferences, as the database has them."""
        ((_, assign),) = archive_feature.feature.loaders
        assign(self.juliets, Preferences(default, frozenset(always), frozenset(never)))

    def arrives(self, inner: str = BODY, type: str | None = "chat", to: str = JULIET, from_: str = STRANGER) -> str:
        """What Juliet hears of a message from elsewhere."""
        self.world.arrive(self.juliets, message(to, inner, type, from_))
        return "".join(self.world.heard(self.juliet))

    def kept(self, owner: str = JULIET) -> list[Row]:
        """The rows of an account's archive."""
        return self.world.archive.all(self.world.entities[owner].key or 0)

    def fill(self, number: int, words: str = "word") -> list[int]:
        """So many messages from Tybalt in Juliet's archive, one each second; their ids."""
        before = len(self.kept())
        for n in range(before, before + number):
            self.world.arrive(self.juliets, message(JULIET, f"<body>{words} {n}</body>", from_=f"{STRANGER}/r{n % 3}"))
            self.world.now += 1
        self.world.heard(self.juliet)
        return [row.id for row in self.kept()[before:]]

    def ask(self, xml: str, session: Session | None = None) -> list[str]:
        """What is heard after a request."""
        session = session or self.juliet
        self.world.say(session, xml)
        return self.world.heard(session)

    def query(self, *fields: tuple[str, str], rsm: str | None = None, more: str = "") -> Answer:
        return Answer(self.ask(query(*fields, rsm=rsm, more=more)))


def query(*fields: tuple[str, str], rsm: str | None = None, more: str = "", form_type: str = ns.MAM) -> str:
    """A query with these fields in its form."""
    names = dict.fromkeys(name for name, _ in fields)
    written = "".join(
        f'<field var="{name}">{"".join(f"<value>{value}</value>" for of, value in fields if of == name)}</field>'
        for name in names
    )
    hidden = f'<field var="FORM_TYPE" type="hidden"><value>{form_type}</value></field>'
    form = f'<x xmlns="{ns.DATA_FORMS}" type="submit">{hidden}{written}</x>' if fields else ""
    set_ = "" if rsm is None else f'<set xmlns="{ns.RSM}">{rsm}</set>'
    return f'<iq type="set" id="q"><query xmlns="{ns.MAM}" queryid="f27">{form}{set_}{more}</query></iq>'


class Answer:
    """The answer to a query, taken apart."""

    def __init__(self, heard: list[str]) -> None:
        *messages, last = heard
        assert ' type="result" id="q"><fin ' in last, last
        (fin,) = parse_document(last.encode())
        (set_,) = fin
        assert set_.tag == f"{{{ns.RSM}}}set"
        found = [etree.fromstring(xml)[0] for xml in messages]
        assert all(result.tag == f"{{{ns.MAM}}}result" for result in found)
        self.ids = [int(result.get("id") or "") for result in found]
        self.is_complete = fin.get("complete") == "true"
        assert fin.get("complete") in (None, "true")
        assert fin.get("stable") == "true"
        self.first, self.last, self.count = (self._text(set_, name) for name in ("first", "last", "count"))
        first = set_.find(f"{{{ns.RSM}}}first")
        self.index = None if first is None else first.get("index")

    @staticmethod
    def _text(set_: etree._Element, name: str) -> int | None:
        node = set_.find(f"{{{ns.RSM}}}{name}")
        return None if node is None else int(text_of(node))


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- what is kept


def test_a_message_is_kept_once_on_each_side(scene: Scene) -> None:
    scene.world.say(scene.romeo, message(BALCONY))
    (sent,), (received,) = scene.kept(ROMEO), scene.kept(JULIET)
    assert (sent.dir, sent.peer, received.dir, received.peer) == (FROM_OWNER, JULIET, TO_OWNER, ROMEO)
    assert received.id > sent.id
    for row in (sent, received):
        assert row.class_ == ARCHIVE
        assert (row.stanza.from_, row.stanza.to, row.inner.decode()) == (ORCHARD, BALCONY, BODY)


def test_what_is_delivered_has_the_id_of_the_archive(scene: Scene) -> None:
    """XEP-0313, 3.5: "MUST add a <stanza-id/>"."""
    scene.world.say(scene.romeo, message(JULIET))
    (row,) = scene.kept()
    stamp = f'<stanza-id xmlns="urn:xmpp:sid:0" by="{JULIET}" id="{row.id}"/>'
    assert scene.world.heard(scene.juliet) == [message(JULIET, BODY + stamp, from_=ORCHARD)]


def test_others_do_not_see_the_senders_id(scene: Scene) -> None:
    """3.5: "MUST NOT include the <stanza-id/> element in messages addressed to JIDs that do not have permissions"."""
    scene.world.say(scene.romeo, message(STRANGER))
    assert len(scene.kept(ROMEO)) == 1
    assert scene.world.away == [message(STRANGER, from_=ORCHARD)]


MARKER = '<displayed xmlns="urn:xmpp:chat-markers:0" id="1"/>'
RECEIPT = '<received xmlns="urn:xmpp:receipts" id="1"/>'
COMPOSING = '<composing xmlns="http://jabber.org/protocol/chatstates"/>'
ORIGIN_ID = '<origin-id xmlns="urn:xmpp:sid:0" id="1"/>'
EVENT = '<event xmlns="http://jabber.org/protocol/pubsub#event"><items node="n"/></event>'
INVITATION = '<x xmlns="http://jabber.org/protocol/muc#user"><invite from="a@b"/></x>'


def hint(name: str) -> str:
    return f'<{name} xmlns="urn:xmpp:hints"/>'


@pytest.mark.parametrize("type", [None, "normal", "chat", "x-unknown"])
@pytest.mark.parametrize(
    "inner",
    [
        BODY,
        "<body/>",
        "<subject>S</subject>",
        MARKER,
        RECEIPT,
        RECEIPT + ORIGIN_ID,
        INVITATION,
        '<x xmlns="jabber:x:conference" jid="room@b"/>',
        '<encrypted xmlns="eu.siacs.conversations.axolotl"/>',
        '<reactions xmlns="urn:xmpp:reactions:0" id="1"><reaction>x</reaction></reactions>',
        '<retract xmlns="urn:xmpp:message-retract:1" id="1"/>',
        f'<replace xmlns="urn:xmpp:message-correct:0" id="1"/>{BODY}',
        COMPOSING + hint("store"),
        EVENT + hint("store"),
        EVENT + BODY,
        BODY + COMPOSING,
        BODY + hint("no-copy"),
        '<rtt xmlns="urn:xmpp:rtt:0"/>' + BODY,
    ],
)
def test_what_is_worth_keeping(scene: Scene, inner: str, type: str | None) -> None:
    """XEP-0313, 6.1.1; XEP-0334."""
    assert "<stanza-id" in scene.arrives(inner, type)
    scene.world.say(scene.juliet, message(STRANGER, inner, type))
    assert [row.inner.decode() for row in scene.kept()] == [inner, inner]


@pytest.mark.parametrize(
    ("inner", "type"),
    [
        (BODY, "groupchat"),
        (BODY, "headline"),
        (BODY, "error"),
        (hint("store"), "error"),
        ("", "chat"),
        (COMPOSING, "chat"),
        (COMPOSING + ORIGIN_ID + "<thread>t</thread>", "chat"),
        (COMPOSING + '<x xmlns="http://jabber.org/protocol/muc#user"/>', "chat"),
        ('<request xmlns="urn:xmpp:receipts"/>', "chat"),
        (EVENT, None),
        (EVENT, "headline"),
        (EVENT + '<headers xmlns="http://jabber.org/protocol/shim"/>', None),
        ('<result xmlns="urn:xmpp:mam:2" id="1"><forwarded xmlns="urn:xmpp:forward:0"/></result>', None),
        ('<data xmlns="http://jabber.org/protocol/ibb" seq="0" sid="s">AAAA</data>', None),
        ('<rtt xmlns="urn:xmpp:rtt:0"><t>a</t></rtt>', "chat"),
        (BODY + hint("no-store"), "chat"),
        (BODY + hint("no-permanent-store"), "chat"),
        (BODY + hint("no-permanent-store") + hint("store"), "chat"),
    ],
)
def test_what_is_not_worth_keeping(scene: Scene, inner: str, type: str | None) -> None:
    heard = scene.arrives(inner, type, to=BALCONY)
    assert heard == message(BALCONY, inner, type, STRANGER)
    scene.world.say(scene.juliet, message(STRANGER, inner, type))
    assert len(scene.world.away) == 1
    assert scene.world.log == []


def test_what_is_refused_is_not_kept() -> None:
    """XEP-0313, 6.1: "that message should not appear in the archive for the entity that rejected it"."""
    scene = Scene(replace(KEEPING, offline_messages=0))
    scene.world.say(scene.romeo, message(f"{JULIET}/nowhere", type="normal"))  # nobody but that resource shall get it
    scene.juliet.presence = None
    scene.world.say(scene.romeo, message(JULIET))  # there is no room for what waits
    answers = scene.world.heard(scene.romeo)
    assert len(answers) == 2
    assert all(error("service-unavailable", "cancel") in answer for answer in answers)
    assert len(scene.kept(ROMEO)) == 2
    assert [row for row in scene.world.log if row.owner == scene.juliets.key] == []


def test_what_is_blocked_is_not_kept(scene: Scene) -> None:
    scene.juliets.blocks.add(STRANGER)
    assert scene.arrives() == ""
    scene.world.say(scene.juliet, message(STRANGER))
    assert error("not-acceptable", "cancel") in scene.world.heard(scene.juliet)[0]
    assert scene.world.log == []


def test_what_the_server_does_not_take_is_not_kept(scene: Scene) -> None:
    scene.world.say(scene.juliet, message(DOMAIN))
    assert error("service-unavailable", "cancel") in scene.world.heard(scene.juliet)[0]
    assert scene.world.log == []


def test_who_has_no_account_has_no_archive(scene: Scene) -> None:
    scene.world.nobody("mercutio@example.com")
    scene.world.say(scene.romeo, message("mercutio@example.com"))
    assert error("service-unavailable", "cancel") in scene.world.heard(scene.romeo)[0]
    assert [row.owner for row in scene.world.log] == [scene.romeos.key]


def test_what_waits_for_a_client_is_in_the_archive_and_nowhere_else(scene: Scene) -> None:
    scene.juliet.presence = None
    assert scene.arrives() == ""
    (row,) = scene.world.log
    assert (row.class_, scene.juliets.offline) == (ARCHIVE, [row.id])
    scene.arrives(BODY + hint("no-permanent-store"))
    assert [row.class_ for row in scene.world.log] == [ARCHIVE, QUEUE]
    assert scene.query().ids == [row.id]  # what is only to be delivered is not shown


@pytest.mark.parametrize("to", [JULIET, BALCONY])
def test_a_message_to_oneself_is_kept_once(scene: Scene, to: str) -> None:
    """6.1.1: "it MUST store such a stanza within a given archive only once"."""
    scene.world.say(scene.juliet, message(to))
    (row,) = scene.world.log
    assert row.peer == JULIET
    (heard,) = scene.world.heard(scene.juliet)
    assert heard == message(to, f'{BODY}<stanza-id xmlns="urn:xmpp:sid:0" by="{JULIET}" id="{row.id}"/>', from_=BALCONY)
    assert scene.query(("with", JULIET)).ids == [row.id]


def test_a_message_without_address_is_one_to_oneself(scene: Scene) -> None:
    scene.world.say(scene.juliet, f"<message>{BODY}</message>")
    assert [row.peer for row in scene.world.log] == [JULIET]


def test_copies_are_not_kept(scene: Scene) -> None:
    """6.1.1: carbons (XEP-0280) and several sessions make no further rows."""
    chamber = scene.world.online(scene.juliets, "chamber")
    for session in (scene.juliet, chamber):
        scene.world.say(session, f'<iq type="set" id="c"><enable xmlns="{ns.CARBONS}"/></iq>')
        scene.world.heard(session)
    for to in (JULIET, BALCONY):
        scene.arrives(to=to)
    scene.world.say(scene.juliet, message(STRANGER))
    assert len(scene.kept()) == 3
    direct, received, _ = scene.world.heard(chamber)
    first, second, _ = scene.kept()
    assert f'by="{JULIET}" id="{first.id}"' in direct
    assert f'by="{JULIET}" id="{second.id}"' in received


# --- XEP-0359: forged ids

GENUINE = '<stanza-id xmlns="urn:xmpp:sid:0" id="1" by="room@muc.example.net"/>'


def forged(by: str) -> str:
    return f'<stanza-id xmlns="urn:xmpp:sid:0" by="{by}" id="6"/>'


def shape(node: etree._Element) -> tuple[object, ...]:
    """An element's content, whatever the prefixes in it."""
    return (node.tag, sorted(node.items()), node.text or "", node.tail or "", *map(shape, node))


def content(inner: str) -> tuple[object, ...]:
    return shape(parse_document(f'<message xmlns="{ns.CLIENT}">{inner}</message>'.encode()))


@pytest.mark.parametrize("by", [JULIET, "Juliet@Example.com", "&#106;uliet@example.com", DOMAIN, "EXAMPLE.com."])
@pytest.mark.parametrize("type", [None, "chat", "headline", "groupchat"])
def test_ids_that_claim_to_be_ours_are_taken_out(scene: Scene, by: str, type: str | None) -> None:
    """3, rule 2: "MUST delete that element even if they are not adding their own stanza ID"."""
    heard = parse(scene.arrives(f"{forged(by)}{BODY}{GENUINE}{forged(by)}{ORIGIN_ID}", type, to=BALCONY))
    left = f"{BODY}{GENUINE}{ORIGIN_ID}"
    stamp = "".join(f'<stanza-id xmlns="urn:xmpp:sid:0" by="{JULIET}" id="{row.id}"/>' for row in scene.kept())
    assert bool(stamp) == (type in (None, "chat"))
    assert content(heard.inner.decode()) == content(left + stamp)
    assert [content(row.inner.decode()) for row in scene.kept()] == [content(left)] * len(scene.kept())


@pytest.mark.parametrize("by", [ROMEO, DOMAIN])
def test_nobody_sends_ids_of_their_own_archive_or_the_server(scene: Scene, by: str) -> None:
    scene.world.say(scene.romeo, message(STRANGER, BODY + forged(by)))
    assert scene.world.away == [message(STRANGER, from_=ORCHARD)]
    assert [row.inner.decode() for row in scene.kept(ROMEO)] == [BODY]


@pytest.mark.parametrize("by", [STRANGER, f"{JULIET}/balcony", "muc.example.com", "a@b@c", ""])
def test_ids_of_others_are_passed_on(scene: Scene, by: str) -> None:
    """3, rule 3: "SHOULD NOT strip any elements qualified by the 'urn:xmpp:sid:0' namespace"."""
    inner = f"{BODY} {forged(by)}{ORIGIN_ID}"
    assert scene.arrives(inner, "headline") == message(JULIET, inner, "headline", STRANGER)
    scene.world.say(scene.juliet, message(STRANGER, inner))
    assert scene.world.away == [message(STRANGER, inner, from_=BALCONY)]


PARTS = (
    BODY,
    GENUINE,
    ORIGIN_ID,
    " ",
    "&amp;\n",
    forged(JULIET),
    '<a:x xmlns:a="urn:a" a:b="&lt;&#9;"><y xmlns=""/></a:x>',
)


@given(st.lists(st.sampled_from(PARTS)))
@hypothesis_settings(max_examples=50)
def test_all_but_forged_ids_keeps_its_place(parts: list[str]) -> None:
    heard = parse(Scene().arrives("".join(parts), "headline", BALCONY))
    assert content(heard.inner.decode()) == content("".join(part for part in parts if part != forged(JULIET)))


# --- preferences
@pytest.mark.parametrize("direction", ["in", "out"])
@pytest.mark.parametrize(
    ("default", "always", "never", "jid", "is_kept"),
    [
        (None, (), (), STRANGER, True),  # the server's default
        ("always", (), (), STRANGER, True),
        ("never", (), (), STRANGER, False),
        ("never", (STRANGER,), (), STRANGER, True),
        ("never", (STRANGER,), (), f"{STRANGER}/home", True),
        ("never", (f"{STRANGER}/home",), (), f"{STRANGER}/home", True),
        ("never", (f"{STRANGER}/home",), (), f"{STRANGER}/work", False),
        ("never", (f"{STRANGER}/home",), (), STRANGER, False),
        ("always", (), (STRANGER,), f"{STRANGER}/home", False),
        ("always", (), ("example.net",), STRANGER, True),  # "compare": a domain is the domain's own address
        ("always", (), ("example.net",), "example.net", False),
        ("always", (f"{STRANGER}/home",), (STRANGER,), f"{STRANGER}/home", True),
        ("always", (f"{STRANGER}/home",), (STRANGER,), f"{STRANGER}/work", False),
        ("always", (STRANGER,), (STRANGER,), STRANGER, False),
        ("roster", (), (), STRANGER, False),
        ("roster", (STRANGER,), (), STRANGER, True),
        ("roster", (), (), "friend@example.net/home", True),
        ("roster", (), (), "known@example.net", True),
        ("roster", (), (), "asking@example.net", False),
        ("roster", (), ("friend@example.net",), "friend@example.net", False),
    ],
)
def test_who_is_archived(
    scene: Scene, direction: str, default: str | None, always: tuple[str, ...], never: tuple[str, ...], jid: str,
    is_kept: bool,
) -> None:  # fmt: skip
    """XEP-0441, 2.1.1 and 2.3. "Only if the contact's bare JID is in the user's roster", whatever the subscription."""
    scene.prefer(default, always, never)
    scene.world.contact(scene.juliets, "friend@example.net", "both")
    scene.world.contact(scene.juliets, "known@example.net", "none")
    scene.world.contact(scene.juliets, "asking@example.net", pending_in=True, in_roster=False)
    if direction == "in":
        assert ("<stanza-id" in scene.arrives(from_=jid)) == is_kept
    else:
        scene.world.say(scene.juliet, message(jid))
        assert len(scene.world.away) == 1
    assert len(scene.kept()) == is_kept


def test_what_one_sends_to_oneself_is_as_good_as_a_contacts(scene: Scene) -> None:
    scene.prefer("roster")
    scene.world.say(scene.juliet, message(JULIET))
    assert len(scene.kept()) == 1


@pytest.mark.parametrize(("default", "is_kept"), [("always", True), ("never", False), ("roster", False)])
def test_the_servers_default(default: str, is_kept: bool) -> None:
    scene = Scene(replace(KEEPING, archive_default=default))  # type: ignore[arg-type]  # one of three words
    scene.arrives()
    assert len(scene.kept()) == is_kept
    (answer,) = scene.ask(f'<iq type="get" id="p"><prefs xmlns="{ns.MAM}"/></iq>')
    assert answer == f'<iq to="{BALCONY}" type="result" id="p">{prefs(default)}</iq>'


def prefs(default: str, always: str = "", never: str = "") -> str:
    lists = "".join(f"<{name}>{jids}</{name}>" if jids else f"<{name}/>" for name, jids in
                    (("always", always), ("never", never)))  # fmt: skip
    return f'<prefs xmlns="{ns.MAM}" default="{default}">{lists}</prefs>'


def test_preferences_are_stored_and_in_force_at_once(scene: Scene) -> None:
    """XEP-0441, examples 4 and 5: the answer tells what is in force."""
    given_ = prefs(
        "never", "<jid>Friend@example.net</jid><jid>a@b/c</jid>", f"<jid> {STRANGER}\n</jid><jid>a@b/c</jid>"
    )
    kept = prefs("never", "<jid>friend@example.net</jid>", f"<jid>a@b/c</jid><jid>{STRANGER}</jid>")
    assert scene.ask(f'<iq type="set" id="p">{given_}</iq>') == [f'<iq to="{BALCONY}" type="result" id="p">{kept}</iq>']
    (write,) = scene.world.writes
    assert write.statement is archive.set_preferences
    assert write.arguments == (scene.juliets.key, "never", ["friend@example.net"], ["a@b/c", STRANGER])
    scene.arrives()
    assert scene.kept() == []
    scene.arrives(from_="friend@example.net")
    assert len(scene.kept()) == 1
    (answer,) = scene.ask(f'<iq type="get" id="p" to="{JULIET}"><prefs xmlns="{ns.MAM}"/></iq>')
    assert kept in answer


def test_lists_that_are_missing_are_empty(scene: Scene) -> None:
    scene.prefer("never", (STRANGER,), ("a@b",))
    (answer,) = scene.ask(f'<iq type="set" id="p"><prefs xmlns="{ns.MAM}" default="roster"/></iq>')
    assert prefs("roster") in answer
    (write,) = scene.world.writes
    assert write.arguments[1:] == ("roster", [], [])


@pytest.mark.parametrize(
    ("given_", "answer"),
    [
        (f'<prefs xmlns="{ns.MAM}"/>', BAD_REQUEST),
        (f'<prefs xmlns="{ns.MAM}" default="sometimes"/>', BAD_REQUEST),
        (prefs("always", "<jid>a@b@c</jid>"), error("jid-malformed", "modify")),
        (prefs("always", "", "<jid/>"), error("jid-malformed", "modify")),
        (
            prefs("always", "".join(f"<jid>a{n}@b</jid>" for n in range(LISTED + 1))),
            error("resource-constraint", "wait"),
        ),
    ],
)
def test_preferences_that_are_none(scene: Scene, given_: str, answer: str) -> None:
    scene.prefer("never")
    (heard,) = scene.ask(f'<iq type="set" id="p">{given_}</iq>')
    assert answer in heard
    assert scene.world.writes == []
    scene.arrives()
    assert scene.kept() == []


def test_preferences_come_with_the_account(scene: Scene) -> None:
    account = Account(7, JULIET, 0, True, 0, 0.0, None, "", "never", [ROMEO])
    load_from(archive_feature.feature, scene.juliets, account)
    (answer,) = scene.ask(f'<iq type="get" id="p"><prefs xmlns="{ns.MAM}"/></iq>')
    assert prefs("never", f"<jid>{ROMEO}</jid>") in answer


# --- queries


def test_a_query_gives_every_message_and_then_the_answer(scene: Scene) -> None:
    """XEP-0313, 4.2, example 17: each as it was sent or received, with the time of that."""
    scene.arrives(from_=f"{STRANGER}/home")
    scene.world.now += 0.25
    scene.world.say(
        scene.juliet, f'<message to="{STRANGER}" type="chat" id="8a54s" xml:lang="en"><body>&lt;</body></message>'
    )
    first, second = scene.kept()
    bodies = (
        f'<message xmlns="{ns.CLIENT}" to="{JULIET}" from="{STRANGER}/home" type="chat">{BODY}</message>',
        f'<message xmlns="{ns.CLIENT}" to="{STRANGER}" from="{BALCONY}" type="chat" id="8a54s" xml:lang="en">'
        "<body>&lt;</body></message>",
    )
    results = [
        f'<message to="{BALCONY}" from="{JULIET}"><result xmlns="{ns.MAM}" queryid="f27" id="{row.id}">'
        f'<forwarded xmlns="{ns.FORWARD}"><delay xmlns="{ns.DELAY}" stamp="{stamp}"/>{body}</forwarded></result></message>'
        for row, stamp, body in zip(
            (first, second), ("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:00.250Z"), bodies, strict=True
        )
    ]
    fin = (
        f'<iq to="{BALCONY}" type="result" id="q"><fin xmlns="{ns.MAM}" complete="true" stable="true">'
        f'<set xmlns="{ns.RSM}"><first index="0">{first.id}</first><last>{second.id}</last><count>2</count></set></fin></iq>'
    )
    assert scene.ask(query()) == [*results, fin]


def test_an_empty_archive_is_no_error(scene: Scene) -> None:
    answer = scene.query()
    assert (answer.ids, answer.first, answer.last, answer.count, answer.is_complete) == ([], None, None, 0, True)


def test_without_a_queryid_there_is_none(scene: Scene) -> None:
    scene.arrives()
    result, _ = scene.ask(f'<iq type="set" id="q"><query xmlns="{ns.MAM}"/></iq>')
    assert "queryid" not in result


def test_the_answer_goes_to_the_session_that_asked(scene: Scene) -> None:
    chamber = scene.world.online(scene.juliets, "chamber")
    scene.fill(2)
    scene.world.heard(chamber)
    assert len(scene.ask(query(), chamber)) == 3
    assert scene.world.heard(scene.juliet) == []


def test_the_form_tells_the_fields(scene: Scene) -> None:
    """4.1.5, example 14: with what is mandatory, and nothing required."""
    (answer,) = scene.ask(f'<iq type="get" id="form1"><query xmlns="{ns.MAM}"/></iq>')
    fields = re.findall(r'<field type="([^"]+)" var="([^"]+)"', answer)
    assert fields == [
        ("hidden", "FORM_TYPE"),
        ("jid-single", "with"),
        ("text-single", "start"),
        ("text-single", "end"),
        ("text-single", "before-id"),
        ("text-single", "after-id"),
        ("list-multi", "ids"),
        ("boolean", "include-groupchat"),
        ("text-single", "{urn:xmpp:fulltext:0}fulltext"),
    ]
    assert f'<validate xmlns="{ns.VALIDATE}" datatype="xs:string"><open/></validate>' in answer
    assert "<required" not in answer


def test_every_field_may_be_left_empty(scene: Scene) -> None:
    ids = scene.fill(2)
    assert scene.query(*((field.var, "") for field in FIELDS)).ids == ids


def test_fields_narrow_the_result_together(scene: Scene) -> None:
    ids = scene.fill(10)
    times = [format_moment(time_of(id_)) for id_ in ids]
    for fields, expected in (
        ([("start", times[3])], ids[3:]),
        ([("end", times[3])], ids[:4]),
        ([("start", times[3]), ("end", times[3])], ids[3:4]),
        ([("start", "2027-01-15T09:00:03.0005+01:00")], ids[4:]),
        ([("end", "2027-01-15T08:00:02.9995Z")], ids[:3]),
        ([("start", "9999-01-01T00:00:00Z")], []),
        ([("end", "1969-01-01T00:00:00Z")], []),
        ([("start", "0001-01-01T00:00:00Z"), ("end", "9999-01-01T00:00:00Z")], ids),
        ([("after-id", str(ids[3]))], ids[4:]),
        ([("before-id", str(ids[3]))], ids[:3]),
        ([("after-id", str(ids[3])), ("before-id", str(ids[6]))], ids[4:6]),
        ([("after-id", str(ids[6])), ("before-id", str(ids[3]))], []),
        ([("after-id", str(ids[3])), ("start", times[6])], ids[6:]),
        ([("ids", str(ids[7])), ("ids", str(ids[2])), ("ids", str(ids[7]))], [ids[2], ids[7]]),
        ([("with", STRANGER)], ids),
        ([("with", "Tybalt@Example.NET")], ids),
        ([("with", f"{STRANGER}/r1")], ids[1::3]),
        ([("with", STRANGER), ("start", times[8])], ids[8:]),
        ([("with", "example.net")], []),
        ([("with", JULIET)], []),
        ([("include-groupchat", "true")], ids),
        ([("include-groupchat", "false")], ids),
        ([(TEXT_FIELD, "word 7")], ids[7:8]),
        ([(TEXT_FIELD, "word"), ("before-id", str(ids[2]))], ids[:2]),
    ):
        assert scene.query(*fields).ids == expected, fields


def test_with_a_full_address(scene: Scene) -> None:
    """4.1.1: "A message in a user's archive matches if the JID matches either the to or from of the message"."""
    chamber = scene.world.bind(scene.juliets, "chamber")
    scene.world.say(scene.juliet, message(STRANGER))
    scene.world.say(chamber, message(f"{STRANGER}/home"))
    scene.arrives(from_=f"{STRANGER}/home", to=BALCONY)
    # An address that stands elsewhere is none of its own.
    scene.world.arrive(scene.juliets, message(JULIET, from_=STRANGER).replace(" type", f' id="{STRANGER}/home" type'))
    scene.world.heard(scene.juliet)
    ids = [row.id for row in scene.kept()]
    assert scene.query(("with", STRANGER)).ids == ids
    assert scene.query(("with", f"{STRANGER}/home")).ids == ids[1:3]
    assert scene.query(("with", f"{STRANGER}/work")).ids == []
    assert scene.query(("with", BALCONY)).ids == [ids[0], ids[2]]
    assert scene.query(("with", f"{JULIET}/chamber")).ids == [ids[1]]


def form(fields: str, type: str = "submit") -> str:
    return f'<iq type="set" id="q"><query xmlns="{ns.MAM}"><x xmlns="{ns.DATA_FORMS}" type="{type}">{fields}</x></query></iq>'


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (query(("start", "yesterday")), BAD_REQUEST),
        (query(("end", "2010-06-07T00:00:00")), BAD_REQUEST),
        (query(("start", "2010-06-07T00:00:00Z"), ("start", "2010-06-07T00:00:00Z")), BAD_REQUEST),
        (query(("with", "a@b"), ("with", "c@d")), BAD_REQUEST),
        (query(("with", "a@b@c")), error("jid-malformed", "modify")),
        (query(("include-groupchat", "perhaps")), BAD_REQUEST),
        (query((TEXT_FIELD, "x" * 1_001)), BAD_REQUEST),
        (query(("{urn:x}colour", "red")), NOT_IMPLEMENTED),  # 4.1.5: MUST
        (query(("withtext", "red")), NOT_IMPLEMENTED),
        (query(("with", "a@b"), form_type="urn:xmpp:mam:1"), BAD_REQUEST),
        (form('<field var="with"><value>a@b</value></field>'), BAD_REQUEST),  # without a FORM_TYPE
        (form(f'<field var="FORM_TYPE"><value>{ns.MAM}</value></field>', "form"), BAD_REQUEST),
        (query(rsm="<max>-1</max>"), BAD_REQUEST),
        (query(rsm="<index>one</index>"), BAD_REQUEST),
        (query((TEXT_FIELD, "word"), rsm="<max>1</max><index>1</index>"), NOT_IMPLEMENTED),
        (query().replace('queryid="f27"', 'node="n"'), NOT_FOUND),
    ],
)
def test_queries_that_are_none(scene: Scene, request_: str, answer: str) -> None:
    scene.fill(1)
    (heard,) = scene.ask(request_)
    assert heard.startswith(f'<iq to="{BALCONY}" type="error" id="q">{answer}')
    assert scene.query((TEXT_FIELD, "word")).count == 1  # nothing of it is under way


NO_IDS: Final = ("x", "-1", "+1", "01", " 1", "1 ", "1_0", "\u0661", str(2**63), "9" * 500)


@pytest.mark.parametrize("id_", NO_IDS)
def test_what_is_no_id_is_not_looked_for(id_: str) -> None:
    with pytest.raises(ItemNotFound):
        parse_id(id_)
    assert parse_id(str(archive.LAST_ID)) == archive.LAST_ID


@pytest.mark.parametrize("id_", ["1", str(archive.LAST_ID), *NO_IDS])
@pytest.mark.parametrize("max_", ["", "<max>0</max>"])
@pytest.mark.parametrize("where", ["before-id", "after-id", "ids", "before", "after"])
def test_an_id_that_is_not_there(scene: Scene, where: str, max_: str, id_: str) -> None:
    """4.1.3 and 4.3.2: "MUST return an item-not-found error"."""
    (known, _) = scene.fill(2)
    if where in ("before", "after"):
        request = query(("ids", str(known)), rsm=f"<{where}>{id_}</{where}>{max_}")
    else:
        request = query(("ids", str(known)), (where, id_), rsm=max_)
    (heard,) = scene.ask(request)
    assert NOT_FOUND in heard


def test_an_id_of_the_queue_is_not_in_the_archive(scene: Scene) -> None:
    scene.juliet.presence = None
    scene.arrives(BODY + hint("no-permanent-store"))
    (row,) = scene.world.log
    assert row.class_ == QUEUE
    (heard,) = scene.ask(query(("ids", str(row.id))))
    assert NOT_FOUND in heard


# --- pages


def test_the_server_limits_a_page(scene: Scene) -> None:
    """4.3.1: whether a limit was asked for or not; 4.3.2: such a page is not complete."""
    ids = scene.fill(KEEPING.archive_page + 1)
    for rsm in (None, "", "<max>1000</max>"):
        answer = scene.query(rsm=rsm)
        assert answer.ids == ids[:-1]
        assert (answer.first, answer.last, answer.is_complete) == (ids[0], ids[-2], False)
        assert (answer.index, answer.count) == ("0", len(ids))


def test_a_page_that_holds_everything_is_complete(scene: Scene) -> None:
    ids = scene.fill(KEEPING.archive_page)
    for rsm in (None, "<before/>", f"<max>{len(ids)}</max>"):
        answer = scene.query(rsm=rsm)
        assert (answer.ids, answer.is_complete, answer.index, answer.count) == (ids, True, "0", len(ids))


def test_paging_forwards(scene: Scene) -> None:
    """XEP-0059, 2.2."""
    ids = scene.fill(10)
    pages: list[list[int]] = []
    after = ""
    while True:
        answer = scene.query(("with", STRANGER), rsm=f"<max>4</max>{after}")
        assert answer.ids
        assert (answer.index, answer.count) == (str(sum(map(len, pages))), 10)
        pages.append(answer.ids)
        if answer.is_complete:
            break
        after = f"<after>{answer.last}</after>"
    assert pages == [ids[:4], ids[4:8], ids[8:]]
    answer = scene.query(rsm=f"<after>{ids[-1]}</after>")
    assert (answer.ids, answer.first, answer.count, answer.is_complete) == ([], None, 10, True)


def test_paging_backwards(scene: Scene) -> None:
    """XEP-0059, 2.3 and 2.5; each page is in chronological order (XEP-0313, 4.3.3)."""
    ids = scene.fill(10)
    pages, before = [], "<before/>"
    while True:
        answer = scene.query(rsm=f"<max>4</max>{before}")
        pages.append(answer.ids)
        assert (answer.index, answer.count) == (str(10 - sum(map(len, pages))), 10)
        if answer.is_complete:
            break
        before = f"<before>{answer.first}</before>"
    assert pages == [ids[6:], ids[2:6], ids[:2]]


def test_a_page_between_two_ids_of_a_form(scene: Scene) -> None:
    ids = scene.fill(10)
    fields = (("after-id", str(ids[1])), ("before-id", str(ids[8])))
    answer = scene.query(*fields, rsm="<max>2</max><before/>")
    assert (answer.ids, answer.is_complete, answer.index, answer.count) == (ids[6:8], False, "4", 6)
    answer = scene.query(*fields, rsm=f"<max>10</max><after>{ids[3]}</after>")
    assert (answer.ids, answer.is_complete, answer.index, answer.count) == (ids[4:8], True, "2", 6)
    # An end of the page may lie outside of what the form selects.
    answer = scene.query(*fields, rsm=f"<max>2</max><before>{ids[9]}</before>")
    assert (answer.ids, answer.index, answer.count) == (ids[6:8], "4", 6)


def test_a_page_by_index(scene: Scene) -> None:
    """XEP-0059, 2.6."""
    ids = scene.fill(10)
    for fields, of in (((), ids), ((("with", f"{STRANGER}/r0"),), ids[::3])):
        for index in (0, 1, 3):
            answer = scene.query(*fields, rsm=f"<max>2</max><index>{index}</index>")
            assert answer.ids == of[index : index + 2]
            assert (answer.index, answer.count, answer.is_complete) == (str(index), len(of), index + 2 >= len(of))
        answer = scene.query(*fields, rsm=f"<max>2</max><index>{len(of)}</index>")
        assert (answer.ids, answer.index, answer.count) == ([], None, len(of))


def test_only_the_count(scene: Scene) -> None:
    """XEP-0059, 2.7."""
    answer = scene.query(rsm="<max>0</max>")
    assert (answer.ids, answer.count, answer.is_complete) == ([], 0, True)
    scene.fill(5)
    answer = scene.query(("with", f"{STRANGER}/r0"), rsm="<max>0</max>")
    assert (answer.ids, answer.first, answer.count, answer.is_complete) == ([], None, 2, False)
    scene.world.database[archive.count] = lambda query, most: None if most == COUNTED_OF_TEXT else 7
    assert scene.query((TEXT_FIELD, "word"), rsm="<max>0</max>").count is None  # too many to look at
    assert scene.query(rsm="<max>0</max>").count == 7


@pytest.mark.parametrize("rsm", ["<max>3</max>", "<max>3</max><before/>", "<max>30</max>"])
def test_a_flipped_page_is_the_same_page_the_other_way_round(scene: Scene, rsm: str) -> None:
    """4.3.4: "flipping a page does not affect what results are returned"."""
    scene.fill(10)
    plain, flipped = scene.query(rsm=rsm), scene.query(rsm=rsm, more="<flip-page/>")
    assert flipped.ids == plain.ids[::-1]
    assert (flipped.first, flipped.last) == (plain.first, plain.last) == (plain.ids[0], plain.ids[-1])
    assert (flipped.index, flipped.is_complete) == (plain.index, plain.is_complete)


def test_what_would_take_long_to_count_is_not_counted(scene: Scene) -> None:
    ids = scene.fill(3)
    scene.world.database[archive.around] = lambda query, first, last: (1, None)
    answer = scene.query(rsm=f"<max>1</max><after>{ids[0]}</after>")
    assert (answer.ids, answer.index, answer.count) == ([ids[1]], "1", None)


@pytest.mark.parametrize("rsm", ["<max>3</max>", "<max>3</max><before/>"])
@pytest.mark.parametrize("field", [("with", f"{STRANGER}/r1"), (TEXT_FIELD, "word")])
def test_a_page_may_take_several_reads(scene: Scene, field: tuple[str, str], rsm: str) -> None:
    scene.fill(20)
    whole = scene.query(field, rsm=rsm)
    scene.world.archive.step, scene.world.archive.reads = 2, 0
    stepwise = scene.query(field, rsm=rsm)
    assert scene.world.archive.reads > 1
    assert (stepwise.ids, stepwise.index, stepwise.is_complete) == (whole.ids, whole.index, whole.is_complete)


def test_a_page_of_great_messages_is_a_short_one(scene: Scene) -> None:
    ids = scene.fill(12, "w" * 200_000)
    scene.world.archive.step = 2
    answer = scene.query(("with", STRANGER))
    assert (answer.ids, answer.is_complete) == (ids[:6], False)
    assert 1_000_000 < archive.MOST_BYTES < 1_200_000


def test_nobody_reads_on_for_a_session_that_has_gone(scene: Scene) -> None:
    scene.fill(20)
    model = scene.world.archive
    model.step, model.reads = 1, 0
    answered = scene.world.database[archive.find]

    def and_goes(*arguments: object) -> object:
        if model.reads == 3:
            scene.juliets.sessions.clear()
        return answered(*arguments)

    scene.world.database[archive.find] = and_goes
    assert scene.ask(query((TEXT_FIELD, "nowhere"))) == []
    assert model.reads == 4
    scene.juliets.sessions["balcony"] = scene.juliet
    scene.world.database[archive.find] = answered
    assert scene.query((TEXT_FIELD, "nowhere")).count == 0


def test_one_search_at_a_time(scene: Scene) -> None:
    """There is no index for full text: many at once would keep the database from other work."""
    scene.fill(3)
    answered = scene.world.database[archive.find]
    refusals: list[str] = []

    def and_asks_meanwhile(*arguments: object) -> object:
        scene.world.database[archive.find] = answered
        refusals.extend(scene.ask(query((TEXT_FIELD, "word"))))
        assert scene.query().count == 3  # anything else may be asked for
        return answered(*arguments)

    scene.world.database[archive.find] = and_asks_meanwhile
    assert scene.query((TEXT_FIELD, "word")).count == 3
    (refusal,) = refusals
    assert error("resource-constraint", "wait") in refusal
    assert scene.query((TEXT_FIELD, "word")).count == 3


def test_a_long_search_is_under_way_until_it_is_over(scene: Scene) -> None:
    scene.fill(4)
    scene.world.archive.step = 1
    answered = scene.world.database[archive.find]
    refusals: list[str] = []

    def takes_long(*arguments: object) -> object:
        scene.world.now += SEARCH_S * 0.4
        if scene.world.archive.reads == 3:
            refusals.extend(scene.ask(query((TEXT_FIELD, "other"))))
        return answered(*arguments)

    scene.world.database[archive.find] = takes_long
    assert scene.query((TEXT_FIELD, "word")).count == 4
    (refusal,) = refusals
    assert error("resource-constraint", "wait") in refusal


def test_a_search_that_is_refused_is_over(scene: Scene) -> None:
    scene.fill(1)
    (refusal,) = scene.ask(query((TEXT_FIELD, "word"), ("after-id", "1")))
    assert NOT_FOUND in refusal
    assert scene.query((TEXT_FIELD, "word")).count == 1


def test_a_search_that_was_never_answered_is_over_some_time(scene: Scene) -> None:
    scene.fill(1)
    scene.juliets.data["archive search"] = scene.world.now + SEARCH_S
    (refusal,) = scene.ask(query((TEXT_FIELD, "word")))
    assert "<resource-constraint" in refusal
    scene.world.now += SEARCH_S
    assert scene.query((TEXT_FIELD, "word")).count == 1


# --- the rest


def test_the_ends_of_an_archive(scene: Scene) -> None:
    """XEP-0313, 5."""
    request = f'<iq type="get" id="m"><metadata xmlns="{ns.MAM}"/></iq>'
    head = f'<iq to="{BALCONY}" type="result" id="m">'
    assert scene.ask(request) == [f'{head}<metadata xmlns="{ns.MAM}"/></iq>']
    ids = scene.fill(3)
    assert scene.ask(request) == [
        f'{head}<metadata xmlns="{ns.MAM}"><start id="{ids[0]}" timestamp="2027-01-15T08:00:00.000Z"/>'
        f'<end id="{ids[2]}" timestamp="2027-01-15T08:00:02.000Z"/></metadata></iq>'
    ]
    assert time_of(ids[0]) == NOW


@pytest.mark.parametrize(
    "request_",
    [
        query(),
        query(("with", ROMEO)),
        f'<iq type="get" id="q"><query xmlns="{ns.MAM}"/></iq>',
        f'<iq type="get" id="q"><metadata xmlns="{ns.MAM}"/></iq>',
        f'<iq type="get" id="q"><prefs xmlns="{ns.MAM}"/></iq>',
        f'<iq type="set" id="q">{prefs("never")}</iq>',
    ],
)
def test_nobody_reads_anothers_archive(scene: Scene, request_: str) -> None:
    """8.1: "the server MUST return an iq with type error, and the error condition SHOULD be 'forbidden'"."""
    scene.fill(1)
    (heard,) = scene.ask(request_.replace("<iq ", f'<iq to="{JULIET}" '), scene.romeo)
    assert heard.startswith(f'<iq to="{ORCHARD}" from="{JULIET}" type="error" id="q">{FORBIDDEN}')
    assert scene.world.writes == []
    (heard,) = scene.ask(request_.replace("<iq ", f'<iq to="{DOMAIN}" '))
    assert error("service-unavailable", "cancel") in heard  # the server itself has none


def test_the_own_address_may_be_named(scene: Scene) -> None:
    (id_,) = scene.fill(1)
    *_, last = scene.ask(query().replace("<iq ", f'<iq to="{JULIET}" '))
    assert last.startswith(f'<iq to="{BALCONY}" from="{JULIET}" type="result" id="q"><fin ')
    assert f"<last>{id_}</last>" in last


def test_what_is_told_of_it() -> None:
    """XEP-0313, 7: on the JID that has the archive. XEP-0424, 2: a server that archives retractions tells so."""
    names = {ns.MAM, ns.MAM_EXTENDED, ns.MAM_GROUPCHAT_FIELD, ns.SID, ns.RSM, ns.FULL_TEXT, ns.RETRACT}
    assert names <= set(account_info().features)
    assert names & set(server_info(KEEPING).features) == {ns.RETRACT}


def test_results_are_of_the_moment(scene: Scene) -> None:
    """They are not kept for later, should the client not have read them."""
    scene.fill(1)
    result, _ = scene.ask(query())
    assert parse(result).flags == HAS_EVENT
    assert not archive_feature.is_worth_keeping(parse(result))
