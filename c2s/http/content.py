"""What goes with a file that somebody has uploaded: ranges (RFC 9110, 14), tags (8.8.3, 13.1), names (RFC 6266), and
headers by which nothing of it runs in a browser. Values only."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote

from xmpp.upload import OCTETS

# What browsers show without running anything of it. Never SVG, HTML, XML or PDF: these have scripts.
SHOWN: Final = frozenset(
    {
        "image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/apng", "image/bmp",
        "audio/mpeg", "audio/ogg", "audio/opus", "audio/mp4", "audio/aac", "audio/flac", "audio/wav", "audio/webm",
        "video/mp4", "video/webm", "video/ogg",
    }
)  # fmt: skip
CROSS_ORIGIN: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Disposition, Content-Range, ETag, Retry-After",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "OPTIONS, HEAD, GET, PUT",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, If-Range",
    "Access-Control-Max-Age": "7200",
}
INERT: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
# What a page of this site could load as a script or style, an attachment or not, were it told apart from other bytes.
_LOADED: Final = re.compile(r"javascript|ecmascript|jscript|livescript|^text/css$|^application/wasm$")
CACHED_S: Final = 7 * 86_400  # longest; a file does not change, but may be deleted

_RANGE: Final = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_PLAIN: Final = re.compile(r'[^\x20-\x7e]|["\\%]')


class Span(NamedTuple):
    """Bytes of a file, from `start` up to `end`. Where `start` is not below `end`, none of those that were asked for is
    there (416)."""

    start: int
    end: int

    @property
    def is_there(self) -> bool:
        """Whether there is something to send."""
        return self.start < self.end


def span_of(header: str | None, size: int) -> Span | None:
    """The one range that is asked for; None for all of it, which is also the answer to several and to what is no range
    (RFC 9110, 14.2)."""
    found = _RANGE.fullmatch(header) if header is not None else None
    if found is None or found[0].rstrip().endswith("=-"):
        return None
    first, last = found.groups()
    if not first:
        if not last:
            return None
        return Span(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return Span(int(first), min(size, int(last) + 1) if last else size)


def names(header: str | None, etag: str) -> bool:
    """Whether If-None-Match names this tag: weakly compared, since nothing is sent then."""
    if header is None:
        return False
    return header.strip() == "*" or any(tag.removeprefix("W/") == etag for tag in _TAG.findall(header))


def is_same(header: str | None, etag: str) -> bool:
    """Whether If-Range is fulfilled: strongly compared. Dates are not, for none is sent."""
    return header is None or (header.strip() == etag and not etag.startswith("W/"))


def headers_of(name: str, type: str, left_s: int | None) -> dict[str, str]:
    """For a file of this name and type that is there for so many seconds more, None: for as long as anybody knows."""
    kind = OCTETS if not type or _LOADED.search(type) else type
    age = CACHED_S if left_s is None else max(0, min(CACHED_S, left_s))
    return {
        **CROSS_ORIGIN,
        **INERT,
        "Content-Type": kind,
        "Content-Disposition": disposition(name, is_shown=kind in SHOWN),
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={age}, immutable",
    }


def disposition(name: str, *, is_shown: bool) -> str:
    """RFC 6266: the name as it is (RFC 8187), and for old clients what is left of it in ASCII."""
    plain = _PLAIN.sub("_", name)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{"inline" if is_shown else "attachment"}; filename="{plain}"{exact}'
