"""What a router counts and shows besides what its modules declare themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cluster import metrics
from cluster.wire import ATTACH, FORWARD, SUBMIT
from router.owner import Owner
from router.ownership import Ownership
from xmpp.stanza import NAMES

MEASURED: Final = {"submit": SUBMIT, "forward": FORWARD, "attach": ATTACH}


handle_seconds = metrics.histogram(
    "stentor_router_handle_seconds", "Time to handle one envelope; a sample", {"kind": list(MEASURED)}
)
_children: Final = {kind: handle_seconds.labels(name) for name, kind in MEASURED.items()}


append_seconds = metrics.histogram("stentor_log_append_seconds", "Time to commit a batch with rows of the log")
batch_messages = metrics.histogram(
    "stentor_log_batch_messages", "Rows of the log in one batch", buckets=metrics.SIZE_BUCKETS
)


def measured(kind: int, seconds: float) -> None:
    """One envelope of this kind took so long."""
    child = _children.get(kind)
    if child is not None:
        child.observe(seconds)


def _leaving(owner: Owner) -> int:
    return sum(owner.tenures[shard] is not None for shard in owner.leaving)


def export(owner: Owner, ownership: Ownership, oldest_pending_s: Callable[[], float]) -> None:
    """Register the gauges and counters that are read when Prometheus asks."""
    metrics.sampled_gauge(
        "stentor_log_oldest_pending_seconds",
        "How long the batch under way has been waiting to be committed, 0 without one",
        (),
        {(): oldest_pending_s},
    )
    metrics.sampled_gauge(
        "stentor_router_sessions",
        "Sessions of this router's entities",
        ("state",),
        {
            ("attached",): lambda: sum(session.place is not None for session in owner.sessions.values()),
            ("detached",): lambda: sum(session.place is None for session in owner.sessions.values()),
        },
    )
    metrics.sampled_gauge(
        "stentor_router_shards",
        "Shards as this router knows them: its own, its own that it is giving away, those without a known owner",
        ("state",),
        {
            ("owned",): lambda: ownership.owned - _leaving(owner),
            ("leaving",): lambda: _leaving(owner),
            ("unowned",): lambda: owner.map.owners.count(None),
        },
    )
    metrics.sampled_gauge(
        "stentor_router_entities",
        "Entities in memory",
        ("kind",),
        {("account",): lambda: len(owner.entities)},
    )
    metrics.sampled_gauge(
        "stentor_router_mailbox_stanzas",
        "Turns that wait for their batch, and stanzas that wait for their recipients' owners",
        (),
        {(): lambda: len(owner.queue) + len(owner.outbox)},
    )
    metrics.sampled_counter(
        "stentor_router_deduplicated_total",
        "Stanzas that were offered again and seen already",
        (),
        {(): lambda: owner.deduplicated},
    )
    metrics.sampled_counter(
        "stentor_router_fenced_writes_total",
        "Transactions refused because a shard had moved",
        (),
        {(): lambda: owner.fenced},
    )
    metrics.sampled_counter(
        "stentor_router_stanzas_total",
        "Stanzas by what became of them",
        ("kind", "outcome"),
        {
            (name, outcome): (lambda kind=kind, counts=counts: counts[kind])  # type: ignore[misc]
            for kind, name in NAMES.items()
            for outcome, counts in (
                ("delivered", owner.outbox.delivered),
                ("stored", owner.stored),
                ("bounced", owner.pipeline.bounced),
                ("error", owner.pipeline.failed),
            )
        },
    )
