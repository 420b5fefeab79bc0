"""What is read and what is not, on all devices (XEP-0430, XEP-0490 with server assist, XEP-0333)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import CLIENT, Client, Element, condition, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster
from tests.support.nodes import event, items, say_what_it_wants
from tests.support.rooms import admin, join, new_room, submit

INBOX = "{urn:xmpp:inbox:1}"
DISPLAYED = "urn:xmpp:mds:displayed:0"
SID = "{urn:xmpp:sid:0}stanza-id"
MARKERS = "urn:xmpp:chat-markers:0"


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


def inbox(client: Client, attributes: str = "", inner: str = "") -> tuple[list[tuple[str, int, str | None]], Element]:
    """(JID, unread, body of the newest message) of each conversation, and the <fin/>."""
    client._waiting = [e for e in client._waiting if e.find(f"{INBOX}entry") is None]
    answer = client.iq("get", f"<inbox xmlns='{INBOX[1:-1]}'{attributes}>{inner}</inbox>")
    assert answer.get("type") == "result", condition(answer)
    found = []
    for message in client._waiting:
        entry = message.find(f"{INBOX}entry")
        if entry is not None:
            body = message.findtext(f".//{CLIENT}body")
            result = message.find("{urn:xmpp:mam:2}result")
            assert result is None or result.get("id") == entry.get("id")
            found.append((entry.get("jid") or "", int(entry.get("unread") or ""), body))
    return found, answer[0]


def told(client: Client, body: str) -> Element:
    """A message when it arrives."""
    return client.expect(lambda e: e.tag == f"{CLIENT}message" and e.findtext(f"{CLIENT}body") == body)


def id_of(message: Element, by: str) -> str:
    return next(e.get("id") or "" for e in message.iter(SID) if e.get("by") == by)


def test_what_is_unread_is_counted(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    with sign_in(cluster, cluster.account()) as nurse:
        assert inbox(romeo)[0] == []
        for number in range(3):
            juliet.message(romeo.bare, f"j{number}")
            told(romeo, f"j{number}")
        nurse.message(romeo.bare, "n0")
        told(romeo, "n0")
        found, fin = inbox(romeo)
        assert found == [(nurse.bare, 1, "n0"), (juliet.bare, 3, "j2")]
        assert (fin.get("total"), fin.get("unread"), fin.get("all-unread")) == ("2", "2", "4")
        romeo.message(nurse.bare, "what?")  # who answers has read
        told(nurse, "what?")
        found, fin = inbox(romeo)
        assert found == [(nurse.bare, 0, "what?"), (juliet.bare, 3, "j2")]
        assert inbox(romeo, " unread-only='true'")[0] == [(juliet.bare, 3, "j2")]
        assert inbox(romeo, " messages='false'")[0] == [(nurse.bare, 0, None), (juliet.bare, 3, None)]
        rsm = "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max>{}</set>"
        assert inbox(romeo, "", rsm.format(""))[0] == [(nurse.bare, 0, "what?")]
        assert inbox(romeo, "", rsm.format(f"<after>{nurse.bare}</after>"))[0] == [(juliet.bare, 3, "j2")]
        refused = nurse.iq("get", f"<inbox xmlns='{INBOX[1:-1]}'/>", romeo.bare)
        assert condition(refused) == "forbidden"


def test_a_marker_makes_read(pair: tuple[Client, Client]) -> None:
    """XEP-0430, 5: "displayed"; not a receipt, nor a reaction."""
    romeo, juliet = pair
    for number in range(2):
        juliet.message(romeo.bare, f"j{number}")
        told(romeo, f"j{number}")
    romeo.send(f"<message to='{juliet.bare}' type='chat'><received xmlns='urn:xmpp:receipts' id='x'/></message>")
    assert inbox(romeo)[0] == [(juliet.bare, 2, "j1")]
    romeo.send(f"<message to='{juliet.bare}' type='chat'><displayed xmlns='{MARKERS}' id='x'/></message>")
    assert inbox(romeo)[0] == [(juliet.bare, 0, "j1")]
    juliet.message(romeo.bare, "j2")
    told(romeo, "j2")
    assert inbox(romeo)[0] == [(juliet.bare, 1, "j2")]


def test_a_message_to_the_contact_is_enough(cluster: RunningCluster) -> None:
    """XEP-0490, 3.4: the marker goes on, what is for the own server does not; other devices are told."""
    account = cluster.account()
    with (
        sign_in(cluster, account, "phone") as phone,
        sign_in(cluster, account, "desk") as desk,
        sign_in(cluster, cluster.account()) as juliet,
    ):
        say_what_it_wants(desk, DISPLAYED)
        ids = []
        for number in range(3):
            juliet.message(phone.bare, f"j{number}")
            ids.append(id_of(told(phone, f"j{number}"), phone.bare))
        id_ = ids[1]
        displayed = f"<displayed xmlns='{DISPLAYED}'><stanza-id xmlns='urn:xmpp:sid:0' by='{phone.bare}' id='{id_}'/></displayed>"
        request = "<request xmlns='urn:xmpp:receipts'/>"
        phone.send(f"<message to='{juliet.bare}' type='chat' id='m1'>{request}{displayed}</message>")
        heard = juliet.expect(lambda e: e.get("id") == "m1")
        assert [child.tag for child in heard if child.tag != SID] == ["{urn:xmpp:receipts}request"]
        (item,) = event(desk, DISPLAYED)
        assert item.get("id") == juliet.bare
        assert item.find(f"{{{DISPLAYED}}}displayed/{SID}").get("id") == id_  # type: ignore[union-attr]
        assert inbox(desk)[0] == [(juliet.bare, 1, "j2")]
        assert list(items(phone, DISPLAYED)) == [juliet.bare]
        answer = juliet.iq(
            "get", f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{DISPLAYED}'/></pubsub>", phone.bare
        )
        assert condition(answer) in ("not-allowed", "service-unavailable")


def test_rooms_are_conversations_of_their_members(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    room = new_room(cluster)
    join(juliet, room, "juliet")
    config = {"persistentroom": "1", "membersonly": "1"}
    assert submit(juliet, room, **config).get("type") == "result"
    assert admin(juliet, room, f"jid='{romeo.bare}' affiliation='member'").get("type") == "result"
    for number in range(3):
        juliet.message(room, f"r{number}", "groupchat")
        juliet.expect(lambda e, n=number: e.findtext(f"{CLIENT}body") == f"r{n}")  # type: ignore[misc]
    for _ in range(100):
        found, _fin = inbox(romeo)
        if found and found[0][1] == 3:
            break
    assert found == [(room, 3, "r2")]
    join(romeo, room, "romeo")
    assert inbox(romeo)[0] == [(room, 0, "r2")]


@pytest.mark.parametrize("attributes", [" unread-only='perhaps'", " messages='2'"])
def test_questions_that_are_none(pair: tuple[Client, Client], attributes: str) -> None:
    answer = pair[0].iq("get", f"<inbox xmlns='{INBOX[1:-1]}'{attributes}/>")
    assert condition(answer) == "bad-request"
