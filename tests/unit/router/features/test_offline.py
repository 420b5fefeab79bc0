"""Offline messages (XEP-0160; router/features/offline.py): what is kept, who gets it and when, what of an ended session's
unread messages becomes of, and the cursor by which the next owner knows (docs/delivery.md, 7)."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace

import pytest

from router.entity import Entity, Session
from router.events import LeftUnread
from router.features import offline
from router.features.offline import PAGE
from router.recipients import CARBONS, REACHABLE
from router.settings import Settings
from router.turn import Turn
from storage import accounts, log
from storage.accounts import Offline
from storage.log import ARCHIVE, QUEUE, TO_OWNER, time_of
from tests.support.turns import DOMAIN, NOW, PLAIN, World, error
from xmpp import ns
from xmpp.stanza import Stanza, iq, message, presence

JULIET, ROMEO = f"juliet@{DOMAIN}", f"romeo@{DOMAIN}"
UNAVAILABLE = error("service-unavailable", "cancel")
ARCHIVING = replace(PLAIN, archive_default="always")


class Clients(World):
    """A world in which what a session is given is unread until its client reads it."""

    def _release(self, turn: Turn) -> None:
        for session, stanza, id_ in turn.deliveries:
            session.q += 1
            session.unacknowledged.append((session.q, id_, stanza))
        super()._release(turn)

    def read(self, session: Session, but: int = 0) -> list[str]:
        """The client has read everything (but the last few); what it was given since."""
        while len(session.unacknowledged) > but:
            _, id_, _ = session.unacknowledged.popleft()
            session.entity.delivered = max(session.entity.delivered, id_ or 0)
        return self.heard(session)

    def leave(self, *sessions: Session) -> None:
        """They have ended: nothing more will be given to them (router/owner.py)."""
        for session in sessions:
            self.end(session)
        for session in sessions:
            turn = self._turn(session.entity, None, None)
            self.pipeline.emit(turn, LeftUnread(session))
            self._over(turn)


class Scene:
    """Romeo, online, writes to Juliet, who has what a test gives her."""

    def __init__(self, settings: Settings = PLAIN) -> None:
        self.world = Clients(settings)
        self.account: Entity = self.world.account(JULIET)
        self.romeo = self.world.online(self.world.account(ROMEO), "orchard")

    def write(self, inner: str = "<body>1</body>", to: str = JULIET, type: str = "chat") -> str:
        """What Romeo hears then, if anything: an error."""
        typed = f' type="{type}"' if type else ""
        self.world.now += 1
        self.world.say(self.romeo, f'<message to="{to}"{typed}>{inner}</message>')
        return "".join(self.world.heard(self.romeo))

    def write_many(self, *bodies: int, to: str = JULIET) -> None:
        for body in bodies:
            assert self.write(f"<body>{body}</body>", to) == ""

    def come(self, session: Session, priority: int = 0) -> list[str]:
        """The session sends presence; the messages it gets."""
        inner = f"<priority>{priority}</priority>" if priority else ""
        self.world.say(session, f"<presence>{inner}</presence>" if inner else "<presence/>")
        return self.messages(session)

    def messages(self, session: Session) -> list[str]:
        """The messages that a session was given, and has not read."""
        return [heard for heard in self.world.heard(session) if heard.startswith("<message")]

    def bodies(self, session: Session) -> list[int]:
        return bodies(self.messages(session))

    def cursor(self) -> tuple[int, tuple[int, ...]]:
        """What the database was told last."""
        (*_, last) = [write for write in self.world.writes if write.statement is accounts.set_delivered]
        key, delivered, strays = last.arguments
        assert key == self.account.key
        return delivered, tuple(strays)

    def waiting(self) -> list[int]:
        """The bodies of what waits."""
        rows = {row.id: row for row in self.world.log if row.owner == self.account.key}
        return [int(re.findall(rb"<body>(\d+)", rows[id_].inner)[0]) for id_ in self.account.offline]


def bodies(messages: list[str]) -> list[int]:
    return [int(found) for heard in messages for found in re.findall(r"<body>(\d+)</body>", heard)]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def delay(stamp: str) -> str:
    return f'<delay xmlns="{ns.DELAY}" from="{DOMAIN}" stamp="{stamp}">Offline storage</delay>'


# --- the flow (2)


def test_a_message_to_an_account_that_is_away_is_delivered_when_it_is_back(scene: Scene) -> None:
    """The four examples of section 2."""
    assert scene.write("<body>O blessed, blessed night! I am afeard.</body>", type="") == ""
    scene.world.now += 3_600
    (got,) = scene.come(scene.world.bind(scene.account, "balcony"), 1)
    assert got == (
        f'<message to="{JULIET}" from="{ROMEO}/orchard"><body>O blessed, blessed night! I am afeard.</body>'
        f"{delay('2027-01-15T08:00:01.000Z')}</message>"
    )
    assert time_of(scene.world.log[0].id) == NOW + 1
    assert scene.account.offline == []


def test_everything_in_the_order_in_which_it_came_and_before_what_comes_now(scene: Scene) -> None:
    scene.write_many(1, 2, 3)
    balcony = scene.world.bind(scene.account, "balcony")
    got = scene.come(balcony)
    scene.write_many(4)
    assert bodies(got) + scene.bodies(balcony) == [1, 2, 3, 4]


def test_as_much_as_there_is_comes_in_pages(scene: Scene) -> None:
    asked: list[int] = []

    def by_ids(key: int, ids: tuple[int, ...]) -> list[log.Row]:
        asked.append(len(ids))
        return [row for row in scene.world.log if row.owner == key and row.id in ids]

    scene.world.database[log.by_ids] = by_ids
    numbers = range(1, PAGE + 3)
    scene.write_many(*numbers)
    assert bodies(scene.come(scene.world.bind(scene.account))) == list(numbers)
    assert asked == [PAGE, 2]
    assert scene.account.offline == []


def test_everything_else_of_the_account_waits_while_they_are_read(scene: Scene) -> None:
    scene.write_many(1)
    balcony = scene.world.bind(scene.account)
    turn = scene.world.say(balcony, "<presence/>")
    (request,) = [request for request in turn.requests if request.statement is log.by_ids]
    assert request.holds
    assert request.arguments == (scene.account.key, tuple(row.id for row in scene.world.log))


def test_one_client_gets_them(scene: Scene) -> None:
    scene.write_many(1)
    first, second = scene.world.bind(scene.account, "a"), scene.world.bind(scene.account, "b")
    assert bodies(scene.come(first)) == [1]
    assert scene.come(second) == []


def test_who_is_not_to_be_reached_does_not_get_them(scene: Scene) -> None:
    """2: "available resources that have specified a negative presence priority shall never receive message stanzas"."""
    hidden = scene.world.bind(scene.account, "cellar")
    assert scene.come(hidden, -1) == []
    scene.write_many(1)
    assert scene.bodies(hidden) == []
    assert scene.waiting() == [1]


def test_until_it_is(scene: Scene) -> None:
    """2: "When the recipient next sends non-negative available presence to the server"."""
    hidden = scene.world.bind(scene.account, "cellar")
    scene.come(hidden, -1)
    scene.write_many(1, 2)
    assert scene.come(hidden, -2) == []
    assert bodies(scene.come(hidden, 0)) == [1, 2]
    assert scene.come(hidden, 5) == []
    assert scene.account.offline == []


def test_directed_presence_is_no_sign_of_being_there(scene: Scene) -> None:
    scene.write_many(1)
    balcony = scene.world.bind(scene.account)
    scene.world.say(balcony, f'<presence to="{ROMEO}"/>')
    assert scene.messages(balcony) == []
    assert scene.waiting() == [1]


def test_a_client_that_goes_before_they_are_read_leaves_them_to_the_next(scene: Scene) -> None:
    scene.write_many(1)
    balcony = scene.world.bind(scene.account, "balcony")
    by_ids = scene.world.database[log.by_ids]

    def gone_meanwhile(key: int, ids: tuple[int, ...]) -> list[log.Row]:
        balcony.presence = None
        return list(by_ids(key, ids))

    scene.world.database[log.by_ids] = gone_meanwhile
    assert scene.come(balcony) == []
    assert scene.waiting() == [1]
    scene.world.database[log.by_ids] = by_ids
    assert bodies(scene.come(scene.world.bind(scene.account, "chamber"))) == [1]


def test_what_another_session_leaves_meanwhile_is_not_forgotten(scene: Scene) -> None:
    """Its end is no input that waits: it may come between the question and the rows."""
    scene.write_many(1)
    (first,) = scene.account.offline
    by_ids = scene.world.database[log.by_ids]
    asked: list[tuple[int, ...]] = []

    def left_meanwhile(key: int, ids: tuple[int, ...]) -> list[log.Row]:
        asked.append(ids)
        if len(asked) == 1:
            scene.account.offline = [first - 1, first, first + 1]
        return list(by_ids(key, ids))

    scene.world.database[log.by_ids] = left_meanwhile
    assert bodies(scene.come(scene.world.bind(scene.account))) == [1]
    assert asked == [(first,), (first - 1, first + 1)]
    assert scene.account.offline == []


def test_rows_that_are_no_more_are_waited_for_no_more(scene: Scene) -> None:
    """Their partition was dropped (`archive.offline_days`)."""
    scene.write_many(1, 2)
    del scene.world.log[0]
    assert bodies(scene.come(scene.world.bind(scene.account))) == [2]
    assert scene.account.offline == []


# --- what is kept (3)

CHATTING = f'<composing xmlns="{ns.CHAT_STATES}"/>'
KEPT = [
    ("<body>1</body>", "chat"),
    ("<body>1</body>", "normal"),
    ("<body>1</body>", ""),
    ("<body>1</body>", "carrier-pigeon"),  # RFC 6121, 5.2.2: normal
    (f"<body>1</body>{CHATTING}", "chat"),
    ("<subject>1</subject>", ""),
    (f'<received xmlns="{ns.RECEIPTS}" id="1"/>', "chat"),
    (f'<displayed xmlns="{ns.MARKERS}" id="1"/>', "chat"),
    ('<encrypted xmlns="urn:x"/>', "chat"),
    (f'<encrypted xmlns="urn:x"/>{CHATTING}', "chat"),
    (f'<x xmlns="{ns.MUC_USER}"><invite/></x>', ""),
    (f'{CHATTING}<store xmlns="{ns.HINTS}"/>', "chat"),
    (f'<body>1</body><no-permanent-store xmlns="{ns.HINTS}"/>', "chat"),
    (f'<body>1</body><no-copy xmlns="{ns.HINTS}"/><private xmlns="{ns.CARBONS}"/>', "chat"),
]
NOT_KEPT = [
    (CHATTING, "chat"),
    (CHATTING, ""),
    (f"{CHATTING}<thread>1</thread>", "chat"),
    (f'{CHATTING}<no-copy xmlns="{ns.HINTS}"/><origin-id xmlns="{ns.SID}" id="1"/>', "chat"),
    (f'{CHATTING}<x xmlns="{ns.MUC_USER}"/>', "chat"),
    ("", "chat"),
    (f'<body>1</body><no-store xmlns="{ns.HINTS}"/>', "chat"),
    ("<body>1</body>", "groupchat"),
    (f'<event xmlns="{ns.PUBSUB_EVENT}"/>', ""),
]


@pytest.mark.parametrize("settings", [PLAIN, ARCHIVING])
@pytest.mark.parametrize(("inner", "type"), KEPT)
def test_messages_that_wait(inner: str, type: str, settings: Settings) -> None:
    scene = Scene(settings)
    assert scene.write(inner, type=type) == ""
    (got,) = scene.come(scene.world.bind(scene.account))
    assert inner in got
    assert delay("2027-01-15T08:00:01.000Z") in got


@pytest.mark.parametrize(("inner", "type"), NOT_KEPT)
def test_messages_that_go_back(scene: Scene, inner: str, type: str) -> None:
    """3: only chat states, and groupchats, "SHOULD NOT be stored offline"; 2: then their sender is told."""
    assert UNAVAILABLE in scene.write(inner, type=type)
    assert scene.world.log == []
    assert scene.come(scene.world.bind(scene.account)) == []


@pytest.mark.parametrize("type", ["headline", "error"])
def test_messages_that_go_nowhere(scene: Scene, type: str) -> None:
    """3: headlines "are usually time-sensitive"; RFC 6121, 8.5.2.2.1: ignored."""
    assert scene.write(type=type) == ""
    assert scene.world.log == []
    assert scene.come(scene.world.bind(scene.account)) == []


def test_nobody_has_no_messages_that_wait(scene: Scene) -> None:
    scene.world.nobody("nurse@example.com")
    assert UNAVAILABLE in scene.write(to="nurse@example.com")
    assert scene.world.log == []


@pytest.mark.parametrize("type", ["", "normal"])
def test_what_is_for_one_resource_alone_does_not_wait(scene: Scene, type: str) -> None:
    """RFC 6121, 8.5.3.2.1."""
    assert UNAVAILABLE in scene.write(to=f"{JULIET}/balcony", type=type)
    assert scene.world.log == []


def test_a_chat_with_one_resource_waits_for_any(scene: Scene) -> None:
    scene.write_many(1, to=f"{JULIET}/balcony")
    (got,) = scene.come(scene.world.bind(scene.account, "chamber"))
    assert got.startswith(f'<message to="{JULIET}/balcony"')


def test_a_store_that_is_full_says_so() -> None:
    """2: "(e.g., because the recipient's offline message queue is full), the server returns a <service-unavailable/>"."""
    scene = Scene(replace(PLAIN, offline_messages=2))
    scene.write_many(1, 2)
    assert UNAVAILABLE in scene.write("<body>3</body>")
    assert scene.waiting() == [1, 2]
    assert len(scene.world.log) == 2
    assert bodies(scene.come(scene.world.bind(scene.account))) == [1, 2]
    scene.world.leave(*scene.account.sessions.values())
    assert UNAVAILABLE in scene.write("<body>4</body>"), "they were not read"


def test_the_archives_row_is_the_one_that_waits() -> None:
    """One row, and its id (XEP-0359) is what the client sees, now and in the archive."""
    scene = Scene(ARCHIVING)
    scene.write_many(1)
    (row,) = [row for row in scene.world.log if row.owner == scene.account.key]
    assert (row.class_, row.dir, scene.account.offline) == (ARCHIVE, TO_OWNER, [row.id])
    (got,) = scene.come(scene.world.bind(scene.account))
    assert got.endswith(
        f'<stanza-id xmlns="{ns.SID}" by="{JULIET}" id="{row.id}"/>{delay("2027-01-15T08:00:01.000Z")}</message>'
    )


def test_what_the_archive_does_not_want_has_no_id_to_be_asked_for(scene: Scene) -> None:
    scene.write_many(1)
    (row,) = scene.world.log
    assert (row.class_, row.dir) == (QUEUE, TO_OWNER)
    (got,) = scene.come(scene.world.bind(scene.account))
    assert "stanza-id" not in got


def test_who_is_there_gets_it_now_and_nothing_waits(scene: Scene) -> None:
    scene.world.online(scene.account)
    scene.write_many(1)
    assert (scene.account.offline, scene.world.log) == ([], [])


def test_a_server_says_that_messages_wait(scene: Scene) -> None:
    """4."""
    scene.world.say(scene.romeo, f'<iq to="{DOMAIN}" type="get" id="d"><query xmlns="{ns.DISCO_INFO}"/></iq>')
    assert '<feature var="msgoffline"/>' in "".join(scene.world.heard(scene.romeo))


# --- what an ended session has not read (XEP-0198, 4)


def session(scene: Scene, resource: str, priority: int = 0) -> Session:
    """A session that is available; what it was told is read."""
    bound = scene.world.bind(scene.account, resource)
    bound.since = scene.world.ids.last
    scene.come(bound, priority)
    scene.world.read(bound)
    return bound


def archived() -> Scene:
    return Scene(ARCHIVING)


def test_unread_messages_wait_for_the_next(scene: Scene) -> None:
    scene = archived()
    balcony = session(scene, "balcony")
    scene.write_many(1, 2, 3)
    scene.world.read(balcony, but=2)
    scene.world.leave(balcony)
    assert scene.waiting() == [2, 3]
    got = scene.come(scene.world.bind(scene.account, "chamber"))
    assert bodies(got) == [2, 3]
    assert all(one.count("<delay") == one.count("<stanza-id") == 1 for one in got)


@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/balcony"])
def test_unread_messages_go_to_another_that_has_come_meanwhile(to: str) -> None:
    scene = archived()
    balcony = session(scene, "balcony")
    scene.write_many(1, 2, to=to)
    chamber = session(scene, "chamber")
    scene.world.now += 600
    scene.world.leave(balcony)
    got = scene.messages(chamber)
    assert bodies(got) == [1, 2]
    assert all(delay(f"2027-01-15T08:00:0{at}.000Z") in one for at, one in enumerate(got, 1)), "XEP-0198, 4; XEP-0203"
    assert scene.account.offline == []


def test_what_others_had_at_the_same_time_they_do_not_get_again() -> None:
    scene = archived()
    balcony, chamber = session(scene, "balcony"), session(scene, "chamber")
    scene.write_many(1, 2)
    assert bodies(scene.world.read(chamber)) == [1, 2]
    scene.world.leave(balcony)
    assert scene.messages(chamber) == []
    assert scene.account.offline == []


def test_nor_what_they_had_as_copies() -> None:
    scene = archived()
    balcony, chamber = session(scene, "balcony"), session(scene, "chamber")
    chamber.marks[CARBONS] = scene.world.ids.last
    scene.write_many(1, to=balcony.jid)
    assert bodies(scene.world.read(chamber)) == [1]
    scene.world.leave(balcony)
    assert scene.messages(chamber) == []
    assert scene.account.offline == []


def test_what_another_could_not_get_when_it_came_it_gets_now() -> None:
    """It was bound, and not reachable: neither available, nor with a priority that is not negative."""
    scene = archived()
    balcony = session(scene, "balcony")
    silent, hidden = scene.world.bind(scene.account, "silent"), session(scene, "cellar", -1)
    scene.write_many(1)
    scene.come(silent)
    scene.come(hidden, 1)
    scene.world.leave(balcony)
    assert (scene.bodies(silent), scene.bodies(hidden)) == ([1], [1])


def test_two_that_end_at_once_leave_it_once() -> None:
    scene = archived()
    balcony, chamber = session(scene, "balcony"), session(scene, "chamber")
    scene.write_many(1)
    scene.world.leave(balcony, chamber)
    assert scene.waiting() == [1]
    assert bodies(scene.come(scene.world.bind(scene.account))) == [1]


def test_two_that_end_one_after_the_other_leave_it_once() -> None:
    scene = archived()
    balcony, chamber = session(scene, "balcony"), session(scene, "chamber")
    scene.write_many(1)
    scene.world.leave(balcony)
    assert scene.account.offline == [], "the other has it in hand"
    scene.world.leave(chamber)
    assert scene.waiting() == [1]


def test_messages_that_waited_and_were_not_read_wait_again_and_say_so_once(scene: Scene) -> None:
    scene.write_many(1)
    balcony = scene.world.bind(scene.account, "balcony")
    assert bodies(scene.come(balcony)) == [1]
    scene.world.leave(balcony)
    scene.world.now += 60
    (got,) = scene.come(scene.world.bind(scene.account, "chamber"))
    assert got.count("<delay") == 1
    assert delay("2027-01-15T08:00:01.000Z") in got


def test_nor_does_it_say_so_twice_to_another_that_has_come_meanwhile(scene: Scene) -> None:
    scene.write_many(1)
    balcony, chamber = scene.world.bind(scene.account, "balcony"), scene.world.bind(scene.account, "chamber")
    scene.come(balcony)
    scene.come(chamber)
    scene.world.leave(balcony)
    (got,) = scene.messages(chamber)
    assert got.count("<delay") == 1


def test_what_is_left_unread_waits_in_its_place(scene: Scene) -> None:
    scene = archived()
    balcony = session(scene, "balcony")
    scene.write_many(1)
    scene.come(balcony, -1)
    scene.write_many(2)
    scene.world.leave(balcony)
    assert scene.waiting() == [1, 2]


def test_a_delay_that_somebody_else_tells_is_none_of_ours(scene: Scene) -> None:
    theirs = f'<delay xmlns="{ns.DELAY}" from="capulet.com" stamp="2002-09-10T23:08:25Z"/>'
    scene.write(f"<body>1</body>{theirs}")
    (got,) = scene.come(scene.world.bind(scene.account))
    assert theirs + delay("2027-01-15T08:00:01.000Z") in got


def test_of_what_has_no_row_one_is_made() -> None:
    scene = Scene()
    balcony = session(scene, "balcony")
    scene.write_many(1)
    assert scene.world.log == []
    scene.world.leave(balcony)
    assert [(row.class_, row.inner) for row in scene.world.log] == [(QUEUE, b"<body>1</body>")]
    assert scene.waiting() == [1]


def test_copies_are_nobodys_loss() -> None:
    scene = archived()
    balcony, chamber = session(scene, "balcony"), session(scene, "chamber")
    chamber.marks[CARBONS] = scene.world.ids.last
    scene.write_many(1, to=balcony.jid)
    scene.world.say(balcony, f'<message to="{ROMEO}" type="chat"><body>2</body></message>')
    assert len(chamber.unacknowledged) == 2
    scene.world.read(balcony)
    scene.world.leave(chamber)
    assert scene.account.offline == []
    assert scene.messages(balcony) == []


@pytest.mark.parametrize("to", [None, JULIET, f"{JULIET}/balcony"])
def test_a_request_that_was_not_read_is_answered(scene: Scene, to: str | None) -> None:
    """docs/delivery.md, 7; RFC 6121, 8.5.3.2.3."""
    balcony = session(scene, "balcony")
    request = iq(type="get", id="v", to=to, from_=scene.romeo.jid, payload=f"{ns.VERSION} query", inner=b"<query/>")
    balcony.unacknowledged.append((99, None, request))
    balcony.unacknowledged.append((100, None, request._replace(type="result", id="r")))
    balcony.unacknowledged.append((101, None, request._replace(from_=None, id="push")))
    scene.world.leave(balcony)
    (answer,) = [heard for heard in scene.world.heard(scene.romeo) if heard.startswith("<iq")]
    assert answer.startswith(f'<iq to="{scene.romeo.jid}" from="{to or balcony.jid}" type="error" id="v">{UNAVAILABLE}')


def test_what_can_neither_be_kept_nor_given_to_others_goes_back(scene: Scene) -> None:
    secret = f'<body>1</body><no-store xmlns="{ns.HINTS}"/>'
    balcony = session(scene, "balcony")
    assert scene.write(secret) == ""
    assert scene.write(CHATTING) == ""
    assert scene.write(type="headline") == ""
    scene.world.leave(balcony)
    (answer,) = scene.world.heard(scene.romeo)
    assert UNAVAILABLE in answer
    assert (scene.world.log, scene.account.offline) == ([], [])


def test_presence_is_of_the_past(scene: Scene) -> None:
    balcony = session(scene, "balcony")
    balcony.unacknowledged.append((99, None, presence(to=None, from_=scene.romeo.jid)))
    scene.world.leave(balcony)
    assert (scene.world.heard(scene.romeo), scene.account.offline) == ([], [])


@pytest.mark.parametrize("is_somebody_there", [False, True])
def test_what_only_a_snapshot_knows_of_is_read_again(scene: Scene, is_somebody_there: bool) -> None:
    """Its c2s and its owner were lost: of the session's unread messages the ids are left (docs/delivery.md, 8)."""
    scene = archived()
    balcony = session(scene, "balcony")
    scene.write_many(1)
    scene.world.say(balcony, f'<message to="{ROMEO}" type="chat"><body>2</body></message>')
    mine = [row.id for row in scene.world.log if row.owner == scene.account.key]
    assert len(mine) == 2
    ended = scene.world.bind(scene.account, "ended")
    ended.unacknowledged = deque([(1, None, None), *((2 + at, id_, None) for at, id_ in enumerate(mine))])
    scene.world.read(balcony)
    if is_somebody_there:
        chamber = session(scene, "chamber")
        scene.world.leave(balcony)
        scene.world.leave(ended)
        assert scene.bodies(chamber) == [1], "and not what the account has sent itself"
    else:
        scene.world.leave(balcony)
        scene.world.leave(ended)
        assert bodies(scene.come(scene.world.bind(scene.account, "chamber"))) == [1]
    assert scene.account.offline == []


