"""One SMPP session as its client, the ESME (SMPP 3.4, 2 and 4): bytes in, events and bytes out. No sockets, no clock.

Submitting is windowed: a few requests may be unanswered at once. What comes from the SMSC is handed out as an event
and answered only when the caller says so, because the answer means that the message is safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from s2s.gateways.sms import pdu, status
from s2s.gateways.sms.pdu import Bind, Pdu, PduError, ShortMessage

LAST_SEQUENCE: Final = 0x7FFF_FFFF  # 5.1.4


class Bound(NamedTuple):
    """The SMSC, called `system_id`, has accepted the bind: messages may be sent."""

    system_id: str


class Submitted(NamedTuple):
    """The answer to a submit; `token` is what the caller called it. Status 0: accepted under this message_id."""

    token: int
    status: int
    message_id: str


class Received(NamedTuple):
    """A deliver_sm: a message or a report. The caller owes an `answer`."""

    sequence: int
    message: ShortMessage


class Ended(NamedTuple):
    """The session is over; nothing more is read or answered. `status` is that of a refused bind, else 0."""

    reason: str
    status: int = 0


Event = Bound | Submitted | Received | Ended


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits of a session: most unanswered submits, silence after which the link is asked, time for an answer."""

    window: int = 10
    enquire_link_s: float = 30.0
    timeout_s: float = 30.0


class _Request(NamedTuple):
    command: int
    token: int
    sent_at: float


@dataclass(slots=True)
class Session:
    """One session, from its bind to its end. `kind` is one of the three bind commands. Times are monotonic."""

    kind: int
    bind: Bind
    timing: Timing
    is_bound: bool = False
    is_over: bool = False
    _reader: pdu.Reader = field(default_factory=pdu.Reader)
    _output: bytearray = field(default_factory=bytearray)
    _requests: dict[int, _Request] = field(default_factory=dict)
    _sequence: int = 0
    _submits: int = 0
    _heard_at: float = 0.0

    # --- what the caller does

    def begin(self, now: float) -> None:
        """Ask for the bind."""
        self._heard_at = now
        self._request(self.kind, pdu.encode_bind(self.bind), 0, now)

    @property
    def free(self) -> int:
        """How many messages may be submitted now."""
        may = self.is_bound and not self.is_over and self.kind != pdu.BIND_RECEIVER
        return self.timing.window - self._submits if may else 0

    def submit(self, token: int, message: ShortMessage, now: float) -> None:
        """Send a message; `Submitted` will tell of it under this token. Raises PduError where it does not fit."""
        body = pdu.encode_message(message)
        self._submits += 1
        self._request(pdu.SUBMIT_SM, body, token, now)

    def answer(self, sequence: int, status_: int) -> None:
        """Answer a `Received`."""
        self._send(Pdu(pdu.DELIVER_SM | pdu.RESPONSE, status_, sequence, pdu.encode_message_id("")))

    def unbind(self, now: float) -> None:
        """Ask for the end; `Ended` follows."""
        if self.is_bound and not self.is_over:
            self._request(pdu.UNBIND, b"", 0, now)

    def data_to_send(self) -> bytes:
        """What is to be written; each byte is given once."""
        data = bytes(self._output)
        self._output.clear()
        return data

    # --- what happens to it

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """What this input means."""
        if self.is_over:
            return []
        self._heard_at = now
        events: list[Event] = []
        try:
            for received in self._reader.feed(data):
                events += self._on_pdu(received)
                if events and isinstance(events[-1], Ended):
                    break
        except PduError as error:
            events.append(self._end(f"the SMSC sent what is no SMPP: {error}"))
        return events

    def tick(self, now: float) -> list[Event]:
        """Let time pass: asks a silent link whether it lives, and ends one that does not answer."""
        if self.is_over:
            return []
        overdue = [request for request in self._requests.values() if now - request.sent_at >= self.timing.timeout_s]
        if overdue:
            name = pdu.NAMES[overdue[0].command]
            return [self._end(f"no answer to {name} in {self.timing.timeout_s:g} s")]
        is_asking = any(request.command == pdu.ENQUIRE_LINK for request in self._requests.values())
        if self.is_bound and not is_asking and now - self._heard_at >= self.timing.enquire_link_s:
            self._request(pdu.ENQUIRE_LINK, b"", 0, now)
        return []

    def _on_pdu(self, received: Pdu) -> list[Event]:
        if received.command & pdu.RESPONSE:
            return self._on_response(received)
        match received.command:
            case pdu.ENQUIRE_LINK:
                self._send(Pdu(pdu.ENQUIRE_LINK | pdu.RESPONSE, status.OK, received.sequence))
            case pdu.UNBIND:
                self._send(Pdu(pdu.UNBIND | pdu.RESPONSE, status.OK, received.sequence))
                return [self._end("the SMSC unbound")]
            case pdu.DELIVER_SM:
                try:
                    return [Received(received.sequence, pdu.decode_message(received.body))]
                except PduError:
                    self.answer(received.sequence, status.REFUSED)
            case _:
                self._send(Pdu(pdu.GENERIC_NACK, status.INVALID_COMMAND, received.sequence))
        return []

    def _on_response(self, received: Pdu) -> list[Event]:
        request = self._requests.pop(received.sequence, None)
        if request is None:
            return []  # an answer to nothing, or a generic_nack of what was itself an answer
        if received.command not in (request.command | pdu.RESPONSE, pdu.GENERIC_NACK):
            return [self._end(f"{received.name} answers {pdu.NAMES[request.command]}")]
        is_nack = received.command == pdu.GENERIC_NACK
        refusal = received.status or (status.SYSTEM_ERROR if is_nack else status.OK)
        if request.command == self.kind:
            if refusal:
                return [self._end("the SMSC refuses the bind", refusal)]
            self.is_bound = True
            return [Bound(pdu.decode_bind_response(received.body))]
        if request.command == pdu.SUBMIT_SM:
            self._submits -= 1
            message_id = "" if refusal else pdu.decode_message_id(received.body)
            return [Submitted(request.token, refusal, message_id)]
        if request.command == pdu.UNBIND:
            return [self._end("unbound")]
        return []

    # --- small things

    def _request(self, command: int, body: bytes, token: int, now: float) -> None:
        self._sequence = self._sequence % LAST_SEQUENCE + 1
        self._requests[self._sequence] = _Request(command, token, now)
        self._send(Pdu(command, status.OK, self._sequence, body))

    def _send(self, message: Pdu) -> None:
        if not self.is_over:
            self._output += pdu.encode(message)

    def _end(self, reason: str, refusal: int = status.OK) -> Ended:
        self.is_over = True
        return Ended(reason, refusal)
