"""Traps by which users lock themselves out when an offer changes, and that they are not set (docs/sign-in.md)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from typing import Any

import pytest

from c2s import login
from cluster.wire import CALL
from tests.support import sasl2
from tests.support.streams import BINDINGS, DOMAIN, HEADER, ROMEO, STARTTLS, Talk, auth, encrypt, failure, plain
from xmpp import ns
from xmpp.sasl import TOKEN_MECHANISMS

ELSEWHERE = "capulet.example"  # a domain on the same host, whose passwords are in a directory
BOTH: dict[str, Any] = {"domains": frozenset({DOMAIN, ELSEWHERE}), "backends": {ELSEWHERE: "ldap"}}
SCRAM = ["PLAIN", *(f"SCRAM-{hash}{plus}" for hash in ("SHA-1", "SHA-256", "SHA-512") for plus in ("", "-PLUS"))]
TYPES = sorted(BINDINGS)


def header(domain: str, name: str = "") -> str:
    said = HEADER.replace(DOMAIN, domain)
    return said.replace("version", f"from='{name}@{domain}' version") if name else said


def mechanisms(written: str) -> list[list[str]]:
    """Of RFC 6120, of XEP-0388, and of tokens."""
    old = re.search("<mechanisms .*?</mechanisms>", written)
    new = re.search("<authentication .*?<inline>", written)
    fast = re.search("<fast .*?</fast>", written)
    return [re.findall("<mechanism>(.*?)</mechanism>", found[0]) if found else [] for found in (old, new, fast)]


# --- FAST is outside of what XEP-0474 signs


@pytest.mark.parametrize("is_secure", [True, False])
@pytest.mark.parametrize("profile", ["RFC 6120", "XEP-0388"])
def test_tokens_are_outside_of_what_scram_signs(profile: str, is_secure: bool) -> None:
    """XEP-0474, 4.1: else a client that has pinned what it saw, or that reads FAST's list apart, would take a token
    mechanism more or less for an attack, and refuse to sign in by password, which is its only way to a new token."""
    talk = Talk(is_secure=is_secure)
    offered = mechanisms(talk.open())
    assert offered[2], "tokens are offered here"
    expected = [name for name in SCRAM if is_secure or not name.endswith("-PLUS")]
    assert sorted(offered[0]) == sorted(offered[1]) == sorted(expected)
    first = b"n,,n=romeo,r=abc"
    made = auth("SCRAM-SHA-256", first) if profile == "RFC 6120" else sasl2.authenticate("SCRAM-SHA-256", first)
    challenge = b64decode(re.sub("<.*?>", "", talk.say(made))).decode()
    signed = "\x1e".join(sorted(expected)) + ("\x1f" + "\x1e".join(TYPES) if is_secure else "")
    assert challenge.endswith(f",h={b64encode(hashlib.sha256(signed.encode()).digest()).decode()}")


def test_no_mechanism_of_tokens_is_among_those_of_the_password() -> None:
    offer = Talk(is_secure=True)
    offer.open()
    found = offer.stream._offer()
    assert set(found.tokens) < set(TOKEN_MECHANISMS)
    assert not set(found.mechanisms) & set(TOKEN_MECHANISMS)
    assert b"HT-" not in found.protected


# --- what is offered is the domain's


@pytest.mark.parametrize("domain", [DOMAIN, ELSEWHERE])
def test_all_accounts_of_a_domain_are_offered_the_same(domain: str) -> None:
    """Byte by byte but for the stream's own header; a client may pin it, and learns nothing from it."""
    said = set()
    for name in ("", "romeo", "nobody", "admin"):
        talk = Talk(is_secure=True, **BOTH)
        said.add(talk.say(header(domain, name)).partition("<stream:features>")[2])
    assert len(said) == 1


def test_domains_of_one_host_do_not_mix() -> None:
    inside, outside = (mechanisms(Talk(is_secure=True, **BOTH).say(header(of))) for of in (DOMAIN, ELSEWHERE))
    assert sorted(inside[0]) == sorted(inside[1]) == sorted(SCRAM)
    assert outside == [["PLAIN"], ["PLAIN"], []]
    assert mechanisms(Talk(is_secure=True).open()) == inside, "nor does another domain change what this one offers"


def test_the_domain_is_that_of_the_present_stream() -> None:
    """A client that asks for one domain in clear and for another inside TLS gets what the latter has."""
    talk = Talk(**BOTH)
    talk.say(header(DOMAIN))
    talk.say(STARTTLS)
    encrypt(talk)
    assert mechanisms(talk.say(header(ELSEWHERE))) == [["PLAIN"], ["PLAIN"], []]
    assert failure(talk.say(auth("SCRAM-SHA-256", b"n,,n=romeo,r=abc"))) == "invalid-mechanism"
    talk.say(auth("PLAIN", plain()))
    assert [call[2] for call in talk.router.of_kind(CALL)] == [(f"romeo@{ELSEWHERE}", "wherefore")]


@pytest.mark.parametrize(("domain", "other"), [(DOMAIN, ELSEWHERE), (ELSEWHERE, DOMAIN)])
def test_nobody_signs_in_as_somebody_of_the_other_domain(domain: str, other: str) -> None:
    talk = Talk(is_secure=True, **BOTH)
    talk.say(header(domain))
    assert failure(talk.say(auth("PLAIN", plain(authzid=f"romeo@{other}")))) == "invalid-authzid"
    assert talk.router.of_kind(CALL) == []


# --- a domain that had SCRAM, and has it no more


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-512-PLUS"])
@pytest.mark.parametrize("profile", ["RFC 6120", "XEP-0388"])
def test_who_insists_on_scram_is_told_the_way_out(profile: str, mechanism: str) -> None:
    talk = Talk(is_secure=True, backends={DOMAIN: "ldap"})
    talk.open()
    first = b"n,,n=romeo,r=abc"
    said = talk.say(auth(mechanism, first) if profile == "RFC 6120" else sasl2.authenticate(mechanism, first))
    assert "<invalid-mechanism" in said
    assert "remove the account from the app and add it again" in login.NO_SCRAM
    assert login.NO_SCRAM in said
    assert talk.say(sasl2.with_password()).startswith(sasl2.success(ROMEO)), "and PLAIN is open"


def test_whoever_errs_otherwise_is_not_told_so() -> None:
    for talk, mechanism in (
        (Talk(is_secure=True, backends={DOMAIN: "ldap"}), "NOVEL"),
        (Talk(is_secure=True), "SCRAM-MD5"),
        (Talk(is_secure=True, hashes=("SHA-1",)), "SCRAM-SHA-256"),
    ):
        talk.open()
        said = talk.say(auth(mechanism, b"n,,n=romeo,r=abc"))
        assert failure(said) == "invalid-mechanism"
        assert f'<text xmlns="{ns.SASL}"' not in said
