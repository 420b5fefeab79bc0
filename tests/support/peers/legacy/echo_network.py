"""A legacy network for slidge: everybody may register, has one friend, and the friend repeats what it is told."""

import signal
from typing import Any

from slidge import BaseGateway, BaseSession
from slidge.contact import LegacyContact

FRIEND = "friend"
ELSEWHERE = "elsewhere: "  # what follows, the user has written by another app of the network

# COMPAT: slidge 0.4.2 makes SIGTERM an Exception, which is caught with the others, and lost, if it comes while a stanza is
# handled. This one is not caught, and ends slidge in the same way.
signal.signal(signal.SIGTERM, signal.default_int_handler)


class Gateway(BaseGateway):
    COMPONENT_NAME = "Echo network"
    REGISTRATION_FIELDS = ()

    async def validate(self, user_jid: Any, registration_form: Any) -> None:
        """Nobody is refused."""


class Contact(LegacyContact):
    async def on_message(self, message: Any) -> None:
        """Repeat it, or let the user hear what they have written elsewhere (XEP-0356, 5)."""
        text = message.body.removeprefix(ELSEWHERE)
        self.send_text(text, carbon=text != message.body)


class Session(BaseSession):
    async def login(self) -> str:
        """The user's status on the network, once the friend is in the roster."""
        friend = await self.contacts.by_legacy_id(FRIEND)
        friend.name = "A friend"
        friend.is_friend = True
        await friend.add_to_roster()
        friend.online()
        return "connected"
