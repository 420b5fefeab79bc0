"""Structured logs: one event name and keys a line, JSON (or a console format on a terminal), on standard error.

`log = logs.get_logger()` at the top of a module, then `log.info("stream_closed", reason=..., seconds=...)`. Keys come
from `KEYS`. Bodies and credentials are logged at no level: nothing here would remove them.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from cluster import metrics

Logger = FilteringBoundLogger
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

KEYS: Final = {
    "account": "the bare JID of an account",
    "address": "of the other end of a connection",
    "addresses": "where a process listens",
    "backend": "who checks passwords of a domain: ldap, jwt or http",
    "by": "who has done it: a bare JID, user or operator",
    "bidi": "whether a stream has two directions (XEP-0288)",
    "check": "name of a readiness or health check",
    "command": "of the administration, as `stentor` calls it",
    "condition": "of an error, RFC 6120's word",
    "count": "how many, of what the event names",
    "direction": "in: opened to us, out: by us",
    "domain": "of a component or another server",
    "exit_code": "of a process",
    "host": "the name of another machine, from DNS",
    "how": "external or dialback",
    "key": "the setting to look at, section.key",
    "kind": "ban or quarantine",
    "kinds": "kinds of envelopes, by number",
    "library": "whose line it is, where a library wrote it",
    "local": "a domain of ours",
    "method": "HTTP method, or the name of a call between processes",
    "node": "the process that writes; in every line",
    "on": "on what a command was done",
    "outcome": "done, or an error's status and text",
    "path": "HTTP path",
    "peer": "the process at the other end of a link",
    "pids": "processes of PostgreSQL",
    "port": "TCP port for STARTTLS",
    "problem": "what went wrong, as the error's own text",
    "process": "the process that the line is about",
    "reason": "why, in a word or a sentence",
    "remedy": "what an operator can do about it",
    "removed": "how many of each kind are gone",
    "remote": "another server's domain",
    "retry_s": "seconds until the next try",
    "role": "c2s, s2s or router",
    "seconds": "how long",
    "service": "the address of a push service",
    "sessions": "how many sessions",
    "shards": "how many shards",
    "sid": "id of a stream or session",
    "signal": "a signal sent, by name",
    "task": "name of a task",
    "tls_port": "TCP port for direct TLS",
    "trace": "the id of a trace",
    "to": "the process that gets something",
    "transport": "tcp, starttls or tls",
    "until": "when it ends, Unix seconds",
    "version": "of the software",
}

messages = metrics.counter("stentor_log_messages_total", "Log lines written", {"level": list(LEVELS)})
_counted: Final = {level: messages.labels(level) for level in LEVELS}


def get_logger() -> Logger:
    """A logger; costs nothing until it is used. Bind what belongs to one stream or task once: `log.bind(...)`."""
    return cast(Logger, structlog.get_logger())


def configure(
    level: Literal["debug", "info", "warning", "error"],
    style: Literal["auto", "json", "console"],
    node: str = "",
    stream: TextIO | None = None,
) -> None:
    """Set up the logs of this process, also for libraries that use `logging`. `node` goes into every line."""
    output = stream if stream is not None else sys.stderr
    is_console = style == "console" or (style == "auto" and output.isatty())
    shared: list[Processor] = [
        _count,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _node_binder(node),
    ]
    render = _renderers(is_console, output)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LEVELS[level], logging.WARNING))  # libraries: only what someone should look at


def _renderers(is_console: bool, output: TextIO) -> list[Processor]:
    if is_console:
        return [structlog.dev.ConsoleRenderer(colors=output.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _count(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    counted = _counted.get(method)
    (counted if counted is not None else _counted["error"]).inc()
    return event


def _node_binder(node: str) -> Processor:
    def bind(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if node:
            event["node"] = node
        return event

    return bind


def _library(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A line of a library's own: its sentence is the problem, its logger's name says whose."""
    record: Any = event.get("_record")
    event["problem"], event["event"] = event["event"], "library"
    event["library"] = record.name if record is not None else ""
    return event
