"""What edges ask while a client signs in (router/calls.py): the credentials that count are those of this moment."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest

from cluster.shards import ShardMap, shard_of
from cluster.wire import Epoch, Incarnation
from router.calls import BEGUN_S, CallError, Calls, Passwords
from router.features.account import derive_all
from router.nobodies import Nobodies
from router.owner import Effects
from router.registration import MOVED, Registration
from storage import accounts, restrictions
from storage.restrictions import Restriction
from storage.store import Store
from xmpp.errors import ResourceConstraint
from xmpp.scram import Credentials

ROUTER = Incarnation("router-0#1")
JULIET = "juliet@example.org"
AUTH_MESSAGE = b"n=juliet,r=a,r=ab,s=c2FsdA==,i=1,c=biws,r=ab"


class World:
    """The database and the clock, as far as signing in needs them."""

    def __init__(self, iterations: int = 4_096) -> None:
        self.stored: dict[str, tuple[Credentials, ...]] = {JULIET: derive_all("old")}
        self.bans: dict[str, Restriction] = {}
        self.is_enabled = True
        self.reads = 0
        self.upgraded: list[Sequence[Credentials]] = []
        self.now = 100.0
        self.passwords = Passwords(iterations)
        self.nobodies = Nobodies(b"secret", iterations)
        shard_map = ShardMap()
        shard_map.update(shard_of(JULIET), Epoch(1), ROUTER)
        self.calls = Calls(
            cast(Store, self), cast(Effects, self), self.passwords, cast(Registration, self), {},
            self.nobodies,
            shard_map, ROUTER, {},
        )  # fmt: skip

    async def run(self, statement: object, bare: str) -> Any:
        """Of the credentials, or of a ban."""
        if statement is restrictions.bans:
            return self.bans
        if statement is accounts.find:
            return accounts.Account(1, bare, 1, self.is_enabled, 1, 0.0, None, "") if bare in self.stored else None
        assert statement is accounts.credentials
        self.reads += 1
        return {one: {known.hash: known for known in self.stored.get(one, ())} for one in bare}

    def monotonic(self) -> float:
        return self.now

    async def upgrade(self, bare: str, credentials: Sequence[Credentials]) -> None:
        """As `accounts.upgrade_credentials` does."""
        self.upgraded.append(credentials)

    answer = create = set_password = delete = kick = log_out = send = (
        None  # nobody registers here, no other router is asked
    )

    async def ask(self, method: str, *arguments: Any) -> Any:
        return await self.calls.ask(JULIET, shard_of(JULIET), method, (JULIET, *arguments))

    async def is_proved(self, password: str, salt: tuple[bytes, int]) -> bool:
        """Whether the proof that a client makes of this password and salt is accepted."""
        key = hmac.digest(hashlib.pbkdf2_hmac("sha256", password.encode(), *salt), b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), AUTH_MESSAGE, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return await self.ask("auth.proof", "SHA-256", AUTH_MESSAGE, proof) is not None

    async def signs_in(self, password: str) -> tuple[bool, bool]:
        """By SCRAM, and by PLAIN."""
        scram = await self.is_proved(password, await self.ask("auth.salt", "SHA-256"))
        return scram, await self.ask("auth.password", password)


@pytest.mark.parametrize("stored", [(), derive_all("new")], ids=["removed", "changed"])
def test_an_old_password_is_void_at_once(stored: tuple[Credentials, ...]) -> None:
    """The change may have been made by the account's owner in band, through the API, or by an owner before this one:
    nobody tells of it here."""

    async def conversation() -> None:
        world = World()
        assert await world.signs_in("old") == (True, True)
        world.stored[JULIET] = stored
        assert await world.signs_in("old") == (False, False)
        assert await world.signs_in("new") == (bool(stored), bool(stored))
        world.passwords.stop()

    asyncio.run(conversation())


def test_a_ban_is_told_to_whoever_has_the_right_password_and_to_nobody_else() -> None:
    """RFC 6120, 6.5.2 and 6.5.10: nobody learns by guessing whether there is an account."""

    async def conversation() -> None:
        world = World()
        world.bans[JULIET] = Restriction("ban", "spam", "operator", 0.0, None)
        salt = await world.ask("auth.salt", "SHA-256")
        assert not await world.is_proved("wrong", salt)
        assert not await world.ask("auth.password", "wrong")
        for right in (partial(world.is_proved, "old", salt), partial(world.ask, "auth.password", "old")):
            with pytest.raises(CallError) as refused:
                await right()
            assert refused.value.condition == "account-disabled"
        assert await world.calls._answer("auth.password", (JULIET, "old")) == (
            False, ("account-disabled", "This account is disabled. Reason: spam"),
        )  # fmt: skip
        world.passwords.stop()

    asyncio.run(conversation())


def test_a_certificate_lets_in_who_has_an_account_that_may_sign_in() -> None:
    async def conversation() -> None:
        world = World()
        assert await world.ask("auth.certificate")
        nobody = "nobody@example.org"
        assert await world.calls._answer("auth.certificate", (nobody,)) == (True, False)
        world.bans[JULIET] = Restriction("ban", "spam", "operator", 0.0, None)
        assert await world.calls._answer("auth.certificate", (JULIET,)) == (
            False, ("account-disabled", "This account is disabled. Reason: spam"),
        )  # fmt: skip
        world.is_enabled = False
        assert await world.calls._answer("auth.certificate", (JULIET,)) == (False, "account-disabled")
        world.passwords.stop()

    asyncio.run(conversation())


def test_one_exchange_reads_the_credentials_once() -> None:
    async def conversation() -> None:
        world = World()
        salt = await world.ask("auth.salt", "SHA-256")
        assert await world.is_proved("old", salt)
        assert world.reads == 1
        assert await world.is_proved("old", salt), "two exchanges at a time: the second reads again"
        assert world.reads == 2
        world.passwords.stop()

    asyncio.run(conversation())


def test_an_exchange_that_is_told_of_a_change_or_is_slow_ends_with_what_is_true_then() -> None:
    async def conversation() -> None:
        world = World()
        salt = await world.ask("auth.salt", "SHA-256")
        world.stored[JULIET] = ()
        world.calls.forget(JULIET)
        assert not await world.is_proved("old", salt)
        world.stored[JULIET] = derive_all("old")
        salt = await world.ask("auth.salt", "SHA-256")
        world.stored[JULIET] = ()
        world.now += BEGUN_S
        assert not await world.is_proved("old", salt)
        world.passwords.stop()

    asyncio.run(conversation())


def test_who_does_not_exist_has_as_many_iterations_as_new_passwords_get() -> None:
    """Else the number would tell (RFC 5802, 9)."""

    async def conversation() -> None:
        world = World(iterations=5_000)
        salt, iterations = await world.calls.ask(
            "nobody@example.org", shard_of(JULIET), "auth.salt", ("nobody@example.org", "SHA-256")
        )
        assert (len(salt), iterations) == (16, 5_000)
        assert {found.iterations for found in await world.passwords.derive("pencil")} == {5_000}
        world.passwords.stop()

    asyncio.run(conversation())


def test_who_does_not_exist_has_what_those_have_who_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SCRAM shows and what PLAIN costs: for an account of before, and for a name that looks like one."""

    async def conversation() -> None:
        world = World(iterations=5_000)
        world.stored[JULIET] = derive_all("old", 4_096, ["SHA-256"])
        world.nobodies.learn([("example.org", {"SHA-256": 4_096}, 1)])
        derived: list[tuple[str, int]] = []

        def check(known: Credentials, password: str) -> bool:
            derived.append((known.hash, known.iterations))
            return False

        monkeypatch.setattr("xmpp.scram.check_password", check)
        seen = []
        for bare in (JULIET, "nobody@example.org"):
            salts = [
                await world.calls.ask(bare, shard_of(JULIET), "auth.salt", (bare, hash))
                for hash in ("SHA-1", "SHA-256", "SHA-512")
            ]
            assert not await world.calls.ask(bare, shard_of(JULIET), "auth.password", (bare, "guess"))
            seen.append([(len(salt), iterations) for salt, iterations in salts])
        assert seen == [[(16, 5_000), (16, 4_096), (16, 5_000)]] * 2
        assert derived == [("SHA-256", 4_096)] * 2
        world.passwords.stop()

    asyncio.run(conversation())


