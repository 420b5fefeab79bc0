"""What an edge (c2s, s2s) tells of traced stanzas (cluster/tracing.py): the hops next to clients and other servers."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import Final

from cluster.edge import EdgeSession
from cluster.tracing import Tracer, children_of, given_name, harmless, is_copy, row_name, sent_name, size_of
from xmpp.stanza import Stanza

TOLD_AT_ONCE: Final = 100  # stanzas of one acknowledgement


class EdgeTracing:
    """The hooks of `Edge`, while something is traced. `unwritten`: why the stream does not write what it was given."""

    def __init__(self, tracer: Tracer, role: str) -> None:
        self._tracer = tracer
        self._is_c2s = role == "c2s"
        self._hop = "client" if self._is_c2s else "stream"
        self.unwritten = ""

    @harmless
    def received(self, session: EdgeSession, n: int, stanza: Stanza) -> None:
        """A stanza has come from the client or the other server."""
        if self.unwritten:
            return  # an error that is made here, for what is not written: `delivered` tells of it
        whose = self._tracer.whose(stanza)
        if whose:
            self._tracer.note(
                whose, self._hop, (sent_name(session.sid, n),), stanza, "received", bytes=size_of(stanza),
                children=children_of(stanza),
            )  # fmt: skip

    @harmless
    def confirmed(self, session: EdgeSession, conf: int) -> None:
        """Its owner has said that everything up to `conf` is safe."""
        held = takewhile(lambda item: item[0] <= conf, session.held)
        for n, stanza in islice(held, TOLD_AT_ONCE):
            whose = self._tracer.whose(stanza)
            if whose:
                self._tracer.note(
                    whose, self._hop, (sent_name(session.sid, n),), stanza, "confirmed", managed=session.is_managed
                )

    @harmless
    def delivered(self, session: EdgeSession, q: int, id_: int | None, stanza: Stanza) -> None:
        """The session's stream was given a stanza to write."""
        reason, self.unwritten = self.unwritten, ""
        whose = self._tracer.whose(stanza, session.bare)
        if not whose:
            return
        if session.is_closing:
            reason = reason or f"the stream has ended ({session.reason})"
        decision = "returned" if reason else "delivered" if self._is_c2s else "written"
        self._tracer.note(
            whose, self._hop, _names(session, q, id_, stanza), stanza, decision, session=session.jid, reason=reason,
            copy=is_copy(stanza) or None,
        )  # fmt: skip

    @harmless
    def acknowledged(self, session: EdgeSession, q: int) -> None:
        """The client or the other server has everything up to `q`, or the kernel has taken it."""
        if self.unwritten:
            return
        had = takewhile(lambda item: item[0] <= q, session.unacknowledged)
        for number, id_, stanza in islice(had, TOLD_AT_ONCE):
            whose = self._tracer.whose(stanza, session.bare)
            if whose:
                decision = "acknowledged" if session.is_managed else "taken"
                names = _names(session, number, id_, stanza)
                self._tracer.note(whose, self._hop, names, stanza, decision, session=session.jid)


def _names(session: EdgeSession, q: int, id_: int | None, stanza: Stanza) -> tuple[str, ...]:
    given = given_name(session.sid, q)
    if id_ is None:
        return (given,)
    if id_ < 0:  # of a room
        return (given, row_name((stanza.from_ or "").partition("/")[0], id_))
    return (given, row_name(session.bare, id_))
