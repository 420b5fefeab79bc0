"""Service administration by ad-hoc commands (XEP-0133 by XEP-0050): what operators do from any client. Each is a
command of the administration (`router/adhoc.py`), with the same checks and the same row of the audit
log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from router import commands as server_commands
from router.adhoc import FORM, NODES, Adhoc, Use
from router.feature import At, Feature
from router.turn import Turn
from xmpp import commands, forms, ns
from xmpp.commands import Command
from xmpp.disco import Form, result_form
from xmpp.jid import domain_of
from xmpp.stanza import Stanza

feature = Feature("administration", xep=((133, "1.3.1"),), server_features=(ns.COMMANDS,))

METHOD: Final = "administration.run"  # of the router that owns the administrator, and of no other process


def _run(adhoc: Adhoc, turn: Turn, iq: Stanza, command: Command, session: str) -> None:
    """A form first, where there is one; then its commands one after the other: where one is refused, the rest is as it
    was, and those before stay done."""
    if adhoc.fields and command.form is None:
        turn.answer(iq, commands.answer(command, session, "executing", forms.to_fill_in(FORM, adhoc.fields)))
        return
    filled = dict(command.form.fields) if command.form is not None else {}
    uses = adhoc.uses(domain_of(iq.to or ""), filled)
    _use_next(adhoc, iq, command, session, uses, [], turn)


def _use_next(
    adhoc: Adhoc, iq: Stanza, command: Command, session: str, uses: list[Use], answers: list[Any], turn: Turn
) -> None:
    if not uses:
        told = adhoc.told(answers)
        payload = result_form(Form(FORM, told)) if told else b""
        turn.answer(iq, commands.answer(command, session, "completed", payload))
        return
    (name, given), *others = uses

    def then(turn: Turn, answer: Any) -> None:
        _use_next(adhoc, iq, command, session, others, [*answers, answer], turn)

    turn.call(turn.entity.bare, METHOD, then, name, given)


@feature.on_iq("set", ns.COMMANDS, "command", at=At.SERVER)
def run(turn: Turn, iq: Stanza) -> None:
    """XEP-0050, 2.4: this one, or another feature's (`router/commands.py`)."""
    server_commands.run(turn, iq)


def _is_admin(turn: Turn, domain: str) -> bool:
    return server_commands.is_admin(turn)


for _name, _adhoc in NODES.items():
    _do: Callable[[Turn, Stanza, Command, str], None] = partial(_run, _adhoc)
    server_commands.offer(f"{FORM}#{_name}", _adhoc.title, _is_admin, _do)
