"""What an attacker may try on streams between servers, and does not get (XEP-0220, 3; XEP-0288, 4; RFC 6120, 13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.federation import (
    BIDI,
    CLOSE,
    LOCAL,
    NONE,
    OFFERS_BIDI,
    OFFERS_DIALBACK,
    OTHER,
    REMOTE,
    Certificate,
    Incoming,
    Network,
    Outgoing,
    Server,
    auth,
    dialback_error,
    header,
)
from tests.support.streams import failure, stream_error
from xmpp import ns

VICTIM = "paris.example"


def forged(from_: str = f"count@{VICTIM}", to: str = f"romeo@{LOCAL}") -> str:
    return f"<message from='{from_}' to='{to}'><body>trust me</body></message>"


# --- answers that nobody has asked for


@pytest.mark.parametrize("bidi", ["", BIDI])
def test_nobody_makes_himself_the_server_of_a_domain_by_saying_that_he_is(bidi: str) -> None:
    """The attack of 2012: <db:result type='valid'/> or <db:verify type='valid'/> from the wrong side."""
    talk = Incoming()
    talk.open()
    talk.say(bidi)
    talk.say(f"<db:result from='{VICTIM}' to='{LOCAL}' type='valid'/>")
    talk.say(f"<db:verify from='{VICTIM}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    assert talk.server.attached == []
    assert stream_error(talk.say(forged())) == "not-authorized"


def test_nor_by_answering_his_own_question() -> None:
    talk = Incoming()
    talk.open()
    talk.show_key(from_=VICTIM)
    talk.say(f"<db:verify from='{VICTIM}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    assert talk.server.attached == []


def test_a_server_that_we_reach_says_nothing_about_other_domains() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_BIDI)
    talk.valid()
    talk.valid(remote=VICTIM)
    talk.valid(local=OTHER)
    assert [(bare, facts["local"]) for bare, facts in talk.server.attached] == [(REMOTE, LOCAL)]
    assert stream_error(talk.say(forged())) == "invalid-from"


def test_a_server_that_is_asked_about_one_key_says_nothing_about_others() -> None:
    incoming = Incoming()
    incoming.open()
    incoming.show_key(from_=VICTIM)
    other = Incoming(incoming.server)
    other.open()
    other.show_key(from_=REMOTE)
    asked = incoming.server.dialled
    assert [stream.remote for stream in asked] == [VICTIM, REMOTE]
    authoritative = Outgoing(incoming.server, is_wanted=False)  # of REMOTE
    authoritative.answer(OFFERS_DIALBACK)
    authoritative.say(f"<db:verify from='{VICTIM}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    authoritative.say(f"<db:verify from='{REMOTE}' to='{OTHER}' id='{LOCAL}-2' type='valid'/>")
    authoritative.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    assert incoming.server.attached == []


# --- keys


def test_a_key_of_another_stream_does_not_do() -> None:
    """Somebody has seen a key of ours, or got one from us, and shows it elsewhere."""
    attacker = Server(domains=frozenset({REMOTE}), secret=b"another")
    ours, victim = Server(), Server(domains=frozenset({VICTIM}), secret=b"a third")
    ours.certificate = attacker.certificate = victim.certificate = NONE
    network = Network(ours, attacker, victim)
    ours.federation.dial(REMOTE, LOCAL)
    network.run()
    shown = next(wire.written.decode() for wire in network.wires if b"<db:result" in wire.written)
    shown = shown.partition("<db:result")[2].partition(">")[2].partition("<")[0]
    assert len(shown) == 64
    talk = Incoming(victim)
    talk.open(LOCAL, VICTIM)
    talk.show_key(shown, LOCAL, VICTIM)
    network.run()
    assert dialback_error(talk.heard()) == "forbidden"
    assert [bare for bare, _ in victim.attached] == []


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"]), max_size=80))
def test_a_made_up_key_is_refused_by_the_server_of_the_domain(key: str) -> None:
    ours, honest = Server(), Server(domains=frozenset({REMOTE}))
    ours.certificate = honest.certificate = NONE
    network = Network(ours, honest)
    talk = Incoming(ours)
    talk.open()
    talk.show_key(key.replace("&", "").replace("<", "").replace(">", ""))
    network.run()
    assert dialback_error(talk.heard()) == "forbidden"
    assert ours.attached == []


def test_we_do_not_verify_our_own_domains_by_asking_ourselves() -> None:
    talk = Incoming()
    talk.open()
    assert dialback_error(talk.show_key(from_=OTHER)) == "not-acceptable"
    assert talk.server.dialled == []


# --- certificates


@pytest.mark.parametrize(
    "certificate",
    [
        NONE,
        Certificate((VICTIM,), is_trusted=False, problem="the certificate expired"),
        Certificate((VICTIM,), is_trusted=False, problem="the certificate is self-signed"),
        Certificate(("victim.example", f"www.{VICTIM}")),
    ],
)
@pytest.mark.parametrize("policy", ["allow", "secure"])
def test_a_certificate_that_proves_nothing_opens_nothing(certificate: Certificate, policy: str) -> None:
    talk = Incoming(certificate=certificate, policy=policy)
    assert "EXTERNAL" not in talk.open(VICTIM)
    assert failure(talk.say(auth("="))) == "invalid-mechanism"
    written = talk.show_key(from_=VICTIM)
    if policy == "secure":
        assert dialback_error(written) == "not-authorized"
    else:
        assert written == ""  # the server of the domain is asked
    assert stream_error(talk.say(forged())) == "not-authorized"
    assert talk.server.attached == []


def test_a_certificate_is_good_for_its_own_domain_only() -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.sign_in()
    assert talk.show_key(from_=VICTIM) == ""  # no shortcut: the server of the domain is asked
    assert stream_error(talk.say(forged())) == "invalid-from"


# --- addresses


@pytest.mark.parametrize(
    "from_", [f"juliet@{REMOTE}.{VICTIM}", f"juliet@x.{REMOTE}", f"{VICTIM}/juliet@{REMOTE}", f"{REMOTE}@{VICTIM}"]
)
def test_a_domain_is_compared_whole(from_: str) -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.sign_in()
    assert stream_error(talk.say(forged(from_=from_))) == "invalid-from"
    assert talk.server.got() == []


def test_nobody_outside_speaks_for_our_users() -> None:
    talk = Incoming(certificate=Certificate((REMOTE, LOCAL)))
    assert stream_error(talk.open(LOCAL, OTHER)) == "invalid-from"
    talk = Incoming(certificate=Certificate((REMOTE, LOCAL)))
    talk.sign_in()
    assert dialback_error(talk.show_key(from_=LOCAL, to=OTHER)) == "not-acceptable"
    assert stream_error(talk.say(forged(from_=f"romeo@{LOCAL}"))) == "invalid-from"


# --- resources


def test_a_flood_of_questions_opens_a_bounded_number_of_streams() -> None:
    server = Server()
    for number in range(10):
        talk = Incoming(server)
        talk.open()
        talk.say("".join(f"<db:result from='n{number}-{n}.example' to='{LOCAL}'>key</db:result>" for n in range(100)))
    assert len(server.dialled) == 500


def test_a_peer_may_not_open_the_stream_twice() -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.open()
    assert stream_error(talk.say(header(VICTIM) + CLOSE)) == "unsupported-stanza-type"


def test_a_stream_header_is_no_stanza() -> None:
    talk = Incoming()
    assert stream_error(talk.say(f"<message xmlns='{ns.SERVER}' from='a@{REMOTE}' to='b@{LOCAL}'/>")) == "bad-format"
