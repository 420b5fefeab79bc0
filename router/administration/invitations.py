"""Invitations: `stentor invite`."""

from __future__ import annotations

import time
from typing import Any, Final

from cluster.admin import ApiError
from router import invitations
from router.administration.command import AFTER, LIMIT, Area, Call, Command, body, page, paged, path, query
from router.administration.desk import Desk, number, stamp, stamp_or_none
from router.administration.schema import COUNT, ID, TEXT, one_of, or_null, record
from storage import accounts
from storage import invitations as stored
from storage.invitations import Draft, Invitation
from xmpp.errors import JidError
from xmpp.jid import JID, domain_of

USES: Final = 10_000
FOREVER_S: Final = 10 * 366 * 86_400.0

_KIND: Final = one_of("account", "contact", "reset")
_FIELDS: Final = {
    "id": ID, "kind": _KIND, "domain": TEXT, "maker": or_null(TEXT), "jid": or_null(TEXT), "contact": or_null(TEXT),
    "uses": COUNT, "used": COUNT, "state": one_of("open", "used", "expired"), "created_at": TEXT,
    "expires_at": or_null(TEXT),
}  # fmt: skip


async def list_invitations(desk: Desk, call: Call) -> Any:
    after = number(call.text("after"))
    found = await desk.read(stored.list_, call.text("domain"), after, call.limit + 1)
    return page("invitations", found, call.limit, lambda one: str(one.id), _shown)


async def create(desk: Desk, call: Call) -> Any:
    draft = await _draft(desk, call)
    token = invitations.new_token()
    await desk.read(stored.create, invitations.hash_of(token), draft)
    made = await desk.read(stored.find, invitations.hash_of(token))
    links = invitations.links_of(desk.settings, draft, token, time.time())
    if made is None:
        raise ApiError(503, "the invitation is gone already", "Try again")
    return _shown(made) | {"token": token, "uri": links.uri or None, "url": links.url or None}


async def _draft(desk: Desk, call: Call) -> Draft:
    kind, settings = call.text("kind"), desk.settings
    expires_s: float | None = call.given.get("expires_s", settings.invitation_s)
    uses = int(call.given.get("uses", 1))
    contact = desk.account(call.text("contact")) if call.text("contact") or kind == "contact" else ""
    if contact:
        await _require(desk, contact)
    if kind == "reset":
        if not settings.public_url:
            raise ApiError(400, "there is no page for it", "Set http.enabled and http.public_url")
        jid = desk.account(call.text("jid"))
        await _require(desk, jid)
        return Draft("reset", domain_of(jid), "", jid, "", 1, expires_s)
    if kind == "contact":
        return Draft("contact", domain_of(contact), "", "", contact, uses, expires_s)
    if not invitations.may_register(settings):
        raise ApiError(400, "nobody may register", 'Set registration.mode to "invite" or "open"')
    domain = _domain(desk, call.text("domain"))
    jid = await _name(desk, call.text("user"), domain)
    return Draft("account", domain, "", jid, contact, 1 if jid else uses, expires_s)


def _domain(desk: Desk, domain: str) -> str:
    served = sorted(desk.settings.domains)
    if not domain and len(served) == 1:
        return served[0]
    if domain not in served:
        wrong = f"{domain} is not served here" if domain else "domain is missing"
        raise ApiError(400, wrong, f"The domains are: {', '.join(served)} (server.domains)")
    return domain


async def _name(desk: Desk, user: str, domain: str) -> str:
    """The bare JID of the account to be made, "" where the invited choose."""
    if not user:
        return ""
    try:
        jid = JID.of(user, domain)
    except JidError as problem:
        raise ApiError(400, f"{user} is no user name: {problem}", "Give what stands before the @") from problem
    if jid.local in desk.settings.reserved_names:
        raise ApiError(409, f"{jid.bare} is reserved", "Choose another name, or make it with stentor user add")
    if await desk.read(accounts.find, jid.bare) is not None:
        raise ApiError(409, f"{jid.bare} exists", "Choose another name")
    if await desk.read(stored.is_reserved, jid.bare):
        raise ApiError(409, f"somebody is invited to be {jid.bare}", "stentor invite list shows it")
    return jid.bare


async def _require(desk: Desk, bare: str) -> None:
    if await desk.read(accounts.find, bare) is None:
        raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")


async def revoke(desk: Desk, call: Call) -> Any:
    id_: int = call.given["id"]
    if not await desk.read(stored.revoke, id_):
        raise ApiError(404, f"there is no invitation {id_}", "stentor invite list shows them")
    return {"id": id_}


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
        "created_at": stamp(invitation.created_at),
        "expires_at": stamp_or_none(invitation.expires_at),
    }


AREA: Final = Area(
    "Invitations",
    (
        Command(
            "invite list", "GET", "/invitations", "users:read", "Invitations, in the order in which they were made",
            list_invitations, paged("invitations", record(**_FIELDS)),
            (query("domain", TEXT, "only those of this domain"), LIMIT, AFTER), items="invitations",
        ),
        Command(
            "invite create", "POST", "/invitations", "users:write", "Make one; its token is told once", create,
            record(**_FIELDS, token=TEXT, uri=or_null(TEXT), url=or_null(TEXT)),
            (
                body("kind", _KIND, "`contact`: only `contact`, `uses` and `expires_s` go with it; `reset`: `jid` and "
                     "`expires_s`", required=True),
                body("domain", TEXT, "of the new account; may be left out where only one is served"),
                body("user", TEXT, "the user name; without it, whoever is invited chooses"),
                body("uses", {"type": "integer", "minimum": 1, "maximum": USES}, "how many may use it, 1 if left out"),
                body("contact", TEXT, "bare JID: whoever is invited and this account become contacts"),
                body("jid", TEXT, "whose password is to be set"),
                body(
                    "expires_s", {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": FOREVER_S},
                    "seconds, null for ever, `registration.invitation_days` if left out",
                ),
            ),
            errors=(404, 409), writes=True, on=("kind", "user", "jid", "contact"),
        ),
        Command(
            "invite revoke", "DELETE", "/invitations/{id}", "users:write", "Its token is not known any more", revoke,
            record(id=ID), (path("id", ID, "as the list has it"),), errors=(404,), writes=True, on=("id",),
        ),
    ),
    "`maker` is the user who made it, null for operators. [invitations.md](invitations.md) says what they do.",
)  # fmt: skip
