"""Delivery reports: what the SMSC says became of a message (SMPP 3.4, appendix B, and 5.3.2.12 and 35)."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from s2s.gateways.sms.pdu import MESSAGE_STATE, MESSAGE_TYPE, RECEIPTED_MESSAGE_ID, REPORT, ShortMessage

State = Literal["enroute", "delivered", "expired", "deleted", "undeliverable", "accepted", "unknown", "rejected"]

_BY_NUMBER: Final[dict[int, State]] = {  # 5.2.28
    1: "enroute", 2: "delivered", 3: "expired", 4: "deleted", 5: "undeliverable", 6: "accepted", 7: "unknown",
    8: "rejected",
}  # fmt: skip
_BY_WORD: Final[dict[str, State]] = {  # appendix B; the last two are what some SMSCs write
    "DELIVRD": "delivered", "EXPIRED": "expired", "DELETED": "deleted", "UNDELIV": "undeliverable",
    "ACCEPTD": "accepted", "UNKNOWN": "unknown", "REJECTD": "rejected", "ENROUTE": "enroute", "BUFFRED": "enroute",
}  # fmt: skip
STATES: Final = tuple(_BY_NUMBER.values())
UNFINISHED: Final = frozenset({"enroute", "accepted"})

_ID: Final = re.compile(r"\bid:\s*(\S+)", re.IGNORECASE)
_STATE: Final = re.compile(r"\bstat:\s*([A-Z]+)", re.IGNORECASE)
_ERROR: Final = re.compile(r"\berr:\s*([0-9A-Za-z]+)", re.IGNORECASE)


class Report(NamedTuple):
    """The fate of one part. `error` is the network's own code, "" if it gave none."""

    message_id: str
    state: State
    error: str = ""


def is_report(message: ShortMessage) -> bool:
    """Whether a deliver_sm is an SMSC delivery receipt (5.2.12)."""
    return message.esm_class & MESSAGE_TYPE == REPORT


def parse(message: ShortMessage) -> Report | None:
    """The report in a deliver_sm, None where it names no message. The optional parameters, which are specified,
    go before the text, which is not."""
    text = message.content.decode("latin-1")
    found = _ID.search(text)
    message_id = message.tlvs.get(RECEIPTED_MESSAGE_ID, b"").rstrip(b"\0").decode("latin-1")
    message_id = message_id or (found[1] if found else "")
    if not message_id:
        return None
    number = message.tlvs.get(MESSAGE_STATE, b"")
    word = _STATE.search(text)
    state = _BY_NUMBER.get(number[0]) if number else None
    if state is None:
        state = _BY_WORD.get(word[1].upper(), "unknown") if word else "unknown"
    error = _ERROR.search(text)
    return Report(message_id, state, error[1] if error else "")


def ids_to_try(message_id: str) -> tuple[str, ...]:
    """Under which ids the message may be on record: as told, and converted between decimal and hexadecimal, because
    many SMSCs answer a submit_sm in one and report in the other."""
    tries = [message_id]
    stripped = message_id.lstrip("0") or "0"
    if stripped.isascii() and stripped.isdecimal():
        tries += [stripped, f"{int(stripped):x}", f"{int(stripped):X}"]
    try:
        tries.append(str(int(message_id, 16)))
    except ValueError:
        pass
    return tuple(dict.fromkeys(tries))
