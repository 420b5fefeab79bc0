"""The administration API of invitations (docs/admin-api.md): the part of `router/api.py` behind `stentor invite`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, get_args

from cluster.admin import ApiError, ApiRequest, Route
from router import invitations
from router.settings import Settings
from storage import accounts
from storage import invitations as stored
from storage.invitations import Draft, Invitation, Kind
from xmpp.errors import JidError
from xmpp.jid import JID, domain_of

PAGE: Final = 1_000
USES: Final = 10_000
FOREVER_S: Final = 10 * 366 * 86_400.0

Read = Callable[..., Awaitable[Any]]  # a repository function and its arguments


class InvitationsApi:
    """The routes and what they need. `account` checks a bare JID of an account that may be here."""

    def __init__(self, settings: Settings, read: Read, account: Callable[[str], str]) -> None:
        self._settings = settings
        self._read = read
        self._account = account

    def routes(self) -> list[Route]:
        """Everything below /api/v1."""
        return [
            ("GET", "/invitations", self._list),
            ("POST", "/invitations", self._create),
            ("DELETE", "/invitations/{id}", self._revoke),
        ]

    async def _list(self, request: ApiRequest) -> Any:
        after = _whole(request.query.get("after") or "0", "after")
        found = await self._read(stored.list_, request.query.get("domain", ""), after, PAGE)
        return {"invitations": [_shown(invitation) for invitation in found]}

    async def _create(self, request: ApiRequest) -> Any:
        draft = await self._draft(request)
        token = invitations.new_token()
        await self._read(stored.create, invitations.hash_of(token), draft)
        made = await self._read(stored.find, invitations.hash_of(token))
        links = invitations.links_of(self._settings, draft, token, time.time())
        if made is None:
            raise ApiError(503, "the invitation is gone already", "Try again")
        return _shown(made) | {"token": token, "uri": links.uri or None, "url": links.url or None}

    async def _draft(self, request: ApiRequest) -> Draft:
        kind = request.text("kind")
        if kind not in get_args(Kind):
            raise ApiError(400, f"{kind} is no kind of invitation", f"The kinds are: {', '.join(get_args(Kind))}")
        body = request.body
        expires_s = _number(body.get("expires_s", self._settings.invitation_s), "expires_s", FOREVER_S)
        uses = _whole(body.get("uses", 1), "uses", 1, USES)
        contact = self._account(request.text("contact")) if body.get("contact") or kind == "contact" else ""
        if contact:
            await self._require(contact)
        if kind == "reset":
            if not self._settings.public_url:
                raise ApiError(400, "there is no page for it", "Set http.enabled and http.public_url")
            jid = self._account(request.text("jid"))
            await self._require(jid)
            return Draft("reset", domain_of(jid), "", jid, "", 1, expires_s)
        if kind == "contact":
            return Draft("contact", domain_of(contact), "", "", contact, uses, expires_s)
        if not invitations.may_register(self._settings):
            raise ApiError(400, "nobody may register", 'Set registration.mode to "invite" or "open"')
        domain = self._domain(str(body.get("domain") or ""))
        jid = await self._name(str(body.get("user") or ""), domain)
        return Draft("account", domain, "", jid, contact, 1 if jid else uses, expires_s)

    def _domain(self, domain: str) -> str:
        served = sorted(self._settings.domains)
        if not domain and len(served) == 1:
            return served[0]
        if domain not in served:
            wrong = f"{domain} is not served here" if domain else "domain is missing"
            raise ApiError(400, wrong, f"The domains are: {', '.join(served)} (server.domains)")
        return domain

    async def _name(self, user: str, domain: str) -> str:
        """The bare JID of the account to be made, "" where the invited choose."""
        if not user:
            return ""
        try:
            jid = JID.of(user, domain)
        except JidError as problem:
            raise ApiError(400, f"{user} is no user name: {problem}", "Give what stands before the @") from problem
        if jid.local in self._settings.reserved_names:
            raise ApiError(409, f"{jid.bare} is reserved", "Choose another name, or make it with stentor user add")
        if await self._read(accounts.find, jid.bare) is not None:
            raise ApiError(409, f"{jid.bare} exists", "Choose another name")
        if await self._read(stored.is_reserved, jid.bare):
            raise ApiError(409, f"somebody is invited to be {jid.bare}", "stentor invite list shows it")
        return jid.bare

    async def _require(self, bare: str) -> None:
        if await self._read(accounts.find, bare) is None:
            raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")

    async def _revoke(self, request: ApiRequest) -> Any:
        number = _whole(request.path["id"], "the id")
        if not await self._read(stored.revoke, number):
            raise ApiError(404, f"there is no invitation {number}", "stentor invite list shows them")
        return {"id": number}


def _shown(invitation: Invitation) -> dict[str, Any]:
    state = "expired" if invitation.is_expired else "open"
    return {
        "id": invitation.id,
        "kind": invitation.kind,
        "domain": invitation.domain,
        "maker": invitation.maker or None,
        "jid": invitation.jid or None,
        "contact": invitation.contact or None,
        "uses": invitation.uses,
        "used": invitation.used,
        "state": "used" if invitation.is_used_up else state,
        "created_at": _stamp(invitation.created_at),
        "expires_at": None if invitation.expires_at is None else _stamp(invitation.expires_at),
    }


def _whole(value: Any, name: str, least: int = 0, most: int = 2**63 - 1) -> int:
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise ApiError(400, f"{name} is not a number that there can be", f"Give one from {least} to {most}")
    return number


def _number(value: Any, name: str, most: float) -> float | None:
    """Seconds; None for ever."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ApiError(400, f"{name} is not a time", f"Give seconds, at most {most:.0f}, or null for ever")
    return float(value)


def _stamp(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
