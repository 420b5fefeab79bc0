"""Last activity (XEP-0012): the uptime of the server, and when an account was online last, for whom that concerns."""

from __future__ import annotations

from typing import Any

import pytest

from router.contacts import Subscription
from router.entity import Session
from router.features import activity
from router.features.activity import unavailable_since
from storage import accounts
from storage.accounts import Account
from tests.support.turns import DOMAIN, NOW, World, error, load_from
from xmpp import ns

JULIET, ROMEO, NOBODY = "juliet@example.com", "romeo@example.com", "mercutio@example.com"
FORBIDDEN = error("forbidden", "auth")
UNAVAILABLE = error("service-unavailable", "cancel")


class Scene:
    """Juliet, who is asked about, without sessions; Romeo, who asks. The database is told and tells of hers."""

    def __init__(self) -> None:
        self.world = World()
        self.juliet = self.world.account(JULIET)
        self.romeo = self.world.online(self.world.account(ROMEO), "orchard")
        self.last: tuple[float | None, str] = (None, "")
        self.world.database[accounts.find] = self._find

    def _find(self, bare: str) -> Account | None:
        assert bare == JULIET
        assert self.juliet.key is not None
        return Account(self.juliet.key, JULIET, self.juliet.shard, True, 0, 0.0, *self.last)

    def ask(self, session: Session, to: str | None) -> str:
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="get" id="last1"><query xmlns="{ns.LAST}"/></iq>')
        (answer,) = self.world.heard(session)
        return answer

    def written(self) -> None:
        """What was written since is in the database."""
        for write in self.world.writes:
            if write.statement is accounts.set_delivered:
                continue  # the end of a session (router/features/offline.py)
            assert write.statement is accounts.record_last
            key, at, status = write.arguments
            assert key == self.juliet.key
            self.last = (at, status)
        self.world.writes.clear()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def told(session: Session, to: str | None, seconds: int, status: str = "") -> str:
    query = f'<query xmlns="{ns.LAST}" seconds="{seconds}"'
    query += f">{status}</query>" if status else "/>"
    back = f' from="{to}"' if to else ""
    return f'<iq to="{session.jid}"{back} type="result" id="last1">{query}</iq>'


# --- the server (5)


def test_of_a_server_it_is_the_uptime(scene: Scene) -> None:
    assert scene.ask(scene.romeo, DOMAIN) == told(scene.romeo, DOMAIN, 60)
    scene.world.now += 123_396.9
    assert scene.ask(scene.romeo, DOMAIN) == told(scene.romeo, DOMAIN, 123_456)
    scene.world.now = NOW - 3_600
    assert scene.ask(scene.romeo, DOMAIN) == told(scene.romeo, DOMAIN, 0), "a clock that was set back"


# --- the moment that is remembered (3)


def test_the_last_resource_that_goes_is_remembered_with_its_status(scene: Scene) -> None:
    home, work = scene.world.online(scene.juliet, "home"), scene.world.online(scene.juliet, "work")
    scene.world.say(home, '<presence type="unavailable"><status>early</status></presence>')
    assert scene.world.writes == []
    scene.world.now += 5
    scene.world.say(work, '<presence type="unavailable"><show/><status>Heading &lt;Home&gt;</status></presence>')
    scene.written()
    assert scene.last == (NOW + 5, "Heading <Home>")


def test_a_session_that_is_lost_leaves_no_status(scene: Scene) -> None:
    scene.last = (1.0, "old")
    scene.world.end(scene.world.online(scene.juliet))
    scene.written()
    assert scene.last == (NOW, "")


def test_a_session_that_was_never_available_leaves_nothing(scene: Scene) -> None:
    scene.world.end(scene.world.bind(scene.juliet))
    assert accounts.record_last not in scene.world.written()


def test_a_status_is_cut_between_characters(scene: Scene) -> None:
    home = scene.world.online(scene.juliet)
    scene.world.say(home, f'<presence type="unavailable"><status>x{"ř" * 2000}</status></presence>')
    scene.written()
    assert scene.last == (NOW, "x" + "ř" * 511)


@pytest.mark.parametrize("last_at", [None, NOW - 5])
def test_the_moment_is_read_when_the_account_is_loaded(scene: Scene, last_at: float | None) -> None:
    load_from(activity.feature, scene.juliet, Account(7, JULIET, 0, True, 0, 0.0, last_at, ""))
    assert unavailable_since(scene.juliet) == last_at


def test_and_is_the_newest_afterwards(scene: Scene) -> None:
    assert unavailable_since(scene.juliet) is None
    home, work = scene.world.online(scene.juliet, "home"), scene.world.online(scene.juliet, "work")
    scene.world.end(home)
    assert unavailable_since(scene.juliet) is None
    scene.world.now += 5
    scene.world.end(work)
    assert unavailable_since(scene.juliet) == NOW + 5


