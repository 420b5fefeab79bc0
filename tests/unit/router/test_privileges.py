"""XEP-0356 at the component's owner and through the routers (router/privileges.py, router/peers.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.config import Component, Privileges
from cluster.shards import shard_of
from cluster.wire import CONFIRM, FORWARD, Epoch
from router.entity import Session
from router.features import privileges
from router.features.privileges import ANSWER_S
from router.privileges import advertisement
from router.recipients import CARBONS
from storage.log import ARCHIVE, BY_OTHER, FROM_OWNER
from tests.support.owners import FEATURES as FEW
from tests.support.owners import JULIET, ME, ORIGIN, OTHER, ROMEO, S2S_2, SETTINGS, OneRouter, chat
from tests.support.turns import DOMAIN, error, parse
from tests.unit.router.test_peers import PEER, Federation
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza, encode, from_wire

X = "irc.example.com"
FRIEND = f"friend@{X}"
OUTGOING: dict[str, Any] = {"message": "outgoing"}
EVERYTHING: dict[str, Any] = {
    "roster": "both", "message": "outgoing", "presence": "roster", "iq": {ns.PING: "get", "urn:x&y": "both"},
}  # fmt: skip


def settings(granted: dict[str, Any] | None) -> Any:
    component = Component(secret="12345678", privileges=Privileges(**(granted or {})))
    return replace(SETTINGS, components={X: component})


def world(granted: dict[str, Any] | None) -> Federation:
    return Federation(settings(granted), (privileges.feature, *FEW))


def wrapped(from_: str = ROMEO, to: str = JULIET, id: str = "i") -> Stanza:
    inner = (
        f'<privilege xmlns="{ns.PRIVILEGE}"><forwarded xmlns="{ns.FORWARD}"><message xmlns="{ns.CLIENT}" from="{from_}" '
        f'to="{to}" type="chat" id="{id}"><body>hi</body></message></forwarded></privilege>'
    )
    return parse(f'<message to="{DOMAIN}" id="w">{inner}</message>')._replace(from_=X)


def came_in(router: Federation, stanza: Stanza, domain: str = X) -> tuple[Session, list[Stanza]]:
    """By a stream of its own, and what goes out by that."""
    stream = router.stream(domain, local="" if domain == X else DOMAIN)
    router.taken()
    router.come_in(stream, 1, stanza)
    return stream, router.heard(stream)


# --- how it is told


def test_a_component_is_told_first_of_all_what_it_may_do() -> None:
    router = world(EVERYTHING)
    stream = router.stream(X, local="")
    (told,) = router.heard(stream)
    assert encode(told._replace(id="1")).decode() == (
        f'<message to="{X}" from="{DOMAIN}" id="1"><privilege xmlns="{ns.PRIVILEGE}">'
        '<perm access="roster" type="both" push="true"/><perm access="message" type="outgoing"/>'
        '<perm access="presence" type="managed_entity"/><perm access="iq">'
        f'<namespace ns="{ns.PING}" type="get"/><namespace ns="urn:x&amp;y" type="both"/></perm></privilege></message>'
    )
    assert told.id
    assert router.outbound() == [], "it is of this stream"
    assert len(router.heard(router.stream(X, S2S_2, local=""))) == 1, "each stream is told"


def test_each_domain_tells_what_it_grants() -> None:
    router = Federation(replace(settings(OUTGOING), domains=frozenset({DOMAIN, "b.example"})), FEW)
    told = router.heard(router.stream(X, local=""))
    assert [message.from_ for message in told] == ["b.example", DOMAIN]
    assert all(b'<perm access="message" type="outgoing"/></privilege>' in message.inner for message in told)


def test_what_has_waited_comes_behind() -> None:
    component = Component(secret="12345678", queue_s=10, privileges=Privileges(message="outgoing"))
    router = Federation(replace(SETTINGS, components={X: component}), FEW)
    router.write(chat("1", FRIEND))
    assert [message.from_ for message in router.heard(router.stream(X, local=""))] == [DOMAIN, router.romeo.jid]


@pytest.mark.parametrize("domain", [X, PEER])
def test_who_has_none_is_told_nothing(domain: str) -> None:
    router = world(None)
    assert router.heard(router.stream(domain, local="" if domain == X else DOMAIN)) == []


def test_a_push_is_for_who_may_read() -> None:
    told = advertisement(Privileges(roster="set"), DOMAIN, X, "1")
    assert told is not None
    assert b'<perm access="roster" type="set"/>' in told.inner


def test_what_a_lost_stream_was_told_does_not_wait_for_the_next() -> None:
    router = world(OUTGOING)
    stream = router.stream(X, local="")
    router.detach(stream)
    router.tick()
    assert len(router.heard(router.stream(X, local=""))) == 1


# --- messages


def test_a_message_in_a_users_name_is_hers() -> None:
    router = world(OUTGOING)
    juliet = router.bind(JULIET, "balcony")
    router.romeo.marks[CARBONS] = 0
    stream = router.stream(X, local="")
    router.taken()
    router.come_in(stream, 1, wrapped())
    got = [
        stanza for session in (juliet, router.romeo) for _, _, stanza in session.unacknowledged if stanza is not None
    ]
    texts = [encode(stanza).decode() for stanza in got]
    assert f'<message to="{JULIET}" from="{ROMEO}" type="chat" id="i"><body>hi</body></message>' in texts
    assert any(
        text.startswith(f'<message to="{router.romeo.jid}" from="{ROMEO}"') and "<sent" in text for text in texts
    )
    assert [(row.owner, row.dir) for row in router.database.rows] == [(1, FROM_OWNER), (2, 0)]
    assert stream.conf == 1


@pytest.mark.parametrize(
    ("granted", "domain", "stanza"),
    [
        (None, X, wrapped()),
        ({"roster": "both"}, X, wrapped()),
        (OUTGOING, X, wrapped(f"{ROMEO}/orchard")),
        (OUTGOING, X, wrapped("romeo@b.example")),
        (OUTGOING, X, wrapped(PEER)),
        (OUTGOING, X, wrapped(FRIEND)),
        (OUTGOING, X, wrapped()._replace(from_=FRIEND)),
        (OUTGOING, PEER, wrapped()._replace(from_=PEER)),
    ],
)
def test_what_is_forbidden(granted: dict[str, Any] | None, domain: str, stanza: Stanza) -> None:
    router = world(granted)
    _, (refused,) = came_in(router, stanza, domain)
    assert (refused.type, refused.id, refused.from_, refused.to) == ("error", "w", DOMAIN, stanza.from_)
    assert error("forbidden", "auth").encode() in refused.inner
    assert router.database.rows == []
    assert not router.romeo.unacknowledged


def test_another_message_to_the_domain_is_read_by_nobody() -> None:
    _, (refused,) = came_in(world(OUTGOING), chat("1", DOMAIN)._replace(from_=X))
    assert b"<service-unavailable " in refused.inner


def test_an_error_is_not_answered() -> None:
    _, heard = came_in(world(None), wrapped()._replace(type="error"))
    assert heard == []


def test_the_domain_itself_speaks() -> None:
    router = world(OUTGOING)
    came_in(router, wrapped(DOMAIN, ROMEO))
    ((_, _, message),) = router.romeo.unacknowledged
    assert message is not None
    assert (message.from_, message.to, message.id) == (DOMAIN, ROMEO, "i")


# --- two routers


class Two:
    """The component's owner, and Romeo's."""

    def __init__(self) -> None:
        self.gateway = world(OUTGOING)
        self.gateway.lose(ROMEO)
        self.stream = self.gateway.stream(X, local="")
        self.gateway.taken()
        self.owner = OneRouter(owns=(ROMEO,), settings=settings(OUTGOING), features=(privileges.feature, *FEW))
        self.owner.map.update(shard_of(JULIET), Epoch(1), OTHER)

    def forwarded(self) -> list[tuple[Any, ...]]:
        """What goes from the component's owner to Romeo's."""
        return [envelope for to, envelope in self.gateway.taken(FORWARD) if to == OTHER]

    def pass_on(self, envelope: tuple[Any, ...], *, retry: bool = False, to: OneRouter | None = None) -> None:
        _, _, _, origin, n, _, ((bare, prev, _),), (fields,), origin_id = envelope
        (to or self.owner).forward(
            from_wire(tuple(fields)), n, to=bare, prev=prev, origin=origin, origin_id=origin_id, retry=retry
        )


def said(router: OneRouter) -> list[Stanza]:
    """What goes on to Juliet's owner."""
    return [from_wire(tuple(envelope[7][0])) for _, envelope in router.taken(FORWARD)]


