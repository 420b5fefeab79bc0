"""Ad-hoc commands (XEP-0050): the payloads of requests and answers. Commands here have one form and no memory: the
session id of an answer is whatever the request said, or a new one."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from lxml import etree

from xmpp import forms, ns
from xmpp.disco import Form
from xmpp.errors import BadRequest
from xmpp.stanza import Stanza
from xmpp.xml import element

_ACTIONS: Final = ("execute", "cancel", "complete", "next", "prev")


class Command(NamedTuple):
    """A request (4.1): which command, and, where it was filled in, the form."""

    node: str
    action: str
    session: str | None
    form: Form | None


def parse(iq: Stanza) -> Command:
    """Raises what 4.4 names: bad-request with <malformed-action/> or <bad-payload/>."""
    command = iq.child(ns.COMMANDS, "command")
    assert command is not None
    action = command.get("action") or "execute"
    if action not in _ACTIONS:
        raise BadRequest(f"There is no action '{action[:100]}'.", application=_condition("malformed-action"))
    if action == "prev":
        raise BadRequest("There is no step before.", application=_condition("bad-action"))
    x = forms.find(command)
    return Command(command.get("node") or "", action, command.get("sessionid"), _submitted(x))


def _submitted(x: etree._Element | None) -> Form | None:
    if x is None or x.get("type") == "cancel":
        return None
    try:
        return forms.parse_submit(x)
    except BadRequest as problem:
        raise BadRequest(problem.text, application=_condition("bad-payload")) from problem


def _condition(name: str) -> bytes:
    return element(name, ns.COMMANDS)


def answer(
    command: Command, session: str, status: Literal["executing", "completed", "canceled"], payload: bytes = b""
) -> bytes:
    """The `<command/>` of a result (4.2)."""
    attributes = {"node": command.node, "sessionid": command.session or session, "status": status}
    actions = element("actions", None, {"execute": "complete"}, element("complete"))
    return element("command", ns.COMMANDS, attributes, *((actions,) if status == "executing" else ()), payload)


def note(text: str) -> bytes:
    """What whoever ran a command is told (4.3)."""
    return element("note", None, {"type": "info"}, text)
