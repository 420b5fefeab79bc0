"""Rooms (XEP-0045) in a real cluster of two c2s and two routers, with clients wherever they may be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import CLIENT, Client, condition, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster, wait_until
from tests.support.rooms import MUC, OWNER, USER, admin, codes, item, join, new_room, said, submit


@pytest.fixture
def room(cluster: RunningCluster) -> str:
    return new_room(cluster)


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


def test_a_room_is_made_opened_entered_and_spoken_in(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    assert {"110", "201"} <= codes(join(romeo, room, "romeo"))
    juliet.send(f"<presence to='{room}/juliet'>{MUC}</presence>")
    assert condition(juliet.presence("error", f"{room}/juliet")) == "item-not-found"  # locked
    assert submit(romeo, room).get("type") == "result"
    own = join(juliet, room, "juliet")
    assert (item(own).get("affiliation"), item(own).get("role")) == ("none", "participant")
    seen = romeo.presence(None, f"{room}/juliet")
    assert item(seen).get("jid") == juliet.jid  # he is a moderator
    for number in range(20):
        romeo.message(room, f"romeo {number}", "groupchat")
        juliet.message(room, f"juliet {number}", "groupchat")
    orders = [[client.body() for _ in range(40)] for client in (romeo, juliet)]
    assert orders[0] == orders[1]
    assert [body for body in orders[0] if body.startswith("romeo")] == [f"romeo {number}" for number in range(20)]
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    assert "110" in codes(juliet.presence("unavailable", f"{room}/juliet"))
    romeo.presence("unavailable", f"{room}/juliet")


def test_who_comes_in_sees_who_is_there_then_what_was_said_then_the_subject(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str
) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, changesubject="1")
    romeo.send(f"<message type='groupchat' to='{room}'><subject>Balcony</subject></message>")
    romeo.expect(lambda e: e.findtext(f"{CLIENT}subject") == "Balcony")
    romeo.message(room, "but soft", "groupchat")
    live = said(romeo, "but soft")
    juliet.send(f"<presence to='{room}/juliet'>{MUC}</presence>")
    order = [juliet.read() for _ in range(4)]
    assert [e.get("from") for e in order] == [f"{room}/romeo", f"{room}/juliet", f"{room}/romeo", f"{room}/romeo"]
    assert all(e.get("to") == juliet.jid for e in order)
    assert order[2].find("{urn:xmpp:delay}delay") is not None
    stanza_id = "{urn:xmpp:sid:0}stanza-id"
    assert order[2].find(stanza_id).get("id") == live.find(stanza_id).get("id")  # type: ignore[union-attr]
    assert order[3].findtext(f"{CLIENT}subject") == "Balcony"


def test_kick_ban_voice_and_nickname(cluster: RunningCluster, pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    done = submit(romeo, room, moderatedroom="1", persistentroom="1")
    assert done.get("type") == "result", condition(done)
    assert item(join(juliet, room, "juliet")).get("role") == "visitor"
    id_ = juliet.message(room, "may I?", "groupchat")
    assert condition(juliet.expect(lambda e: e.get("id") == id_)) == "forbidden"
    assert admin(romeo, room, "nick='juliet' role='participant'").get("type") == "result"
    assert item(juliet.presence(None, f"{room}/juliet")).get("role") == "participant"
    juliet.send(f"<presence to='{room}/capulet'/>")
    gone = juliet.presence("unavailable", f"{room}/juliet")
    assert {"303", "110"} <= codes(gone)
    assert item(gone).get("nick") == "capulet"
    assert "110" in codes(juliet.presence(None, f"{room}/capulet"))
    assert admin(juliet, room, "nick='romeo' role='none'").get("type") == "error"
    assert admin(romeo, room, "nick='capulet' role='none'").get("type") == "result"
    assert {"307", "110"} <= codes(juliet.presence("unavailable", f"{room}/capulet"))
    join(juliet, room, "juliet")
    assert admin(romeo, room, f"jid='{juliet.bare}' affiliation='outcast'").get("type") == "result"
    assert "301" in codes(juliet.presence("unavailable", f"{room}/juliet"))
    juliet.send(f"<presence to='{room}/juliet'>{MUC}</presence>")
    assert condition(juliet.presence("error", f"{room}/juliet")) == "forbidden"


def test_private_messages_pings_and_invitations(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, membersonly="1")
    invite = (
        f"<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{juliet.bare}'><reason>come</reason></invite></x>"
    )
    juliet.send("<presence/>")
    juliet.presence(None, juliet.jid)
    romeo.send(f"<message to='{room}'>{invite}</message>")
    juliet.expect(lambda e: e.find(f"{USER}x/{USER}invite") is not None)
    assert item(join(juliet, room, "juliet")).get("affiliation") == "member"
    juliet.message(f"{room}/romeo", "psst")
    assert said(romeo, "psst").get("from") == f"{room}/juliet"
    assert juliet.iq("get", "<ping xmlns='urn:xmpp:ping'/>", f"{room}/juliet").get("type") == "result"
    version = "<query xmlns='jabber:iq:version'/>"
    juliet.send(f"<iq type='get' id='v1' to='{room}/romeo'>{version}</iq>")
    asked = romeo.expect(lambda e: e.tag == f"{CLIENT}iq" and e.get("type") == "get")
    romeo.send(f"<iq type='result' id='{asked.get('id')}' to='{asked.get('from')}'/>")
    assert juliet.expect(lambda e: e.get("id") == "v1").get("from") == f"{room}/romeo"


def test_the_last_one_to_leave_ends_a_temporary_room(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str
) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, publicroom="1", roomname="Verona")
    query = "<query xmlns='http://jabber.org/protocol/disco#items'/>"
    items = juliet.iq("get", query, f"conference.{cluster.domain}")
    assert room in [found.get("jid") for found in items[0]]
    romeo.socket.close()

    def is_gone() -> bool:
        answer = juliet.iq("get", query.replace("items", "info"), room)
        return answer.get("type") == "error" and condition(answer) == "item-not-found"

    wait_until(is_gone, 10, "the room is gone")


def test_a_room_is_destroyed_with_the_address_of_another(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, persistentroom="1")
    join(juliet, room, "juliet")
    destroy = (
        f"<query xmlns='{OWNER}'><destroy jid='other@conference.localhost'><reason>moved</reason></destroy></query>"
    )
    assert condition(juliet.iq("set", destroy, room)) == "forbidden"
    assert romeo.iq("set", destroy, room).get("type") == "result"
    gone = juliet.presence("unavailable", f"{room}/juliet")
    assert gone.find(f"{USER}x/{USER}destroy").get("jid") == "other@conference.localhost"  # type: ignore[union-attr]


@pytest.mark.parametrize("node", ["router-0", "router-1"])
def test_a_killed_router_loses_and_doubles_nothing_and_nobody_leaves(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str, node: str
) -> None:
    """Of both routers, one owns the room; each owns one of the two who are in it."""
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room)
    join(juliet, room, "juliet")
    romeo.presence(None, f"{room}/juliet")
    for client in pair:
        client.ping()
        client._waiting.clear()
    bodies = []

    def speak(text: str) -> None:
        for number in range(10):
            for client in (romeo, juliet):
                bodies.append(f"{client.bare} {text} {number}")
                client.message(room, bodies[-1], "groupchat")

    speak("before")
    old_pid = cluster.kill(node)
    speak("meanwhile")
    cluster.wait_restarted(node, old_pid)
    cluster.wait_ready()
    speak("after")
    heard = [[client.body(30) for _ in bodies] for client in (romeo, juliet)]
    assert heard[0] == heard[1]
    assert sorted(heard[0]) == sorted(bodies)
    for client in (romeo, juliet):
        mine = [body for body in heard[0] if body.startswith(client.bare)]
        assert mine == [body for body in bodies if body.startswith(client.bare)]
        client.ping()
        assert not [
            e
            for e in client._waiting
            if (e.get("from") or "").startswith(room)
            and e.get("type") != "error"
            and (e.tag == f"{CLIENT}presence" or e.find(f"{CLIENT}body") is not None)
        ]


def test_the_archive_of_a_room_is_for_those_who_may_be_in_it(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, membersonly="1")
    ids = []
    for number in range(5):
        romeo.message(room, f"line {number}", "groupchat")
        live = said(romeo, f"line {number}").find("{urn:xmpp:sid:0}stanza-id")
        assert live is not None
        ids.append(live.get("id"))
    query = "<query xmlns='urn:xmpp:mam:2' queryid='q'><set xmlns='http://jabber.org/protocol/rsm'><max>3</max><before/></set></query>"
    assert condition(juliet.iq("set", query, room)) == "forbidden"
    answer = romeo.iq("set", query, room)
    results = [e for e in romeo._waiting if e.find("{urn:xmpp:mam:2}result") is not None]
    assert [e.find("{urn:xmpp:mam:2}result").get("id") for e in results] == ids[2:]  # type: ignore[union-attr]
    assert {e.get("from") for e in results} == {room}
    forwarded = results[0].find("{urn:xmpp:mam:2}result/{urn:xmpp:forward:0}forwarded/{jabber:client}message")
    assert forwarded is not None
    assert (forwarded.get("from"), forwarded.findtext(f"{CLIENT}body")) == (f"{room}/romeo", "line 2")
    assert answer.find("{urn:xmpp:mam:2}fin") is not None


def test_an_operator_makes_changes_and_ends_a_room(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str
) -> None:
    romeo, juliet = pair

    def run(*arguments: str) -> str:
        done = cluster.command("room", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("create", room, "roomname=Verona", "moderatedroom=1", "--owner", romeo.bare) == f"{room} made\n"
    assert f"{room}  0  public stays  Verona" in run("list").splitlines()
    assert cluster.command("room", "create", room).returncode != 0
    assert item(join(romeo, room, "romeo")).get("affiliation") == "owner"
    assert item(join(juliet, room, "juliet")).get("role") == "visitor"
    assert run("affiliation", room, juliet.bare, "member") == f"{juliet.bare} is member of {room}\n"
    assert item(juliet.presence(None, f"{room}/juliet")).get("role") == "participant"
    assert f"{juliet.bare}  member" in run("affiliation", room)
    juliet.message(room, "o romeo", "groupchat")
    said(juliet, "o romeo")
    assert run("history", room).split(None, 1)[1] == "juliet  o romeo\n"
    assert f"juliet  {juliet.jid}  participant" in run("occupants", room).splitlines()
    assert "membersonly            True" in run("set", room, "membersonly=1")
    for wrong in ("membersonly=perhaps", "nonsense=1"):
        assert cluster.command("room", "set", room, wrong).returncode != 0
    assert "roomname               Verona" in run("show", room)
    assert run("destroy", room) == f"{room} destroyed\n"
    juliet.presence("unavailable", f"{room}/juliet")
    assert "is no room" in cluster.command("room", "show", room).stderr


def test_one_nickname_for_several_devices(cluster: RunningCluster, room: str) -> None:
    account = cluster.account()
    with (
        sign_in(cluster, account, "phone") as phone,
        sign_in(cluster, account, "laptop") as laptop,
        sign_in(cluster, cluster.account()) as juliet,
    ):
        join(phone, room, "romeo")
        submit(phone, room)
        join(juliet, room, "juliet")
        join(laptop, room, "romeo")
        juliet.message(room, "both hear this", "groupchat")
        for client in (phone, laptop, juliet):
            said(client, "both hear this")
        phone.send(f"<presence to='{room}/montague'/>")
        for client in (phone, laptop):
            assert {"303", "110"} <= codes(client.presence("unavailable", f"{room}/romeo"))
            assert "110" in codes(client.presence(None, f"{room}/montague"))
        juliet.presence("unavailable", f"{room}/romeo")
        juliet.presence(None, f"{room}/montague")
        phone.send(f"<presence type='unavailable' to='{room}/montague'/>")
        assert "110" in codes(phone.presence("unavailable", f"{room}/montague"))
        laptop.message(room, "still here", "groupchat")
        said(juliet, "still here")
        assert not [e for e in juliet._waiting if e.get("type") == "unavailable"]
        laptop.socket.close()
        juliet.presence("unavailable", f"{room}/montague")


def test_a_registered_nickname_is_its_owners(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, persistentroom="1")
    form = (
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#register"
        "</value></field><field var='muc#register_roomnick'><value>{}</value></field></x>"
    )
    query = "<query xmlns='jabber:iq:register'>{}</query>"
    assert juliet.iq("get", query.format(""), room).find(".//{jabber:x:data}x") is not None
    assert condition(juliet.iq("set", query.format(form.format("romeo")), room)) == "conflict"
    assert juliet.iq("set", query.format(form.format("juliet")), room).get("type") == "result"
    answer = juliet.iq("get", query.format(""), room)
    assert answer.findtext(".//{jabber:iq:register}username") == "juliet"
    romeo.send(f"<presence to='{room}/juliet'/>")
    assert condition(romeo.presence("error", f"{room}/juliet")) == "conflict"
    assert item(join(juliet, room, "juliet")).get("affiliation") == "member"
    assert juliet.iq("set", query.format("<remove/>"), room).get("type") == "result"
    assert item(juliet.presence(None, f"{room}/juliet")).get("affiliation") == "none"
    assert condition(juliet.iq("set", query.format("<remove/>"), room)) == "registration-required"
