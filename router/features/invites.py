"""Invitations by ad-hoc commands (XEP-0401): a user invites somebody who becomes a contact, with an account of this
server where one may be had; or to an account alone. Where the tokens lead is in `router/admission.py`, what a
subscription request with one does in `router/features/subscriptions.py` (XEP-0379)."""

from __future__ import annotations

from functools import partial
from typing import Final

from router import commands, invitations
from router.commands import is_admin
from router.events import AccountRemoved
from router.feature import Feature
from router.settings import Settings
from router.turn import Turn
from storage import accounts
from storage import invitations as stored
from storage.accounts import Account
from storage.invitations import Draft
from xmpp import forms, ns
from xmpp.commands import Command, answer
from xmpp.disco import Form, result_form
from xmpp.errors import BadRequest, Conflict, JidError, NotAllowed, ResourceConstraint
from xmpp.forms import Field
from xmpp.jid import JID, domain_of
from xmpp.stanza import Stanza

feature = Feature("invites", xep=((401, "0.6.0"),))

INVITATION: Final = f"{ns.INVITE}#invitation"
_TRUE: Final = frozenset({"1", "true"})  # XEP-0004, 3.3


def _may_invite(turn: Turn, domain: str) -> bool:
    at_home = turn.session is not None and domain == domain_of(turn.entity.bare)
    return at_home and (is_admin(turn) or turn.settings.invitations > 0)


def _may_create_account(turn: Turn, domain: str) -> bool:
    return _may_invite(turn, domain) and invitations.may_register(turn.settings)


def invite(turn: Turn, iq: Stanza, command: Command, session: str) -> None:
    """XEP-0401, 4.1: at once, without a form."""
    bare = turn.entity.bare
    _make(turn, iq, command, session, invitations.draft(turn.settings, "contact", domain_of(bare), bare, contact=bare))


def create_account(turn: Turn, iq: Stanza, command: Command, session: str) -> None:
    """XEP-0401, 4.4: first the form, then the invitation."""
    if command.form is None:
        fields = (
            Field("username", "text-single", (), "User name; without one, whoever is invited chooses"),
            Field("roster-subscription", "boolean", ("1",), "Become contacts"),
        )
        form = forms.to_fill_in(f"{ns.INVITE}#create-account", fields)
        turn.answer(iq, answer(command, session, "executing", form))
        return
    given = {name: values[0].strip() for name, values in command.form.fields if values}
    bare, domain = turn.entity.bare, domain_of(turn.entity.bare)
    jid = _account_to_be(turn.settings, domain, given.get("username", ""))
    contact = bare if given.get("roster-subscription", "0") in _TRUE else ""
    draft = invitations.draft(turn.settings, "account", domain, bare, jid=jid, contact=contact)
    if not jid:
        _make(turn, iq, command, session, draft)
        return
    turn.fetch_first(accounts.find, partial(_name_looked_up, iq, command, session, draft), jid)


def _account_to_be(settings: Settings, domain: str, username: str) -> str:
    if not username:
        return ""
    try:
        jid = JID.of(username, domain)
    except JidError as problem:
        raise BadRequest("This is no user name.") from problem
    if jid.local in settings.reserved_names:
        raise NotAllowed("This user name is reserved.")
    return jid.bare


def _name_looked_up(
    iq: Stanza, command: Command, session: str, draft: Draft, turn: Turn, account: Account | None
) -> None:
    if account is not None:
        raise Conflict("An account of this name exists.")

    def reserved(later: Turn, is_reserved: bool) -> None:
        if is_reserved:
            raise Conflict("Somebody else is invited to this name.")
        _make(later, iq, command, session, draft)

    turn.fetch_first(stored.is_reserved, reserved, draft.jid)


def _make(turn: Turn, iq: Stanza, command: Command, session: str, draft: Draft) -> None:
    """Within the quota; an admin has none."""
    if is_admin(turn):
        _made(turn, iq, command, session, draft)
        return

    def counted(later: Turn, count: int) -> None:
        if count >= later.settings.invitations:
            raise ResourceConstraint("You have as many unused invitations as you may. Wait until one is used.")
        _made(later, iq, command, session, draft)

    turn.fetch_first(stored.count_open, counted, turn.entity.bare)


def _made(turn: Turn, iq: Stanza, command: Command, session: str, draft: Draft) -> None:
    token = invitations.new_token()
    turn.write(stored.create, invitations.hash_of(token), draft)
    links = invitations.links_of(turn.settings, draft, token, turn.now)
    turn.answer(iq, answer(command, session, "completed", result_form(Form(INVITATION, links.fields()))))


@feature.on_event(AccountRemoved)
def forget(turn: Turn, event: AccountRemoved) -> None:
    """Nobody becomes the contact of whoever has the name next by what was made before."""
    turn.write(stored.forget, turn.entity.bare)


commands.offer(f"{ns.INVITE}#invite", "Invite somebody", _may_invite, invite)
commands.offer(f"{ns.INVITE}#create-account", "Invite to a new account", _may_create_account, create_account)
