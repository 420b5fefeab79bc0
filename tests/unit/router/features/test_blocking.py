"""Blocking (XEP-0191): the list and its pushes, the screen in both directions, and what contacts see of it."""

from __future__ import annotations

import re

import pytest

from router.blocking_rules import is_blocked
from router.contacts import Subscription
from router.entity import Session
from router.features import blocking as blocking_feature
from router.settings import Settings
from storage import blocks
from tests.support.turns import DOMAIN, World, error
from xmpp import ns

JULIET, ROMEO, IAGO = "juliet@example.com", "romeo@example.com", "iago@example.net"
GET = f'<iq type="get" id="g"><blocklist xmlns="{ns.BLOCKING}"/></iq>'
UNAVAILABLE = error("service-unavailable", "cancel")
BLOCKED = f'{error("not-acceptable", "cancel")}<text xmlns="{ns.STANZAS}"'


def items(*jids: str) -> str:
    return "".join(f'<item jid="{jid}"/>' for jid in jids)


def command(name: str, inner: str) -> str:
    return f'<iq type="set" id="s"><{name} xmlns="{ns.BLOCKING}">{inner}</{name}></iq>'


class Scene:
    """Juliet, who blocks, with two sessions that have asked for the list and one that has not; and Romeo."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.account = self.world.account(JULIET)
        self.balcony = self.world.online(self.account, "balcony", 1)
        self.chamber = self.world.bind(self.account, "chamber")
        self.silent = self.world.bind(self.account, "silent")
        self.romeo = self.world.online(self.world.account(ROMEO), "orchard")
        for session in (self.balcony, self.chamber):
            self.world.say(session, GET)
            self.world.heard(session)

    def ask(self, xml: str) -> list[str]:
        """What Juliet's balcony hears after it has sent this."""
        self.world.say(self.balcony, xml)
        return self.world.heard(self.balcony)

    def block(self, *jids: str) -> list[str]:
        return self.ask(command("block", items(*jids)))

    def unblock(self, *jids: str) -> list[str]:
        return self.ask(command("unblock", items(*jids)))

    def listed(self) -> list[str]:
        (answer,) = self.ask(GET)
        return re.findall(r'jid="([^"]*)"', answer)

    def seen(self, session: Session) -> list[str]:
        """Juliet's presence as the session hears it: what for, and which type."""
        found = [
            re.match(r'<presence to="([^"]*)" from="([^"]*)"( type="unavailable")?', h) for h in self.heard(session)
        ]
        return [f"{m[2]} {'unavailable' if m[3] else 'available'}" for m in found if m is not None]

    def heard(self, session: Session) -> list[str]:
        return self.world.heard(session)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def pushed(session: Session, name: str, inner: str) -> str:
    """A pattern for a push: its id is the server's."""
    payload = f'<{name} xmlns="{ns.BLOCKING}">{inner}</{name}>' if inner else f'<{name} xmlns="{ns.BLOCKING}"/>'
    return f'<iq to="{session.jid}" type="set" id="[^"]+">{payload}</iq>'


def result(session: Session) -> str:
    return f'<iq to="{session.jid}" type="result" id="s"/>'


# --- the list (3.2)


def test_an_empty_list(scene: Scene) -> None:
    empty = f'<blocklist xmlns="{ns.BLOCKING}"/>'
    assert scene.ask(GET) == [f'<iq to="{scene.balcony.jid}" type="result" id="g">{empty}</iq>']


def test_all_that_are_blocked(scene: Scene) -> None:
    scene.account.blocks.update((ROMEO, "iago@example.net/x&y", "example.org"))
    listed = items("example.org", "iago@example.net/x&amp;y", ROMEO)
    (answer,) = scene.ask(GET.replace("<iq", f'<iq to="{JULIET}"'))
    assert answer == (
        f'<iq to="{scene.balcony.jid}" from="{JULIET}" type="result" id="g">'
        f'<blocklist xmlns="{ns.BLOCKING}">{listed}</blocklist></iq>'
    )


def test_asking_makes_a_session_interested_once(scene: Scene) -> None:
    assert scene.world.say(scene.silent, GET).touched == (scene.silent,), "its c2s keeps that for the next owner"
    assert scene.world.say(scene.silent, GET).touched == ()


@pytest.mark.parametrize("xml", [GET, command("block", items(IAGO)), command("unblock", "")])
def test_a_list_is_its_owners_alone(scene: Scene, xml: str) -> None:
    scene.account.blocks.add(IAGO)
    scene.world.say(scene.romeo, xml.replace("<iq", f'<iq to="{JULIET}"'))
    (answer,) = scene.heard(scene.romeo)
    assert UNAVAILABLE in answer
    assert scene.account.blocks == {IAGO}


