"""JIDs (RFC 7622): parsed once at the edge, prepared, immutable.

Inside the cluster addresses travel as prepared strings; the small functions at the end take those apart. Preparation
of plain ASCII is a character check; all else goes through PRECIS and IDNA, once, behind bounded caches.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final, NamedTuple

import idna
import idna.uts46data  # 20 ms: at the start of a process, and not on the event loop when it is needed first
from precis_i18n import get_profile

from xmpp.errors import JidError

PART_BYTES: Final = 1023  # RFC 7622, 3.1: each part at most 1,023 octets
CACHED: Final = 50_000
REFUSED: Final = 5_000
_CACHEABLE: Final = 3 * PART_BYTES + 2

# RFC 7622, 3.3.1: what the localpart may not have, beyond the profile.
_FORBIDDEN_LOCAL: Final = frozenset("\"&'/:<>@")
_ASCII_LOCAL: Final = re.compile(r"[!#$%()*+,\-.0-9;=?A-Z\[\\\]^_`a-z{|}~]+\Z")
_ASCII_RESOURCE: Final = re.compile(r"[ -~]+\Z")
_ASCII_DOMAIN: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*\Z")

_USERNAME = get_profile("UsernameCaseMapped")
_OPAQUE = get_profile("OpaqueString")
_refused: dict[str, str] = {}  # what is no address, and why: to find that out again may cost a millisecond or two


class JID(NamedTuple):
    """A prepared address. Made by `JID.parse` or `JID.of`; a missing part is ""."""

    local: str
    domain: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> JID:
        """Parse and prepare; raises JidError (RFC 7622, 3.1 and 3.2)."""
        return parse(text)

    @classmethod
    def of(cls, local: str, domain: str, resource: str = "") -> JID:
        """From parts that are not prepared yet."""
        return cls(
            _prepare_local(local) if local else "",
            _prepare_domain(domain),
            _prepare_resource(resource) if resource else "",
        )

    @property
    def bare(self) -> str:
        """localpart@domain, or the domain."""
        return f"{self.local}@{self.domain}" if self.local else self.domain

    @property
    def bare_jid(self) -> JID:
        """The same address without its resource."""
        return self if not self.resource else JID(self.local, self.domain, "")

    @property
    def is_bare(self) -> bool:
        """Whether there is no resource."""
        return not self.resource

    def __str__(self) -> str:
        return f"{self.bare}/{self.resource}" if self.resource else self.bare


def parse(text: str) -> JID:
    """`JID.parse`, cached."""
    if len(text) > _CACHEABLE:
        raise JidError("An address is at most 3,071 bytes long.")
    return _parse(text)


def prepare(text: str) -> str:
    """The prepared form of an address as a string; raises JidError."""
    if len(text) > _CACHEABLE:
        raise JidError("An address is at most 3,071 bytes long.")
    return _prepare(text)


@lru_cache(maxsize=CACHED)
def _prepare(text: str) -> str:
    return str(_parse(text))


@lru_cache(maxsize=CACHED)
def _parse(text: str) -> JID:
    if (reason := _refused.get(text)) is not None:
        raise JidError(reason)
    try:
        return _parse_anew(text)
    except JidError as fault:
        if len(_refused) >= REFUSED:
            del _refused[next(iter(_refused))]
        _refused[text] = str(fault)
        raise


def _parse_anew(text: str) -> JID:
    # RFC 7622, 3.1: cut at the first '/', then at the first '@' of what is before it.
    rest, slash, resource = text.partition("/")
    if slash and not resource:
        raise JidError("The resource is empty.")
    local, at, domain = rest.partition("@")
    if not at:
        local, domain = "", rest
    elif not local:
        raise JidError("The localpart is empty.")
    return JID.of(local, domain, resource)


def _checked(part: str, name: str) -> str:
    if not part:
        raise JidError(f"The {name} is empty.")
    if len(part.encode()) > PART_BYTES:
        raise JidError(f"The {name} is longer than 1,023 bytes.")
    return part


def _prepare_local(local: str) -> str:
    """RFC 7622, 3.3: the UsernameCaseMapped profile, without eight characters."""
    if _ASCII_LOCAL.match(local):
        return _checked(local.lower(), "localpart")
    if len(local) > PART_BYTES:
        raise JidError("The localpart is longer than 1,023 bytes.")
    try:
        prepared = str(_USERNAME.enforce(local))
    except UnicodeError as problem:
        raise JidError("The localpart has characters that are not allowed.") from problem
    if not _FORBIDDEN_LOCAL.isdisjoint(prepared):
        raise JidError("The localpart has characters that are not allowed.")
    return _checked(prepared, "localpart")


def _prepare_resource(resource: str) -> str:
    """RFC 7622, 3.4: the OpaqueString profile."""
    if _ASCII_RESOURCE.match(resource):
        return _checked(resource, "resource")
    if len(resource) > PART_BYTES:
        raise JidError("The resource is longer than 1,023 bytes.")
    try:
        return _checked(str(_OPAQUE.enforce(resource)), "resource")
    except UnicodeError as problem:
        raise JidError("The resource has characters that are not allowed.") from problem


def _prepare_domain(domain: str) -> str:
    """RFC 7622, 3.2: an IP literal, or a name of U-labels; a final dot is taken off."""
    undotted = domain.removesuffix(".")
    lower = undotted.lower()
    if _ASCII_DOMAIN.match(lower) and "xn--" not in lower and len(lower) <= 253:
        return lower
    if undotted.startswith("[") and undotted.endswith("]"):
        try:
            address = ipaddress.IPv6Address(undotted[1:-1])
        except ValueError as problem:
            raise JidError("The domain is not an IPv6 address.") from problem
        if address.scope_id is not None:  # means something on one machine only; RFC 3986, 3.2.2 has none
            raise JidError("The domain is an IPv6 address with a zone.")
        return f"[{address}]"
    if len(domain) > PART_BYTES:
        raise JidError("The domain is longer than 1,023 bytes.")
    try:
        # The mapping may make a final dot of other characters (U+3002).
        return _checked(idna.decode(idna.encode(domain, uts46=True)).removesuffix("."), "domain")
    except (idna.IDNAError, UnicodeError) as problem:
        raise JidError("The domain is not a host name.") from problem


def bare_of(prepared: str) -> str:
    """The bare JID of a prepared address."""
    return prepared.partition("/")[0]


def resource_of(prepared: str) -> str:
    """The resource of a prepared address, "" if it is bare."""
    return prepared.partition("/")[2]


def domain_of(prepared: str) -> str:
    """The domain of a prepared address."""
    return prepared.partition("/")[0].rpartition("@")[2]


def local_of(prepared: str) -> str:
    """The localpart of a prepared address, "" if it has none."""
    return prepared.partition("/")[0].rpartition("@")[0]
