"""Message Carbons, section by section of XEP-0280 1.0.1 (router/features/carbons.py; which messages are copied, and as
what, is in test_recipients.py)."""

from __future__ import annotations

import re

import pytest

from router.entity import Session
from router.features import carbons
from router.features.carbons import REMEMBERED
from router.recipients import CARBONS
from router.settings import Settings
from tests.support.turns import World, error
from xmpp import ns
from xmpp.stanza import HAS_ERROR, message

JULIET, ROMEO = "juliet@capulet.example", "romeo@montague.example"
DOMAINS = frozenset({"capulet.example", "montague.example"})
SETTINGS = Settings(domains=DOMAINS, archive_default="never")
BODY = "<body>What man art thou</body>"


def iq(name: str, to: str | None = None, type: str = "set") -> str:
    address = f' to="{to}"' if to else ""
    return f'<iq{address} type="{type}" id="c"><{name} xmlns="{ns.CARBONS}"/></iq>'


def copy(direction: str, of: str, session: Session, type: str = "chat") -> str:
    """A copy as the session gets it; `of` is the message with its namespace."""
    written = f' type="{type}"' if type else ""
    return (
        f'<message to="{session.jid}" from="{session.bare}"{written}><{direction} xmlns="{ns.CARBONS}">'
        f'<forwarded xmlns="{ns.FORWARD}">{of}</forwarded></{direction}></message>'
    )


def inside(message: str) -> str:
    """A message inside a copy."""
    return message.replace("<message", '<message xmlns="jabber:client"', 1)


