"""What the gateway answers: discovery, registration, presence (XEP-0030, 0077, 0100)."""

from __future__ import annotations

import pytest

from s2s.gateways.sms import presence
from tests.unit.s2s.gateways.sms.support import GATEWAY, JULIET, NURSE, ROMEO, World
from xmpp import stanza as stanzas

NUMBER = f"{NURSE}@{GATEWAY}"


@pytest.fixture
def world() -> World:
    return World()


def iq(world: World, payload: str, *, to: str = GATEWAY, type: str = "get", user: str = JULIET) -> str:
    (answer,) = world.says(f"<iq type='{type}' id='i1' from='{user}/x' to='{to}'>{payload}</iq>")
    assert 'id="i1"' in answer
    return answer


def query(namespace: str, inner: str = "", node: str = "") -> str:
    attribute = f" node='{node}'" if node else ""
    return f"<query xmlns='{namespace}'{attribute}>{inner}</query>"


def says_presence(world: World, to: str = GATEWAY, type: str = "", user: str = f"{JULIET}/x") -> list[str]:
    attribute = f" type='{type}'" if type else ""
    return world.says(f"<presence from='{user}' to='{to}'{attribute}/>")


def pairs(answers: list[str]) -> list[tuple[str, str, str]]:
    """Type, from and to of presences."""
    found = []
    for answer in answers:
        fields = dict(word.split("=", 1) for word in answer.strip("</>").replace('"', "").split() if "=" in word)
        found.append((fields.get("type", ""), fields["from"], fields["to"].rstrip("/").partition(">")[0]))
    return found


# --- discovery


def test_the_gateway_is_one_of_sms(world: World) -> None:
    answer = iq(world, query("http://jabber.org/protocol/disco#info"))
    assert '<identity category="gateway" type="sms" name="SMS"/>' in answer
    for feature in ("jabber:iq:register", "jabber:iq:gateway", "http://jabber.org/protocol/disco#items"):
        assert f'<feature var="{feature}"/>' in answer


def test_a_number_sends_receipts(world: World) -> None:
    answer = iq(world, query("http://jabber.org/protocol/disco#info"), to=NUMBER)
    assert '<identity category="client" type="sms"/>' in answer
    assert '<feature var="urn:xmpp:receipts"/>' in answer
    assert "jabber:iq:register" not in answer


def test_the_items_are_the_users_own_numbers(world: World) -> None:
    for user in (JULIET, ROMEO):
        world.register(user)
    says_presence(world, NUMBER, "subscribe", JULIET)
    assert f'<item jid="{NUMBER}" name="{NURSE}"/>' in iq(world, query("http://jabber.org/protocol/disco#items"))
    assert "<item " not in iq(world, query("http://jabber.org/protocol/disco#items"), user=ROMEO)
    assert "<item " not in iq(world, query("http://jabber.org/protocol/disco#items"), to=NUMBER)


@pytest.mark.parametrize("to", [GATEWAY, NUMBER])
def test_small_questions(world: World, to: str) -> None:
    assert 'type="result"' in iq(world, "<ping xmlns='urn:xmpp:ping'/>", to=to)
    for namespace in ("http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items"):
        assert "item-not-found" in iq(world, query(namespace, node="x"), to=to)
    assert "service-unavailable" in iq(world, query("jabber:iq:private"), to=to)
    assert "item-not-found" in iq(world, query("jabber:iq:version"), to=f"nurse@{GATEWAY}")
    assert world.says(f"<iq type='result' id='i' from='{JULIET}/x' to='{to}'/>") == []
    assert world.says(f"<iq type='error' id='i' from='{JULIET}/x' to='{to}'/>") == []


def test_the_version_is_told(world: World) -> None:
    assert "<name>Stentor SMS gateway</name>" in iq(world, query("jabber:iq:version"))


