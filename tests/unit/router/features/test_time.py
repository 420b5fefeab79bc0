"""Entity time (XEP-0202) in the format of XEP-0082."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.turns import DOMAIN, World
from xmpp import ns


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process runs far from Greenwich."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("now", "utc"),
    [
        (1_800_000_000.0, "2027-01-15T08:00:00Z"),
        (1_166_551_115.999, "2006-12-19T17:58:35Z"),
        (951_782_399.0, "2000-02-28T23:59:59Z"),
        (951_782_400.0, "2000-02-29T00:00:00Z"),
        (0.0, "1970-01-01T00:00:00Z"),
    ],
)
def test_the_servers_time_is_utc(now: float, utc: str) -> None:
    """XEP-0202, 2: "MUST be expressed in UTC", wherever the process runs; XEP-0082, 3.2: CCYY-MM-DDThh:mm:ssTZD."""
    world = World()
    world.now = now
    juliet = world.bind(world.account("juliet@example.com"), "balcony")
    world.say(juliet, f'<iq to="{DOMAIN}" type="get" id="t"><time xmlns="{ns.TIME}"/></iq>')
    assert world.heard(juliet) == [
        f'<iq to="{juliet.jid}" from="{DOMAIN}" type="result" id="t"><time xmlns="{ns.TIME}">'
        f"<tzo>+00:00</tzo><utc>{utc}</utc></time></iq>"
    ]
