"""The foreign servers work with each other, as Stentor will have to with them: what fails here is not Stentor's fault."""

from __future__ import annotations

from typing import Final

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from tests.peers.slixmpp_client import Slixmpp
from tests.support.peers.ejabberd import Ejabberd
from tests.support.peers.irc import IrcClient
from tests.support.peers.peers import Peers, two_prosodys
from tests.support.peers.prosody import Prosody

SECRET: Final = "s3cret"
NON_ASCII: Final = "Wherefore <art> thou? & 薔薇"


def talk(romeo: Slixmpp, juliet: Slixmpp) -> None:
    """A message each way."""
    for speaker, listener in ((romeo, juliet), (juliet, romeo)):
        speaker.message(listener.bare, f"{NON_ASCII} says {speaker.bare}")
        assert listener.body(speaker.jid) == f"{NON_ASCII} says {speaker.bare}"


def meet(one: Prosody | Ejabberd, other: Prosody | Ejabberd) -> None:
    """Users of two servers write to each other."""
    with (
        Slixmpp(one, one.account("romeo")) as romeo,
        Slixmpp(other, other.account("juliet"), direct_tls=True) as juliet,
    ):
        talk(romeo, juliet)


def meet_in(room: str, one: Prosody | Ejabberd, other: Prosody | Ejabberd) -> None:
    """A user of the server that has the room, and one of the other."""
    with Slixmpp(one, one.account("romeo")) as romeo, Slixmpp(other, other.account("juliet")) as juliet:
        romeo.join(room, "romeo")
        juliet.join(room, "juliet")
        romeo.occupant(f"{room}/juliet")
        juliet.say(room, NON_ASCII)
        assert romeo.body(f"{room}/juliet") == NON_ASCII


@pytest.mark.parametrize("direct_tls", [False, True], ids=["starttls", "direct-tls"])
def test_prosody_and_ejabberd_trust_certificates_of_one_authority(peers: Peers, direct_tls: bool) -> None:
    """SASL EXTERNAL (XEP-0178) and nothing else: neither has dialback."""
    prosody = peers.prosody("pr.example", secure=True, without=frozenset({"dialback"}), direct_tls=direct_tls, muc=True)
    ejabberd = peers.ejabberd("ej.example", dialback=False, direct_tls=direct_tls, muc=True)
    if direct_tls:  # and no other way
        for domain in ("pr.example", "ej.example", "conference.pr.example", "conference.ej.example"):
            peers.zone.remove(f"_xmpp-server._tcp.{domain}")
    meet(prosody, ejabberd)
    meet_in("verona@conference.pr.example", prosody, ejabberd)
    meet_in("mantua@conference.ej.example", ejabberd, prosody)
    scheme = "xmpps-server" if direct_tls else "xmpp-server"
    assert peers.zone.asked(f"_{scheme}._tcp.pr.example", "SRV") > 0
    assert peers.zone.asked(f"_{scheme}._tcp.ej.example", "SRV") > 0
    assert not prosody.process.has_logged("db:result")


def test_prosody_and_ejabberd_ask_back_where_certificates_are_self_signed(peers: Peers) -> None:
    """Dialback (XEP-0220) over TLS; and who asks for right certificates gets nothing through."""
    prosody = peers.prosody("pr.example", is_self_signed=True)
    ejabberd = peers.ejabberd("ej.example", is_self_signed=True)
    meet(prosody, ejabberd)
    assert prosody.process.has_logged("db:result")
    strict = peers.prosody("strict.example", secure=["ej.example"])
    with Slixmpp(strict, strict.account()) as romeo, Slixmpp(ejabberd, ejabberd.account()) as juliet:
        romeo.message(juliet.bare, "Who are you?")
        assert romeo.messages.take().error.startswith("remote-server-")


def test_two_prosodys_for_a_measurement(peers: Peers) -> None:
    one, other = two_prosodys(peers)
    meet(one, other)
    before = one.process.cpu_seconds()
    assert before > 0
    with Slixmpp(one, one.account()) as romeo, Slixmpp(other, other.account()) as juliet:
        for _ in range(10):
            talk(romeo, juliet)
    assert 0 < one.process.cpu_seconds() - before < 5


def test_a_server_may_die_and_come_back_with_its_accounts_and_archive(peers: Peers) -> None:
    prosody = peers.prosody("pr.example")
    account = prosody.account("ünal", "pässword")
    for number in range(3):
        with Slixmpp(prosody, account) as romeo:
            romeo.message(account.jid, f"note {number}")
            assert romeo.body() == f"note {number}"
            assert [message.body for message in romeo.archive()][-1] == f"note {number}"
            pid = prosody.process.pid
        if number == 0:
            prosody.process.kill()
            prosody.process.start()
        elif number == 1:
            prosody.process.restart()
        assert (prosody.process.pid == pid) == (number == 2)
    with Slixmpp(prosody, account) as romeo:
        assert {message.body for message in romeo.archive()} == {"note 0", "note 1", "note 2"}