class Scene:
    """Romeo in the garden and at home; Juliet on the balcony."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.world = World(settings)
        self.romeo = self.world.account(ROMEO)
        self.garden = self.world.online(self.romeo, "garden")
        self.home = self.world.online(self.romeo, "home")
        self.juliet = self.world.account(JULIET)
        self.balcony = self.world.online(self.juliet, "balcony")

    def enable(self, *sessions: Session) -> None:
        for session in sessions:
            self.world.say(session, iq("enable"))
            self.world.heard(session)

    def write(
        self, to: str, inner: str = BODY, session: Session | None = None, type: str = "chat", id: str = ""
    ) -> None:
        named, typed = f' id="{id}"' if id else "", f' type="{type}"' if type else ""
        self.world.say(session or self.balcony, f'<message to="{to}"{typed}{named}>{inner}</message>')

    def heard(self, session: Session) -> list[str]:
        return self.world.heard(session)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def msg(to: str, from_: str, inner: str = BODY, type: str = "chat", id: str = "") -> str:
    named, typed = f' id="{id}"' if id else "", f' type="{type}"' if type else ""
    return f'<message to="{to}" from="{from_}"{typed}{named}>{inner}</message>'


# --- 3 to 5: discovering, enabling, disabling


def test_a_server_says_that_it_copies_and_by_which_rules(scene: Scene) -> None:
    """3, and 6.2: "If that feature is advertised, the rules above must be treated as REQUIRED"."""
    scene.world.say(
        scene.garden, f'<iq to="montague.example" type="get" id="info1"><query xmlns="{ns.DISCO_INFO}"/></iq>'
    )
    (answer,) = scene.heard(scene.garden)
    assert '<feature var="urn:xmpp:carbons:2"/>' in answer
    assert '<feature var="urn:xmpp:carbons:rules:0"/>' in answer


@pytest.mark.parametrize("to", [None, ROMEO])
@pytest.mark.parametrize("name", ["enable", "disable"])
def test_a_client_turns_copies_on_and_off_as_often_as_it_likes(scene: Scene, name: str, to: str | None) -> None:
    """4, 5, and 10.1: "the server SHOULD simply return an IQ-result"."""
    back = f' from="{to}"' if to else ""
    for turns in (["enable", "disable"], ["disable", "enable"]):
        for one in [*turns, name, name]:
            scene.world.say(scene.garden, iq(one, to))
            assert scene.heard(scene.garden) == [f'<iq to="{scene.garden.jid}"{back} type="result" id="c"/>']
        assert (CARBONS in scene.garden.marks) is (name == "enable")
        assert CARBONS not in scene.home.marks, "each session for itself"


def test_the_next_owner_learns_of_it(scene: Scene) -> None:
    assert scene.world.say(scene.garden, iq("enable")).touched == (scene.garden,)
    assert scene.world.say(scene.garden, iq("enable")).touched == ()
    assert scene.world.say(scene.garden, iq("disable")).touched == (scene.garden,)
    assert scene.world.say(scene.garden, iq("disable")).touched == ()


def test_copies_begin_with_what_comes_after(scene: Scene) -> None:
    """What a takeover goes by."""
    last = scene.world.ids.next(100)
    scene.enable(scene.garden)
    scene.world.ids.next(200)
    scene.enable(scene.garden)
    assert scene.garden.marks[CARBONS] == last, "it is enabled since then"


@pytest.mark.parametrize("to", ["montague.example", JULIET, f"{ROMEO}/home", f"{ROMEO}/nowhere"])
@pytest.mark.parametrize("name", ["enable", "disable"])
def test_nobody_turns_copies_of_others_on_or_off(scene: Scene, name: str, to: str) -> None:
    scene.enable(scene.home)
    scene.world.say(scene.garden, iq(name, to))
    assert CARBONS in scene.home.marks
    assert CARBONS not in scene.garden.marks
    if to != f"{ROMEO}/home":  # another client may answer what it likes
        (answer,) = scene.heard(scene.garden)
        assert 'type="error"' in answer


def test_there_is_nothing_to_get(scene: Scene) -> None:
    scene.world.say(scene.garden, iq("enable", type="get"))
    (answer,) = scene.heard(scene.garden)
    assert error("feature-not-implemented", "cancel") in answer


# --- 7: receiving


def test_the_other_client_gets_a_copy_of_what_one_gets(scene: Scene) -> None:
    """Examples 9 and 10."""
    scene.enable(scene.home)
    original = BODY + "<thread>0e3141cd80894871a68e6fe6b1ec56fa</thread>"
    scene.write(scene.garden.jid, original)
    arrived = msg(scene.garden.jid, scene.balcony.jid, original)
    assert scene.heard(scene.garden) == [arrived]
    assert scene.heard(scene.home) == [copy("received", inside(arrived), scene.home)]


def test_who_gets_the_message_gets_no_copy(scene: Scene) -> None:
    """7: "The receiving server MUST NOT send a forwarded copy to the client(s) the original stanza was addressed to"."""
    scene.enable(scene.garden, scene.home)
    scene.write(ROMEO)
    arrived = msg(ROMEO, scene.balcony.jid)
    assert (scene.heard(scene.garden), scene.heard(scene.home)) == ([arrived], [arrived])
    scene.write(scene.garden.jid)
    assert scene.heard(scene.garden) == [msg(scene.garden.jid, scene.balcony.jid)]


def test_who_has_not_asked_gets_no_copy(scene: Scene) -> None:
    """2: "Clients that do not implement the new protocol MUST NOT receive protocol they do not expect"."""
    scene.enable(scene.garden)
    scene.write(scene.garden.jid)
    assert scene.heard(scene.home) == []
    scene.world.say(scene.garden, iq("disable"))
    scene.heard(scene.garden)
    scene.write(scene.home.jid)
    assert scene.heard(scene.garden) == []


def test_a_client_that_is_not_available_sees_what_the_others_get(scene: Scene) -> None:
    """2: "All clients that turn on the new protocol MUST be able to see all inbound instant messaging messages"."""
    hidden = scene.world.online(scene.romeo, "cellar", -1)
    silent = scene.world.bind(scene.romeo, "bed")
    scene.enable(hidden, silent)
    scene.write(ROMEO)
    for session in (hidden, silent):
        assert scene.heard(session) == [copy("received", inside(msg(ROMEO, scene.balcony.jid)), session)]


@pytest.mark.parametrize("is_alone", [False, True])
def test_it_sees_also_what_waits_for_somebody_else(scene: Scene, is_alone: bool) -> None:
    """The same; and the message waits for the next who is reachable (test_offline.py)."""
    hidden = scene.world.online(scene.romeo, "cellar", -1)
    scene.enable(hidden)
    for session in (scene.garden, scene.home):
        del scene.romeo.sessions[session.resource]
    if not is_alone:
        scene.world.bind(scene.romeo, "bed")
    scene.write(ROMEO)
    assert scene.heard(hidden) == [copy("received", inside(msg(ROMEO, scene.balcony.jid)), hidden)]
    assert len(scene.romeo.offline) == 1
    assert scene.heard(scene.balcony) == []


def test_of_a_message_that_goes_back_there_is_no_copy(scene: Scene) -> None:
    scene.enable(scene.home, scene.garden)
    scene.write(f"{ROMEO}/nowhere", type="normal")
    (answer,) = scene.heard(scene.balcony)
    assert error("service-unavailable", "cancel") in answer
    assert (scene.heard(scene.garden), scene.heard(scene.home)) == ([], [])


def test_copies_carry_the_number_of_the_row(scene: Scene) -> None:
    """By which a client's acknowledgement of a copy counts for the account (router/directory.py)."""
    scene = Scene(Settings(domains=DOMAINS))
    scene.enable(scene.home)
    arrived = message(to=scene.garden.jid, from_=f"{JULIET}/x", type="chat", inner=BODY.encode(), flags=1)
    turn = scene.world.arrive(scene.romeo, arrived)
    (row,) = turn.rows
    assert [(session, id_) for session, _, id_ in turn.deliveries] == [(scene.home, row.id), (scene.garden, row.id)]


