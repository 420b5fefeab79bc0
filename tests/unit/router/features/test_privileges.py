"""XEP-0356 at the user's side (router/features/privileges.py): each privilege, and who does not have it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.config import Component, Privileges
from router.entity import Session
from router.features.privileges import ANSWER_S, PENDING
from router.recipients import CARBONS
from storage import private, rosters, vcards
from storage.log import ARCHIVE, BY_OTHER, FROM_OWNER
from tests.support.turns import DOMAIN, PLAIN, World, error, parse, stored
from xmpp import forwarded, ns
from xmpp.stanza import encode

X = "slidge.example.com"
FRIEND = f"friend@{X}"
ROMEO, JULIET = f"romeo@{DOMAIN}", f"juliet@{DOMAIN}"
EVERYTHING: dict[str, Any] = {
    "roster": "both",
    "message": "outgoing",
    "presence": "managed_entity",
    "iq": {ns.PING: "get", ns.VCARD: "both", ns.PRIVATE: "both", ns.BLOCKING: "get", ns.VERSION: "get"},
}


class Scene(World):
    """Romeo at home, and a component with these privileges."""

    def __init__(self, privileges: dict[str, Any] | None = None, *, archive: bool = False) -> None:
        component = Component(secret="12345678", privileges=Privileges(**(privileges or {})))
        super().__init__(replace(PLAIN, components={X: component}, archive_default="always" if archive else "never"))
        self.romeo = self.account(ROMEO)
        self.home = self.online(self.romeo, "home")

    def from_x(self, xml: str, from_: str = X) -> list[str]:
        """A stanza from the component; returns what leaves."""
        self.away.clear()
        stanza = parse(xml)._replace(from_=from_)
        assert stanza.to is not None
        self.arrive(self.entities[stanza.to.partition("/")[0]], stanza)
        return self.left()

    def left(self) -> list[str]:
        """What has left since the last time, but for roster pushes."""
        left, self.away = self.away, []
        return [xml for xml in left if 'id="push-' not in xml]


def roster_set(*items: str, to: str = ROMEO) -> str:
    return f'<iq type="set" to="{to}" id="r"><query xmlns="{ns.ROSTER}">{"".join(items)}</query></iq>'


def item(jid: str = FRIEND, subscription: str | None = "both", name: str = "A friend") -> str:
    given = f' subscription="{subscription}"' if subscription else ""
    return f'<item jid="{jid}"{given} name="{name}"><group>Slidge</group></item>'


ROSTER_GET = f'<iq type="get" to="{ROMEO}" id="r"><query xmlns="{ns.ROSTER}"/></iq>'
DONE = f'<iq to="{X}" from="{ROMEO}" type="result" id="r"/>'


def ask_for_roster(scene: Scene, session: Session | None = None) -> None:
    """From now on the session gets pushes."""
    session = session or scene.home
    scene.say(session, f'<iq type="get" id="g"><query xmlns="{ns.ROSTER}"/></iq>')
    scene.heard(session)


# --- rosters


@pytest.mark.parametrize("granted", ["get", "both"])
def test_a_roster_is_read(granted: str) -> None:
    scene = Scene({"roster": granted})
    scene.contact(scene.romeo, JULIET, "both", name="Juliet")
    scene.contact(scene.romeo, "stranger@example.org", in_roster=False, pending_in=True)
    assert scene.from_x(ROSTER_GET) == [
        f'<iq to="{X}" from="{ROMEO}" type="result" id="r"><query xmlns="{ns.ROSTER}">'
        f'<item jid="{JULIET}" name="Juliet" subscription="both"/></query></iq>'
    ]


@pytest.mark.parametrize("granted", ["set", "both"])
@pytest.mark.parametrize("to", [ROMEO, f"{ROMEO}/home"])
def test_a_roster_is_written_without_asking_anybody(granted: str, to: str) -> None:
    scene = Scene({"roster": granted})
    ask_for_roster(scene)
    left = scene.from_x(roster_set(item(), to=to))
    assert DONE.replace(ROMEO, to) in left
    (push,) = scene.heard(scene.home)
    assert f'<item jid="{FRIEND}" name="A friend" subscription="both"><group>Slidge</group></item>' in push
    assert scene.romeo.roster.contacts[FRIEND].subscription == "both"
    assert not any('type="subscribe' in xml for xml in left)


@pytest.mark.parametrize(("granted", "type"), [("none", "get"), ("set", "get"), ("none", "set"), ("get", "set")])
def test_without_the_privilege_a_roster_is_its_owners_alone(granted: str, type: str) -> None:
    scene = Scene({"roster": granted})
    (answer,) = scene.from_x(ROSTER_GET if type == "get" else roster_set(item()))
    assert error("forbidden", "auth") in answer
    assert scene.romeo.roster.contacts == {}


@pytest.mark.parametrize("from_", [FRIEND, f"{X}/a", "remote.example", f"someone@{DOMAIN}", f"sub.{X}", DOMAIN])
def test_nobody_else_has_its_privileges(from_: str) -> None:
    scene = Scene(EVERYTHING)
    for xml in (ROSTER_GET, roster_set(item()), privileged()):
        (answer,) = scene.from_x(xml, from_)
        assert error("forbidden", "auth") in answer
        assert "<forwarded" not in answer
    assert scene.romeo.roster.contacts == {}
    assert scene.heard(scene.home) == []
    assert scene.from_x(wrapped(), from_) == [], "a message to him, whatever is in it"
    (message,) = scene.heard(scene.home)
    assert message.startswith(f'<message to="{ROMEO}" from="{from_}" id="w"><privilege ')


def test_what_is_not_granted_goes_to_the_session_that_it_names() -> None:
    scene = Scene({"roster": "none"})
    assert scene.from_x(roster_set(item(), to=f"{ROMEO}/home")) == []
    assert len(scene.heard(scene.home)) == 1


def test_many_items_at_once_are_one_change_of_the_database() -> None:
    scene = Scene(EVERYTHING)
    scene.contact(scene.romeo, JULIET, "both")
    ask_for_roster(scene)
    turn = scene.arrive(
        scene.romeo,
        parse(roster_set(item(), item(X, "from"), item(JULIET, "remove")))._replace(from_=X),
    )
    assert [(row.jid, row.subscription) for row in stored(turn)] == [(FRIEND, "both"), (X, "from")]
    assert rosters.remove in [write.statement for write in turn.writes]
    assert len([xml for xml in scene.heard(scene.home) if f'xmlns="{ns.ROSTER}"' in xml]) == 3
    assert DONE in scene.away


def test_a_bad_item_takes_the_others_with_it() -> None:
    scene = Scene(EVERYTHING)
    for bad, condition in (
        (item(JULIET, "maybe"), "bad-request"),
        (item("a@"), "bad-request"),
        (item(FRIEND), "bad-request"),
        (item(ROMEO), "not-allowed"),
        (item(JULIET, "remove"), "item-not-found"),
    ):
        (answer,) = scene.from_x(roster_set(item(), bad))
        assert f"<{condition} " in answer
        assert scene.romeo.roster.contacts == {}
    (answer,) = scene.from_x(roster_set())
    assert "<bad-request " in answer
    assert scene.written() == []


def test_a_roster_that_is_full_takes_all_or_nothing() -> None:
    scene = Scene(EVERYTHING)
    scene.settings = replace(scene.settings, roster_contacts=2)
    scene.contact(scene.romeo, JULIET)
    (answer,) = scene.from_x(roster_set(item(), item(X)))
    assert "<resource-constraint " in answer
    assert list(scene.romeo.roster.contacts) == [JULIET]
    assert DONE in scene.from_x(roster_set(item(), item(JULIET)))


def test_an_item_without_a_subscription_keeps_the_one_there_is() -> None:
    scene = Scene(EVERYTHING)
    scene.contact(scene.romeo, FRIEND, "to")
    scene.from_x(roster_set(item(subscription=None, name="New")))
    contact = scene.romeo.roster.contacts[FRIEND]
    assert (contact.subscription, contact.name) == ("to", "New")


def test_a_subscription_answers_the_requests_for_it() -> None:
    scene = Scene(EVERYTHING)
    contact = scene.contact(scene.romeo, FRIEND, ask=True, pending_in=True, pending_inner=b"<status>hi</status>")
    scene.from_x(roster_set(item()))
    assert (contact.ask, contact.pending_in, contact.pending_inner) == (False, False, b"")


def test_who_sees_the_user_from_now_on_is_told_and_who_does_not_any_more() -> None:
    scene = Scene(EVERYTHING)
    here = f'<presence to="{FRIEND}" from="{ROMEO}/home"/>'
    gone = f'<presence to="{FRIEND}" from="{ROMEO}/home" type="unavailable"/>'
    assert here in scene.from_x(roster_set(item()))
    assert scene.from_x(roster_set(item())) == [DONE], "nothing has changed"
    assert gone in scene.from_x(roster_set(item(subscription="to")))
    assert scene.from_x(roster_set(item(subscription="none"))) == [DONE]
    assert here in scene.from_x(roster_set(item(subscription="from")))
    assert gone in scene.from_x(roster_set(item(subscription="remove")))
    assert scene.romeo.roster.contacts == {}


def test_whoever_is_not_there_is_shown_to_nobody() -> None:
    scene = Scene(EVERYTHING)
    scene.home.presence = None
    assert scene.from_x(roster_set(item())) == [DONE]


@pytest.mark.parametrize(("granted", "is_told"), [("get", True), ("both", True), ("set", False), ("none", False)])
def test_changes_of_rosters_are_pushed_to_who_may_read_them(granted: str, is_told: bool) -> None:
    """4.4."""
    scene = Scene({"roster": granted})
    scene.say(scene.home, f'<iq type="set" id="1"><query xmlns="{ns.ROSTER}"><item jid="{JULIET}"/></query></iq>')
    pushes = [xml for xml in scene.away if f'<iq to="{X}" from="{ROMEO}" type="set"' in xml]
    assert len(pushes) == is_told
    assert all(f'<item jid="{JULIET}" subscription="none"/>' in push for push in pushes)


def test_the_answer_to_a_push_is_nobodys_business() -> None:
    scene = Scene(EVERYTHING)
    for type_ in ("result", "error"):
        assert scene.from_x(f'<iq type="{type_}" to="{ROMEO}" id="push-1"/>') == []
    assert scene.heard(scene.home) == []


# --- messages


def wrapped(from_: str = ROMEO, to: str = f' to="{FRIEND}"', inner: str = "<body>hi</body>", id: str = "i") -> str:
    message = f'<message xmlns="{ns.CLIENT}" from="{from_}"{to} type="chat" id="{id}">{inner}</message>'
    return (
        f'<message to="{ROMEO}" id="w"><privilege xmlns="{ns.PRIVILEGE}"><forwarded xmlns="{ns.FORWARD}">'
        f"{message}</forwarded></privilege></message>"
    )


SAID = f'<message to="{FRIEND}" from="{ROMEO}" type="chat" id="i"><body>hi</body></message>'


def test_a_message_in_the_users_name_is_kept_copied_and_sent() -> None:
    scene = Scene(EVERYTHING, archive=True)
    work = scene.online(scene.romeo, "work")
    scene.home.marks[CARBONS] = work.marks[CARBONS] = 0
    assert scene.from_x(wrapped()) == [SAID]
    (row,) = scene.log
    assert (row.class_, row.dir, row.forward, row.peer, row.stanza.id) == (ARCHIVE, FROM_OWNER, BY_OTHER, FRIEND, "i")
    for session in (scene.home, work):
        (copy,) = scene.heard(session)
        assert copy.startswith(f'<message to="{session.jid}" from="{ROMEO}" type="chat"><sent xmlns="{ns.CARBONS}">')
        assert f'by="{ROMEO}" id="{row.id}"' in copy, "its place in the archive"


def test_one_device_gets_a_copy_too() -> None:
    """What a client has sent, it knows of; this it does not."""
    scene = Scene(EVERYTHING)
    scene.home.marks[CARBONS] = 0
    scene.from_x(wrapped())
    assert len(scene.heard(scene.home)) == 1


def test_what_says_not_to_be_copied_is_not() -> None:
    scene = Scene(EVERYTHING, archive=True)
    scene.home.marks[CARBONS] = 0
    hints = f'<body>hi</body><no-copy xmlns="{ns.HINTS}"/><no-store xmlns="{ns.HINTS}"/>'
    (said,) = scene.from_x(wrapped(inner=hints))
    assert "hi" in said
    assert (scene.heard(scene.home), scene.log) == ([], [])


def test_a_message_without_to_is_for_the_user() -> None:
    """RFC 6120, 10.3.1."""
    scene = Scene(EVERYTHING)
    assert scene.from_x(wrapped(to="")) == []
    (note,) = scene.heard(scene.home)
    assert note == f'<message to="{ROMEO}" from="{ROMEO}" type="chat" id="i"><body>hi</body></message>'


@pytest.mark.parametrize("from_", [JULIET, f"{ROMEO}/home", "romeo@remote.example", X, ""])
def test_a_message_in_a_forged_name_is_forbidden(from_: str) -> None:
    scene = Scene(EVERYTHING, archive=True)
    scene.account(JULIET)
    (answer,) = scene.from_x(wrapped(from_) if from_ else wrapped().replace(f' from="{ROMEO}"', ""))
    assert answer.startswith(f'<message to="{X}" from="{ROMEO}" type="error" id="w">{error("forbidden", "auth")}')
    assert scene.log == []


@pytest.mark.parametrize("granted", [None, {"roster": "both", "presence": "managed_entity"}])
def test_without_the_privilege_nobody_speaks_for_a_user(granted: dict[str, Any] | None) -> None:
    scene = Scene(granted, archive=True)
    (answer,) = scene.from_x(wrapped())
    assert error("forbidden", "auth") in answer
    assert (scene.log, scene.heard(scene.home)) == ([], [])


@pytest.mark.parametrize(
    "bad",
    [
        wrapped().replace("</privilege>", "</privilege><a xmlns='urn:a'/>"),
        wrapped().replace("<forwarded", "<a xmlns='urn:a'/><forwarded"),
        wrapped().replace("</message></forwarded>", f"</message><message xmlns='{ns.CLIENT}'/></forwarded>"),
        wrapped().replace(ns.FORWARD, "urn:xmpp:forward:1"),
        wrapped().replace(f'xmlns="{ns.CLIENT}" from', 'xmlns="urn:other" from'),
        f'<message to="{ROMEO}" id="w"><privilege xmlns="{ns.PRIVILEGE}"/></message>',
    ],
)
def test_what_is_not_one_message_is_no_request(bad: str) -> None:
    scene = Scene(EVERYTHING)
    (answer,) = scene.from_x(bad)
    assert "<bad-request " in answer


def test_a_message_to_what_is_no_jid_is_malformed() -> None:
    (answer,) = Scene(EVERYTHING).from_x(wrapped(to=' to="a@"'))
    assert "<jid-malformed " in answer


def test_whom_the_user_has_blocked_gets_nothing_in_his_name() -> None:
    """The last section of the XEP: nothing that the user could not do himself. He does not hear of it."""
    scene = Scene(EVERYTHING, archive=True)
    scene.romeo.blocks.add(FRIEND)
    (answer,) = scene.from_x(wrapped())
    assert answer.startswith(f'<message to="{X}" from="{ROMEO}" type="error" id="w"><error type="cancel">')
    assert (scene.log, scene.heard(scene.home)) == ([], [])


def test_a_component_that_the_user_has_blocked_can_do_nothing_for_him() -> None:
    scene = Scene(EVERYTHING)
    scene.romeo.blocks.add(X)
    for xml in (wrapped(), ROSTER_GET, privileged()):
        (answer,) = scene.from_x(xml)
        assert "<service-unavailable " in answer


def test_nobody_speaks_for_whom_there_is_not() -> None:
    scene = Scene(EVERYTHING)
    scene.nobody(ROMEO)
    for xml in (wrapped(), privileged()):
        (answer,) = scene.from_x(xml)
        assert "<forbidden " in answer


# --- requests


def request(type: str = "get", to: str = "juliet@remote.example", from_: str = "", payload: str = "") -> str:
    named, addressed = f' from="{from_}"' if from_ else "", f' to="{to}"' if to else ""
    payload = payload or f'<ping xmlns="{ns.PING}"/>'
    return f'<iq xmlns="{ns.CLIENT}" type="{type}" id="inner"{addressed}{named}>{payload}</iq>'


def privileged(inner: str | None = None, type: str = "get", to: str = ROMEO, id: str = "outer") -> str:
    content = request() if inner is None else inner
    return f'<iq type="{type}" to="{to}" id="{id}"><privileged_iq xmlns="{ns.PRIVILEGE}">{content}</privileged_iq></iq>'


def answer_of(xml: str) -> tuple[str, str]:
    """The outer type, and the forwarded answer."""
    outer = parse(xml)
    assert (outer.to, outer.from_, outer.id) == (X, ROMEO, "outer")
    (node,) = outer.children()[0][0]
    inner = forwarded.read(node)
    assert inner.id == "inner"
    return outer.type or "", encode(inner).decode()


def test_a_request_is_sent_as_the_user_and_its_answer_given_back() -> None:
    scene = Scene(EVERYTHING)
    (sent,) = scene.from_x(privileged())
    asked = parse(sent)
    assert (asked.from_, asked.to, asked.type) == (ROMEO, "juliet@remote.example", "get")
    assert asked.id not in ("inner", "outer"), "two components may use the same"
    assert asked.inner == f'<ping xmlns="{ns.PING}"/>'.encode()
    pong = f'<iq type="result" to="{ROMEO}" id="{asked.id}"><pong xmlns="urn:x"/></iq>'
    (answer,) = scene.from_x(pong, "juliet@remote.example")
    assert answer_of(answer) == (
        "result",
        f'<iq to="{ROMEO}" from="juliet@remote.example" type="result" id="inner"><pong xmlns="urn:x"/></iq>',
    )
    assert scene.from_x(pong, "juliet@remote.example") == [], "once"
    scene.wait(ANSWER_S)
    assert scene.left() == []
    assert scene.heard(scene.home) == []


def test_an_error_is_one_outside_too() -> None:
    scene = Scene(EVERYTHING)
    (sent,) = scene.from_x(privileged())
    fault = f'<iq type="error" to="{ROMEO}" id="{parse(sent).id}">{error("item-not-found", "cancel")}</error></iq>'
    (answer,) = scene.from_x(fault, "juliet@remote.example")
    assert answer_of(answer)[0] == "error"
    assert answer.count(error("item-not-found", "cancel")) == 2


def test_an_answer_from_somebody_else_is_none() -> None:
    scene = Scene(EVERYTHING)
    (sent,) = scene.from_x(privileged())
    forged = f'<iq type="result" to="{ROMEO}" id="{parse(sent).id}"/>'
    assert scene.from_x(forged, "mallory@remote.example") == []
    assert len(scene.from_x(forged, "juliet@remote.example")) == 1


def test_a_request_that_nobody_answers_ends() -> None:
    scene = Scene(EVERYTHING)
    scene.from_x(privileged())
    scene.wait(ANSWER_S - 1)
    assert scene.left() == []
    scene.wait(2)
    (answer,) = scene.left()
    type_, inner = answer_of(answer)
    assert type_ == "error"
    assert error("remote-server-timeout", "wait") in inner


def test_requests_that_are_not_answered_are_bounded() -> None:
    scene = Scene(EVERYTHING)
    for _ in range(PENDING):
        assert "<ping" in scene.from_x(privileged())[0]
    (answer,) = scene.from_x(privileged())
    assert error("resource-constraint", "wait") in answer
    scene.wait(ANSWER_S + 1)
    assert len(scene.left()) == PENDING
    assert "<ping" in scene.from_x(privileged())[0]


@pytest.mark.parametrize("from_", ["", ROMEO])
def test_the_account_is_asked_for_its_own(from_: str) -> None:
    scene = Scene(EVERYTHING)
    scene.database[vcards.get] = lambda key: b'<vCard xmlns="vcard-temp"><FN>Romeo</FN></vCard>'
    for to in ("", ROMEO):
        (answer,) = scene.from_x(privileged(request(to=to, from_=from_, payload='<vCard xmlns="vcard-temp"/>')))
        type_, inner = answer_of(answer)
        assert type_ == "result"
        assert "<FN>Romeo</FN>" in inner


def test_the_account_is_changed() -> None:
    scene = Scene(EVERYTHING)
    card = '<vCard xmlns="vcard-temp"><FN>Romeo</FN></vCard>'
    (answer,) = scene.from_x(privileged(request("set", ROMEO, payload=card), "set"))
    assert answer_of(answer)[0] == "result"
    assert scene.written() == [vcards.put]


def test_what_the_account_refuses_is_an_error_outside_too() -> None:
    scene = Scene(EVERYTHING)
    scene.settings = replace(scene.settings, vcard_bytes=10)
    card = '<vCard xmlns="vcard-temp"><FN>Romeo</FN></vCard>'
    (answer,) = scene.from_x(privileged(request("set", ROMEO, payload=card), "set"))
    assert answer_of(answer)[0] == "error"
    assert "<not-acceptable " in answer
    (answer,) = scene.from_x(privileged(request("get", payload=f'<query xmlns="{ns.PRIVATE}"/>', to=ROMEO)))
    assert "<bad-request " in answer_of(answer)[1]


def test_what_the_account_finds_out_later_is_the_answer_to_the_request() -> None:
    """A failure behind a read of the database concerns the request, not what it came in."""
    scene = Scene(EVERYTHING)
    scene.settings = replace(scene.settings, private_bytes=100)
    scene.database[private.total_size] = lambda key, without: 99
    note = f'<query xmlns="{ns.PRIVATE}"><note xmlns="urn:x"/></query>'
    (answer,) = scene.from_x(privileged(request("set", ROMEO, payload=note), "set"))
    assert answer_of(answer)[0] == "error"
    assert "<resource-constraint " in answer


def test_what_needs_a_session_cannot_be_asked_without_one() -> None:
    scene = Scene(EVERYTHING)
    (answer,) = scene.from_x(privileged(request(to=ROMEO, payload=f'<blocklist xmlns="{ns.BLOCKING}"/>')))
    type_, inner = answer_of(answer)
    assert type_ == "error"
    assert error("service-unavailable", "cancel") in inner


def test_the_domain_is_asked() -> None:
    scene = Scene(EVERYTHING)
    (answer,) = scene.from_x(privileged(request(to=DOMAIN, payload=f'<query xmlns="{ns.VERSION}"/>')))
    type_, inner = answer_of(answer)
    assert type_ == "result"
    assert "<name>Stentor</name>" in inner


def test_another_user_is_asked() -> None:
    scene = Scene(EVERYTHING)
    scene.database[vcards.get] = lambda key: b'<vCard xmlns="vcard-temp"/>'
    scene.account(JULIET)
    (answer,) = scene.from_x(privileged(request(to=JULIET, payload='<vCard xmlns="vcard-temp"/>')))
    type_, inner = answer_of(answer)
    assert type_ == "result"
    assert inner.startswith(f'<iq to="{ROMEO}" from="{JULIET}" ')


@pytest.mark.parametrize(
    "xml",
    [
        privileged(request("set"), "set"),  # granted for "get"
        privileged(request("set"), "get"),  # two types
        privileged(request("get"), "set"),
        privileged(request(payload="<query xmlns='jabber:iq:time'/>")),
        privileged(request(from_=JULIET)),
        privileged(request(from_=f"{ROMEO}/home")),
        privileged(to=f"{ROMEO}/home"),
        privileged(request().replace(ns.CLIENT, "jabber:server")),
    ],
)
def test_what_the_xep_forbids(xml: str) -> None:
    scene = Scene(EVERYTHING)
    (answer,) = scene.from_x(xml)
    assert error("forbidden", "auth") in answer
    assert "<forwarded" not in answer
    assert scene.heard(scene.home) == []


@pytest.mark.parametrize(
    "inner",
    ["", request() + request(), request().replace(' id="inner"', ""), request().replace("/></iq>", "/><a/></iq>")],
)
def test_what_is_not_one_request_is_bad(inner: str) -> None:
    (answer,) = Scene(EVERYTHING).from_x(privileged(inner))
    assert "<bad-request " in answer


def test_without_the_privilege_nothing_is_asked() -> None:
    (answer,) = Scene({"roster": "both"}).from_x(privileged())
    assert error("forbidden", "auth") in answer


def test_among_clients_it_is_a_request_like_any_other() -> None:
    scene = Scene(EVERYTHING)
    scene.from_x(privileged(to=f"{ROMEO}/home"), f"{JULIET}/balcony")
    assert len(scene.heard(scene.home)) == 1


# --- presence


def test_a_component_is_shown_who_comes_and_goes() -> None:
    """6.1: initial presence and the end of it, nothing else."""
    scene = Scene(EVERYTHING)
    work = scene.bind(scene.romeo, "work")
    scene.say(work, "<presence><show>chat</show></presence>")
    assert scene.left() == [f'<presence to="{X}" from="{work.jid}"><show>chat</show></presence>']
    scene.say(work, "<presence><show>away</show></presence>")
    assert scene.left() == []
    scene.say(work, '<presence type="unavailable"><status>bye</status></presence>')
    assert scene.left() == [f'<presence to="{X}" from="{work.jid}" type="unavailable"><status>bye</status></presence>']
    scene.say(work, "<presence/>")
    scene.left()
    scene.end(work)
    assert scene.left() == [f'<presence to="{X}" from="{work.jid}" type="unavailable"/>']


def test_without_the_privilege_it_is_not() -> None:
    scene = Scene({"roster": "both"})
    scene.say(scene.bind(scene.romeo, "work"), "<presence/>")
    assert scene.left() == []


def test_who_sees_the_user_anyway_is_told_once() -> None:
    scene = Scene(EVERYTHING)
    scene.contact(scene.romeo, X, "both")
    work = scene.bind(scene.romeo, "work")
    scene.say(work, "<presence/>")
    assert [xml for xml in scene.left() if "probe" not in xml] == [f'<presence to="{X}" from="{work.jid}"/>']


def test_a_blocked_component_is_shown_nothing() -> None:
    scene = Scene(EVERYTHING)
    scene.romeo.blocks.add(X)
    scene.say(scene.bind(scene.romeo, "work"), "<presence/>")
    assert scene.left() == []


def test_what_it_has_against_presence_is_not_the_users_business() -> None:
    refusal = f'<presence type="error" to="{ROMEO}/home">{error("registration-required", "auth")}</error></presence>'
    scene = Scene(EVERYTHING)
    scene.from_x(refusal)
    assert scene.heard(scene.home) == []
    scene.say(scene.home, f'<presence to="{X}"/>')
    scene.from_x(refusal)
    assert len(scene.heard(scene.home)) == 1, "this time he had asked"
    other = Scene({"roster": "both"})
    other.from_x(refusal)
    assert len(other.heard(other.home)) == 1
