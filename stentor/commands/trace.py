"""`stentor trace JID`: where the stanzas of an account, a room or another server go, live (docs/tracing.md)."""

from __future__ import annotations

import getpass
import json
import re
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import click

from stentor.client import Api, Refused, finds, segment
from stentor.failure import Failed

RETRIES_S: Final = 8.0
RETRY_S: Final = 0.5
_DURATION: Final = re.compile(r"(\d+)(s|m|h)?")
_UNITS: Final = {None: 1, "s": 1, "m": 60, "h": 3600}
_BAD: Final = frozenset({"blocked", "bounced", "returned", "unreachable", "undone"})
_WAITING: Final = frozenset({"offline", "held", "kept", "waits", "dialed", "asked", "unarchived", "ended"})
_ARRIVED: Final = frozenset({"acknowledged", "taken"})


class Duration(click.ParamType[int]):
    """60s, 5m, 1h; without a unit, seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """In seconds."""
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no duration; write 60s, 5m or 1h", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


@click.command()
@click.argument("jid", required=False)
@click.option("--for", "seconds", type=Duration(), default="60s", show_default=True, help="How long, at most 1h")
@click.option("--stanza", "wanted", metavar="ID", help="Only the stanzas with this id, and what comes back for them")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line")
@click.option("--list", "lists", is_flag=True, help="List the traces that run, whoever has begun them")
@click.option("--stop", "stopped", metavar="TRACE", help="End the trace of this id")
@finds
def trace(
    api: Api, jid: str | None, seconds: int, wanted: str | None, is_json: bool, lists: bool, stopped: str | None
) -> None:
    """Follow the stanzas from and to a bare JID through all processes: what each decides, when, and why. Never what
    they say. JID is an account, a room, or the domain of another server. Ctrl-C ends it."""
    if (jid is not None) + lists + (stopped is not None) != 1:
        raise click.UsageError("Give one of JID, --list and --stop.")
    if lists:
        for one in api.call("GET", "/traces")["traces"]:
            line = f"{one['id']}  {one['jid']}  by {one['by']}  {one['events']} events  {one['seconds_left']} s left"
            click.echo(_clean(line))
    elif stopped is not None:
        api.call("DELETE", f"/traces/{segment(stopped)}", query={"by": _who()})
        click.echo(f"{stopped} is over")
    else:
        body = {"jid": jid, "seconds": seconds, "by": _who()}
        begun = api.call("POST", "/traces", body)
        _follow(api, begun, wanted, is_json)


def _follow(api: Api, begun: Mapping[str, Any], wanted: str | None, is_json: bool) -> None:
    """Print events as they come, until the trace is over or the operator has enough."""
    path = f"/traces/{segment(begun['id'])}"
    is_coloured = sys.stdout.isatty()
    if begun["hint"]:
        _say(f"note: {begun['hint']}")
    _say(f"tracing {begun['jid']} for {begun['seconds']:g} s as {begun['id']}; Ctrl-C ends it")
    after, dropped, count = 0, 0, 0
    chosen = _Chosen(wanted)
    try:
        while True:
            page = _page(api, path, after)
            for event in page["events"]:
                after = event["number"]
                if chosen.takes(event):
                    count += 1
                    click.echo(json.dumps(event) if is_json else line(event, is_coloured))
            if page["dropped"] > dropped:
                _say(f"{page['dropped'] - dropped} events were dropped: there was too much to tell")
                dropped = page["dropped"]
            sys.stdout.flush()
            if page["is_over"]:
                _say(f"over: {count} events")
                return
    except KeyboardInterrupt:
        _stop(api, path)
        _say(f"stopped: {count} events")
    except BrokenPipeError:
        _stop(api, path)
        raise
    except Failed as problem:
        raise Failed(f"the trace has ended after {count} events: {problem}") from None


def _page(api: Api, path: str, after: int) -> Any:
    """The next page. Whoever answers may have died just now, or begun and not know of anything yet: then it is asked
    again for a while. Raises Failed."""
    give_up_at = time.monotonic() + RETRIES_S
    while True:
        try:
            return api.call("GET", path, query={"after": str(after)})
        except Failed as problem:
            is_lasting = isinstance(problem, Refused) and problem.status not in (404, 503)
            if is_lasting or time.monotonic() >= give_up_at:
                raise
        time.sleep(RETRY_S)


def _stop(api: Api, path: str) -> None:
    try:
        api.call("DELETE", path, query={"by": _who()})
    except Failed as problem:
        _say(f"it ends by itself when its time is over: {problem}")


class _Chosen:
    """Which events are shown: all, or those of stanzas that have an id."""

    def __init__(self, wanted: str | None) -> None:
        self._wanted = wanted
        self._stanzas: set[int] = set()

    def takes(self, event: Mapping[str, Any]) -> bool:
        if self._wanted is None:
            return True
        if event["id"] == self._wanted:
            self._stanzas.add(event["stanza"])
        return event["stanza"] in self._stanzas


def line(event: Mapping[str, Any], is_coloured: bool) -> str:
    """One event, as a line of a terminal."""
    at = datetime.fromisoformat(event["at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    since = f"{event['since_ms']:+.1f}"
    what = " ".join(filter(None, (event["kind"], event["type"], event["id"])))
    way = f"{event['from'] or '-'} -> {event['to'] or '-'}"
    text = _clean(event["text"])
    if is_coloured:
        decision = event["decision"]
        colour = (
            "red" if decision in _BAD
            else "yellow" if decision in _WAITING
            else "green" if decision in _ARRIVED
            else None
        )  # fmt: skip
        text = click.style(text, fg=colour, bold=True) if colour is not None else text
    where = _clean(f"{event['node']:<9} {event['hop']:<9}")
    return f"{at} {since:>8} ms  #{event['stanza']:<3} {where}  {_clean(what)}  {_clean(way)}  {text}"


def _clean(text: str) -> str:
    """Addresses and ids are what users make them: nothing of it may steer a terminal, or look like another line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "operator"


def _say(text: str) -> None:
    click.echo(f"stentor: {_clean(text)}", err=True)
