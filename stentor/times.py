"""Times as options of commands have them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """`7d`, `12h`, `30m`, `2w`; `never` is -1."""
    if value is None:
        return None
    if value == "never":
        return -1.0
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", value)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("write it as 30m, 12h, 7d, 2w or never")
    return float(int(match[1]) * _UNITS[match[2]])


def since(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A time of RFC 3339, or `2h`: so long ago."""
    if value is None or not re.fullmatch(r"[0-9]{1,6}[smhdw]", value):
        return value
    ago = seconds(context, parameter, value) or 0.0
    return (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="seconds").replace("+00:00", "Z")
