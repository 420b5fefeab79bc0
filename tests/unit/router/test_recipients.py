"""Who of an account's sessions gets a message (router/recipients.py): the rules of RFC 6121, 8.5 and XEP-0280, and that
a takeover tells from a row of the log what the session saw, or would have seen, when it was new (docs/delivery.md, 17)."""

from __future__ import annotations

import pytest
from lxml import etree

from router.entity import Entity, Session
from router.recipients import (
    CARBONS,
    REACHABLE,
    copies_of_received,
    copies_of_sent,
    had,
    is_copied,
    primary,
    shown,
    with_stanza_id,
)  # fmt: skip
from storage.log import ARCHIVE, DONE, FROM_OWNER, QUEUE, TO_OWNER, Row, pack_head
from tests.support.turns import World, parse, text
from xmpp import ns
from xmpp.stanza import Stanza
from xmpp.stream import Limits, StreamParser, open_stream

JULIET, ROMEO = "juliet@example.com", "romeo@example.com"
ORCHARD = f"{ROMEO}/orchard"
ROOM = "verona@rooms.example.com"
BODY = "<body>hi</body>"
CHATTING = f'<composing xmlns="{ns.CHAT_STATES}"/>'
X = f'<x xmlns="{ns.MUC_USER}"/>'
INVITE = f'<x xmlns="{ns.MUC_USER}"><invite from="{ORCHARD}"/></x>'


class Scene:
    """Juliet, who has what a test gives her."""

    def __init__(self) -> None:
        self.world = World()
        self.account: Entity = self.world.account(JULIET)

    def session(self, resource: str, priority: int = 0, *, carbons: int | None = None, since: int = 0) -> Session:
        """An available session, reachable and with copies from these ids on."""
        session = self.world.online(self.account, resource, priority)
        session.marks[REACHABLE] = since
        if carbons is not None:
            session.marks[CARBONS] = carbons
        return session

    def unavailable(self, resource: str, *, carbons: int | None = None) -> Session:
        session = self.world.bind(self.account, resource)
        if carbons is not None:
            session.marks[CARBONS] = carbons
        return session

    def row(self, message: Stanza, id: int, dir: int = TO_OWNER, class_: int = QUEUE, sid: int = 7) -> Row:
        assert self.account.key is not None
        return Row(
            self.account.shard,
            self.account.key,
            id,
            class_,
            dir,
            DONE,
            ROMEO,
            sid,
            1,
            pack_head(message),
            message.inner,
        )

    def shown(self, message: Stanza, id: int, dir: int = TO_OWNER, sid: int = 7) -> dict[str, str]:
        """What each session sees of a row: "as it is", or the name of the copy's direction."""
        return {
            session.resource: "as it is" if stanza == message else str(etree.QName(stanza.children()[0]).localname)
            for session, stanza in shown(self.account, self.row(message, id, dir, sid=sid))
        }


@pytest.fixture
def scene() -> Scene:
    return Scene()


def msg(inner: str = BODY, type: str | None = "chat", to: str = JULIET, from_: str = ORCHARD) -> Stanza:
    written = f' type="{type}"' if type is not None else ""
    return parse(f'<message to="{to}" from="{from_}"{written}>{inner}</message>')


# --- as it is (RFC 6121, 8.5)


def test_a_message_to_the_account_goes_to_all_that_are_reachable(scene: Scene) -> None:
    """8.5.2.1.1: "all non-negative resources"."""
    reachable = [scene.session("a"), scene.session("b", 5)]
    scene.session("negative", -1)
    scene.unavailable("silent")
    for type in (None, "normal", "chat", "headline", "pigeon"):
        assert primary(scene.account, msg(type=type)) == reachable


@pytest.mark.parametrize("type", ["groupchat", "error"])
def test_room_messages_and_errors_to_the_account_go_to_nobody(scene: Scene, type: str) -> None:
    scene.session("a")
    assert primary(scene.account, msg(type=type)) == []


