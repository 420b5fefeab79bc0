"""Rosters (RFC 6121, 2): `stentor roster`."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from router.administration.command import Area, Call, Command, body, path
from router.administration.desk import ANSWERS, Desk, jid_of
from router.administration.schema import FLAG, JID, TEXT, WORD, list_of, one_of, record
from storage import accounts, rosters
from xmpp.errors import JidError
from xmpp.jid import prepare

_JID: Final = path("jid", JID, "bare JID of the account")
_CONTACT: Final = path("contact", JID, "JID of the contact")
_SUBSCRIPTION: Final = one_of("none", "to", "from", "both")
CONTACT: Final = record(
    jid=JID, name=TEXT, groups=list_of(TEXT), subscription=_SUBSCRIPTION, is_asked=FLAG, asks=FLAG, in_roster=FLAG
)
_ANSWERS: Final = ANSWERS | {
    "item-not-found": (404, "has no such contact, or does not exist", "stentor roster list shows the contacts"),
    "not-allowed": (409, "has this contact by contacts.groups, or is it itself", "Change contacts.groups"),
    "not-acceptable": (400, "cannot have a contact with such a name or group", "Take shorter ones"),
    "resource-constraint": (409, "has a full roster, or cannot be changed now", "limits.roster says how many may be"),
}  # fmt: skip


async def list_contacts(desk: Desk, call: Call) -> Any:
    bare = desk.account(call.text("jid"))
    account = await desk.read(accounts.find, bare)
    if account is None:
        raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")
    found = (await desk.read(rosters.load, [account.key]))[account.key]
    return {"contacts": [_shown(item) for item in found]}


def _shown(item: rosters.Item) -> dict[str, Any]:
    return {
        "jid": item.jid,
        "name": item.name,
        "groups": list(item.groups),
        "subscription": item.subscription,
        "is_asked": item.ask,
        "asks": item.pending_in,
        "in_roster": item.in_roster,
    }


async def add(desk: Desk, call: Call) -> Any:
    bare, contact = desk.account(call.text("jid")), _contact(call)
    groups = list(dict.fromkeys(call.given.get("groups", ())))
    subscription = call.text("subscription") or "both"
    await desk.ask(bare, "admin.roster_add", bare, contact, call.text("name"), groups, subscription, answers=_ANSWERS)
    return {"jid": bare, "contact": contact}


async def delete(desk: Desk, call: Call) -> Any:
    bare, contact = desk.account(call.text("jid")), _contact(call)
    await desk.ask(bare, "admin.roster_del", bare, contact, answers=_ANSWERS)
    return {"jid": bare, "contact": contact}


def _contact(call: Call) -> str:
    text = call.text("contact")
    try:
        return prepare(text)
    except JidError:
        return str(jid_of(text))


AREA: Final = Area(
    "Rosters",
    (
        Command(
            "roster list", "GET", "/users/{jid}/contacts", "users:read", "The contacts of an account", list_contacts,
            record(contacts=list_of(CONTACT)), (_JID,),
            "`is_asked`: a request of the account waits for the contact, `asks`: the contact's for it. Without "
            "contacts of shared groups (`contacts.groups`).",
            (404,),
        ),
        Command(
            "roster add", "PUT", "/users/{jid}/contacts/{contact}", "users:write",
            "Put somebody into a roster, or change them there", add, record(jid=JID, contact=JID),
            (
                _JID, _CONTACT,
                body("name", {"type": "string", "maxLength": 1_023}, "what the account calls them"),
                body("groups", list_of({**WORD, "maxLength": 1_023}, maxItems=100), "groups of the account's"),
                body("subscription", _SUBSCRIPTION, 'who sees whose presence, "both" if left out'),
            ),
            "The contact is not asked, and has the account in no roster by it: do the same the other way round.",
            (404, 409), writes=True, on=("jid", "contact"),
        ),
        Command(
            "roster del", "DELETE", "/users/{jid}/contacts/{contact}", "users:write",
            "Take somebody out of a roster; they are told", delete, record(jid=JID, contact=JID), (_JID, _CONTACT),
            errors=(404, 409), writes=True, on=("jid", "contact"),
        ),
    ),
)  # fmt: skip
