"""The answering side of Server Dialback (s2s/dialback.py; XEP-0220, 2.2 and 2.5; XEP-0344)."""

from __future__ import annotations

import pytest

from s2s.dialback import PENDING
from s2s.negotiation import State
from tests.support.federation import (
    LOCAL,
    OFFERS_DIALBACK,
    OFFERS_STARTTLS,
    OTHER,
    REMOTE,
    SECRET,
    Certificate,
    Incoming,
    Outgoing,
    dialback_error,
)
from tests.support.streams import stream_error
from xmpp import ns
from xmpp.dialback import make_key

VALID = f'<db:result from="{LOCAL}" to="{REMOTE}" type="valid"/>'


def verification(talk: Incoming) -> Outgoing:
    """The stream on which the key is verified."""
    other = Outgoing(talk.server, is_wanted=False)
    other.heard()
    return other


# --- as receiving server


def test_the_key_is_verified_by_the_server_that_dns_names() -> None:
    talk = Incoming()
    talk.open()
    assert talk.show_key("s3cr3t") == ""
    authoritative = verification(talk)
    assert authoritative.answer(OFFERS_DIALBACK) == (
        f'<db:verify from="{LOCAL}" to="{REMOTE}" id="{LOCAL}-1">s3cr3t</db:verify>'
    )
    authoritative.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    assert talk.heard() == VALID
    facts = {"kind": "s2s", "local": LOCAL, "sends": False, "address": "192.0.2.1", "transport": "tls"}
    assert talk.server.attached == [(REMOTE, facts | {"how": "dialback"})]
    talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}' id='1'/>")
    assert [stanza.id for stanza in talk.server.got()] == ["1"]


def test_no_stanza_is_taken_before_that() -> None:
    talk = Incoming()
    talk.open()
    talk.show_key()
    assert stream_error(talk.say(f"<message from='juliet@{REMOTE}' to='romeo@{LOCAL}'/>")) == "not-authorized"
    assert talk.server.got() == []


def test_a_wrong_key_is_refused_and_the_stream_lives_for_others() -> None:
    talk = Incoming(certificate=Certificate(("paris.example",)))
    talk.open()
    talk.show_key()
    authoritative = verification(talk)
    authoritative.answer(OFFERS_DIALBACK)
    authoritative.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='{LOCAL}-1' type='invalid'/>")
    assert dialback_error(talk.heard()) == "forbidden"
    assert talk.server.attached == []
    assert 'type="valid"' in talk.show_key(from_="paris.example")


def test_an_authoritative_server_that_has_only_errors_is_not_found() -> None:
    talk = Incoming()
    talk.open()
    talk.show_key()
    authoritative = verification(talk)
    authoritative.answer(OFFERS_DIALBACK)
    authoritative.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='{LOCAL}-1' type='error'/>")
    assert dialback_error(talk.heard()) == "remote-server-not-found"


@pytest.mark.parametrize("end", ["closed", "silent", "no tls"])
def test_an_authoritative_server_that_does_not_answer_is_a_timeout(end: str) -> None:
    talk = Incoming()
    talk.open()
    talk.show_key()
    talk.server.tick(1)
    authoritative = verification(talk)
    if end == "closed":
        authoritative.stream.connection_lost()
    elif end == "no tls":
        authoritative.transport.is_secure = False
        authoritative.answer(OFFERS_DIALBACK)
    else:
        authoritative.answer(OFFERS_DIALBACK)
        talk.server.clock.now += 31
        authoritative.stream.check_time()
    assert dialback_error(talk.heard()) == "remote-server-timeout"
    assert talk.stream.state is State.NEGOTIATING


def test_verification_needs_no_authentication_and_offers_none() -> None:
    talk = Incoming()
    talk.open()
    talk.show_key()
    authoritative = Outgoing(talk.server, is_wanted=False, is_secure=False)
    authoritative.answer(OFFERS_STARTTLS)
    authoritative.say(f"<proceed xmlns='{ns.TLS}'/>")
    authoritative.secure()
    written = authoritative.answer(f"<mechanisms xmlns='{ns.SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>")
    assert written.startswith("<db:verify")
    assert "<auth" not in written


def test_the_answer_for_a_stream_that_has_ended_is_dropped() -> None:
    talk = Incoming()
    talk.open()
    talk.show_key()
    authoritative = verification(talk)
    authoritative.answer(OFFERS_DIALBACK)
    talk.stream.connection_lost()
    authoritative.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    assert talk.server.attached == []


def test_a_certificate_that_proves_the_domain_is_enough() -> None:
    """XEP-0344: dialback without dialback."""
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.open()
    assert talk.show_key() == VALID
    assert talk.server.dialled == []


