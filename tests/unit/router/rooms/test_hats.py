"""Hats: what may be made, given and taken, and what is shown (XEP-0317)."""

from __future__ import annotations

import json

import pytest

from router.rooms import hats
from router.rooms.hats import HATS, WEARERS, WORN, Hat, Hats
from xmpp.errors import Conflict, ItemNotFound, NotAcceptable

SCRIBE = Hat("urn:x:scribe", "Scribe", "327.25")
ROMEO = "romeo@example.com"


def wardrobe(*made: Hat) -> Hats:
    found = Hats()
    for hat in made:
        found.make(hat)
    return found


def test_what_is_worn_is_shown_and_comes_back_from_the_database() -> None:
    worn = wardrobe(SCRIBE, Hat("urn:x:king", "King & <Queen>"))
    worn.give(ROMEO, SCRIBE.uri)
    worn.give(ROMEO, "urn:x:king")
    again = hats.from_json(json.loads(worn.to_json()))
    shown = b'<hats xmlns="urn:xmpp:hats:0"><hat title="Scribe" uri="urn:x:scribe" hue="327.25"/>'
    assert again.shown(ROMEO) == worn.shown(ROMEO)
    assert worn.shown(ROMEO).startswith(shown)
    assert b'title="King &amp; &lt;Queen&gt;"' in worn.shown(ROMEO)
    assert worn.shown("juliet@example.com") == b'<hats xmlns="urn:xmpp:hats:0"/>'
    assert (Hats().shown(ROMEO), Hats().hash()) == (b"", "")


def test_a_hat_that_goes_goes_from_every_head() -> None:
    worn = wardrobe(SCRIBE)
    worn.give(ROMEO, SCRIBE.uri)
    before = worn.hash()
    assert worn.unmake(SCRIBE.uri) == [ROMEO]
    assert worn.worn() == []
    assert worn.hash() != before
    with pytest.raises(ItemNotFound):
        worn.unmake(SCRIBE.uri)


@pytest.mark.parametrize(
    "hat",
    [
        Hat("", "x"),
        Hat("x", ""),
        Hat("x" * 1_001, "x"),
        Hat("x", "y", "361"),
        Hat("x", "y", "blue"),
        Hat("x", "y", "nan"),
    ],
)
def test_a_hat_that_is_none_is_refused(hat: Hat) -> None:
    with pytest.raises(NotAcceptable):
        wardrobe(hat)


def test_there_is_an_end_to_hats_heads_and_what_one_head_bears() -> None:
    worn = wardrobe(*(Hat(f"urn:x:{number}", "x") for number in range(HATS)))
    with pytest.raises(NotAcceptable):
        worn.make(SCRIBE)
    for number in range(WORN):
        worn.give(ROMEO, f"urn:x:{number}")
    for again in ("urn:x:0", f"urn:x:{WORN}"):
        with pytest.raises(Conflict):
            worn.give(ROMEO, again)
    for number in range(WEARERS - 1):
        worn.give(f"user{number}@example.com", "urn:x:0")
    with pytest.raises(Conflict):
        worn.give("one-more@example.com", "urn:x:0")
    with pytest.raises(ItemNotFound):
        worn.take("one-more@example.com", "urn:x:0")
