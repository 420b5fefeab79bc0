"""A person with nbxmpp, the library of Gajim. Run by Debian's Python, which has it: signs in, does what standard input
asks, one JSON array a line, and answers likewise. Nothing of the project is imported here."""

import json
import sys
from typing import Any

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.namespaces import Namespace
from nbxmpp.protocol import JID, Presence
from nbxmpp.structs import BookmarkData, DiscoIdentity, StanzaHandler, TuneData

host, port, domain, username, password = sys.argv[1:6]
client = Client(log_context="person")


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def finished(task: Any) -> None:
    """The answer to a request."""
    try:
        result = task.finish()
    except Exception as error:
        say({"error": getattr(error, "condition", None) or str(error)})
        return
    if isinstance(result, (list, tuple)) and result and isinstance(result[0], BookmarkData):
        result = [[str(mark.jid), mark.name, mark.autojoin, mark.nick] for mark in result]
    say({"result": result if isinstance(result, (list, dict, str, int, type(None))) else str(result)})


def run(words: list[Any]) -> None:
    name, arguments = words[0], words[1:]
    if name == "presence":
        caps = client.get_module("EntityCaps")
        caps.set_caps([DiscoIdentity("client", "pc", name=arguments[0])], arguments[1], "https://gajim.example")
        presence = Presence()
        presence.setTag("c", namespace=Namespace.CAPS, attrs=caps.caps._asdict())
        client.send_stanza(presence)
        say({"result": "sent"})
    elif name == "tune":
        client.get_module("Tune").set_tune(TuneData(artist=arguments[0], title=arguments[1]), callback=finished)
    elif name == "set devices":
        client.get_module("OMEMO").set_devicelist(arguments[0], callback=finished)
    elif name == "devices":
        client.get_module("OMEMO").request_devicelist(JID.from_string(arguments[0]), callback=finished)
    elif name == "bookmark":
        mark = BookmarkData(JID.from_string(arguments[0]), name=arguments[1], autojoin=True)
        client.get_module("NativeBookmarks").store_bookmarks([mark])
        say({"result": "sent"})
    else:
        module = {"bookmarks": "NativeBookmarks", "old bookmarks": "PrivateBookmarks", "pep bookmarks": "PEPBookmarks"}
        client.get_module(module[name]).request_bookmarks(callback=finished)


def on_event(_client: Any, stanza: Any, properties: Any) -> None:
    if properties.is_pubsub_event:
        event = properties.pubsub_event
        say({"event": event.node, "id": getattr(event, "id", None), "data": str(event.data)})


def on_line(channel: GLib.IOChannel, condition: Any) -> bool:
    line = sys.stdin.readline()
    if not line:
        loop.quit()
        return False
    run(json.loads(line))
    return True


def on_signed_in(_client: Any, _signal: str) -> None:
    say({"jid": str(client.get_bound_jid())})
    GLib.io_add_watch(
        GLib.IOChannel.unix_new(0), GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, on_line
    )


def on_end(_client: Any, _signal: str) -> None:
    say({"error": str(client.get_error())})
    loop.quit()


client.set_domain(domain)
client.set_username(username)
client.set_password(password)
client.set_resource("nbxmpp")
client.set_ignore_tls_errors(True)
client.set_custom_host(f"{host}:{port}", ConnectionProtocol.TCP, ConnectionType.START_TLS)
client.subscribe("connected", on_signed_in)
client.subscribe("connection-failed", on_end)
client.subscribe("disconnected", on_end)
client.register_handler(StanzaHandler(name="message", callback=on_event, ns=Namespace.PUBSUB_EVENT, priority=60))
loop = GLib.MainLoop()
client.connect()
loop.run()
