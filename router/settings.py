"""The settings that turns read, as one frozen value made from the configuration (`cluster/config.py`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from cluster.config import Config
from cluster.metrics import software_version


@dataclass(frozen=True, slots=True)
class Settings:
    """Policy for entities. Sizes are bytes, counts are per account unless named otherwise."""

    domains: frozenset[str] = field(default_factory=lambda: frozenset({"localhost"}))
    registration_mode: Literal["closed", "open", "invite"] = "closed"
    reserved_names: frozenset[str] = frozenset()
    roster_contacts: int = 5_000
    blocks: int = 1_000
    private_bytes: int = 262_144
    vcard_bytes: int = 131_072
    sessions: int = 20
    directed_presences: int = 1_000
    resume_timeout_s: int = 600
    archive_default: Literal["always", "roster", "never"] = "always"
    archive_page: int = 250
    offline_messages: int = 10_000
    started_at: float = 0.0  # Unix seconds, for XEP-0012 of the domain
    software_version: str = ""
    show_os: bool = False


def from_config(config: Config) -> Settings:
    """The part of the configuration that turns read."""
    limits = config.limits
    return Settings(
        domains=frozenset(config.server.domains),
        registration_mode=config.registration.mode,
        reserved_names=frozenset(config.registration.reserved_names),
        roster_contacts=limits.roster,
        blocks=limits.blocks,
        private_bytes=limits.private_bytes,
        vcard_bytes=limits.vcard_bytes,
        sessions=limits.sessions_per_account,
        directed_presences=limits.directed_presences,
        resume_timeout_s=config.resume.timeout_s,
        archive_default=config.archive.default,
        archive_page=config.archive.page,
        offline_messages=limits.offline,
        started_at=time.time(),
        software_version=software_version(),
        show_os=config.server.show_os,
    )
