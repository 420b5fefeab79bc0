"""`stentor check federation` with servers that other people wrote, as an operator runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.cluster import FACTOR
from tests.support.peers.peers import Peers


def check(peers: Peers, domain: str, *settings: str) -> tuple[int, str]:
    """Exit code, and what was said."""
    ours = peers.certificate("st.example")
    every = [
        f's2s.resolvers=["{peers.zone.host}:{peers.zone.port}"]', f"s2s.ca={peers.authority.file}",
        'server.domains=["st.example"]', f"tls.certificate={ours.chain}", f"tls.key={ours.key}", *settings,
    ]  # fmt: skip
    options = [word for setting in every for word in ("--set", setting)]
    command = [sys.executable, "-m", "stentor", "check", "federation", domain, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * FACTOR, check=False)
    assert done.stderr == ""
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in done.stdout.splitlines())
    return done.returncode, done.stdout


@pytest.mark.parametrize("program", ["prosody", "ejabberd"])
def test_by_what_a_stream_would_be_authenticated(peers: Peers, program: str) -> None:
    start = getattr(peers, program)
    start("b.example")
    code, said = check(peers, "b.example")
    assert code == 0
    assert "st.example would be authenticated by SASL EXTERNAL; its certificate is valid by its authority" in said
    start("self.example", is_self_signed=True)
    code, said = check(peers, "self.example")
    assert (code, "our policy allows that" in said) == (0, True)
    code, said = check(peers, "self.example", "s2s.policy=secure")
    assert (code, "fail  verdict      no stream: our policy wants a valid certificate" in said) == (1, True)


def test_a_server_that_wants_certificates_gets_none_or_a_wrong_one(peers: Peers) -> None:
    peers.prosody("strict.example", secure=True, without=frozenset({"dialback"}))
    assert check(peers, "strict.example")[0] == 0
    stranger = peers.certificate("st.example", is_self_signed=True)
    code, said = check(peers, "strict.example", f"tls.certificate={stranger.chain}", f"tls.key={stranger.key}")
    assert code == 1
    assert "It wants a valid certificate of st.example: see tls.certificate" in said


def test_the_dns_leads_to_a_server_that_does_not_know_the_domain(peers: Peers) -> None:
    server = peers.prosody("b.example", direct_tls=True)
    for kind, port, problem in (
        ("_xmpps-server", server.s2s_tls_port, "UNRECOGNIZED_NAME"), ("_xmpp-server", server.s2s_port, "host-unknown"),
    ):  # fmt: skip
        peers.zone.add(f"{kind}._tcp.c.example. IN SRV 0 0 {port} {server.host}.")
        code, said = check(peers, "c.example")
        peers.zone.remove(f"{kind}._tcp.c.example.")
        assert code == 1
        assert problem in said
        assert "its operator has to correct one of them" in said
