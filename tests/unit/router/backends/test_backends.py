"""Which back end is asked (router/backends/__init__.py), and what comes of its answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from cluster.config import Authentication, Config, Server
from cluster.process import CannotStart
from router import backends
from router.backends import Backends, from_config
from router.backends.backend import Away, localpart

DOMAIN = "example.org"


class Passwords:
    """A back end that knows one password, and no tokens."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.problem: Exception | None = None

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        self.asked.append((username, domain, password))
        if self.problem is not None:
            raise self.problem
        return password == "secret"

    async def stop(self) -> None:
        pass


class Tokens(Passwords):
    """One that takes every token for the name of its owner."""

    configuration = "https://id.example.org/.well-known/openid-configuration"

    async def check_token(self, token: str) -> str | None:
        return token or None


def counted(result: str, backend: str = "http") -> float:
    labels = {"backend": backend, "result": result}
    return REGISTRY.get_sample_value("stentor_router_backend_checks_total", labels) or 0.0


def check(chosen: Backends, password: str) -> bool:
    return asyncio.run(chosen.check_password("romeo", DOMAIN, password))


def test_what_a_back_end_says_is_counted() -> None:
    backend = Passwords()
    chosen = Backends({DOMAIN: ("http", backend)})
    before = [counted(result) for result in ("accepted", "refused", "away")]
    assert check(chosen, "secret")
    assert not check(chosen, "wrong")
    backend.problem = Away("gone")
    with pytest.raises(Away):
        check(chosen, "secret")
    backend.problem = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        check(chosen, "secret")
    after = [counted(result) for result in ("accepted", "refused", "away")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 2]


def test_a_back_end_that_takes_too_long_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "CHECK_S", 0.01)

    class Slow(Passwords):
        async def check_password(self, username: str, domain: str, password: str) -> bool:
            await asyncio.sleep(3_600)
            return True

    with pytest.raises(Away, match="in time"):
        check(Backends({DOMAIN: ("ldap", Slow())}), "secret")


@pytest.mark.parametrize("password", ["", "sec\0ret"])
def test_what_can_be_no_password_reaches_no_back_end(password: str) -> None:
    backend = Passwords()
    assert not check(Backends({DOMAIN: ("ldap", backend)}), password)
    assert backend.asked == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("romeo", "romeo"),
        ("Romeo", "romeo"),
        ("romeo@EXAMPLE.org", "romeo"),
        ("romeo@example.net", None),
        ("a b", None),
        ("a/b", None),
        ("@example.org", None),
        ("romeo@example.org/there", None),
        ("a@b@example.org", None),
        ("x" * 2_000, None),
    ],
)
def test_a_name_that_no_account_can_have_is_nobodys(name: str, found: str | None) -> None:
    assert localpart(name, DOMAIN) == found
    said = asyncio.run(Backends({DOMAIN: ("jwt", Tokens())}).check_token(DOMAIN, name))
    assert said == (found, Tokens.configuration)


def test_where_there_are_no_tokens_none_is_good() -> None:
    assert asyncio.run(Backends({DOMAIN: ("http", Passwords())}).check_token(DOMAIN, "romeo")) == (None, "")
    assert asyncio.run(Backends({DOMAIN: ("jwt", Tokens())}).check_token(DOMAIN, "")) == (None, Tokens.configuration)


# --- from the configuration

LDAP = {"backend": "ldap", "servers": ["ldaps://h"], "base": "dc=x"}
JWT = {"backend": "jwt", "issuer": "https://id.example.org", "audience": ["xmpp"]}
HTTP = {"backend": "http", "url": "https://h/"}


def made(by_domain: dict[str, Any]) -> set[str]:
    async def run() -> set[str]:
        config = Config(
            server=Server(domains=(*by_domain, "other.example")),
            authentication=Authentication.model_validate({"domains": by_domain}),
        )
        found = from_config(config)
        await found.stop()
        return {domain for domain in config.server.domains if domain in found}

    return asyncio.run(run())


def test_each_domain_has_the_back_end_that_it_names() -> None:
    chosen = {"a.example": LDAP, "b.example": JWT, "c.example": HTTP, "d.example": {"backend": "internal"}}
    assert made(chosen) == {"a.example", "b.example", "c.example"}


def test_a_domain_that_is_not_served_ends_the_start() -> None:
    config = Config(authentication=Authentication.model_validate({"domains": {DOMAIN: HTTP}}))
    with pytest.raises(CannotStart, match=r"^authentication\.domains\.example\.org: .*server\.domains"):
        from_config(config)


@pytest.mark.parametrize("chosen", [LDAP, JWT, HTTP], ids=["ldap", "jwt", "http"])
def test_a_file_that_is_not_there_ends_the_start(chosen: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"^authentication\.domains\.example\.org: "):
        made({DOMAIN: {**chosen, "ca": str(tmp_path / "none.pem")}})


@pytest.mark.parametrize(("chosen", "package", "extra"), [(LDAP, "ldap3", "ldap"), (JWT, "jwt", "oidc")])
def test_a_package_that_is_not_there_is_named_with_what_brings_it(
    chosen: dict[str, Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"router.backends.{chosen['backend']}", raising=False)
    with pytest.raises(CannotStart, match=rf"{package} is not installed. .*stentor\[{extra}\]"):
        made({DOMAIN: chosen})
