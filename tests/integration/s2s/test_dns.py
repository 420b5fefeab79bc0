"""Finding servers (s2s/dns.py) with a real DNS server on loopback, under uvloop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from s2s.dane import Tlsa
from s2s.dns import Nameserver, NotFound, Resolver, Unresolved
from s2s.srv import Target
from tests.support.nameserver import Zone, nameserver
from xmpp.errors import RemoteServerNotFound, RemoteServerTimeout

ADDRESS = "127.0.42.53"
SOA = "example. 300 IN SOA ns.example. admin.example. 1 3600 600 86400 {minimum}"
ZONE = """
$TTL 30
_xmpps-server._tcp.both.example. IN SRV 5 1 5270 direct.both.example.
_xmpp-server._tcp.both.example. IN SRV 10 1 5269 starttls.both.example.
_xmpp-server._tcp.old.example. IN SRV 1 1 15269 Host.Old.example.
_xmpp-server._tcp.literal.example. IN SRV 1 1 15269 127.0.42.7.
_xmpp-server._tcp.xn--bcher-kva.example. IN SRV 1 1 15269 host.old.example.
_xmpps-server._tcp.none.example. IN SRV 0 0 0 .
_xmpp-server._tcp.none.example. IN SRV 0 0 0 .
none.example. IN A 127.0.42.9
_xmpps-server._tcp.nodirect.example. IN SRV 0 0 0 .
_xmpp-server._tcp.nodirect.example. IN SRV 1 1 5269 host.old.example.
_xmpps-server._tcp.dotonly.example. IN SRV 0 0 0 .
dotonly.example. IN A 127.0.42.9
plain.example. IN A 127.0.42.10
six.example. IN AAAA ::1
host.old.example. 5 IN A 127.0.42.1
host.old.example. 5 IN AAAA ::1
host.old.example. 5 IN A 127.0.42.2
host.old.example. 5 IN A 127.0.42.3
alias.example. 3 IN CNAME host.old.example.
_xmpp-server._tcp.moved.example. 3 IN CNAME _xmpp-server._tcp.old.example.
localhost. IN TXT "here"
_5270._tcp.direct.both.example. IN TLSA 3 1 1 {hash}
direct.both.example. IN A 127.0.42.4
""".replace("{hash}", "ab" * 32)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class World:
    """A zone that is served, and resolvers that ask it."""

    def __init__(self, zone: Zone, server: str) -> None:
        self.zone = zone
        self.server = server
        self.clock = Clock()

    def run(self, test: Callable[[Resolver], Awaitable[None]], **options: Any) -> None:
        """Run the test with a resolver of its own."""
        options = {"query_s": 0.3, "lifetime_s": 0.5} | options

        async def with_resolver() -> None:
            servers = options.pop("nameservers", [self.server])
            resolver = Resolver(servers, clock=self.clock, dice=random.Random(1), **options)
            try:
                await test(resolver)
            finally:
                await resolver.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(with_resolver())

    def asked(self, name: str, kind: str = "SRV") -> int:
        return self.zone.asked[name, kind]


@pytest.fixture
def world() -> Iterator[World]:
    zone = Zone(ZONE, SOA.format(minimum=40))
    with nameserver(zone, ADDRESS) as server:
        yield World(zone, server)


def test_both_kinds_of_records_are_merged(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        assert await resolver.find("both.example") == [
            Target("direct.both.example", 5270, is_direct_tls=True),
            Target("starttls.both.example", 5269, is_direct_tls=False),
        ]

    world.run(test)


def test_one_kind_is_enough(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        assert await resolver.find("old.example") == [Target("host.old.example", 15269, False)]
        assert await resolver.find("moved.example") == [Target("host.old.example", 15269, False)]

    world.run(test)


@pytest.mark.parametrize("domain", ["bücher.example", "Bücher.Example", "xn--bcher-kva.example", "bücher.example."])
def test_domains_are_asked_for_in_a_labels(world: World, domain: str) -> None:
    async def test(resolver: Resolver) -> None:
        assert [target.port for target in await resolver.find(domain)] == [15269]

    world.run(test)
    assert world.asked("_xmpp-server._tcp.xn--bcher-kva.example") == 1


def test_without_records_the_domain_itself_is_tried(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        [target] = await resolver.find("plain.example")
        assert target == Target("plain.example", 5269, is_direct_tls=False)
        assert await resolver.addresses(target) == ["127.0.42.10"]
        assert await resolver.addresses((await resolver.find("six.example"))[0]) == ["::1"]

    world.run(test)
    assert world.asked("plain.example", "A") == 1


def test_not_offered_is_lasting_even_if_the_domain_has_an_address(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        for domain in ("none.example", "dotonly.example"):
            with pytest.raises(NotFound, match=f"{domain} has no XMPP server"):
                await resolver.find(domain)

    world.run(test)
    assert not world.asked("none.example", "A")
    assert not world.asked("dotonly.example", "A")


def test_no_direct_tls_leaves_starttls(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        assert await resolver.find("nodirect.example") == [Target("host.old.example", 5269, False)]

    world.run(test)


@pytest.mark.parametrize(
    "domain", ["nowhere.example", "a..b", "", "-.example", "x" * 64 + ".example", "a\\.b", "é" * 400]
)
def test_a_domain_that_does_not_exist_is_lasting(world: World, domain: str) -> None:
    async def test(resolver: Resolver) -> None:
        with pytest.raises(NotFound) as caught:
            await resolver.find(domain)
        assert caught.value.error is RemoteServerNotFound

    world.run(test)


def test_a_name_that_is_too_long_with_its_prefix_has_no_server(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        with pytest.raises(NotFound):
            await resolver.find(".".join(["a" * 60] * 4))  # 243 bytes: a domain, but not with _xmpp-server._tcp

    world.run(test)


@pytest.mark.parametrize("said", ["SERVFAIL", "REFUSED", "silence"])
def test_name_servers_that_fail_are_passing(world: World, said: str) -> None:
    async def test(resolver: Resolver) -> None:
        with pytest.raises(Unresolved) as caught:
            await resolver.find("old.example")
        assert caught.value.error is RemoteServerTimeout
        assert ("no answer in time" if said == "silence" else said) in str(caught.value)

    for service in ("_xmpp-server", "_xmpps-server"):
        world.zone.says[f"{service}._tcp.old.example", "SRV"] = said
    world.run(test)


def test_one_failed_question_does_not_hide_the_other_kind(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        assert len(await resolver.find("old.example")) == 1

    world.zone.says["_xmpps-server._tcp.old.example", "SRV"] = "SERVFAIL"
    world.run(test)


def test_a_failed_question_is_no_reason_to_try_the_domain_itself(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        with pytest.raises(Unresolved):
            await resolver.find("plain.example")

    world.zone.says["_xmpp-server._tcp.plain.example", "SRV"] = "SERVFAIL"
    world.run(test)


def test_addresses_that_cannot_be_had_are_passing(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        with pytest.raises(Unresolved, match="SERVFAIL"):
            await resolver.find("plain.example")
        with pytest.raises(NotFound, match=r"gone\.example does not exist"):
            await resolver.addresses(Target("gone.example", 5269, False))

    world.zone.says["plain.example", "A"] = "SERVFAIL"
    world.run(test)


def test_ip_literals_are_their_own_address(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        assert await resolver.find("192.0.2.1") == [Target("192.0.2.1", 5269, False)]
        assert await resolver.find("[2001:DB8::1]") == [Target("2001:db8::1", 5269, False)]
        [target] = await resolver.find("literal.example")
        assert await resolver.addresses(target) == ["127.0.42.7"]

    world.run(test)
    assert set(world.zone.asked) == {(f"_{kind}-server._tcp.literal.example", "SRV") for kind in ("xmpp", "xmpps")}


def test_addresses_come_in_turns_ipv6_first(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        for host in ("host.old.example", "alias.example"):
            addresses = await resolver.addresses(Target(host, 5269, False))
            assert addresses[0] == "::1"
            assert sorted(addresses[1:]) == ["127.0.42.1", "127.0.42.2", "127.0.42.3"]

    world.run(test)


def test_localhost_is_here_unless_dns_says_otherwise(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        assert await resolver.addresses(Target("localhost", 5269, False)) == ["::1", "127.0.0.1"]
        assert await resolver.find("chat.localhost") == [Target("chat.localhost", 5269, False)]

    world.run(test)
    world.zone.set("localhost. 5 IN A 127.0.42.77")

    async def otherwise(resolver: Resolver) -> None:
        assert await resolver.addresses(Target("localhost", 5269, False)) == ["127.0.42.77"]

    world.run(otherwise)


def test_answers_are_kept_for_their_time_to_live(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        for after_s, asked in ((0, 1), (29, 1), (31, 2)):
            world.clock.now = 1_000 + after_s
            await resolver.find("old.example")
            assert world.asked("_xmpp-server._tcp.old.example") == asked
        resolver.forget()
        await resolver.find("old.example")
        assert world.asked("_xmpp-server._tcp.old.example") == 3

    world.run(test)


def test_the_shortest_time_of_a_chain_of_names_counts(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        for after_s, asked in ((0, 1), (2, 1), (4, 2)):
            world.clock.now = 1_000 + after_s
            await resolver.find("moved.example")
            assert world.asked("_xmpp-server._tcp.moved.example") == asked

    world.run(test)


@pytest.mark.parametrize(("minimum", "kept_s"), [(40, 40), (86_400, 60), (1, 1)])
def test_that_there_is_none_is_kept_for_a_bounded_time(world: World, minimum: int, kept_s: int) -> None:
    world.zone.soa = Zone("", SOA.format(minimum=minimum)).soa

    async def test(resolver: Resolver) -> None:
        for after_s, asked in ((0, 1), (kept_s - 0.5, 1), (kept_s + 0.5, 2)):
            world.clock.now = 1_000 + after_s
            with pytest.raises(NotFound):
                await resolver.find("nowhere.example")
            assert world.asked("_xmpp-server._tcp.nowhere.example") == asked

    world.run(test)


def test_a_failure_is_kept_for_a_moment(world: World) -> None:
    world.zone.says["_xmpp-server._tcp.old.example", "SRV"] = "REFUSED"

    async def test(resolver: Resolver) -> None:
        with pytest.raises(Unresolved):
            await resolver.find("old.example")
        asked = world.asked("_xmpp-server._tcp.old.example")
        with pytest.raises(Unresolved):
            await resolver.find("old.example")
        assert world.asked("_xmpp-server._tcp.old.example") == asked
        del world.zone.says["_xmpp-server._tcp.old.example", "SRV"]
        world.clock.now += 6
        assert await resolver.find("old.example")

    world.run(test)


def test_many_who_ask_at_once_share_a_question(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        world.zone.hold.clear()
        waiting = [asyncio.create_task(resolver.find("both.example")) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        world.zone.hold.set()
        found = await asyncio.gather(*waiting[1:])
        assert all(len(targets) == 2 for targets in found)

    world.run(test, query_s=5, lifetime_s=5)
    assert world.asked("_xmpp-server._tcp.both.example") == 1
    assert world.asked("_xmpps-server._tcp.both.example") == 1


def test_the_cache_is_bounded(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        for _ in range(2):
            await resolver.find("both.example")
            await resolver.find("old.example")

    world.run(test, cached=2)
    assert world.asked("_xmpp-server._tcp.both.example") == 2


def test_a_truncated_answer_is_asked_for_by_tcp(world: World) -> None:
    world.zone.truncates = True

    async def test(resolver: Resolver) -> None:
        assert await resolver.find("old.example") == [Target("host.old.example", 15269, False)]

    world.run(test)
    assert world.asked("_xmpp-server._tcp.old.example") == 2


def test_the_next_name_server_is_asked_when_the_first_fails(world: World) -> None:
    broken = Zone(ZONE)
    broken.says = {(f"{kind}._tcp.old.example", "SRV"): "REFUSED" for kind in ("_xmpp-server", "_xmpps-server")}

    async def test(resolver: Resolver) -> None:
        assert len(await resolver.find("old.example")) == 1

    with nameserver(broken, "127.0.42.54") as first:
        world.run(test, nameservers=[first, world.server])
    assert broken.asked["_xmpp-server._tcp.old.example", "SRV"] == 1


# --- DNSSEC, as a validating resolver tells of it


def test_secure_answers_count_only_where_the_resolver_is_trusted(world: World) -> None:
    world.zone.is_secure = True

    async def believing(resolver: Resolver) -> None:
        [direct, _] = await resolver.find("both.example")
        assert direct.is_secure
        assert await resolver.tlsa(direct) == [Tlsa(3, 1, 1, b"\xab" * 32)]
        assert await resolver.tlsa(Target("host.old.example", 5269, False, is_secure=True)) == []

    async def doubting(resolver: Resolver) -> None:
        [direct, _] = await resolver.find("both.example")
        assert not direct.is_secure
        assert await resolver.tlsa(direct) == []
        assert await resolver.tlsa(direct._replace(is_secure=True)) == []

    world.run(believing, dane=True)
    world.run(doubting)


def test_insecure_answers_have_no_tlsa(world: World) -> None:
    async def test(resolver: Resolver) -> None:
        [direct, _] = await resolver.find("both.example")
        assert not direct.is_secure
        assert await resolver.tlsa(direct) == []
        assert await resolver.tlsa(direct._replace(is_secure=True)) == []  # its addresses are not secure

    world.run(test, dane=True)
    assert not world.asked("_5270._tcp.direct.both.example", "TLSA")


def test_tlsa_that_is_held_back_forbids_the_target(world: World) -> None:
    world.zone.is_secure = True
    world.zone.says["_5270._tcp.direct.both.example", "TLSA"] = "SERVFAIL"

    async def test(resolver: Resolver) -> None:
        [direct, _] = await resolver.find("both.example")
        with pytest.raises(Unresolved, match="TLSA"):
            await resolver.tlsa(direct)

    world.run(test, dane=True)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_name_servers_are_written_with_or_without_port(text: str, parsed: tuple[str, int]) -> None:
    assert Nameserver.parse(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "ns.example", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:70000", "[::1", "[::1]x", "[::1]:"]
)
def test_what_is_no_name_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name server"):
        Resolver([text])
