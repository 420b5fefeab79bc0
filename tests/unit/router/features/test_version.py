"""Software version (XEP-0092)."""

from __future__ import annotations

import platform

import pytest

from router.settings import Settings
from tests.support.turns import DOMAIN, World
from xmpp import ns


@pytest.mark.parametrize("show_os", [False, True])
def test_name_version_and_maybe_the_operating_system(show_os: bool) -> None:
    """5: "MUST provide a way" "to disable sharing of information about the operating system"."""
    world = World(Settings(domains=frozenset({DOMAIN}), software_version="1.2.3 <rc&1>", show_os=show_os))
    juliet = world.bind(world.account("juliet@example.com"), "balcony")
    world.say(juliet, f'<iq to="{DOMAIN}" type="get" id="v"><query xmlns="{ns.VERSION}"/></iq>')
    os = f"<os>{platform.system()} {platform.release()}</os>" if show_os else ""
    assert world.heard(juliet) == [
        f'<iq to="{juliet.jid}" from="{DOMAIN}" type="result" id="v"><query xmlns="{ns.VERSION}">'
        f"<name>Stentor</name><version>1.2.3 &lt;rc&amp;1&gt;</version>{os}</query></iq>"
    ]


def test_the_operating_system_is_hidden_by_default() -> None:
    assert not Settings().show_os
