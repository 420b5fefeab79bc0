"""Tokens as the router checks and makes them (XEP-0484, router/tokens.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from router.calls import CallError
from router.settings import Settings
from router.tokens import SEEN_S, TokenLogin
from storage import accounts, devices, restrictions
from storage.devices import Token, Tokens
from storage.restrictions import Restriction
from storage.store import Store
from xmpp import tokens

JULIET = "juliet@example.org"
PHONE = b"p" * 16
NONE, EXPR = "HT-SHA-256-NONE", "HT-SHA-256-EXPR"
DAY = 86_400.0
NOW = 1e9


class World:
    """A device, its tokens, and what was written."""

    def __init__(self, current: Token | None = None, new: Token | None = None, **facts: Any) -> None:
        known = {
            "key": 7,
            "enabled": True,
            "banned": False,
            "last_seen": NOW - DAY,
            "current": current,
            "new": new,
            **facts,
        }
        self.row: Tokens | None = Tokens(**known)
        self.writes: list[Callable[..., Any]] = []
        self.given: Token | None = None
        settings = replace(Settings(), token_days=30.0, token_rotate_days=7.0)
        self.login = TokenLogin(cast(Store, self), settings, lambda: NOW)

    async def run(self, statement: Callable[..., Any], *arguments: Any) -> Any:
        if statement is devices.tokens:
            assert arguments == ([(JULIET, PHONE)],)
            return {} if self.row is None else {(JULIET, PHONE): self.row}
        if statement is accounts.find:
            return self.row
        if statement is restrictions.bans:
            return {JULIET: Restriction("ban", "Spam", "operator", NOW, None)}
        self.writes.append(statement)
        if statement is devices.give:
            self.given = arguments[-1]
        return None

    def check(self, proved: str, mechanism: str = NONE, binding: bytes = b"", **asked: Any) -> Any:
        proof = tokens.prove(proved, binding)
        last, wanted = asked.get("is_last", False), asked.get("wanted", "")
        return asyncio.run(self.login.check(JULIET, PHONE, mechanism, binding, proof, last, wanted, "Gajim", "phone"))


def token(name: str, days: float = 30.0, mechanism: str = NONE) -> Token:
    return Token(name, mechanism, NOW + days * DAY)


def test_the_current_token_is_good_and_the_server_shows_that_it_knows_it() -> None:
    world = World(token("t"))
    answer, *rest = world.check("t")
    assert answer is not None
    assert rest == [False, "", 0.0, False]
    assert world.writes == []


@pytest.mark.parametrize(
    "world",
    [World(), World(token("other")), World(token("t", mechanism=EXPR)), World(token("t"), enabled=False)],
    ids=["none", "another", "of another mechanism", "disabled"],
)
def test_what_is_not_good(world: World) -> None:
    """4.4: "Servers MUST bind tokens to the mechanism"."""
    assert world.check("t") == (None, False, "", 0.0, False)
    assert world.writes == []


def test_the_right_token_of_a_banned_account_is_told_why() -> None:
    world = World(token("t"), banned=True)
    assert world.check("other")[0] is None
    with pytest.raises(CallError) as refused:
        world.check("t")
    assert (refused.value.condition, refused.value.text) == (
        "account-disabled",
        "This account is disabled. Reason: Spam",
    )
    assert world.writes == []


def test_nor_is_anything_of_a_device_that_nobody_knows() -> None:
    world = World(token("t"))
    world.row = None
    assert world.check("t")[0] is None
    assert world.check("")[0] is None, "nor what stands for no token"


def test_the_empty_token_is_nobodys() -> None:
    assert World().check("")[0] is None


def test_a_token_is_bound_to_its_channel() -> None:
    world = World(token("t", mechanism=EXPR))
    assert world.check("t", EXPR, b"channel")[0] is not None
    answer = asyncio.run(
        world.login.check(JULIET, PHONE, EXPR, b"another", tokens.prove("t", b"channel"), False, "", "", "")
    )
    assert answer[0] is None


def test_one_that_is_too_old_is_told_apart() -> None:
    assert World(token("t", days=-0.001)).check("t") == (None, True, "", 0.0, False)


def test_the_new_one_takes_the_place_of_the_current_when_it_is_used() -> None:
    """4.5."""
    world = World(token("old"), token("new"))
    assert world.check("old")[0] is not None
    assert world.writes == [], "the former is good until then"
    assert world.check("new")[0] is not None
    assert world.writes == [devices.used_new]


@pytest.mark.parametrize(("left", "is_given"), [(23.1, False), (22.9, True)])
def test_one_that_is_old_enough_is_followed_by_another(left: float, is_given: bool) -> None:
    """4.5, of the same mechanism; it was given for 30 days, 7 days ago."""
    world = World(token("t", days=left))
    given = world.check("t")[2]
    assert bool(given) is is_given
    if is_given:
        assert world.given == Token(given, NONE, NOW + 30 * DAY)


def test_the_client_may_ask_for_another() -> None:
    world = World(token("t"))
    given = world.check("t", wanted=EXPR)[2]
    assert world.given == Token(given, EXPR, NOW + 30 * DAY)


def test_who_gives_a_token_up_gets_none_for_it() -> None:
    """4.6: "MUST NOT include a new token in the response (even if the token was due for rotation)"."""
    world = World(token("t", days=1))
    assert world.check("t", is_last=True)[2] == ""
    assert world.writes == [devices.invalidate]


def test_unless_it_asks() -> None:
    world = World(token("t"))
    assert world.check("t", is_last=True, wanted=NONE)[2] != ""
    assert world.writes == [devices.invalidate, devices.give]


def test_whether_the_device_was_seen_just_now() -> None:
    for ago, was_seen in ((SEEN_S - 1, True), (SEEN_S + 1, False)):
        assert World(token("t"), last_seen=NOW - ago).check("t")[4] is was_seen


def test_a_token_for_who_has_signed_in_otherwise() -> None:
    world = World()
    name, expires_at = asyncio.run(world.login.issue(JULIET, PHONE, NONE, "Gajim", "phone"))
    assert world.given == Token(name, NONE, expires_at)
    assert len({asyncio.run(world.login.issue(JULIET, PHONE, NONE, "", ""))[0] for _ in range(20)}) == 20


def test_none_for_an_account_that_has_gone() -> None:
    world = World(enabled=False)
    assert asyncio.run(world.login.issue(JULIET, PHONE, NONE, "", "")) == ("", 0.0)
    world.row = None
    assert asyncio.run(world.login.issue(JULIET, PHONE, NONE, "", "")) == ("", 0.0)
