"""Accounts: `stentor user`, but for what they may not (`restrictions.py`) and their end (`erasures.py`)."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from router.administration.command import AFTER, LIMIT, Area, Call, Command, body, page, paged, path, query
from router.administration.desk import Desk, stamp, stamp_or_none
from router.administration.restrictions import RESTRICTION, shown_restriction
from router.administration.schema import COUNT, FLAG, JID, TEXT, WORD, list_of, or_null, record
from storage import accounts, devices, restrictions, rosters, sessions
from storage.devices import Device

_JID: Final = path("jid", JID, "bare JID of the account")
_PASSWORD: Final = body("password", WORD, "the password", required=True)
ACCOUNT: Final = record(jid=JID)

DEVICE: Final = record(
    device=TEXT, software=TEXT, name=TEXT, network=TEXT, first_seen=TEXT, last_seen=TEXT, token=FLAG, password=FLAG
)


async def list_users(desk: Desk, call: Call) -> Any:
    domain = call.text("domain")
    wanted = [domain] if domain else sorted(desk.settings.domains)
    search, after = call.text("search").lower(), call.text("after")
    found = await desk.read(accounts.page, wanted, search, after, call.limit + 1)
    return page("users", found, call.limit, str, lambda jid: {"jid": jid})


async def add(desk: Desk, call: Call) -> Any:
    bare = desk.account(call.text("jid"))
    await desk.ask(bare, "admin.create", bare, call.text("password"), call.flag("reuse"))
    return {"jid": bare}


async def show(desk: Desk, call: Call) -> Any:
    bare = desk.account(call.text("jid"))
    account = await _account(desk, bare)
    contacts = (await desk.read(rosters.load, [account.key]))[account.key]
    restricted = (await desk.read(restrictions.load, [account.key]))[account.key]
    rows = await desk.read(sessions.find, bare)
    return {
        "jid": bare,
        "created_at": stamp(account.created_at),
        "last_at": stamp_or_none(account.last_at),
        "contacts": sum(contact.in_roster for contact in contacts),
        "restrictions": [shown_restriction(found) for found in restricted if found.kind != "guest"],
        "sessions": [f"{row.bare}/{row.resource}" for row in rows],
    }


async def delete(desk: Desk, call: Call) -> Any:
    bare = desk.account(call.text("jid"))
    await desk.ask(bare, "admin.delete", bare)
    return {"jid": bare}


async def set_password(desk: Desk, call: Call) -> Any:
    bare = desk.account(call.text("jid"))
    await desk.ask(bare, "admin.password", bare, call.text("password"))
    return {"jid": bare}


async def list_devices(desk: Desk, call: Call) -> Any:
    account = await _account(desk, desk.account(call.text("jid")))
    return {"devices": [_shown(device) for device in await desk.read(devices.list_, account.key)]}


async def log_out(desk: Desk, call: Call) -> Any:
    bare, asked = desk.account(call.text("jid")), call.text("device")
    try:
        device = bytes.fromhex(asked)
    except ValueError:
        raise ApiError(400, f"{asked} is no device", "stentor user devices shows them") from None
    return {"ended": await desk.ask(bare, "admin.log_out", bare, device)}


async def _account(desk: Desk, bare: str) -> accounts.Account:
    account: accounts.Account | None = await desk.read(accounts.find, bare)
    if account is None:
        raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")
    return account


def _shown(device: Device) -> dict[str, Any]:
    return {
        "device": device.device.hex(),
        "software": device.software,
        "name": device.name,
        "network": device.address,
        "first_seen": stamp(device.first_seen),
        "last_seen": stamp(device.last_seen),
        "token": device.has_token,
        "password": device.by_password,
    }


AREA: Final = Area(
    "Accounts",
    (
        Command(
            "user list", "GET", "/users", "users:read", "Accounts, in the order of their JIDs", list_users,
            paged("users", record(jid=JID)),
            (
                query("domain", TEXT, "only accounts of this domain"),
                query("search", {"type": "string", "maxLength": 256}, "only accounts whose JID has this in it"),
                LIMIT, AFTER,
            ),
            items="users",
        ),
        Command(
            "user add", "POST", "/users", "users:write", "Make an account", add, ACCOUNT,
            (
                body("jid", JID, "its bare JID", required=True), _PASSWORD,
                body("reuse", FLAG, "also where an account of this name was erased not long ago"),
            ),
            "Reserved names (`registration.reserved_names`) bind clients, not this API. An erased account's name is "
            "nobody's for `accounts.reuse_after_days`, but with `reuse`.",
            (409,), writes=True, on=("jid",),
        ),
        Command(
            "user show", "GET", "/users/{jid}", "users:read", "An account and its sessions", show,
            record(
                jid=JID, created_at=TEXT, last_at=or_null(TEXT), contacts=COUNT, restrictions=list_of(RESTRICTION),
                sessions=list_of(TEXT),
            ),
            (_JID,), "`last_at`: when it was available last, null where it never was.", (404,),
        ),
        Command(
            "user del", "DELETE", "/users/{jid}", "users:write", "End an account", delete, ACCOUNT, (_JID,),
            "Its sessions end and its erasure begins.", (404, 409), writes=True, on=("jid",),
        ),
        Command(
            "user passwd", "PUT", "/users/{jid}/password", "users:write", "Give an account a new password",
            set_password, ACCOUNT, (_JID, _PASSWORD), errors=(404, 409), writes=True, on=("jid",),
        ),
        Command(
            "user devices", "GET", "/users/{jid}/devices", "users:read", "Its devices, whoever was seen last first",
            list_devices, record(devices=list_of(DEVICE)), (_JID,), errors=(404,),
        ),
        Command(
            "user logout", "DELETE", "/users/{jid}/devices", "users:write", "End its sessions and void its tokens",
            log_out, record(ended=COUNT), (_JID,), errors=(404,), writes=True, on=("jid",),
        ),
        Command(
            "user logout device", "DELETE", "/users/{jid}/devices/{device}", "users:write",
            "End the sessions of one device and void its tokens", log_out, record(ended=COUNT),
            (_JID, path("device", WORD, "as the list of devices has it")), errors=(404,), writes=True,
            on=("jid", "device"),
        ),
    ),
    "`jid` in an answer is the prepared bare JID.",
)  # fmt: skip
