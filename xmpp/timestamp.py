"""Moments as XEP-0082 writes them (the DateTime profile): CCYY-MM-DDThh:mm:ss[.sss]TZD."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DATE_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(text: str) -> int:
    """Microseconds since the Unix epoch; what is finer is cut off. Raises ValueError where it is no DateTime."""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:50]!r} is no moment of XEP-0082")
    whole, fraction, zone = match.groups()
    moment = datetime.fromisoformat(whole + zone)
    return (moment - _EPOCH) // timedelta(microseconds=1) + int((fraction or "")[:6].ljust(6, "0"))


def format_moment(seconds: float) -> str:
    """A moment (Unix seconds) to the millisecond, in UTC."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
