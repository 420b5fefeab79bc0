"""Signing in by XEP-0388, with what a client may ask for in the same breath: Bind 2 (XEP-0386), resumption (XEP-0198),
tokens (XEP-0484)."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode

import pytest

from c2s import sasl2
from c2s.negotiation import State
from cluster.shards import shard_of
from cluster.wire import ACTIVITY, ATTACH, ATTACHED, CALL, DETACH, ENABLED, REFUSED, RESUME, SessionId
from tests.support.sasl2 import (
    AGENT,
    BOUND,
    DEVICE,
    FROM,
    TOKEN,
    authenticate,
    failure,
    prove,
    success,
    with_password,
    with_token,
)
from tests.support.streams import (
    BIND,
    BINDINGS,
    DOMAIN,
    ROMEO,
    ROUTER,
    Talk,
    auth,
    plain,
    stream_error,
)
from xmpp import ns, tokens
from xmpp.stanza import message


@pytest.fixture
def talk() -> Talk:
    talk = Talk()
    talk.say(FROM)
    return talk


# --- what is offered


def test_what_is_offered_and_what_may_be_asked_for_at_once() -> None:
    """XEP-0388, 2.1; XEP-0386, 3.1; XEP-0484, 3.1: the mechanisms of tokens stand apart."""
    offered = re.search(rf'<authentication xmlns="{ns.SASL2}">(.*)</authentication>', Talk(is_secure=True).say(FROM))
    assert offered is not None
    mechanisms, inline = offered[1].split("<inline>", 1)
    assert "<mechanism>SCRAM-SHA-256-PLUS</mechanism>" in mechanisms
    assert "HT-" not in mechanisms
    assert f'<sm xmlns="{ns.SM}"/>' in inline
    assert f'<bind xmlns="{ns.BIND2}"><inline><feature var="{ns.CARBONS}"/><feature var="{ns.CSI}"/>' in inline
    assert re.findall("<mechanism>(HT-.*?)</mechanism>", inline) == [
        "HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE",
    ]  # fmt: skip


def test_nothing_is_offered_where_tls_comes_first() -> None:
    talk = Talk(is_tls_required=True)
    assert ns.SASL2 not in talk.say(FROM)
    assert failure(talk.say(with_password())) == "encryption-required"


# --- signing in


def test_who_signs_in_is_told_who_it_is_and_gets_features_without_a_new_stream(talk: Talk) -> None:
    """XEP-0388, 2.6.1: "no stream restart occurs"."""
    written = talk.say(with_password())
    assert written.startswith(success())
    assert f'<bind xmlns="{ns.BIND}"/>' in written
    assert "<stream:stream" not in written
    assert f"<jid>{ROMEO}/generated</jid>" in talk.say(BIND)


def test_a_challenge_and_its_response(talk: Talk) -> None:
    """2.5; what the mechanism says last is in the success."""
    response, signature = prove(talk.say(authenticate("SCRAM-SHA-256", b"n,,n=romeo,r=abc")))
    assert talk.say(response).startswith(success(data=signature))


def test_the_offer_is_signed(talk: Talk) -> None:
    """XEP-0474, 4.1: of the profile that the client uses; mechanisms of tokens are not among it."""
    written = talk.say(authenticate("SCRAM-SHA-1", b"n,,n=romeo,r=abc"))
    challenge = b64decode(re.sub("<.*?>", "", written)).decode()
    offered = "\x1e".join(["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    digest = hashlib.sha1(offered.encode(), usedforsecurity=False).digest()
    assert challenge.endswith(f",h={b64encode(digest).decode()}")


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (authenticate("PLAIN", plain(password="wrong")), "not-authorized"),
        (authenticate("NOVEL", b""), "invalid-mechanism"),
        (authenticate("HT-SHA-256-NONE", b"romeo\0" + bytes(32)), "invalid-mechanism"),
        (authenticate("PLAIN", b"nonsense"), "malformed-request"),
        (f"<authenticate xmlns='{ns.SASL2}'/>", "invalid-mechanism"),
        (
            f"<authenticate xmlns='{ns.SASL2}' mechanism='PLAIN'><initial-response>?</initial-response></authenticate>",
            "incorrect-encoding",
        ),
        (authenticate("PLAIN", plain(), f"<bind xmlns='{ns.BIND2}'><tag>&#xFFFE;</tag></bind>"), ""),
    ],
)
def test_what_fails_leaves_the_stream_as_it_was(talk: Talk, sent: str, condition: str) -> None:
    """2.6.2."""
    written = talk.say(sent)
    if not condition:
        assert stream_error(written) == "not-well-formed"
        return
    assert failure(written) == condition
    assert talk.stream.state is State.UNAUTHENTICATED
    assert talk.say(with_password()).startswith(success())


def test_after_a_few_failures_the_stream_ends(talk: Talk) -> None:
    wrong = authenticate("PLAIN", plain(password="wrong"))
    assert stream_error([talk.say(wrong) for _ in range(3)][-1]) == "policy-violation"


def test_a_router_that_is_away_is_no_wrong_password(talk: Talk) -> None:
    talk.router.call_error = "temporary-auth-failure"
    for _ in range(5):
        assert failure(talk.say(with_password())) == "temporary-auth-failure"
    talk.router.call_error = None
    assert talk.say(with_password()).startswith(success())


def test_the_client_may_give_up(talk: Talk) -> None:
    talk.say(authenticate("SCRAM-SHA-256", b"n,,n=romeo,r=abc"))
    assert failure(talk.say(f"<abort xmlns='{ns.SASL2}'/>")) == "aborted"
    assert talk.say(with_password()).startswith(success())


@pytest.mark.parametrize("name", ["juliet", "ROMEO2"])
def test_who_says_one_name_in_the_header_and_another_in_the_exchange_is_refused(name: str) -> None:
    """2.3: "the server MUST fail the authentication"."""
    talk = Talk()
    talk.say(FROM.replace("from='romeo@", f"from='{name}@"))
    assert failure(talk.say(with_password())) == "invalid-authzid"
    assert talk.stream.state is State.UNAUTHENTICATED


def test_a_header_need_not_say_who_comes() -> None:
    talk = Talk()
    talk.open()
    assert talk.say(with_password()).startswith(success())


@pytest.mark.parametrize(
    "other",
    [
        "<message/>",
        f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'/>",
        f"<response xmlns='{ns.SASL}'/>",
        f"<r xmlns='{ns.SM}'/>",
        with_password(),
    ],
)
def test_within_an_exchange_nothing_else_is_said(talk: Talk, other: str) -> None:
    """2.4: "Servers MUST disconnect Clients immediately if any other traffic is received"."""
    talk.say(authenticate("SCRAM-SHA-256", b"n,,n=romeo,r=abc"))
    stream_error(talk.say(other))
    assert talk.is_over()


def test_within_an_exchange_of_the_other_profile_neither() -> None:
    talk = Talk()
    talk.open()
    talk.say(auth("SCRAM-SHA-256", b"n,,n=romeo,r=abc"))
    assert stream_error(talk.say(f"<response xmlns='{ns.SASL2}'/>")) == "unsupported-stanza-type"


def test_nobody_signs_in_twice(talk: Talk) -> None:
    """3.7: "any further <authenticate/> element MUST result in a stream error"."""
    talk.say(with_password())
    stream_error(talk.say(with_password()))


def test_elements_may_have_prefixes_that_are_declared_further_out() -> None:
    talk = Talk()
    talk.say(FROM)
    first = b64encode(plain()).decode()
    sent = (
        f"<s:authenticate xmlns:s='{ns.SASL2}' xmlns:b='{ns.BIND2}' mechanism='PLAIN'>"
        f"<s:initial-response>{first}</s:initial-response><b:bind><b:tag>x</b:tag></b:bind></s:authenticate>"
    )
    assert f"<authorization-identifier>{ROMEO}/generated</authorization-identifier>" in talk.say(sent)
    assert talk.router.attached_with["tag"] == "x"


# --- Bind 2


def test_a_resource_comes_with_the_success(talk: Talk) -> None:
    """XEP-0386, 3.2: full JID, <bound/>, what the archive has; then features, without those of binding."""
    talk.router.ends = ((17, 1_219_352_944.0), (18, 1_587_386_071.5))
    written = talk.say(with_password(AGENT + BOUND))
    metadata = (
        f'<metadata xmlns="{ns.MAM}"><start id="17" timestamp="2008-08-21T21:09:04.000Z"/>'
        '<end id="18" timestamp="2020-04-20T12:34:31.500Z"/></metadata>'
    )
    assert written.startswith(success(f"{ROMEO}/generated", f'<bound xmlns="{ns.BIND2}">{metadata}</bound>'))
    assert ns.BIND not in written
    facts = talk.router.attached_with
    assert (facts["tag"], facts["device"], facts["software"]) == ("AwesomeXMPP", DEVICE, "AwesomeXMPP")
    assert (facts["name"], facts["by_password"], facts["carbons"]) == ("Kiva's Phone", True, False)
    talk.say("<message to='juliet@capulet.example'/>")
    assert [stanza.from_ for stanza in talk.router.submitted()] == [f"{ROMEO}/generated"]


def test_an_empty_archive_has_no_ends(talk: Talk) -> None:
    assert f'<bound xmlns="{ns.BIND2}"><metadata xmlns="{ns.MAM}"/></bound>' in talk.say(with_password(BOUND))


def test_an_archive_that_cannot_be_read_now_keeps_nobody_out(talk: Talk) -> None:
    talk.router.is_answering = False
    talk.say(with_password(BOUND))
    talk.router.is_answering = True
    calls = 0

    def refuse() -> None:
        nonlocal calls
        calls += 1
        if talk.router.sent[-1][0] == CALL and talk.router.sent[-1][4] == "archive.ends":
            talk.router.call_error = "temporary-auth-failure"

    talk.router.wake = refuse
    talk.router.pump()
    assert f'<bound xmlns="{ns.BIND2}"/>' in talk.heard()


def test_carbons_are_asked_for_with_the_resource(talk: Talk) -> None:
    talk.say(with_password(f"<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.CARBONS}'/></bind>"))
    assert talk.router.attached_with["carbons"] is True


@pytest.mark.parametrize(("state", "is_active"), [("active", True), ("inactive", False)])
def test_the_session_begins_as_looked_at_or_not(talk: Talk, state: str, is_active: bool) -> None:
    talk.say(with_password(f"<bind xmlns='{ns.BIND2}'><{state} xmlns='{ns.CSI}'/></bind>"))
    assert [fields[2] for fields in talk.router.of_kind(ACTIVITY)] == [is_active]


def test_stream_management_begins_with_the_resource(talk: Talk) -> None:
    """XEP-0386, 3.2: "The <bound/> response MUST contain the resulting XEP-0198 <enabled/>"."""
    written = talk.say(with_password(f"<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.SM}' resume='true'/></bind>"))
    enabled = f'<enabled xmlns="{ns.SM}" id="{talk.sid:x}" resume="true" max="600"/>'
    assert f"{enabled}</bound></success>" in written
    assert f'<sm xmlns="{ns.SM}"/>' not in written, "nobody is offered what it has"
    assert len(talk.router.of_kind(ENABLED)) == 1
    assert talk.say("<message/>", f"<r xmlns='{ns.SM}'/>").endswith(f'<a xmlns="{ns.SM}" h="1"/>')


def test_what_arrives_meanwhile_comes_behind_the_success_and_is_counted(talk: Talk) -> None:
    router = talk.router
    router.is_answering = False
    talk.say(with_password(f"<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.SM}'/></bind>"))
    router.is_answering = True

    def deliver() -> None:
        if router.sent[-1][0] == CALL and router.sent[-1][4] == "archive.ends":
            router.deliver(talk.sid, message(to=f"{ROMEO}/generated", from_="juliet@capulet.example", id="early"))

    router.wake = deliver
    router.pump()
    written = talk.heard()
    assert written.index("</success>") < written.index("</stream:features>") < written.index('id="early"')
    assert talk.say(f"<a xmlns='{ns.SM}' h='1'/>") == "", "it was counted"


def test_a_stream_that_goes_meanwhile_leaves_no_session(talk: Talk) -> None:
    router = talk.router
    router.is_answering = False
    talk.say(with_password(BOUND))
    router.is_answering = True

    def go() -> None:
        if router.sent[-1][0] == CALL and router.sent[-1][4] == "archive.ends":
            router.wake = lambda: None
            talk.stream.connection_lost()

    router.wake = go
    router.pump()
    assert talk.heard() == ""
    assert len(router.of_kind(DETACH)) == 1


def test_who_cannot_be_bound_any_more_is_not_signed_in_either(talk: Talk) -> None:
    talk.router.refusal = ("not-allowed", "This account does not exist or is disabled.")
    assert stream_error(talk.say(with_password(BOUND))) == "not-authorized"


def test_a_full_process_says_so() -> None:
    talk = Talk()
    talk.say(FROM)
    for sid in range(1_000):
        talk.edge.sessions[SessionId(sid)] = None  # type: ignore[assignment]
    assert stream_error(talk.say(with_password(BOUND))) == "resource-constraint"


# --- resumption

SHARD = shard_of(ROMEO)
OLD = SessionId(0xABC)


def resuming(inner: str = "") -> str:
    return with_password(f"<resume xmlns='{ns.SM}' previd='{OLD:x}' h='3'/>{inner}")


def test_a_former_stream_goes_on_with_the_success(talk: Talk) -> None:
    """XEP-0386, 3.2: "If that resumption is successful, the server MUST skip resource binding"."""
    talk.say(resuming(BOUND))
    ((request, bare, sid, h),) = talk.router.of_kind(RESUME)
    assert (bare, sid, h) == (ROMEO, OLD, 3)
    fields = (SHARD, 1, request, OLD, 7, "orchard", 5, 3, None, 0, 0, 0, True)
    talk.edge.receive(ROUTER, ATTACHED, fields)
    written = talk.heard()
    resumed = f'<resumed xmlns="{ns.SM}" previd="{OLD:x}" h="5"/>'
    assert written.startswith(success(f"{ROMEO}/orchard", resumed))
    assert talk.router.of_kind(ATTACH) == []
    assert talk.stream.state is State.BOUND


def test_where_it_cannot_go_on_the_client_is_bound_anew(talk: Talk) -> None:
    """XEP-0386, 3.2: "the server MUST include the XEP-0198 failure in the response"."""
    talk.say(resuming(BOUND))
    ((request, *_),) = talk.router.of_kind(RESUME)
    talk.edge.receive(ROUTER, REFUSED, (SHARD, 1, request, "item-not-found", "", 2))
    talk.router.pump()
    refused = f'<failed xmlns="{ns.SM}" h="2"><item-not-found xmlns="{ns.STANZAS}"/></failed>'
    assert f"{refused}<bound " in talk.heard()


@pytest.mark.parametrize(("previd", "h"), [("nonsense", "3"), ("abc", "x")])
def test_what_names_no_stream_is_answered_without_asking(talk: Talk, previd: str, h: str) -> None:
    written = talk.say(with_password(f"<resume xmlns='{ns.SM}' previd='{previd}' h='{h}'/>"))
    assert f'<failed xmlns="{ns.SM}">' in written
    assert f'<bind xmlns="{ns.BIND}"/>' in written, "it may bind as of old"


def test_an_h_that_is_too_high_ends_the_stream(talk: Talk) -> None:
    talk.say(resuming(BOUND))
    ((request, *_),) = talk.router.of_kind(RESUME)
    talk.edge.receive(ROUTER, REFUSED, (SHARD, 1, request, "handled-count-too-high", "", None))
    assert stream_error_kind(talk.heard()) == "handled-count-too-high"


def stream_error_kind(written: str) -> str:
    found = re.search(rf'<([a-z-]+) xmlns="{ns.SM}"/></stream:error>', written)
    assert found is not None, written
    return found[1]


# --- tokens


def test_a_token_is_given_to_who_asks_for_one(talk: Talk) -> None:
    """XEP-0484, 3.2, 3.3."""
    written = talk.say(with_password(f"{AGENT}<request-token xmlns='{ns.FAST}' mechanism='HT-SHA-256-NONE'/>"))
    assert f'<token xmlns="{ns.FAST}" expiry="2027-01-15T08:00:00.000Z" token="a new token"/>' in written
    assert talk.router.sent[-1][4:] == (
        "auth.issue", (ROMEO, DEVICE, "HT-SHA-256-NONE", "AwesomeXMPP", "Kiva's Phone"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "inner",
    [
        f"<request-token xmlns='{ns.FAST}' mechanism='HT-SHA-256-NONE'/>",
        f"{AGENT}<request-token xmlns='{ns.FAST}' mechanism='HT-SHA-256-EXPR'/>",
        f"{AGENT}<request-token xmlns='{ns.FAST}'/>",
    ],
)
def test_no_token_without_a_device_nor_for_a_mechanism_that_is_not_offered(talk: Talk, inner: str) -> None:
    written = talk.say(with_password(inner))
    assert written.startswith(success())
    assert "<token" not in written


@pytest.mark.parametrize(
    ("mechanism", "binding"),
    [
        ("HT-SHA-256-EXPR", BINDINGS["tls-exporter"]),
        ("HT-SHA-256-ENDP", BINDINGS["tls-server-end-point"]),
        ("HT-SHA-256-NONE", b""),
    ],
)
def test_who_has_a_token_signs_in_in_one_round_trip(mechanism: str, binding: bytes) -> None:
    """XEP-0484, 3.4; the server proves itself in the success (draft-schmaus-kitten-sasl-ht, 3.3)."""
    talk = Talk(is_secure=True)
    talk.router.tokens[ROMEO, mechanism] = TOKEN
    talk.say(FROM)
    written = talk.say(with_token(BOUND, mechanism, binding=binding))
    answer = hmac.digest(TOKEN.encode(), b"Responder" + binding, "sha256")
    head = success(f"{ROMEO}/generated", data=b64encode(answer).decode()).split("</success>")[0]
    assert written.startswith(head)
    assert talk.router.asked_with == DEVICE
    assert talk.router.attached_with["by_password"] is False


def test_a_token_is_good_for_its_own_connection_alone() -> None:
    talk = Talk(is_secure=True)
    talk.router.tokens[ROMEO, "HT-SHA-256-EXPR"] = TOKEN
    talk.say(FROM)
    assert failure(talk.say(with_token("", "HT-SHA-256-EXPR", binding=b"another's"))) == "not-authorized"
    assert failure(talk.say(with_token("", "HT-SHA-256-NONE"))) == "not-authorized", "it is bound to its mechanism"


def test_a_token_that_is_too_old(talk: Talk) -> None:
    """XEP-0484, 4.2: "returning the SASL 'credentials-expired' error condition"; the password is good as ever."""
    talk.router.tokens[ROMEO, "HT-SHA-256-NONE"] = "expired"
    assert failure(talk.say(with_token())) == "credentials-expired"
    assert talk.say(with_password()).startswith(success())


def test_a_new_token_may_come_with_the_answer_to_the_old_one(talk: Talk) -> None:
    """XEP-0484, 3.5."""
    talk.router.tokens[ROMEO, "HT-SHA-256-NONE"] = TOKEN
    talk.router.rotated = ("rotated", 1_800_000_000.0)
    assert 'token="rotated"' in talk.say(with_token())
    assert [envelope[4] for envelope in talk.router.sent if envelope[0] == CALL] == ["auth.token_proof"], "asked once"


def test_a_token_belongs_to_a_device(talk: Talk) -> None:
    initial = b"romeo\0" + tokens.prove(TOKEN, b"")
    sent = authenticate("HT-SHA-256-NONE", initial, f"<fast xmlns='{ns.FAST}'/>")
    assert failure(talk.say(sent)) == "malformed-request"


def test_a_password_is_no_token() -> None:
    talk = Talk(is_secure=True)
    talk.say(FROM)
    sent = authenticate("PLAIN", plain(), f"{AGENT}<fast xmlns='{ns.FAST}'/>")
    assert failure(talk.say(sent)) == "invalid-mechanism"


@pytest.mark.parametrize("initial", [b"", b"romeo", b"romeo\0short", b"\xff\0" + bytes(32), b"\0" + bytes(32)])
def test_what_is_no_initiator_message(talk: Talk, initial: bytes) -> None:
    sent = authenticate("HT-SHA-256-NONE", initial, f"{AGENT}<fast xmlns='{ns.FAST}'/>")
    assert failure(talk.say(sent)) in ("malformed-request", "not-authorized")
    assert talk.router.asked_with == b""


def test_the_id_of_a_device_is_told_to_nobody(talk: Talk) -> None:
    """XEP-0386, 3.2.1: it "MUST NOT be exposed"."""
    talk.say(with_password(AGENT + BOUND))
    assert "d4565fa7" not in repr(talk.router.sent)


def test_whom_the_header_claims_to_be() -> None:
    assert sasl2.claimed("Romeo@Montague.Example/x") == f"romeo@{DOMAIN}"
    assert sasl2.claimed(DOMAIN) is sasl2.claimed("@") is sasl2.claimed(None) is None
