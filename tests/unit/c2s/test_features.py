"""What <stream:features/> offers (c2s/features.py)."""

from __future__ import annotations

from lxml import etree

from c2s import features
from xmpp import ns

LIMITS = features.stream_limits(16_384, None)


def children(written: bytes) -> dict[str, etree._Element]:
    """The features by name, as a client would find them."""
    header = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'>".encode()
    (found,) = etree.fromstring(header + written + b"</stream:stream>")
    assert found.tag == f"{{{ns.STREAMS}}}features"
    return {str(child.tag): child for child in found}


def before(
    *, starttls: bool = False, is_tls_required: bool = False, mechanisms: tuple[str, ...] = (),
    bindings: tuple[str, ...] = (), may_register: bool = False,
) -> dict[str, etree._Element]:  # fmt: skip
    return children(
        features.before_login(
            starttls=starttls, is_tls_required=is_tls_required, mechanisms=mechanisms, token_mechanisms=(),
            bindings=bindings, may_register=may_register, limits=LIMITS,
        ).features
    )  # fmt: skip


def test_starttls_says_whether_it_is_required() -> None:
    """RFC 6120, 5.3.1."""
    starttls = f"{{{ns.TLS}}}starttls"
    assert len(before(starttls=True)[starttls]) == 0
    assert [child.tag for child in before(starttls=True, is_tls_required=True)[starttls]] == [f"{{{ns.TLS}}}required"]
    assert starttls not in before(is_tls_required=True)


def test_mechanisms_are_listed_in_their_order() -> None:
    """RFC 6120, 6.3.3."""
    offer = before(mechanisms=("SCRAM-SHA-256", "PLAIN"))[f"{{{ns.SASL}}}mechanisms"]
    assert [(child.tag, child.text) for child in offer] == [
        (f"{{{ns.SASL}}}mechanism", "SCRAM-SHA-256"),
        (f"{{{ns.SASL}}}mechanism", "PLAIN"),
    ]


def test_channel_binding_types_are_told_beside_mechanisms() -> None:
    """XEP-0440."""
    name = f"{{{ns.SASL_CHANNEL_BINDING}}}sasl-channel-binding"
    offer = before(mechanisms=("SCRAM-SHA-256-PLUS",), bindings=("tls-exporter", "tls-server-end-point"))[name]
    assert [child.get("type") for child in offer] == ["tls-exporter", "tls-server-end-point"]
    assert name not in before(mechanisms=("PLAIN",))
    assert name not in before(bindings=("tls-exporter",))


def test_registration_is_offered_where_it_is_open() -> None:
    """XEP-0077, 8."""
    assert f"{{{ns.REGISTER_FEATURE}}}register" in before(may_register=True)
    assert list(before()) == [f"{{{ns.STREAM_LIMITS}}}limits"]


def test_after_login_come_binding_the_optional_session_and_what_routers_add() -> None:
    """RFC 6120, 7.3.1; RFC 3921, 3, which old clients wait for; XEP-0198, 2; XEP-0352, 4.1."""
    offers = children(features.after_login(f"<ver xmlns='{ns.ROSTERVER_FEATURE}'/>".encode(), LIMITS))
    assert list(offers) == [
        f"{{{ns.BIND}}}bind", f"{{{ns.SESSION}}}session", f"{{{ns.SM}}}sm", f"{{{ns.CSI}}}csi",
        f"{{{ns.ROSTERVER_FEATURE}}}ver", f"{{{ns.STREAM_LIMITS}}}limits",
    ]  # fmt: skip
    assert [child.tag for child in offers[f"{{{ns.SESSION}}}session"]] == [f"{{{ns.SESSION}}}optional"]


def test_limits_are_whole_numbers_and_silence_may_be_unlimited() -> None:
    """XEP-0478."""
    assert features.stream_limits(10_000, 1_800.5) == (
        b'<limits xmlns="urn:xmpp:stream-limits:0"><max-bytes>10000</max-bytes><idle-seconds>1800</idle-seconds></limits>'
    )
    assert b"idle-seconds" not in LIMITS