# --- 8: sending


def test_the_other_client_gets_a_copy_of_what_one_sends(scene: Scene) -> None:
    """Examples 12 and 13; "irrespective of whether the sending client has carbons enabled"."""
    scene.enable(scene.garden)
    scene.write(scene.balcony.jid, session=scene.home)
    sent = msg(scene.balcony.jid, scene.home.jid)
    assert scene.heard(scene.balcony) == [sent]
    assert scene.heard(scene.garden) == [copy("sent", inside(sent), scene.garden)]
    assert scene.heard(scene.home) == []


def test_the_sender_gets_no_copy_of_its_own(scene: Scene) -> None:
    """8: "SHOULD NOT send a forwarded copy to the sending full JID if it is a Carbons-enabled resource"."""
    scene.enable(scene.garden, scene.home)
    scene.write(JULIET, session=scene.home)
    assert scene.heard(scene.home) == []
    assert scene.heard(scene.garden) == [copy("sent", inside(msg(JULIET, scene.home.jid)), scene.garden)]


@pytest.mark.parametrize("to", ["nurse@capulet.example", "friar@verona.example", f"{JULIET}/nowhere"])
def test_wherever_it_goes(scene: Scene, to: str) -> None:
    scene.enable(scene.garden)
    scene.write(to, session=scene.home, type="")
    assert scene.heard(scene.garden) == [copy("sent", inside(msg(to, scene.home.jid, type="")), scene.garden, type="")]


@pytest.mark.parametrize("to", [ROMEO, None])
def test_what_one_writes_to_oneself_comes_once(scene: Scene, to: str | None) -> None:
    hidden = scene.world.online(scene.romeo, "cellar", -1)
    scene.enable(scene.garden, scene.home, hidden)
    address = f' to="{to}"' if to else ""
    scene.world.say(scene.home, f'<message{address} type="chat">{BODY}</message>')
    note = msg(ROMEO, scene.home.jid)
    assert (scene.heard(scene.garden), scene.heard(scene.home)) == ([note], [note])
    assert scene.heard(hidden) == [copy("received", inside(note), hidden)]


def test_the_copy_of_what_was_sent_has_the_id_that_the_archive_gave_it() -> None:
    """As a takeover tells it, and so that the other client can refer to it."""
    scene = Scene(Settings(domains=DOMAINS))
    scene.enable(scene.garden)
    scene.write(JULIET, session=scene.home)
    (row,) = [row for row in scene.world.log if row.owner == scene.romeo.key]
    named = f'{BODY}<stanza-id xmlns="{ns.SID}" by="{ROMEO}" id="{row.id}"/>'
    assert scene.heard(scene.garden) == [copy("sent", inside(msg(JULIET, scene.home.jid, named)), scene.garden)]
    (got,) = scene.heard(scene.balcony)
    assert ROMEO not in re.findall(r'by="([^"]*)"', got), "it is nobody else's business"


def test_what_may_not_be_sent_is_not_copied(scene: Scene) -> None:
    scene.enable(scene.garden)
    scene.romeo.blocks.add(JULIET)
    scene.write(JULIET, session=scene.home)
    assert scene.heard(scene.garden) == []


# --- 9: avoiding carbons


@pytest.mark.parametrize("mark", [f'<private xmlns="{ns.CARBONS}"/>', f'<no-copy xmlns="{ns.HINTS}"/>'])
def test_a_private_message_is_copied_by_neither_server_and_keeps_its_mark(scene: Scene, mark: str) -> None:
    """9: earlier versions had it removed, "this behavior was considered as a potential security issue"."""
    scene.enable(scene.garden, scene.home)
    scene.write(scene.garden.jid, BODY + mark)
    assert scene.heard(scene.garden) == [msg(scene.garden.jid, scene.balcony.jid, BODY + mark)]
    assert scene.heard(scene.home) == []
    scene.write(JULIET, BODY + mark, session=scene.home)
    assert scene.heard(scene.garden) == []
    scene.write(ROMEO, BODY + mark)
    assert len(scene.heard(scene.garden)) == len(scene.heard(scene.home)) == 1, "that is RFC 6121, and no copy"


# --- 6.1 and 10.3: errors


def bounce(scene: Scene, to: str, from_: str, id: str) -> None:
    """Somebody elsewhere answers with an error."""
    inner = b'<error type="cancel"><gone xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>'
    scene.world.arrive(scene.romeo, message(to=to, from_=from_, type="error", id=id, inner=inner, flags=HAS_ERROR))


