"""A stream that we open to another server (s2s/outgoing.py): TLS, EXTERNAL, dialback as originating server, policy."""

from __future__ import annotations

from base64 import b64encode

import pytest

from s2s.negotiation import State
from s2s.outgoing import LINGER_S
from tests.support.federation import (
    CLOSE,
    EXTERNAL,
    LOCAL,
    OFFERS_BIDI,
    OFFERS_DIALBACK,
    OFFERS_SM,
    OFFERS_STARTTLS,
    OTHER,
    PROCEED,
    REMOTE,
    SECRET,
    Certificate,
    Outgoing,
)
from tests.support.streams import stream_error
from xmpp import ns
from xmpp.dialback import make_key

PROVEN = Certificate((REMOTE,))
SUCCESS = f"<success xmlns='{ns.SASL}'/>"
AUTH = f'<auth xmlns="{ns.SASL}" mechanism="EXTERNAL">{b64encode(LOCAL.encode()).decode()}</auth>'
REFUSED = f"<failure xmlns='{ns.SASL}'><not-authorized/></failure>"


def key(remote: str = REMOTE, local: str = LOCAL, id: str = "D60000229F") -> str:
    """`<db:result/>` with our key."""
    return f'<db:result from="{local}" to="{remote}">{make_key(SECRET, remote, local, id)}</db:result>'


def verdict(talk: Outgoing) -> tuple[str, bool]:
    """What the owner was told, once: condition, and whether it is permanent."""
    [(remote, local, condition, _, is_permanent)] = talk.server.unreachable
    assert (remote, local) == (REMOTE, LOCAL)
    return condition, is_permanent


# --- header and TLS


def test_we_open_the_stream_without_a_language_that_would_be_that_of_every_stanza() -> None:
    assert Outgoing().heard() == (
        f'<?xml version="1.0"?><stream:stream xmlns="jabber:server" xmlns:stream="{ns.STREAMS}" '
        f'xmlns:db="{ns.DIALBACK}" version="1.0" from="{LOCAL}" to="{REMOTE}">'
    )


def test_tls_is_taken_where_it_is_offered() -> None:
    talk = Outgoing(is_secure=False, is_tls_required=False)
    talk.heard()
    assert talk.answer(OFFERS_STARTTLS, OFFERS_DIALBACK) == f'<starttls xmlns="{ns.TLS}"/>'
    talk.say(PROCEED)
    assert talk.secure().startswith("<?xml")
    assert talk.answer(OFFERS_DIALBACK, id="second") == key(id="second")


def test_what_was_said_in_clear_behind_proceed_is_thrown_away() -> None:
    """RFC 6120, 5.4.3.3: it may have been injected."""
    talk = Outgoing(is_secure=False)
    talk.answer(OFFERS_STARTTLS)
    injected = f"<stream:stream xmlns='jabber:server' xmlns:stream='{ns.STREAMS}' id='injected' version='1.0'>"
    talk.say(PROCEED + injected + f"<stream:features>{EXTERNAL}</stream:features>")
    talk.secure()
    assert talk.stream.state is State.HEADER
    assert talk.answer(OFFERS_DIALBACK, id="real") == key(id="real")


@pytest.mark.parametrize("changes", [{}, {"is_tls_required": False, "policies": {REMOTE: "secure"}}])
def test_without_tls_there_is_no_stream_where_it_is_required(changes: dict[str, bool]) -> None:
    talk = Outgoing(is_secure=False, **changes)  # type: ignore[arg-type]  # settings
    assert talk.answer(OFFERS_DIALBACK).endswith(CLOSE)
    assert verdict(talk) == ("policy-violation", True)


def test_where_tls_is_optional_dialback_does_without_it_and_external_does_not() -> None:
    talk = Outgoing(is_secure=False, is_tls_required=False)
    assert talk.answer(EXTERNAL, OFFERS_DIALBACK).endswith(key())


def test_a_server_that_refuses_the_tls_which_it_offers_cannot_be_reached() -> None:
    talk = Outgoing(is_secure=False)
    talk.answer(OFFERS_STARTTLS)
    talk.say(f"<failure xmlns='{ns.TLS}'/>")
    assert verdict(talk) == ("remote-server-timeout", False)


# --- SASL EXTERNAL


