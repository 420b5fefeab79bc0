"""In-band registration (XEP-0077): a new password, the end of an account; new accounts where the operator lets them.

A client that has no account yet is answered through `router/registration.py`, which uses the form and the rules here.
"""

from __future__ import annotations

import secrets
from typing import Final

from router.events import AccountRemoved
from router.feature import At, Feature
from router.settings import Settings
from router.turn import Turn
from storage import accounts, erasures
from xmpp import ns, scram
from xmpp.errors import (
    BadRequest,
    JidError,
    NotAcceptable,
    NotAllowed,
    RegistrationRequired,
    ServiceUnavailable,
)
from xmpp.jid import JID, domain_of
from xmpp.scram import Credentials, UnusablePassword
from xmpp.stanza import Stanza
from xmpp.xml import child_texts, element

feature = Feature("account", xep=((77, "2.4"),), server_features=(ns.REGISTER,))

PASSWORD_BYTES: Final = 1_024  # preparing a longer one would hold up the event loop


def registration_form(settings: Settings, domain: str) -> bytes:
    """XEP-0077, 3.1: what a new account needs."""
    instructions = element("instructions", None, None, f"Choose a user name and a password for {domain}.")
    return element("query", ns.REGISTER, None, instructions, b"<username/><password/>")


def check_new_account(settings: Settings, domain: str, username: str, password: str) -> JID:
    """The JID of an account that may be made (whether it exists already, the database tells). Raises StanzaError."""
    if not username or not password:
        raise NotAcceptable("A user name and a password are needed.")  # XEP-0077, 3.1
    _check_length(password)
    try:
        jid = JID.of(username, domain)
    except JidError as problem:
        raise NotAcceptable("This user name cannot be used.") from problem
    if jid.local in settings.reserved_names:
        raise NotAllowed("This user name is reserved.")
    return jid


def derive_all(password: str) -> tuple[Credentials, ...]:
    """Credentials of each hash, each with a salt of its own. Blocks for tens of milliseconds: for a thread."""
    return tuple(scram.derive(password, name, secrets.token_bytes(scram.SALT_BYTES)) for name in scram.HASHES)


def remove_account(turn: Turn, by: str, with_rooms: bool = False) -> None:
    """The account goes in this turn: its sessions end, its contacts are told by who hears the event. The rest of it is
    removed behind this turn (`router/erasing.py`). `by`: "user" or "operator"."""
    entity = turn.entity
    assert entity.key is not None
    turn.emit(AccountRemoved())
    for session in entity.sessions.values():
        turn.close(session, "not-authorized")  # XEP-0077, 3.2
    days = turn.settings.reuse_after_days
    turn.write(erasures.begin, turn.new_origin(), entity.bare, entity.shard, with_rooms, by, days)
    turn.reloads = True


@feature.on_iq("get", ns.REGISTER, "query", at=At.OWN)
@feature.on_iq("get", ns.REGISTER, "query", at=At.SERVER)
def get(turn: Turn, iq: Stanza) -> None:
    """XEP-0077, 3.1: whoever is signed in is registered."""
    if not _is_home(turn, iq):
        raise ServiceUnavailable
    instructions = element("instructions", None, None, "You are registered. To change the password, give a new one.")
    username = element("username", None, None, turn.entity.local)
    turn.answer(iq, element("query", ns.REGISTER, None, b"<registered/>", instructions, username, b"<password/>"))


@feature.on_iq("set", ns.REGISTER, "query", at=At.OWN)
@feature.on_iq("set", ns.REGISTER, "query", at=At.SERVER)
def set_(turn: Turn, iq: Stanza) -> None:
    """XEP-0077, 3.2 (cancellation) and 3.3 (a new password)."""
    query = iq.child(ns.REGISTER, "query")
    assert query is not None
    if not _is_home(turn, iq):
        raise RegistrationRequired  # 3.2, table
    given = child_texts(query, ns.REGISTER)
    if "remove" in given:
        if len(query) != 1:
            raise BadRequest("<remove/> stands alone.")  # 3.2, table
        turn.answer(iq)
        remove_account(turn, "user")
        return
    _change_password(turn, iq, given.get("username", ""), given.get("password", ""))


def _is_home(turn: Turn, iq: Stanza) -> bool:
    """Whether this is asked of the account's own domain: at another one that is served here it has no account."""
    return iq.to in (None, turn.entity.bare, domain_of(turn.entity.bare))


def _change_password(turn: Turn, iq: Stanza, username: str, password: str) -> None:
    entity = turn.entity
    if not username or not password:
        raise BadRequest("A new password needs a user name and a password.")  # 3.3, table
    _check_length(password)
    try:
        local = JID.of(username, domain_of(entity.bare)).local
        scram.prepare_password(password)
    except JidError as problem:
        raise BadRequest("This is not your user name.") from problem
    except UnusablePassword as problem:
        raise NotAcceptable("This password cannot be used.") from problem
    if local != entity.local:
        raise NotAllowed("One changes one's own password only.")
    key = entity.key
    assert key is not None

    def derived(later: Turn, credentials: tuple[Credentials, ...]) -> None:
        later.write(accounts.set_credentials, key, credentials)
        later.answer(iq)

    turn.compute(derive_all, derived, password)


def _check_length(password: str) -> None:
    if len(password.encode()) > PASSWORD_BYTES:
        raise NotAcceptable("The password is too long.")
