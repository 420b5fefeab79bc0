"""Conversations through a real cluster of two c2s and two routers."""

from __future__ import annotations

import pytest

from tests.support.client import CLIENT, Client, condition, place, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster


@pytest.mark.parametrize("other_c2s", [False, True])
@pytest.mark.parametrize("other_router", [False, True])
def test_messages_arrive_once_and_in_order_wherever_the_sessions_are(
    cluster: RunningCluster, other_c2s: bool, other_router: bool
) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=other_c2s, other_router=other_router)
    with romeo, juliet:
        for number in range(100):
            romeo.message(juliet.bare, f"to juliet {number}")
            juliet.message(romeo.jid, f"to romeo {number}")
        assert [juliet.body() for _ in range(100)] == [f"to juliet {number}" for number in range(100)]
        assert [romeo.body() for _ in range(100)] == [f"to romeo {number}" for number in range(100)]
        romeo.ping()
        juliet.ping()
        assert not [e for e in romeo._waiting + juliet._waiting if e.tag == f"{CLIENT}message"]


def test_a_subscription_from_request_to_presence_and_back(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        for client in (romeo, juliet):
            client.iq("get", "<query xmlns='jabber:iq:roster'/>")
        romeo.send(f"<presence type='subscribe' to='{juliet.bare}'/>")
        juliet.presence("subscribe", romeo.bare)
        juliet.send(f"<presence type='subscribed' to='{romeo.bare}'/>")
        romeo.presence("subscribed", juliet.bare)
        romeo.presence(None, juliet.jid)
        roster = romeo.iq("get", "<query xmlns='jabber:iq:roster'/>")
        assert [(i.get("jid"), i.get("subscription")) for i in roster[0]] == [(juliet.bare, "to")]
        juliet.send("<presence><show>away</show></presence>")
        assert romeo.presence(None, juliet.jid).findtext(f"{CLIENT}show") == "away"
        juliet.socket.close()  # no </stream:stream>, no unavailable presence: it is sent on her behalf
        romeo.presence("unavailable", juliet.jid)


def test_a_message_for_nobody_comes_back(cluster: RunningCluster) -> None:
    with sign_in(cluster, cluster.account()) as romeo:
        for to, wanted in (
            (f"nobody@{cluster.domain}", "service-unavailable"),
            ("juliet@elsewhere.example", "remote-server-not-found"),
            ("ju@liet@@", "jid-malformed"),
        ):
            id_ = romeo.message(to, "hello?")
            assert condition(romeo.expect(lambda e, id_=id_: e.get("id") == id_)) == wanted  # type: ignore[misc]


def test_a_second_session_of_the_same_resource_replaces_the_first(cluster: RunningCluster) -> None:
    account = cluster.account()
    with sign_in(cluster, account, "phone") as first, sign_in(cluster, account, "phone") as second:
        assert first.end() == "conflict"
        second.message(second.bare, "still here")
        assert second.body() == "still here"


def test_closing_the_stream_waits_until_everything_is_safe(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        for number in range(50):
            romeo.message(juliet.bare, str(number))
        romeo.send("</stream:stream>")
        assert romeo.end() == ""
        assert [juliet.body() for _ in range(50)] == [str(number) for number in range(50)]


@pytest.mark.parametrize("direct_tls", [False, True])
def test_tls(cluster: RunningCluster, direct_tls: bool) -> None:
    account = cluster.account()
    with Client(cluster, direct_tls=direct_tls) as client:
        features = client.open()
        if not direct_tls:
            features = client.start_tls()
        offered = [e.text for e in features.iter() if e.tag.endswith("}mechanism")]
        assert offered[0] == "SCRAM-SHA-512-PLUS"
        assert "ANONYMOUS" not in offered
        types = [e.get("type") for e in features.iter() if e.tag.endswith("}channel-binding")]
        assert "tls-server-end-point" in types
        assert client.plain(account).tag.endswith("success")
        client.open()
        client.bind()
        client.ping()
        assert place(cluster, client)[0].startswith("c2s-")