def test_who_asks_twice_is_answered_once_and_again_when_it_is_decided() -> None:
    talk = Incoming()
    talk.open()
    talk.show_key()
    talk.show_key()
    authoritative = verification(talk)
    authoritative.answer(OFFERS_DIALBACK)
    authoritative.say(f"<db:verify from='{REMOTE}' to='{LOCAL}' id='{LOCAL}-1' type='valid'/>")
    assert talk.heard() == VALID
    assert talk.show_key() == VALID
    assert len(talk.server.attached) == 1


def test_several_pairs_have_a_session_each() -> None:
    """XEP-0220, 2.6."""
    talk = Incoming(certificate=Certificate((REMOTE, "rooms.capulet.example")))
    talk.open()
    for from_ in (REMOTE, "rooms.capulet.example"):
        for to in (LOCAL, OTHER):
            assert 'type="valid"' in talk.show_key(from_=from_, to=to)
    talk.say(f"<message from='hall@rooms.capulet.example' to='romeo@{OTHER}'/>")
    (stanza,) = talk.server.got()
    assert (stanza.from_, stanza.to) == ("hall@rooms.capulet.example", f"romeo@{OTHER}")
    assert [(bare, facts["local"]) for bare, facts in talk.server.attached] == [
        (REMOTE, LOCAL), (REMOTE, OTHER), ("rooms.capulet.example", LOCAL), ("rooms.capulet.example", OTHER),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("from_", "to", "changes", "condition"),
    [
        (REMOTE, "paris.example", {}, "item-not-found"),
        (LOCAL, OTHER, {}, "not-acceptable"),
        ("rooms.capulet.example", LOCAL, {"policies": {"rooms.capulet.example": "deny"}}, "policy-violation"),
        (REMOTE, LOCAL, {"is_secure": False}, "policy-violation"),
        (REMOTE, LOCAL, {"policies": {REMOTE: "secure"}}, "not-authorized"),
    ],
)
def test_what_no_key_can_change_is_refused_at_once(
    from_: str, to: str, changes: dict[str, bool], condition: str
) -> None:
    talk = Incoming(**changes)  # type: ignore[arg-type]  # is_secure, or a setting
    talk.open()
    assert dialback_error(talk.show_key(from_=from_, to=to)) == condition
    assert talk.server.dialled == []
    assert not talk.is_over()


def test_too_many_questions_at_once_are_refused() -> None:
    talk = Incoming()
    talk.open()
    for number in range(PENDING):
        assert talk.show_key(from_=f"n{number}.example") == ""
    assert dialback_error(talk.show_key(from_="one.example")) == "resource-constraint"


def test_an_owner_that_refuses_is_an_error_of_the_pair() -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.server.router.refusal = ("resource-constraint", "Too many.")
    talk.open()
    assert dialback_error(talk.show_key()) == "resource-constraint"
    assert not talk.is_over()


@pytest.mark.parametrize("name", ["result", "verify"])
def test_what_has_no_domains_ends_the_stream(name: str) -> None:
    talk = Incoming()
    talk.open()
    assert stream_error(talk.say(f"<db:{name} id='1' from='{REMOTE}'>key</db:{name}>")) == "improper-addressing"


# --- as authoritative server


@pytest.mark.parametrize("is_secure", [True, False])
def test_keys_that_are_ours_are_valid_whichever_process_has_made_them(is_secure: bool) -> None:
    """XEP-0185: the secret is all. Who asks need not be authenticated, nor encrypted (XEP-0220, 2.1.2)."""
    talk = Incoming(is_secure=is_secure)
    talk.open()
    key = make_key(SECRET, REMOTE, LOCAL, "417GAF25")
    asked = f"<db:verify from='{REMOTE}' to='{LOCAL}' id='417GAF25'>{key}</db:verify>"
    assert talk.say(asked) == f'<db:verify from="{LOCAL}" to="{REMOTE}" id="417GAF25" type="valid"/>'
    assert 'type="invalid"' in talk.say(asked.replace("417GAF25'", "417GAF26'"))
    assert 'type="invalid"' in talk.say(asked.replace(key, key[:-1]))
    assert 'type="invalid"' in talk.say(asked.replace(f"to='{LOCAL}'", f"to='{OTHER}'"))


def test_of_other_domains_we_know_nothing() -> None:
    talk = Incoming()
    talk.open()
    asked = f"<db:verify from='{REMOTE}' to='paris.example' id='1'>key</db:verify>"
    assert dialback_error(talk.say(asked)) == "item-not-found"