def test_irc_through_a_component(peers: Peers) -> None:
    prosody = peers.prosody("pr.example", components={"irc.pr.example": SECRET})
    ngircd = peers.ngircd()
    biboumi = peers.biboumi("irc.pr.example", SECRET, prosody.host, prosody.component_port)
    room = biboumi.room("#verona", ngircd)
    with IrcClient(ngircd, "mercutio") as mercutio, Slixmpp(prosody, prosody.account()) as romeo:
        mercutio.join("#verona")
        romeo.join(room, "romeo")
        mercutio.expect("JOIN", "romeo")
        romeo.occupant(f"{room}/mercutio")
        mercutio.say("#verona", NON_ASCII)
        assert romeo.body(f"{room}/mercutio") == NON_ASCII
        romeo.say(room, NON_ASCII)
        assert mercutio.expect("PRIVMSG", "romeo").parameters == ("#verona", NON_ASCII)
        romeo.message(biboumi.user("mercutio", ngircd), "psst")
        assert mercutio.expect("PRIVMSG", "romeo").parameters == ("mercutio", "psst")
        romeo.leave(room, "romeo")
        mercutio.expect("PART", "romeo")


def test_a_gateway_that_acts_for_its_users(peers: Peers) -> None:
    """XEP-0356: slidge writes the roster."""
    jid = "slidge.pr.example"
    privileged = {jid: {"roster": "both", "message": "outgoing", "presence": "roster"}}
    prosody = peers.prosody("pr.example", components={jid: SECRET}, privileged=privileged)
    slidge = peers.slidge(jid, SECRET, prosody.host, prosody.component_port)
    with Slixmpp(prosody, prosody.account(), befriends=True) as romeo:
        romeo.register_with(jid)
        romeo.push(slidge.friend, "both")
        romeo.presence(slidge.friend)
        romeo.message(slidge.friend, NON_ASCII)
        assert romeo.body(slidge.friend) == NON_ASCII


# --- the DNS


def ask(peers: Peers, name: str, type: str, *, tcp: bool = False, seconds: float = 5) -> DNSRecord:
    """What a resolver gets."""
    question = DNSRecord.question(name, type)
    return DNSRecord.parse(question.send(peers.zone.host, peers.zone.port, tcp=tcp, timeout=seconds))


def test_records_of_the_dns_change_while_it_runs(peers: Peers) -> None:
    zone = peers.zone
    zone.add("_xmpp-server._tcp.A.example. IN SRV 5 6 5269 host.a.example.\nwww.a.example. 60 IN CNAME host.a.example.")
    zone.add(
        "host.a.example. IN A 127.0.0.2\nhost.a.example. IN AAAA ::1\n_5269._tcp.host.a.example. IN TLSA 3 1 1 0a0b"
    )
    found = ask(peers, "_XMPP-server._tcp.a.example", "SRV").rr[0]
    assert (found.ttl, str(found.rdata)) == (0, "5 6 5269 host.a.example.")
    assert [str(record.rdata) for record in ask(peers, "host.a.example", "A").rr] == ["127.0.0.2"]
    assert [str(record.rdata) for record in ask(peers, "www.a.example", "A", tcp=True).rr] == [
        "host.a.example.",
        "127.0.0.2",
    ]
    assert ask(peers, "_5269._tcp.host.a.example", "TLSA").rr[0].rtype == QTYPE.TLSA
    other_type = ask(peers, "host.a.example", "MX")
    assert (other_type.header.rcode, other_type.rr) == (RCODE.NOERROR, [])
    assert ask(peers, "nowhere.example", "A").header.rcode == RCODE.NXDOMAIN
    zone.remove("host.a.example", "A")
    assert (ask(peers, "host.a.example", "A").rr, len(ask(peers, "host.a.example", "AAAA").rr)) == ([], 1)
    assert (zone.asked("host.a.example", "A"), zone.asked("host.a.example", "AAAA")) == (2, 1)
    assert ("www.a.example", "A", "tcp") in zone.questions


def test_the_dns_fails_when_it_is_told_to(peers: Peers) -> None:
    peers.zone.add("a.example. IN A 127.0.0.2\nb.example. IN A 127.0.0.2")
    peers.zone.fail("SERVFAIL", "a.example")
    assert ask(peers, "a.example", "A").header.rcode == RCODE.SERVFAIL
    assert len(ask(peers, "b.example", "A").rr) == 1
    peers.zone.fail("silence")
    for tcp in (False, True):
        with pytest.raises(TimeoutError):
            ask(peers, "b.example", "A", tcp=tcp, seconds=0.1)
    assert peers.zone.asked("b.example", "A") == 3
    peers.zone.mend()
    assert len(ask(peers, "a.example", "A").rr) == 1