def test_what_the_database_knows_becomes_the_list(scene: Scene) -> None:
    ((_, assign),) = blocking_feature.feature.loaders
    assign(scene.account, {IAGO})
    assert scene.listed() == [IAGO]


# --- blocking (3.3) and unblocking (3.4, 3.5)


def test_blocking_stores_answers_and_pushes_to_who_asked_for_the_list(scene: Scene) -> None:
    answer, push = scene.block("Iago@Example.net", "EXAMPLE.ORG/x")
    jids = items(IAGO, "example.org/x")
    assert answer == result(scene.balcony)
    assert re.fullmatch(pushed(scene.balcony, "block", jids), push)
    (push,) = scene.heard(scene.chamber)
    assert re.fullmatch(pushed(scene.chamber, "block", jids), push)
    assert scene.heard(scene.silent) == []
    (write,) = scene.world.writes
    assert (write.statement, write.arguments) == (blocks.add, (scene.account.key, [IAGO, "example.org/x"]))
    assert scene.listed() == ["example.org/x", IAGO]


def test_a_session_that_is_not_interested_gets_the_result_alone(scene: Scene) -> None:
    scene.world.say(scene.silent, command("block", items(IAGO)))
    assert scene.heard(scene.silent) == [result(scene.silent)]
    assert len(scene.heard(scene.chamber)) == 1


def test_blocking_twice_is_no_error_and_no_change(scene: Scene) -> None:
    scene.block(IAGO, IAGO)
    assert [write.arguments[1] for write in scene.world.writes] == [[IAGO]]
    scene.world.writes.clear()
    assert scene.block(IAGO)[0] == result(scene.balcony)
    assert scene.world.writes == []
    assert scene.listed() == [IAGO]


def test_unblocking_some(scene: Scene) -> None:
    scene.block(IAGO, ROMEO, "example.org")
    scene.heard(scene.chamber)
    scene.world.writes.clear()
    answer, push = scene.unblock("IAGO@example.net", "stranger@example.org")
    jids = items(IAGO, "stranger@example.org")
    assert answer == result(scene.balcony)
    assert re.fullmatch(pushed(scene.balcony, "unblock", jids), push)
    (push,) = scene.heard(scene.chamber)
    assert re.fullmatch(pushed(scene.chamber, "unblock", jids), push)
    (write,) = scene.world.writes
    assert (write.statement, write.arguments) == (
        blocks.remove,
        (scene.account.key, [IAGO, "stranger@example.org"]),
    )
    assert scene.listed() == ["example.org", ROMEO]


def test_unblocking_all(scene: Scene) -> None:
    scene.block(IAGO, ROMEO)
    scene.heard(scene.chamber)
    scene.world.writes.clear()
    answer, push = scene.unblock()
    assert answer == result(scene.balcony)
    assert re.fullmatch(pushed(scene.balcony, "unblock", ""), push)
    assert len(scene.heard(scene.chamber)) == 1
    assert scene.heard(scene.silent) == []
    assert [(write.statement, write.arguments) for write in scene.world.writes] == [
        (blocks.clear, (scene.account.key,))
    ]
    assert scene.listed() == []


MALFORMED = error("jid-malformed", "modify")
BAD_REQUEST = error("bad-request", "modify")


@pytest.mark.parametrize(
    ("name", "inner", "condition"),
    [
        ("block", "", BAD_REQUEST),
        ("block", "<x/>", BAD_REQUEST),
        ("block", f'<item xmlns="urn:x" jid="{IAGO}"/>', BAD_REQUEST),
        ("block", f"{items(IAGO)}<item/>", BAD_REQUEST),
        ("block", items(IAGO, ""), MALFORMED),
        ("block", items(IAGO, "@example.net"), MALFORMED),
        ("block", items("iago@example.net/"), MALFORMED),
        ("block", items("ia go@example.net"), MALFORMED),
        ("block", items(f"{'i' * 1024}@example.net"), MALFORMED),
        ("unblock", "<item/>", BAD_REQUEST),
        ("unblock", "<x/>", BAD_REQUEST),  # not the same as nothing, which unblocks everybody
        ("unblock", items(ROMEO, "a@b@c"), MALFORMED),
    ],
)
def test_wrong_commands_change_nothing(scene: Scene, name: str, inner: str, condition: str) -> None:
    scene.account.blocks.add(ROMEO)
    (answer,) = scene.ask(command(name, inner))
    assert answer.startswith(f'<iq to="{scene.balcony.jid}" type="error" id="s">')
    assert condition in answer
    assert scene.account.blocks == {ROMEO}
    assert scene.world.writes == []
    assert scene.heard(scene.chamber) == []


