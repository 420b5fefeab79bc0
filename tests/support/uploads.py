"""Slots and files (XEP-0363), as tests ask for them: a slot by a client's stream, files by plain HTTP."""

from __future__ import annotations

import http.client
from typing import NamedTuple
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

from tests.support.client import Client, Element, condition
from tests.support.cluster import FACTOR, RunningCluster

UPLOAD = "urn:xmpp:http:upload:0"
PURPOSE = "urn:xmpp:http:upload:purpose:0"
NS = f"{{{UPLOAD}}}"


class Slot(NamedTuple):
    put: str
    get: str
    headers: dict[str, str]


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]  # names in small letters


def ask_slot(
    client: Client, name: str = "a.bin", size: int = 5, type: str | None = None, inner: str = "", service: str = ""
) -> Element:
    """The answer to a request for a slot."""
    kind = f" content-type={quoteattr(type)}" if type is not None else ""
    request = f"<request xmlns='{UPLOAD}' filename={quoteattr(name)} size='{size}'{kind}>{inner}</request>"
    return client.iq("get", request, service or f"upload.{client.domain}")


def slot_of(answer: Element) -> Slot:
    """The slot in an answer."""
    assert answer.get("type") == "result", condition(answer)
    put, get = answer.find(f"{NS}slot/{NS}put"), answer.find(f"{NS}slot/{NS}get")
    assert put is not None
    assert get is not None
    headers = {header.get("name") or "": header.text or "" for header in put.iter(f"{NS}header")}
    return Slot(put.get("url") or "", get.get("url") or "", headers)


def slot(client: Client, name: str = "a.bin", size: int = 5, type: str | None = None, inner: str = "") -> Slot:
    """A slot."""
    return slot_of(ask_slot(client, name, size, type, inner))


def request(
    cluster: RunningCluster, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """One HTTP request on a connection of its own; the path goes out as it is in the URL."""
    connection = http.client.HTTPConnection(cluster.host, cluster.facts["ports"]["http"], timeout=30 * FACTOR)
    try:
        connection.request(method, urlsplit(url).path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


def put(cluster: RunningCluster, slot: Slot, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """Put a file as the slot says."""
    return request(cluster, "PUT", slot.put, body, slot.headers | (headers or {}))


def get(cluster: RunningCluster, slot: Slot, headers: dict[str, str] | None = None) -> Answer:
    """Fetch it."""
    return request(cluster, "GET", slot.get, None, headers)
