"""SASL upgrade tasks (XEP-0480): what is offered, asked and answered (c2s/upgrades.py)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest

from c2s.negotiation import State
from cluster.wire import ANSWER, CALL
from tests.support.sasl2 import BOUND, FROM, TOKEN, authenticate, failure, prove, success, with_password, with_token
from tests.support.streams import BINDINGS, DOMAIN, PASSWORD, ROMEO, ROUTER, Talk, plain, stream_error
from xmpp import ns

SALT = b"salt" * 4
SHA_256 = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, 5_000)
SHA_512 = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), SALT, 5_000)
ABORT = f"<abort xmlns='{ns.SASL2}'/>"


def upgrade(*hashes: str) -> str:
    return "".join(f"<upgrade xmlns='{ns.SASL_UPGRADE}'>UPGR-SCRAM-{hash}</upgrade>" for hash in hashes)


def asks(hash: str, data: str = "") -> str:
    """What asks for a task."""
    said = f"<additional-data>{data}</additional-data>" if data else ""
    return f'<continue xmlns="{ns.SASL2}">{said}<tasks><task>UPGR-SCRAM-{hash}</task></tasks></continue>'


def next_(hash: str) -> str:
    return f"<next xmlns='{ns.SASL2}' task='UPGR-SCRAM-{hash}'/>"


def task_data(inner: str) -> str:
    return f"<task-data xmlns='{ns.SASL2}'>{inner}</task-data>"


def gives(salted: bytes | str) -> str:
    text = salted if isinstance(salted, str) else b64encode(salted).decode()
    return task_data(f"<hash xmlns='{ns.SCRAM_UPGRADE}'>{text}</hash>")


TOLD_SALT = (
    f'<task-data xmlns="{ns.SASL2}"><salt xmlns="{ns.SCRAM_UPGRADE}" iterations="5000">'
    f"{b64encode(SALT).decode()}</salt></task-data>"
)


@pytest.fixture
def talk() -> Talk:
    talk = Talk()
    talk.router.lacking = ("SHA-256", "SHA-512")
    talk.say(FROM)
    return talk


# --- what is offered


def offered(written: str) -> list[str]:
    return re.findall(rf'<upgrade xmlns="{ns.SASL_UPGRADE}">(.*?)</upgrade>', written)


def test_the_same_is_offered_to_all_and_none_with_channel_binding() -> None:
    """2.1; whoever is named in the header, and whether there is such an account."""
    names = {tuple(offered(Talk(is_secure=True).say(FROM.replace("romeo", name)))) for name in ("romeo", "nobody")}
    assert names == {("UPGR-SCRAM-SHA-512", "UPGR-SCRAM-SHA-256", "UPGR-SCRAM-SHA-1")}
    assert offered(Talk(is_secure=True).open()) == list(*names)


def test_what_is_offered_stands_within_the_feature_of_sasl2() -> None:
    found = re.search(rf'<authentication xmlns="{ns.SASL2}">(.*)</authentication>', Talk(is_secure=True).open())
    assert found is not None
    assert len(offered(found[1])) == 3


def test_nothing_is_offered_where_tls_comes_first_or_passwords_are_elsewhere() -> None:
    assert offered(Talk(is_tls_required=True).open()) == []
    for backend in ("ldap", "http", "jwt"):
        assert offered(Talk(is_secure=True, backends={DOMAIN: backend}).open()) == []


def test_scram_is_offered_for_the_hashes_that_the_operator_names() -> None:
    said = Talk(is_secure=True, hashes=("SHA-1",)).open()
    assert re.findall("<mechanism>(SCRAM-.*?)</mechanism>", said) == ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"] * 2
    assert len(offered(said)) == 3


# --- tasks


def test_one_task_from_begin_to_end(talk: Talk) -> None:
    """Example 7 of the XEP."""
    assert talk.say(with_password(upgrade("SHA-256"))) == asks("SHA-256")
    assert talk.say(next_("SHA-256")) == TOLD_SALT
    assert talk.say(gives(SHA_256)).startswith(success())
    assert talk.router.upgraded == [(ROMEO, "SHA-256", SALT, 5_000, SHA_256)]
    assert talk.stream.state is State.AUTHENTICATED


def test_several_tasks_follow_each_other_and_then_what_else_was_asked_for(talk: Talk) -> None:
    """2.2; XEP-0388, 2.6.3: "if multiple are required a sequence of <continue> exchanges will occur"."""
    assert talk.say(with_password(upgrade("SHA-256", "SHA-512", "SHA-256") + BOUND)) == asks("SHA-256")
    talk.say(next_("SHA-256"))
    assert talk.say(gives(SHA_256)) == asks("SHA-512")
    assert talk.router.attached_with == {}, "not before all is done"
    talk.say(next_("SHA-512"))
    bound = f'<bound xmlns="{ns.BIND2}"><metadata xmlns="{ns.MAM}"/></bound>'
    assert talk.say(gives(SHA_512)).startswith(success(f"{ROMEO}/generated", bound))
    assert [hash for _, hash, *_ in talk.router.upgraded] == ["SHA-256", "SHA-512"]
    assert talk.stream.state is State.BOUND


def test_what_the_exchange_says_last_is_in_the_first_continue(talk: Talk) -> None:
    """XEP-0388, 2.6.3; a client has the server's signature before it gives anything."""
    response, signature = prove(talk.say(authenticate("SCRAM-SHA-256", b"n,,n=romeo,r=abc", upgrade("SHA-256"))))
    assert talk.say(response) == asks("SHA-256", signature)
    talk.say(next_("SHA-256"))
    assert talk.say(gives(SHA_256)).startswith(success())


