"""What each decision of a trace means, in words (cluster/tracing.py has the events)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Details = Mapping[str, Any]

_KEPT: Final = {
    "queue": " until it is delivered",
    "outbound": " until the other server has it",
    "group": " for a member who is not in the room",
}


def _several(values: Any) -> str:
    return ", ".join(map(str, values or ()))


def _because(details: Details, key: str = "reason") -> str:
    return f": {details[key]}" if details.get(key) else ""


def _plural(count: Any, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _received(d: Details) -> str:
    children = _several(d.get("children"))
    return f"received: {_plural(d.get('bytes', 0), 'byte')}" + (f", with {children}" if children else ", empty")


def _accepted(d: Details) -> str:
    if "n" not in d:
        return f"accepted by the owner of {d.get('owner', '?')}"
    again = ", offered again" if d.get("again") else ""
    return f"accepted as number {d['n']} of {d.get('session', '?')}{again}"


def _blocked(d: Details) -> str:
    told = d.get("told", "nothing")
    return f"blocked{_because(d)}; the sender is told {'nothing' if told == 'nothing' else told}"


def _bounced(d: Details) -> str:
    by = f" (by {d['by']})" if d.get("by") else ""
    return f"bounced{by}: {d.get('condition', '?')}" + (f": {d['text']}" if d.get("text") else "")


def _archived(d: Details) -> str:
    return f"archived{_KEPT.get(str(d.get('kept')), '')}, log id {d.get('id', '?')}"


def _routed(d: Details) -> str:
    error = f" the error {d['condition']}" if d.get("condition") else ""
    return f"routed{error} to {_several(d.get('to'))}"


def _returned(d: Details) -> str:
    condition = f" as {d['condition']}" if d.get("condition") else ""
    return f"returned{condition}{_because(d)}"


def _waits(d: Details) -> str:
    return f"waits for a stream from {d.get('local') or 'the component'}, {d.get('count', 1)} in line" + (
        f"; the last try failed{_because(d, 'problem')}" if d.get("problem") else ""
    )


def _dialed(d: Details) -> str:
    tries = f", after {_plural(d['tries'], 'try')} that failed".replace("trys", "tries") if d.get("tries") else ""
    return f"dialed: {d.get('by', '?')} is asked for a stream{tries}"


def _unreachable(d: Details) -> str:
    then = f"; tried again in {d['retry_s']:g} s" if d.get("retry_s") else "; given up"
    problem = str(d.get("problem") or d.get("condition", "?")).rstrip(".")
    return f"unreachable, says {d.get('by', '?')}: {problem}{then}"


def _delivered(d: Details) -> str:
    if "session" not in d:
        return f"delivered to {_several(d.get('sessions'))}"
    return f"delivered: written to {d['session']}" + (", a copy (XEP-0280)" if d.get("copy") else "")


def _told(d: Details) -> str:
    where = f" by {_several(d['routers'])}" if d.get("routers") else ""
    event = f", event {d['id']}" if d.get("id") else ""
    return f"told to {_plural(d.get('occupants', 0), 'occupant')}{where}{event}"


_WORDS: Final[dict[str, Callable[[Details], str]]] = {
    "received": _received,
    "confirmed": lambda d: (
        "confirmed: safe, and the client may be told (XEP-0198)" if d.get("managed") else "confirmed: safe"
    ),
    "accepted": _accepted,
    "blocked": _blocked,
    "bounced": _bounced,
    "archived": _archived,
    "unarchived": lambda d: f"not archived{_because(d)}",
    "routed": _routed,
    "forwarded": lambda d: f"forwarded to {d.get('router', '?')}, for {d.get('owner', '?')}",
    "committed": lambda d: (
        f"committed after {d.get('ms', 0):g} ms, in a batch of {_plural(d.get('items', 1), 'input')}"
    ),
    "copied": lambda d: f"copied to {_several(d.get('sessions'))}",
    "delivered": _delivered,
    "answered": lambda d: f"answered to {_several(d.get('sessions'))}",
    "held": lambda d: f"held back, for the client is inactive (XEP-0352): {_several(d.get('sessions'))}",
    "kept": lambda d: f"kept until it is resumed: {_several(d.get('sessions'))}",
    "offline": lambda d: f"offline: waits for the next client as log id {d.get('id', '?')}, {d.get('count', 1)} wait",
    "pushed": lambda d: f"pushed by {d.get('service', '?')}",
    "ended": lambda d: f"ends here{_because(d)}",
    "asked": lambda d: "waits for an answer of the database or of another router",
    "told": _told,
    "waits": _waits,
    "dialed": _dialed,
    "unreachable": _unreachable,
    "returned": _returned,
    "undone": lambda d: f"taken back{_because(d)}",
    "written": lambda d: "written to the other server",
    "acknowledged": lambda d: f"acknowledged (XEP-0198) by {d.get('session', '?')}",
    "taken": lambda d: f"taken by the kernel, which has to do without XEP-0198: {d.get('session', '?')}",
}
DECISIONS: Final = frozenset(_WORDS)


def words(decision: str, details: Details) -> str:
    """One line about one decision. `details` may come from a process that is newer, or not to be trusted."""
    make = _WORDS.get(decision)
    if make is None:
        return decision
    try:
        return make(details)
    except (TypeError, ValueError):
        return decision
