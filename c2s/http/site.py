"""Everything that a c2s has for HTTP, put together: the listeners, the transports of streams, the pages."""

from __future__ import annotations

from c2s.attempts import Attempts
from c2s.connections import Connections
from c2s.http import clients
from c2s.http.bosh import Bosh
from c2s.http.chat.page import ChatPage
from c2s.http.hostmeta import HostMeta
from c2s.http.invite_page import InvitePage
from c2s.http.relay import Relay
from c2s.http.server import HttpServer
from c2s.http.upload import Uploads
from c2s.http.websocket import WebSockets
from c2s.tls import ServerTls
from cluster.config import Config
from cluster.edge import Edge
from cluster.files import open_files
from cluster.wire import Incarnation


class Site:
    """One per process. Raises CannotStart, CertificateError."""

    def __init__(
        self, config: Config, edge: Edge, connections: Connections, attempts: Attempts, incarnation: Incarnation,
        relay: Relay,
    ) -> None:  # fmt: skip
        tls = ServerTls(config.tls.pairs(config.server.domains), alpn=("http/1.1",))
        self.server = HttpServer(config.http, tls)
        WebSockets(self.server, connections, tls)
        HostMeta(self.server, config.http.public_url, frozenset(config.server.domains))
        Bosh(self.server, connections, config, incarnation, relay)
        has_chat = config.http.chat and ChatPage(self.server, config).is_installed
        suggested = clients.read(config.http.clients)
        files = open_files(config)
        if files is not None:
            Uploads(self.server, edge, config, files)
        InvitePage(self.server, edge, config.server.domains[0], suggested, attempts, has_chat=has_chat)
