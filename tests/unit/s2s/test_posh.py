"""Documents of POSH, and whether a certificate is among their fingerprints (s2s/posh.py)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.posh import MOST_FINGERPRINTS, Document, Fingerprint, PoshError, matches, parse

CERTIFICATE = b"any bytes will do"
SHA256 = hashlib.sha256(CERTIFICATE).digest()
SHA512 = hashlib.sha512(CERTIFICATE).digest()


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def document(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_fingerprints_are_read() -> None:
    content = document(fingerprints=[{"sha-256": text(SHA256), "sha-512": text(SHA512)}, {"sha-1": "x"}], expires=600)
    assert parse(content) == Document((Fingerprint(SHA256, SHA512), Fingerprint(b"", b"")), "", 600.0)


def test_a_reference_is_read() -> None:
    content = document(url="https://hosting.example/posh.json", expires=86_400)
    assert parse(content) == Document((), "https://hosting.example/posh.json", 86_400.0)


def test_without_expires_nothing_may_be_kept() -> None:
    assert parse(document(fingerprints=[])).expires_s == 0


def test_more_fingerprints_than_anybody_needs_are_left_out() -> None:
    content = document(fingerprints=[{"sha-256": text(SHA256)}] * (MOST_FINGERPRINTS + 1))
    assert len(parse(content).fingerprints) == MOST_FINGERPRINTS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"fingerprints": [], "expires": NaN}',
        b'{"fingerprints": [], "expires": Infinity}',
        document(fingerprints=[], expires=-1),
        document(fingerprints=[], expires="600"),
        document(fingerprints=[], expires=True),
        document(fingerprints={}),
        document(fingerprints=["x"]),
        document(fingerprints=[{"sha-256": 5}]),
        document(fingerprints=[{"sha-256": "not base64!"}]),
        document(fingerprints=[{"sha-256": text(SHA512)}]),
        document(fingerprints=[{"sha-512": text(SHA256)}]),
        document(fingerprints=[], url="https://hosting.example/"),
        document(url="http://hosting.example/"),
        document(url="https://"),
        document(url="https://[::1"),
        document(url=5),
    ],
)
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(PoshError):
        parse(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["fingerprints", "url", "expires", "sha-256"]), inner)
        ),
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        assert isinstance(parse(json.dumps(value).encode()), Document)
    except PoshError:
        pass


@pytest.mark.parametrize(
    ("fingerprint", "is_match"),
    [
        (Fingerprint(SHA256, b""), True),
        (Fingerprint(b"", SHA512), True),
        (Fingerprint(SHA256, SHA512), True),
        (Fingerprint(b"\0" * 32, SHA512), True),
        (Fingerprint(SHA256, b"\0" * 64), False),
        (Fingerprint(b"\0" * 32, b""), False),
        (Fingerprint(b"", b""), False),
    ],
)
def test_the_strongest_hash_decides(fingerprint: Fingerprint, is_match: bool) -> None:
    assert matches([CERTIFICATE], [fingerprint]) is is_match
    assert matches([CERTIFICATE], [Fingerprint(b"\1" * 32, b""), fingerprint]) is is_match


def test_only_the_peers_own_certificate_counts() -> None:
    assert not matches([b"another", CERTIFICATE], [Fingerprint(SHA256, b"")])
    assert not matches([], [Fingerprint(SHA256, b"")])
    assert not matches([CERTIFICATE], [])
