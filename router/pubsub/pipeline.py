"""What `router/pipeline.py` is for accounts, for publishing services: each stanza that arrives, and its answer."""

from __future__ import annotations

from router.pipeline import Pipeline, check_iq, refuse
from router.pubsub import discovering, requests, subscribing
from router.pubsub.node import host_of
from router.turn import Turn
from xmpp import ns
from xmpp.errors import FeatureNotImplemented, InternalServerError, ServiceUnavailable, StanzaError
from xmpp.stanza import IQ, MESSAGE, Stanza

_KNOWN = frozenset(
    {f"{ns.PUBSUB} pubsub", f"{ns.PUBSUB_OWNER} pubsub", f"{ns.MAM} query", f"{ns.DISCO_INFO} query"}
    | {f"{ns.DISCO_ITEMS} query", f"{ns.PING} ping"}
)


class ServicePipeline:
    """The services of one owner."""

    def __init__(self, accounts: Pipeline) -> None:
        self._accounts = accounts
        self.bounced = [0, 0, 0, 0]  # stanzas refused, by kind (xmpp/stanza.py)

    def incoming(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza for a service. Presence says nothing to it."""
        try:
            if stanza.kind == IQ:
                self._iq(turn, stanza)
            elif stanza.kind == MESSAGE and stanza.type != "error":
                _message(turn, stanza)
        except StanzaError as fault:
            self.bounced[stanza.kind] += 1
            refuse(turn, stanza, fault)
        except Exception as bug:
            self._accounts.record_bug(bug)
            refuse(turn, stanza, InternalServerError())
            turn.reloads = True

    @staticmethod
    def _iq(turn: Turn, iq: Stanza) -> None:
        if iq.type not in ("get", "set"):
            return
        check_iq(iq)
        if iq.to != turn.entity.bare or iq.payload not in _KNOWN:
            raise ServiceUnavailable
        (asked,) = iq.children()
        host = host_of(turn.entity)
        match iq.type, asked.tag:
            case _, tag if tag in (f"{{{ns.PUBSUB}}}pubsub", f"{{{ns.PUBSUB_OWNER}}}pubsub"):
                requests.handle(turn, iq)
            case "get", tag if tag == f"{{{ns.DISCO_INFO}}}query":
                discovering.service(turn, host, iq, asked)
            case "get", tag if tag == f"{{{ns.DISCO_ITEMS}}}query":
                discovering.service_items(turn, host, iq, asked)
            case "get", tag if tag == f"{{{ns.PING}}}ping":
                turn.answer(iq)
            case "set", tag if tag == f"{{{ns.MAM}}}query":
                requests.archive(turn, iq, asked.get("node") or "")
            case _:
                raise FeatureNotImplemented


def _message(turn: Turn, message: Stanza) -> None:
    if not subscribing.answered(turn, host_of(turn.entity), message):
        raise ServiceUnavailable