def test_a_prompt_and_an_address_for_what_was_typed() -> None:
    world = World("numbers.country=49")
    assert "<prompt>Phone number</prompt>" in iq(world, query("jabber:iq:gateway"))
    for typed in ("0170 1234567", "+49 170 1234567"):
        answer = iq(world, query("jabber:iq:gateway", f"<prompt>{typed}</prompt>"), type="set")
        assert f"<jid>{NUMBER}</jid>" in answer
    assert "not-acceptable" in iq(world, query("jabber:iq:gateway", "<prompt>nurse</prompt>"), type="set")
    assert "not-acceptable" in iq(world, query("jabber:iq:gateway"), type="set")


def test_an_address_that_is_none_is_told_so(world: World) -> None:
    (answer,) = world.says(f"<message id='m' from='{JULIET}/x' to='a&lt;@{GATEWAY}'><body>x</body></message>")
    assert "jid-malformed" in answer
    assert world.says(f"<message from='&lt;' to='{GATEWAY}'><body>x</body></message>") == []
    (answer,) = world.says(f"<message id='m' from='{JULIET}/x' to='{GATEWAY}'><body>x</body></message>")
    assert "service-unavailable" in answer


# --- registration


def test_a_user_registers_and_the_gateway_asks_for_presence(world: World) -> None:
    assert "<registered/>" not in iq(world, query("jabber:iq:register"))
    result, subscribe = world.register()
    assert 'type="result"' in result
    assert pairs([subscribe]) == [("subscribe", GATEWAY, JULIET)]
    assert "<registered/>" in iq(world, query("jabber:iq:register"))
    assert len(world.register()) == 1  # nothing new


@pytest.mark.parametrize("user", ["mallory@example.com", "mallory@sms.example.org"])
def test_strangers_may_not(world: World, user: str) -> None:
    assert "not-allowed" in world.register(user)[0]
    assert "not-allowed" in iq(world, query("jabber:iq:register"), user=user)


def test_who_may_is_a_setting() -> None:
    world = World('registration.allow=["example.com", "juliet@example.org"]')
    assert 'type="result"' in world.register("anybody@example.com")[0]
    assert 'type="result"' in world.register(JULIET)[0]
    assert "not-allowed" in world.register(ROMEO)[0]


def test_numbers_of_the_pool_are_chosen_or_given() -> None:
    world = World('numbers.pool=["+4930000001", "+4930000002", "+4930000003"]', "numbers.country=49")
    assert "<phone/>" in iq(world, query("jabber:iq:register"))
    assert 'type="result"' in world.register(JULIET, "030 000 002")[0]
    assert "<phone>+4930000002</phone>" in iq(world, query("jabber:iq:register"))
    assert "conflict" in world.register(ROMEO, "+4930000002")[0]
    assert "not-acceptable" in world.register(ROMEO, "+4930000009")[0]
    assert "not-acceptable" in world.register(ROMEO, "nonsense")[0]
    world.register(ROMEO)
    assert world.book.number_of(ROMEO) == "+4930000001"
    world.register(ROMEO)
    assert world.book.number_of(ROMEO) == "+4930000001"
    world.register("nurse@example.org")
    assert "resource-constraint" in world.register("friar@example.org")[0]
    form = "<x xmlns='jabber:x:data' type='submit'><field var='phone'><value>+4930000002</value></field></x>"
    assert "conflict" in iq(world, query("jabber:iq:register", form), type="set", user=ROMEO)
    assert iq(world, query("jabber:iq:register", form), type="set").startswith('<iq to="juliet@example.org/x" from')
    assert world.book.number_of(JULIET) == "+4930000002"


def test_an_assigned_number_needs_none_of_the_pool() -> None:
    world = World('numbers.pool=["+4930000001"]', 'numbers.assigned={"+4930000002": "juliet@example.org"}')
    world.register(JULIET)
    assert world.book.number_of(JULIET) is None


def test_leaving_ends_every_subscription(world: World) -> None:
    remove = query("jabber:iq:register", "<remove/>")
    assert "registration-required" in iq(world, remove, type="set")
    world.register()
    says_presence(world, NUMBER, "subscribe", JULIET)
    result, *goodbyes = world.says(f"<iq type='set' id='u' from='{JULIET}/x' to='{GATEWAY}'>{remove}</iq>")
    assert 'type="result"' in result
    assert pairs(goodbyes) == [
        (type_, address, JULIET)
        for address in (GATEWAY, NUMBER)
        for type_ in ("unsubscribe", "unsubscribed", "unavailable")
    ]
    assert "<registered/>" not in iq(world, query("jabber:iq:register"))
    assert "registration-required" in world.writes("hello")[0]