def test_an_account_that_is_no_more_keeps_nothing(scene: Scene) -> None:
    balcony = session(scene, "balcony")
    scene.write_many(1)
    scene.account.key = None
    scene.world.written()
    scene.world.leave(balcony)
    assert (scene.world.log, scene.account.offline) == ([], [])
    assert accounts.set_delivered not in scene.world.written()


# --- the cursor


def test_how_far_the_clients_have_come_is_written_with_the_end_of_each(scene: Scene) -> None:
    scene = archived()
    balcony = session(scene, "balcony")
    scene.write_many(1, 2)
    ids = [row.id for row in scene.world.log if row.owner == scene.account.key]
    scene.world.read(balcony)
    scene.world.leave(balcony)
    assert scene.cursor() == (ids[1], ())


def test_what_the_cursor_has_passed_and_nobody_has_read_is_listed(scene: Scene) -> None:
    scene = archived()
    balcony, chamber = session(scene, "balcony"), session(scene, "chamber")
    scene.write_many(1, to=balcony.jid)
    scene.write_many(2, to=chamber.jid)
    scene.write_many(3, to=balcony.jid)
    first, second, third = (row.id for row in scene.world.log if row.owner == scene.account.key)
    scene.world.read(chamber)
    chamber.presence = None
    scene.world.leave(balcony)
    assert scene.account.offline == [first, third]
    assert scene.cursor() == (second, (first,)), "the third is beyond it"


