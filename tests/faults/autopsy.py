"""What the database and the processes' logs know about a run that broke a rule: printed with the findings, judged by
nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import psycopg

from storage.log import time_of
from tests.faults.checker import Finding
from tests.support.faults import Site

CASES: Final = 8
LINES: Final = 150
DULL: Final = frozenset({"stream_bound", "stream_resumed"})

ROWS: Final = """
    select e.jid, a.delivered, a.strays, l.id, l.dir, l.class, l.forward, l.sid, l.n
    from log l join accounts a on a.key = l.owner join entities e on e.key = l.owner
    where position(%s in l.inner_xml) > 0 order by l.id
    """


def examine(site: Site, run: str, opened_at: float, findings: Sequence[Finding]) -> Iterator[str]:
    """Lines about the messages of the first findings, then what the processes logged since `opened_at` (Unix seconds),
    with the bank's times."""
    keys = dict.fromkeys(finding.key for finding in findings if finding.key is not None)
    with psycopg.connect(site.cluster.facts["database_url"]) as conn:
        for key in list(keys)[:CASES]:
            name = f"{key.pair} {key.direction} {key.seq}"
            rows = conn.execute(ROWS, (f"<body>{run} {name}</body>".encode(),)).fetchall()
            yield f"log rows of message {name.replace(' ', '.')}: {len(rows) or 'none'}"
            for jid, delivered, strays, id_, dir_, class_, forward, sid, n in rows:
                cursor = "passed" if delivered >= id_ else "before"
                yield (
                    f"    {jid} id={id_} ({time_of(id_) - opened_at:.3f}) dir={dir_} class={class_} forward={forward} "
                    f"key=({sid:x}, {n}) cursor={cursor} stray={id_ in strays}"
                )
    events = sorted(event for process in site.cluster.processes() for event in _logged(site, process.node, opened_at))
    yield from (f"{at:8.3f} {text}" for at, text in _gathered(events)[-LINES:])


def _gathered(events: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Streams that close for one reason, one after another, are one line: there may be hundreds."""
    lines: list[tuple[float, str]] = []
    count = 1
    for at, text in events:
        is_same = "stream_closed" in text and bool(lines) and lines[-1][1].partition(" (x ")[0] == text
        count = count + 1 if is_same else 1
        if is_same:
            lines[-1] = (lines[-1][0], f"{text} (x {count}, until {at:.3f})")
        else:
            lines.append((at, text))
    return lines


def _logged(site: Site, node: str, opened_at: float) -> Iterator[tuple[float, str]]:
    at = 0.0
    for line in site.cluster.log(node).splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            if at:
                yield at, f"{node} {line}"  # not one of ours: a crash, perhaps
            continue
        at = datetime.fromisoformat(event.pop("timestamp")).timestamp() - opened_at
        if event["event"] == "stream_closed":
            event = {"level": event["level"], "event": "stream_closed", "reason": event["reason"]}
        if at >= 0 and event["event"] not in DULL:
            yield at, f"{node} {event.pop('level')} {event.pop('event')} {event}"
