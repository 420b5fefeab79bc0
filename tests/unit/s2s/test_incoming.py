"""A stream that another server opens to us: header, TLS, SASL EXTERNAL, features (s2s/incoming.py; RFC 6120, 4 to 6)."""

from __future__ import annotations

from base64 import b64encode

import pytest

from cluster.wire import DETACH
from s2s.incoming import TRIES
from s2s.negotiation import State
from tests.support.federation import (
    BIDI,
    CLOSE,
    LOCAL,
    NONE,
    OTHER,
    REMOTE,
    STARTTLS,
    Certificate,
    Incoming,
    Server,
    auth,
    header,
)
from tests.support.streams import failure, stream_error
from xmpp import ns

PROVEN = Certificate((REMOTE,))


# --- the header (RFC 6120, 4.7)


def test_our_header_names_both_domains_and_the_namespace_of_dialback() -> None:
    opened = Incoming().open("Capulet.Example")
    assert opened.startswith(
        f'<?xml version="1.0"?><stream:stream xmlns="jabber:server" xmlns:stream="{ns.STREAMS}" '
        f'xmlns:db="{ns.DIALBACK}" version="1.0" from="{LOCAL}" to="{REMOTE}" id="{LOCAL}-1" xml:lang="en">'
    )


@pytest.mark.parametrize(
    ("opened", "condition"),
    [
        (header().replace(f" to='{LOCAL}'", ""), "improper-addressing"),
        (header().replace(f" from='{REMOTE}'", ""), "improper-addressing"),
        (header("juliet@capulet.example"), "improper-addressing"),
        (header("a b"), "improper-addressing"),
        (header(to="romeo@montague.example"), "improper-addressing"),
        (header(to="paris.example"), "host-unknown"),
        (header(LOCAL), "invalid-from"),
        (header(OTHER), "invalid-from"),
        (header().replace(" version='1.0'", ""), "unsupported-version"),
        (header().replace("'1.0'", "'2.0'"), "unsupported-version"),
        (header().replace("'jabber:server'", "'jabber:client'"), "invalid-namespace"),
    ],
)
def test_a_wrong_header_is_answered_with_ours_and_the_error(opened: str, condition: str) -> None:
    talk = Incoming()
    written = talk.say(opened)
    assert written.startswith("<?xml")
    assert stream_error(written) == condition
    assert talk.is_over()


def test_a_domain_that_is_denied_is_told_so() -> None:
    talk = Incoming(policies={REMOTE: "deny"})
    assert stream_error(talk.open()) == "policy-violation"


def test_with_a_policy_of_deny_single_domains_may_be_allowed() -> None:
    talk = Incoming(policy="deny", policies={REMOTE: "allow"})
    assert "<stream:features>" in talk.open()


def test_garbage_before_the_header_is_answered_with_a_stream_that_ends() -> None:
    talk = Incoming()
    written = talk.say("GET / HTTP/1.1\r\n\r\n")
    assert written.startswith("<?xml")
    assert stream_error(written) == "not-well-formed"


# --- features and TLS


def test_without_tls_nothing_but_tls_is_offered() -> None:
    offered = Incoming(is_secure=False, certificate=PROVEN).open()
    assert offered.endswith(
        f'<stream:features><starttls xmlns="{ns.TLS}"><required/></starttls></stream:features>'
    )  # fmt: skip


def test_where_tls_is_optional_dialback_is_offered_without_it() -> None:
    offered = Incoming(is_secure=False, is_tls_required=False).open()
    assert f'<starttls xmlns="{ns.TLS}"/>' in offered
    assert f'<dialback xmlns="{ns.DIALBACK_FEATURE}"><errors/></dialback>' in offered


def test_with_tls_dialback_bidi_stream_management_and_limits_are_offered() -> None:
    offered = Incoming().open().partition("<stream:features>")[2]
    assert offered == (
        f'<dialback xmlns="{ns.DIALBACK_FEATURE}"><errors/></dialback><bidi xmlns="{ns.BIDI_FEATURE}"/>'
        f'<sm xmlns="{ns.SM}"/><limits xmlns="{ns.STREAM_LIMITS}"><max-bytes>262144</max-bytes>'
        "<idle-seconds>600</idle-seconds></limits></stream:features>"
    )


def test_bidi_is_offered_where_it_is_wanted() -> None:
    assert ns.BIDI_FEATURE not in Incoming(has_bidi=False).open()


