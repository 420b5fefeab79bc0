"""What a room shows of itself and of the people in it: picture, hats, affiliations by version; how rooms are found and
how people come to be members. In a real cluster of two c2s and two routers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from hashlib import sha1

import pytest

from tests.support.client import CLIENT, Client, Element, condition, sign_in_apart
from tests.support.cluster import RunningCluster
from tests.support.rooms import DISCO_INFO, USER, admin, codes, item, join, new_room, submit

HATS = "{urn:xmpp:hats:0}"
MAV = "{urn:xmpp:muc:affiliations:1}mav"
COMMANDS = "http://jabber.org/protocol/commands"
SEARCH = "urn:xmpp:channel-search:0:search"
FIELD = "{jabber:x:data}field"
VALUE = "{jabber:x:data}value"


@pytest.fixture
def room(cluster: RunningCluster) -> str:
    return new_room(cluster)


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


def meet(pair: tuple[Client, Client], room: str, **config: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    assert submit(romeo, room, **config).get("type") == "result"
    join(juliet, room, "juliet")


def values(element: Element) -> dict[str | None, list[str | None]]:
    return {field.get("var"): [value.text for value in field.iter(VALUE)] for field in element.iter(FIELD)}


def filled_in(form_type: str, **fields: str) -> str:
    written = "".join(
        f"<field var='{name.replace('__', '#')}'><value>{text}</value></field>" for name, text in fields.items()
    )
    return (
        f"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{form_type}</value></field>{written}</x>"
    )


# --- picture (XEP-0486, XEP-0153)


def test_an_owner_gives_a_room_its_picture(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    picture = b"not really a picture"
    photo = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{base64.b64encode(picture).decode()}</BINVAL></PHOTO>"
    card = f"<vCard xmlns='vcard-temp'>{photo}</vCard>"
    assert condition(juliet.iq("set", card, room)) == "forbidden"
    wrong = "<vCard xmlns='vcard-temp'><PHOTO><BINVAL>A</BINVAL></PHOTO></vCard>"
    assert condition(romeo.iq("set", wrong, room)) == "bad-request"
    assert romeo.iq("set", card, room).get("type") == "result"
    juliet.expect(lambda e: e.tag == f"{CLIENT}message" and codes(e) == {"104"})
    told = juliet.expect(lambda e: e.tag == f"{CLIENT}presence" and e.get("from") == room)
    hash_ = sha1(picture).hexdigest()
    assert told.findtext("{vcard-temp:x:update}x/{vcard-temp:x:update}photo") == hash_
    assert values(juliet.iq("get", DISCO_INFO, room))["muc#roominfo_avatarhash"] == [hash_]
    shown = juliet.iq("get", "<vCard xmlns='vcard-temp'/>", room)
    assert base64.b64decode(shown.findtext(".//{vcard-temp}BINVAL") or "") == picture
    juliet.send(f"<presence type='unavailable' to='{room}/juliet'/>")
    juliet.presence("unavailable", f"{room}/juliet")
    join(juliet, room, "juliet")
    juliet.expect(lambda e: e.tag == f"{CLIENT}presence" and e.get("from") == room)
    assert romeo.iq("set", "<vCard xmlns='vcard-temp'/>", room).get("type") == "result"
    assert "muc#roominfo_avatarhash" not in values(juliet.iq("get", DISCO_INFO, room))


# --- hats (XEP-0317)


def command(client: Client, room: str, name: str, **fields: str) -> Element:
    form = filled_in("urn:xmpp:hats:commands", **fields) if fields else ""
    payload = f"<command xmlns='{COMMANDS}' node='urn:xmpp:hats:commands:{name}' action='execute'>{form}</command>"
    return client.iq("set", payload, room)


def test_an_admin_makes_hats_and_gives_them_to_people(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    listed = romeo.iq("get", f"<query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/>", room)
    assert len(listed[0]) == 6
    asked = command(romeo, room, "create")
    assert asked[0].get("status") == "executing"
    assert set(values(asked)) == {"FORM_TYPE", "hats#title", "hats#uri", "hats#hue"}
    made = command(romeo, room, "create", hats__title="Scribe", hats__uri="urn:x:scribe", hats__hue="327.2")
    assert made[0].get("status") == "completed"
    juliet.expect(lambda e: e.tag == f"{CLIENT}message" and codes(e) == {"104"})
    hash_ = values(juliet.iq("get", DISCO_INFO, room))["hats#hash"]
    given = command(romeo, room, "assign", hats__jid=juliet.bare, hats__uri="urn:x:scribe")
    assert given[0].get("status") == "completed"
    for client in pair:
        shown = client.expect(
            lambda e: e.get("from") == f"{room}/juliet" and e.find(f"{HATS}hats/{HATS}hat") is not None
        )
        hat = shown.find(f"{HATS}hats/{HATS}hat")
        assert hat is not None
        assert dict(hat.attrib) == {"title": "Scribe", "uri": "urn:x:scribe", "hue": "327.2"}
    assert values(command(juliet, room, "list")).keys() >= {"hats#title", "hats#uri", "hats#hue"}
    assert values(command(romeo, room, "list-assigned"))["hats#jid"] == [juliet.bare]
    assert condition(command(juliet, room, "list-assigned")) == "forbidden"
    assert condition(command(juliet, room, "create", hats__title="King", hats__uri="urn:x:king")) == "forbidden"
    assert condition(command(romeo, room, "assign", hats__jid=juliet.bare, hats__uri="urn:x:none")) == "item-not-found"
    assert condition(command(romeo, room, "nonsense")) == "item-not-found"
    assert (
        command(romeo, room, "unassign", hats__jid=juliet.bare, hats__uri="urn:x:scribe")[0].get("status")
        == "completed"
    )
    bare = juliet.expect(lambda e: e.get("from") == f"{room}/juliet" and e.find(f"{HATS}hats") is not None)
    assert bare.find(f"{HATS}hats/{HATS}hat") is None
    assert command(romeo, room, "destroy", hats__uri="urn:x:scribe")[0].get("status") == "completed"
    assert "hats#hash" not in values(juliet.iq("get", DISCO_INFO, room))
    assert hash_


def test_hats_survive_the_routers(cluster: RunningCluster, pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    command(romeo, room, "create", hats__title="Scribe", hats__uri="urn:x:scribe")
    command(romeo, room, "assign", hats__jid=juliet.bare, hats__uri="urn:x:scribe")
    for node in ("router-0", "router-1"):
        old_pid = cluster.kill(node)
        cluster.wait_restarted(node, old_pid)
        cluster.wait_ready()
    assert values(command(romeo, room, "list-assigned"))["hats#jid"] == [juliet.bare]


# --- affiliations by version (XEP-0463)


def join_with_version(client: Client, room: str, since: str = "") -> tuple[list[Element], str]:
    """What a client that comes in is told of affiliations before any presence, and the present version."""
    attribute = f" since='{since}'" if since else ""
    nick = client.bare.partition("@")[0]
    client.send(
        f"<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'>"
        f"<mav xmlns='urn:xmpp:muc:affiliations:1'{attribute}/></x></presence>"
    )
    before: list[Element] = []
    while (element := client.read()).tag == f"{CLIENT}message":
        before.append(element)
    while "110" not in codes(element):
        element = client.read()
    version = element.find(f"{USER}x/{MAV}")
    assert version is not None
    return before, version.get("until") or ""


def affiliations(message: Element) -> dict[str | None, str | None]:
    return {e.get("jid"): e.get("affiliation") for e in message.iter(f"{USER}item")}


def leave(client: Client, room: str) -> None:
    nick = client.bare.partition("@")[0]
    client.send(f"<presence type='unavailable' to='{room}/{nick}'/>")
    client.presence("unavailable", f"{room}/{nick}")
    client.ping()
    client._waiting.clear()


def test_who_comes_in_again_is_told_what_has_changed_since(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room)
    admin(romeo, room, f"jid='{juliet.bare}' affiliation='member'")
    admin(romeo, room, "jid='friar@example.com' affiliation='admin'")
    (whole,), version = join_with_version(juliet, room)
    assert affiliations(whole) == {romeo.bare: "owner", juliet.bare: "member", "friar@example.com": "admin"}
    mav = whole.find(f"{USER}x/{MAV}")
    assert mav is not None
    assert (mav.get("since"), mav.get("until")) == (None, version)
    admin(romeo, room, "jid='nurse@example.com' affiliation='member'")
    told = juliet.expect(lambda e: e.tag == f"{CLIENT}message" and e.find(f"{USER}x/{MAV}") is not None)
    mav = told.find(f"{USER}x/{MAV}")
    assert mav is not None
    assert (mav.get("since"), affiliations(told)) == (version, {"nurse@example.com": "member"})
    newer = mav.get("until") or ""
    leave(juliet, room)
    assert join_with_version(juliet, room, newer) == ([], newer)
    leave(juliet, room)
    admin(romeo, room, "jid='friar@example.com' affiliation='none'")
    admin(romeo, room, "jid='tybalt@example.com' affiliation='outcast'")
    (since,), newest = join_with_version(juliet, room, version)
    assert affiliations(since) == {
        "nurse@example.com": "member", "friar@example.com": "none", "tybalt@example.com": "none",
    }  # fmt: skip
    assert newest != newer
    leave(juliet, room)
    (whole,), _ = join_with_version(juliet, room, "12345")
    assert affiliations(whole) == {
        romeo.bare: "owner", juliet.bare: "member", "nurse@example.com": "member", "tybalt@example.com": "none",
    }  # fmt: skip


def test_a_change_of_somebody_inside_says_between_which_versions_it_is(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    meet(pair, room)
    admin(romeo, room, f"jid='{juliet.bare}' affiliation='admin'")
    seen = juliet.expect(lambda e: e.tag == f"{CLIENT}presence" and item(e).get("affiliation") == "admin")
    mav = seen.find(f"{USER}x/{MAV}")
    assert mav is not None
    assert mav.get("since")
    assert mav.get("since") != mav.get("until")


def test_who_may_not_see_the_lists_is_told_so(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, getmemberlist="moderator")
    (refused,), _ = join_with_version(juliet, room)
    assert condition(refused) == "forbidden"
    admin(romeo, room, "jid='nurse@example.com' affiliation='member'")
    romeo.expect(lambda e: e.tag == f"{CLIENT}message" and affiliations(e) == {"nurse@example.com": "member"})
    juliet.ping()
    assert not [e for e in juliet._waiting if "nurse@example.com" in affiliations(e)]


# --- search (XEP-0433)


def found(client: Client, service: str, rsm: str = "", **fields: str) -> Element:
    form = filled_in("urn:xmpp:channel-search:0:search-params", **fields)
    return client.iq("get", f"<search xmlns='{SEARCH}'>{rsm}{form}</search>", service)


def test_rooms_are_found_by_name_description_and_address(
    cluster: RunningCluster, pair: tuple[Client, Client], room: str
) -> None:
    romeo, juliet = pair
    meet(pair, room, roomname="Orchard of Capulets", roomdesc="where 100% of lovers meet", membersonly="0")
    hidden = new_room(cluster)
    join(romeo, hidden, "romeo")
    submit(romeo, hidden, roomname="Orchard, hidden", publicroom="0")
    service = room.partition("@")[2]
    form = juliet.iq("get", f"<search xmlns='{SEARCH}'/>", service)
    assert {"q", "all", "sinname", "sindescription", "sinaddress", "types", "key"} <= values(form).keys()

    def addresses(**fields: str) -> list[str | None]:
        return [e.get("address") for e in found(juliet, service, **fields).iter(f"{{{SEARCH}}}item")]

    assert addresses(q="ORCHARD") == [room]
    assert addresses(q="100%") == [room]
    assert addresses(q="100%", sindescription="false") == []
    assert addresses(q=room.partition("@")[0] + "@") == [room]
    assert addresses(q="r_om") == []  # a pattern is none
    assert room in addresses(all="true")
    one = next(found(juliet, service, q="orchard").iter(f"{{{SEARCH}}}item"))
    texts = {e.tag.rpartition("}")[2]: e.text for e in one}
    assert texts == {
        "name": "Orchard of Capulets", "description": "where 100% of lovers meet", "nusers": "2", "is-open": "true",
        "service-type": "xep-0045", "anonymity-mode": "muc_semianonymous",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "expected", "application"),
    [
        ({}, "bad-request", "no-search-conditions"),
        ({"q": " "}, "bad-request", "invalid-search-terms"),
        ({"q": "x", "all": "true"}, "bad-request", "conflicting-fields"),
        ({"q": "x", "key": "size"}, "feature-not-implemented", "invalid-sort-key"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_name(
    pair: tuple[Client, Client], cluster: RunningCluster, fields: dict[str, str], expected: str, application: str
) -> None:
    answer = found(pair[0], f"conference.{cluster.domain}", **fields)
    assert condition(answer) == expected
    assert answer.find(f".//{{urn:xmpp:channel-search:0:error}}{application}") is not None


def test_a_search_goes_on_page_by_page(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, _ = pair
    service = f"conference.{cluster.domain}"
    names = [new_room(cluster) for _ in range(5)]
    for name in names:
        cluster.command("room", "create", name, "roomname=paged")
    for key in ("nusers", "address"):
        order = f"{{urn:xmpp:channel-search:0:order}}{key}"
        seen: list[str | None] = []
        after = ""
        for _ in range(4):
            rsm = f"<set xmlns='http://jabber.org/protocol/rsm'><max>2</max>{after}</set>"
            answer = found(romeo, service, rsm, q="paged", key=order)
            seen += [e.get("address") for e in answer.iter(f"{{{SEARCH}}}item")]
            last = answer.findtext(".//{http://jabber.org/protocol/rsm}last")
            after = f"<after>{last}</after>"
            if last is None:
                break
        assert sorted(filter(None, seen)) == sorted(names)


# --- who becomes a member (XEP-0045, 7.10 and 9.9)


def test_admins_decide_who_becomes_a_member(pair: tuple[Client, Client], room: str) -> None:
    romeo, juliet = pair
    join(romeo, room, "romeo")
    submit(romeo, room, membersonly="1")
    for client in pair:
        client.send("<presence/>")
    form = "http://jabber.org/protocol/muc#register"
    asked = juliet.iq(
        "set", f"<query xmlns='jabber:iq:register'>{filled_in(form, muc__register_roomnick='juliet')}</query>", room
    )
    assert asked.get("type") == "result"
    request = romeo.expect(lambda e: e.tag == f"{CLIENT}message" and "muc#register_allow" in values(e))
    assert request.get("from") == room
    told = values(request)
    assert (told["muc#jid"], told["muc#register_roomnick"]) == ([juliet.bare], ["juliet"])
    answer = {"muc__jid": juliet.bare, "muc__register_roomnick": "juliet", "muc__register_allow": "1"}
    juliet.send(f"<message to='{room}' id='forged'>{filled_in(form, **answer)}</message>")
    assert condition(juliet.expect(lambda e: e.get("id") == "forged")) == "forbidden"
    romeo.send(f"<message to='{room}'>{filled_in(form, **answer)}</message>")
    approved = juliet.expect(lambda e: e.get("from") == room and e.find(f"{USER}x/{USER}item") is not None)
    assert item(approved).get("affiliation") == "member"
    assert item(join(juliet, room, "juliet")).get("affiliation") == "member"


def test_the_lists_of_a_room_have_an_end(pair: tuple[Client, Client], room: str) -> None:
    """Whoever was anything once is remembered; a request beyond the limit changes nothing."""
    romeo, _ = pair
    join(romeo, room, "romeo")
    submit(romeo, room)
    items = "".join(f"<item jid='user{number}@example.com' affiliation='outcast'/>" for number in range(500))
    query = "<query xmlns='http://jabber.org/protocol/muc#admin'>{}</query>"
    for thousand in range(39):
        filled = romeo.iq("set", query.format(items.replace("user", f"user{thousand}-")), room)
        assert filled.get("type") == "result"
    romeo.ping()
    told = [e for e in romeo._waiting if e.tag == f"{CLIENT}message" and affiliations(e)]
    assert [len(affiliations(e)) for e in told] == [500] * 39, "one message for all that one request has changed"
    for more in (items, items.replace("user", "other")):
        answer = romeo.iq("set", query.format(more), room)
    assert condition(answer) == "resource-constraint"
    assert romeo.iq("get", query.format("<item affiliation='member'/>"), room).get("type") == "result"