@pytest.mark.parametrize("type", [None, "normal", "chat", "headline", "groupchat", "error"])
def test_a_message_that_names_a_session_goes_there(scene: Scene, type: str | None) -> None:
    scene.session("a")
    silent = scene.unavailable("silent")
    negative = scene.session("negative", -1)
    assert primary(scene.account, msg(type=type, to=silent.jid)) == [silent]
    assert primary(scene.account, msg(type=type, to=negative.jid)) == [negative]


def test_only_a_chat_goes_on_to_others_where_the_session_is_gone(scene: Scene) -> None:
    """8.5.3.2.1."""
    session = scene.session("a")
    assert primary(scene.account, msg(to=f"{JULIET}/gone")) == [session]
    for type in (None, "normal", "headline", "groupchat", "error"):
        assert primary(scene.account, msg(type=type, to=f"{JULIET}/gone")) == []


# --- what is copied (XEP-0280, 6.1)

COPIED = [
    (msg("", "chat"), "it is of type chat"),
    (msg(BODY, "chat"), "it is of type chat"),
    (msg(BODY, "normal"), "normal with a body"),
    (msg(BODY, None), "normal with a body"),
    (msg(BODY, "pigeon"), "RFC 6121, 5.2.2: what is not understood is normal"),
    (msg(f'<received xmlns="{ns.RECEIPTS}" id="1"/>', None), "XEP-0184"),
    (msg(f'<request xmlns="{ns.RECEIPTS}"/>', None), "XEP-0184"),
    (msg(CHATTING, None), "XEP-0085"),
    (msg(f'<displayed xmlns="{ns.MARKERS}" id="1"/>', None), "XEP-0333"),
    (msg(CHATTING, "headline"), "whatever the type"),
    (msg('<x xmlns="jabber:x:conference" jid="verona@rooms.example.com"/>', None), "XEP-0249"),
    (msg(INVITE, None, from_=ROOM), "mediated invitation"),
    (msg(INVITE + BODY, None, from_=ROOM), "mediated invitation, with words for old clients"),
    (msg(INVITE, "normal", from_=f"{ROOM}/Romeo"), "mediated invitation, whoever it is from"),
]
NOT_COPIED = [
    (msg(BODY, "groupchat"), "a room's"),
    (msg(CHATTING, "groupchat"), "a room's"),
    (msg(BODY, "headline"), "no conversation"),
    (msg("<subject>x</subject>", None), "normal without a body"),
    (msg("<thread>x</thread>", None), "normal without a body"),
    (msg('<x xmlns="urn:x"/>', None), "normal without a body"),
    (msg('<y xmlns="jabber:x:conference"/>', None), "no invitation"),
    (msg('<x xmlns="jabber:x:data"/>', None), "no invitation"),
    (msg("", None), "normal without a body"),
    (msg(f'{BODY}<private xmlns="{ns.CARBONS}"/>', "chat"), "9: private"),
    (msg(f'{BODY}<no-copy xmlns="{ns.HINTS}"/>', "chat"), "XEP-0334: no-copy"),
    (msg(f'{INVITE}<private xmlns="{ns.CARBONS}"/>', None, from_=ROOM), "9: private"),
    (msg(BODY, "error"), "that depends on what it answers"),
]


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize(("message", "why"), COPIED)
def test_messages_that_are_copied(message: Stanza, why: str, is_sent: bool) -> None:
    assert is_copied(message, is_sent), why


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize(("message", "why"), NOT_COPIED)
def test_messages_that_are_not_copied(message: Stanza, why: str, is_sent: bool) -> None:
    assert not is_copied(message, is_sent), why


@pytest.mark.parametrize("inner", [BODY + X, CHATTING + X])
def test_a_private_message_in_a_room_is_copied_by_the_room_to_who_has_joined(inner: str) -> None:
    """6.1: sent, "SHOULD be carbon-copied"; received, "SHOULD NOT"."""
    assert not is_copied(msg(inner, from_=f"{ROOM}/Romeo", to=f"{JULIET}/balcony"), False)
    assert is_copied(msg(inner, from_=f"{JULIET}/balcony", to=f"{ROOM}/Romeo"), True)


def test_another_elements_private_is_none() -> None:
    assert is_copied(msg('<private xmlns="urn:x"/>'), False)