@pytest.mark.parametrize("wanted", [upgrade("SHA-1"), upgrade("SHA-256-PLUS", "MD5"), upgrade(""), ""])
def test_who_lacks_nothing_or_asks_for_what_there_is_not_signs_in(talk: Talk, wanted: str) -> None:
    assert talk.say(with_password(wanted)).startswith(success())
    assert talk.router.upgraded == []


def test_routers_are_asked_only_where_a_client_asks(talk: Talk) -> None:
    talk.say(with_password())
    assert [call[1] for call in talk.router.of_kind(CALL)] == ["auth.password"]


def test_a_token_does_not_become_a_password(talk: Talk) -> None:
    """Else whoever has got hold of one would have the account for ever."""
    talk.router.tokens[ROMEO, "HT-SHA-256-NONE"] = TOKEN
    assert "<success" in talk.say(with_token(upgrade("SHA-256")))
    assert "auth.upgrades" not in [call[1] for call in talk.router.of_kind(CALL)]


def test_who_cannot_be_asked_now_signs_in_as_before(talk: Talk) -> None:
    """A router of an older version, or its database is away."""
    talk.router.is_answering = False
    talk.say(with_password(upgrade("SHA-256")))
    talk.edge.receive(ROUTER, ANSWER, (talk.router.of_kind(CALL)[-1][0], True, True))
    talk.edge.receive(ROUTER, ANSWER, (talk.router.of_kind(CALL)[-1][0], False, "feature-not-implemented"))
    assert talk.heard().startswith(success())


def test_nothing_is_asked_of_who_has_not_signed_in(talk: Talk) -> None:
    wrong = authenticate("PLAIN", plain(password="wrong"), upgrade("SHA-256"))
    assert failure(talk.say(wrong)) == "not-authorized"
    talk.say("</stream:stream>")
    other = Talk()
    other.say(FROM.replace("romeo", "juliet"))
    assert failure(other.say(with_password(upgrade("SHA-256")))) == "invalid-authzid"