def test_the_list_may_be_full() -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), blocks=2))
    scene.block("a@example.net")
    (answer,) = scene.block("b@example.net", "c@example.net")
    assert error("resource-constraint", "wait") in answer
    assert scene.listed() == ["a@example.net"]
    assert scene.block("b@example.net", "a@example.net")[0] == result(scene.balcony), "one of them is known"
    scene.unblock("a@example.net")
    assert scene.block("c@example.net")[0] == result(scene.balcony)
    assert scene.listed() == ["b@example.net", "c@example.net"]


# --- whom an item means (JID matching, section 6 of the XEP)


@pytest.mark.parametrize(
    ("item", "matched", "not_matched"),
    [
        ("u@d.org/r", ["u@d.org/r"], ["u@d.org", "u@d.org/s", "u@d.org/r/x", "v@d.org/r", "d.org/r"]),
        ("u@d.org", ["u@d.org", "u@d.org/r", "u@d.org/s/t"], ["v@d.org", "d.org", "u@e.org", "u@x.d.org"]),
        ("d.org/r", ["d.org/r", "u@d.org/r"], ["d.org", "d.org/s", "u@d.org", "u@d.org/s"]),
        ("d.org", ["d.org", "d.org/r", "u@d.org", "u@d.org/r"], ["x.d.org", "u@x.d.org", "u@dd.org", "org"]),
    ],
)
def test_matching(scene: Scene, item: str, matched: list[str], not_matched: list[str]) -> None:
    scene.account.blocks.add(item)
    assert [jid for jid in [*matched, *not_matched] if is_blocked(scene.account, jid)] == matched


def test_the_own_resources_are_never_blocked(scene: Scene) -> None:
    """Section 5, note: "MUST NOT block communications from one of a user's resources to another"."""
    scene.block(JULIET, scene.chamber.jid, "example.com")
    scene.heard(scene.chamber)
    message = f'<message to="{scene.chamber.jid}" type="chat"><body>note</body></message>'
    assert scene.ask(message) == []
    assert scene.heard(scene.chamber) == [message.replace(" type", f' from="{scene.balcony.jid}" type')]


# --- what the account sends (3.3)


@pytest.mark.parametrize(
    "xml",
    [
        '<message to="{to}" id="1"><body>Can you hear me now?</body></message>',
        '<message to="{to}" id="1" type="groupchat"/>',
        '<iq to="{to}" id="1" type="get"><q xmlns="urn:x"/></iq>',
        '<iq to="{to}" id="1" type="set"><q xmlns="urn:x"/></iq>',
        '<presence to="{to}" id="1"/>',
        '<presence to="{to}" id="1" type="unavailable"/>',
        '<presence to="{to}" id="1" type="probe"/>',
        '<presence to="{to}" id="1" type="subscribe"/>',
        '<presence to="{to}" id="1" type="unsubscribed"/>',
    ],
)
@pytest.mark.parametrize("to", [ROMEO, f"{ROMEO}/orchard"])
def test_nothing_goes_to_whom_one_has_blocked(scene: Scene, xml: str, to: str) -> None:
    """Not-acceptable with <blocked/>, from the address that was written to (example 8)."""
    scene.account.blocks.add(ROMEO)
    (answer,) = scene.ask(xml.format(to=to))
    kind = xml[1:].partition(" ")[0]
    assert answer.startswith(f'<{kind} to="{scene.balcony.jid}" from="{to}" type="error" id="1">{BLOCKED}')
    assert answer.endswith(f'<blocked xmlns="{ns.BLOCKING_ERRORS}"/></error></{kind}>')
    assert scene.heard(scene.romeo) == []
    assert scene.world.writes == []


@pytest.mark.parametrize("xml", ['<iq to="{to}" id="1" type="result"/>', '<message to="{to}" type="error"/>'])
def test_answers_to_whom_one_has_blocked_are_dropped(scene: Scene, xml: str) -> None:
    """RFC 6120, 8.3.1: an error for an error, or for a result, is not sent."""
    scene.account.blocks.add(ROMEO)
    assert scene.ask(xml.format(to=scene.romeo.jid)) == []
    assert scene.heard(scene.romeo) == []


