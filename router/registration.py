"""New accounts and new passwords: one way for clients before they sign in (XEP-0077) and for the administration API.

Both go through the account's owner, as a turn: nobody changes an account behind its owner's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from cluster.shards import shard_of
from router.entity import Entity
from router.features import account
from router.owner import Owner
from router.settings import Settings
from router.turn import Turn
from storage import accounts, erasures
from xmpp.errors import (
    BadRequest,
    Conflict,
    Gone,
    ItemNotFound,
    NotAcceptable,
    ResourceConstraint,
    ServiceUnavailable,
    UnexpectedRequest,
)
from xmpp.jid import JID, domain_of
from xmpp.scram import Credentials, UnusablePassword

WAIT_S: Final = 10.0
TAKEN: Final = "An account of this name exists."

T = TypeVar("T")
Derive = Callable[[str], Any]
Read = Callable[..., Awaitable[Any]]


class Registration:
    """Creates and changes accounts of shards owned here."""

    def __init__(
        self, owner: Owner, settings: Settings, derive: Derive, changed: Callable[[str], None], read: Read
    ) -> None:
        self._owner = owner
        self._settings = settings
        self._derive = derive
        self._read = read  # `Store.run`
        self._changed = changed  # the account's cached credentials are void

    async def answer(self, domain: str, type: str, given: Mapping[str, str], address: str) -> bytes:
        """An in-band registration request of an unauthenticated stream (XEP-0077, 3.1). Raises StanzaError."""
        if self._settings.registration_mode != "open":
            raise ServiceUnavailable("Accounts are not made this way here.")
        if type == "get":
            return account.registration_form(self._settings, domain)
        if type != "set":
            raise BadRequest
        if "remove" in given:
            raise UnexpectedRequest("Sign in first.")  # XEP-0077, 3.2, table
        jid = account.check_new_account(self._settings, domain, given.get("username", ""), given.get("password", ""))
        try:
            await self.create(jid.bare, given["password"])
        except Gone:
            raise Conflict(TAKEN) from None  # whether there was one is nobody's business
        return b""

    async def create(self, bare: str, password: str, is_reused: bool = False) -> None:
        """Make an account. Raises Conflict where it exists, Gone where there was one until lately (unless `is_reused`)
        or is to some extent still, NotAcceptable for an unusable password."""
        if await self._exists(bare):  # before the dear part; meanwhile another may be faster, so the turn looks again
            raise Conflict(TAKEN)
        credentials = await self._credentials(password)
        if await self._read(erasures.is_reserved, bare, not is_reused):
            raise Gone("An account of this name was erased.")

        def run(turn: Turn) -> None:
            entity = turn.entity
            if entity.exists:
                raise Conflict(TAKEN)
            turn.write(accounts.create, bare, entity.shard, credentials)
            turn.reloads = True  # the new account's key is the database's to give

        await self.command(bare, run)

    async def set_password(self, bare: str, password: str) -> None:
        """Give an account a new password. Raises ItemNotFound where there is no such account."""
        if not await self._exists(bare):
            raise ItemNotFound
        credentials = await self._credentials(password)

        def run(turn: Turn) -> None:
            if turn.entity.key is None:
                raise ItemNotFound
            turn.write(accounts.set_credentials, turn.entity.key, credentials)

        await self.command(bare, run)

    async def delete(self, bare: str) -> None:
        """Erase an account with everything that belongs to it; its contacts are told. Raises ItemNotFound."""

        def run(turn: Turn) -> None:
            if turn.entity.key is None:
                raise ItemNotFound
            account.remove_account(turn, "operator")
            self._owner.pipeline.tell(turn)

        await self.command(bare, run)

    async def erase(self, bare: str, with_rooms: bool) -> int:
        """Erase a name, whether it has an account, has had one, or is of another server; returns what the erasure is
        called (storage/erasures.py)."""
        days = self._settings.reuse_after_days

        def run(turn: Turn) -> None:
            if turn.entity.key is not None:
                account.remove_account(turn, "operator", with_rooms)
                self._owner.pipeline.tell(turn)
            else:
                id_ = turn.new_origin()
                turn.write(erasures.begin, id_, bare, turn.entity.shard, with_rooms, "operator", days)

        known: int | None = await self._read(erasures.find_pending, bare)
        if known is not None:
            return known
        if domain_of(bare) in self._settings.domains:
            await self.command(bare, run)
        else:
            id_ = self._owner.effects.new_id()
            await self._read(erasures.begin, id_, bare, shard_of(bare), with_rooms, "operator", 0)
        found: int | None = await self._read(erasures.newest, bare)
        assert found is not None
        return found

    async def settle(self, bare: str) -> None:
        """Everything that was decided for an account before is in the database."""
        await self._exists(bare)

    async def kick(self, bare: str, resource: str) -> int:
        """End one session of an account, or all of them (resource ""); returns how many."""
        ended = 0

        def run(turn: Turn) -> None:
            nonlocal ended
            for session in list(turn.entity.sessions.values()):
                if resource in ("", session.resource):
                    turn.close(session, "policy-violation")
                    ended += 1

        await self.command(bare, run)
        return ended

    async def _credentials(self, password: str) -> tuple[Credentials, ...]:
        try:
            derived: tuple[Credentials, ...] = await self._derive(password)
        except UnusablePassword as problem:
            raise NotAcceptable(str(problem) or "This password cannot be used.") from problem
        return derived

    async def command(self, bare: str, run: Callable[[Turn], None]) -> None:
        """Run a function as a turn of an entity owned here and wait until it is durable. What `run` raises is raised
        here. Raises ResourceConstraint (wait) where the shard is not here or the database is away."""
        owner = self._owner
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def released() -> None:
            self._changed(bare)
            if not done.done():
                done.set_result(None)

        def act(entity: Entity) -> None:
            owner.act(entity, lambda turn: _run_guarded(turn, run, done), released)

        await self._when_loaded(bare, act, done)

    async def _exists(self, bare: str) -> bool:
        """Whether there is such an account, as of now. Raises ResourceConstraint as `command` does."""
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def look(entity: Entity) -> None:
            if not found.done():
                found.set_result(entity.exists)

        return await self._when_loaded(bare, look, found)

    async def _when_loaded(self, bare: str, act: Callable[[Entity], None], done: asyncio.Future[T]) -> T:
        """Call `act` as an input of the entity, and wait until it is `done`."""
        owner = self._owner
        entity = owner.entity(str(JID.parse(bare)))
        if entity is None:
            raise ResourceConstraint("The owner of the account has just changed. Try again.")
        owner.begin()
        owner.when_loaded(entity, partial(act, entity))
        owner.end()
        try:
            return await asyncio.wait_for(done, WAIT_S)
        except TimeoutError as problem:
            raise ResourceConstraint("The database is away. Try again.") from problem


def _run_guarded(turn: Turn, run: Callable[[Turn], None], done: asyncio.Future[None]) -> None:
    try:
        run(turn)
    except Exception as problem:
        turn.drop_effects()
        if not done.done():
            done.set_exception(problem)
