"""`stentor trace`: what it asks, and how it shows what it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stentor.client import Refused
from stentor.commands import trace as command
from stentor.failure import Failed
from tests.unit.stentor.test_commands import run

BEGUN = {"id": "router-0-1", "jid": "a@b", "seconds": 60, "node": "router-0", "hint": ""}
STARTED = ("POST", "/traces", {"jid": "a@b", "seconds": 60, "by": "me"}, None)


@pytest.fixture(autouse=True)
def me(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    monkeypatch.setenv("TZ", "UTC")


def event(number: int, stanza: int = 1, id_: str | None = "m1", **changes: Any) -> dict[str, Any]:
    return {
        "number": number, "at": "2026-11-24T03:12:07.412Z", "since_ms": 1.26, "node": "router-0", "role": "router",
        "hop": "sender", "stanza": stanza, "kind": "message", "type": "chat", "id": id_, "from": "a@b/x", "to": "c@b",
        "decision": "routed", "details": {}, "text": "routed to c@b at router-1", **changes,
    }  # fmt: skip


def page(*events: dict[str, Any], is_over: bool = False, dropped: int = 0) -> dict[str, Any]:
    return {"events": list(events), "dropped": dropped, "is_over": is_over}


def test_events_are_printed_as_they_come_until_it_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [BEGUN, page(event(1), event(2)), page(), page(event(3, dropped=1), is_over=True, dropped=4)]
    code, out, err, calls = run(monkeypatch, capsys, answers, "trace", "a@b")
    assert code == 0
    assert calls == [
        STARTED, ("GET", "/traces/router-0-1", None, {"after": "0"}),
        ("GET", "/traces/router-0-1", None, {"after": "2"}), ("GET", "/traces/router-0-1", None, {"after": "2"}),
    ]  # fmt: skip
    first = out.splitlines()[0]
    assert first.endswith(
        "    +1.3 ms  #1   router-0  sender     message chat m1  a@b/x -> c@b  routed to c@b at router-1"
    )
    assert first[:12].endswith(":07.412")
    assert "tracing a@b for 60 s as router-0-1" in err
    assert "4 events were dropped" in err
    assert "over: 3 events" in err


def test_one_object_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [BEGUN, page(event(1), event(2), is_over=True)]
    _, out, _, _ = run(monkeypatch, capsys, answers, "trace", "a@b", "--json")
    assert [json.loads(line)["number"] for line in out.splitlines()] == [1, 2]


def test_one_stanza_and_what_comes_back_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event(1), event(2, 2, "m2"), event(3, 1, None), event(4, 2, None)]
    _, out, _, _ = run(
        monkeypatch, capsys, [BEGUN, page(*events, is_over=True)], "trace", "a@b", "--json", "--stanza", "m1"
    )
    assert [json.loads(line)["number"] for line in out.splitlines()] == [1, 3]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600)])
def test_how_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, seconds: int) -> None:
    _, _, _, calls = run(monkeypatch, capsys, [BEGUN, page(is_over=True)], "trace", "a@b", "--for", text)
    assert calls[0][2]["seconds"] == seconds


@pytest.mark.parametrize(
    "arguments", [(), ("a@b", "--list"), ("--list", "--stop", "x"), ("a@b", "--for", "a while"), ("a@b", "--for", "-5")]
)
def test_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, _, err, calls = run(monkeypatch, capsys, [], "trace", *arguments)
    assert (code, calls) == (2, [])
    assert err


def test_a_hint_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [BEGUN | {"hint": "a@b has no account"}, page(is_over=True)]
    _, out, err, _ = run(monkeypatch, capsys, answers, "trace", "a@b")
    assert "note: a@b has no account" in err
    assert out == ""


@pytest.mark.parametrize("answer", [{"id": "router-0-1"}, Refused("there is no trace router-0-1", 404)])
def test_ctrl_c_ends_the_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any
) -> None:
    def stop(*arguments: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "line", stop)
    code, _, err, calls = run(monkeypatch, capsys, [BEGUN, page(event(1)), answer], "trace", "a@b")
    assert code == 0
    assert calls[-1] == ("DELETE", "/traces/router-0-1", None, {"by": "me"})
    assert "stopped: 1 events" in err


def test_who_has_just_died_or_begun_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RETRY_S", 0.0)
    answers = [BEGUN, Failed("no answer"), Refused("there is no trace", 404), page(event(1), is_over=True)]
    code, _, err, calls = run(monkeypatch, capsys, answers, "trace", "a@b")
    assert (code, len(calls)) == (0, 4)
    assert "over: 1 events" in err
    code, _, err, _ = run(monkeypatch, capsys, [BEGUN, Refused("wrong token", 401)], "trace", "a@b")
    assert code == 1
    assert "wrong token" in err


def test_a_router_that_is_gone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gone = Refused(
        "there is no trace router-0-1. It is over, or the router that gathered it is gone: begin another", 404
    )
    monkeypatch.setattr(command, "RETRIES_S", 0.0)
    code, _, err, _ = run(monkeypatch, capsys, [BEGUN, page(event(1)), gone], "trace", "a@b")
    assert code == 1
    assert "the trace has ended after 1 events" in err


def test_those_that_run_are_listed_and_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"id": "router-0-1", "jid": "a@b", "by": "eve\x1b[2J", "events": 7, "seconds_left": 12}
    _, out, _, _ = run(monkeypatch, capsys, [{"traces": [found]}], "trace", "--list")
    assert out == "router-0-1  a@b  by eve\N{REPLACEMENT CHARACTER}[2J  7 events  12 s left\n"
    _, out, _, calls = run(monkeypatch, capsys, [{"id": "router-0-1"}], "trace", "--stop", "router-0-1")
    assert out == "router-0-1 is over\n"
    assert calls == [("DELETE", "/traces/router-0-1", None, {"by": "me"})]


@pytest.mark.parametrize("where", ["id", "type", "from", "to", "text", "node", "hop"])
@pytest.mark.parametrize("what", ["\x1b[2J", "\x9b2J", "\n03:00:00 all is well", "\u202e", "\u2028"])
def test_nothing_steers_the_terminal_or_looks_like_another_line(where: str, what: str) -> None:
    shown = command.line({**event(1), where: f"a{what}b"}, False)
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("decision", "is_styled"),
    [("blocked", True), ("offline", True), ("acknowledged", True), ("routed", False)],
)
def test_colours(decision: str, is_styled: bool) -> None:
    assert ("\x1b[" in command.line(event(1, decision=decision), True)) == is_styled
    assert "\x1b[" not in command.line(event(1, decision=decision), False)