def test_all_goes_out_again_after_unblocking(scene: Scene) -> None:
    scene.block(ROMEO)
    scene.unblock(ROMEO)
    assert scene.ask(f'<message to="{ROMEO}"><body>hi</body></message>') == []
    assert len(scene.heard(scene.romeo)) == 1


def test_where_one_resource_is_blocked_others_may_be_written_to(scene: Scene) -> None:
    street = scene.world.online(scene.romeo.entity, "street")
    scene.account.blocks.add(scene.romeo.jid)
    assert scene.ask(f'<message to="{street.jid}"/>') == []
    assert len(scene.heard(street)) == 1
    (answer,) = scene.ask(f'<message to="{scene.romeo.jid}"/>')
    assert BLOCKED in answer


# --- what comes in (3.3)


def write(scene: Scene, xml: str) -> list[str]:
    """Romeo sends it; what he hears."""
    scene.world.say(scene.romeo, xml)
    return scene.heard(scene.romeo)


@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/balcony", f"{JULIET}/nowhere"])
@pytest.mark.parametrize("type", [None, "normal", "chat", "headline", "error", "groupchat", "carrier-pigeon"])
def test_a_message_looks_as_if_nobody_were_there(scene: Scene, to: str, type: str | None) -> None:
    """3.3: "the user will appear offline to the blocked JID"; but a room would tell all its occupants of an error, and
    nothing of somebody who is blocked is kept for later."""
    xml = f'<message to="{to}" id="1"{f" type=^{type}^" if type else ""}><body>hi</body></message>'.replace("^", '"')
    scene.account.blocks.add(ROMEO)
    blocked = write(scene, xml)
    assert scene.heard(scene.balcony) == []
    if type in ("headline", "error", "groupchat"):
        assert blocked == []
    else:
        (answer,) = blocked
        assert UNAVAILABLE in answer
    assert scene.world.log == []
    if type != "groupchat":
        scene.account.blocks.clear()
        scene.account.sessions.clear()
        scene.account.key = None
        assert write(scene, xml) == blocked, "as at an address that nobody has"


@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/balcony", f"{JULIET}/nowhere"])
@pytest.mark.parametrize("type", ["get", "set"])
def test_a_request_is_service_unavailable(scene: Scene, to: str, type: str) -> None:
    """3.3: also of what the server would answer itself, and for contacts."""
    scene.world.friends(scene.account, scene.romeo.entity)
    scene.account.blocks.add(ROMEO)
    for payload in (f'<ping xmlns="{ns.PING}"/>', f'<query xmlns="{ns.LAST}"/>', '<q xmlns="urn:x"/>'):
        (answer,) = write(scene, f'<iq to="{to}" id="1" type="{type}">{payload}</iq>')
        assert answer.startswith(f'<iq to="{scene.romeo.jid}" from="{to}" type="error" id="1">{UNAVAILABLE}')
    assert scene.heard(scene.balcony) == []


@pytest.mark.parametrize("type", ["result", "error"])
def test_answers_are_dropped(scene: Scene, type: str) -> None:
    scene.account.blocks.add(ROMEO)
    assert write(scene, f'<iq to="{scene.balcony.jid}" id="1" type="{type}"/>') == []
    assert scene.heard(scene.balcony) == []


