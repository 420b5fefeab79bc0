"""What each command asks the administration API, and how it shows the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stentor import cli
from stentor.client import Api, Refused

HERE = ["--admin-url", "http://127.0.0.1:5281", "--token", "t"]
Call = tuple[str, str, Any, dict[str, str] | None]


class FakeApi:
    """Answers from a list, in order; remembers the calls."""

    def __init__(self, answers: list[Any]) -> None:
        self.calls: list[Call] = []
        self._answers = answers

    def call(self, api: Api, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Any:
        self.calls.append((method, path, body, None if query is None else dict(query)))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: list[Any], *arguments: str
) -> tuple[int, str, str, list[Call]]:
    fake = FakeApi(answers)
    monkeypatch.setattr(Api, "call", lambda *args, **kwargs: fake.call(*args, **kwargs))
    code = cli.run([*arguments, *HERE])
    output = capsys.readouterr()
    return code, output.out, output.err, fake.calls


@pytest.mark.parametrize(
    ("arguments", "answer", "call", "shown"),
    [
        (
            ["user", "add", "a@b", "--password", "p"], {"jid": "a@b"},
            ("POST", "/users", {"jid": "a@b", "password": "p"}, None), "a@b added\n",
        ),
        (
            ["user", "passwd", "a@b", "--password", "p"], {"jid": "a@b"},
            ("PUT", "/users/a@b/password", {"password": "p"}, None), "a@b has a new password\n",
        ),
        (["user", "del", "a@b"], {"jid": "a@b"}, ("DELETE", "/users/a@b", None, None), "a@b removed\n"),
        (
            ["user", "show", "a@b"],
            {"jid": "a@b", "created_at": "2026-11-24T10:00:00Z", "contacts": 3, "sessions": ["a@b/x"]},
            ("GET", "/users/a@b", None, None),
            "jid       a@b\ncreated   2026-11-24T10:00:00Z\ncontacts  3\nsession   a@b/x\n",
        ),
        (
            ["user", "ban", "a@b", "--reason", "spam", "--until", "2027-01-31"], {"jid": "a@b", "kind": "ban"},
            ("PUT", "/users/a@b/ban", {"reason": "spam", "until": "2027-01-31"}, None),
            "a@b is banned until 2027-01-31\n",
        ),
        (
            ["user", "unban", "a@b"], {"jid": "a@b", "kind": "ban", "was": True},
            ("DELETE", "/users/a@b/ban", None, None), "a@b is not banned\n",
        ),
        (
            ["user", "quarantine", "a@b", "--reason", "spam"], {"jid": "a@b", "kind": "quarantine"},
            ("PUT", "/users/a@b/quarantine", {"reason": "spam"}, None), "a@b is in quarantine\n",
        ),
        (
            ["user", "release", "a@b"], {"jid": "a@b", "kind": "quarantine", "was": False},
            ("DELETE", "/users/a@b/quarantine", None, None), "a@b was not in quarantine\n",
        ),
        (
            ["session", "list", "--count", "--node", "c2s-0"], {"count": 7},
            ("GET", "/sessions", None, {"node": "c2s-0", "count": "true"}), "7\n",
        ),
        (
            ["session", "kick", "a@b/c d"], {"ended": 1},
            ("DELETE", "/sessions/a@b%2Fc%20d", None, None), "1 session ended\n",
        ),
        (
            ["invite", "create", "--domain", "b", "--user", "a", "--expires", "2d", "--contact", "c@b"],
            {"id": 7, "uri": "xmpp:a@b?register;preauth=t", "url": None, "expires_at": "2026-11-24T10:00:00Z"},
            (
                "POST", "/invitations",
                {"kind": "account", "domain": "b", "user": "a", "contact": "c@b", "expires_s": 172_800.0}, None,
            ),
            "id       7\nuri      xmpp:a@b?register;preauth=t\nexpires  2026-11-24T10:00:00Z\n",
        ),
        (
            ["invite", "create", "--only-contact", "--contact", "c@b", "--uses", "9", "--expires", "never"],
            {"id": 8, "uri": "xmpp:c@b?roster;preauth=t", "url": "https://x/invite/t", "expires_at": None},
            ("POST", "/invitations", {"kind": "contact", "uses": 9, "contact": "c@b", "expires_s": None}, None),
            "id       8\nuri      xmpp:c@b?roster;preauth=t\npage     https://x/invite/t\n",
        ),
        (
            ["invite", "create", "--reset", "a@b"], {"id": 9, "uri": None, "url": "https://x/invite/t"},
            ("POST", "/invitations", {"kind": "reset", "jid": "a@b"}, None),
            "id       9\npage     https://x/invite/t\n",
        ),
        (["invite", "revoke", "7"], {"id": 7}, ("DELETE", "/invitations/7", None, None), "7 revoked\n"),
        (["session", "kick", "a@b"], {"ended": 2}, ("DELETE", "/sessions/a@b", None, None), "2 sessions ended\n"),
    ],
)  # fmt: skip
def test_one_call_one_answer(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    answer: Any,
    call: Call,
    shown: str,
) -> None:
    assert run(monkeypatch, capsys, [answer], *arguments) == (0, shown, "", [call])


@pytest.mark.parametrize(
    "wrong",
    [("--reset", "a@b", "--user", "a"), ("--only-contact",), ("--expires", "soon"), ("--expires", "0d"), ("--uses", "0"),
     ("--only-contact", "--contact", "c@b", "--user", "a")],
)  # fmt: skip
def test_options_that_mean_nothing_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...]
) -> None:
    code, _, _, calls = run(monkeypatch, capsys, [], "invite", "create", *wrong)
    assert (code, calls) == (2, [])


def test_invitations_are_listed_with_their_state(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"id": 7, "kind": "account", "state": "open", "used": 1, "uses": 3, "jid": None, "domain": "b",
           "contact": "c@b", "maker": None, "expires_at": None}  # fmt: skip
    two = one | {"id": 8, "kind": "reset", "jid": "a@b", "contact": None, "maker": "m@b", "expires_at": "2026"}
    _, out, _, calls = run(
        monkeypatch,
        capsys,
        [{"invitations": [one], "next": "7"}, {"invitations": [two], "next": None}],
        "invite",
        "list",
    )
    assert out == (
        "7  account  open  1/3  b  contact c@b  by operator  until revoked\n"
        "8  reset  open  1/3  a@b  by m@b  until 2026\n"
    )
    assert [query for *_, query in calls] == [{}, {"after": "7"}]


def test_lists_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [{"users": [{"jid": "a@x"}, {"jid": "b@x"}], "next": "b@x"}, {"users": [{"jid": "c@x"}], "next": None}]
    code, out, _, calls = run(monkeypatch, capsys, list(pages), "user", "list", "--domain", "x")
    assert (code, out) == (0, "a@x\nb@x\nc@x\n")
    assert [query for *_, query in calls] == [{"domain": "x"}, {"domain": "x", "after": "b@x"}]


def test_json_is_what_the_api_has_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a list one document, whatever the number of its pages."""
    pages = [{"users": [{"jid": "a@x"}], "next": "a@x"}, {"users": [{"jid": "c@x"}], "next": None}]
    _, out, _, _ = run(monkeypatch, capsys, list(pages), "user", "list", "--json")
    assert json.loads(out) == {"users": [{"jid": "a@x"}, {"jid": "c@x"}]}
    answer = {"nodes": [], "shards": {"owned": 0, "unowned": 1_024}}
    code, out, _, _ = run(monkeypatch, capsys, [answer], "cluster", "status", "--json")
    assert (code, json.loads(out)) == (1, answer)
    code, out, error, _ = run(monkeypatch, capsys, [Refused("no", 404)], "user", "show", "a@b", "--json")
    assert (code, out, error) == (1, "", "stentor: no\n")


