"""A client's stream before anybody has signed in (c2s/stream.py): header, features, STARTTLS (RFC 6120, 4 and 5)."""

from __future__ import annotations

import re

import pytest

from c2s.negotiation import State
from cluster.wire import CALL
from tests.support.streams import (
    BIND,
    BINDINGS,
    DOMAIN,
    HEADER,
    ROMEO,
    STARTTLS,
    Talk,
    auth,
    closed,
    encrypt,
    plain,
    sample,
    stream_error,
)
from xmpp import ns
from xmpp.stream import Limits

# --- the stream header (RFC 6120, 4.7)


def test_the_header_is_answered_with_ours_then_the_features() -> None:
    written = Talk().say(f"<?xml version='1.0'?>{HEADER}")
    assert re.match(
        rf'<\?xml version="1.0"\?><stream:stream xmlns="jabber:client" xmlns:stream="{ns.STREAMS}" version="1.0" '
        rf'from="{DOMAIN}" id="stream-1" xml:lang="en"><stream:features>.*</stream:features>$',
        written,
    )


def test_every_stream_of_a_connection_has_an_id_of_its_own() -> None:
    talk = Talk()
    first = talk.open()
    talk.say(auth("PLAIN", plain()))
    assert 'id="stream-1"' in first
    assert 'id="stream-2"' in talk.open()


def test_the_header_tells_the_client_whom_it_claims_to_be() -> None:
    assert f' to="{ROMEO}"' in Talk().say(HEADER.replace("version", "from='Romeo@Montague.example' version"))
    assert " to=" not in Talk().say(HEADER.replace("version", "from='@' version"))


@pytest.mark.parametrize(
    ("to", "condition"),
    [
        (" to='capulet.example'", "host-unknown"),
        (f" to='conference.{DOMAIN}'", "host-unknown"),
        (" to='@'", "improper-addressing"),
        (" to='a@@b'", "improper-addressing"),
    ],
)
def test_a_domain_that_is_not_served_is_refused_behind_our_header(to: str, condition: str) -> None:
    talk = Talk()
    written = talk.say(HEADER.replace(f" to='{DOMAIN}'", to))
    assert written.startswith('<?xml version="1.0"?><stream:stream ')
    assert "<stream:features>" not in written
    assert stream_error(written) == condition
    assert talk.is_over()


def test_the_domain_is_compared_prepared() -> None:
    assert "<stream:features>" in Talk().say(HEADER.replace(DOMAIN, DOMAIN.upper() + "."))


def test_without_a_to_the_only_domain_is_meant() -> None:
    assert f'from="{DOMAIN}"' in Talk().say(HEADER.replace(f" to='{DOMAIN}'", ""))


def test_without_a_to_nobody_can_say_which_of_two_domains_is_meant() -> None:
    talk = Talk(domains=frozenset({DOMAIN, "capulet.example"}))
    assert stream_error(talk.say(HEADER.replace(f" to='{DOMAIN}'", ""))) == "host-unknown"


@pytest.mark.parametrize("version", ["0.9", "2.0", "1", "one", "", "\u00b9.0", "9" * 5000 + ".0"])
def test_a_version_that_is_not_1_is_refused(version: str) -> None:
    assert stream_error(Talk().say(HEADER.replace("'1.0'", f"'{version}'"))) == "unsupported-version"


def test_a_header_without_a_version_is_refused() -> None:
    assert stream_error(Talk().say(HEADER.replace(" version='1.0'", ""))) == "unsupported-version"


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.99", "01.0"])
def test_a_minor_version_is_no_obstacle(version: str) -> None:
    assert "<stream:features>" in Talk().say(HEADER.replace("'1.0'", f"'{version}'"))


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        ("GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        ("<message/>", "bad-format"),
        (HEADER.replace(ns.STREAMS, "urn:other"), "invalid-namespace"),
        (HEADER.replace("jabber:client", "jabber:server"), "invalid-namespace"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>" + HEADER, "unsupported-encoding"),
        ("<!DOCTYPE x>" + HEADER, "restricted-xml"),
    ],
)
def test_an_error_before_the_header_comes_behind_a_header_of_ours(sent: str, condition: str) -> None:
    """RFC 6120, 4.9.1.2."""
    written = Talk().say(sent)
    assert written.count("<stream:stream ") == 1
    assert stream_error(written) == condition


