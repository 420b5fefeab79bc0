"""What is decided about a directory without one (tests/peers/test_ldap.py asks a real one)."""

from __future__ import annotations

import asyncio
import socket
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.authentication import Ldap
from router.backends import ldap
from router.backends.backend import Away
from router.backends.ldap import LdapBackend, escape_dn, escape_filter

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3.utils.dn import parse_dn


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("romeo", "romeo"),
        ("*", r"\2a"),
        ("romeo)(uid=*", r"romeo\29\28uid=\2a"),
        ("a\\b", r"a\5cb"),
        ("a\0b", r"a\00b"),
        ("é{user}", "é{user}"),
    ],
)
def test_a_name_in_a_filter_is_only_a_name(value: str, escaped: str) -> None:
    assert escape_filter(value) == escaped


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("romeo", "romeo"),
        ("romeo,ou=admins", r"romeo\,ou\=admins"),
        ("a+b", r"a\+b"),
        ("#1", r"\#1"),
        (" a ", r"\ a\ "),
        (' "<>;\\', r"\ \"\<\>\;\\"),
        ("a\0", r"a\00"),
    ],
)
def test_a_name_in_a_dn_is_only_a_name(value: str, escaped: str) -> None:
    assert escape_dn(value) == escaped


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1))
def test_no_name_adds_to_a_dn(value: str) -> None:
    found = parse_dn(f"uid={escape_dn(value)},dc=example")
    assert [attribute for attribute, _, _ in found] == ["uid", "dc"]


def backend(**settings: Any) -> LdapBackend:
    chosen = {"backend": "ldap", "servers": ["ldaps://one", "ldaps://two"], "dn": "uid={user},o={domain}", **settings}
    return LdapBackend(Ldap.model_validate(chosen))


class Directory:
    """In the place of ldap3's connections: what each server answers to a bind."""

    def __init__(self, **answers: int | Exception) -> None:
        self.answers = answers
        self.heard: list[tuple[str, str, str]] = []

    def open(self, address: str) -> Any:
        name = address.removeprefix("ldaps://")
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return _Connection(self, name, answer)


class _Connection:
    user = password = authentication = ""

    def __init__(self, directory: Directory, name: str, code: int) -> None:
        self._directory, self._name = directory, name
        self.result = {"result": code, "description": f"code {code}"}

    def bind(self, read_server_info: bool) -> bool:
        self._directory.heard.append((self._name, self.user, self.password))
        return self.result["result"] == 0

    def unbind(self) -> None:
        pass


@pytest.fixture
def made() -> Iterator[list[LdapBackend]]:
    backends: list[LdapBackend] = []
    yield backends
    for each in backends:
        asyncio.run(each.stop())


def check(directory: Directory, made: list[LdapBackend], username: str = "romeo", password: str = "secret") -> bool:
    asked = backend()
    made.append(asked)
    asked._open = directory.open  # type: ignore[method-assign]
    return asyncio.run(asked.check_password(username, "example.org", password))


def test_the_user_binds_at_the_first_server_that_answers(made: list[LdapBackend]) -> None:
    directory = Directory(one=OSError("away"), two=0)
    assert check(directory, made)
    assert directory.heard == [("two", "uid=romeo,o=example.org", "secret")]
    directory = Directory(one=0, two=0)
    assert check(directory, made, "romeo,o=x{domain}")
    assert directory.heard == [("one", r"uid=romeo\,o\=x{domain},o=example.org", "secret")]


@pytest.mark.parametrize("code", sorted(ldap.REFUSED))
def test_a_refusal_is_an_answer_and_no_other_server_is_asked(code: int, made: list[LdapBackend]) -> None:
    directory = Directory(one=code, two=0)
    assert not check(directory, made)
    assert len(directory.heard) == 1


@pytest.mark.parametrize("code", [1, 2, 8, 10, 13, 34, 51, 52, 80])
def test_every_other_code_is_no_wrong_password(code: int, made: list[LdapBackend]) -> None:
    with pytest.raises(Away, match=f"code {code}"):
        check(Directory(one=code, two=code), made)
    assert check(Directory(one=code, two=0), made)


def test_an_empty_password_is_never_sent(made: list[LdapBackend]) -> None:
    """RFC 4513, 5.1.2: a bind with a name and without a password succeeds, and proves nothing."""
    directory = Directory(one=0, two=0)
    assert not check(directory, made, password="")
    assert directory.heard == []


def test_what_comes_too_late_is_not_sent(made: list[LdapBackend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldap, "CHECK_S", 0.0)
    directory = Directory(one=0, two=0)
    with pytest.raises(Away):
        check(directory, made)
    assert directory.heard == []


@pytest.mark.parametrize("server", ["ldap", "ldaps"])
def test_a_server_that_takes_connections_and_says_nothing_is_away(server: str, made: list[LdapBackend]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        asked = backend(servers=[f"{server}://127.0.0.1:{port}"], timeout_s=1)
        made.append(asked)
        started = time.monotonic()
        with pytest.raises(Away):
            asyncio.run(asked.check_password("romeo", "example.org", "secret"))
        assert time.monotonic() - started < 4
