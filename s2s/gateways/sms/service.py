"""The gateway as a process: `stentor sms --config FILE`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from cluster.admin import Check
from cluster.process import CannotStart, Drain, Process
from s2s.gateways.sms import metrics, pdu
from s2s.gateways.sms.gateway import Gateway
from s2s.gateways.sms.settings import SmsSettings
from s2s.gateways.sms.store import Store, StoreError


class SmsApplication:
    """Ready while both sides are connected. It starts without them, and waits."""

    role = "sms"

    def __init__(self, settings: SmsSettings) -> None:
        self._settings = settings
        self._store = Store(settings.store.file)
        self._gateway: Gateway | None = None

    def ready_checks(self) -> Mapping[str, Check]:
        """The XMPP server, and each link to the SMSC."""
        gateway = self._gateway
        if gateway is None:
            return {}
        links = {pdu.NAMES[link.kind]: lambda link=link: link.problem or None for link in gateway.links}
        return {"component": lambda: gateway.connection.problem or None, **links}

    async def start(self, process: Process) -> None:
        """Open the store, and begin to connect."""
        try:
            await self._store.open()
        except StoreError as error:
            remedy = (
                "another gateway uses it: each needs a file of its own"
                if "locked" in str(error)
                else "check that the folder exists and can be written"
            )
            raise CannotStart(f"store.file {self._settings.store.file}: {error}; {remedy}") from None
        smpp = self._settings.smpp
        try:
            context = ssl.create_default_context(cafile=smpp.ca) if smpp.tls else None
        except OSError as error:
            raise CannotStart(f"smpp.ca {smpp.ca}: {error}; name a file of certificates, PEM") from None
        self._gateway = Gateway(self._settings, self._store, context)
        metrics.export(self._gateway.connection, self._gateway.links)
        self._gateway.start(process)

    async def drain(self, drain: Drain) -> None:
        """Take nothing more; wait for the SMSC's answers."""
        assert self._gateway is not None
        await self._gateway.drain(drain)

    async def stop(self) -> None:
        """Close links and store."""
        if self._gateway is not None:
            await self._gateway.close()
        await self._store.close()


def application(settings: SmsSettings) -> SmsApplication:
    """The application of these settings."""
    return SmsApplication(settings)