# --- copies (XEP-0280, 7 and 8)


def test_a_copy_is_for_those_that_do_not_get_the_message_itself(scene: Scene) -> None:
    scene.session("reachable", carbons=0)
    hidden = scene.session("hidden", -1, carbons=0)
    silent = scene.unavailable("silent", carbons=0)
    scene.session("plain", -1)
    assert [session for session, _ in copies_of_received(scene.account, msg())] == [hidden, silent]
    assert [s.resource for s, _ in copies_of_received(scene.account, msg(to=silent.jid))] == ["reachable", "hidden"]


def test_what_is_sent_is_copied_to_all_but_its_sender(scene: Scene) -> None:
    sender = scene.session("sender", carbons=0)
    other = scene.unavailable("other", carbons=0)
    scene.session("plain")
    message = msg(from_=sender.jid, to=ROMEO)
    assert [session for session, _ in copies_of_sent(scene.account, message, sender.sid)] == [other]


@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/other"])
def test_what_is_sent_to_oneself_comes_once(scene: Scene, to: str) -> None:
    sender, _ = scene.session("sender", carbons=0), scene.session("other", carbons=0)
    assert list(copies_of_sent(scene.account, msg(from_=sender.jid, to=to), sender.sid)) == []


def test_the_wrapper_is_from_the_account_to_the_session_and_of_the_same_type(scene: Scene) -> None:
    """7: "the 'from' attribute MUST be the Carbons-enabled user's bare JID", "the 'to' attribute MUST be the full JID"."""
    hidden = scene.session("hidden", -1, carbons=0)
    message = parse(
        f'<message to="{JULIET}" from="{ORCHARD}" type="chat" id="a&quot;" xml:lang="en"><body>&lt;</body></message>'
    )
    ((session, copy),) = copies_of_received(scene.account, message)
    assert session is hidden
    assert text(copy) == (
        f'<message to="{hidden.jid}" from="{JULIET}" type="chat"><received xmlns="{ns.CARBONS}"><forwarded xmlns="{ns.FORWARD}">'
        f'<message xmlns="jabber:client" to="{JULIET}" from="{ORCHARD}" type="chat" id="a&quot;" xml:lang="en">'
        "<body>&lt;</body></message></forwarded></received></message>"
    )


def test_a_copy_is_of_passing_interest_where_the_message_is(scene: Scene) -> None:
    """So that it need not wake a client that nobody looks at (XEP-0352)."""
    scene.session("hidden", -1, carbons=0)
    for message, is_passing in ((msg(CHATTING), True), (msg(CHATTING + BODY), False), (msg(), False)):
        ((_, copy),) = copies_of_received(scene.account, message)
        assert bool(copy.flags) is is_passing


# --- the same from the log (docs/delivery.md, rule 17)


@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/reachable", f"{JULIET}/silent", f"{JULIET}/gone"])
@pytest.mark.parametrize("type", [None, "chat", "headline"])
def test_each_session_sees_of_a_row_what_it_would_have_seen_live(scene: Scene, to: str, type: str | None) -> None:
    scene.session("reachable")
    scene.session("with copies", carbons=0)
    scene.session("hidden", -1, carbons=0)
    scene.unavailable("silent")
    message = msg(type=type, to=to)
    live = dict.fromkeys((s.resource for s in primary(scene.account, message)), "as it is")
    live |= dict.fromkeys((s.resource for s, _ in copies_of_received(scene.account, message)), "received")
    assert scene.shown(message, 10) == live


def test_a_sent_row_is_a_copy_for_the_others(scene: Scene) -> None:
    sender = scene.session("sender", carbons=0)
    scene.session("other", carbons=0)
    scene.session("plain")
    message = msg(from_=sender.jid, to=ROMEO)
    assert scene.shown(message, 10, FROM_OWNER, sender.sid) == {"other": "sent"}
    assert scene.shown(message, 10, FROM_OWNER, 999) == {"sender": "sent", "other": "sent"}, (
        "of a session that is no more"
    )


