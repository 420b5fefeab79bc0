"""Files by HTTP (XEP-0363), as slixmpp's own plugin finds the service, asks for a slot and uploads."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest
from slixmpp.plugins.xep_0363 import FileTooBig

from tests.peers.slixmpp_client import Refused, Slixmpp
from tests.support.cluster import RunningCluster


def fetched(url: str) -> tuple[bytes, str, str]:
    """Body, type, and what a browser does with it."""
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read(), response.headers["Content-Type"], response.headers["Content-Disposition"]


def test_a_picture_is_sent_and_seen(cluster: RunningCluster, tmp_path: Path) -> None:
    picture = tmp_path / "Rose rouge à Vérone.png"
    picture.write_bytes(os.urandom(200_000))
    with Slixmpp(cluster, cluster.account("romeo")) as romeo, Slixmpp(cluster, cluster.account("juliet")) as juliet:
        url = romeo.plugin("xep_0363", lambda plugin: plugin.upload_file(picture))
        romeo.message(juliet.bare, url)
        body, type_, disposition = fetched(juliet.body(romeo.jid))
    assert body == picture.read_bytes()
    assert type_ == "image/png"
    assert disposition.startswith("inline;")
    assert disposition.endswith("filename*=UTF-8''Rose%20rouge%20%C3%A0%20V%C3%A9rone.png")


@pytest.mark.parametrize("purpose", ["profile", "permanent"])
def test_files_for_good(cluster: RunningCluster, tmp_path: Path, purpose: str) -> None:
    file = tmp_path / "me.txt"
    file.write_text("Romeo")
    with Slixmpp(cluster, cluster.account("romeo")) as romeo:
        url = romeo.plugin("xep_0363", lambda plugin: plugin.upload_file(file, purpose=purpose))
    assert fetched(url) == (b"Romeo", "text/plain", 'attachment; filename="me.txt"')


def test_what_is_too_large_is_known_beforehand_and_refused(cluster: RunningCluster) -> None:
    with Slixmpp(cluster, cluster.account("romeo")) as romeo:

        def upload(size: int) -> None:
            with open(os.devnull, "rb") as nothing:
                romeo.plugin("xep_0363", lambda plugin: plugin.upload_file("a", size, input_file=nothing))

        with pytest.raises(FileTooBig):
            upload(10**9)
        service = f"upload.{cluster.domain}"
        with pytest.raises(Refused, match="not-acceptable"):
            romeo.plugin("xep_0363", lambda plugin: plugin.request_slot(service, "a", 10**9, "text/plain"))
