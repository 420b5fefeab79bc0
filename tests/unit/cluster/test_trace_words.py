"""Decisions in words (cluster/trace_words.py)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.trace_words import DECISIONS, words

ROOT = Path(__file__).resolve().parents[3]
B, P = "b@x/1 on c2s-0", "b@x/phone on c2s-1"

SAID: list[tuple[str, dict[str, Any], str]] = [
    ("received", {"bytes": 163, "children": ("body", "request")}, "received: 163 bytes, with body, request"),
    ("received", {"bytes": 1}, "received: 1 byte, empty"),
    ("confirmed", {}, "confirmed: safe"),
    ("confirmed", {"managed": True}, "confirmed: safe, and the client may be told (XEP-0198)"),
    ("accepted", {"n": 12, "session": "a@x/1"}, "accepted as number 12 of a@x/1"),
    ("accepted", {"n": 12, "session": "a@x/1", "again": True}, "accepted as number 12 of a@x/1, offered again"),
    ("accepted", {"owner": "b@x"}, "accepted by the owner of b@x"),
    ("blocked", {"reason": "the recipient has blocked the sender", "told": "service-unavailable"},
     "blocked: the recipient has blocked the sender; the sender is told service-unavailable"),
    ("blocked", {"reason": "strangers", "told": "nothing"}, "blocked: strangers; the sender is told nothing"),
    ("bounced", {"by": "delivery", "condition": "service-unavailable", "text": "Nobody is there."},
     "bounced (by delivery): service-unavailable: Nobody is there."),
    ("bounced", {"condition": "item-not-found"}, "bounced: item-not-found"),
    ("archived", {"id": 5, "kept": "archive"}, "archived, log id 5"),
    ("archived", {"id": 5, "kept": "queue"}, "archived until it is delivered, log id 5"),
    ("archived", {"id": 5, "kept": "outbound"}, "archived until the other server has it, log id 5"),
    ("unarchived", {"reason": "hint no-store (XEP-0334)"}, "not archived: hint no-store (XEP-0334)"),
    ("routed", {"to": ("b@x at router-1",)}, "routed to b@x at router-1"),
    ("routed", {"to": ("a@x at router-0",), "condition": "conflict"}, "routed the error conflict to a@x at router-0"),
    ("forwarded", {"router": "router-1", "owner": "b@x"}, "forwarded to router-1, for b@x"),
    ("committed", {"ms": 4.25, "items": 3}, "committed after 4.25 ms, in a batch of 3 inputs"),
    ("copied", {"sessions": (B, P)}, f"copied to {B}, {P}"),
    ("delivered", {"sessions": (B,)}, f"delivered to {B}"),
    ("delivered", {"session": "b@x/1"}, "delivered: written to b@x/1"),
    ("delivered", {"session": "b@x/1", "copy": True}, "delivered: written to b@x/1, a copy (XEP-0280)"),
    ("answered", {"sessions": (B,)}, f"answered to {B}"),
    ("held", {"sessions": (B,)}, f"held back, for the client is inactive (XEP-0352): {B}"),
    ("kept", {"sessions": ("b@x/1, which has no stream",)}, "kept until it is resumed: b@x/1, which has no stream"),
    ("offline", {"id": 5, "count": 3}, "offline: waits for the next client as log id 5, 3 wait"),
    ("pushed", {"service": "push.example"}, "pushed by push.example"),
    ("ended", {"reason": "there is nobody to give it to"}, "ends here: there is nobody to give it to"),
    ("asked", {}, "waits for an answer of the database or of another router"),
    ("told", {"occupants": 2, "routers": ("router-0", "router-1"), "id": 5},
     "told to 2 occupants by router-0, router-1, event 5"),
    ("told", {"occupants": 1}, "told to 1 occupant"),
    ("waits", {"local": "x", "count": 2}, "waits for a stream from x, 2 in line"),
    ("waits", {"local": "", "count": 1, "problem": "refused"},
     "waits for a stream from the component, 1 in line; the last try failed: refused"),
    ("dialed", {"by": "s2s-0"}, "dialed: s2s-0 is asked for a stream"),
    ("dialed", {"by": "s2s-0", "tries": 1}, "dialed: s2s-0 is asked for a stream, after 1 try that failed"),
    ("dialed", {"by": "s2s-0", "tries": 2}, "dialed: s2s-0 is asked for a stream, after 2 tries that failed"),
    ("unreachable", {"by": "s2s-0", "problem": "Connection refused.", "retry_s": 4.0},
     "unreachable, says s2s-0: Connection refused; tried again in 4 s"),
    ("unreachable", {"by": "s2s-0", "condition": "remote-server-not-found"},
     "unreachable, says s2s-0: remote-server-not-found; given up"),
    ("returned", {"condition": "remote-server-timeout", "reason": "no answer"},
     "returned as remote-server-timeout: no answer"),
    ("returned", {"reason": "the stream is ending"}, "returned: the stream is ending"),
    ("undone", {"reason": "a shard has moved"}, "taken back: a shard has moved"),
    ("written", {"session": "y/1"}, "written to the other server"),
    ("acknowledged", {"session": "b@x/1"}, "acknowledged (XEP-0198) by b@x/1"),
    ("taken", {"session": "b@x/1"}, "taken by the kernel, which has to do without XEP-0198: b@x/1"),
]  # fmt: skip


@pytest.mark.parametrize(("decision", "details", "text"), SAID)
def test_each_decision_has_its_words(decision: str, details: dict[str, Any], text: str) -> None:
    assert words(decision, details) == text


def test_no_decision_is_left_out() -> None:
    assert {decision for decision, _, _ in SAID} == DECISIONS


def test_whatever_is_told_has_words() -> None:
    """Every decision that the code notes, and no other."""
    source = "".join(
        (ROOT / file).read_text() for file in ("router/tracing.py", "cluster/edge_tracing.py", "router/dialing.py")
    )
    noted = {word for word in re.findall(r'"([a-z]+)"', source) if word in DECISIONS}
    assert noted == DECISIONS


def test_a_newer_decision_is_told_as_it_is() -> None:
    assert words("levitated", {"height": 3}) == "levitated"


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()).map(tuple)
_keys = st.sampled_from(sorted({key for _, details, _ in SAID for key in details}))


@settings(deadline=None)
@given(st.sampled_from(sorted(DECISIONS)), st.dictionaries(_keys, _values))
def test_strange_details_break_nothing(decision: str, details: dict[str, Any]) -> None:
    assert isinstance(words(decision, details), str)
