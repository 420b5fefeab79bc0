"""Tokens of this API and what was done with them: `stentor token`, `stentor audit`."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

from cluster.admin import ApiError, Caller
from router.administration.command import AFTER, LIMIT, SCOPES, Area, Call, Command, body, page, paged, path, query
from router.administration.desk import Desk, moment, number, stamp, stamp_or_none
from router.administration.schema import FLAG, ID, MOMENT, TEXT, list_of, one_of, or_null, record
from storage import api_tokens, audit
from storage.api_tokens import ApiToken
from storage.audit import Deed

PREFIX: Final = "stentor_"  # by which tokens are found where they were left by mistake
BYTES: Final = 32
LENGTH: Final = len(PREFIX) + 43
FOREVER_S: Final = 10 * 366 * 86_400.0

_FIELDS: Final = {
    "name": TEXT, "scopes": list_of(TEXT), "created_by": TEXT, "created_at": TEXT, "expires_at": or_null(TEXT),
    "used_at": or_null(TEXT), "is_expired": FLAG,
}  # fmt: skip
_NAME: Final = {
    "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    "description": "letters, digits, and . _ - behind the first, 63 at most",
}  # fmt: skip
DEED: Final = record(
    id=ID, at=TEXT, who=TEXT, address=TEXT, command=TEXT, on=TEXT, outcome=or_null(TEXT)
)  # fmt: skip


def hash_of(token: str) -> bytes:
    """What is kept."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


async def recognise(desk: Desk, token: str) -> Caller | None:
    """Whose token it is. Raises ApiError 503 where the database is away."""
    if len(token) != LENGTH or not token.startswith(PREFIX):
        return None
    found: ApiToken | None = await desk.read(api_tokens.use, hash_of(token))
    return None if found is None else Caller(found.name, frozenset(found.scopes))


async def create(desk: Desk, call: Call) -> Any:
    name, scopes = call.text("name"), sorted(set(call.given["scopes"]))
    if lacking := [scope for scope in scopes if not call.caller.may(scope)]:
        raise ApiError(403, f"{call.caller.name} has not {', '.join(lacking)} itself", "Use a token that has them")
    if name == "admin.token":
        raise ApiError(409, "admin.token is the token of the configuration", "Choose another name")
    token = PREFIX + secrets.token_urlsafe(BYTES)
    made = await desk.read(
        api_tokens.create, name, hash_of(token), scopes, call.caller.name, call.given.get("expires_s")
    )
    if made is None:
        raise ApiError(409, f"there is a token {name}", "Choose another name, or revoke it: stentor token revoke")
    return _shown(made) | {"token": token}


async def list_tokens(desk: Desk, call: Call) -> Any:
    found = await desk.read(api_tokens.list_, call.text("after"), call.limit + 1)
    return page("tokens", found, call.limit, lambda one: str(one.name), _shown)


async def revoke(desk: Desk, call: Call) -> Any:
    name = call.text("name")
    if not await desk.read(api_tokens.revoke, name):
        raise ApiError(404, f"there is no token {name}", "stentor token list shows them")
    return {"name": name}


def _shown(token: ApiToken) -> dict[str, Any]:
    return {
        "name": token.name,
        "scopes": token.scopes,
        "created_by": token.created_by,
        "created_at": stamp(token.created_at),
        "expires_at": stamp_or_none(token.expires_at),
        "used_at": stamp_or_none(token.used_at),
        "is_expired": token.is_expired,
    }


async def list_deeds(desk: Desk, call: Call) -> Any:
    since, after = call.text("since"), call.text("after")
    found = await desk.read(
        audit.list_, moment("since", since) if since else 0.0, call.text("who"), call.text("what"),
        number(after) if after else 2**63 - 1, call.limit + 1,
    )  # fmt: skip
    return page("deeds", found, call.limit, lambda deed: str(deed.id), _deed)


def _deed(deed: Deed) -> dict[str, Any]:
    return {
        "id": deed.id,
        "at": stamp(deed.at),
        "who": deed.who,
        "address": deed.address,
        "command": deed.command,
        "on": deed.target,
        "outcome": deed.outcome,
    }


TOKENS: Final = Area(
    "Tokens",
    (
        Command(
            "token list", "GET", "/tokens", "tokens:write", "Tokens, by name, without what is secret of them",
            list_tokens, paged("tokens", record(**_FIELDS)), (LIMIT, AFTER), items="tokens",
        ),
        Command(
            "token create", "POST", "/tokens", "tokens:write", "Make one, with scopes that the caller has", create,
            record(**_FIELDS, token=TEXT),
            (
                body("name", _NAME, "who has it, as the audit log shall say", required=True),
                body("scopes", list_of(one_of(*SCOPES), minItems=1), "what it is for", required=True),
                body(
                    "expires_s", {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": FOREVER_S},
                    "seconds; null or left out: when it is revoked",
                ),
            ),
            "`token` is told once: only its hash is kept.", (409,), writes=True, on=("name",),
        ),
        Command(
            "token revoke", "DELETE", "/tokens/{name}", "tokens:write", "It is of no use any more", revoke,
            record(name=TEXT), (path("name", _NAME, "as the list has it"),), errors=(404,), writes=True, on=("name",),
        ),
    ),
    "`used_at` is to the hour. `admin.token` is none of them: it has all scopes, and works while the database is away.",
)  # fmt: skip

AUDIT: Final = Area(
    "What was done",
    (
        Command(
            "audit list", "GET", "/audit", "audit:read", "What was changed by whom, the newest first", list_deeds,
            paged("deeds", DEED),
            (
                query("since", MOMENT, "only what was done since"),
                query("who", TEXT, "only what this token, or administrator (bare JID), has done"),
                query("what", TEXT, "only where the command, or what it was done on, has this in it"),
                LIMIT, AFTER,
            ),
            items="deeds",
        ),
    ),
    "Every command that is not a GET, and who reads archives, is a row here, whichever way it came (this API, "
    "`stentor`, ad-hoc commands), and one line of the log, `administered`. `outcome` is `done`, or an error's status "
    "and text, or null: it is under way, or its router died over it. What is secret is never kept, and where an "
    "account was erased, the number of its erasure stands for its name. Rows go after `admin.audit_days`.",
)  # fmt: skip
