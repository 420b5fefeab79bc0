"""Writing to accounts in the server's name: `stentor message`."""

from __future__ import annotations

import secrets
from typing import Any, Final

from router.administration.command import Area, Call, Command, body
from router.administration.desk import Desk
from router.administration.schema import JID, TEXT, WORD, one_of, record

TYPE: Final = one_of("normal", "chat", "headline")
TEXT_MOST: Final = 10_000
SUBJECT: Final = body("subject", {"type": "string", "maxLength": 1_000}, "what it is about")
BODY: Final = body("body", {**WORD, "maxLength": TEXT_MOST}, "what they read", required=True)


async def send(desk: Desk, call: Call) -> Any:
    bare, id_ = desk.account(call.text("jid")), f"operator-{secrets.token_hex(8)}"
    kind = call.text("type") or "chat"
    await desk.ask(bare, "admin.message", bare, kind, call.text("subject"), call.text("body"), id_)
    return {"jid": bare, "id": id_}


AREA: Final = Area(
    "Messages",
    (
        Command(
            "message send", "POST", "/messages", "messages:write", "Write to an account in the name of its domain",
            send, record(jid=JID, id=TEXT),
            (
                body("jid", JID, "bare JID of the account", required=True), BODY, SUBJECT,
                body("type", TYPE, '"chat" if left out; a headline is for those who are online'),
            ),
            "It waits for who is away as any message does.", (404,), writes=True, on=("jid",),
        ),
    ),
)  # fmt: skip