def test_sessions_show_where_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = [
        {"jid": "a@x/1", "node": "c2s-0", "router": "router-1"},
        {"jid": "b@x/2", "node": None, "router": "router-0"},
    ]
    _, out, _, _ = run(monkeypatch, capsys, [{"sessions": page, "next": None}], "session", "list")
    assert out == "a@x/1  c2s-0  router-1\nb@x/2  detached  router-0\n"


def test_a_refusal_is_shown_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Refused("a@b exists. Choose another name", 409)
    code, out, error, _ = run(monkeypatch, capsys, [refused], "user", "add", "a@b", "--password", "p")
    assert (code, out, error) == (1, "", "stentor: a@b exists. Choose another name\n")


@pytest.mark.parametrize(("unowned", "code"), [(0, 0), (3, 1)])
def test_cluster_status_fails_where_shards_have_no_owner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unowned: int, code: int
) -> None:
    answer = {
        "nodes": [
            {
                "node": "router-0",
                "role": "router",
                "state": "ready",
                "shards": 1024 - unowned,
                "sessions": 2,
                "silent_s": 0.25,
            },
            {"node": "c2s-0", "role": "c2s", "state": "ready", "shards": None, "sessions": None, "silent_s": 12.0},
        ],
        "shards": {"owned": 1024 - unowned, "unowned": unowned},
    }
    found, out, _, _ = run(monkeypatch, capsys, [answer], "cluster", "status")
    assert found == code
    assert f"{unowned} unowned" in out
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["router-0", "c2s-0"]
    assert "12.0 s" in out


def test_a_node_is_drained_by_its_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _, calls = run(monkeypatch, capsys, [{}], "cluster", "drain", "c2s/0")
    assert (code, [call[:2] for call in calls]) == (0, [("POST", "/cluster/c2s%2F0/drain")])
    assert "c2s/0 drains" in out


def test_a_password_comes_from_one_line_of_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("  s p a c e \nmore\n"))
    answer = {"jid": "a@b"}
    *_, calls = run(monkeypatch, capsys, [answer], "user", "add", "a@b", "--password-stdin")
    assert calls[0][2] == {"jid": "a@b", "password": "  s p a c e "}


def test_an_empty_password_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error, calls = run(monkeypatch, capsys, [], "user", "add", "a@b", "--password", "")
    assert (code, calls) == (1, [])
    assert "empty" in error
