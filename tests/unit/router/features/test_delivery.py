"""Message delivery, cell by cell of RFC 6121, 8.5 and the table in 8.5.4 (router/features/delivery.py)."""

from __future__ import annotations

import pytest

from router.entity import Session
from tests.support.turns import World, error

TYPES = [None, "normal", "chat", "groupchat", "headline", "error"]
KEPT = (None, "normal", "chat")
ROMEO = "romeo@example.com"
UNAVAILABLE = error("service-unavailable", "cancel")


class Scene:
    """Juliet writes; Romeo has what a test gives him."""

    def __init__(self) -> None:
        self.world = World()
        self.romeo = self.world.account("romeo@example.com")
        self.juliet = self.world.online(self.world.account("juliet@example.com"), "balcony")

    def write(self, to: str, type: str | None) -> str:
        """Juliet sends it; returns what comes back to her: "bounced" or "silence"."""
        written = f' type="{type}"' if type else ""
        self.world.say(self.juliet, f'<message to="{to}" id="m"{written}><body>hi</body></message>')
        heard = self.world.heard(self.juliet)
        if not heard:
            return "silence"
        (answer,) = heard
        assert answer.startswith(f'<message to="juliet@example.com/balcony" from="{to}" type="error" id="m">'), answer
        assert UNAVAILABLE in answer
        return "bounced"

    def got(self, session: Session) -> int:
        """How many messages the session has got."""
        return len(self.world.heard(session))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def is_bounced(type: str | None) -> str:
    """What happens to a message that nobody can take, and that is not kept: 8.5.1 and 8.5.3.2.1."""
    return "silence" if type in ("headline", "error") else "bounced"


def is_kept(scene: Scene, type: str | None) -> bool:
    """8.5.2.2.1: with offline storage, chat and normal messages to an account wait; all else is as without an account.
    What becomes of it then is in test_offline.py."""
    wrote = scene.write(ROMEO, type)
    if type in ("groupchat", "headline", "error"):
        assert wrote == is_bounced(type)
        return False
    assert wrote == "silence"
    (row,) = scene.world.log
    assert (row.owner, row.stanza.type, row.stanza.inner) == (scene.romeo.key, type, b"<body>hi</body>")
    return True


@pytest.mark.parametrize("type", TYPES)
def test_no_account(scene: Scene, type: str | None) -> None:
    scene.world.nobody("mercutio@example.com")
    assert scene.write("mercutio@example.com", type) == is_bounced(type)
    assert scene.write("mercutio@example.com/tomb", type) == is_bounced(type)


@pytest.mark.parametrize("type", TYPES)
def test_bare_without_sessions(scene: Scene, type: str | None) -> None:
    assert is_kept(scene, type) is (type in KEPT)


@pytest.mark.parametrize("type", TYPES)
def test_bare_with_connected_but_unavailable_session(scene: Scene, type: str | None) -> None:
    silent = scene.world.bind(scene.romeo)
    assert is_kept(scene, type) is (type in KEPT)
    assert scene.got(silent) == 0


@pytest.mark.parametrize("type", TYPES)
def test_bare_with_negative_priorities_only(scene: Scene, type: str | None) -> None:
    negative = scene.world.online(scene.romeo, priority=-1)
    assert is_kept(scene, type) is (type in KEPT)
    assert scene.got(negative) == 0


@pytest.mark.parametrize("type", [None, "normal", "chat", "headline"])
def test_bare_with_sessions(scene: Scene, type: str | None) -> None:
    sessions = [scene.world.online(scene.romeo, name, priority) for name, priority in (("a", 0), ("b", 7), ("c", -1))]
    unavailable = scene.world.bind(scene.romeo, "d")
    assert scene.write("romeo@example.com", type) == "silence"
    assert [scene.got(session) for session in sessions] == [1, 1, 0]
    assert scene.got(unavailable) == 0


def test_bare_groupchat_is_refused_though_somebody_is_there(scene: Scene) -> None:
    session = scene.world.online(scene.romeo)
    assert scene.write("romeo@example.com", "groupchat") == "bounced"
    assert scene.got(session) == 0


