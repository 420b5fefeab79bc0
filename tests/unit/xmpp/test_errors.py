"""Every error by the name that the RFC gives it, with the type that it recommends (xmpp/errors.py)."""

from __future__ import annotations

import pytest

from xmpp import errors, ns
from xmpp.errors import (
    SASL_ERRORS,
    STANZA_ERRORS,
    STREAM_ERRORS,
    JidError,
    SaslError,
    StanzaError,
    StreamError,
    XmppError,
    sasl_error,
    stanza_error,
    stream_error,
)
from xmpp.xml import element, parse_document

# RFC 6120, 8.3.3.1 to 8.3.3.22, in order; where the RFC offers two types, ours stands first.
STANZA_CONDITIONS = {
    "bad-request": ["modify"],
    "conflict": ["cancel"],
    "feature-not-implemented": ["cancel", "modify"],
    "forbidden": ["auth"],
    "gone": ["cancel"],
    "internal-server-error": ["cancel"],
    "item-not-found": ["cancel"],
    "jid-malformed": ["modify"],
    "not-acceptable": ["modify"],
    "not-allowed": ["cancel"],
    "not-authorized": ["auth"],
    "policy-violation": ["modify", "wait"],
    "recipient-unavailable": ["wait"],
    "redirect": ["modify"],
    "registration-required": ["auth"],
    "remote-server-not-found": ["cancel"],
    "remote-server-timeout": ["wait"],
    "resource-constraint": ["wait"],
    "service-unavailable": ["cancel"],
    "subscription-required": ["auth"],
    "undefined-condition": ["cancel"],  # any
    "unexpected-request": ["wait", "modify"],
}
# 4.9.3.1 to 4.9.3.25
STREAM_CONDITIONS = [
    "bad-format", "bad-namespace-prefix", "conflict", "connection-timeout", "host-gone", "host-unknown",
    "improper-addressing", "internal-server-error", "invalid-from", "invalid-namespace", "invalid-xml",
    "not-authorized", "not-well-formed", "policy-violation", "remote-connection-failed", "reset",
    "resource-constraint", "restricted-xml", "see-other-host", "system-shutdown", "undefined-condition",
    "unsupported-encoding", "unsupported-feature", "unsupported-stanza-type", "unsupported-version",
]  # fmt: skip
# 6.5.1 to 6.5.11
SASL_CONDITIONS = [
    "aborted", "account-disabled", "credentials-expired", "encryption-required", "incorrect-encoding",
    "invalid-authzid", "invalid-mechanism", "malformed-request", "mechanism-too-weak", "not-authorized",
    "temporary-auth-failure",
]  # fmt: skip


def test_every_condition_has_its_class_and_no_other_has() -> None:
    assert list(STANZA_ERRORS) == list(STANZA_CONDITIONS)
    assert list(STREAM_ERRORS) == STREAM_CONDITIONS
    assert list(SASL_ERRORS) == SASL_CONDITIONS


@pytest.mark.parametrize(
    ("section", "kinds"),
    [("8.3.3", STANZA_ERRORS), ("4.9.3", STREAM_ERRORS), ("6.5", SASL_ERRORS)],
    ids=["stanza", "stream", "sasl"],
)
def test_each_class_names_its_section(section: str, kinds: dict[str, type[XmppError]]) -> None:
    for number, kind in enumerate(kinds.values(), 1):
        assert f"({section}.{number})" in (kind.__doc__ or ""), kind


@pytest.mark.parametrize(("condition", "types"), STANZA_CONDITIONS.items())
def test_a_stanza_error_is_written_with_the_recommended_type(condition: str, types: list[str]) -> None:
    fault = STANZA_ERRORS[condition]()
    assert fault.type == types[0]
    assert (
        fault.to_bytes().decode()
        == f'<error type="{types[0]}"><{condition} xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>'
    )
    assert str(fault) == condition


@pytest.mark.parametrize("condition", STREAM_CONDITIONS)
def test_a_stream_error_is_written_with_the_prefix_of_the_stream(condition: str) -> None:
    fault = STREAM_ERRORS[condition]()
    written = f'<stream:error><{condition} xmlns="urn:ietf:params:xml:ns:xmpp-streams"/></stream:error>'
    assert fault.to_bytes().decode() == written
    assert str(fault) == condition


