"""Rooms while processes die: whoever was in stays in, and sees each message once, in one order for all."""

from __future__ import annotations

import signal

import pytest

from tests.faults.test_resume import Managed, couple
from tests.support.client import CLIENT, Client, Element, place, sign_in_apart
from tests.support.cluster import RunningCluster, wait_until
from tests.support.faults import Site
from tests.support.rooms import MUC, USER, admin, archived, join, submit

WITH_GROUPS = (
    "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>"
    "<field var='include-groupchat'><value>true</value></field></x>"
)


def is_self(element: Element) -> bool:
    """Presence that says that one is in (status 110)."""
    return element.tag == f"{CLIENT}presence" and any(s.get("code") == "110" for s in element.iter(f"{USER}status"))


def enter(romeo: Client, juliet: Managed, room: str) -> None:
    """Romeo makes the room, Juliet comes in; nothing of that is on its way any more."""
    join(romeo, room, "romeo")
    submit(romeo, room)
    juliet.client.send(f"<presence to='{room}/juliet'>{MUC}</presence>")
    while not is_self(juliet.take()):
        pass
    assert juliet.take().find(f"{CLIENT}subject") is not None
    romeo.presence(None, f"{room}/juliet")


def say(romeo: Client, room: str, *texts: str) -> None:
    """Romeo says this, and sees it."""
    for text in texts:
        romeo.message(room, text, "groupchat")
    for text in texts:
        assert romeo.body(30) == text


@pytest.mark.parametrize("victims", [("c2s",), ("router",), ("c2s", "router")], ids=" and ".join)
def test_who_was_away_gets_what_was_said_meanwhile(site: Site, victims: tuple[str, ...]) -> None:
    cluster = site.cluster
    with couple(cluster) as (romeo, juliet):
        room = f"{juliet.bare.partition('@')[0]}@conference.{cluster.domain}"
        enter(romeo, juliet, room)
        say(romeo, room, "before")
        assert juliet.body() == "before"
        at = dict(zip(("c2s", "router"), place(cluster, juliet.client), strict=True))
        juliet.close()
        say(romeo, room, "she is away")
        old = {}
        for role in victims:
            old[role] = cluster.kill(at[role])
            say(romeo, room, f"the {role} is gone", "and nobody has left")
        juliet.resume()
        expected = ["she is away"]
        for role in victims:
            expected += [f"the {role} is gone", "and nobody has left"]
        assert [juliet.body() for _ in expected] == expected
        for role, pid in old.items():
            cluster.wait_restarted(at[role], pid)
        cluster.wait_ready()
        say(romeo, room, "after")
        assert juliet.body() == "after"
        romeo.ping()
        assert not [e for e in romeo._waiting if e.tag == f"{CLIENT}presence" and e.get("from") == f"{room}/juliet"]


def test_what_was_said_reaches_members_who_are_away_though_the_owner_of_the_room_dies_with_it(site: Site) -> None:
    """What the room's owner has committed and acknowledged, and nobody else has heard of."""
    cluster = site.cluster
    romeo, juliet = sign_in_apart(cluster, other_c2s=False, other_router=True)
    with romeo, juliet:
        (_, owner), (_, other) = place(cluster, romeo), place(cluster, juliet)
        room = a_room_of(cluster, owner)
        join(romeo, room, "romeo")
        assert submit(romeo, room, membersonly="1").get("type") == "result"
        assert admin(romeo, room, f"jid='{juliet.bare}' affiliation='member'").get("type") == "result"
        bodies = [f"line {number}" for number in range(20)]
        cluster.kill(other, signal.SIGSTOP)  # what it has not read dies with it
        say(romeo, room, *bodies)
        pids = {router: cluster.kill(router) for router in (owner, other)}
        for router, pid in pids.items():
            cluster.wait_restarted(router, pid)
        cluster.wait_ready()
        say(romeo, room, "after")
        wait_until(lambda: len(archived(juliet, None, WITH_GROUPS)) > len(bodies), 10, "all of it is there")
        kept = archived(juliet, None, WITH_GROUPS)
        assert [message.findtext(f"{CLIENT}body") for message in kept] == [*bodies, "after"]


def a_room_of(cluster: RunningCluster, router: str) -> str:
    """The JID of a new room that this router owns."""
    for number in range(100):
        room = f"of-{router}-{number}@conference.{cluster.domain}"
        cluster.api.call("POST", "/rooms", {"jid": room})
        owner = cluster.api.call("GET", f"/rooms/{room}")["router"]
        cluster.api.call("DELETE", f"/rooms/{room}")
        if owner == router:
            return room
    raise AssertionError(f"{router} owns no room")