@pytest.mark.parametrize("to", ["friar@verona.example", "friar@verona.example/cell"])
def test_who_saw_what_was_sent_sees_that_it_came_back(scene: Scene, to: str) -> None:
    """6.1: "it is of type 'error' and it was sent in response to a message that was eligible"."""
    scene.enable(scene.garden)
    scene.write(to, session=scene.home, id="m1")
    scene.heard(scene.garden)
    bounce(scene, scene.home.jid, to, "m1")
    (at_home,) = scene.heard(scene.home)
    assert scene.heard(scene.garden) == [copy("received", inside(at_home), scene.garden, type="error")]


def test_an_error_that_answers_nothing_of_that_kind_is_for_whom_it_names(scene: Scene) -> None:
    scene.enable(scene.garden)
    scene.write("friar@verona.example", session=scene.home, type="groupchat", id="m1")
    scene.write("friar@verona.example", BODY + f'<private xmlns="{ns.CARBONS}"/>', session=scene.home, id="m2")
    scene.write("friar@verona.example", session=scene.home, id="m3")
    scene.write("friar@verona.example", session=scene.home)
    scene.heard(scene.garden)
    for id in ("m1", "m2", "m4", ""):
        bounce(scene, scene.home.jid, "friar@verona.example", id)
    bounce(scene, scene.home.jid, "iago@verona.example", "m3")
    scene.world.arrive(scene.romeo, message(to=scene.home.jid, from_="friar@verona.example", id="m3"))
    assert len(scene.heard(scene.home)) == 6
    assert scene.heard(scene.garden) == []


def test_only_the_latest_are_remembered(scene: Scene) -> None:
    scene.enable(scene.garden)
    for number in range(REMEMBERED + 1):
        scene.write("friar@verona.example", session=scene.home, id=f"m{number}")
    scene.heard(scene.garden)
    for id in ("m0", f"m{REMEMBERED}", "m1"):
        bounce(scene, scene.home.jid, "friar@verona.example", id)
    assert re.findall(r' id="(m\d+)"', "".join(scene.heard(scene.garden))) == [f"m{REMEMBERED}", "m1"]
    assert len(scene.romeo.data[carbons.feature.name]) == REMEMBERED


def test_an_answer_to_a_copy_never_reaches_who_wrote_the_message(scene: Scene) -> None:
    """10.3: "the server MUST NOT forward that error back to the original sender"."""
    scene.enable(scene.home)
    scene.write(scene.garden.jid, id="m1")
    assert len(scene.heard(scene.garden)) == len(scene.heard(scene.home)) == 1
    scene.write(ROMEO, error("not-acceptable", "modify") + "</error>", session=scene.home, type="error", id="m1")
    assert scene.heard(scene.balcony) == []
    assert (scene.heard(scene.garden), scene.heard(scene.home)) == ([], [])


# --- 12: copies are the own server's alone


def forged(direction: str, session: Session) -> str:
    """Example 11: Tybalt would have Romeo believe that Juliet wrote."""
    inner = f'<message xmlns="jabber:client" from="{JULIET}/balcony" to="{session.jid}" type="chat">{BODY}</message>'
    return f'<{direction} xmlns="{ns.CARBONS}"><forwarded xmlns="{ns.FORWARD}">{inner}</forwarded></{direction}>'


@pytest.mark.parametrize("direction", ["received", "sent"])
@pytest.mark.parametrize("is_full", [False, True])
def test_somebody_elses_copy_is_an_ordinary_message_of_his(scene: Scene, direction: str, is_full: bool) -> None:
    tybalt = scene.world.online(scene.world.account("tybalt@capulet.example"), "home")
    scene.enable(scene.home)
    to = scene.garden.jid if is_full else ROMEO
    content = forged(direction, scene.garden)
    scene.write(to, content, session=tybalt)
    arrived = msg(to, tybalt.jid, content)
    assert scene.heard(scene.garden) == [arrived]
    assert scene.heard(scene.home) == ([copy("received", inside(arrived), scene.home)] if is_full else [arrived])


@pytest.mark.parametrize("direction", ["received", "sent"])
def test_ones_own_client_cannot_speak_as_the_account(scene: Scene, direction: str) -> None:
    """The stream stamps the full JID (c2s/stream.py), so no other client takes it for a copy."""
    scene.enable(scene.garden)
    content = forged(direction, scene.garden)
    scene.world.say(scene.home, f'<message from="{ROMEO}" to="{scene.garden.jid}" type="chat">{content}</message>')
    assert scene.heard(scene.garden) == [msg(scene.garden.jid, scene.home.jid, content)]


def test_an_error_does_not_carry_a_forged_copy_back(scene: Scene) -> None:
    """Were the content repeated, an account's own server would seem to say it."""
    scene.enable(scene.home, scene.garden)
    scene.world.say(
        scene.home, f'<message to="{ROMEO}/nowhere" type="normal">{forged("received", scene.home)}</message>'
    )
    (answer,) = scene.heard(scene.home)
    assert error("service-unavailable", "cancel") in answer
    assert ns.CARBONS not in answer
