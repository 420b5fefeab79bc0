"""The links of invitations (router/invitations.py; XEP-0379, XEP-0401, XEP-0445)."""

from __future__ import annotations

import re

import pytest

from router import invitations
from router.settings import Settings
from storage.invitations import Draft
from tests.support.turns import parse

ROMEO = "romeo@example.com"
INVITE = Settings(domains=frozenset({"example.com"}), registration_mode="invite", public_url="https://chat.{domain}")
CLOSED = Settings(domains=frozenset({"example.com"}))


def test_a_token_is_random_and_alphanumeric() -> None:
    """XEP-0379, 5.1; of 200 bits."""
    tokens = {invitations.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch("[a-z2-7]{40}", token) for token in tokens)
    assert len({invitations.hash_of(token) for token in tokens}) == 100


@pytest.mark.parametrize(
    ("settings", "draft", "uri"),
    [
        (INVITE, Draft("contact", "example.com", ROMEO, "", ROMEO, 1, 1.0), f"xmpp:{ROMEO}?roster;preauth=T;ibr=y"),
        (CLOSED, Draft("contact", "example.com", ROMEO, "", ROMEO, 1, 1.0), f"xmpp:{ROMEO}?roster;preauth=T"),
        (INVITE, Draft("account", "example.com", "", "", ROMEO, 1, 1.0), "xmpp:example.com?register;preauth=T"),
        (INVITE, Draft("account", "example.com", "", "jüli?et@example.com", "", 1, 1.0),
         "xmpp:j%C3%BCli%3Fet@example.com?register;preauth=T"),
        (INVITE, Draft("reset", "example.com", "", ROMEO, "", 1, 1.0), ""),
    ],
    ids=["contact", "contact-closed", "account", "account-with-name", "reset"],
)  # fmt: skip
def test_each_kind_has_its_uri(settings: Settings, draft: Draft, uri: str) -> None:
    """XEP-0401, 4.1: without registration there is no ibr=y; RFC 5122 for names that need it."""
    assert invitations.uri_of(settings, draft, "T") == uri


def test_there_is_a_page_where_the_operator_has_one_and_a_time_where_it_ends() -> None:
    draft = Draft("account", "example.com", "", "", "", 1, 60.0)
    links = invitations.links_of(INVITE, draft, "T", 1_800_000_000.0)
    assert links.url == "https://chat.example.com/invite/T"
    assert links.expires == "2027-01-15T08:01:00.000Z"
    without = invitations.links_of(CLOSED, draft._replace(expires_s=None), "T", 1_800_000_000.0)
    assert [name for name, _ in without.fields()] == ["uri"]


@pytest.mark.parametrize(
    ("presence", "token"),
    [
        ("<presence type='subscribe'><preauth xmlns='urn:xmpp:pars:0' token='t'/></presence>", "t"),
        ("<presence type='subscribe'><x xmlns='y'/><preauth xmlns='urn:xmpp:pars:0' token='t'/></presence>", "t"),
        ("<presence type='subscribed'><preauth xmlns='urn:xmpp:pars:0' token='t'/></presence>", None),
        ("<presence type='subscribe'><preauth xmlns='urn:xmpp:pars:0'/></presence>", None),
        ("<presence type='subscribe'><preauth xmlns='urn:xmpp:pars:0' token=''/></presence>", None),
        ("<presence type='subscribe'><status>urn:xmpp:pars:0</status></presence>", None),
        (f"<presence type='subscribe'><preauth xmlns='urn:xmpp:pars:0' token='{'t' * 129}'/></presence>", None),
    ],
)
def test_a_request_may_have_a_token(presence: str, token: str | None) -> None:
    """XEP-0379, 3.4."""
    assert invitations.token_in(parse(presence)) == token