# --- upgrades (XEP-0480)


def test_an_account_lacks_what_a_new_password_would_give_it() -> None:
    """Hashes that are not there, and those of fewer iterations; in the order in which they are asked for."""

    async def conversation() -> None:
        world = World(iterations=5_000)
        world.stored[JULIET] = (*derive_all("old", 5_000, ["SHA-1"]), *derive_all("old", 4_096, ["SHA-256"]))
        lacking = await world.ask("auth.upgrades", ("SHA-512", "SHA-1", "SHA-256"))
        assert [(hash, len(salt), iterations) for hash, salt, iterations in lacking] == [
            ("SHA-512", 16, 5_000), ("SHA-256", 16, 5_000),
        ]  # fmt: skip
        assert lacking[0][1] != lacking[1][1], "each has a salt of its own"
        world.stored[JULIET] = derive_all("old", 10_000)
        assert await world.ask("auth.upgrades", ("SHA-512", "SHA-1", "SHA-256")) == ()
        world.passwords.stop()

    asyncio.run(conversation())


def test_what_a_client_gives_becomes_credentials_by_which_it_signs_in() -> None:
    async def conversation() -> None:
        world = World()
        world.stored[JULIET] = derive_all("old", 4_096, ["SHA-1"])
        ((hash, salt, iterations),) = await world.ask("auth.upgrades", ("SHA-256",))
        salted = hashlib.pbkdf2_hmac("sha256", b"old", salt, iterations)
        await world.ask("auth.upgrade", hash, salt, iterations, salted)
        ((given,),) = world.upgraded
        world.stored[JULIET] = (*world.stored[JULIET], given)
        assert await world.signs_in("old") == (True, True)
        assert await world.signs_in("new") == (False, False)
        world.passwords.stop()

    asyncio.run(conversation())