@pytest.mark.parametrize(
    ("certificate", "is_offered"),
    [
        (PROVEN, True),
        (NONE, False),
        (Certificate(("paris.example",)), False),
        (Certificate((REMOTE,), is_trusted=False, problem="the certificate expired"), False),
    ],
)
def test_external_is_offered_to_a_trusted_certificate_of_the_domain_alone(
    certificate: Certificate, is_offered: bool
) -> None:
    """XEP-0178, 3."""
    assert ("<mechanism>EXTERNAL</mechanism>" in Incoming(certificate=certificate).open()) == is_offered


def test_starttls_leads_to_a_new_stream_with_a_new_id() -> None:
    talk = Incoming(is_secure=False, certificate=PROVEN)
    talk.open()
    assert talk.say(STARTTLS) == f'<proceed xmlns="{ns.TLS}"/>'
    assert talk.secure() == ""
    opened = talk.open()
    assert f'id="{LOCAL}-2"' in opened
    assert "EXTERNAL" in opened
    assert "starttls" not in opened


def test_what_was_said_in_clear_behind_starttls_is_thrown_away() -> None:
    """RFC 6120, 5.4.3.3: it may have been injected."""
    talk = Incoming(is_secure=False, certificate=PROVEN)
    talk.open()
    injected = header("paris.example") + f"<db:result from='paris.example' to='{LOCAL}'>key</db:result>"
    talk.say(STARTTLS + injected)
    assert talk.say(injected) == ""
    talk.secure()
    assert "EXTERNAL" in talk.open()
    assert talk.server.dialled == []


def test_a_second_starttls_is_refused_and_the_stream_ends() -> None:
    """RFC 6120, 5.4.2.2."""
    talk = Incoming()
    talk.open()
    assert talk.say(STARTTLS) == f'<failure xmlns="{ns.TLS}"/>{CLOSE}'
    assert talk.is_over()


# --- SASL EXTERNAL (XEP-0178, 3)


@pytest.mark.parametrize("text", ["=", b64encode(REMOTE.encode()).decode(), b64encode(b"Capulet.Example").decode()])
def test_external_authenticates_the_domain_of_the_header(text: str) -> None:
    talk = Incoming(certificate=PROVEN)
    talk.open()
    assert talk.say(auth(text)) == f'<success xmlns="{ns.SASL}"/>'
    opened = talk.open()
    assert "EXTERNAL" not in opened
    assert ns.BIDI_FEATURE not in opened
    assert ns.DIALBACK_FEATURE in opened
    facts = {"kind": "s2s", "local": LOCAL, "sends": False, "address": "192.0.2.1", "transport": "tls"}
    assert talk.server.attached == [(REMOTE, facts | {"how": "external"})]
    assert talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}'/>") == ""
    assert len(talk.server.got()) == 1


def test_without_an_initial_response_it_is_asked_for() -> None:
    """RFC 6120, 6.4.2."""
    talk = Incoming(certificate=PROVEN)
    talk.open()
    assert talk.say(auth("")) == f'<challenge xmlns="{ns.SASL}"/>'
    assert "<success" in talk.say(f"<response xmlns='{ns.SASL}'>=</response>")


def test_an_exchange_may_be_aborted() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.open()
    talk.say(auth(""))
    assert failure(talk.say(f"<abort xmlns='{ns.SASL}'/>")) == "aborted"
    assert talk.stream.state is State.NEGOTIATING


@pytest.mark.parametrize(
    ("certificate", "said", "condition"),
    [
        (PROVEN, auth(b64encode(b"paris.example").decode()), "invalid-authzid"),
        (PROVEN, auth(b64encode(b"a b").decode()), "invalid-authzid"),
        (PROVEN, auth("***"), "incorrect-encoding"),
        (PROVEN, auth("=").replace("EXTERNAL", "PLAIN"), "invalid-mechanism"),
        (NONE, auth("="), "invalid-mechanism"),
        (Certificate((REMOTE,), is_trusted=False), auth("="), "invalid-mechanism"),
    ],
)
def test_a_failure_leaves_the_stream_to_dialback(certificate: Certificate, said: str, condition: str) -> None:
    talk = Incoming(certificate=certificate)
    talk.open()
    assert failure(talk.say(said)) == condition
    assert talk.stream.state is State.NEGOTIATING
    assert talk.server.attached == []


