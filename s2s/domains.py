"""A domain of a JID as DNS, TLS and certificates write it."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import idna

NAME_BYTES: Final = 253  # RFC 1035, 2.3.4, as text without the final dot
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")


def to_ascii(domain: str) -> str:
    """The domain in A-labels, lower case, without a final dot. Raises ValueError for what is no name of a host."""
    name = domain.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode().removesuffix(".")
        except (idna.IDNAError, UnicodeError) as problem:
            raise ValueError(f"{domain!r} is not a domain name") from problem
    if not _NAME.match(name) or len(name) > NAME_BYTES:
        raise ValueError(f"{domain!r} is not a domain name")
    return name


def ip_literal(domain: str) -> str | None:
    """The address, if the domain is an IP literal: 192.0.2.1, 2001:db8::1 or [2001:db8::1] (RFC 7622, 3.2)."""
    bare = domain[1:-1] if domain.startswith("[") and domain.endswith("]") else domain
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None