def test_plain_brings_the_password_so_nobody_needs_to_be_asked() -> None:
    """Behind the answer, and for the right password alone."""

    async def conversation() -> None:
        world = World(iterations=5_000)
        world.stored[JULIET] = (*derive_all("old", 4_096, ["SHA-1"]), *derive_all("old", 5_000, ["SHA-512"]))
        assert not await world.ask("auth.password", "wrong")
        assert not world.calls._tasks
        assert await world.ask("auth.password", "old")
        assert world.upgraded == []
        await asyncio.gather(*world.calls._tasks)
        (given,) = world.upgraded
        assert [(one.hash, one.iterations) for one in given] == [("SHA-1", 5_000), ("SHA-256", 5_000)]
        world.stored[JULIET] = (*given, world.stored[JULIET][1])
        assert await world.ask("auth.password", "old")
        assert not world.calls._tasks
        world.passwords.stop()

    asyncio.run(conversation())


def test_who_asks_an_owner_that_is_none_any_more_asks_again() -> None:
    """Shards move while a cluster starts: nobody is told to try again for that."""

    async def conversation() -> None:
        world = World()
        answers: list[Any] = [ResourceConstraint(MOVED), ResourceConstraint(MOVED), "done"]

        async def moved(bare: str) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        world.calls._methods["test"] = moved
        assert await world.ask("test") == "done"
        answers.append(ResourceConstraint("The database is away."))
        with pytest.raises(CallError):
            await world.ask("test")

    asyncio.run(conversation())