# --- an account (3)


@pytest.mark.parametrize("subscription", ["from", "both"])
def test_who_sees_the_presence_learns_when_it_was_last(scene: Scene, subscription: Subscription) -> None:
    scene.world.contact(scene.juliet, ROMEO, subscription)
    scene.world.say(
        scene.world.online(scene.juliet), '<presence type="unavailable"><status>Heading Home</status></presence>'
    )
    scene.written()
    scene.world.heard(scene.romeo)
    scene.world.now += 903.7
    assert scene.ask(scene.romeo, JULIET) == told(scene.romeo, JULIET, 903, "Heading Home")


def test_the_clock_may_have_been_set_back(scene: Scene) -> None:
    scene.world.contact(scene.juliet, ROMEO, "from")
    scene.last = (NOW + 10, "")
    assert scene.ask(scene.romeo, JULIET) == told(scene.romeo, JULIET, 0)


def test_who_is_online_is_active_now(scene: Scene) -> None:
    """3: "an empty <query/> element whose 'seconds' attribute is set to a value of '0'"."""
    scene.world.contact(scene.juliet, ROMEO, "from")
    scene.world.online(scene.juliet)
    scene.last = (NOW - 100, "gone")
    assert scene.ask(scene.romeo, JULIET) == told(scene.romeo, JULIET, 0)


def test_a_session_that_is_not_available_is_shown_to_nobody(scene: Scene) -> None:
    """3 leaves this to "local security policies": who has sent unavailable presence does not want to be seen."""
    scene.world.contact(scene.juliet, ROMEO, "from")
    scene.world.bind(scene.juliet)
    scene.last = (NOW - 100, "")
    assert scene.ask(scene.romeo, JULIET) == told(scene.romeo, JULIET, 100)


def test_an_account_that_was_never_online(scene: Scene) -> None:
    scene.world.contact(scene.juliet, ROMEO, "from")
    assert error("item-not-found", "cancel") in scene.ask(scene.romeo, JULIET)


@pytest.mark.parametrize("to", [None, ROMEO])
def test_whoever_asks_about_themselves_is_online(scene: Scene, to: str | None) -> None:
    assert scene.ask(scene.romeo, to) == told(scene.romeo, to, 0)


@pytest.mark.parametrize("facts", [None, {}, {"ask": True}, {"pending_in": True}, {"subscription": "to"}])
@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/home", f"{JULIET}/nowhere"])
def test_who_does_not_see_the_presence_may_not_know(scene: Scene, facts: dict[str, Any] | None, to: str) -> None:
    """3 and 4: forbidden, and "MUST NOT deliver the IQ-get to an available resource"; there or not looks the same."""
    if facts is not None:
        scene.world.contact(scene.juliet, ROMEO, **facts)
    home = scene.world.online(scene.juliet)
    answer = scene.ask(scene.romeo, to)
    assert answer.startswith(f'<iq to="{scene.romeo.jid}" from="{to}" type="error" id="last1">{FORBIDDEN}')
    assert scene.world.heard(home) == []
    scene.juliet.sessions.clear()
    assert scene.ask(scene.romeo, to) == answer


@pytest.mark.parametrize("resource", ["", "/x"])
def test_a_name_without_account(scene: Scene, resource: str) -> None:
    """RFC 6121, 8.5.1."""
    scene.world.nobody(NOBODY)
    assert UNAVAILABLE in scene.ask(scene.romeo, NOBODY + resource)


# --- a client (4)


def test_a_client_is_asked_itself_by_whom_sees_its_presence(scene: Scene) -> None:
    scene.world.contact(scene.juliet, ROMEO, "from")
    home = scene.world.online(scene.juliet)
    asked = f'<iq to="{home.jid}" type="get" id="last2"><query xmlns="{ns.LAST}"/></iq>'
    scene.world.say(scene.romeo, asked)
    assert scene.world.heard(home) == [asked.replace(" type", f' from="{scene.romeo.jid}" type')]
    scene.world.say(home, f'<iq to="{scene.romeo.jid}" type="result" id="last2"><query xmlns="{ns.LAST}"/></iq>')
    assert len(scene.world.heard(scene.romeo)) == 1, "an answer is no question"
    assert UNAVAILABLE in scene.ask(scene.romeo, f"{JULIET}/nowhere")


def test_the_own_clients_may_be_asked(scene: Scene) -> None:
    home, work = scene.world.online(scene.juliet, "home"), scene.world.online(scene.juliet, "work")
    scene.world.say(home, f'<iq to="{work.jid}" type="get" id="1"><query xmlns="{ns.LAST}"/></iq>')
    assert len(scene.world.heard(work)) == 1
