"""Who is blocked (XEP-0191, 3.1): one question that several features ask."""

from __future__ import annotations

from router.entity import Entity


def is_blocked(entity: Entity, jid: str) -> bool:
    """Whether the entity has blocked this prepared address: as it is, its bare JID, its domain with this resource,
    or its whole domain. The entity itself never is."""
    blocks = entity.blocks
    if not blocks:
        return False
    bare, slash, resource = jid.partition("/")
    if bare == entity.bare:
        return False
    domain = bare.rpartition("@")[2]
    if jid in blocks or bare in blocks or domain in blocks:
        return True
    return bool(slash) and f"{domain}/{resource}" in blocks
