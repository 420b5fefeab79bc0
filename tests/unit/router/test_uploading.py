"""Which files are taken, and what is said where there is no room (router/uploading.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import uploading
from router.settings import Uploads
from router.uploading import Wanted
from storage.uploads import Verdict
from xmpp.errors import NotAcceptable
from xmpp.timestamp import parse_moment
from xmpp.upload import FOR_EVER

NOW = 1_800_000_000.0  # 15 January 2027, 08:00 UTC
MIDNIGHT = 1_800_057_600.0
OFFERED = Uploads(
    {"example.com": "upload.example.com"}, "https://example.com", file_bytes=10_000, user_bytes=100_000,
    day_bytes=50_000, kept_bytes=8_192,
)  # fmt: skip


def wanted(size: int = 5_000, purpose: str = "message", before: float | None = None) -> Wanted:
    return Wanted("a", size, "", purpose, before)


def retry_at(there: Verdict, file: Wanted, offered: Uploads = OFFERED) -> float | None:
    fault = uploading.refusal(offered, file, there, NOW)
    assert (fault.condition, fault.type) == ("resource-constraint", "wait")
    if fault.application is None:
        return None
    return parse_moment(fault.application.decode().partition('stamp="')[2].partition('"')[0]) / 1_000_000


def test_small_files_count_as_a_block() -> None:
    assert wanted(1).counts_as == 4_096
    assert wanted(4_097).counts_as == 4_097


def test_the_greatest_file_is_one_that_there_can_be_room_for() -> None:
    assert uploading.largest(OFFERED) == 10_000
    assert uploading.largest(replace(OFFERED, user_bytes=7_000)) == 7_000
    assert uploading.largest(replace(OFFERED, day_bytes=6_000)) == 6_000
    assert uploading.largest(replace(OFFERED, day_bytes=0)) == 10_000


@pytest.mark.parametrize(
    ("purpose", "most"), [("message", 10_000), ("ephemeral", 10_000), ("profile", 8_192), ("permanent", 8_192)]
)
def test_what_is_too_large(purpose: str, most: int) -> None:
    uploading.check_size(OFFERED, wanted(most, purpose))
    with pytest.raises(NotAcceptable) as caught:
        uploading.check_size(OFFERED, wanted(most + 1, purpose))
    assert caught.value.application is not None
    assert f"<max-file-size>{most}</max-file-size>".encode() in caught.value.application


def test_nothing_is_kept_where_nothing_may_be() -> None:
    with pytest.raises(NotAcceptable) as caught:
        uploading.check_size(replace(OFFERED, kept_bytes=0), wanted(1, "profile"))
    assert caught.value.application is None


@given(st.integers(4_096, 10**12), st.integers(4_096, 10**12), st.integers(0, 10**12), st.integers(1, 10**13))
def test_what_passes_fits_into_every_quota(file: int, user: int, day: int, size: int) -> None:
    """The first slot of an account is granted without a look at what there is."""
    offered = replace(OFFERED, file_bytes=file, user_bytes=user, day_bytes=day and max(day, 4_096))
    try:
        uploading.check_size(offered, wanted(size))
    except NotAcceptable:
        return
    assert wanted(size).counts_as <= user
    assert not offered.day_bytes or wanted(size).counts_as <= offered.day_bytes
    assert size <= uploading.largest(offered)


def test_when_there_is_room_again() -> None:
    assert retry_at(Verdict(None, 0, 0, 46_000), wanted()) == MIDNIGHT
    assert retry_at(Verdict(None, 96_000, 0, 0, NOW + 500), wanted()) == NOW + 500
    assert retry_at(Verdict(None, 96_000, 0, 46_000, NOW + 500), wanted()) == MIDNIGHT
    assert retry_at(Verdict(None, 96_000, 0, 46_000, NOW + 90_000), wanted()) == NOW + 90_000
    assert retry_at(Verdict(None, 96_000, 0, 0, None), wanted()) == NOW + uploading.SOON_S
    assert retry_at(Verdict(None, 0, 0, 0), wanted()) == NOW + 1, "there is room again already"
    assert retry_at(Verdict(None, 0, 8_000, 0), wanted(5_000, "profile")) is None, "nobody knows"
    assert retry_at(Verdict(None, 0, 0, 46_000), wanted(5_000, "profile")) == MIDNIGHT


def test_how_long_files_stay() -> None:
    days = int(NOW + OFFERED.expire_s)
    assert uploading.expiry(OFFERED, wanted(), NOW) == days
    assert uploading.expiry(OFFERED, wanted(1, "ephemeral", NOW + 60), NOW) == NOW + 60
    assert uploading.expiry(OFFERED, wanted(1, "ephemeral", NOW + 10**9), NOW) == days
    assert uploading.expiry(OFFERED, wanted(1, "profile"), NOW) == FOR_EVER
    assert uploading.expiry(OFFERED, wanted(1, "permanent"), NOW) == FOR_EVER
