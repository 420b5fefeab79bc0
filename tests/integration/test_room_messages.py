"""What becomes of messages in rooms beside being heard: taken back, slowed down, kept for who is away, told to who is
mentioned; in a real cluster of two c2s and two routers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import CLIENT, Client, Element, condition, sign_in_apart
from tests.support.cluster import RunningCluster
from tests.support.rooms import DISCO_INFO, admin, archived, item, join, new_room, said, stanza_id, submit

RETRACT = "urn:xmpp:message-retract:1"
MODERATE = "urn:xmpp:message-moderate:1"
OCCUPANT_ID = "{urn:xmpp:occupant-id:0}occupant-id"
WITH_GROUPS = (
    "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>"
    "<field var='include-groupchat'><value>true</value></field></x>"
)
RAI = "{urn:xmpp:rai:0}"


@pytest.fixture
def room(cluster: RunningCluster) -> str:
    return new_room(cluster)


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


def meet(pair: tuple[Client, Client], room: str, **config: str) -> None:
    """Romeo makes the room, and Juliet comes in."""
    romeo, juliet = pair
    join(romeo, room, "romeo")
    assert submit(romeo, room, persistentroom="1", **config).get("type") == "result"
    assert admin(romeo, room, f"jid='{juliet.bare}' affiliation='member'").get("type") == "result"
    join(juliet, room, "juliet")


def moderate(client: Client, room: str, id_: str, reason: str = "") -> Element:
    why = f"<reason>{reason}</reason>" if reason else ""
    return client.iq(
        "set", f"<moderate xmlns='{MODERATE}' id='{id_}'><retract xmlns='{RETRACT}'/>{why}</moderate>", room
    )


# --- taken back (XEP-0424, XEP-0425)


def test_an_author_takes_a_message_back_and_nobody_finds_it_any_more(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    juliet.message(room, "o that I were", "groupchat")
    id_ = stanza_id(said(romeo, "o that I were"), room)
    juliet.send(
        f"<message type='groupchat' to='{room}' id='retraction'><retract xmlns='{RETRACT}' id='{id_}'/>"
        "<body>took something back</body></message>"
    )
    told = said(romeo, "took something back")
    assert told.find(f"{{{RETRACT}}}retract").get("id") == id_  # type: ignore[union-attr]
    stone, retraction = archived(romeo, room)
    retracted = stone.find(f"{{{RETRACT}}}retracted")
    assert retracted is not None
    assert retracted.get("id") == "retraction"
    assert retracted.get("stamp")
    assert (stone.get("from"), stone.findtext(f"{CLIENT}body")) == (f"{room}/juliet", None)
    assert stone.find(OCCUPANT_ID) is not None
    assert retraction.findtext(f"{CLIENT}body") == "took something back"
    romeo.send(f"<presence type='unavailable' to='{room}/romeo'/>")
    romeo.presence("unavailable", f"{room}/romeo")
    join(romeo, room, "romeo")
    assert said(romeo, "took something back").find("{urn:xmpp:delay}delay") is not None
    assert not [e for e in romeo._waiting if e.find(f"{{{RETRACT}}}retracted") is not None]


def test_nobody_takes_back_what_another_has_said(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    romeo.message(room, "but soft", "groupchat")
    id_ = stanza_id(said(juliet, "but soft"), room)
    juliet.send(
        f"<message type='groupchat' to='{room}'><retract xmlns='{RETRACT}' id='{id_}'/><body>forged</body></message>"
    )
    said(juliet, "forged")
    assert archived(romeo, room)[0].findtext(f"{CLIENT}body") == "but soft"
    assert condition(moderate(juliet, room, id_)) == "forbidden"


def test_a_moderator_takes_back_what_another_has_said(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    features = {e.get("var") for e in romeo.iq("get", DISCO_INFO, room)[0]}
    assert {RETRACT, f"{RETRACT}#tombstone", MODERATE} <= features
    juliet.message(room, "buy potions", "groupchat")
    id_ = stanza_id(said(romeo, "buy potions"), room)
    assert moderate(romeo, room, id_, "no advertisements").get("type") == "result"
    for client in pair:
        told = client.expect(lambda e: e.find(f"{{{RETRACT}}}retract") is not None)
        assert (told.get("from"), told.get("type")) == (room, "groupchat")
        retract = told.find(f"{{{RETRACT}}}retract")
        assert retract is not None
        assert retract.get("id") == id_
        moderated = retract.find(f"{{{MODERATE}}}moderated")
        assert moderated is not None
        assert moderated.get("by") == f"{room}/romeo"
        assert moderated.find(OCCUPANT_ID) is not None
        assert retract.findtext(f"{{{RETRACT}}}reason") == "no advertisements"
    stone, retraction = archived(juliet, room)
    assert stone.find(f"{{{RETRACT}}}retracted/{{{MODERATE}}}moderated") is not None
    assert stone.findtext(f"{CLIENT}body") is None
    assert retraction.find(f"{{{RETRACT}}}retract") is not None
    assert stone.find(f"{{{RETRACT}}}retracted").get("id") == retraction.get("id")  # type: ignore[union-attr]
    for unknown in ("1", "nonsense"):
        assert condition(moderate(romeo, room, unknown)) == "item-not-found"


def test_a_moderator_does_not_take_back_what_an_owner_has_said(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    assert admin(romeo, room, "nick='juliet' role='moderator'").get("type") == "result"
    juliet.expect(lambda e: e.tag == f"{CLIENT}presence" and item(e).get("role") == "moderator")
    romeo.message(room, "by order", "groupchat")
    id_ = stanza_id(said(juliet, "by order"), room)
    assert condition(moderate(juliet, room, id_)) == "forbidden"


# --- slowed down (XEP-0500)


def test_in_slow_mode_one_waits_between_two_messages(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room, slow_mode_duration="60")
    fields = {
        e.get("var"): e.findtext("{jabber:x:data}value")
        for e in romeo.iq("get", DISCO_INFO, room).iter("{jabber:x:data}field")
    }
    assert fields["muc#roominfo_slow_mode_duration"] == "60"
    juliet.message(room, "first", "groupchat")
    said(juliet, "first")
    id_ = juliet.message(room, "second", "groupchat")
    refused = juliet.expect(lambda e: e.get("id") == id_)
    assert condition(refused) == "policy-violation"
    assert refused.find(f"{CLIENT}error").get("type") == "wait"  # type: ignore[union-attr]
    juliet.send(
        f"<message type='groupchat' to='{room}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
    romeo.expect(lambda e: e.find("{http://jabber.org/protocol/chatstates}composing") is not None)
    for number in range(3):
        romeo.message(room, f"owner {number}", "groupchat")
        said(juliet, f"owner {number}")


# --- for members who are away


def test_members_who_are_away_find_what_was_said_and_are_told_once(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str
) -> None:
    romeo, juliet = pair
    meet(pair, room, membersonly="1")
    romeo.message(room, "while you are here", "groupchat")
    said(juliet, "while you are here")
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    romeo.message(room, "one", "groupchat")
    ids = [stanza_id(said(romeo, "one"), room)]
    juliet.send(f"<presence to='{room.partition('@')[2]}'><rai xmlns='urn:xmpp:rai:0'/></presence>")
    told = juliet.expect(lambda e: e.find(f"{RAI}rai") is not None)
    assert [e.text for e in told.iter(f"{RAI}activity")] == [room]
    assert told.get("from") == room.partition("@")[2]
    romeo.message(room, "two", "groupchat")
    ids.append(stanza_id(said(romeo, "two"), room))
    kept = archived(juliet, None, WITH_GROUPS)
    assert [(e.get("from"), e.get("type"), e.findtext(f"{CLIENT}body")) for e in kept] == [
        (f"{room}/romeo", "groupchat", "one"), (f"{room}/romeo", "groupchat", "two"),
    ]  # fmt: skip
    assert [stanza_id(e, room) for e in kept] == ids
    assert archived(juliet, None) == []
    assert not [e for e in juliet._waiting if e.get("type") == "groupchat" or e.find(f"{RAI}rai") is not None]
    # Being there once more, it is not new any more.
    join(juliet, room, "juliet")
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    juliet.send(f"<presence to='{room.partition('@')[2]}'><rai xmlns='urn:xmpp:rai:0'/></presence>")
    juliet.ping()
    romeo.message(room, "three", "groupchat")
    told = juliet.expect(lambda e: e.find(f"{RAI}rai") is not None)
    assert [e.text for e in told.iter(f"{RAI}activity")] == [room]
    assert not [e for e in juliet._waiting if e.find(f"{RAI}rai") is not None]


def test_a_room_that_is_open_keeps_nothing_for_members_unless_it_shall(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    romeo.message(room, "not kept", "groupchat")
    assert submit(romeo, room, x_keepformembers="always").get("type") == "result"
    romeo.message(room, "kept", "groupchat")
    said(romeo, "kept")
    juliet.ping()
    assert [e.findtext(f"{CLIENT}body") for e in archived(juliet, None, WITH_GROUPS)] == ["kept"]


# --- mentions (XEP-0452, XEP-0372, XEP-0513)


@pytest.mark.parametrize("kind", ["address", "nickname", "occupant id", "everybody"])
def test_a_member_who_is_away_hears_of_a_mention(pair: tuple[Client, Client], room: str, kind: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    juliet.send("<presence/>")
    register = (
        "<query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>"
        "http://jabber.org/protocol/muc#register</value></field><field var='muc#register_roomnick'><value>juliet"
        "</value></field></x></query>"
    )
    assert juliet.iq("set", register, room).get("type") == "result"
    juliet.message(room, "wherefore", "groupchat")
    heard = said(romeo, "wherefore").find(OCCUPANT_ID)
    assert heard is not None
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    reference = "<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{}'/>"
    mention = "<mention xmlns='urn:xmpp:mentions:0' {}/>"
    written = {
        "address": reference.format(juliet.bare),
        "nickname": reference.format(f"{room}/juliet"),
        "occupant id": mention.format(f"occupantid='{heard.get('id')}'"),
        "everybody": mention.format("mentions='urn:xmpp:mentions:0#channel'"),
    }
    romeo.send(f"<message type='groupchat' to='{room}'><body>come, Juliet</body>{written[kind]}</message>")
    told = juliet.expect(lambda e: e.find("{urn:xmpp:mmn:0}mentions") is not None)
    assert told.get("from") == room
    path = "{urn:xmpp:mmn:0}mentions/{urn:xmpp:forward:0}forwarded"
    forwarded = told.find(path)
    assert forwarded is not None
    assert forwarded.find("{urn:xmpp:delay}delay") is not None
    message = forwarded.find(f"{CLIENT}message")
    assert message is not None
    assert (message.get("from"), message.findtext(f"{CLIENT}body")) == (f"{room}/romeo", "come, Juliet")
    assert stanza_id(message, room)


def test_a_mention_that_the_room_does_not_allow_reaches_nobody(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    form = (
        "<query xmlns='urn:xmpp:mentions:0'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>"
        "urn:xmpp:mentions:0</value></field><field var='mentions#channel'><value>none</value></field></x></query>"
    )
    assert condition(juliet.iq("set", form, room)) == "forbidden"
    assert romeo.iq("set", form, room).get("type") == "result"
    told = juliet.expect(lambda e: e.get("type") == "groupchat" and e.find("{jabber:x:data}x") is not None)
    assert {e.get("var") for e in told.iter("{jabber:x:data}field")} == {"FORM_TYPE", "mentions#channel"}
    shown = juliet.iq("get", "<query xmlns='urn:xmpp:mentions:0'/>", room)
    values = {e.get("var"): e.findtext("{jabber:x:data}value") for e in shown.iter("{jabber:x:data}field")}
    assert (values["mentions#channel"], values["mentions#individual"]) == ("none", "participants")
    juliet.send("<presence/>")
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    mention = "<mention xmlns='urn:xmpp:mentions:0' mentions='urn:xmpp:mentions:0#channel'/>"
    romeo.send(f"<message type='groupchat' to='{room}'><body>all of you</body>{mention}</message>")
    said(romeo, "all of you")
    romeo.message(juliet.bare, "after it")
    said(juliet, "after it")
    assert not [e for e in juliet._waiting if e.find("{urn:xmpp:mmn:0}mentions") is not None]


def test_messages_kept_for_members_survive_the_routers(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str
) -> None:
    romeo, juliet = pair
    meet(pair, room, membersonly="1")
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    bodies = [f"line {number}" for number in range(30)]
    for node in ("router-0", "router-1"):
        for body in bodies[:10] if node == "router-0" else bodies[10:]:
            romeo.message(room, body, "groupchat")
        old_pid = cluster.kill(node)
        cluster.wait_restarted(node, old_pid)
        cluster.wait_ready()
    for body in bodies:
        said(romeo, body)
    romeo.ping()
    kept = [e.findtext(f"{CLIENT}body") for e in archived(juliet, None, WITH_GROUPS)]
    assert kept == bodies