def test_older_rows_were_not_for_those_that_came_later(scene: Scene) -> None:
    """ "Bound before it": else a session that binds gets the past."""
    scene.session("old", since=0)
    scene.session("new", since=10)
    assert scene.shown(msg(), 10) == {"old": "as it is"}
    assert scene.shown(msg(), 11) == {"old": "as it is", "new": "as it is"}


def test_older_rows_were_not_copied_for_those_that_asked_later(scene: Scene) -> None:
    scene.session("old", -1, carbons=0)
    scene.session("new", -1, carbons=10)
    assert scene.shown(msg(), 10) == {"old": "received"}
    assert scene.shown(msg(from_=f"{JULIET}/x", to=ROMEO), 10, FROM_OWNER) == {"old": "sent"}
    assert scene.shown(msg(), 11) == {"old": "received", "new": "received"}


def test_a_message_to_a_session_of_that_name_before_is_not_for_this_one(scene: Scene) -> None:
    session = scene.unavailable("balcony")
    session.since = 10
    assert scene.shown(msg(to=session.jid), 10) == {}
    assert scene.shown(msg(to=session.jid), 11) == {"balcony": "as it is"}


@pytest.mark.parametrize(("class_", "is_named"), [(ARCHIVE, True), (QUEUE, False)])
def test_an_archived_message_has_the_id_of_the_archive(scene: Scene, class_: int, is_named: bool) -> None:
    """XEP-0359: as it had live; what only waits is in no archive."""
    session = scene.session("balcony")
    message = msg()
    ((shown_to, stanza),) = shown(scene.account, scene.row(message, 99, class_=class_))
    assert shown_to is session
    assert stanza == (with_stanza_id(message, JULIET, 99) if is_named else message)


def test_the_id_of_the_archive_says_whose_it_is() -> None:
    assert text(with_stanza_id(msg(), 'a"b@example.com', 99)).endswith(
        f'{BODY}<stanza-id xmlns="{ns.SID}" by="a&quot;b@example.com" id="99"/></message>'
    )


# --- who had it already


def test_a_session_that_was_reachable_had_what_came_to_the_account(scene: Scene) -> None:
    session = scene.session("a", since=10)
    assert not had(session, msg(), 10)
    assert had(session, msg(), 11)
    assert not had(session, msg(to=f"{JULIET}/b"), 11), "that was for somebody else"


def test_a_copy_counts(scene: Scene) -> None:
    session = scene.session("hidden", -1, carbons=10)
    for to in (JULIET, f"{JULIET}/b"):
        assert not had(session, msg(to=to), 10)
        assert had(session, msg(to=to), 11)
        assert not had(session, msg("", None, to=to), 11), "no copies are made of that"


def test_who_is_not_reachable_and_wants_no_copies_had_nothing(scene: Scene) -> None:
    assert not had(scene.session("hidden", -1), msg(), 11)
    assert not had(scene.unavailable("silent"), msg(), 11)


# --- what becomes of a forged copy


def test_somebody_elses_copy_stays_his_message(scene: Scene) -> None:
    """XEP-0280, 12: a copy is one only if it is "from that user's bare JID"."""
    scene.session("reachable")
    scene.session("hidden", -1, carbons=0)
    forged = msg(
        f'<received xmlns="{ns.CARBONS}"><forwarded xmlns="{ns.FORWARD}"><message xmlns="jabber:client" from="{JULIET}" '
        f'to="{JULIET}/hidden" type="chat">{BODY}</message></forwarded></received>'
    )
    ((_, as_it_is),) = [(s, m) for s, m in shown(scene.account, scene.row(forged, 10)) if s.resource == "reachable"]
    assert as_it_is.from_ == ORCHARD
    ((_, copy),) = copies_of_received(scene.account, forged)
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(open_stream(namespace=ns.CLIENT, from_="example.com", id="s"))
    parser.next_event()
    (read,) = [*parser.flow(), *parser.feed(text(copy).encode())]
    assert isinstance(read, Stanza)
    (received,) = read.children()
    (inner,) = received[0]
    assert (read.from_, inner.get("from")) == (JULIET, ORCHARD), "what is in the true copy says who sent it"
