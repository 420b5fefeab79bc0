"""Invitations as values: tokens, their hashes, and the links that they travel in (XEP-0379, XEP-0401, XEP-0445).

What becomes of them is in `router/admission.py`; who may make them from a client, in `router/features/invites.py`.
"""

from __future__ import annotations

import secrets
from base64 import b32encode
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote

from router.settings import Settings
from storage.invitations import Draft, Invitation, Kind
from xmpp import ns
from xmpp.jid import domain_of
from xmpp.stanza import Stanza
from xmpp.timestamp import format_moment

TOKEN_BYTES: Final = 25  # 200 bits; in base 32, without padding
LONGEST_TOKEN: Final = 128
PATH: Final = "/invite/"  # of the pages that c2s/http/invite_page.py serves


def new_token() -> str:
    """XEP-0401: "a securely generated random alpha-numeric string"."""
    return b32encode(secrets.token_bytes(TOKEN_BYTES)).decode().lower()


def hash_of(token: str) -> bytes:
    """What is stored of a token: it cannot be guessed, so that no salt is needed."""
    return sha256(token.encode(errors="replace")).digest()


class Links(NamedTuple):
    """How a token is handed on. "" for what there is not."""

    uri: str
    url: str
    expires: str  # XEP-0082

    def fields(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """XEP-0401: the fields of the form in an answer."""
        named = (("uri", self.uri), ("landing-url", self.url), ("expire", self.expires))
        return tuple((name, (value,)) for name, value in named if value)


def links_of(settings: Settings, draft: Draft, token: str, now: float) -> Links:
    """The links for a new token."""
    expires = "" if draft.expires_s is None else format_moment(now + draft.expires_s)
    return Links(uri_of(settings, draft, token), page_of(settings, draft.domain, token), expires)


def uri_of(settings: Settings, invitation: Draft | Invitation, token: str) -> str:
    """The xmpp: URI: of a contact (XEP-0379; with ibr=y where an account may be had, too: XEP-0401) or of an account
    (XEP-0445, 2). A new password has none."""
    if invitation.kind == "contact":
        ibr = ";ibr=y" if may_register(settings) and domain_of(invitation.contact) == invitation.domain else ""
        return f"xmpp:{_address(invitation.contact)}?roster;preauth={token}{ibr}"
    if invitation.kind == "account":
        return f"xmpp:{_address(invitation.jid or invitation.domain)}?register;preauth={token}"
    return ""


def page_of(settings: Settings, domain: str, token: str) -> str:
    """The page in a browser, where there is one."""
    base = settings.public_url.replace("{domain}", domain)
    return f"{base}{PATH}{token}" if base else ""


def may_register(settings: Settings) -> bool:
    """Whether an invitation can be one to an account."""
    return settings.registration_mode != "closed"


def draft(
    settings: Settings, kind: Kind, domain: str, maker: str, *, jid: str = "", contact: str = "", uses: int = 1
) -> Draft:
    """An invitation for as long as the operator has set."""
    return Draft(kind, domain, maker, jid, contact, uses, settings.invitation_s)


def token_in(presence: Stanza) -> str | None:
    """The token of a pre-authenticated subscription request (XEP-0379, 3.4)."""
    if presence.type != "subscribe" or ns.PARS.encode() not in presence.inner:
        return None
    found = presence.child(ns.PARS, "preauth")
    token = found.get("token") if found is not None else None
    return token if token and len(token) <= LONGEST_TOKEN else None


def _address(jid: str) -> str:
    """RFC 5122, 2.2: what may not stand in the path of a URI is escaped."""
    local, at, domain = jid.rpartition("@")
    return f"{quote(local, safe='')}{at}{quote(domain, safe='[:]')}"
