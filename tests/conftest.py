"""Fixtures for all tests come from tests/support/, one plugin per concern."""

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.database",
    "tests.support.faults",
    "tests.support.peers.peers",
]
