"""The clients that pages suggest (c2s/http/clients.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from c2s.http import clients
from cluster.process import CannotStart


def test_our_own_file_has_clients_for_every_platform() -> None:
    assert clients.read(None).keys() == clients.PLATFORMS.keys()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x", "docs/invitations.md"),
        ("android = 1", "docs/invitations.md"),
        ("[[android]]\nname = 'A'", "docs/invitations.md"),
        ("[[amiga]]\nname = 'A'\nurl = 'https://a.example'", "none of android"),
        ("[[android]]\nname = 'A'\nurl = 'javascript:alert(1)'", "https://"),
        (None, "docs/invitations.md"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str | None, complaint: str) -> None:
    file = tmp_path / "clients.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CannotStart, match=complaint) as problem:
        clients.read(file)
    assert str(file) in str(problem.value)


@pytest.mark.parametrize(
    ("user_agent", "platform"),
    [
        ("Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/130 Mobile Safari/537.36", "android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15", "ios"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15", "macos"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0", "windows"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0", "linux"),
        ("curl/8.5.0", ""),
        ("", ""),
    ],
)
def test_a_browser_says_where_it_runs(user_agent: str, platform: str) -> None:
    assert clients.platform_of(user_agent) == platform