def test_an_error_behind_the_header_opens_no_second_stream() -> None:
    talk = Talk()
    talk.open()
    written = talk.say("<!-- -->")
    assert stream_error(written) == "restricted-xml"
    assert "<stream:stream " not in written


def test_an_error_in_a_stream_that_begins_anew_comes_behind_a_header_of_its_own() -> None:
    """RFC 6120, 4.9.1.2 holds for the stream after SASL, and the one after TLS, too."""
    signed_in = Talk()
    signed_in.open()
    signed_in.say(auth("PLAIN", plain()))
    encrypted = Talk()
    encrypted.open()
    encrypted.say(STARTTLS)
    encrypted.stream.tls_established()
    for talk in signed_in, encrypted:
        written = talk.say("<<")
        assert written.count("<stream:stream ") == 1
        assert f'from="{DOMAIN}"' in written
        assert stream_error(written) == "not-well-formed"


def test_the_domain_stays_the_same_once_somebody_has_signed_in() -> None:
    talk = Talk(domains=frozenset({DOMAIN, "capulet.example"}))
    talk.open()
    talk.say(auth("PLAIN", plain()))
    assert stream_error(talk.say(HEADER.replace(DOMAIN, "capulet.example"))) == "host-unknown"


def test_a_header_may_come_byte_by_byte() -> None:
    assert "<stream:features>" in Talk().say(*HEADER)


# --- features (RFC 6120, 4.3.2)


def of_rfc_6120(written: str) -> list[str]:
    """The mechanisms, without those of XEP-0388."""
    mechanisms = re.search(f'<mechanisms xmlns="{ns.SASL}">(.*?)</mechanisms>', written)
    assert mechanisms is not None
    return re.findall("<mechanism>(.*?)</mechanism>", mechanisms[1])


def test_where_tls_is_required_it_is_all_that_is_offered() -> None:
    written = Talk(is_tls_required=True, may_register=True).open()
    assert f'<starttls xmlns="{ns.TLS}"><required/></starttls>' in written
    assert "<mechanisms" not in written
    assert "<register" not in written


def test_where_tls_is_optional_mechanisms_are_offered_beside_it() -> None:
    written = Talk().open()
    assert f'<starttls xmlns="{ns.TLS}"/>' in written
    assert of_rfc_6120(written) == [
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "PLAIN",
    ]
    assert "sasl-channel-binding" not in written


def test_with_tls_channel_binding_is_offered_and_tls_no_more() -> None:
    written = Talk(is_secure=True, is_tls_required=True).open()
    assert "<starttls" not in written
    assert of_rfc_6120(written) == [
        "SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN",
    ]  # fmt: skip
    assert re.findall('<channel-binding type="(.*?)"/>', written) == list(BINDINGS)


def test_after_login_binding_is_offered_and_no_mechanism() -> None:
    talk = Talk()
    talk.open()
    talk.say(auth("PLAIN", plain()))
    written = talk.open()
    assert f'<bind xmlns="{ns.BIND}"/>' in written
    assert "<mechanisms" not in written
    assert "<starttls" not in written


def test_the_limits_are_told_before_and_after_login() -> None:
    """XEP-0478."""
    talk = Talk()
    before = talk.open()
    talk.say(auth("PLAIN", plain()))
    after = talk.open()
    assert f'<limits xmlns="{ns.STREAM_LIMITS}"><max-bytes>16384</max-bytes></limits>' in before
    assert "<max-bytes>262144</max-bytes><idle-seconds>1800</idle-seconds>" in after


