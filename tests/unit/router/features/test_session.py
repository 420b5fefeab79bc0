"""The session request of RFC 3921, 3, which does nothing."""

from __future__ import annotations

import pytest

from tests.support.turns import DOMAIN, World, error
from xmpp import ns

JULIET = "juliet@example.com"


def ask(type: str, to: str | None) -> str:
    world = World()
    juliet = world.bind(world.account(JULIET), "balcony")
    address = f' to="{to}"' if to else ""
    turn = world.say(juliet, f'<iq{address} type="{type}" id="sess_1"><session xmlns="{ns.SESSION}"/></iq>')
    assert (turn.touched, turn.writes, turn.sends, juliet.presence) == ((), (), (), None)
    (answer,) = world.heard(juliet)
    return answer


@pytest.mark.parametrize("to", [None, DOMAIN, JULIET])
def test_old_clients_get_their_session(to: str | None) -> None:
    back = f' from="{to}"' if to else ""
    assert ask("set", to) == f'<iq to="{JULIET}/balcony"{back} type="result" id="sess_1"/>'


def test_there_is_nothing_to_get() -> None:
    assert error("feature-not-implemented", "cancel") in ask("get", DOMAIN)
