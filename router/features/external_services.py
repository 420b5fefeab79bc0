"""External Service Discovery (XEP-0215): the STUN and TURN servers by which clients make calls, with credentials for
a while.

The credentials are those that coturn and others check by themselves (`use-auth-secret`): the name is the moment at
which they expire and something that tells users apart, the password its HMAC-SHA-1 under a secret that the TURN server
has, too. Nothing is kept here.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from hashlib import blake2b, sha1
from typing import Final

from cluster.config import ExternalService
from router.feature import At, Feature
from router.turn import Turn
from xmpp import ns
from xmpp.errors import BadRequest, Forbidden, ItemNotFound
from xmpp.stanza import Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element

feature = Feature("external_services", xep=((215, "1.0.0"),), server_features=(ns.EXTERNAL_SERVICES,))

_SERVICE: Final = f"{{{ns.EXTERNAL_SERVICES}}}service"


@feature.on_iq("get", ns.EXTERNAL_SERVICES, "services", at=At.SERVER)
def tell(turn: Turn, iq: Stanza) -> None:
    """3.1 and 3.2: all of them, or those of a type, with credentials at once."""
    node = iq.child(ns.EXTERNAL_SERVICES, "services")
    assert node is not None
    bare = _account(turn)
    type_ = node.get("type")
    found = [_written(turn, service, bare) for service in _services(turn) if type_ in (None, service.type)]
    turn.answer(iq, element("services", ns.EXTERNAL_SERVICES, {"type": type_}, *found))


@feature.on_iq("get", ns.EXTERNAL_SERVICES, "credentials", at=At.SERVER)
def give_credentials(turn: Turn, iq: Stanza) -> None:
    """3.3: for a service that the client knows."""
    node = iq.child(ns.EXTERNAL_SERVICES, "credentials")
    assert node is not None
    asked = node.find(_SERVICE)
    if asked is None or asked.get("host") is None or asked.get("type") is None:
        raise BadRequest("A service is named by its host and its type.")
    bare = _account(turn)
    named = (asked.get("host"), asked.get("type"))
    port = asked.get("port")
    found = [
        _written(turn, service, bare)
        for service in _services(turn)
        if (service.host, service.type) == named and port in (None, str(service.port))
    ]
    if not found:
        raise ItemNotFound("There is no such service.")
    turn.answer(iq, element("credentials", ns.EXTERNAL_SERVICES, None, *found))


def _account(turn: Turn) -> str:
    """Who asks: an account of this server, as what it gets costs."""
    if turn.session is None or turn.entity.is_peer:
        raise Forbidden("Accounts of this server alone may use its services.")
    return turn.entity.bare


def _services(turn: Turn) -> list[ExternalService]:
    return list(turn.settings.external_services.values())


def _written(turn: Turn, service: ExternalService, bare: str) -> bytes:
    name, password, expires = service.username or None, service.password or None, None
    if service.secret:
        until = int(turn.now) + service.ttl_s
        name = f"{until}:{_who(service.secret, bare)}"
        password = b64encode(hmac.digest(service.secret.encode(), name.encode(), sha1)).decode()
        expires = format_moment(until)
    attributes = {
        "type": service.type, "host": service.host, "port": str(service.port), "transport": service.transport,
        "name": service.name or None, "username": name, "password": password, "expires": expires,
        "restricted": "true" if password is not None else None,
    }  # fmt: skip
    return element("service", None, attributes)


def _who(secret: str, bare: str) -> str:
    """The same for a user each time, so that the TURN server can count; who it is, it cannot tell."""
    return blake2b(bare.encode(), key=blake2b(secret.encode()).digest(), digest_size=9, person=b"turn").hexdigest()