# --- STARTTLS (RFC 6120, 5)


def test_starttls_is_answered_with_proceed_and_the_handshake() -> None:
    talk = Talk()
    talk.open()
    assert talk.say(STARTTLS) == f'<proceed xmlns="{ns.TLS}"/>'
    assert talk.transport.is_in_handshake
    assert talk.stream.state is State.HANDSHAKE


def test_what_came_in_clear_behind_starttls_is_thrown_away() -> None:
    """RFC 6120, 5.4.3.3: else somebody in the middle could put commands into the encrypted stream."""
    talk = Talk(is_tls_required=True)
    talk.open()
    assert talk.say(STARTTLS + HEADER + auth("PLAIN", plain())) == f'<proceed xmlns="{ns.TLS}"/>'
    talk.say("<more/>")
    encrypt(talk)
    assert talk.heard() == ""
    written = talk.open()
    assert written.startswith('<?xml version="1.0"?><stream:stream ')
    assert "<mechanisms" in written
    assert talk.router.of_kind(CALL) == []


def test_starttls_over_tls_fails_and_ends_the_stream() -> None:
    """RFC 6120, 5.4.2.2."""
    talk = Talk(is_secure=True)
    talk.open()
    before = closed("starttls-refused")
    assert talk.say(STARTTLS) == f'<failure xmlns="{ns.TLS}"/></stream:stream>'
    assert talk.is_over()
    assert closed("starttls-refused") == before + 1


def test_the_handshake_counts_against_the_login_timeout_and_nothing_is_written_into_it() -> None:
    talk = Talk()
    talk.open()
    talk.say(STARTTLS)
    before = sample("stentor_c2s_stream_errors_total", condition="connection-timeout")
    assert talk.tick(31) == ""
    assert talk.is_over()
    assert sample("stentor_c2s_stream_errors_total", condition="connection-timeout") == before
    talk.stream.tls_established()
    assert talk.stream.state is State.CLOSED


# --- before login


@pytest.mark.parametrize(
    "sent",
    [
        "<message to='a@b'/>",
        "<presence/>",
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        BIND,
        "<enable xmlns='urn:xmpp:sm:3'/>",
    ],
)
def test_nothing_but_signing_in_comes_before_signing_in(sent: str) -> None:
    talk = Talk()
    talk.open()
    assert stream_error(talk.say(sent)) == "not-authorized"
    assert talk.router.sent == []


def test_stanzas_wait_for_a_resource() -> None:
    talk = Talk()
    talk.sign_in()
    assert stream_error(talk.say("<presence/>")) == "not-authorized"


def test_elements_of_the_negotiation_out_of_turn_end_the_stream() -> None:
    for out_of_turn in f"<response xmlns='{ns.SASL}'/>", f"<abort xmlns='{ns.SASL}'/>", f"<proceed xmlns='{ns.TLS}'/>":
        talk = Talk()
        talk.open()
        assert stream_error(talk.say(out_of_turn)) == "unsupported-stanza-type"


def test_input_before_login_is_bounded() -> None:
    talk = Talk(before_login_bytes=10_000, sasl_tries=1_000)
    talk.open()
    written = ""
    for _ in range(200):
        if not talk.is_over():
            written = talk.say(auth("PLAIN", b"x" * 100))
    assert stream_error(written) == "policy-violation"


def test_an_element_before_login_is_bounded() -> None:
    talk = Talk(before_login=Limits(stanza_bytes=2_000))
    talk.open()
    assert stream_error(talk.say(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>" + "A" * 3_000)) == "policy-violation"


def test_after_login_stanzas_may_be_larger() -> None:
    talk = Talk(before_login=Limits(stanza_bytes=2_000))
    talk.bind()
    assert talk.say(f"<message to='juliet@{DOMAIN}'><body>{'x' * 3_000}</body></message>") == ""
    assert len(talk.router.submitted()) == 1