def test_through_two_routers_under_the_number_of_the_stream() -> None:
    two = Two()
    two.gateway.come_in(two.stream, 1, wrapped())
    (envelope,) = two.forwarded()
    assert (envelope[3], envelope[4], envelope[6][0][0]) == (two.stream.sid, 1, ROMEO)
    assert two.stream.conf == 0, "not before Romeo's owner has it"
    two.pass_on(envelope)
    (row,) = two.owner.database.rows
    assert (row.class_, row.dir, row.sid, row.n) == (ARCHIVE, FROM_OWNER, two.stream.sid, 1)
    assert row.forward == BY_OTHER, "not found through a session of Romeo's"
    assert (two.owner.map.owners[shard_of(ROMEO)], [m.to for m in said(two.owner)]) == (ME, [JULIET])
    two.gateway.confirmed(two.stream, ROMEO, 1)
    assert two.stream.conf == 1


def test_what_comes_twice_is_said_once() -> None:
    two = Two()
    two.gateway.come_in(two.stream, 1, wrapped())
    (envelope,) = two.forwarded()
    two.pass_on(envelope)
    assert [stanza.id for stanza in said(two.owner)] == ["i"]
    two.pass_on(envelope, retry=True)
    assert [envelope[0] for _, envelope in two.owner.taken()] == [CONFIRM], "it is only confirmed again"
    assert len(two.owner.database.rows) == 1


