"""What edges ask of a domain that has a back end (router/calls.py): its answer counts, and the account is made for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from cluster.shards import ShardMap, shard_of
from cluster.wire import Epoch, Incarnation
from router.backends import Backends
from router.backends.backend import Away
from router.calls import CallError, Calls, Passwords
from router.nobodies import Nobodies
from router.owner import Effects
from router.registration import Registration
from storage import accounts, restrictions
from storage.accounts import Account
from storage.restrictions import Restriction
from storage.store import Store

ROUTER, EDGE = Incarnation("router-0#1"), Incarnation("c2s-0#1")
DOMAIN = "example.org"
JULIET = f"juliet@{DOMAIN}"


class World:
    """A router whose back end, database and registration are this object."""

    configuration = "https://id.example.org/.well-known/openid-configuration"

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.enabled: bool | None = None  # None: there is no account
        self.ban: Restriction | None = None
        self.admitted: list[str] = []
        self.asked = 0
        self.sent: list[tuple[Any, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        shard_map = ShardMap()
        for name in (DOMAIN, JULIET):
            shard_map.update(shard_of(name), Epoch(1), ROUTER)
        self.passwords = Passwords()
        self.calls = Calls(
            cast(Store, self), cast(Effects, self), self.passwords, cast(Registration, self), {}, Nobodies(b"secret", 4_096), shard_map,
            ROUTER, {}, backends=Backends({DOMAIN: ("jwt", self)}),
        )  # fmt: skip

    # the back end

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        self.asked += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return (username, domain, password) == ("juliet", DOMAIN, "secret")

    async def check_token(self, token: str) -> str | None:
        if self.problem is not None:
            raise self.problem
        return token or None

    async def stop(self) -> None:
        pass

    # database and registration

    async def run(self, statement: object, bare: str) -> Any:
        if statement is restrictions.bans:
            return {} if self.ban is None else {JULIET: self.ban}
        assert statement is accounts.find
        return None if self.enabled is None else Account(1, bare, 0, self.enabled, 0, 0.0, None, "")

    async def admit(self, bare: str) -> None:
        self.admitted.append(bare)

    def send(self, to: Incarnation, envelope: tuple[Any, ...]) -> bool:
        self.sent.append(envelope)
        return True

    async def answers(self, count: int) -> None:
        """Wait until so many calls are answered."""
        while len(self.sent) < count:  # noqa: ASYNC110  # the test ends it
            await asyncio.sleep(0)

    def monotonic(self) -> float:
        return 100.0

    answer = create = set_password = delete = kick = log_out = None

    async def ask(self, method: str, of: str, *arguments: Any) -> Any:
        return await self.calls.ask(of, shard_of(of), method, (of, *arguments))

    async def fault(self, method: str, of: str, *arguments: Any) -> str:
        with pytest.raises(CallError) as problem:
            await self.ask(method, of, *arguments)
        return problem.value.condition


def played(conversation: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World()
        await conversation(world)
        world.passwords.stop()

    asyncio.run(run())


def test_whom_the_back_end_lets_in_for_the_first_time_gets_an_account() -> None:
    async def conversation(world: World) -> None:
        assert not await world.ask("auth.password", JULIET, "wrong")
        assert world.admitted == []
        assert await world.ask("auth.password", JULIET, "secret")
        assert world.admitted == [JULIET]
        world.enabled = True
        assert await world.ask("auth.password", JULIET, "secret")
        assert world.admitted == [JULIET]

    played(conversation)


def test_who_is_disabled_here_is_told_so_after_the_right_password_alone() -> None:
    async def conversation(world: World) -> None:
        world.enabled = False
        assert not await world.ask("auth.password", JULIET, "wrong")
        assert await world.fault("auth.password", JULIET, "secret") == "account-disabled"
        assert await world.fault("auth.token", DOMAIN, "juliet") == "account-disabled"

    played(conversation)


def test_who_is_banned_here_is_told_why_after_the_right_password_alone() -> None:
    async def conversation(world: World) -> None:
        world.enabled, world.ban = True, Restriction("ban", "Spam", "operator", 0.0, None)
        assert not await world.ask("auth.password", JULIET, "wrong")
        for method, of, proof in (("auth.password", JULIET, "secret"), ("auth.token", DOMAIN, "juliet")):
            with pytest.raises(CallError) as refused:
                await world.ask(method, of, proof)
            assert refused.value.condition == "account-disabled"
            assert refused.value.text == "This account is disabled. Reason: Spam"

    played(conversation)


def test_a_back_end_that_is_away_is_no_wrong_password() -> None:
    async def conversation(world: World) -> None:
        for problem in (Away("gone"), RuntimeError("a bug")):
            world.problem = problem
            assert await world.fault("auth.password", JULIET, "secret") == "temporary-auth-failure"
            assert await world.fault("auth.token", JULIET, "juliet") == "temporary-auth-failure"

    played(conversation)


def test_a_token_is_for_one_account() -> None:
    async def conversation(world: World) -> None:
        assert await world.ask("auth.token", DOMAIN, "juliet") == ("juliet", world.configuration)
        assert await world.ask("auth.token", JULIET, "Juliet@example.org") == ("juliet", world.configuration)
        assert await world.ask("auth.token", JULIET, "romeo") == (None, world.configuration)
        assert await world.ask("auth.token", DOMAIN, "") == (None, world.configuration)
        assert world.admitted == [JULIET, JULIET]

    played(conversation)


def test_credentials_from_before_are_void() -> None:
    async def conversation(world: World) -> None:
        assert await world.fault("auth.salt", JULIET, "SHA-256") == "temporary-auth-failure"
        assert await world.fault("auth.proof", JULIET, "SHA-256", b"", b"") == "temporary-auth-failure"

    played(conversation)


def test_where_there_is_no_back_end_no_token_is_judged() -> None:
    async def conversation(world: World) -> None:
        world.calls._backends = Backends({})
        assert await world.fault("auth.token", DOMAIN, "juliet") == "temporary-auth-failure"

    played(conversation)


def test_an_edge_that_asks_again_while_the_back_end_thinks_asks_it_once() -> None:
    """cluster/edge.py asks once a second until there is an answer; each try may count towards a lock-out there."""

    async def conversation(world: World) -> None:
        world.gate.clear()
        for _ in range(5):
            world.calls.receive(EDGE, "r1", "auth.password", (JULIET, "secret"))
            await asyncio.sleep(0)
        world.gate.set()
        await world.answers(1)
        assert (world.asked, len(world.sent)) == (1, 1)
        world.calls.receive(EDGE, "r2", "auth.password", (JULIET, "wrong"))
        await world.answers(2)
        assert [envelope[1:] for envelope in world.sent] == [("r1", True, True), ("r2", True, False)]

    played(conversation)


def test_whoever_has_a_certificate_is_let_in_as_by_a_password() -> None:
    async def conversation(world: World) -> None:
        assert await world.ask("auth.certificate", JULIET)
        assert world.admitted == [JULIET]
        world.enabled = False
        assert await world.fault("auth.certificate", JULIET) == "account-disabled"

    played(conversation)