def test_bare_error_is_ignored_though_somebody_is_there(scene: Scene) -> None:
    session = scene.world.online(scene.romeo)
    assert scene.write("romeo@example.com", "error") == "silence"
    assert scene.got(session) == 0


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("priority", [None, 0, -1])
def test_full_goes_to_that_session_whatever_its_presence(scene: Scene, type: str | None, priority: int | None) -> None:
    """8.5.3.1: "the server MUST deliver the stanza to that connected resource"; 'connected', not 'available'."""
    if priority is None:
        session = scene.world.bind(scene.romeo, "garden")
    else:
        session = scene.world.online(scene.romeo, "garden", priority)
    other = scene.world.online(scene.romeo, "street")
    assert scene.write("romeo@example.com/garden", type) == "silence"
    assert scene.got(session) == 1
    assert scene.got(other) == 0


def test_a_chat_to_full_without_that_session_goes_to_the_others(scene: Scene) -> None:
    """8.5.3.2.1: "the server SHOULD treat the message as if it were addressed to <localpart@domainpart>"."""
    session = scene.world.online(scene.romeo, "street")
    negative = scene.world.online(scene.romeo, "cellar", -5)
    assert scene.write("romeo@example.com/garden", "chat") == "silence"
    assert scene.got(session) == 1
    assert scene.got(negative) == 0


@pytest.mark.parametrize("type", [None, "normal", "groupchat", "headline", "error"])
def test_all_else_to_full_without_that_session_is_for_that_session_only(scene: Scene, type: str | None) -> None:
    """8.5.3.2.1: ignored or refused, even with somebody there (the table of 8.5.4: "full no match", S)."""
    session = scene.world.online(scene.romeo, "street")
    assert scene.write("romeo@example.com/garden", type) == is_bounced(type)
    assert scene.got(session) == 0


@pytest.mark.parametrize("type", TYPES)
def test_full_without_any_session(scene: Scene, type: str | None) -> None:
    """8.5.3.2.1: a chat is "as if it were addressed to <localpart@domainpart>" and waits, all else is for that session."""
    if type == "chat":
        assert scene.write("romeo@example.com/garden", type) == "silence"
        assert [row.peer for row in scene.world.log] == ["juliet@example.com"]
    else:
        assert scene.write("romeo@example.com/garden", type) == is_bounced(type)
        assert scene.world.log == []


def test_a_type_that_nobody_knows_is_normal(scene: Scene) -> None:
    """5.2.2: "If an application receives a message with no 'type' attribute or the application does not understand
    the value of the 'type' attribute provided, it MUST consider the message to be of type 'normal'."""
    session = scene.world.online(scene.romeo)
    assert scene.write("romeo@example.com", "carrier-pigeon") == "silence"
    assert scene.got(session) == 1


def test_to_oneself_and_without_address(scene: Scene) -> None:
    """RFC 6120, 10.3.1: without 'to', a message is to the sender's own bare JID."""
    other = scene.world.online(scene.juliet.entity, "chamber")
    scene.world.say(scene.juliet, "<message><body>note</body></message>")
    expected = '<message to="juliet@example.com" from="juliet@example.com/balcony"><body>note</body></message>'
    assert scene.world.heard(scene.juliet) == [expected]
    assert scene.world.heard(other) == [expected]


def test_the_content_is_passed_on_as_it_came(scene: Scene) -> None:
    session = scene.world.online(scene.romeo)
    inner = '<body xml:lang="cs">Jak?</body><x xmlns="urn:x"><y a="&lt;"/></x>'
    scene.world.say(scene.juliet, f'<message to="romeo@example.com" type="chat" id="1" xml:lang="en">{inner}</message>')
    assert scene.world.heard(session) == [
        '<message to="romeo@example.com" from="juliet@example.com/balcony" type="chat" id="1" xml:lang="en">'
        f"{inner}</message>"
    ]
