"""Signing in, registering and binding on a client's stream (c2s/stream.py, c2s/login.py; RFC 6120, 6 and 7)."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from scramp import ScramClient

from c2s.attempts import Attempts
from c2s.client_certificates import ClientCertificates
from c2s.negotiation import State
from cluster.config import ClientAuthority
from cluster.wire import ATTACH, CALL, SUBMIT
from tests.support.pki import NOW
from tests.support.streams import (
    BIND,
    BINDINGS,
    DOMAIN,
    HEADER,
    PASSWORD,
    ROMEO,
    STARTTLS,
    Clock,
    Talk,
    auth,
    encrypt,
    failure,
    plain,
    response,
    sample,
    stanza_error,
    stream_error,
)
from tests.unit.c2s.test_client_certificates import ROOT, STRANGER, client
from xmpp import ns

JID = f"{ROMEO}/generated"


# --- SASL (RFC 6120, 6)


def test_plain() -> None:
    talk = Talk()
    talk.open()
    assert talk.say(auth("PLAIN", plain())) == f'<success xmlns="{ns.SASL}"/>'
    talk.open()
    assert talk.stream.state is State.AUTHENTICATED


def test_plain_without_an_initial_response() -> None:
    talk = Talk()
    talk.open()
    assert talk.say(auth("PLAIN")) == f'<challenge xmlns="{ns.SASL}"/>'
    assert talk.say(response(plain())) == f'<success xmlns="{ns.SASL}"/>'


def text_in(written: str, name: str) -> str:
    found = re.fullmatch(rf'<{name} xmlns="{ns.SASL}">(.*)</{name}>', written)
    assert found is not None, written
    return b64decode(found[1]).decode()


@pytest.mark.parametrize("suffix", ["", "-PLUS"])
@pytest.mark.parametrize("hash", ["SHA-1", "SHA-256", "SHA-512"])
def test_scram_with_another_implementation(hash: str, suffix: str) -> None:
    talk = Talk(is_secure=True, is_tls_required=True)
    talk.open()
    binding = ("tls-server-end-point", BINDINGS["tls-server-end-point"]) if suffix else None
    mechanism = f"SCRAM-{hash}{suffix}"
    client = ScramClient([mechanism], "romeo", PASSWORD, channel_binding=binding)
    client.set_server_first(text_in(talk.say(auth(mechanism, client.get_client_first().encode())), "challenge"))
    client.set_server_final(text_in(talk.say(response(client.get_client_final().encode())), "success"))
    talk.open()
    talk.say(BIND)
    assert talk.stream.state is State.BOUND


def test_scram_plus_with_the_exporter() -> None:
    """RFC 9266, which no client library here knows: computed by hand (RFC 5802, 3)."""
    talk = Talk(is_secure=True)
    talk.open()
    gs2, bare = "p=tls-exporter,,", "n=romeo,r=rOprNGfwEbeRWgbNEkqO"
    server_first = text_in(talk.say(auth("SCRAM-SHA-256-PLUS", (gs2 + bare).encode())), "challenge")
    given = dict(part.split("=", 1) for part in server_first.split(","))
    without_proof = f"c={b64encode(gs2.encode() + BINDINGS['tls-exporter']).decode()},r={given['r']}"
    auth_message = f"{bare},{server_first},{without_proof}".encode()
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b64decode(given["s"]), int(given["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(client_key).digest(), auth_message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    written = talk.say(response(f"{without_proof},p={b64encode(proof).decode()}".encode()))
    verifier = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth_message, "sha256")
    assert text_in(written, "success") == f"v={b64encode(verifier).decode()}"


@pytest.mark.parametrize("binding", [("tls-server-end-point", b"of another server"), ("tls-unique", b"u" * 12)])
def test_scram_plus_is_for_this_connection_alone(binding: tuple[str, bytes]) -> None:
    talk = Talk(is_secure=True)
    talk.open()
    client = ScramClient(["SCRAM-SHA-256-PLUS"], "romeo", PASSWORD, channel_binding=binding)
    written = talk.say(auth("SCRAM-SHA-256-PLUS", client.get_client_first().encode()))
    if "<challenge" in written:
        client.set_server_first(text_in(written, "challenge"))
        written = talk.say(response(client.get_client_final().encode()))
    assert failure(written) == "not-authorized"


@pytest.mark.parametrize("username", ["romeo", "nobody"])
def test_a_wrong_password_and_a_stranger_look_the_same(username: str) -> None:
    talk = Talk()
    talk.open()
    client = ScramClient(["SCRAM-SHA-1"], username, "wrong")
    client.set_server_first(text_in(talk.say(auth("SCRAM-SHA-1", client.get_client_first().encode())), "challenge"))
    assert failure(talk.say(response(client.get_client_final().encode()))) == "not-authorized"
    assert failure(talk.say(auth("PLAIN", plain(username, "wrong")))) == "not-authorized"


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>!</auth>", "incorrect-encoding"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>AGE\nAYg==</auth>", "incorrect-encoding"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>AGEAYg</auth>", "incorrect-encoding"),
        (f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>=</auth>", "malformed-request"),
        (auth("PLAIN", b"romeo"), "malformed-request"),
        (auth("SCRAM-SHA-1", b"n=romeo"), "malformed-request"),
        (auth("ANONYMOUS", b"x"), "invalid-mechanism"),
        (auth("EXTERNAL", b"x"), "encryption-required"),
        (f"<auth xmlns='{ns.SASL}'/>", "invalid-mechanism"),
        (auth("SCRAM-SHA-1-PLUS", b"p=tls-exporter,,n=romeo,r=abc"), "encryption-required"),
        (auth("PLAIN", plain(authzid=f"juliet@{DOMAIN}")), "invalid-authzid"),
        (auth("PLAIN", plain(authzid=f"romeo@{DOMAIN}/balcony")), "invalid-authzid"),
        (auth("SCRAM-SHA-1", f"n,a=juliet@{DOMAIN},n=romeo,r=abc".encode()), "invalid-authzid"),
    ],
)
def test_failures_have_the_condition_of_the_rfc_and_the_stream_goes_on(sent: str, condition: str) -> None:
    talk = Talk()
    talk.open()
    assert failure(talk.say(sent)) == condition
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_naming_oneself_is_allowed() -> None:
    talk = Talk()
    talk.open()
    assert "<success" in talk.say(auth("PLAIN", plain(authzid=ROMEO)))


def test_where_tls_is_required_no_password_is_taken_without_it() -> None:
    talk = Talk(is_tls_required=True)
    talk.open()
    before = sample("stentor_c2s_auth_total", mechanism="PLAIN", result="rejected")
    assert failure(talk.say(auth("PLAIN", plain()))) == "encryption-required"
    assert talk.router.of_kind(CALL) == []
    assert sample("stentor_c2s_auth_total", mechanism="PLAIN", result="rejected") == before + 1


def test_a_client_may_abort() -> None:
    """RFC 6120, 6.4.4. It is no failed try."""
    talk = Talk(sasl_tries=2)
    talk.open()
    for _ in range(3):
        talk.say(auth("PLAIN"))
        assert failure(talk.say(f"<abort xmlns='{ns.SASL}'/>")) == "aborted"
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_another_auth_discards_the_negotiation_that_is_going_on() -> None:
    """RFC 6120, 6.4.2."""
    talk = Talk()
    talk.open()
    assert "<challenge" in talk.say(auth("SCRAM-SHA-1", b"n,,n=romeo,r=abc"))
    before = sample("stentor_c2s_auth_total", mechanism="SCRAM-SHA-1", result="rejected")
    assert talk.say(auth("PLAIN", plain())) == f'<success xmlns="{ns.SASL}"/>'
    assert sample("stentor_c2s_auth_total", mechanism="SCRAM-SHA-1", result="rejected") == before + 1


def test_failed_tries_come_to_an_end() -> None:
    """RFC 6120, 6.4.5: two to five tries."""
    talk = Talk(sasl_tries=3)
    talk.open()
    for _ in range(2):
        assert failure(talk.say(auth("PLAIN", plain(password="wrong")))) == "not-authorized"
    written = talk.say(auth("PLAIN", plain(password="wrong")))
    assert failure(written) == "not-authorized"
    assert stream_error(written) == "policy-violation"


def test_tries_count_across_starttls() -> None:
    talk = Talk(sasl_tries=2)
    talk.open()
    talk.say(auth("PLAIN", plain(password="wrong")), STARTTLS)
    encrypt(talk)
    talk.open()
    assert stream_error(talk.say(auth("PLAIN", plain(password="wrong")))) == "policy-violation"


def test_a_router_that_does_not_answer_is_no_wrong_password_and_no_try() -> None:
    talk = Talk(sasl_tries=1, login_timeout_s=100.0)
    talk.open()
    talk.router.is_answering = False
    before = sample("stentor_c2s_auth_total", mechanism="PLAIN", result="error")
    assert talk.say(auth("PLAIN", plain())) == ""
    assert failure(talk.tick(11)) == "temporary-auth-failure"
    assert sample("stentor_c2s_auth_total", mechanism="PLAIN", result="error") == before + 1
    talk.router.is_answering = True
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_a_database_that_is_away_is_no_wrong_password_and_no_try() -> None:
    talk = Talk(sasl_tries=1)
    talk.open()
    talk.router.call_error = "temporary-auth-failure"
    assert failure(talk.say(auth("PLAIN", plain()))) == "temporary-auth-failure"
    talk.router.call_error = None
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_what_is_sent_while_a_router_is_asked_waits_unread() -> None:
    talk = Talk()
    talk.open()
    talk.router.is_answering = False
    talk.say(auth("PLAIN", plain()))
    assert talk.say(HEADER) == ""
    assert not talk.is_read()
    talk.router.is_answering = True
    talk.router.pump()
    written = talk.heard()
    assert written.startswith("<success ")
    assert f'<bind xmlns="{ns.BIND}"/>' in written
    assert talk.is_read()


def test_nobody_signs_in_twice() -> None:
    talk = Talk()
    talk.sign_in()
    assert stream_error(talk.say(auth("PLAIN", plain()))) == "unsupported-stanza-type"


def test_an_answer_that_comes_after_the_end_is_not_written() -> None:
    talk = Talk()
    talk.open()
    talk.router.is_answering = False
    talk.say(auth("PLAIN", plain()))
    talk.stream.connection_lost()
    talk.transport.close()
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.heard() == ""


# --- registration before login (XEP-0077)

REGISTER = f"<iq type='set' id='r1'><query xmlns='{ns.REGISTER}'><username>romeo2</username><password>x</password></query></iq>"


def test_registration_is_asked_of_the_owner_of_the_new_account() -> None:
    talk = Talk(may_register=True)
    assert f'<register xmlns="{ns.REGISTER_FEATURE}"/>' in talk.open()
    assert talk.say(REGISTER) == '<iq type="result" id="r1"/>'
    assert talk.router.registered == [(DOMAIN, "set", {"username": "romeo2", "password": "x"}, "192.0.2.1")]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (("conflict", "This name is taken."), ("cancel", "conflict")),
        (("conflict", None), ("cancel", "conflict")),
        ("not-allowed", ("cancel", "not-allowed")),
        ("temporary-auth-failure", ("wait", "resource-constraint")),
    ],
)
def test_registration_may_be_refused(said: object, wanted: tuple[str, str]) -> None:
    talk = Talk(may_register=True)
    talk.open()
    talk.router.call_error = said
    assert stanza_error(talk.say(REGISTER)) == wanted
    talk.router.call_error = None
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_the_form_is_asked_of_a_router() -> None:
    talk = Talk(may_register=True)
    talk.open()
    assert talk.say(f"<iq type='get' id='r1'><query xmlns='{ns.REGISTER}'/></iq>") == '<iq type="result" id="r1"/>'
    assert talk.router.registered == [(DOMAIN, "get", {}, "192.0.2.1")]


def test_fields_of_another_namespace_are_none() -> None:
    talk = Talk(may_register=True)
    talk.open()
    talk.say(
        REGISTER.replace("</query>", "<password xmlns='urn:x'>y</password><username xmlns='{a}b'>z</username></query>")
    )
    assert talk.router.registered == [(DOMAIN, "set", {"username": "romeo2", "password": "x"}, "192.0.2.1")]


@pytest.mark.parametrize(
    "wrong",
    [
        REGISTER.replace("type='set'", ""),
        REGISTER.replace("set", "fetch"),
        REGISTER.replace("id='r1'", ""),
        REGISTER.replace("</iq>", "<query xmlns='jabber:iq:register'/></iq>"),
    ],
)
def test_what_is_no_request_registers_nobody(wrong: str) -> None:
    talk = Talk(may_register=True)
    talk.open()
    assert stanza_error(talk.say(wrong)) == ("modify", "bad-request")
    assert talk.router.sent == []
    assert "<success" in talk.say(auth("PLAIN", plain()))


@pytest.mark.parametrize("to", ["capulet.example", f"romeo2@{DOMAIN}", "@"])
def test_nobody_registers_elsewhere_than_at_the_domain_of_the_stream(to: str) -> None:
    talk = Talk(may_register=True, domains=frozenset({DOMAIN, "capulet.example"}))
    talk.open()
    assert "<item-not-found" in talk.say(REGISTER.replace("<iq", f"<iq to='{to}'"))
    assert talk.router.registered == []
    assert "result" in talk.say(REGISTER.replace("<iq", f"<iq to='{DOMAIN.upper()}'"))


@pytest.mark.parametrize("may_register", [False, True])
@pytest.mark.parametrize("type", ["result", "error"])
def test_what_is_an_answer_is_not_answered(type: str, may_register: bool) -> None:
    talk = Talk(may_register=may_register)
    talk.open()
    assert talk.say(REGISTER.replace("set", type)) == ""
    assert talk.router.sent == []
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_a_registration_that_nobody_answers_is_an_error_and_no_crash() -> None:
    talk = Talk(may_register=True)
    talk.open()
    talk.router.is_answering = False
    talk.say(REGISTER)
    assert stanza_error(talk.tick(11)) == ("wait", "remote-server-timeout")


@pytest.mark.parametrize("request_", [REGISTER, REGISTER.replace("set", "get"), REGISTER.replace("set", "odd")])
def test_without_leave_there_is_no_registration(request_: str) -> None:
    """XEP-0077, 3.1: "MUST return a <service-unavailable/> error"; one may sign in all the same."""
    talk = Talk()
    talk.open()
    assert stanza_error(talk.say(request_)) == ("cancel", "service-unavailable")
    assert talk.router.sent == []
    assert "<success" in talk.say(auth("PLAIN", plain()))


def test_nor_before_tls_where_that_is_required() -> None:
    hidden = Talk(may_register=True, is_tls_required=True)
    hidden.open()
    assert stream_error(hidden.say(REGISTER)) == "not-authorized"


def test_a_form_is_as_good_as_elements() -> None:
    """XEP-0077, 4."""
    talk = Talk(may_register=True)
    talk.open()
    fields = "<field var='username'><value>romeo2</value></field><field var='qa'><value>Verona</value></field>"
    form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{fields}</x>"
    query = f"<iq type='set' id='r1'><query xmlns='{ns.REGISTER}'>{form}</query></iq>"
    talk.say(query)
    assert talk.router.registered == [(DOMAIN, "set", {"username": "romeo2", "qa": "Verona"}, "192.0.2.1")]
    assert stanza_error(talk.say(query.replace("submit", "form"))) == ("modify", "bad-request")


def test_an_address_tries_so_often() -> None:
    talk = Talk(may_register=True, attempts=Attempts(1, Clock()))
    talk.open()
    assert "result" in talk.say(REGISTER.replace("set", "get"))
    assert "result" in talk.say(REGISTER)
    assert stanza_error(talk.say(REGISTER)) == ("wait", "resource-constraint")
    assert len(talk.router.registered) == 2


# --- with an invitation (XEP-0445)

PREAUTH = f"<iq type='set' id='p1' to='{DOMAIN}'><preauth xmlns='{ns.PARS}' token='t0ken'/></iq>"


def test_a_token_that_was_accepted_goes_with_the_registration() -> None:
    talk = Talk(may_register=True, takes_invitations=True)
    written = talk.open()
    assert f'<register xmlns="{ns.IBR_TOKEN}"/><register xmlns="{ns.REGISTER_FEATURE}"/>' in written
    assert talk.say(PREAUTH) == '<iq type="result" id="p1"/>'
    assert talk.router.checked == [(DOMAIN, "t0ken")]
    talk.say(REGISTER)
    assert talk.router.registered == [(DOMAIN, "set", {"username": "romeo2", "password": "x"}, "192.0.2.1", "t0ken")]


def test_a_token_that_was_not_accepted_is_forgotten() -> None:
    """XEP-0445, 3: item-not-found; "the client still MAY attempt to perform IBR"."""
    talk = Talk(may_register=True, takes_invitations=True)
    talk.open()
    talk.router.call_error = ("item-not-found", "The provided token is invalid or expired.")
    assert stanza_error(talk.say(PREAUTH)) == ("cancel", "item-not-found")
    talk.router.call_error = None
    talk.say(REGISTER)
    assert talk.router.registered == [(DOMAIN, "set", {"username": "romeo2", "password": "x"}, "192.0.2.1")]


def test_tokens_are_not_taken_where_that_is_off_or_by_other_requests() -> None:
    talk = Talk()
    assert ns.IBR_TOKEN not in talk.open()
    assert stanza_error(talk.say(PREAUTH)) == ("cancel", "service-unavailable")
    talk = Talk(takes_invitations=True)
    talk.open()
    assert stanza_error(talk.say(PREAUTH.replace("set", "get"))) == ("modify", "bad-request")
    assert talk.router.checked == []


# --- binding (RFC 6120, 7)


def wanted(resource: str) -> str:
    return BIND.replace("/></iq>", f"><resource>{resource}</resource></bind></iq>")


def test_a_resource_is_made_by_the_server() -> None:
    talk = Talk()
    talk.sign_in()
    assert talk.say(BIND) == f'<iq type="result" id="bind"><bind xmlns="{ns.BIND}"><jid>{JID}</jid></bind></iq>'
    assert [fields[1:3] for fields in talk.router.of_kind(ATTACH)] == [(ROMEO, None)]
    assert talk.stream.state is State.BOUND


def test_a_resource_is_wanted_by_the_client_and_prepared() -> None:
    talk = Talk()
    talk.sign_in()
    assert f"<jid>{ROMEO}/balc\u00f6ny &amp; more</jid>" in talk.say(wanted("balco\u0308ny &amp; more"))


@pytest.mark.parametrize("resource", ["x" * 1024, "tab\tbed", "&#x7f;"])
def test_a_resource_that_is_none_is_a_bad_request_and_may_be_corrected(resource: str) -> None:
    talk = Talk()
    talk.sign_in()
    assert stanza_error(talk.say(wanted(resource))) == ("modify", "bad-request")
    assert f"<jid>{ROMEO}/balcony</jid>" in talk.say(wanted("balcony"))


@pytest.mark.parametrize("bind", [BIND.replace("set", "get"), BIND.replace(" id='bind'", "")])
def test_bind_is_a_set_with_an_id(bind: str) -> None:
    talk = Talk()
    talk.sign_in()
    assert stanza_error(talk.say(bind)) == ("modify", "bad-request")


@pytest.mark.parametrize("refusal", [("conflict", ""), ("not-allowed", "disabled"), ("resource-constraint", "")])
def test_a_refused_resource_leaves_the_stream_as_it_was(refusal: tuple[str, str]) -> None:
    talk = Talk()
    talk.sign_in()
    talk.router.refusal = refusal
    assert stanza_error(talk.say(wanted("balcony")))[1] == refusal[0]
    talk.router.refusal = None
    assert "<jid>" in talk.say(BIND)


def test_an_owner_that_does_not_answer_is_an_error_after_a_while() -> None:
    talk = Talk()
    talk.sign_in()
    talk.router.is_answering = False
    assert talk.say(BIND) == ""
    assert stanza_error(talk.tick(21)) == ("wait", "remote-server-timeout")


def test_stanzas_behind_bind_come_through_in_order() -> None:
    talk = Talk()
    talk.sign_in()
    talk.router.is_answering = False
    stanzas = [f"<message to='juliet@{DOMAIN}' id='{n}'/>" for n in range(40)]
    talk.say(BIND + "".join(stanzas[:20]) + stanzas[20][:9])
    talk.say(stanzas[20][9:] + "".join(stanzas[21:]))
    assert talk.router.submitted() == []
    assert not talk.is_read()
    talk.router.is_answering = True
    talk.router.pump()
    assert [stanza.id for stanza in talk.router.submitted()] == [str(n) for n in range(40)]
    assert [fields[2] for fields in talk.router.of_kind(SUBMIT)] == list(range(1, 41))
    assert talk.is_read()


def test_a_whole_session_in_one_piece() -> None:
    talk = Talk()
    talk.say(HEADER + auth("PLAIN", plain()) + HEADER + BIND + "<presence/>")
    assert [stanza.from_ for stanza in talk.router.submitted()] == [JID]


# --- a certificate (SASL EXTERNAL; XEP-0178, 2)


def certified(tmp_path: Path, *addresses: str, **changes: Any) -> Talk:
    """A client that shows a certificate for these addresses, inside TLS."""
    file = tmp_path / "ca.pem"
    file.write_bytes(ROOT.pem)
    certificates = ClientCertificates({DOMAIN: ClientAuthority(ca=file)}, lambda: NOW)
    talk = Talk(is_secure=True, certificates=certificates, **changes)
    talk.transport.shown = (client(*addresses).der,)
    return talk


def test_a_certificate_is_enough(tmp_path: Path) -> None:
    talk = certified(tmp_path, ROMEO)
    before = sample("stentor_c2s_auth_total", mechanism="EXTERNAL", result="ok")
    assert talk.open().count("<mechanism>EXTERNAL</mechanism><mechanism>SCRAM-SHA-512-PLUS<") == 2  # in both profiles
    assert talk.say(auth("EXTERNAL", b"")) == f'<success xmlns="{ns.SASL}"/>'
    assert sample("stentor_c2s_auth_total", mechanism="EXTERNAL", result="ok") == before + 1
    talk.open()
    assert f"<jid>{JID}</jid>" in talk.say(BIND)


def test_a_certificate_is_enough_in_the_other_profile_and_brings_no_token(tmp_path: Path) -> None:
    """A token would be good after the certificate has expired or is revoked."""
    talk = certified(tmp_path, ROMEO)
    talk.open()
    inner = (
        f"<user-agent id='phone'/><request-token xmlns='{ns.FAST}' mechanism='HT-SHA-256-NONE'/>"
        f"<bind xmlns='{ns.BIND2}'/><upgrade xmlns='{ns.SASL_UPGRADE}'>UPGR-SCRAM-SHA-256</upgrade>"
    )
    said = talk.say(f"<authenticate xmlns='{ns.SASL2}' mechanism='EXTERNAL'><initial-response/>{inner}</authenticate>")
    assert f"<authorization-identifier>{JID}</authorization-identifier>" in said
    assert "<token" not in said
    asked = [call[1] for call in talk.router.of_kind(CALL)]
    assert "auth.upgrades" not in asked, "nor does who has a certificate say what the password is"


def test_of_several_addresses_the_client_says_which(tmp_path: Path) -> None:
    talk = certified(tmp_path, ROMEO, f"benvolio@{DOMAIN}", "romeo@capulet.example")
    talk.open()
    assert failure(talk.say(auth("EXTERNAL", b""))) == "invalid-authzid"
    assert failure(talk.say(auth("EXTERNAL", b"romeo@capulet.example"))) == "invalid-authzid"
    assert "<success" in talk.say(auth("EXTERNAL", ROMEO.encode()))


def test_an_account_that_does_not_exist_is_like_a_wrong_password(tmp_path: Path) -> None:
    talk = certified(tmp_path, f"nobody@{DOMAIN}")
    assert "EXTERNAL" in talk.open(), "whether there is one shows in no offer"
    assert failure(talk.say(auth("EXTERNAL", b""))) == "not-authorized"
    assert "<success" in talk.say(auth("PLAIN", plain())), "other ways are open"


def test_an_account_that_is_disabled_says_why(tmp_path: Path) -> None:
    talk = certified(tmp_path, ROMEO)
    talk.router.call_error = ("account-disabled", "Reason: spam")
    talk.open()
    said = talk.say(auth("EXTERNAL", b""))
    assert failure(said) == "account-disabled"
    assert "Reason: spam" in said


def test_a_certificate_that_does_not_count_is_as_none(tmp_path: Path) -> None:
    for shown in (
        (client("romeo@capulet.example").der,),
        (client(ROMEO, issuer=STRANGER).der,),
        (b"no certificate",),
        (),
    ):
        talk = certified(tmp_path)
        talk.transport.shown = shown
        assert "EXTERNAL" not in talk.open()
        assert failure(talk.say(auth("EXTERNAL", b""))) == "invalid-mechanism"


def test_scram_signs_that_external_is_offered(tmp_path: Path) -> None:
    """XEP-0474, 4.1: all the mechanisms of the offer; else a client would take it for an attack."""
    talk = certified(tmp_path, ROMEO)
    said = talk.open()
    names = re.findall("<mechanism>([^<]*)</mechanism>", said.partition("</mechanisms>")[0])
    assert "EXTERNAL" in names
    first = text_in(talk.say(auth("SCRAM-SHA-256", b"n,,n=romeo,r=abc")), "challenge")
    text = "\x1e".join(sorted(names)) + "\x1f" + "\x1e".join(sorted(BINDINGS))
    assert first.endswith(",h=" + b64encode(hashlib.sha256(text.encode()).digest()).decode())


@pytest.mark.parametrize("backend", ["ldap", "jwt", "http"])
def test_a_certificate_counts_whoever_checks_the_passwords(tmp_path: Path, backend: str) -> None:
    talk = certified(tmp_path, ROMEO, backends={DOMAIN: backend})
    assert "<mechanism>EXTERNAL</mechanism>" in talk.open()
    assert "<success" in talk.say(auth("EXTERNAL", b""))


# --- guests (SASL ANONYMOUS; XEP-0175)


def guest_talk(**changes: Any) -> Talk:
    return Talk(backends={DOMAIN: "anonymous"}, **changes)


def test_whoever_comes_to_such_a_domain_is_a_guest() -> None:
    talk = guest_talk(may_register=True, takes_invitations=True)
    said = talk.open()
    assert re.findall("<mechanism>([^<]*)</mechanism>", said) == ["ANONYMOUS", "ANONYMOUS"]  # in both profiles
    assert "<fast" not in said
    assert "register" not in said
    assert talk.say(auth("ANONYMOUS")) == f'<success xmlns="{ns.SASL}"/>'
    ((bare, network),) = talk.router.guests
    assert re.fullmatch(rf"[0-9a-f]{{32}}@{re.escape(DOMAIN)}", bare)
    assert network == "192.0.2.1"
    talk.open()
    assert f"<jid>{bare}/generated</jid>" in talk.say(BIND)
    assert sample("stentor_c2s_auth_total", mechanism="ANONYMOUS", result="ok") > 0


def test_no_two_guests_are_the_same_and_what_they_say_of_themselves_is_not_told() -> None:
    names = set()
    for _ in range(3):
        talk = guest_talk()
        talk.open()
        assert "<success" in talk.say(auth("ANONYMOUS", b"romeo@montague.example"))
        ((bare, network),) = talk.router.guests
        assert "romeo" not in bare + network
        names.add(bare)
    assert len(names) == 3


def test_a_guest_in_the_other_profile_gets_no_token() -> None:
    talk = guest_talk(is_secure=True)
    talk.open()
    inner = (
        f"<user-agent id='tab'/><request-token xmlns='{ns.FAST}' mechanism='HT-SHA-256-NONE'/>"
        f"<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.SM}' resume='true'/></bind>"
    )
    said = talk.say(f"<authenticate xmlns='{ns.SASL2}' mechanism='ANONYMOUS'>{inner}</authenticate>")
    ((bare, _),) = talk.router.guests
    assert f"<authorization-identifier>{bare}/generated</authorization-identifier>" in said
    assert "<token" not in said
    assert f'<enabled xmlns="{ns.SM}"/>' in said, "acknowledged, and not resumed: the next is another guest"


def test_there_are_too_many_guests() -> None:
    talk = guest_talk()
    talk.router.call_error = ("temporary-auth-failure", "There are too many guests.")
    talk.open()
    for _ in range(5):  # it is no try that has failed
        said = talk.say(auth("ANONYMOUS"))
        assert failure(said) == "temporary-auth-failure"
        assert "too many guests" in said


def test_nobody_is_a_guest_elsewhere() -> None:
    talk = Talk(is_secure=True)
    assert "ANONYMOUS" not in talk.open()
    assert failure(talk.say(auth("ANONYMOUS"))) == "invalid-mechanism"
    plain_one = guest_talk()
    plain_one.open()
    assert failure(plain_one.say(auth("PLAIN", plain()))) == "encryption-required"
