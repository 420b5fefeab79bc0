"""What operators do to rooms: calls of the administration API, run as turns of the room (docs/admin-api.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cluster.shards import shard_of
from router.rooms import administering, configuring, joining, retracting, scene
from router.rooms import config as configs
from router.rooms.config import RoomConfig
from router.rooms.policy import Affiliation, affiliation_of
from router.rooms.room import Room
from router.rooms.scene import Frame
from router.turn import Turn
from storage import erasures, rooms
from storage.log import Row
from xmpp.errors import BadRequest, Conflict, ItemNotFound, NotAcceptable
from xmpp.jid import bare_of
from xmpp.stanza import Stanza
from xmpp.xml import text_of

Command = Callable[[str, Callable[[Turn], None]], Awaitable[None]]


class Operating:
    """Rooms of shards owned here. `command` runs a function as a turn (`router/registration.py`), `make` gives a name
    a key, `read` reads rows of the log. Each method raises a StanzaError that says what is wrong."""

    def __init__(
        self,
        command: Command,
        make: Callable[[str, int], Awaitable[int]],
        read: Callable[[int, Sequence[int]], Awaitable[Sequence[Row]]],
    ) -> None:
        self._command = command
        self._make = make
        self._read = read

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {
            "rooms.create": self.create,
            "rooms.show": self.show,
            "rooms.set": self.set,
            "rooms.affiliations": self.affiliations,
            "rooms.affiliate": self.affiliate,
            "rooms.occupants": self.occupants,
            "rooms.destroy": self.destroy,
            "rooms.forget": self.forget,
            "rooms.bury": self.bury,
        }

    async def create(self, bare: str, options: Mapping[str, str], owner: str) -> None:
        """Make a room that stays, whether anybody is in it or not; `owner` is a bare JID, "" for none."""
        key = await self._make(bare, shard_of(bare))

        def run(turn: Turn) -> None:
            if turn.entity.room is not None:
                raise Conflict
            config = changed(turn.settings.room_defaults, {"persistentroom": "1", **options})
            room = joining.make_room(turn, key, config, is_locked=False)
            if owner:
                administering.set_affiliation(turn, room, owner, Affiliation.OWNER)

        await self._command(bare, run)

    async def show(self, bare: str) -> dict[str, Any]:
        """The configuration, the subject, how many are in it."""
        shown: dict[str, Any] = {}

        def run(turn: Turn) -> None:
            room = _room(turn)
            subject = "" if room.subject is None else subject_text(room.subject)
            shown.update(config=configs.told(room.config), subject=subject, occupants=len(room.nicks))

        await self._command(bare, run)
        return shown

    async def set(self, bare: str, options: Mapping[str, str]) -> dict[str, Any]:
        """Change the configuration; returns it."""

        def run(turn: Turn) -> None:
            room = _room(turn)
            configuring.configure(turn, room, changed(room.config, options))

        await self._command(bare, run)
        return await self.show(bare)

    async def affiliations(self, bare: str) -> dict[str, str]:
        """Everybody's, by bare JID."""
        found: dict[str, str] = {}

        def run(turn: Turn) -> None:
            found.update((jid, has.word) for jid, has in sorted(_room(turn).affiliations.items()))

        await self._command(bare, run)
        return found

    async def affiliate(self, bare: str, jid: str, word: str) -> None:
        """Give somebody an affiliation ("none" takes it away)."""
        new = affiliation_of(word)

        def run(turn: Turn) -> None:
            administering.check_room_for(turn, _room(turn), (bare_of(jid),))
            administering.set_affiliation(turn, _room(turn), bare_of(jid), new)

        await self._command(bare, run)

    async def occupants(self, bare: str) -> list[tuple[str, str, str]]:
        """Who is in it: nickname, full JID, role."""
        found: list[tuple[str, str, str]] = []

        def run(turn: Turn) -> None:
            found.extend((o.nick, o.jid, o.role.word) for o in _room(turn).occupants.values())

        await self._command(bare, run)
        return sorted(found)

    async def destroy(self, bare: str) -> None:
        """End a room, with everything that was said in it."""
        await self._command(bare, lambda turn: configuring.end(turn, _room(turn), Frame(is_gone=True)))

    async def forget(self, bare: str, jid: str) -> dict[str, int]:
        """Somebody is erased: they leave, and are nothing to the room; returns what was removed, by kind."""
        removed: dict[str, int] = {}

        def run(turn: Turn) -> None:
            room: Room | None = turn.entity.room
            if room is None:
                return
            removed["room_affiliations"] = int(jid in room.versions or jid in room.affiliations)
            removed["room_nicknames"] = sum(owner == jid for owner in room.reserved.values())
            removed["room_occupancies"] = sum(occupant.bare == jid for occupant in room.left.values())
            if room.affiliation(jid) != Affiliation.NONE:
                administering.set_affiliation(turn, room, jid, Affiliation.NONE)
            inside = room.sessions_of(jid)
            removed["room_occupancies"] += len(inside)
            for occupant in inside:
                joining.depart(turn, room, occupant, Frame(is_gone=True, codes=(scene.KICKED,)))
            if turn.entity.room is None:
                return  # it went with the last who was in it
            removed["room_hats"] = room.hats.undress(jid)
            if removed["room_hats"]:
                turn.write(rooms.set_hats, room.key, room.hats.to_json())
            room.forget(jid)
            turn.write(erasures.forget_in_room, room.key, jid)

        await self._command(bare, run)
        return removed

    async def bury(self, bare: str, key: int, ids: Sequence[int]) -> int:
        """Messages of somebody who is erased become tombstones (XEP-0424, 5); returns how many."""
        rows = await self._read(key, ids)

        def run(turn: Turn) -> None:
            room: Room | None = turn.entity.room
            if room is not None and room.key == key:
                retracting.erase(turn, room, rows)

        await self._command(bare, run)
        return len(rows)


def _room(turn: Turn) -> Room:
    room: Room | None = turn.entity.room
    if room is None:
        raise ItemNotFound
    return room


def changed(config: RoomConfig, options: Mapping[str, str]) -> RoomConfig:
    """A configuration with these options, named and written as in the form; several values are parted by commas."""
    try:
        return configs.with_options(config, options)
    except NotAcceptable as problem:
        raise BadRequest(problem.text) from problem


def subject_text(message: Stanza) -> str:
    """The text of a subject."""
    return text_of(next((child for child in message.children() if child.tag.endswith("}subject")), None))
