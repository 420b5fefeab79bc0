"""In-band registration (XEP-0077): a new password, the end of an account; new accounts where the operator lets them.

A client that has no account yet is answered through `router/admission.py`, which uses the form and the rules here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Final

from router import captcha
from router.events import AccountRemoved
from router.feature import At, Feature
from router.features.devices import DEVICE
from router.settings import Settings
from router.turn import Turn
from storage import accounts, devices, erasures
from xmpp import forms, ns, scram
from xmpp.errors import (
    BadRequest,
    JidError,
    NotAcceptable,
    NotAllowed,
    RegistrationRequired,
    ServiceUnavailable,
)
from xmpp.forms import Field
from xmpp.jid import JID, domain_of
from xmpp.scram import Credentials, UnusablePassword
from xmpp.stanza import Stanza
from xmpp.xml import child_texts, element

feature = Feature("account", xep=((77, "2.4"), (158, "1.0")), server_features=(ns.REGISTER,))

PASSWORD_BYTES: Final = 1_024  # preparing a longer one would hold up the event loop


def registration_form(domain: str, username: str = "", question: tuple[str, str] | None = None) -> bytes:
    """XEP-0077, 3.1 and 4: what a new account needs, as elements and as a form; `username` is the only one that may be
    chosen. With a question (XEP-0158, 4: the challenge, and what is asked) there is the form alone."""
    instructions = element("instructions", None, None, f"Choose a user name and a password for {domain}.")
    names = (username,) if username else ()
    fields = [
        Field("username", "text-single", names, "User name", b"<required/>"),
        Field("password", "text-private", (), "Password", b"<required/>"),
    ]
    if question is None:
        old = element("username", None, None, username) + b"<password/>"
        return element("query", ns.REGISTER, None, instructions, old, forms.to_fill_in(ns.REGISTER, fields))
    challenge, asked = question
    fields += [
        Field(captcha.CHALLENGE, "hidden", (challenge,)),
        Field(captcha.FIELD, "text-single", (), asked, b"<required/>"),
    ]
    return element("query", ns.REGISTER, None, instructions, forms.to_fill_in(ns.CAPTCHA, fields))


def check_new_account(settings: Settings, domain: str, username: str, password: str) -> JID:
    """The JID of an account that may be made (whether it exists already, the database tells). Raises StanzaError."""
    if not username or not password:
        raise NotAcceptable("A user name and a password are needed.")  # XEP-0077, 3.1
    check_password(password)
    try:
        jid = JID.of(username, domain)
    except JidError as problem:
        raise NotAcceptable("This user name cannot be used.") from problem
    if jid.local in settings.reserved_names:
        raise NotAllowed("This user name is reserved.")
    return jid


def derive_all(
    password: str, iterations: int = scram.ITERATIONS, hashes: Iterable[str] = scram.HASHES
) -> tuple[Credentials, ...]:
    """Credentials of each hash, each with a salt of its own. Blocks for tens of milliseconds: for a thread."""
    salts = ((name, secrets.token_bytes(scram.SALT_BYTES)) for name in hashes)
    return tuple(scram.derive(password, name, salt, iterations) for name, salt in salts)


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
    elsewhere = turn.settings.passwords_elsewhere.get(domain_of(turn.entity.bare))
    words = elsewhere or "You are registered. To change the password, give a new one."
    instructions = element("instructions", None, None, words)
    username = element("username", None, None, turn.entity.local)
    fields = [username] if elsewhere else [username, b"<password/>"]
    turn.answer(iq, element("query", ns.REGISTER, None, b"<registered/>", instructions, *fields))


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
    if (elsewhere := turn.settings.passwords_elsewhere.get(domain_of(entity.bare))) is not None:
        raise NotAllowed(elsewhere)
    if not username or not password:
        raise BadRequest("A new password needs a user name and a password.")  # 3.3, table
    check_password(password)
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
        # Whoever has signed in with the old password, and may have learned it from somebody, needs the new one.
        own = b"" if later.session is None else later.session.marks.get(DEVICE, b"")
        later.write(devices.invalidate_all, key, own)
        later.answer(iq)

    turn.compute(derive_all, derived, password, turn.settings.iterations)


def check_password(password: str) -> None:
    """Raises NotAcceptable for one that there can not be."""
    if not password:
        raise NotAcceptable("A password is needed.")
    if len(password.encode()) > PASSWORD_BYTES:
        raise NotAcceptable("The password is too long.")
