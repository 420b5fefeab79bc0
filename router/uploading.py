"""Which files somebody may send (XEP-0363): who may, how large, of which type, for how long, and what is said where
there is no room. Without I/O; `router/features/upload.py` asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from router.entity import Entity
from router.restrictions import is_guest
from router.settings import Settings, Uploads
from storage.uploads import Verdict
from xmpp import ns, upload
from xmpp.errors import BadRequest, NotAcceptable, ResourceConstraint
from xmpp.jid import domain_of
from xmpp.stanza import Stanza
from xmpp.timestamp import format_moment, parse_moment
from xmpp.xml import element

LEAST_BYTES: Final = 4_096  # a file counts as so many at least: files are not for nothing either
SOON_S: Final = 3_600.0  # where nobody knows when there is room again
KEPT: Final = ("permanent", "profile")
PURPOSES: Final = ("ephemeral", "message", *KEPT)


class Wanted(NamedTuple):
    """What a client asks for. `expire_before` is in Unix seconds, None without one."""

    name: str
    size: int
    type: str
    purpose: str
    expire_before: float | None

    @property
    def counts_as(self) -> int:
        """Its bytes, as far as quotas go."""
        return max(self.size, LEAST_BYTES)

    @property
    def is_kept(self) -> bool:
        """Whether it stays as long as the account does."""
        return self.purpose in KEPT


# --- who may


def services_for(settings: Settings, entity: Entity) -> dict[str, str]:
    """The services that somebody may use, each with the served domain that it is for: an account the one of its own, a
    component all of them."""
    offered, domain = settings.uploads, domain_of(entity.bare)
    if offered is None or entity.key is None:
        return {}
    is_named = entity.bare in offered.allow or domain in offered.allow
    if entity.is_peer:
        is_ours = is_named and domain in settings.components
        return {service: home for home, service in offered.domains.items()} if is_ours else {}
    if domain not in offered.domains or not (is_named or ("*" in offered.allow and not is_guest(entity))):
        return {}
    return {offered.domains[domain]: domain}


# --- what is asked for


def wanted_of(iq: Stanza, now: float) -> Wanted:
    """What a request says. Raises BadRequest, NotAcceptable."""
    request = iq.child(ns.HTTP_UPLOAD, "request")
    assert request is not None
    given, size = request.get("filename"), request.get("size", "").strip()
    if not given:
        raise BadRequest("A file has a name.")
    if not (size.isascii() and size.isdecimal() and len(size) <= 15 and int(size)):
        raise BadRequest("The size of a file is a number of bytes, one at least.")
    name, type = upload.clean_name(given), request.get("content-type", "")
    if not name:
        raise NotAcceptable("Choose another name for the file.")
    try:
        type = upload.clean_type(type) if type else ""
    except ValueError as problem:
        raise BadRequest("The content type is none.") from problem
    chosen = [child for child in request if str(child.tag).startswith(f"{{{ns.HTTP_UPLOAD_PURPOSE}}}")]
    if not chosen:
        return Wanted(name, int(size), type, "message", None)
    purpose = str(chosen[0].tag).rpartition("}")[2]
    if len(chosen) > 1 or purpose not in PURPOSES:
        raise BadRequest("The purpose of a file is one of message, profile, ephemeral and permanent.")
    before = None
    if purpose == "ephemeral":
        try:
            before = parse_moment(chosen[0].get("expire-before", "")) / 1_000_000
        except ValueError as problem:
            raise BadRequest("Say before when the file has to be gone.") from problem
        if before <= now:
            raise BadRequest("The file would be gone already.")
    return Wanted(name, int(size), type, purpose, before)


def largest(offered: Uploads) -> int:
    """The greatest file that there is room for, whatever else somebody has."""
    limits = (offered.file_bytes, offered.user_bytes, offered.day_bytes or offered.file_bytes)
    return min(limits)


def check_size(offered: Uploads, wanted: Wanted) -> None:
    """Raises NotAcceptable for what is too large or not kept at all."""
    most = largest(offered)
    if wanted.is_kept:
        if not offered.kept_bytes:
            raise NotAcceptable("Files are not kept for that purpose here.")
        most = min(offered.file_bytes, offered.kept_bytes, offered.day_bytes or offered.kept_bytes)
    if wanted.counts_as > most:
        told = element("max-file-size", None, None, str(most))
        raise NotAcceptable(
            f"File too large. The maximum file size is {most} bytes.",
            application=element("file-too-large", ns.HTTP_UPLOAD, None, told),
        )


def check_type(offered: Uploads, wanted: Wanted) -> None:
    """Raises NotAcceptable for what is not taken."""
    if not upload.is_among(wanted.type or upload.OCTETS, offered.types):
        raise NotAcceptable("Files of this type are not taken here.")


def expiry(offered: Uploads, wanted: Wanted, now: float) -> int:
    """When the file goes, in Unix seconds, or FOR_EVER."""
    if wanted.is_kept:
        return upload.FOR_EVER
    last = now + offered.expire_s
    return int(last if wanted.expire_before is None else min(last, wanted.expire_before))


def longest_s(offered: Uploads, size: int) -> int:
    """How long an upload may take."""
    return size // offered.slowest_bytes_per_s + 1


def refusal(offered: Uploads, wanted: Wanted, there: Verdict, now: float) -> ResourceConstraint:
    """Why there is no room, and when there will be (6): tomorrow, when files have expired, or nobody knows."""
    if wanted.is_kept and there.kept_bytes + wanted.counts_as > offered.kept_bytes:
        return ResourceConstraint("Your files that are kept for good leave no room for this one.")
    retry_at = 0.0
    text = "Your uploads of today leave no room for this one."
    if offered.day_bytes and there.day_bytes + wanted.counts_as > offered.day_bytes:
        retry_at = _next_day(now)
    if not wanted.is_kept and there.bytes + wanted.counts_as > offered.user_bytes:
        text = "Your files leave no room for this one."
        retry_at = max(retry_at, there.free_at or now + SOON_S)
    stamp = format_moment(max(retry_at, now + 1))
    return ResourceConstraint(text, application=element("retry", ns.HTTP_UPLOAD, {"stamp": stamp}))


def _next_day(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()
