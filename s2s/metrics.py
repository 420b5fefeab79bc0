"""What an s2s process counts. Hot counts are plain integers, read when Prometheus asks."""

from __future__ import annotations

from typing import Final

from cluster import metrics
from xmpp.errors import STREAM_ERRORS
from xmpp.stanza import NAMES

IN: Final = "in"
OUT: Final = "out"
DIRECTIONS: Final = (IN, OUT)
METHODS: Final = ("external", "dialback")
CLOSE_REASONS: Final = (
    "peer", "peer-error", "idle", "connection-lost", "not-connected", "joined", *STREAM_ERRORS,
)  # fmt: skip

_closed = metrics.counter(
    "stentor_s2s_streams_closed_total",
    "Streams with other servers that have ended",
    {"direction": DIRECTIONS, "reason": [*CLOSE_REASONS, "other"]},
)
_stream_errors = metrics.counter(
    "stentor_s2s_stream_errors_total",
    "Stream errors sent to other servers, and got from them",
    {"direction": DIRECTIONS, "condition": list(STREAM_ERRORS)},
)
_failures = metrics.counter("stentor_s2s_stream_failures_total", "Streams that failed by a bug of the server")
_pairs = metrics.counter(
    "stentor_s2s_authentications_total",
    "Pairs of domains that streams were to be authenticated for, by outcome",
    {"direction": DIRECTIONS, "method": METHODS, "result": ["ok", "refused", "failed"]},
)
dials = metrics.counter(
    "stentor_s2s_dials_total",
    "Streams to other servers that routers asked for, by what came of it",
    {"result": ["ok", "failed", "joined", "refused"]},
)
verifications = metrics.counter(
    "stentor_s2s_verifications_total",
    "Keys of Server Dialback that other servers showed us, by what their authoritative server said",
    {"result": ["valid", "invalid", "error"]},
)
keys_checked = metrics.counter(
    "stentor_s2s_keys_checked_total",
    "Keys that other servers asked us about, because somebody had shown them as ours",
    {"result": ["valid", "invalid", "error"]},
)
tls_handshake_seconds = metrics.histogram(
    "stentor_s2s_tls_handshake_seconds",
    "Time of a TLS handshake with another server, where the stream began in the clear",
    {"direction": DIRECTIONS, "result": ["ok", "failed"]},
)


class Stats:
    """The counts of this process."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.stanzas_in = [0, 0, 0, 0]  # by kind (xmpp/stanza.py)
        self.stanzas_out = [0, 0, 0, 0]

    def closed(self, direction: str, reason: str) -> None:
        """A stream has ended."""
        _closed.labels(direction, reason if reason in CLOSE_REASONS else "other").inc()

    def stream_error(self, direction: str, condition: str) -> None:
        """A stream error was sent, or has come."""
        _stream_errors.labels(direction, condition if condition in STREAM_ERRORS else "undefined-condition").inc()

    def failed(self) -> None:
        """A bug of ours has ended a stream; the log has the traceback."""
        _failures.inc()

    def authenticated(self, direction: str, method: str, result: str) -> None:
        """It is decided whether a stream may be used for a pair of domains."""
        _pairs.labels(direction, method, result).inc()


stats: Final = Stats()


def _export() -> None:
    metrics.sampled_counter(
        "stentor_s2s_bytes_total",
        "Bytes of streams with other servers, without TLS",
        ("direction",),
        {(IN,): lambda: stats.bytes_in, (OUT,): lambda: stats.bytes_out},
    )
    metrics.sampled_counter(
        "stentor_s2s_stanzas_total",
        "Stanzas from and to other servers",
        ("direction", "kind"),
        {(IN, name): (lambda kind=kind: stats.stanzas_in[kind]) for kind, name in NAMES.items()}
        | {(OUT, name): (lambda kind=kind: stats.stanzas_out[kind]) for kind, name in NAMES.items()},
    )


_export()
