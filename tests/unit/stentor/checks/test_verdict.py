"""Whether a stream would come about, and by what (stentor/checks/verdict.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.config import Config, load
from cluster.trust import Authorities
from s2s.certificates import identify
from s2s.dane import Tlsa
from s2s.features import Features
from s2s.peer import Proof
from s2s.srv import Target
from stentor.checks.federation import NOBODY, default_from
from stentor.checks.probe import Offer, Seen, Stage
from stentor.checks.records import SERVERS
from stentor.checks.verdict import Pair, judge, judge_connect, judge_features, judge_policy, prove, used
from tests.support.pki import NOW, dns, issue

ROOT = issue("root", ca=True)
LEAF = issue("leaf", ROOT, names=dns("b.example"))
AUTHORITIES = Authorities([ROOT.certificate])
DIRECT, STARTTLS = Target("xmpp.b.example", 5270, True), Target("xmpp.b.example", 5269, False)
BOTH = Offer(is_secure=True, features=Features(has_external=True, has_dialback=True), has_dialback=True)
DONE = Seen(DIRECT, "192.0.2.1", Stage.DONE, tls="TLSv1.3", alpn="xmpp-server", chain=(LEAF.der,), offer=BOTH)


def configured(*settings: str) -> Config:
    return load(None, ['server.domains=["a.example", "c.example"]', *settings], {})


def pair(*settings: str, domain: str = "b.example", from_: str = "a.example") -> Pair:
    return Pair.of(configured(*settings), domain, from_)


def offering(seen: Seen = DONE, *, external: bool, dialback: bool) -> Seen:
    features = Features(has_external=external, has_dialback=dialback)
    return replace(seen, offer=replace(seen.offer, features=features, has_dialback=dialback))


# --- policy


def test_policy_is_that_towards_the_other_domain() -> None:
    table = 's2s.domains={"b.example": "secure", "d.example": "deny"}'
    assert judge_policy(configured(table), pair(table)).text == "secure: b.example needs a valid certificate"
    assert judge_policy(configured(table), pair(table, domain="d.example")).remedy == (
        'Set s2s.domains."d.example" to allow'
    )
    assert pair(table, domain="a.example", from_="b.example").policy == "secure"
    denied = judge_policy(configured("s2s.policy=deny"), pair("s2s.policy=deny"))
    assert (denied.level, denied.text) == ("fail", "s2s.policy forbids traffic with b.example")
    off = judge_policy(configured("s2s.enabled=false"), pair("s2s.enabled=false"))
    assert (off.level, off.remedy) == ("fail", "Set it to true")


def test_a_domain_of_ours_is_looked_at_as_somebody_who_is_let_in() -> None:
    assert default_from(configured(), "b.example") == "a.example"
    assert default_from(configured(), "c.example") == NOBODY
    some = configured("s2s.policy=deny", 's2s.domains={"x.example": "deny", "d.example": "secure"}')
    assert default_from(some, "a.example") == "d.example"
    component = configured('components.domains={"irc.a.example": {"secret": "12345678"}}')
    assert default_from(component, "irc.a.example") == NOBODY


# --- who the peer is


def test_a_certificate_is_proven_by_its_authority_or_by_other_means() -> None:
    trusted = identify([LEAF.der], AUTHORITIES, NOW)
    stranger = identify([LEAF.der], Authorities([]), NOW)
    us = pair()
    assert prove(trusted, us, DIRECT, (), (), NOW) == (Proof.PROVEN, "its authority")
    assert prove(stranger, us, DIRECT, (), (), NOW)[0] is Proof.UNPROVEN
    assert prove(trusted, pair(domain="x.example"), DIRECT, (), (), NOW) == (Proof.UNPROVEN, "it is not for x.example")
    exact = Tlsa(3, 0, 0, LEAF.der)
    assert prove(stranger, us, DIRECT, (exact,), (), NOW) == (Proof.PROVEN, "TLSA records (DANE)")
    another = Tlsa(3, 0, 0, ROOT.der)
    assert prove(trusted, us, DIRECT, (another,), (), NOW)[0] is Proof.CONTRADICTED


# --- which address counts


def test_the_first_address_that_takes_the_connection_is_used() -> None:
    refused = Seen(DIRECT, "192.0.2.1", Stage.CONNECT, "Connection refused")
    no_tls = Seen(DIRECT, "192.0.2.2", Stage.TLS, "TLS: UNSUPPORTED_PROTOCOL")
    broken = Seen(STARTTLS, "192.0.2.3", Stage.TLS, "TLS: UNSUPPORTED_PROTOCOL")
    good = replace(DONE, address="192.0.2.4")
    assert used([refused, no_tls, good]) is good
    assert used([refused, broken, good]) is broken, "behind STARTTLS it is too late to try another"
    assert used([refused, no_tls]) is None


# --- the verdict


@pytest.mark.parametrize(
    ("external", "dialback", "level", "text"),
    [
        (True, True, "ok", "a.example would be authenticated by SASL EXTERNAL; its certificate is valid by X"),
        (True, False, "ok", "a.example would be authenticated by SASL EXTERNAL"),
        (False, True, "ok", "a.example would be authenticated by dialback, for which b.example has to reach us"),
        (False, False, "fail", "no stream: the server offers nothing that proves a.example to it"),
    ],
)
def test_by_what_we_are_authenticated(external: bool, dialback: bool, level: str, text: str) -> None:
    found = judge(offering(external=external, dialback=dialback), Proof.PROVEN, "X", pair())
    assert found.level == level
    assert found.text.startswith(text)
    assert bool(found.remedy) == (level == "fail")


def test_a_certificate_that_proves_nothing_is_enough_where_the_policy_says_so() -> None:
    allowed = judge(DONE, Proof.UNPROVEN, "it is self-signed", pair())
    assert (allowed.level, "not valid (it is self-signed); our policy allows that" in allowed.text) == ("ok", True)
    refused = judge(DONE, Proof.UNPROVEN, "it is self-signed", pair("s2s.policy=secure"))
    assert (refused.level, 's2s.domains."b.example" to allow' in refused.remedy) == ("fail", True)
    assert judge(DONE, Proof.PROVEN, "X", pair("s2s.policy=secure")).level == "ok"
    assert judge(DONE, Proof.CONTRADICTED, "X", pair()).level == "fail"


@pytest.mark.parametrize(("tls", "level"), [("required", "fail"), ("optional", "ok")])
def test_a_server_without_tls(tls: str, level: str) -> None:
    clear = Seen(STARTTLS, "192.0.2.1", Stage.DONE, offer=replace(BOTH, is_secure=False))
    assert (
        judge(offering(clear, external=False, dialback=True), Proof.UNPROVEN, "", pair(f"s2s.tls={tls}")).level == level
    )
    strict = pair(f"s2s.tls={tls}", "s2s.policy=secure")
    assert judge(offering(clear, external=False, dialback=True), Proof.UNPROVEN, "", strict).level == "fail"


def test_of_ours_others_judge_the_certificate() -> None:
    us = pair(domain="a.example", from_=NOBODY)
    seen = offering(external=False, dialback=True)
    assert judge(seen, Proof.PROVEN, "its authority", us).level == "ok"
    weak = judge(seen, Proof.UNPROVEN, "it is self-signed", us)
    assert (weak.level, "by dialback alone" in weak.text) == ("warn", True)


def test_nobody_there() -> None:
    assert judge(None, Proof.UNPROVEN, "", pair()).level == "fail"


# --- single addresses


@pytest.mark.parametrize(
    ("seen", "remedy"),
    [
        (Seen(DIRECT, "192.0.2.1", Stage.CONNECT, "Connection refused"), "Nothing listens there"),
        (Seen(DIRECT, "192.0.2.1", Stage.CONNECT, "no connection within 5 s"), "firewalls pass TCP port 5270"),
        (Seen(DIRECT, "2001:db8::1", Stage.CONNECT, "Network is unreachable"), "This machine has no way there"),
        (
            Seen(STARTTLS, "2001:db8::1", Stage.TLS, "TLS: X"),
            "openssl s_client -starttls xmpp-server -xmpphost b.example -connect [2001:db8::1]:5269 -servername b.example",
        ),
        (Seen(DIRECT, "192.0.2.1", Stage.TLS, "TLS: X"), "openssl s_client -connect 192.0.2.1:5270 -servername b.exam"),
        (
            Seen(DIRECT, "192.0.2.1", Stage.STREAM, "X", offer=Offer(condition="host-unknown")),
            "its operator has to corr",
        ),
        (Seen(DIRECT, "192.0.2.1", Stage.TLS, "TLS: TLSV1_UNRECOGNIZED_NAME"), "its operator has to corr"),
        (Seen(DIRECT, "192.0.2.1", Stage.STREAM, "X", offer=Offer(condition="not-authorized")), "see tls.certificate"),
        (Seen(DIRECT, "192.0.2.1", Stage.STREAM, "X", offer=Offer(condition="policy-violation")), "ask its operator"),
        (Seen(DIRECT, "192.0.2.1", Stage.STREAM, "X"), "Something else than a server for XMPP servers listens there"),
    ],
)
def test_what_stopped_a_probe_comes_with_what_to_do(seen: Seen, remedy: str) -> None:
    for is_needed, level in ((True, "fail"), (False, "warn")):
        found = judge_connect(seen, pair(), SERVERS, is_needed=is_needed)
        assert found.level == level
        assert seen.problem in found.text
        assert remedy in found.remedy


def test_a_domain_of_ours_that_another_server_answers_for() -> None:
    seen = Seen(DIRECT, "192.0.2.1", Stage.STREAM, "X", offer=Offer(condition="host-unknown"))
    found = judge_connect(seen, pair(domain="a.example", from_=NOBODY), SERVERS, is_needed=True)
    assert found.remedy.startswith("Add it to server.domains")


def test_what_an_address_shows() -> None:
    found = judge_connect(DONE, pair(), SERVERS, is_needed=True)
    assert str(found) == (
        "ok    connect      xmpp.b.example port 5270 (direct TLS) at 192.0.2.1: TLSv1.3, ALPN xmpp-server"
    )
    assert judge_features(DONE).text == "SASL EXTERNAL, dialback"
    assert judge_features(offering(external=False, dialback=False)).level == "warn"
    clear = replace(DONE, tls="", chain=())
    assert judge_connect(clear, pair(), SERVERS, is_needed=True).level == "warn"
