"""Service administration by ad-hoc commands (XEP-0133 by XEP-0050): what operators ask from any client, and how they
keep an account out. The rest of what changes something is done by `stentor` and the administration API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from router import commands as server_commands
from router.feature import At, Feature
from router.turn import Statement, Turn
from storage import accounts, sessions
from xmpp import commands, forms, ns
from xmpp.commands import Command
from xmpp.disco import Form, result_form
from xmpp.errors import BadRequest, ItemNotFound, JidError
from xmpp.forms import Field
from xmpp.jid import JID, domain_of
from xmpp.stanza import Stanza

feature = Feature("administration", xep=((133, "1.3.1"),), server_features=(ns.COMMANDS,))

_ADMIN: Final = "http://jabber.org/protocol/admin"
LISTED: Final = 500  # addresses in an answer


class _Kind(NamedTuple):
    """A command: its title, the field of the answer, what the database is asked, and what becomes of that."""

    title: str
    field: str
    statement: Statement
    arguments: Callable[[str], tuple[Any, ...]]
    values: Callable[[Any], tuple[str, ...]]


def _jids(rows: Any) -> tuple[str, ...]:
    return tuple(row.jid for row in rows)


def _full_jids(rows: Any) -> tuple[str, ...]:
    return tuple(f"{row.bare}/{row.resource}" for row in rows)


_KINDS: Final = {
    # XEP-0133, 4.13, 4.15, 4.18, 4.20
    "get-registered-users-num": _Kind(
        "Number of accounts", "registeredusersnum", accounts.count, lambda domain: (domain,), lambda n: (str(n),)
    ),
    "get-online-users-num": _Kind(
        "Number of sessions", "onlineusersnum", sessions.count, lambda domain: ("", domain, ""), lambda n: (str(n),)
    ),
    "get-registered-users-list": _Kind(
        "Accounts", "registereduserjids", accounts.list_, lambda domain: (domain, "", LISTED), _jids
    ),
    "get-online-users-list": _Kind(
        "Sessions", "onlineuserjids", sessions.list_, lambda domain: ("", domain, "", "", LISTED), _full_jids
    ),
}


class _Change(NamedTuple):
    """A command that changes accounts: its title, the method of their owners, what that gets besides (of the form's
    reason and of whoever asks), the fields of the form."""

    title: str
    method: str
    arguments: Callable[[str, str], tuple[Any, ...]]
    fields: tuple[Field, ...]


_JIDS: Final = Field("accountjids", "jid-multi", (), "The accounts")
_REASON: Final = Field("reason", "text-single", (), "What their users are told")
_CHANGES: Final = {
    # XEP-0133, 4.4, 4.5
    "disable-user": _Change(
        "Disable accounts", "admin.restrict", lambda reason, by: ("ban", reason, by), (_JIDS, _REASON)
    ),
    "reenable-user": _Change("Enable accounts again", "admin.unrestrict", lambda reason, by: ("ban", by), (_JIDS,)),
}


def _run(kind: _Kind, turn: Turn, iq: Stanza, command: Command, session: str) -> None:
    """XEP-0133, 4: each of them is done at once, for the domain that is asked."""
    then = partial(_found, iq, command, session, kind)
    turn.fetch(kind.statement, then, *kind.arguments(domain_of(iq.to or "")))


def _change(change: _Change, turn: Turn, iq: Stanza, command: Command, session: str) -> None:
    """What changes something has a form."""
    if command.form is None:
        form = forms.to_fill_in(_ADMIN, change.fields)
        turn.answer(iq, commands.answer(command, session, "executing", form))
        return
    given = dict(command.form.fields)
    bares = list(dict.fromkeys(_bare(turn, jid) for jid in given.get(_JIDS.var, ())))
    if not 0 < len(bares) <= LISTED:
        raise BadRequest(f"Name an account, and {LISTED} at most.")
    arguments = change.arguments(" ".join(given.get(_REASON.var, ())), turn.entity.bare)
    _change_next(iq, command, session, change.method, bares, arguments, turn, None)


def _change_next(
    iq: Stanza, command: Command, session: str, method: str, bares: list[str], arguments: tuple[Any, ...], turn: Turn,
    value: Any,
) -> None:  # fmt: skip
    """One after the other, by their owners; where one of them refuses, the rest is as it was."""
    if not bares:
        turn.answer(iq, commands.answer(command, session, "completed"))
        return
    first, *others = bares
    turn.call(first, method, partial(_change_next, iq, command, session, method, others, arguments), *arguments)


def _bare(turn: Turn, text: str) -> str:
    try:
        jid = JID.parse(text)
    except JidError as problem:
        raise BadRequest(f"'{text[:100]}' is not a JID.") from problem
    if jid.domain not in turn.settings.domains or not jid.local:
        raise ItemNotFound(f"{jid} is no account of this server.")
    return jid.bare


def _found(iq: Stanza, command: Command, session: str, kind: _Kind, turn: Turn, value: Any) -> None:
    form = result_form(Form(_ADMIN, ((kind.field, kind.values(value)),)))
    turn.answer(iq, commands.answer(command, session, "completed", form))


@feature.on_iq("set", ns.COMMANDS, "command", at=At.SERVER)
def run(turn: Turn, iq: Stanza) -> None:
    """XEP-0050, 2.4: this one, or another feature's (`router/commands.py`)."""
    server_commands.run(turn, iq)


for _name, _kind in _KINDS.items():
    server_commands.offer(
        f"{_ADMIN}#{_name}", _kind.title, lambda turn, domain: server_commands.is_admin(turn), partial(_run, _kind)
    )
for _name, _change_kind in _CHANGES.items():
    server_commands.offer(
        f"{_ADMIN}#{_name}",
        _change_kind.title,
        lambda turn, domain: server_commands.is_admin(turn),
        partial(_change, _change_kind),
    )
