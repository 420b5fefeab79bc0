"""What operators do in the place of accounts, or write to them: calls of the administration API, run as turns of the
account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from router import roster_changes
from router.features import roster
from router.roster_changes import Asked
from router.subscription_table import State, apply
from router.turn import Turn
from xmpp import stanza as stanzas
from xmpp.errors import ItemNotFound
from xmpp.jid import domain_of
from xmpp.stanza import HAS_BODY
from xmpp.xml import element

Command = Callable[[str, Callable[[Turn], None]], Awaitable[None]]
MessageType = Literal["normal", "chat", "headline"]


class Tending:
    """Accounts of shards owned here. `command` runs a function as a turn (`router/registration.py`). Each method raises
    ItemNotFound where there is no such account."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {
            "admin.roster_add": self.add_contact,
            "admin.roster_del": self.remove_contact,
            "admin.message": self.message,
        }

    async def add_contact(self, bare: str, jid: str, name: str, groups: Sequence[str], subscription: str) -> None:
        """Put somebody into a roster, or change them there; clients are told. The other side is not asked: this is what
        the account believes. Raises what a client's request would."""

        def run(turn: Turn) -> None:
            entity = _account(turn)
            roster.update(turn, Asked(jid, name, tuple(groups), None))
            contact = entity.roster.contacts[jid]
            saw_us = contact.sees_us
            apply(contact, State((subscription, False, False)))
            contact.approved, contact.pending_inner = False, b""
            roster_changes.save(turn, contact)
            for session in entity.available() if contact.sees_us and not saw_us else ():
                assert session.presence is not None
                turn.send(session.presence._replace(to=jid))

        await self._command(bare, run)

    async def remove_contact(self, bare: str, jid: str) -> None:
        """Take somebody out of a roster, as its owner would; both sides are told."""

        def run(turn: Turn) -> None:
            _account(turn)
            roster.remove(turn, jid)

        await self._command(bare, run)

    async def message(self, bare: str, type_: MessageType, subject: str, text: str, id_: str) -> None:
        """Write to an account in the name of its domain."""

        def run(turn: Turn) -> None:
            _account(turn)
            words = element("subject", None, None, subject) if subject else b""
            words += element("body", None, None, text)
            turn.send(stanzas.message(to=bare, from_=domain_of(bare), id=id_, type=type_, inner=words, flags=HAS_BODY))

        await self._command(bare, run)


def _account(turn: Turn) -> Any:
    if turn.entity.key is None or not turn.entity.exists:
        raise ItemNotFound
    return turn.entity