ASSIGNED = [
    # (known to sessions, in flight, loaded, what waits)
    (0, (), Offline(10, (4, 12, 13)), [4, 12, 13]),
    (12, (), Offline(10, (4, 12, 13)), [4, 13]),  # a client has read 12 since the row was written
    (12, (13,), Offline(10, (4, 12, 13)), [4]),  # a session has 13 in hand
    (12, (4,), Offline(10, (4, 12, 13)), [13]),
    (0, (), Offline(0, ()), []),
]


@pytest.mark.parametrize(("known", "in_flight", "loaded", "waiting"), ASSIGNED)
def test_a_new_owner_goes_by_the_cursor_and_by_what_sessions_have(
    scene: Scene, known: int, in_flight: tuple[int, ...], loaded: Offline, waiting: list[int]
) -> None:
    ((_, assign),) = offline.feature.loaders
    scene.account.delivered = known
    bound = scene.world.bind(scene.account)
    nothing: Stanza = message(to=None, from_=None)
    bound.unacknowledged.extend((number, id_, nothing) for number, id_ in enumerate(in_flight))
    assign(scene.account, loaded)
    assert scene.account.offline == waiting
    assert scene.account.delivered == max(known, loaded.delivered)


def test_a_session_says_from_where_on_it_is_reachable(scene: Scene) -> None:
    """By which the next owner, and the end of another session, tell what it had."""
    scene = archived()
    scene.write_many(1)
    last = scene.world.ids.last
    balcony = scene.world.bind(scene.account)
    turn = scene.world.say(balcony, "<presence><priority>-1</priority></presence>")
    assert REACHABLE not in balcony.marks
    turn = scene.world.say(balcony, "<presence/>")
    assert balcony.marks[REACHABLE] == last
    assert turn.touched == (balcony,)
    scene.write_many(2)
    scene.world.say(balcony, "<presence><show>away</show></presence>")
    assert balcony.marks[REACHABLE] == last
    scene.world.say(balcony, '<presence type="unavailable"/>')
    scene.world.say(balcony, "<presence/>")
    assert balcony.marks[REACHABLE] == scene.world.ids.last


