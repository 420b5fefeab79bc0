"""The gateway's settings: what is wrong is told with key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config import ConfigError, Problem, is_secret, keys, load
from s2s.gateways.sms.settings import SmsSettings
from tests.unit.s2s.gateways.sms.support import NEEDED, settings


def problems(*overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load(None, overrides, {}, SmsSettings)
    return {problem.key: problem for problem in caught.value.problems}


def test_what_is_needed_is_named() -> None:
    assert problems().keys() == {"component", "smpp", "numbers", "store"}
    found = problems("component.host=x", "smpp.port=1", "numbers.country=49", "store.file=/x")
    assert found.keys() == {"component.jid", "component.secret", "smpp.host", "smpp.system_id", "numbers.sender"}
    assert found["smpp.host"].remedy == "It is: address of the SMSC"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("component.jid=x@example.org", "component.jid"),
        ("component.jid=sms.example.org/x", "component.jid"),
        ("component.secret=", "component.secret"),
        ("smpp.password=ninechars", "smpp.password"),
        ("smpp.system_id=sixteencharacter", "smpp.system_id"),
        ("smpp.bind=both", "smpp.bind"),
        ("smpp.window=0", "smpp.window"),
        ("numbers.sender=+49", "numbers.sender"),
        ("numbers.sender=VeronaAndMore", "numbers.sender"),
        ("numbers.sender=Vérona", "numbers.sender"),
        ("numbers.country=049", "numbers.country"),
        ('numbers.pool=["x"]', "numbers.pool"),
        ('numbers.pool=["+4915550000"]', "numbers.pool"),
        ('numbers.pool=["+4915550001", "+4915550001"]', "numbers.pool"),
        ('numbers.assigned={"+4915550001": "@"}', "numbers.assigned"),
        ('numbers.assigned={"+4915550000": "juliet@example.org"}', "numbers.assigned"),
        ("numbers.default_jid=a@b/c", "numbers.default_jid"),
        ("registration.allow=[\"\"]", "registration.allow"),
        ("smpp.passwd=x", "smpp.passwd"),
        ("c2s.port=1", "c2s.port"),
    ],
)  # fmt: skip
def test_nonsense_is_told(override: str, key: str) -> None:
    found = problems(*NEEDED, override)
    assert found.keys() == {key}
    assert found[key].remedy


def test_secrets_are_not_told() -> None:
    assert {key for key in keys(SmsSettings) if is_secret(key, SmsSettings)} == {"component.secret", "smpp.password"}
    assert "ninechars" not in str(problems(*NEEDED, "smpp.password=ninechars"))


def test_who_may_register_is_the_domain_above_unless_it_is_said() -> None:
    assert settings().allowed == {"example.org"}
    assert settings('registration.allow=["a.example", "Juliet@b.example"]').allowed == {"a.example", "juliet@b.example"}


def test_every_setting_says_what_it_is() -> None:
    assert [key for key, field in keys(SmsSettings).items() if not field.description] == []


def test_the_example_is_valid() -> None:
    example = Path(__file__).parents[5] / "docs" / "examples" / "sms.toml"
    assert load(example, (), {}, SmsSettings).component.jid == "sms.example.org"
