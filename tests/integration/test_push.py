"""Push notifications (XEP-0357) in a real cluster: the app's service is a client here, whose stream is somewhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import CLIENT, Client, Element, condition, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster
from tests.support.nodes import publish
from tests.support.rooms import admin, join, new_room, submit

PUSH = "urn:xmpp:push:0"
PUBSUB = "{http://jabber.org/protocol/pubsub}"
SM = "urn:xmpp:sm:3"
FIELD = "{jabber:x:data}field"


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, service = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, service:
        yield romeo, service


def enable(client: Client, service: Client, node: str = "n1") -> None:
    answer = client.iq("set", f"<enable xmlns='{PUSH}' jid='{service.jid}' node='{node}'/>")
    assert answer.get("type") == "result", condition(answer)


def make_resumable(client: Client) -> None:
    client.send(f"<enable xmlns='{SM}' resume='true'/>")
    client.expect(lambda e: e.tag == f"{{{SM}}}enabled")


def notification(service: Client) -> tuple[str, dict[str, str], Element]:
    """The next one: its node, its summary, the request."""

    def matches(element: Element) -> bool:
        return element.tag == f"{CLIENT}iq" and element.find(f"{PUBSUB}pubsub/{PUBSUB}publish") is not None

    request = service.expect(matches)
    node = request.find(f"{PUBSUB}pubsub/{PUBSUB}publish")
    assert node is not None
    fields = {field.get("var") or "": field[0].text or "" for field in request.iter(FIELD)}
    return node.get("node") or "", fields, request


def answer(service: Client, request: Element, error: str = "") -> None:
    to, id_ = request.get("from"), request.get("id")
    service.send(f"<iq type='{'error' if error else 'result'}' to='{to}' id='{id_}'>{error}</iq>")


def test_a_phone_that_is_gone_is_told(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    juliet, service = pair
    phone = sign_in(cluster, cluster.account(), "phone")
    make_resumable(phone)
    enable(phone, service)
    juliet.message(phone.bare, "are you there?")
    phone.body()
    phone.socket.close()  # it may come back, and has read nothing yet for all the server knows
    juliet.message(phone.bare, "hello?")
    node, fields, request = notification(service)
    assert node == "n1"
    assert request.get("from") == phone.bare
    assert fields["last-message-body"] == "New message"
    assert int(fields["message-count"]) >= 1
    answer(service, request)


def test_what_is_enabled_is_known_to_the_next_owner_and_after_the_end(
    cluster: RunningCluster, pair: tuple[Client, Client]
) -> None:
    """Whoever enabled it is gone for good; and an account that was forgotten is read again."""
    juliet, service = pair
    account = cluster.account()
    with sign_in(cluster, account, "phone") as phone:
        enable(phone, service)
        phone.send("</stream:stream>")
        phone.end()
    juliet.message(account.jid, "hello?")
    node, _, request = notification(service)
    assert node == "n1"
    answer(
        service, request, "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    )
    service.ping()
    juliet.message(account.jid, "hello??")
    juliet.ping()
    with sign_in(cluster, account, "phone") as phone:
        assert [phone.body(), phone.body()] == ["hello?", "hello??"]
        enable(phone, service, "n2")
        phone.send("</stream:stream>")
        phone.end()
    juliet.message(account.jid, "hello???")
    assert notification(service)[0] == "n2", "the first one is disabled"


def test_rooms_are_told_of(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    """Of members who are away, and of occupants whose streams are."""
    juliet, service = pair
    phone = sign_in(cluster, cluster.account(), "phone")
    room = new_room(cluster)
    join(juliet, room, "juliet")
    assert submit(juliet, room, persistentroom="1", membersonly="1").get("type") == "result"
    assert admin(juliet, room, f"jid='{phone.bare}' affiliation='member'").get("type") == "result"
    make_resumable(phone)
    enable(phone, service)
    join(phone, room, "phone")
    phone.socket.close()
    for text in ("one", "two"):
        juliet.message(room, text, "groupchat")
        juliet.expect(lambda e, t=text: e.findtext(f"{CLIENT}body") == t)  # type: ignore[misc]
    node, _, request = notification(service)
    assert node == "n1"
    answer(service, request)


def test_a_muted_chat_is_not_told_of(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    """XEP-0492."""
    juliet, service = pair
    with sign_in(cluster, cluster.account(), "phone") as phone, sign_in(cluster, cluster.account()) as nurse:
        never = "<notify xmlns='urn:xmpp:notification-settings:0'><never/></notify>"
        payload = f"<conference xmlns='urn:xmpp:bookmarks:1'><extensions>{never}</extensions></conference>"
        assert publish(phone, "urn:xmpp:bookmarks:1", juliet.bare, payload).get("type") == "result"
        enable(phone, service)
        phone.send("</stream:stream>")
        phone.end()
        juliet.message(phone.bare, "muted")
        juliet.ping()
        nurse.message(phone.bare, "not muted")
        _, fields, request = notification(service)
        assert fields["message-count"] == "2"
        answer(service, request)
        service.ping()
        assert not [e for e in service._waiting if e.find(f"{PUBSUB}pubsub") is not None]