# --- with copies (XEP-0280)


@pytest.mark.parametrize("settings", [PLAIN, ARCHIVING])
def test_a_client_that_has_read_the_copy_does_not_get_the_message_too(settings: Settings) -> None:
    scene = Scene(settings)
    hidden = session(scene, "cellar", -1)
    scene.world.say(hidden, f'<iq type="set" id="c"><enable xmlns="{ns.CARBONS}"/></iq>')
    scene.world.read(hidden)
    scene.write_many(1)
    assert bodies(scene.world.read(hidden)) == [1]
    assert scene.waiting() == [1], "for the next that is reachable"
    assert scene.come(hidden, 1) == []
    assert scene.account.offline == []


@pytest.mark.parametrize("settings", [PLAIN, ARCHIVING])
def test_a_copy_that_nobody_has_read_is_no_reason_to_forget_the_message(settings: Settings) -> None:
    scene = Scene(settings)
    hidden = session(scene, "cellar", -1)
    scene.world.say(hidden, f'<iq type="set" id="c"><enable xmlns="{ns.CARBONS}"/></iq>')
    scene.world.read(hidden)
    scene.write_many(1)
    assert bodies(scene.come(hidden, 1)) == [1, 1], "rather twice than not at all"
    scene.world.leave(hidden)
    assert scene.waiting() == [1]