# --- presence


def test_a_subscription_is_accepted_at_once(world: World) -> None:
    world.register()
    for to in (GATEWAY, NUMBER):
        assert pairs(says_presence(world, to, "subscribe", JULIET)) == [("subscribed", to, JULIET), ("", to, JULIET)]
    assert says_presence(world, GATEWAY, "subscribed", JULIET) == []


def test_logging_in_shows_the_gateway_and_the_numbers_once(world: World) -> None:
    world.register()
    says_presence(world, NUMBER, "subscribe", JULIET)
    both = [("", GATEWAY, f"{JULIET}/x"), ("", NUMBER, f"{JULIET}/x")]
    assert pairs(says_presence(world)) == both
    assert says_presence(world, NUMBER) == []
    assert says_presence(world) == []
    assert pairs(says_presence(world, user=f"{JULIET}/y")) == [(t, f, f"{JULIET}/y") for t, f, _ in both]


def test_logging_out_takes_them_away(world: World) -> None:
    world.register()
    says_presence(world, NUMBER, "subscribe", JULIET)
    says_presence(world)
    assert says_presence(world, NUMBER, "unavailable") == []
    gone = says_presence(world, GATEWAY, "unavailable")
    assert pairs(gone) == [("unavailable", GATEWAY, f"{JULIET}/x"), ("unavailable", NUMBER, f"{JULIET}/x")]
    assert says_presence(world, GATEWAY, "unavailable") == []


def test_probes_and_unsubscribing(world: World) -> None:
    world.register()
    says_presence(world, NUMBER, "subscribe", JULIET)
    assert pairs(says_presence(world, NUMBER, "probe")) == [("", NUMBER, f"{JULIET}/x")]
    assert pairs(says_presence(world, NUMBER, "unsubscribe", JULIET)) == [
        ("unsubscribed", NUMBER, JULIET),
        ("unavailable", NUMBER, JULIET),
    ]
    assert world.book.contacts(JULIET) == []
    assert says_presence(world, NUMBER, "unsubscribed", JULIET) == []


def test_strangers_are_told_to_register(world: World) -> None:
    for type_ in ("", "subscribe"):
        assert "registration-required" in says_presence(world, NUMBER, type_)[0]
    assert pairs(says_presence(world, NUMBER, "probe")) == [("unsubscribed", NUMBER, JULIET)]
    assert says_presence(world, NUMBER, "error") == []
    assert says_presence(world, GATEWAY, "unavailable") == []
    assert "item-not-found" in says_presence(world, f"nurse@{GATEWAY}", "subscribe")[0]
    assert "bad-request" in (world.register(), says_presence(world, NUMBER, "nonsense"))[1][0]


def test_without_a_link_the_gateway_is_away_and_who_is_there_is_told(world: World) -> None:
    world.register()
    says_presence(world)
    (away,) = presence.link_changed(world.book, world.settings, is_up=False)
    assert b"<show>xa</show>" in away.inner
    (back,) = presence.link_changed(world.book, world.settings, is_up=True)
    assert (back.to, back.inner) == (f"{JULIET}/x", b"")


def test_starting_asks_who_is_there_and_stopping_says_goodbye(world: World) -> None:
    world.register()
    says_presence(world, NUMBER, "subscribe", JULIET)
    says_presence(world)
    started = [stanzas.encode(each).decode() for each in presence.started(world.book, world.settings, is_up=True)]
    assert pairs(started) == [("", GATEWAY, JULIET), ("probe", GATEWAY, JULIET)]
    assert world.book.sessions() == []  # the answers to the probes tell anew
    goodbyes = [stanzas.encode(each).decode() for each in presence.stopping(world.book, world.settings)]
    assert pairs(goodbyes) == [("unavailable", GATEWAY, JULIET), ("unavailable", NUMBER, JULIET)]
