"""The calls by which an import reaches the owner of an account or a room: each thing, one after the other, and what
became of it. Things of one kind that follow each other are one turn. Everything may be repeated."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final

from cluster.shards import shard_of
from router.importing import accounts, messages, nodes, rooms
from router.importing.messages import Draft
from router.importing.reading import Unfit
from router.importing.results import DONE, IMPORTED, KNOWN, Result, Thing, left_out
from router.owner import Owner
from router.pubsub.node import host_of
from router.registration import Registration
from router.turn import Turn
from storage import accounts as stored_accounts
from storage import erasures, importing, private, vcards
from storage import log as rows_log
from storage import rooms as stored_rooms
from storage.log import ARCHIVE, QUEUE, Row
from storage.store import Store
from xmpp.jid import domain_of
from xmpp.scram import Credentials, UnusablePassword

KINDS: Final = {
    "account": (
        "account", "contact", "request", "block", "vcard", "private", "preferences", "node", "item", "message",
        "waiting",
    ),
    "room": ("room", "affiliation", "message"),
}  # fmt: skip
NOBODY: Final = -1  # the key of an account that is not there yet: of a dry run
Derive = Callable[[str], Awaitable[tuple[Credentials, ...]]]


class Importing:
    """Accounts and rooms of shards owned here. `archive_days`, `offline_days`: how long rows stay (0: for ever)."""

    def __init__(
        self, store: Store, owner: Owner, registration: Registration, derive: Derive, archive_days: int,
        offline_days: int,
    ) -> None:  # fmt: skip
        self._store = store
        self._owner = owner
        self._registration = registration
        self._derive = derive
        self._days = {ARCHIVE: (archive_days, "archive.keep_days"), QUEUE: (offline_days, "archive.offline_days")}
        self._partitions: dict[int, set[int]] = {ARCHIVE: set(), QUEUE: set()}

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {"import.account": self.account, "import.room": self.room, "export.unread": self.unread}

    async def account(
        self, bare: str, things: Sequence[Thing], is_dry: bool, with_passwords: bool
    ) -> list[tuple[str, str]]:
        """Things of an account, the account itself among them or before. Raises ItemNotFound where there is none."""
        results: list[Result] = []
        for kind, group in groupby(things, key=lambda thing: str(thing["kind"])):
            some = list(group)
            if kind == "account":
                results += [await self._account(bare, thing, is_dry, with_passwords) for thing in some]
                continue
            account = await self._store.run(stored_accounts.find, bare)
            if account is None and not is_dry:
                results += [left_out("there is no such account")] * len(some)
                continue
            key = NOBODY if account is None else account.key
            if kind in ("message", "waiting"):
                results += await self._messages(bare, key, some, kind == "waiting", is_dry)
            else:
                results += await self._small(bare, key, kind, some, is_dry)
        return [(result.status, result.note) for result in results]

    # --- an account

    async def _account(self, bare: str, thing: Thing, is_dry: bool, with_passwords: bool) -> Result:
        exists = await self._store.run(stored_accounts.find, bare) is not None
        if exists and not with_passwords:
            return KNOWN
        if not exists and await self._store.run(erasures.is_reserved, bare, True):
            return left_out("it was erased here not long ago; stentor user add --reuse makes it anew")
        credentials, note = await self._credentials(bare, thing)
        if exists:
            known = (await self._store.run(stored_accounts.credentials, [bare])).get(bare, {})
            if not credentials or (thing["credentials"] and set(known.values()) == set(credentials)):
                return KNOWN
            if not is_dry:
                await self._registration.replace_credentials(bare, credentials)
            return Result(IMPORTED, "it exists, and has the password of the other server now")
        if not is_dry:
            await self._registration.admit(bare, credentials=credentials)
        return Result(IMPORTED, note)

    async def _credentials(self, bare: str, thing: Thing) -> tuple[tuple[Credentials, ...], str]:
        elsewhere = self._owner.settings.passwords_elsewhere.get(domain_of(bare))
        if elsewhere is not None:
            return (), "its password is checked elsewhere (authentication.domains)"
        if thing["credentials"]:
            return tuple(
                Credentials(
                    one["hash"], b64decode(one["salt"]), one["iterations"], b64decode(one["stored_key"]),
                    b64decode(one["server_key"]),
                )
                for one in thing["credentials"]
            ), ""  # fmt: skip
        if thing["password"]:
            try:
                return await self._derive(thing["password"]), ""
            except UnusablePassword as problem:
                return (), f"without a password: {problem}"
        return (), "without a password: stentor user passwd gives it one"

    # --- what is small

    async def _small(self, bare: str, key: int, kind: str, things: list[Thing], is_dry: bool) -> list[Result]:
        run = self._store.run
        one: Callable[[Turn, Thing], Result]
        also: Callable[[Turn], None] | None = None
        if kind == "vcard":
            has_one = await run(vcards.get, key) is not None
            one = lambda turn, thing: accounts.vcard(turn, thing, has_one, is_dry)  # noqa: E731
        elif kind == "private":
            names = set(await run(importing.private_names, key))
            free = self._owner.settings.private_bytes - await run(private.total_size, key)
            one = _private(names, free, is_dry)
        elif kind == "node":
            one = lambda turn, thing: nodes.node(turn, thing, is_dry)  # noqa: E731
        elif kind == "item":
            known = await self._items(bare, things)
            one = _item(known, is_dry)
            touched = {thing["node"] for thing in things}
            if not is_dry:
                also = lambda turn: nodes.trimmed(turn, touched)  # noqa: E731
        else:
            function = accounts.CALLS[kind]
            one = lambda turn, thing: function(turn, thing, is_dry)  # noqa: E731
        return await self._turn(bare, things, one, also)

    async def _items(self, bare: str, things: Sequence[Thing]) -> set[tuple[str, str]]:
        """Those of these items that are there."""
        keys: dict[str, int] = {}

        def look(turn: Turn) -> None:
            keys.update({node.name: node.key for node in host_of(turn.entity).nodes.values()})

        await self._registration.command(bare, look)
        found: set[tuple[str, str]] = set()
        for name in {thing["node"] for thing in things} & keys.keys():
            ids = [thing["id"] for thing in things if thing["node"] == name]
            found |= {(name, id_) for id_ in await self._store.run(importing.item_ids, keys[name], ids)}
        return found

    async def _turn(
        self, bare: str, things: Sequence[Thing], one: Callable[[Turn, Thing], Result],
        also: Callable[[Turn], None] | None = None,
    ) -> list[Result]:  # fmt: skip
        results: list[Result] = []

        def run(turn: Turn) -> None:
            results.clear()
            for thing in things:
                try:
                    results.append(one(turn, thing))
                except Unfit as problem:
                    results.append(left_out(str(problem)))
            if also is not None and any(result.status == IMPORTED for result in results):
                also(turn)
            if turn.entity.room is None and not turn.entity.is_room:
                self._owner.pipeline.tell(turn)

        await self._registration.command(bare, run)
        return results

    # --- the archive, and what waits

    async def _messages(
        self, bare: str, key: int, things: Sequence[Thing], is_waiting: bool, is_dry: bool
    ) -> list[Result]:
        class_ = QUEUE if is_waiting else ARCHIVE
        read = messages.drafted_waiting if is_waiting else messages.draft
        results, drafts = self._read(things, lambda thing: read(bare, thing), class_)
        near = messages.NEAR_US if is_waiting else 0
        known = await self._prepare(key, class_, list(drafts.values()), near, is_dry)
        write = messages.wait if is_waiting else messages.archive
        found: list[Result] = []

        def run(turn: Turn) -> None:
            found[:] = write(turn, list(drafts.values()), known, is_dry)

        await self._registration.command(bare, run)
        return _merged(results, drafts, found)

    def _read(
        self, things: Sequence[Thing], read: Callable[[Thing], Any], class_: int
    ) -> tuple[list[Result], dict[int, Any]]:
        """A result for each thing that cannot come along, and drafts of the others by their places."""
        days, setting = self._days[class_]
        results, drafts = [DONE] * len(things), dict[int, Any]()
        for index, thing in enumerate(things):
            try:
                messages.check_time(thing["at"], self._owner.effects.wall(), days, setting)
                drafts[index] = read(thing)
            except Unfit as problem:
                results[index] = left_out(str(problem))
        return results, drafts

    async def _prepare(self, key: int, class_: int, drafts: Collection[Draft], near_us: int, is_dry: bool) -> list[Row]:
        """Rows that may be the same, once the partitions for these are there."""
        if not drafts:
            return []
        numbers = {rows_log.period_of(class_, one.id) for one in drafts} - self._partitions[class_]
        if numbers and not is_dry:
            await self._store.run(rows_log.make_partitions, class_, sorted(numbers))
            self._partitions[class_] |= numbers
        found: list[Row] = await self._store.run(importing.rows_between, key, messages.ranges_of(drafts, near_us))
        return found

    async def unread(self, bare: str) -> list[int]:
        """The ids of what nobody has got of an account, in order."""
        found: list[int] = []

        def look(turn: Turn) -> None:
            found[:] = sorted({*turn.entity.offline, *turn.entity.strays})

        await self._registration.command(bare, look)
        return found

    # --- rooms

    async def room(self, bare: str, things: Sequence[Thing], is_dry: bool) -> list[tuple[str, str]]:
        """Things of a room, the room itself among them or before."""
        results: list[Result] = []
        for kind, group in groupby(things, key=lambda thing: str(thing["kind"])):
            some = list(group)
            if kind == "room":
                key = 0 if is_dry else await self._store.run(stored_rooms.make, bare, shard_of(bare))
                results += await self._turn(bare, some, partial(_room, key, is_dry))
            elif kind == "affiliation":
                results += await self._turn(bare, some, lambda turn, thing: rooms.affiliation(turn, thing, is_dry))
            else:
                results += await self._said(bare, some, is_dry)
        return [(result.status, result.note) for result in results]

    async def _said(self, bare: str, things: Sequence[Thing], is_dry: bool) -> list[Result]:
        results, drafts = self._read(things, lambda thing: rooms.draft(bare, thing), ARCHIVE)
        keys: list[int] = []

        def look(turn: Turn) -> None:
            if turn.entity.room is not None:
                keys[:] = [turn.entity.room.key]

        await self._registration.command(bare, look)
        found: list[Result] = []
        known: list[Row] = []
        if keys:
            known = await self._prepare(keys[0], ARCHIVE, [one for one, _ in drafts.values()], 0, is_dry)

        def run(turn: Turn) -> None:
            found[:] = rooms.said(turn, list(drafts.values()), known, is_dry)

        await self._registration.command(bare, run)
        return _merged(results, drafts, found)


def _room(key: int, is_dry: bool, turn: Turn, thing: Thing) -> Result:
    return rooms.room(turn, thing, key, is_dry)


def _private(names: set[str], free: int, is_dry: bool) -> Callable[[Turn, Thing], Result]:
    left = [free]

    def one(turn: Turn, thing: Thing) -> Result:
        result, size = accounts.private(turn, thing, names, left[0], is_dry)
        left[0] -= size
        return result

    return one


def _item(known: set[tuple[str, str]], is_dry: bool) -> Callable[[Turn, Thing], Result]:
    def one(turn: Turn, thing: Thing) -> Result:
        node = thing["node"]
        ids = {id_ for name, id_ in known if name == node}
        result = nodes.item(turn, thing, ids, is_dry)
        if result.status == IMPORTED:
            known.add((node, thing["id"]))
        return result

    return one


def _merged(results: list[Result], drafts: dict[int, Any], found: Sequence[Result]) -> list[Result]:
    for index, result in zip(drafts, found, strict=True):
        results[index] = result
    return results