def test_external_comes_first() -> None:
    talk = Outgoing(certificate=PROVEN)
    assert talk.answer(EXTERNAL, OFFERS_DIALBACK, OFFERS_BIDI).endswith(AUTH)
    assert talk.say(SUCCESS).startswith("<?xml")
    assert talk.answer() == ""
    facts = {"kind": "s2s", "local": LOCAL, "sends": True, "address": "192.0.2.1", "transport": "tls"}
    assert talk.server.attached == [(REMOTE, facts | {"how": "external"})]
    talk.server.send(REMOTE, LOCAL, "hello")
    assert talk.heard() == (
        f'<message to="juliet@{REMOTE}" from="romeo@{LOCAL}" id="hello"><body>hello</body></message>'
    )  # fmt: skip


@pytest.mark.parametrize("offers", [OFFERS_DIALBACK, ""])
def test_dialback_follows_where_external_is_refused(offers: str) -> None:
    talk = Outgoing()
    talk.answer(EXTERNAL, offers)
    assert talk.say(REFUSED) == key()


def test_who_offers_nothing_that_we_have_cannot_be_reached() -> None:
    talk = Outgoing()
    assert talk.answer(db="").endswith(CLOSE)
    assert verdict(talk) == ("remote-server-timeout", False)


def test_a_stream_that_was_closed_with_the_failure_is_opened_again_for_dialback() -> None:
    first = Outgoing()
    first.answer(EXTERNAL)
    first.say(REFUSED + CLOSE)
    assert first.is_over()
    assert first.server.unreachable == []
    second = Outgoing(first.server, is_wanted=False)
    second.heard()
    assert second.answer(EXTERNAL, id="second") == key(id="second")
    second.say(CLOSE)
    assert verdict(second) == ("remote-server-timeout", False)
    assert second.server.dialled == []


def test_success_that_was_not_asked_for_ends_the_stream() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    assert stream_error(talk.say(SUCCESS)) == "unsupported-stanza-type"
    assert talk.server.attached == []


# --- the certificate of the server


@pytest.mark.parametrize(
    ("certificate", "problem"),
    [
        (Certificate(("paris.example",)), "it is for other domains"),
        (Certificate((REMOTE,), is_trusted=False, problem="the certificate expired"), "the certificate expired"),
    ],
)
def test_where_a_valid_certificate_is_demanded_the_server_needs_one_too(certificate: Certificate, problem: str) -> None:
    talk = Outgoing(certificate=certificate, policies={REMOTE: "secure"})
    written = talk.answer(EXTERNAL, OFFERS_DIALBACK)
    assert "<auth" not in written
    assert "<db:result" not in written
    assert talk.is_over()
    assert verdict(talk) == ("policy-violation", True)
    assert problem in talk.server.unreachable[0][3]


@pytest.mark.parametrize(("offers", "expected"), [(EXTERNAL, AUTH), (OFFERS_DIALBACK, key())])
def test_a_server_with_a_valid_certificate_may_choose_how_we_prove_ourselves(offers: str, expected: str) -> None:
    talk = Outgoing(certificate=PROVEN, policies={REMOTE: "secure"})
    assert talk.answer(offers).endswith(expected)


# --- dialback (XEP-0220, 2.1.1)


def test_a_key_that_is_valid_lets_stanzas_flow() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    assert [facts["how"] for _, facts in talk.server.attached] == ["dialback"]
    talk.server.send(REMOTE, LOCAL, "hello")
    assert ">hello<" in talk.heard()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("type='invalid'/>", ("internal-server-error", True)),
        ("type='error'><error><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
         ("remote-server-not-found", True)),
        ("type='error'><error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
         ("remote-server-timeout", False)),
        ("type='error'/>", ("remote-server-timeout", False)),
    ],
)  # fmt: skip
def test_a_key_that_is_not_taken_is_told_to_the_owner(answer: str, expected: tuple[str, bool]) -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.say(f"<db:result from='{REMOTE}' to='{LOCAL}' {answer}")
    assert verdict(talk) == expected
    assert talk.is_over()
    assert talk.server.attached == []


def test_without_an_id_of_the_stream_there_is_no_key() -> None:
    talk = Outgoing()
    assert "<db:result" not in talk.answer(OFFERS_DIALBACK, id="")
    assert verdict(talk) == ("remote-server-timeout", False)


# --- bidi (XEP-0288)


@pytest.mark.parametrize("offers", [EXTERNAL, OFFERS_DIALBACK])
def test_bidi_is_asked_for_before_the_pair_and_brings_our_limits(offers: str) -> None:
    talk = Outgoing(certificate=PROVEN)
    talk.heard()
    written = talk.answer(offers, OFFERS_BIDI)
    assert written.startswith(
        f'<bidi xmlns="{ns.BIDI}"><limits xmlns="{ns.STREAM_LIMITS}"><max-bytes>262144</max-bytes>'
    )
    assert written.endswith(AUTH if offers == EXTERNAL else key())


