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


class _Levels:
    """Which lines are written. A logger's class has methods that do nothing for what is below its level, so that such
    a line costs next to nothing; each module has a class of its own, whose methods are exchanged while it is in use."""

    def __init__(self) -> None:
        self.level = "debug"  # until `configure` says more
        self.of_modules: dict[str, str] = {}
        self._classes: dict[str, type] = {}

    def class_of(self, module: str) -> type:
        """The class of the loggers of a module."""
        if module not in self._classes:
            self._classes[module] = type("Logger", (structlog.make_filtering_bound_logger(logging.DEBUG),), {})
            self._apply(module)
        return self._classes[module]

    def apply(self) -> None:
        """What was changed counts from now on."""
        for module in self._classes:
            self._apply(module)

    def _apply(self, module: str) -> None:
        parents = [name for name in self.of_modules if f"{module}.".startswith(f"{name}.")]
        level = self.of_modules[max(parents, key=len)] if parents else self.level
        class_ = self._classes[module]
        for name, number in LEVELS.items():
            if number < LEVELS[level]:
                setattr(class_, name, _write_nothing)
            elif name in vars(class_):
                delattr(class_, name)


def _write_nothing(self: Any, event: str, *arguments: Any, **keys: Any) -> None:
    return None


_levels: Final = _Levels()


def get_logger() -> Logger:
    """A logger; costs nothing until it is used. Bind what belongs to one stream or task once: `log.bind(...)`."""
    module = sys._getframe(1).f_globals.get("__name__", "")
    return cast(Logger, structlog.wrap_logger(None, wrapper_class=_levels.class_of(module), logger_factory_args=()))


def level_of(module: str = "") -> str | None:
    """The least that is written, or, of a module (`s2s`, `s2s.dns`), what was set for it; None if nothing was."""
    return _levels.of_modules.get(module) if module else _levels.level


def set_level(level: str | None, module: str = "") -> None:
    """Write that from now on, everywhere or in a module and what is below it; None: there as everywhere."""
    if not module:
        _levels.level = level or "info"
    elif level is None:
        _levels.of_modules.pop(module, None)
    else:
        _levels.of_modules[module] = level
    _levels.apply()


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
    set_level(level)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=_levels.class_of(""),
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
