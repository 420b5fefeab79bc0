"""What the DNS says, judged, and the lines that a zone lacks (stentor/checks/records.py)."""

from __future__ import annotations

import pytest

from s2s.srv import Srv
from stentor.checks.findings import Finding, Level, fail
from stentor.checks.records import CLIENTS, SERVERS, Kind, Ports, Records, judge

OURS = Ports(5269, 5270, "s2s")
DIRECT, STARTTLS = Srv(0, 5, 5270, "xmpp.a.example"), Srv(0, 5, 5269, "xmpp.a.example")
NOT_OFFERED = Srv(0, 0, 0, "")


def records(*, direct: list[Srv] | str = [], starttls: list[Srv] | str = [], kind: Kind = SERVERS) -> Records:  # noqa: B006
    return {kind.direct: direct, kind.starttls: starttls}


def levels(found: list[Finding]) -> list[str]:
    return [str(finding.level) for finding in found]


def zone(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.step == "zone"]


def test_both_kinds_of_records_are_fine() -> None:
    found = judge("a.example", SERVERS, records(direct=[DIRECT], starttls=[STARTTLS]), False, OURS)
    assert levels(found) == ["ok", "ok"]
    assert found[0].text == "_xmpps-server._tcp.a.example leads to xmpp.a.example port 5270 (priority 0, weight 5)"


@pytest.mark.parametrize("has_address", [False, True])
def test_a_zone_without_records_gets_the_lines_to_put_there(has_address: bool) -> None:
    found = judge("bücher.example", SERVERS, records(), has_address, OURS)
    name = "xn--bcher-kva.example"
    host = name if has_address else f"xmpp.{name}"
    assert zone(found) == [
        f"_xmpps-server._tcp.{name}. 3600 IN SRV 0 5 5270 {host}.",
        f"_xmpp-server._tcp.{name}. 3600 IN SRV 0 5 5269 {host}.",
        *([] if has_address else [f"xmpp.{name}. 3600 IN A ADDRESS-OF-THIS-SERVER"]),
    ]
    assert set(levels(found)) == {"warn" if has_address else "fail"}
    assert ("port 5269 (STARTTLS)" in found[0].text) == has_address


def test_the_fallback_is_no_help_to_another_port() -> None:
    found = judge("a.example", SERVERS, records(), True, Ports(6269, 6270, "s2s"))
    assert set(levels(found)) == {"fail"}
    assert "but s2s.port is 6269" in found[0].text
    assert zone(found)[1] == "_xmpp-server._tcp.a.example. 3600 IN SRV 0 5 6269 a.example."


def test_what_is_missing_follows_what_is_there() -> None:
    found = judge("a.example", SERVERS, records(starttls=[STARTTLS]), True, OURS)
    assert levels(found) == ["ok", "warn", "warn"]
    assert "there is no _xmpps-server record: no direct TLS" in found[1].text
    assert zone(found) == ["_xmpps-server._tcp.a.example. 3600 IN SRV 0 5 5270 xmpp.a.example."]
    found = judge("a.example", SERVERS, records(direct=[DIRECT]), True, OURS)
    assert "servers without direct TLS find nobody" in found[1].text


def test_a_port_that_is_not_ours_is_told() -> None:
    found = judge("a.example", SERVERS, records(direct=[STARTTLS], starttls=[STARTTLS]), True, OURS)
    assert levels(found) == ["warn", "ok"]
    assert "but s2s.tls_port is 5270" in found[0].text
    assert "maps 5269 to 5270" in found[0].remedy


@pytest.mark.parametrize("ports", [None, OURS])
def test_a_domain_may_say_that_it_takes_nobody(ports: Ports | None) -> None:
    found = judge("a.example", SERVERS, records(direct=[NOT_OFFERED], starttls=[NOT_OFFERED]), True, ports)
    assert levels(found)[:3] == ["warn", "warn", "fail"]
    assert "takes no connections of servers" in found[2].text
    assert bool(zone(found)) == (ports is not None)
    assert ("out of the zone" in found[2].remedy) == (ports is not None)


def test_of_others_the_fallback_is_nothing_to_worry_about_but_nothing_at_all_is() -> None:
    [found] = judge("b.example", SERVERS, records(), True, None)
    assert (found.level, "port 5269" in found.text) == (Level.OK, True)
    [found] = judge("b.example", SERVERS, records(), False, None)
    assert (found.level, found.remedy) == (Level.FAIL, "Check the name; only its operator can change its DNS")
    assert levels(judge("b.example", SERVERS, records(starttls=[STARTTLS]), False, None)) == ["ok", "ok"]


def test_name_servers_that_say_nothing_are_no_missing_records() -> None:
    found = judge("a.example", SERVERS, records(direct="SERVFAIL", starttls=[STARTTLS]), True, OURS)
    assert levels(found) == ["fail", "ok"]
    assert "s2s.resolvers" in found[0].remedy


def test_clients_have_services_of_their_own() -> None:
    found = judge("a.example", CLIENTS, records(kind=CLIENTS), True, Ports(5222, 5223, "c2s"))
    assert zone(found) == [
        "_xmpps-client._tcp.a.example. 3600 IN SRV 0 5 5223 a.example.",
        "_xmpp-client._tcp.a.example. 3600 IN SRV 0 5 5222 a.example.",
    ]


def test_a_finding_is_one_line_whatever_others_have_written() -> None:
    line = str(fail("connect", "they say \x1b[2J\u009bhello\nok    verdict", "Do that"))
    assert line == "fail  connect      they say ?[2J?hello?ok    verdict. Do that"
