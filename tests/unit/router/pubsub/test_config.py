"""How a node is (XEP-0060, 16.4.4): written, read, kept, and described."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from router.pubsub import config as configs
from router.pubsub.config import MAX, SERVICE, NodeConfig
from xmpp.disco import Form
from xmpp.errors import Conflict, NotAcceptable

PAGE = Path(__file__).parents[4] / "docs" / "pubsub.md"
# What is not worth a line there.
UNTOLD = {"deliver_notifications", "itemreply", "presence_based_delivery", "purge_offline"}


def form(**values: str) -> Form:
    return Form("", tuple((f"pubsub#{name}", (value,)) for name, value in values.items()))


@pytest.mark.parametrize("config", [NodeConfig(), SERVICE, NodeConfig(title="x", contact=("a@b",), max_items=MAX)])
def test_what_is_kept_comes_back(config: NodeConfig) -> None:
    import json

    assert configs.from_json(json.loads(configs.to_json(config))) == config
    assert configs.from_json({"unheard of": 1}) == NodeConfig()


def test_what_is_left_out_stays() -> None:
    before = NodeConfig(title="Verse", max_items=5)
    assert configs.from_form(before, form(access_model="open"), is_service=False).title == "Verse"
    assert configs.from_form(before, form(max_items="max"), is_service=False).max_items == MAX
    assert configs.from_form(before, form(item_expire="max"), is_service=False).item_expire == 0
    with pytest.raises(NotAcceptable):
        configs.from_form(before, form(max_items="5" * 20), is_service=False)


def test_options_that_nobody_knows_are_not_met() -> None:
    with pytest.raises(Conflict):
        configs.check(NodeConfig(), form(unheard_of="1"), is_service=False)
    configs.check(NodeConfig(), form(max_items="1", persist_items="true"), is_service=False)
    with pytest.raises(Conflict):
        configs.check(SERVICE, form(roster_groups_allowed="x"), is_service=True)


def test_equal_ones_are_one() -> None:
    """Most accounts have the same few."""
    assert configs.from_json({"max_items": 7}) is configs.from_json({"max_items": 7})


def test_the_page_names_every_option() -> None:
    text = PAGE.read_text("utf-8")
    for field in fields(NodeConfig):
        name = "x-stentor_archive" if field.name == "archive" else field.name
        assert f"`{name}`" in text or field.name in UNTOLD, name