@pytest.mark.parametrize("condition", SASL_CONDITIONS)
def test_a_sasl_failure_is_written_with_the_namespace_of_sasl(condition: str) -> None:
    fault = SASL_ERRORS[condition]()
    assert fault.to_bytes().decode() == f'<failure xmlns="urn:ietf:params:xml:ns:xmpp-sasl"><{condition}/></failure>'
    assert str(fault) == condition


def test_a_stanza_error_may_say_more() -> None:
    fault = errors.PolicyViolation("Too <fast>.", by="example.org", application=element("slow", "urn:x"), type="wait")
    error = parse_document(fault.to_bytes())
    assert dict(error.attrib.items()) == {"type": "wait", "by": "example.org"}
    condition, text, application = error  # RFC 6120, 8.3.2: in this order
    assert condition.tag == f"{{{ns.STANZAS}}}policy-violation"
    assert (text.tag, text.text, dict(text.attrib.items())) == (
        f"{{{ns.STANZAS}}}text",
        "Too <fast>.",
        {f"{{{ns.XML}}}lang": "en"},
    )
    assert application.tag == "{urn:x}slow"
    assert str(fault) == "Too <fast>."


def test_a_stream_error_may_say_more() -> None:
    fault = errors.StreamUndefinedCondition("So & so.", application=element("app", "urn:x"))
    (error,) = parse_document(b"<s xmlns:stream='%b'>%b</s>" % (ns.STREAMS.encode(), fault.to_bytes()))
    condition, text, application = error  # RFC 6120, 4.9.2
    assert condition.tag == f"{{{ns.STREAM_ERRORS}}}undefined-condition"
    assert (text.tag, text.text, dict(text.attrib.items())) == (
        f"{{{ns.STREAM_ERRORS}}}text",
        "So & so.",
        {f"{{{ns.XML}}}lang": "en"},
    )
    assert application.tag == "{urn:x}app"


@pytest.mark.parametrize("kind", [errors.Gone, errors.Redirect])
def test_a_stanza_error_may_name_the_new_address(kind: type[StanzaError]) -> None:
    error = parse_document(kind("Away.", content="xmpp:romeo@example.net?a&b").to_bytes())
    assert [child.text for child in error] == ["xmpp:romeo@example.net?a&b", "Away."]
    assert error[0].tag == f"{{{ns.STANZAS}}}{kind.condition}"


def test_a_stream_error_may_name_the_other_host() -> None:
    fault = errors.SeeOtherHost(content="[2001:41D0:1:A49b::1]:9222")  # RFC 6120, 4.9.3.19
    assert fault.to_bytes().decode() == (
        f'<stream:error><see-other-host xmlns="{ns.STREAM_ERRORS}">[2001:41D0:1:A49b::1]:9222</see-other-host></stream:error>'
    )


def test_a_sasl_failure_may_say_more() -> None:
    condition, text = parse_document(errors.AccountDisabled("Call us.").to_bytes())
    assert condition.tag == f"{{{ns.SASL}}}account-disabled"
    assert (text.tag, text.text, dict(text.attrib.items())) == (
        f"{{{ns.SASL}}}text",
        "Call us.",
        {f"{{{ns.XML}}}lang": "en"},
    )


def test_errors_are_found_by_their_conditions() -> None:
    for condition, stanza_kind in STANZA_ERRORS.items():
        assert type(stanza_error(condition, "why")) is stanza_kind
    for condition, stream_kind in STREAM_ERRORS.items():
        assert type(stream_error(condition, "why")) is stream_kind
    for condition, sasl_kind in SASL_ERRORS.items():
        assert type(sasl_error(condition, "why")) is sasl_kind
    assert (
        stanza_error("gone", "why").text
        == stream_error("reset", "why").text
        == sasl_error("aborted", "why").text
        == "why"
    )


def test_a_condition_that_no_rfc_has_is_the_undefined_one() -> None:
    assert type(stanza_error("nonsense")) is errors.UndefinedCondition
    assert type(stream_error("nonsense")) is errors.StreamUndefinedCondition
    assert type(sasl_error("nonsense")) is errors.TemporaryAuthFailure


def test_all_are_errors_of_ours_and_of_one_kind() -> None:
    kinds: tuple[type[XmppError], ...] = (JidError, StanzaError, StreamError, SaslError)
    classes: list[type[XmppError]] = [JidError, *STANZA_ERRORS.values(), *STREAM_ERRORS.values(), *SASL_ERRORS.values()]
    for kind in classes:
        assert issubclass(kind, XmppError)
        assert sum(issubclass(kind, other) for other in kinds) == 1
