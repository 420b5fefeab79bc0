"""New accounts and new passwords: one way for whoever registers (`router/admission.py`) and for the administration API.

All go through the account's owner, as a turn: nobody changes an account behind its owner's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from cluster.shards import shard_of
from router import roster_changes
from router.entity import Entity
from router.features import account
from router.features import devices as devices_feature
from router.owner import Owner
from router.subscription_table import State, apply
from router.turn import Turn
from storage import accounts, devices, erasures, invitations
from xmpp.errors import Conflict, Gone, ItemNotFound, NotAcceptable, NotAllowed, ResourceConstraint
from xmpp.jid import JID, domain_of
from xmpp.scram import Credentials, UnusablePassword

WAIT_S: Final = 10.0
MOVED: Final = "The owner of the account has just changed. Try again."
TAKEN: Final = "An account of this name exists."

T = TypeVar("T")
Derive = Callable[[str], Any]
Read = Callable[..., Awaitable[Any]]
Also = Callable[[Turn], None]


def _nothing(turn: Turn) -> None:
    pass


class Registration:
    """Creates and changes accounts of shards owned here."""

    def __init__(self, owner: Owner, derive: Derive, changed: Callable[[str], None], read: Read) -> None:
        self._owner = owner
        self._derive = derive
        self._read = read  # `Store.run`
        self._changed = changed  # the account's cached credentials are void

    async def create(self, bare: str, password: str, also: Also = _nothing, is_reused: bool = False) -> None:
        """Make an account; `also` says what else is written in that transaction. Raises Conflict where it exists, Gone
        where there was one until lately (unless `is_reused`) or is to some extent still, NotAcceptable for an unusable
        password."""
        self.refuse_elsewhere(domain_of(bare))
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
            also(turn)
            turn.reloads = True  # the new account's key is the database's to give

        await self.command(bare, run)

    async def admit(self, bare: str, also: Also = _nothing, credentials: Sequence[Credentials] = ()) -> None:
        """Make an account, without credentials for somebody whom a back end knows or who is a guest, else with those
        that another server had; `also` as above. One that exists stays as it is."""

        def run(turn: Turn) -> None:
            entity = turn.entity
            if not entity.exists:
                turn.write(accounts.create, bare, entity.shard, credentials)
                also(turn)
                turn.reloads = True

        await self.command(bare, run)

    def refuse_elsewhere(self, domain: str) -> None:
        """Raises NotAllowed where passwords are not kept here."""
        if (words := self._owner.settings.passwords_elsewhere.get(domain)) is not None:
            raise NotAllowed(words)

    async def set_password(self, bare: str, password: str, also: Also = _nothing) -> None:
        """Give an account a new password; `also` as above. Raises ItemNotFound where there is no such account."""
        self.refuse_elsewhere(domain_of(bare))
        if not await self._exists(bare):
            raise ItemNotFound
        credentials = await self._credentials(password)

        def run(turn: Turn) -> None:
            if turn.entity.key is None:
                raise ItemNotFound
            turn.write(accounts.set_credentials, turn.entity.key, credentials)
            turn.write(devices.invalidate_all, turn.entity.key, b"")
            also(turn)

        await self.command(bare, run)

    async def upgrade(self, bare: str, credentials: Sequence[Credentials]) -> None:
        """Give an account more of the same password (XEP-0480). Raises ItemNotFound where there is no such account."""
        self.refuse_elsewhere(domain_of(bare))

        def run(turn: Turn) -> None:
            if turn.entity.key is None:
                raise ItemNotFound
            turn.write(accounts.upgrade_credentials, turn.entity.key, credentials)

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
        days = self._owner.settings.reuse_after_days

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
        if domain_of(bare) in self._owner.settings.domains:
            await self.command(bare, run)
        else:
            id_ = self._owner.effects.new_id()
            await self._read(erasures.begin, id_, bare, shard_of(bare), with_rooms, "operator", 0)
        found: int | None = await self._read(erasures.newest, bare)
        assert found is not None
        return found

    async def replace_credentials(self, bare: str, credentials: Sequence[Credentials]) -> None:
        """Give an account the credentials that another server has for it. Raises ItemNotFound."""

        def run(turn: Turn) -> None:
            if turn.entity.key is None:
                raise ItemNotFound
            turn.write(accounts.set_credentials, turn.entity.key, credentials)
            turn.write(devices.invalidate_all, turn.entity.key, b"")

        await self.command(bare, run)

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

    async def log_out(self, bare: str, device: bytes) -> int:
        """Void the tokens of one device, or of all (b""), and end its sessions, or all; returns how many. Raises
        ItemNotFound where there is no such account."""
        ended = 0

        def run(turn: Turn) -> None:
            nonlocal ended
            if turn.entity.key is None:
                raise ItemNotFound
            if device:
                devices_feature.log_out(turn, device)
            else:
                devices_feature.log_out_everywhere(turn)
            ended = len(turn.closing)

        await self.command(bare, run)
        return ended

    async def befriend(self, bare: str, contact: str) -> None:
        """Somebody whom this account has invited has an account now: each sees the other's presence, and the inviter's
        clients are told (XEP-0401, 4.5). Raises ItemNotFound."""

        def run(turn: Turn) -> None:
            entity = turn.entity
            if entity.key is None:
                raise ItemNotFound
            known = roster_changes.contact_of(entity, contact)
            apply(known, State.BOTH)
            known.approved, known.pending_inner, known.in_roster = False, b"", True
            roster_changes.save(turn, known)
            turn.write(invitations.tell, bare, contact)
            for session in entity.available():
                assert session.presence is not None
                turn.send(session.presence._replace(to=contact))

        await self.command(bare, run)

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
            raise ResourceConstraint(MOVED)
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
