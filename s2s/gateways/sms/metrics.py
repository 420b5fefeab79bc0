"""The gateway's metrics (docs/metrics.md); the modules that move them import them from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cluster import metrics
from s2s.gateways.connection import Connection
from s2s.gateways.sms.link import Link
from s2s.gateways.sms.reports import STATES

OUT: Final = ("taken", "delivered", "bounced")
IN: Final = ("delivered", "incomplete", "nobody", "no-text", "repeated")

messages_out = metrics.counter(
    "stentor_sms_out_messages_total",
    "Messages to phones: taken from users, then reported as delivered or bounced",
    {"result": OUT},
)
messages_in = metrics.counter("stentor_sms_in_messages_total", "Messages from phones", {"result": IN})
parts_out = metrics.counter(
    "stentor_sms_out_parts_total",
    "Answers of the SMSC to parts",
    {"result": ["accepted", "throttled", "postponed", "refused"]},
)
parts_in = metrics.counter("stentor_sms_in_parts_total", "deliver_sm received that are no reports")
reports = metrics.counter("stentor_sms_reports_total", "Delivery reports", {"state": list(STATES)})
submit_seconds = metrics.histogram("stentor_sms_submit_seconds", "From submit_sm to its answer")
queue = metrics.gauge("stentor_sms_queue", "What waits", {"for": ["smsc", "xmpp"]})
dropped = metrics.counter(
    "stentor_sms_dropped_stanzas_total", "Presence and answers that were not sent because the XMPP stream was down"
)


def export(connection: Connection, links: Sequence[Link]) -> None:
    """What the connections count themselves."""
    metrics.sampled_counter(
        "stentor_sms_connects_total",
        "Attempts to connect",
        ("to", "result"),
        {
            ("smsc", "ok"): lambda: sum(link.connects for link in links),
            ("smsc", "failed"): lambda: sum(link.failures for link in links),
            ("xmpp", "ok"): lambda: connection.connects,
            ("xmpp", "failed"): lambda: connection.failures,
        },
    )
    metrics.sampled_gauge(
        "stentor_sms_up",
        "1 while the side can be reached",
        ("to",),
        {
            ("smsc",): lambda: float(not any(link.problem for link in links)),
            ("xmpp",): lambda: float(not connection.problem),
        },
    )
