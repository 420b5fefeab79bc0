"""Ad-hoc commands of a served domain (XEP-0050): features say which they have, `disco` lists them, and
`administration` answers the request. Payloads are in `xmpp/commands.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from router.turn import Turn
from xmpp import commands
from xmpp.commands import Command
from xmpp.errors import Forbidden, ItemNotFound
from xmpp.stanza import Stanza
from xmpp.xml import element

Run = Callable[[Turn, Stanza, Command, str], None]  # with the session id of the answer
May = Callable[[Turn, str], bool]  # whether whoever asks may run it at this domain


class _Known(NamedTuple):
    title: str
    may: May
    run: Run


_all: Final[dict[str, _Known]] = {}  # by node


def is_admin(turn: Turn) -> bool:
    """Whether whoever asks administers the cluster."""
    return turn.session is not None and turn.entity.bare in turn.settings.admins


def offer(node: str, title: str, may: May, run: Run) -> None:
    """Have a command."""
    assert node not in _all, f"two features have the command {node}"
    _all[node] = _Known(title, may, run)


def items(turn: Turn, domain: str) -> list[bytes]:
    """XEP-0050, 2.2: the commands that there are for whoever asks."""
    return [
        element("item", None, {"jid": domain, "node": node, "name": known.title})
        for node, known in _all.items()
        if known.may(turn, domain)
    ]


def run(turn: Turn, iq: Stanza) -> None:
    """Answer a request. Raises StanzaError."""
    command = commands.parse(iq)
    known = _all.get(command.node)
    if known is None:
        raise ItemNotFound("There is no such command.")
    if not known.may(turn, iq.to or ""):
        raise Forbidden("This is for others to do.")
    session = f"{turn.new_origin():x}"
    if command.action == "cancel":
        turn.answer(iq, commands.answer(command, session, "canceled"))
        return
    known.run(turn, iq, command, session)