def test_bidi_is_not_asked_for_where_it_is_not_wanted() -> None:
    talk = Outgoing(has_bidi=False)
    assert talk.answer(OFFERS_DIALBACK, OFFERS_BIDI).endswith(key())
    assert "bidi" not in talk.transport.written.decode()


def test_after_bidi_the_peer_sends_on_the_stream_too() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_BIDI)
    talk.valid()
    talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}' id='1'/>")
    assert [stanza.id for stanza in talk.server.got()] == ["1"]


@pytest.mark.parametrize("is_first", [True, False])
def test_it_may_send_at_once_while_our_owner_has_not_answered_yet(is_first: bool) -> None:
    """Everything waits, in order, whatever the size; nothing is lost."""
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_BIDI)
    if not is_first:
        talk.valid()
        talk.server.federation.dial(REMOTE, OTHER)
    local = LOCAL if is_first else OTHER
    talk.server.router.is_answering = False
    said = f"<db:result from='{REMOTE}' to='{local}' type='valid'/>"
    said += "".join(
        f"<message from='juliet@{REMOTE}' to='romeo@{to}' id='{n}'><body>{'x' * 20_000}</body></message>"
        for n, to in enumerate([local, LOCAL, local, LOCAL, local])
    )
    talk.heard()
    assert talk.say(said + CLOSE) == ""
    assert talk.server.got() == []
    assert not talk.is_read()
    talk.server.router.is_answering = True
    talk.server.router.pump()
    assert [stanza.id for stanza in talk.server.got()] == ["0", "1", "2", "3", "4"]
    assert talk.heard().endswith(CLOSE)


def test_nor_if_the_owner_refuses() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_BIDI)
    talk.valid()
    talk.server.federation.dial(REMOTE, OTHER)
    talk.server.router.is_answering = False
    talk.valid(local=OTHER)
    talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{OTHER}' id='1'/>")
    talk.server.router.refusal = ("resource-constraint", "Too many.")
    talk.server.router.is_answering = True
    talk.server.router.pump()
    assert stream_error(talk.heard()) == "not-authorized"
    assert talk.server.got() == []


def test_without_bidi_it_does_not() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    written = talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}' id='1'/>")
    assert stream_error(written) == "not-authorized"
    assert talk.server.got() == []


def test_with_bidi_the_peer_may_ask_for_more_pairs() -> None:
    """XEP-0288, 2.2: a key is never verified on the stream that has shown it."""
    talk = Outgoing(certificate=Certificate((REMOTE, "rooms.capulet.example")))
    talk.answer(OFFERS_DIALBACK, OFFERS_BIDI)
    talk.valid()
    asked = f"<db:result from='rooms.capulet.example' to='{LOCAL}'>key</db:result>"
    assert talk.say(asked) == f'<db:result from="{LOCAL}" to="rooms.capulet.example" type="valid"/>'
    asked = f"<db:result from='paris.example' to='{LOCAL}'>key</db:result>"
    assert talk.say(asked) == ""
    assert [stream.remote for stream in talk.server.dialled] == ["paris.example"]


def test_without_bidi_the_peer_asks_for_nothing() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    asked = f"<db:result from='rooms.capulet.example' to='{LOCAL}'>key</db:result>"
    assert stream_error(talk.say(asked)) == "unsupported-stanza-type"


# --- more pairs on one stream (XEP-0220, 2.6)


@pytest.mark.parametrize("offers", [EXTERNAL, OFFERS_DIALBACK])
def test_another_domain_of_ours_joins_the_stream(offers: str) -> None:
    talk = Outgoing(certificate=PROVEN)
    talk.answer(offers, OFFERS_DIALBACK)
    if offers == EXTERNAL:
        talk.say(SUCCESS)
        talk.answer(OFFERS_DIALBACK, id="second")
    else:
        talk.valid()
    talk.heard()
    talk.server.federation.dial(REMOTE, OTHER)
    assert talk.server.dialled == []
    assert talk.heard() == key(local=OTHER, id="second" if offers == EXTERNAL else "D60000229F")
    talk.valid(local=OTHER)
    talk.server.send(REMOTE, OTHER, "hello")
    assert ">hello<" in talk.heard()