def test_what_the_owner_before_had_said_is_not_said_again() -> None:
    """Its row tells, though Romeo's own stream has never sent it."""
    two = Two()
    two.gateway.come_in(two.stream, 1, wrapped())
    (envelope,) = two.forwarded()
    two.pass_on(envelope)
    heir = two.owner.successor(ROMEO)
    heir.taken()
    two.pass_on(envelope, retry=True, to=heir)
    assert (heir.looks[0][:2], said(heir), len(heir.database.rows)) == ((ROMEO, two.stream.sid), [], 1)
    two.gateway.come_in(two.stream, 2, wrapped(id="j"))
    (envelope,) = two.forwarded()
    two.pass_on(envelope, to=heir)
    assert [row.stanza.id for row in heir.database.rows] == ["i", "j"]


def test_what_romeo_sends_himself_counts_for_no_other() -> None:
    """Rows of his own sessions are no marks: what he sends to himself is another matter."""
    router = OneRouter(owns=(ROMEO,), settings=settings(OUTGOING))
    session = router.bind(ROMEO, "orchard")
    router.submit(session, 1, chat("1", JULIET))
    router.taken()
    assert router.database.look(1, session.sid, 0) == 0
    assert router.database.look(1, ORIGIN, 0) == 0


# --- requests in time


def test_a_request_that_nobody_answers_ends_in_time() -> None:
    router = world(EVERYTHING)
    ping = f'<iq xmlns="{ns.CLIENT}" type="get" id="inner" to="{FRIEND}"><ping xmlns="{ns.PING}"/></iq>'
    request = parse(
        f'<iq type="get" to="{ROMEO}" id="outer"><privileged_iq xmlns="{ns.PRIVILEGE}">{ping}</privileged_iq></iq>'
    )
    stream, (asked,) = came_in(router, request._replace(from_=X))
    assert (asked.from_, asked.to, asked.type) == (ROMEO, FRIEND, "get")
    router.tick(ANSWER_S - 2)
    assert router.heard(stream) == []
    router.tick(3)
    (answer,) = router.heard(stream)
    assert (answer.type, answer.id, answer.from_) == ("error", "outer", ROMEO)
    assert b"<remote-server-timeout " in answer.inner
    router.tick(ANSWER_S)
    assert router.heard(stream) == []


# --- presence


def test_a_component_that_is_away_costs_the_user_no_error() -> None:
    router = world(EVERYTHING)
    nurse = router.bind(ROMEO, "house", is_available=False)
    router.submit(nurse, 1, stanzas.presence(to=None, from_=None))
    assert {stanza.from_ for stanza in router.heard(nurse)} == {nurse.jid, router.romeo.jid}, "his own"
    stream = router.stream(X, local="")
    router.taken()
    router.submit(nurse, 2, stanzas.presence(to=None, from_=None, type="unavailable"))
    assert [(stanza.from_, stanza.to, stanza.type) for stanza in router.heard(stream)] == [
        (nurse.jid, X, "unavailable")
    ]
