"""What becomes of tokens on the way to an account (router/admission.py), where the database or the owner says no. The whole
way is in tests/integration/test_invitations.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

import psycopg
import pytest

from router import admission
from router.admission import Admission
from router.calls import CallError
from router.registration import Registration
from router.settings import Settings
from storage import invitations as stored
from storage.invitations import Invitation, Kind
from storage.store import Store
from xmpp.errors import Conflict, ItemNotFound, NotAllowed, StanzaError

DOMAIN, ROMEO, JULIET = "example.com", "romeo@example.com", "juliet@example.com"
Mode = Literal["closed", "open", "invite"]


class World:
    """One invitation in a database, an owner that makes accounts, and inviters who are told."""

    def __init__(self, kind: Kind = "contact", jid: str = "", mode: Mode = "invite", **changes: Any) -> None:
        found = Invitation(1, kind, DOMAIN, "", jid, ROMEO if kind == "contact" else "", 1, 0, 0.0, None, False)
        self.found = found._replace(**changes)
        self.fault: Exception | None = None
        self.is_left = True
        self.untold: list[tuple[str, str]] = []
        self.did: list[tuple[str, Any]] = []
        self.romeo_heard = asyncio.Event()
        settings = Settings(domains=frozenset({DOMAIN}), registration_mode=mode)
        self.admission = Admission(
            cast(Store, self), cast(Registration, self), settings, b"key", lambda: 0.0, self._ask
        )

    def refuse_elsewhere(self, domain: str) -> None:
        """The passwords are kept here."""

    async def run(self, statement: object, *arguments: Any) -> Any:
        if statement is stored.find:
            return self.found
        if statement is stored.is_reserved:
            return False
        if statement is stored.untold:
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
            return self.untold
        if statement is stored.claim:
            self.did.append(("claim", arguments[1:]))
            return self.found if self.is_left else None
        assert statement is stored.release
        self.did.append(("release", arguments[1]))
        return None

    async def create(self, bare: str, password: str, also: Callable[..., None]) -> None:
        if self.fault is not None:
            raise self.fault
        self.did.append(("create", bare))

    async def set_password(self, bare: str, password: str, also: Callable[..., None]) -> None:
        self.did.append(("password", bare))

    async def kick(self, bare: str, resource: str) -> None:
        self.did.append(("kick", bare))

    async def befriend(self, bare: str, contact: str) -> None:
        raise AssertionError("its owner is asked")

    async def _ask(self, bare: str, method: str, arguments: tuple[Any, ...]) -> None:
        assert method == "invitations.befriend"
        self.did.append(("tell", arguments))
        if bare == ROMEO:
            self.romeo_heard.set()
        if bare == "away@example.com":
            raise CallError("remote-server-timeout")

    def refused(self, asked: Awaitable[Any], by: type[StanzaError]) -> None:
        async def wait() -> None:
            await asked

        with pytest.raises(by):
            asyncio.run(wait())


def in_browser(world: World) -> Awaitable[str]:
    return world.admission.register(DOMAIN, "juliet", "secret", "token")


def in_client(world: World) -> Awaitable[bytes]:
    return world.admission.answer(DOMAIN, "set", {"username": "juliet", "password": "secret"}, "192.0.2.1", "token")


def test_the_inviter_is_told_when_the_account_is_there() -> None:
    world = World()
    assert asyncio.run(cast(Any, in_browser(world))) == JULIET
    assert world.did == [("claim", (JULIET, False)), ("create", JULIET), ("tell", (ROMEO, JULIET))]


def test_who_was_let_in_on_a_stream_may_be_late() -> None:
    """XEP-0445, 3."""
    world = World(is_expired=True)
    world.refused(in_browser(world), ItemNotFound)
    world.refused(world.admission.check(DOMAIN, "token"), ItemNotFound)
    assert world.did == []
    asyncio.run(cast(Any, in_client(world)))
    assert world.did[:2] == [("claim", (JULIET, True)), ("create", JULIET)]


def test_what_was_claimed_for_nothing_is_given_back() -> None:
    world = World()
    world.fault = Conflict()
    world.refused(in_client(world), Conflict)
    assert world.did == [("claim", (JULIET, True)), ("release", JULIET)]


def test_without_a_use_nothing_is_done() -> None:
    world = World()
    world.is_left = False
    world.refused(in_client(world), ItemNotFound)
    assert world.did == [("claim", (JULIET, True))]


@pytest.mark.parametrize("asked", [in_browser, in_client], ids=["browser", "client"])
@pytest.mark.parametrize(
    "world",
    [lambda: World("reset", JULIET), lambda: World(domain="example.org"), lambda: World(mode="closed")],
    ids=["reset", "elsewhere", "closed"],
)
def test_a_token_for_something_else_makes_no_account(
    asked: Callable[[World], Awaitable[Any]], world: Callable[[], World]
) -> None:
    there = world()
    there.refused(asked(there), StanzaError)
    there.refused(there.admission.check(DOMAIN, "token"), ItemNotFound)
    assert there.did == []


def test_an_invitation_to_a_name_is_for_no_other() -> None:
    world = World("account", "nurse@example.com")
    world.refused(in_client(world), NotAllowed)
    assert world.did == []


def test_a_link_for_a_password_is_for_one_account() -> None:
    world = World("reset", JULIET)
    world.refused(world.admission.reset(ROMEO, "new", True, "token"), ItemNotFound)
    other = World("account", JULIET)
    other.refused(other.admission.reset(JULIET, "new", True, "token"), ItemNotFound)
    assert world.did == other.did == []
    asyncio.run(world.admission.reset(JULIET, "new", False, "token"))
    asyncio.run(world.admission.reset(JULIET, "new", True, "token"))
    claimed = [("claim", (JULIET, False)), ("password", JULIET)]
    assert world.did == [*claimed, *claimed, ("kick", JULIET)]


def test_whom_a_dead_router_could_not_tell_is_told_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "TELL_S", 0.001)
    world = World()
    world.fault = psycopg.OperationalError("the database is away")
    world.untold = [("away@example.com", "a@example.com"), (ROMEO, JULIET)]

    async def follow() -> None:
        task = asyncio.get_running_loop().create_task(world.admission.follow())
        await world.romeo_heard.wait()
        task.cancel()

    asyncio.run(asyncio.wait_for(follow(), 10))
    assert world.did[:2] == [("tell", ("away@example.com", "a@example.com")), ("tell", (ROMEO, JULIET))]
