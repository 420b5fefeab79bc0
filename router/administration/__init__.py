"""The administration of the cluster as one table of commands (docs/admin-api.md). `command.py` says what a command
declares, `desk.py` what it has at hand; one file for each area declares and does; `service.py` serves them."""

from __future__ import annotations

from typing import Final

from router.administration import (
    abuse,
    archive,
    cluster,
    configuration,
    erasures,
    federation,
    invitations,
    jobs,
    messages,
    moving,
    restrictions,
    rooms,
    rosters,
    sessions,
    statistics,
    tokens,
    traces,
    users,
)

AREAS: Final = (
    users.AREA,
    restrictions.AREA,
    erasures.AREA,
    rosters.AREA,
    invitations.AREA,
    moving.AREA,
    abuse.REPORTS,
    abuse.BLOCKLISTS,
    sessions.AREA,
    messages.AREA,
    archive.AREA,
    jobs.AREA,
    rooms.AREA,
    federation.AREA,
    cluster.AREA,
    statistics.AREA,
    traces.AREA,
    configuration.AREA,
    tokens.TOKENS,
    tokens.AUDIT,
)
ALL: Final = tuple(command for area in AREAS for command in area.commands)
