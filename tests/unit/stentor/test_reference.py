"""The references of settings and extensions tell what the code has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.config import keys
from router.features import ALL
from stentor.reference import ON_THE_STREAM, PAGES, XEP_NAMES, settings, xeps

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(("name", "page"), PAGES.items())
def test_the_page_is_what_the_code_says(name: str, page: Callable[[], str]) -> None:
    hint = f"run: python -m stentor.reference {name} > docs/{name}.md"
    assert (DOCS / f"{name}.md").read_text("utf-8") == page(), hint


def test_every_key_is_on_the_page() -> None:
    page = settings()
    for key in keys():
        assert f"| `{key.partition('.')[2]}` |" in page


def test_every_extension_is_on_the_page_once_and_has_a_name() -> None:
    page = xeps()
    declared = [number for feature in ALL for number, _ in feature.xep] + [part.xep for part in ON_THE_STREAM]
    assert sorted(declared) == sorted(XEP_NAMES)
    for number, name in XEP_NAMES.items():
        assert page.count(f"| [{number:04}](https://xmpp.org/extensions/xep-{number:04}.html) | {name} |") == 1


def test_every_feature_of_discovery_is_on_the_page() -> None:
    told = xeps().partition("## What service discovery tells")[2]
    for feature in ALL:
        for name in (*feature.server_features, *feature.account_features):
            assert f"`{name}`" in told