def test_it_asks_at_once_if_it_was_wanted_before_the_stream_was_ready() -> None:
    talk = Outgoing()
    talk.server.federation.dial(REMOTE, OTHER)
    assert talk.answer(OFFERS_DIALBACK).endswith(key() + key(local=OTHER))


def test_it_waits_until_external_is_through() -> None:
    talk = Outgoing(certificate=PROVEN)
    talk.server.federation.dial(REMOTE, OTHER)
    assert talk.answer(EXTERNAL, OFFERS_DIALBACK).endswith(AUTH)
    talk.say(SUCCESS)
    assert talk.answer(OFFERS_DIALBACK, id="second") == key(local=OTHER, id="second")


def test_it_gets_a_stream_of_its_own_where_the_peer_knows_no_dialback() -> None:
    talk = Outgoing(certificate=PROVEN)
    talk.answer(EXTERNAL, db="")
    talk.say(SUCCESS)
    talk.answer(db="")
    talk.server.federation.dial(REMOTE, OTHER)
    other = Outgoing(talk.server, is_wanted=False)
    assert f'from="{OTHER}"' in other.heard()
    assert other.answer(EXTERNAL, db="").endswith(f"{b64encode(OTHER.encode()).decode()}</auth>")


def test_a_refusal_of_one_pair_does_not_end_the_stream_of_another() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    talk.server.federation.dial(REMOTE, OTHER)
    talk.heard()
    assert talk.say(f"<db:result from='{REMOTE}' to='{OTHER}' type='error'/>") == ""
    assert [told[:3] for told in talk.server.unreachable] == [(REMOTE, OTHER, "remote-server-timeout")]
    talk.server.send(REMOTE, LOCAL, "hello")
    assert ">hello<" in talk.heard()


def test_a_peer_that_ends_the_stream_for_it_is_asked_on_separate_streams_from_then_on() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    talk.server.federation.dial(REMOTE, OTHER)
    talk.say("<stream:error><invalid-from xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
    assert talk.is_over()
    talk.tick(2)
    talk.server.federation.dial(REMOTE, OTHER)
    talk.server.federation.dial(REMOTE, LOCAL)
    assert [(stream.remote, stream.local) for stream in talk.server.dialled] == [(REMOTE, OTHER), (REMOTE, LOCAL)]


# --- time and ends


def test_a_server_that_never_answers_is_given_up() -> None:
    talk = Outgoing()
    talk.tick(31)
    assert verdict(talk) == ("remote-server-timeout", False)
    assert talk.is_over()


def test_a_pair_that_is_not_answered_in_time_is_given_up_without_the_others() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    talk.server.federation.dial(REMOTE, OTHER)
    talk.tick(31)
    assert [told[:3] for told in talk.server.unreachable] == [(REMOTE, OTHER, "remote-server-timeout")]
    assert not talk.is_over()
    talk.valid(local=OTHER)  # too late: nobody asks any more
    assert len(talk.server.attached) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("host-unknown", ("remote-server-not-found", True)),
        ("host-gone", ("remote-server-not-found", True)),
        ("resource-constraint", ("remote-server-timeout", False)),
        ("what-nobody-knows", ("remote-server-timeout", False)),
    ],
)
def test_a_stream_error_of_the_peer_is_told_to_the_owner(error: str, expected: tuple[str, bool]) -> None:
    talk = Outgoing()
    said = f"<stream:error><{error} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>{CLOSE}"
    assert talk.answer(OFFERS_DIALBACK) + talk.say(said) != ""
    assert verdict(talk) == expected
    assert talk.is_over()


@pytest.mark.parametrize("end", ["eof", "lost", "close", "garbage"])
def test_an_early_end_is_told_to_the_owner_once(end: str) -> None:
    talk = Outgoing()
    if end == "eof":
        talk.stream.receive_eof()
    elif end == "lost":
        talk.stream.connection_lost()
    else:
        talk.say(CLOSE if end == "close" else "<nonsense>")
    assert verdict(talk) == ("remote-server-timeout", False)


def test_a_stream_on_which_nothing_is_wanted_any_more_is_closed() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='1' type='valid'/>")  # nobody has asked
    stream = talk.stream
    assert stream.withdraw() == ((REMOTE, LOCAL),)
    assert talk.tick(LINGER_S + 1) == CLOSE
    assert talk.is_over()


def test_stream_management_is_asked_for_before_the_first_stanza() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_SM)
    assert talk.valid() == f'<enable xmlns="{ns.SM}"/>'
    talk.server.federation.dial(REMOTE, OTHER)
    talk.heard()
    assert talk.valid(local=OTHER) == ""
