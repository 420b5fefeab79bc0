"""How people come to an account, or back to it: in-band registration (XEP-0077), with an invitation (XEP-0445) or a
question (XEP-0158), registration in a browser, and links for a new password. What edges ask (CALL) about it.

A token is claimed, then the account's owner makes the account and marks the token used in one transaction; whoever
invited hears of it from its own owner, wherever that is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cluster import logs
from cluster.metrics import counter
from router import captcha, invitations
from router.calls import CallError
from router.features import account
from router.registration import TAKEN, Registration
from router.settings import Settings
from router.turn import Turn
from storage import invitations as stored
from storage import rosters
from storage.invitations import Invitation
from storage.pool import is_away
from storage.store import Store
from xmpp.errors import (
    BadRequest,
    Conflict,
    Gone,
    ItemNotFound,
    NotAcceptable,
    NotAllowed,
    ServiceUnavailable,
    StanzaError,
    UnexpectedRequest,
)

log = logs.get_logger()

UNKNOWN: Final = "The invitation is not known, or has expired."
CLOSED: Final = "Accounts are not made this way here."

TELL_S: Final = 60.0
TELL_MOST: Final = 100

Ask = Callable[[str, str, tuple[Any, ...]], Awaitable[Any]]  # a method of an entity's owner

registered = counter(
    "stentor_router_registrations_total",
    "Accounts that people have made for themselves",
    {"by": ["invitation", "open"]},
)
refused = counter(
    "stentor_router_registrations_refused_total",
    "Attempts to make an account that were refused",
    {"reason": ["token", "answer", "conflict", "other"]},
)


@dataclass(frozen=True, slots=True)
class _Given:
    """A token, and what it stands for."""

    hash: bytes
    invitation: Invitation
    is_admitted: bool  # it may have expired since it was shown (XEP-0445, 3)


class Admission:
    """Answers what edges ask before anybody is signed in. `key` proves challenges to be ours."""

    def __init__(
        self,
        store: Store,
        registration: Registration,
        settings: Settings,
        key: bytes,
        wall: Callable[[], float],
        ask: Ask,
    ) -> None:
        self._store = store
        self._registration = registration
        self._settings = settings
        self._key = key
        self._wall = wall
        self._ask = ask

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """What `router/calls.py` answers by this."""
        return {
            "register": self.answer,
            "invitations.check": self.check,
            "invitations.show": self.show,
            "invitations.register": self.register,
            "invitations.reset": self.reset,
            "invitations.befriend": self._registration.befriend,
        }

    # --- a client's stream

    async def check(self, domain: str, token: str) -> None:
        """XEP-0445, 3: whether a token is good for an account of this domain. Raises ItemNotFound where it is not."""
        found = await self._find(token)
        if found is None or not self._admits(found.invitation, domain) or not found.invitation.is_open:
            refused.labels("token").inc()
            raise ItemNotFound("The provided token is invalid or expired.")

    async def answer(self, domain: str, type: str, given: Mapping[str, str], address: str, token: str = "") -> bytes:
        """An in-band registration request of a stream on which nobody is signed in (XEP-0077, 3.1), with the token
        that was accepted on it, if any. Raises StanzaError."""
        settings = self._settings
        if settings.registration_mode == "closed":
            raise ServiceUnavailable(CLOSED)
        self._registration.refuse_elsewhere(domain)
        if type not in ("get", "set"):
            raise BadRequest
        found = await self._find(token, is_admitted=True) if token else None
        if found is not None and not self._admits(found.invitation, domain):
            found = None
        if settings.registration_mode == "invite" and found is None:
            raise NotAllowed("An account needs an invitation here.")
        if type == "get":
            return self._form(domain, found)
        if "remove" in given:
            raise UnexpectedRequest("Sign in first.")  # XEP-0077, 3.2, table
        if found is None:
            self._check_answer(given)
        await self._create(domain, given.get("username", ""), given.get("password", ""), found)
        return b""

    def _form(self, domain: str, found: _Given | None) -> bytes:
        questions = self._settings.questions
        if found is None and questions:
            return account.registration_form(domain, question=captcha.ask(questions, self._key, self._wall()))
        jid = found.invitation.jid if found is not None else ""
        return account.registration_form(domain, jid.partition("@")[0])

    def _check_answer(self, given: Mapping[str, str]) -> None:
        questions = self._settings.questions
        challenge, said = given.get(captcha.CHALLENGE, ""), given.get(captcha.FIELD, "")
        if questions and not captcha.is_right(questions, self._key, self._wall(), challenge, said):
            refused.labels("answer").inc()
            raise NotAcceptable("The question was not answered, not rightly or not in time. Ask for the form again.")

    # --- a browser

    async def show(self, token: str) -> dict[str, Any]:
        """What the page of a token tells. Raises ItemNotFound for one that is unknown or has expired."""
        found = await self._find(token)
        if found is None or found.invitation.is_expired:
            raise ItemNotFound(UNKNOWN)
        invitation = found.invitation
        return {
            "kind": invitation.kind,
            "domain": invitation.domain,
            "from": invitation.contact or invitation.maker,
            "contact": invitation.contact,
            "jid": invitation.jid,
            "uri": invitations.uri_of(self._settings, invitation, token),
            "is_used_up": invitation.is_used_up,
            "may_register": self._admits(invitation, invitation.domain),
            "expires_at": invitation.expires_at,
        }

    async def register(self, domain: str, username: str, password: str, token: str) -> str:
        """Make an account by a form in a browser; returns its address. Raises StanzaError."""
        found = await self._find(token)
        if found is None or found.invitation.is_expired or not self._admits(found.invitation, domain):
            refused.labels("token").inc()
            raise ItemNotFound(UNKNOWN)
        return await self._create(domain, username, password, found)

    async def reset(self, bare: str, password: str, ends_sessions: bool, token: str) -> None:
        """Give an account the password that whoever has its link has chosen. Raises StanzaError."""
        found = await self._find(token)
        if found is None or (found.invitation.kind, found.invitation.jid) != ("reset", bare):
            raise ItemNotFound(UNKNOWN)
        account.check_password(password)
        await self._claimed(found, bare, partial(self._registration.set_password, bare, password))
        if ends_sessions:
            await self._registration.kick(bare, "")

    # --- both

    async def _find(self, token: str, is_admitted: bool = False) -> _Given | None:
        if not token or len(token) > invitations.LONGEST_TOKEN:
            return None
        hash_ = invitations.hash_of(token)
        invitation = await self._store.run(stored.find, hash_)
        return _Given(hash_, invitation, is_admitted) if invitation is not None else None

    def _admits(self, invitation: Invitation, domain: str) -> bool:
        """Whether it is an invitation to an account of this domain."""
        if invitation.domain != domain or not invitations.may_register(self._settings):
            return False
        return invitation.kind in ("account", "contact")

    async def _create(self, domain: str, username: str, password: str, found: _Given | None) -> str:
        try:
            return await self._create_checked(domain, username, password, found)
        except Conflict:
            refused.labels("conflict").inc()
            raise
        except Gone:
            refused.labels("conflict").inc()
            raise Conflict(TAKEN) from None  # whether there was one is nobody's business
        except StanzaError as fault:
            refused.labels("token" if isinstance(fault, ItemNotFound) else "other").inc()
            raise

    async def _create_checked(self, domain: str, username: str, password: str, found: _Given | None) -> str:
        bare = account.check_new_account(self._settings, domain, username, password).bare
        reserved_for = found.invitation.jid if found is not None else ""
        if reserved_for and bare != reserved_for:
            raise NotAllowed("This invitation is for another user name.")
        if not reserved_for and await self._store.run(stored.is_reserved, bare):
            raise Conflict(TAKEN)  # XEP-0445, 4; who asks need not know why
        if found is None:
            await self._registration.create(bare, password)
            registered.labels("open").inc()
            return bare
        contact = found.invitation.contact
        await self._claimed(found, bare, partial(self._registration.create, bare, password), contact)
        registered.labels("invitation").inc()
        if contact:
            await self._tell(contact, bare)
        return bare

    async def _claimed(self, found: _Given, bare: str, act: Callable[..., Awaitable[None]], contact: str = "") -> None:
        """Do something once for a use of the token, and only if there is one."""
        if await self._store.run(stored.claim, found.hash, bare, found.is_admitted) is None:
            raise ItemNotFound("The invitation is used up." if not found.invitation.is_expired else UNKNOWN)

        def also(turn: Turn) -> None:
            turn.write(stored.confirm, found.hash, bare)
            if contact:
                turn.write(rosters.add_mutual, bare, contact)

        try:
            await act(also)
        except StanzaError:
            await self._store.run(stored.release, found.hash, bare)
            raise

    async def follow(self) -> None:
        """Tell inviters what a router could not that has died after it had made an account, for ever."""
        while True:
            await asyncio.sleep(TELL_S * random.uniform(0.8, 1.2))
            try:
                untold = await self._store.run(stored.untold, TELL_MOST)
            except Exception as problem:
                if not is_away(problem):
                    raise
                continue
            for contact, jid in untold:
                await self._tell(contact, jid)

    async def _tell(self, inviter: str, bare: str) -> None:
        """The account is there, and sees the inviter, whatever comes of this; `follow` tries again."""
        try:
            await self._ask(inviter, "invitations.befriend", (inviter, bare))
        except CallError as problem:
            log.warning("inviter_not_told", problem=problem.condition)
