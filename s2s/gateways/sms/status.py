"""What an SMSC's refusals mean (SMPP 3.4, 5.1.3): in words, what to do, and which stanza error tells the sender.

Also the stanza errors of delivery reports. RFC 6120, 8.3.3 and XEP-0100, 4.8 name the conditions.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from s2s.gateways.sms.reports import Report
from xmpp import errors
from xmpp.errors import InternalServerError as OurFault
from xmpp.errors import StanzaError

OK: Final = 0x00
INVALID_COMMAND: Final = 0x03
SYSTEM_ERROR: Final = 0x08
QUEUE_FULL: Final = 0x14
THROTTLED: Final = 0x58
TRY_LATER: Final = 0x64  # ESME_RX_T_APPN, our answer where a message cannot be stored now
REFUSED: Final = 0x66  # ESME_RX_R_APPN, our answer to what can never be delivered

# "slow": tried again, everything waits meanwhile; "retry": tried again a few times; "fail": never again
Action = Literal["slow", "retry", "fail"]


class Meaning(NamedTuple):
    """One command_status. `remedy` is for the operator of the gateway, "" where only the sender is concerned."""

    name: str
    words: str
    action: Action
    error: type[StanzaError]
    remedy: str = ""


_OURS: Final = (
    "The gateway sends what this SMSC does not take: compare the [smpp] and [numbers] settings with its contract"
)

_MEANINGS: Final = {
    0x01: Meaning("ESME_RINVMSGLEN", "the message's length is wrong", "fail", OurFault, _OURS),
    0x04: Meaning("ESME_RINVBNDSTS", "this bind may not submit messages", "fail", OurFault,
                  "Ask the operator for a transceiver account, or set smpp.bind to pair"),
    0x05: Meaning("ESME_RALYBND", "this account is bound already", "retry", OurFault,
                  "Another gateway uses smpp.system_id, or the SMSC still holds the last link; it is tried again"),
    SYSTEM_ERROR: Meaning("ESME_RSYSERR", "the SMSC has an internal error", "retry", errors.RemoteServerTimeout),
    0x0A: Meaning("ESME_RINVSRCADR", "the sender's number is not accepted", "fail", OurFault,
                  "Set numbers.sender to a number or name that the operator has granted"),
    0x0B: Meaning("ESME_RINVDSTADR", "there is no such number", "fail", errors.ItemNotFound),
    0x0D: Meaning("ESME_RBINDFAIL", "the SMSC refuses the bind", "retry", OurFault,
                  "Compare smpp.system_id, password, system_type and bind with the operator's contract"),
    0x0E: Meaning("ESME_RINVPASWD", "the password is wrong", "fail", OurFault, "Correct smpp.password"),
    0x0F: Meaning("ESME_RINVSYSID", "the SMSC does not know the system_id", "fail", OurFault,
                  "Correct smpp.system_id"),
    QUEUE_FULL: Meaning("ESME_RMSGQFUL", "the SMSC's queue is full", "slow", errors.ResourceConstraint),
    0x15: Meaning("ESME_RINVSERTYP", "the service type is not accepted", "fail", OurFault, _OURS),
    0x43: Meaning("ESME_RINVESMCLASS", "the esm_class is not accepted", "fail", OurFault, _OURS),
    0x45: Meaning("ESME_RSUBMITFAIL", "the SMSC could not take the message", "retry", errors.RecipientUnavailable),
    0x48: Meaning("ESME_RINVSRCTON", "the sender's type of number is not accepted", "fail", OurFault, _OURS),
    0x49: Meaning("ESME_RINVSRCNPI", "the sender's numbering plan is not accepted", "fail", OurFault, _OURS),
    0x50: Meaning("ESME_RINVDSTTON", "the number's type is not accepted", "fail", errors.ItemNotFound),
    0x51: Meaning("ESME_RINVDSTNPI", "the number's plan is not accepted", "fail", errors.ItemNotFound),
    0x53: Meaning("ESME_RINVSYSTYP", "the system_type is not accepted", "fail", OurFault,
                  "Correct smpp.system_type"),
    THROTTLED: Meaning("ESME_RTHROTTLED", "the SMSC wants fewer messages a second", "slow", errors.ResourceConstraint,
                       "Set smpp.per_second to what the operator allows"),
    TRY_LATER: Meaning("ESME_RX_T_APPN", "the SMSC cannot take the message now", "retry", errors.RecipientUnavailable),
    0x65: Meaning("ESME_RX_P_APPN", "the SMSC refuses the message for good", "fail", errors.PolicyViolation),
    REFUSED: Meaning("ESME_RX_R_APPN", "the SMSC rejects the message", "fail", errors.PolicyViolation),
    0xFE: Meaning("ESME_RDELIVERYFAILURE", "the message could not be delivered", "fail", errors.RecipientUnavailable),
    0xFF: Meaning("ESME_RUNKNOWNERR", "the SMSC does not say why", "retry", errors.UndefinedCondition),
    0x101: Meaning("ESME_RPROHIBITED", "this account may not do that", "fail", errors.PolicyViolation,
                   "Ask the operator what the account may send"),
    0x102: Meaning("ESME_RSERTYPUNAUTH", "this account may not use the service", "fail", errors.PolicyViolation),
}  # fmt: skip


def meaning(status: int) -> Meaning:
    """What this command_status means; one that nobody knows is tried again, then told as it is."""
    return _MEANINGS.get(status) or Meaning(
        f"status 0x{status:08x}", "the SMSC refuses it without a reason that is known here", "retry",
        errors.UndefinedCondition, "Ask the operator what this status means",
    )  # fmt: skip


def refused(status: int) -> StanzaError:
    """The stanza error for a part that the SMSC has refused for good."""
    found = meaning(status)
    return found.error(f"{found.words[0].upper()}{found.words[1:]} ({found.name}).")


def undelivered(report: Report) -> StanzaError:
    """The stanza error for a message that was accepted and not delivered."""
    kind, words = {
        "undeliverable": (errors.RecipientUnavailable, "The phone could not be reached"),
        "expired": (errors.RecipientUnavailable, "The phone was not reachable for too long"),
        "rejected": (errors.PolicyViolation, "The network rejected the message"),
        "deleted": (errors.PolicyViolation, "The network deleted the message"),
    }.get(report.state, (errors.UndefinedCondition, "The network does not know what became of the message"))
    code = f" (error {report.error})" if report.error.strip("0") else ""
    return kind(f"{words}{code}.")
