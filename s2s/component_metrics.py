"""What an s2s process counts of its components. Hot counts are plain integers, read when Prometheus asks."""

from __future__ import annotations

from typing import Final

from cluster import metrics
from xmpp.errors import STREAM_ERRORS
from xmpp.stanza import NAMES

CLOSE_REASONS: Final = ("component", "component-eof", "connection-lost", "revoked", *STREAM_ERRORS)
HANDSHAKES: Final = ("ok", "wrong-secret", "unknown-domain", "refused")
_IN, _OUT = "in", "out"

_closed = metrics.counter(
    "stentor_components_connections_closed_total",
    "Connections of components ended",
    {"reason": [*CLOSE_REASONS, "other"]},
)
_stream_errors = metrics.counter(
    "stentor_components_stream_errors_total", "Stream errors sent to components", {"condition": list(STREAM_ERRORS)}
)
_failures = metrics.counter(
    "stentor_components_stream_failures_total", "Streams of components that failed by a bug of the server"
)
_handshakes = metrics.counter(
    "stentor_components_handshakes_total",
    "Components that wanted to join, by outcome",
    {"result": list(HANDSHAKES)},
)


class Stats:
    """The counts of this process."""

    def __init__(self) -> None:
        self.stanzas_in = [0, 0, 0, 0]  # by kind (xmpp/stanza.py)
        self.stanzas_out = [0, 0, 0, 0]

    def closed(self, reason: str) -> None:
        """A connection has ended."""
        _closed.labels(reason if reason in CLOSE_REASONS else "other").inc()

    def stream_error(self, condition: str) -> None:
        """A stream error was sent."""
        _stream_errors.labels(condition).inc()

    def failed(self) -> None:
        """A bug of ours has ended a stream; the log has the traceback."""
        _failures.inc()

    def handshake(self, result: str) -> None:
        """A component was let in, or not."""
        _handshakes.labels(result).inc()


stats: Final = Stats()

metrics.sampled_counter(
    "stentor_components_stanzas_total",
    "Stanzas from and to components",
    ("direction", "kind"),
    {(_IN, name): (lambda kind=kind: stats.stanzas_in[kind]) for kind, name in NAMES.items()}
    | {(_OUT, name): (lambda kind=kind: stats.stanzas_out[kind]) for kind, name in NAMES.items()},
)
