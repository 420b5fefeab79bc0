"""What a c2s process counts. Hot counts are plain integers, read when Prometheus asks."""

from __future__ import annotations

from typing import Final

from cluster import metrics
from xmpp.errors import SASL_ERRORS, STREAM_ERRORS
from xmpp.stanza import NAMES

TRANSPORTS: Final = ("tcp", "starttls", "tls", "websocket", "bosh")
CLOSE_REASONS: Final = (
    "client", "client-eof", "connection-lost", "revoked", "starttls-refused", *STREAM_ERRORS,
)  # fmt: skip
MECHANISMS: Final = (
    "ANONYMOUS", "EXTERNAL", "OAUTHBEARER", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256",
    "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "HT-SHA-256-EXPR", "HT-SHA-256-UNIQ",
    "HT-SHA-256-ENDP", "HT-SHA-256-NONE", "other",
)  # fmt: skip
_IN, _OUT = "in", "out"

_opened = metrics.counter(
    "stentor_c2s_connections_opened_total",
    "Client connections accepted",
    {"transport": ["tcp", "tls", "websocket", "bosh"]},
)
_closed = metrics.counter(
    "stentor_c2s_connections_closed_total", "Client connections ended", {"reason": [*CLOSE_REASONS, "other"]}
)
_stream_errors = metrics.counter(
    "stentor_c2s_stream_errors_total", "Stream errors sent to clients", {"condition": list(STREAM_ERRORS)}
)
_failures = metrics.counter("stentor_c2s_stream_failures_total", "Streams that failed by a bug of the server")
_auth = metrics.counter(
    "stentor_c2s_auth_total",
    "SASL exchanges by outcome: rejected is the client's fault, error is ours",
    {"mechanism": list(MECHANISMS), "result": ["ok", "rejected", "error"]},
)
login_seconds = metrics.histogram(
    "stentor_c2s_login_seconds", "Time from <auth/> or <authenticate/> to the outcome", {"result": ["ok", "failed"]}
)


class Stats:
    """The counts of this process."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.stanzas_in = [0, 0, 0, 0]  # by kind (xmpp/stanza.py)
        self.stanzas_out = [0, 0, 0, 0]

    def opened(self, transport: str) -> None:
        """A connection was accepted."""
        _opened.labels(transport).inc()

    def closed(self, reason: str) -> None:
        """A connection has ended."""
        _closed.labels(reason if reason in CLOSE_REASONS else "other").inc()

    def stream_error(self, condition: str) -> None:
        """A stream error was sent."""
        _stream_errors.labels(condition).inc()

    def failed(self) -> None:
        """A bug of ours has ended a stream; the log has the traceback."""
        _failures.inc()

    def auth(self, mechanism: str, condition: str | None, seconds: float) -> None:
        """A SASL exchange has ended; `condition` is the failure's, None for success."""
        assert condition is None or condition in SASL_ERRORS
        if condition is None:
            outcome = "ok"
        else:
            outcome = "error" if condition == "temporary-auth-failure" else "rejected"
        _auth.labels(mechanism if mechanism in MECHANISMS else "other", outcome).inc()
        login_seconds.labels("ok" if condition is None else "failed").observe(seconds)


stats: Final = Stats()


def _export() -> None:
    metrics.sampled_counter(
        "stentor_c2s_bytes_total",
        "Bytes of client streams, without TLS",
        ("direction",),
        {(_IN,): lambda: stats.bytes_in, (_OUT,): lambda: stats.bytes_out},
    )
    metrics.sampled_counter(
        "stentor_c2s_stanzas_total",
        "Stanzas from and to clients",
        ("direction", "kind"),
        {(_IN, name): (lambda kind=kind: stats.stanzas_in[kind]) for kind, name in NAMES.items()}
        | {(_OUT, name): (lambda kind=kind: stats.stanzas_out[kind]) for kind, name in NAMES.items()},
    )


_export()
