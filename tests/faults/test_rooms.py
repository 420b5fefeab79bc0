"""Rooms while processes die: whoever was in stays in, and sees each message once, in one order for all."""

from __future__ import annotations

import pytest

from tests.faults.test_resume import Managed, couple
from tests.support.client import CLIENT, Client, Element, place
from tests.support.faults import Site

USER = "{http://jabber.org/protocol/muc#user}"
MUC = "<x xmlns='http://jabber.org/protocol/muc'/>"
OPEN = (
    "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
    "<value>http://jabber.org/protocol/muc#roomconfig</value></field></x></query>"
)


def is_self(element: Element) -> bool:
    """Presence that says that one is in (status 110)."""
    return element.tag == f"{CLIENT}presence" and any(s.get("code") == "110" for s in element.iter(f"{USER}status"))


def enter(romeo: Client, juliet: Managed, room: str) -> None:
    """Romeo makes the room, Juliet comes in; nothing of that is on its way any more."""
    romeo.send(f"<presence to='{room}/romeo'>{MUC}</presence>")
    romeo.expect(is_self)
    romeo.iq("set", OPEN, room)
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
