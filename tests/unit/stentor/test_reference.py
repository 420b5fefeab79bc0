"""The settings reference tells what the code has."""

from __future__ import annotations

from pathlib import Path

from cluster.config import keys
from stentor.reference import settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text("utf-8") == settings(), "run: python -m stentor.reference > docs/settings.md"


def test_every_key_is_on_the_page() -> None:
    page = settings()
    for key in keys():
        assert f"| `{key.partition('.')[2]}` |" in page