def test_too_many_failures_end_the_stream() -> None:
    talk = Incoming()
    talk.open()
    for _ in range(TRIES - 1):
        assert failure(talk.say(auth("="))) == "invalid-mechanism"
    assert stream_error(talk.say(auth("="))) == "policy-violation"


@pytest.mark.parametrize(("from_", "to", "condition"), [
    ("paris.example", LOCAL, "invalid-from"), (REMOTE, OTHER, "host-unknown"),
])  # fmt: skip
def test_the_domains_stay_what_they_were_when_they_were_authenticated(from_: str, to: str, condition: str) -> None:
    talk = Incoming(certificate=Certificate((REMOTE, "paris.example")))
    talk.open()
    talk.say(auth("="))
    assert stream_error(talk.open(from_, to)) == condition
    assert talk.server.attached == []


def test_no_stanza_is_taken_before_the_new_stream_after_success() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.open()
    talk.say(auth("="))
    assert stream_error(talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}'/>")) == "bad-format"


def test_an_owner_that_refuses_ends_the_stream() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.server.router.refusal = ("resource-constraint", "Too many.")
    talk.open()
    talk.say(auth("="))
    assert stream_error(talk.open()) == "resource-constraint"


def test_input_waits_while_the_owner_is_asked() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.open()
    talk.say(auth("="))
    talk.server.router.is_answering = False
    assert "<stream:features>" not in talk.open()
    talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}' id='1'/>")
    assert not talk.is_read()
    talk.server.router.is_answering = True
    talk.server.router.pump()
    assert "<stream:features>" in talk.heard()
    assert talk.is_read()
    assert [stanza.id for stanza in talk.server.got()] == ["1"]


def test_a_stream_that_ends_while_the_owner_is_asked_leaves_no_session() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.open()
    talk.say(auth("="))
    talk.server.router.is_answering = False
    talk.open()
    talk.stream.connection_lost()
    talk.server.router.is_answering = True
    talk.server.router.pump()
    assert [fields[2] for fields in talk.server.router.of_kind(DETACH)] == ["connection-lost"]
    assert talk.server.edge.sessions == {}


# --- bidi (XEP-0288)


def test_after_bidi_we_may_send_on_the_stream() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.sign_in(BIDI)
    assert talk.server.attached[0][1]["sends"] is True
    talk.server.send(REMOTE, LOCAL, "hello")
    assert talk.heard() == (
        f'<message to="juliet@{REMOTE}" from="romeo@{LOCAL}" id="hello"><body>hello</body></message>'
    )  # fmt: skip


@pytest.mark.parametrize("changes", [{"has_bidi": False}, {"is_secure": False}])
def test_bidi_is_refused_where_it_was_not_offered(changes: dict[str, bool]) -> None:
    talk = Incoming(**changes)  # type: ignore[arg-type]  # is_secure, or a setting
    talk.open()
    assert stream_error(talk.say(BIDI)) == "unsupported-stanza-type"


def test_bidi_comes_too_late_behind_a_pair() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.sign_in()
    assert stream_error(talk.say(BIDI)) == "unsupported-stanza-type"


# --- what is not expected


def test_elements_that_nobody_knows_end_the_stream() -> None:
    talk = Incoming()
    talk.open()
    assert stream_error(talk.say("<a xmlns='urn:unknown'/>")) == "unsupported-stanza-type"


def test_too_much_before_authentication_ends_the_stream() -> None:
    talk = Incoming(before_login_bytes=10_000)
    talk.open()
    assert stream_error(talk.say("<db:result a='", *["x" * 5_000] * 3)) == "policy-violation"


def test_a_stanza_that_is_too_large_ends_the_stream() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.sign_in()
    huge = f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}'><body>{'x' * 262_144}</body></message>"
    assert stream_error(talk.say(huge)) == "policy-violation"


def test_a_peer_that_does_not_authenticate_in_time_is_cut_off() -> None:
    talk = Incoming(server=Server())
    talk.open()
    assert talk.tick(29) == ""
    assert stream_error(talk.tick(2)) == "connection-timeout"


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_it_does_not_matter_how_the_bytes_are_cut(cut: int) -> None:
    talk = Incoming(certificate=PROVEN)
    said = header() + auth("=") + header()
    said += f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}' id='1'/>{CLOSE}"
    pieces = [said[begin : begin + cut] for begin in range(0, len(said), cut)]
    assert talk.say(*pieces).endswith(CLOSE)
    assert [stanza.id for stanza in talk.server.got()] == ["1"]