@pytest.mark.parametrize(
    "type", ["", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error"]
)
@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/balcony"])
def test_presence_is_dropped_and_not_answered(scene: Scene, type: str, to: str) -> None:
    """3.3: "including notifications, subscriptions, and probes": "MUST NOT respond and MUST NOT return an error"."""
    scene.world.contact(scene.account, ROMEO, "both")
    scene.account.blocks.add(ROMEO)
    xml = f'<presence to="{to}" from="{ROMEO}/orchard"{f" type=^{type}^" if type else ""}/>'.replace("^", '"')
    scene.world.arrive(scene.account, xml)
    assert scene.heard(scene.balcony) == []
    assert scene.heard(scene.romeo) == []
    assert scene.world.writes == []
    assert scene.account.roster.contacts[ROMEO].subscription == "both"


def test_all_comes_in_again_after_unblocking(scene: Scene) -> None:
    scene.block(ROMEO)
    scene.unblock()
    assert write(scene, f'<message to="{JULIET}"><body>hi</body></message>') == []
    assert len(scene.heard(scene.balcony)) == 1


def test_a_block_outlives_the_session_that_made_it(scene: Scene) -> None:
    scene.block(ROMEO)
    scene.world.end(scene.balcony)
    attic = scene.world.online(scene.account, "attic")
    (answer,) = write(scene, f'<message to="{JULIET}"><body>hi</body></message>')
    assert UNAVAILABLE in answer
    assert scene.heard(attic) == []


# --- what contacts see of it (3.3, 3.4)


@pytest.mark.parametrize(("subscription", "may_see"), [("none", False), ("to", False), ("from", True), ("both", True)])
@pytest.mark.parametrize("item", [ROMEO, f"{ROMEO}/orchard", "example.com"])
def test_subscribers_see_us_go_and_come_back(
    scene: Scene, subscription: Subscription, may_see: bool, item: str
) -> None:
    """3.3: "unavailable presence information"; 3.4: "the user's current presence information"; "only if the JID is
    allowed to receive presence notifications"."""
    scene.world.contact(scene.account, ROMEO, subscription)
    attic = scene.world.online(scene.account, "attic")
    scene.block(item)
    both = [scene.balcony.jid, attic.jid]
    assert scene.seen(scene.romeo) == ([f"{jid} unavailable" for jid in both] if may_see else [])
    scene.unblock(item)
    assert scene.seen(scene.romeo) == ([f"{jid} available" for jid in both] if may_see else [])
    scene.block(item)
    scene.heard(scene.romeo)
    scene.unblock()
    assert scene.seen(scene.romeo) == ([f"{jid} available" for jid in both] if may_see else [])


def test_the_presence_that_comes_back_is_the_whole_current_one(scene: Scene) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    scene.block(ROMEO)
    scene.ask('<presence id="p"><show>dnd</show></presence>')
    scene.heard(scene.romeo)
    scene.unblock(ROMEO)
    assert scene.heard(scene.romeo) == [
        f'<presence to="{ROMEO}" from="{scene.balcony.jid}" id="p"><show>dnd</show></presence>'
    ]


def test_nothing_is_shown_while_offline(scene: Scene) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    scene.world.end(scene.balcony)
    scene.heard(scene.romeo)
    for xml in (command("block", items(ROMEO)), command("unblock", "")):
        scene.world.say(scene.chamber, xml)
        assert scene.heard(scene.romeo) == []


def test_who_is_blocked_twice_goes_once_and_comes_back_with_the_last(scene: Scene) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    scene.block(ROMEO)
    scene.heard(scene.romeo)
    scene.block("example.com", scene.romeo.jid)
    scene.unblock(ROMEO, scene.romeo.jid)
    assert scene.heard(scene.romeo) == [], "the domain is still blocked"
    scene.unblock("example.com")
    assert scene.seen(scene.romeo) == [f"{scene.balcony.jid} available"]


def test_a_contact_and_its_resource_at_once(scene: Scene) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    scene.block(ROMEO, scene.romeo.jid)
    assert scene.seen(scene.romeo) == [f"{scene.balcony.jid} unavailable"]
    scene.unblock(ROMEO, scene.romeo.jid)
    assert scene.seen(scene.romeo) == [f"{scene.balcony.jid} available"]


def test_a_resource_that_is_blocked_in_another_way_too_stays_so(scene: Scene) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    scene.block(scene.romeo.jid, "example.com/orchard")
    scene.heard(scene.romeo)
    scene.unblock(scene.romeo.jid)
    assert scene.heard(scene.romeo) == []


def test_unblocking_whom_one_has_not_blocked_shows_nothing(scene: Scene) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    scene.unblock(ROMEO, scene.romeo.jid)
    scene.unblock()
    assert scene.heard(scene.romeo) == []


def test_subscriptions_stay(scene: Scene) -> None:
    """Section 4: "polite blocking"."""
    scene.world.friends(scene.account, scene.romeo.entity)
    scene.block(ROMEO)
    assert scene.account.roster.contacts[ROMEO].subscription == "both"
    assert scene.romeo.entity.roster.contacts[JULIET].subscription == "both"
    assert scene.world.written() == [blocks.add]


def test_whoever_got_directed_presence_sees_it_end(scene: Scene) -> None:
    """They were "allowed to receive presence", too; and hear nothing more when the session ends."""
    scene.ask(f'<presence to="{scene.romeo.jid}"/>')
    scene.world.say(scene.chamber, f'<presence to="{ROMEO}"/>')
    scene.heard(scene.romeo)
    turn = scene.world.say(scene.balcony, command("block", items(ROMEO)))
    assert turn.touched == (scene.balcony, scene.chamber)
    assert scene.seen(scene.romeo) == [f"{scene.balcony.jid} unavailable", f"{scene.chamber.jid} unavailable"]
    scene.unblock()
    scene.world.end(scene.balcony)
    scene.world.end(scene.chamber)
    assert scene.heard(scene.romeo) == []