# --- what goes wrong


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (next_("SHA-512"), "invalid-mechanism"),
        (f"<next xmlns='{ns.SASL2}' task='SCRAM-SHA-256'/>", "invalid-mechanism"),
        (f"<next xmlns='{ns.SASL2}'/>", "malformed-request"),
        (ABORT, "aborted"),
    ],
)
def test_another_task_is_refused(talk: Talk, sent: str, condition: str) -> None:
    talk.say(with_password(upgrade("SHA-256")))
    assert failure(talk.say(sent)) == condition


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (gives(""), "malformed-request"),
        (gives(" "), "malformed-request"),
        (gives("="), "malformed-request"),
        (gives("?"), "incorrect-encoding"),
        (gives(b64encode(SHA_256).decode().rstrip("=")), "incorrect-encoding"),
        (gives(SHA_256[:-1]), "malformed-request"),
        (gives(SHA_512), "malformed-request"),
        (gives("A" * 12_000), "malformed-request"),
        (task_data(""), "malformed-request"),
        (task_data("<hash/>"), "malformed-request"),
        (task_data(f"<salt xmlns='{ns.SCRAM_UPGRADE}'/>"), "malformed-request"),
        (ABORT, "aborted"),
    ],
)
def test_what_is_no_hash_is_refused_and_nothing_is_stored(talk: Talk, sent: str, condition: str) -> None:
    """3: "The <hash/> element MUST NOT be empty"."""
    talk.say(with_password(upgrade("SHA-256")))
    talk.say(next_("SHA-256"))
    assert failure(talk.say(sent)) == condition
    assert talk.router.upgraded == []
    assert talk.stream.session is None


def test_white_space_around_a_hash_is_as_in_the_example(talk: Talk) -> None:
    talk.say(with_password(upgrade("SHA-256")))
    talk.say(next_("SHA-256"))
    assert talk.say(gives(f"\n      {b64encode(SHA_256).decode()}\n    ")).startswith(success())


def test_after_continue_nobody_authenticates_again(talk: Talk) -> None:
    """XEP-0388, 4.8: "any further <authenticate/> element MUST result in a stream error"; also after a failure."""
    talk.say(with_password(upgrade("SHA-256")))
    assert failure(talk.say(ABORT)) == "aborted"
    assert stream_error(talk.say(with_password())) == "unsupported-stanza-type"


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    "other",
    [
        "<message/>",
        with_password(),
        f"<response xmlns='{ns.SASL2}'/>",
        f"<response xmlns='{ns.SASL}'/>",
        f"<r xmlns='{ns.SM}'/>",
        None,
    ],
)
def test_within_a_task_nothing_else_is_said(talk: Talk, other: str | None, after: int) -> None:
    """XEP-0388, 2.4. None: the other of <next/> and <task-data/>."""
    talk.say(with_password(upgrade("SHA-256")))
    if after:
        talk.say(next_("SHA-256"))
    stream_error(talk.say(other or (next_("SHA-256") if after else gives(SHA_256))))
    assert talk.is_over()
    assert talk.router.upgraded == []


@pytest.mark.parametrize("sent", [next_("SHA-256"), gives(SHA_256)])
def test_without_a_task_there_is_nothing_to_say(talk: Talk, sent: str) -> None:
    talk.say(authenticate("SCRAM-SHA-256", b"n,,n=romeo,r=abc"))
    assert stream_error(talk.say(sent)) == "unsupported-stanza-type"
    other = Talk()
    other.say(FROM)
    assert stream_error(other.say(sent)) == "unsupported-stanza-type"


def test_what_cannot_be_stored_is_a_failure(talk: Talk) -> None:
    talk.say(with_password(upgrade("SHA-256")))
    talk.say(next_("SHA-256"))
    talk.router.call_error = "temporary-auth-failure"
    assert failure(talk.say(gives(SHA_256))) == "temporary-auth-failure"


def test_a_stream_that_ends_within_a_task_leaves_nothing(talk: Talk) -> None:
    talk.router.is_answering = False
    talk.say(with_password(upgrade("SHA-256")))
    talk.stream.connection_lost()
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.router.upgraded == []


def test_tasks_are_no_part_of_what_scram_signs() -> None:
    """XEP-0474, 4.1, as mechanisms of tokens are none."""
    talk = Talk(is_secure=True)
    talk.open()
    assert b"UPGR" not in talk.stream._offer().protected
    assert set(talk.stream._offer().bindings) == set(BINDINGS)
