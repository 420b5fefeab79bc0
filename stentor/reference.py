"""References in docs/ (settings.md, settings-sms.md, xeps.md, admin-api.md), made from what the code declares; tests
hold them to it.

python -m stentor.reference settings > docs/settings.md
python -m stentor.reference settings-sms > docs/settings-sms.md
python -m stentor.reference xeps > docs/xeps.md
python -m stentor.reference admin-api > docs/admin-api.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.authentication import BACKENDS, Internal
from cluster.config import Authentication, Config, Settings, is_secret
from cluster.section import Section
from router import features
from router.feature import Feature
from s2s.gateways.sms.settings import SmsSettings
from stentor import api_reference

HEAD = """# Settings

One TOML file (`--config FILE`); every key also as an environment variable, `STENTOR_SECTION__KEY`, which wins over
the file, and as `--set section.key=value`, which wins over both. Lists and tables are JSON in variables and `--set`.
Unknown keys are errors. `stentor check config` prints every value and where it came from.

This page is generated from the code: `python -m stentor.reference settings > docs/settings.md`.
"""


SMS_HEAD = """# Settings of the SMS gateway

Its own TOML file (`stentor sms --config FILE`); every key also as an environment variable, `STENTOR_SECTION__KEY`,
which wins over the file, and as `--set section.key=value`, which wins over both. [gateways.md](gateways.md) says what
they are for, [examples/sms.toml](examples/sms.toml) is a file to begin with.

This page is generated from the code: `python -m stentor.reference settings-sms > docs/settings-sms.md`.
"""


def settings() -> str:
    """The page of the cluster's settings."""
    return HEAD + _sections(Config)


def sms_settings() -> str:
    """The page of the SMS gateway's."""
    return SMS_HEAD + _sections(SmsSettings)


def _sections(of: type[Settings]) -> str:
    parts = []
    for name, field in of.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        parts.append(
            f"\n## [{name}]\n\n{(model.__doc__ or '').strip()}\n\n| key | default | meaning |\n|---|---|---|\n"
        )
        parts += [_row(of, f"{name}.{key}", key, info) for key, info in model.model_fields.items()]
        if model is Authentication:
            parts += [_backend(of, kind, backend) for kind, backend in BACKENDS.items() if backend is not Internal]
    return "".join(parts)


def _backend(of: type[Settings], kind: str, model: type[Section]) -> str:
    """The table of what a domain is given with this back end."""
    head = f'\nWith `backend = "{kind}"`:\n\n| key | default | meaning |\n|---|---|---|\n'
    fields = sorted(model.model_fields.items(), key=lambda item: not item[1].is_required())  # what is needed first
    return head + "".join(_row(of, "", key, info) for key, info in fields if key != "backend")


def _row(of: type[Settings], full: str, key: str, info: FieldInfo) -> str:
    return f"| `{key}` | {_default(of, full, info)} | {info.description or ''}{_range(info)} |\n"


def _default(of: type[Settings], full: str, info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "the host's name" if full == "node.name" else "computed"
    value: Any = info.default
    if value is PydanticUndefined:
        return "needed"
    if value == "" and (is_secret(full, of) or not full):
        return "none"
    if isinstance(value, BaseModel):
        return "none"
    if isinstance(value, Path | Enum):
        value = str(value)
    return "none" if value is None else f"`{json.dumps(value)}`"


def _range(info: FieldInfo) -> str:
    bounds = [f"{name} {getattr(item, attr)}" for item in info.metadata
              for attr, name in (("ge", "at least"), ("gt", "more than"), ("le", "at most"))
              if getattr(item, attr, None) is not None]  # fmt: skip
    return f" ({', '.join(bounds)})" if bounds else ""


# --- extensions

XEPS_HEAD = """# Extensions

Which XEPs the server has, in which version, and in which file. What clients do among themselves (typing, receipts,
reactions, encryption) passes through and is not listed.

This page is generated from the code: `python -m stentor.reference xeps > docs/xeps.md`.
"""

XEP_NAMES: Final = {
    4: "Data Forms",
    12: "Last Activity",
    30: "Service Discovery",
    45: "Multi-User Chat",
    48: "Bookmarks",
    49: "Private XML Storage",
    50: "Ad-Hoc Commands",
    54: "vcard-temp",
    55: "Jabber Search",
    59: "Result Set Management",
    60: "Publish-Subscribe",
    65: "SOCKS5 Bytestreams",
    77: "In-Band Registration",
    82: "XMPP Date and Time Profiles",
    84: "User Avatar",
    92: "Software Version",
    114: "Jabber Component Protocol",
    115: "Entity Capabilities",
    124: "Bidirectional-streams Over Synchronous HTTP (BOSH)",
    128: "Service Discovery Extensions",
    133: "Service Administration",
    153: "vCard-Based Avatars",
    156: "Discovering Alternative XMPP Connection Methods",
    157: "Contact Addresses for XMPP Services",
    163: "Personal Eventing Protocol",
    158: "CAPTCHA Forms",
    160: "Best Practices for Handling Offline Messages",
    191: "Blocking Command",
    175: "Best Practices for Use of SASL ANONYMOUS",
    178: "Best Practices for Use of SASL EXTERNAL",
    185: "Dialback Key Generation and Validation",
    198: "Stream Management",
    199: "XMPP Ping",
    202: "Entity Time",
    203: "Delayed Delivery",
    206: "XMPP Over BOSH",
    215: "External Service Discovery",
    220: "Server Dialback",
    223: "Persistent Storage of Private Data via PubSub",
    232: "Software Information",
    237: "Roster Versioning",
    249: "Direct MUC Invitations",
    280: "Message Carbons",
    288: "Bidirectional Server-to-Server Connections",
    297: "Stanza Forwarding",
    313: "Message Archive Management",
    317: "Hats",
    333: "Displayed Markers",
    334: "Message Processing Hints",
    344: "Impact of TLS and DNSSEC on Dialback",
    352: "Client State Indication",
    353: "Jingle Message Initiation",
    357: "Push Notifications",
    356: "Privileged Entity",
    359: "Unique and Stable Stanza IDs",
    363: "HTTP File Upload",
    368: "SRV records for XMPP over TLS",
    372: "References",
    377: "Blocking Command Reports",
    379: "Pre-Authenticated Roster Subscription",
    384: "OMEMO Encryption",
    390: "Entity Capabilities 2.0",
    386: "Bind 2",
    388: "Extensible SASL Profile",
    398: "User Avatar to vCard-Based Avatars Conversion",
    401: "Ad-hoc Account Invitation Generation",
    402: "PEP Native Bookmarks",
    410: "MUC Self-Ping (Schrödinger's Chat)",
    421: "Occupant identifiers for semi-anonymous MUCs",
    424: "Message Retraction",
    425: "Moderated Message Retraction",
    430: "Inbox",
    431: "Full Text Search in MAM",
    433: "Extended Channel Search",
    437: "Room Activity Indicators",
    440: "SASL Channel-Binding Type Capability",
    441: "Message Archive Management Preferences",
    442: "Pubsub Message Archive Management",
    445: "Pre-Authenticated In-Band Registration",
    452: "MUC Mention Notifications",
    463: "MUC Affiliations Versioning",
    474: "SASL SCRAM Downgrade Protection",
    478: "Stream Limits Advertisement",
    480: "SASL Upgrade Tasks",
    484: "Fast Authentication Streamlining Tokens",
    486: "MUC Avatars",
    490: "Message Displayed Synchronization",
    492: "Chat notification settings",
    494: "Client Access Management",
    500: "MUC Slow Mode",
    509: "Initial Authentication Pipelining",
    513: "Explicit Mentions",
}


class Part(NamedTuple):
    """A XEP that is not a feature's alone, because it lives on the stream."""

    xep: int
    version: str
    files: tuple[str, ...]


ON_THE_STREAM: Final = (
    Part(114, "1.6", ("s2s/components.py",)),
    Part(124, "1.11.2", ("c2s/http/bosh.py", "c2s/http/bosh_session.py", "c2s/http/relay.py", "router/relaying.py")),
    Part(156, "1.4.0", ("c2s/http/hostmeta.py",)),
    Part(206, "1.4", ("c2s/http/bosh.py", "c2s/http/bosh_session.py", "c2s/http/framing.py")),
    Part(178, "1.2", ("c2s/client_certificates.py", "s2s/incoming.py", "s2s/outgoing.py", "s2s/certificates.py")),
    Part(185, "1.0", ("xmpp/dialback.py",)),
    Part(198, "1.6.3", ("c2s/management.py", "s2s/management.py", "router/resumption.py", "xmpp/sm.py")),
    Part(220, "1.1.1", ("xmpp/dialback.py", "s2s/dialback.py", "s2s/outgoing.py")),
    Part(288, "1.0.1", ("s2s/incoming.py", "s2s/outgoing.py")),
    Part(344, "0.4", ("s2s/dialback.py",)),
    Part(352, "1.0.0", ("c2s/stream.py", "router/client_state.py")),
    Part(368, "1.1.0", ("c2s/tls.py", "s2s/srv.py", "s2s/tls.py")),
    Part(386, "1.1.0", ("c2s/sasl2.py", "router/directory.py", "router/features/devices.py")),
    Part(388, "1.0.4", ("c2s/sasl2.py",)),
    Part(440, "1.0.0", ("c2s/features.py", "c2s/channel_binding.py")),
    Part(445, "0.2.0", ("c2s/features.py", "c2s/newcomer.py", "router/admission.py")),
    Part(474, "0.5.0", ("xmpp/sasl.py",)),
    Part(480, "0.2.0", ("c2s/upgrades.py", "router/calls.py")),
    Part(484, "0.2.0", ("c2s/sasl2.py", "router/tokens.py", "xmpp/tokens.py")),
    Part(509, "0.2.0", ("c2s/features.py", "c2s/sasl2.py")),
    Part(478, "0.2.0", ("c2s/features.py", "s2s/features.py")),
)
WEBSOCKET_FILES: Final = ("c2s/http/websocket.py", "c2s/http/framing.py", "c2s/http/frames.py")
_FEATURE_FILES: Final = {
    module.feature.name: f"router/features/{name}.py"
    for name, module in vars(features).items()
    if isinstance(getattr(module, "feature", None), Feature)
}


def xeps() -> str:
    """The whole page."""
    of_features = [
        Part(number, version, (_FEATURE_FILES[feature.name],))
        for feature in features.ALL
        for number, version in feature.xep
    ]
    parts = [
        XEPS_HEAD,
        "\n## What features declare\n\n",
        *_table(of_features),
        "\n## On the stream\n\n",
        *_table(ON_THE_STREAM),
        "\n## Without a XEP\n\n| what | where |\n|---|---|\n",
        *(
            f"| {feature.rfc} | {_links((_FEATURE_FILES[feature.name],))} |\n"
            for feature in features.ALL
            if feature.rfc
        ),
        f"| XMPP over WebSocket (RFC 7395) | {_links(WEBSOCKET_FILES)} |\n",
        "\n## What service discovery tells\n\n| of | features |\n|---|---|\n",
        _told("the domain", (name for feature in features.ALL for name in feature.server_features)),
        _told("an account", (name for feature in features.ALL for name in feature.account_features)),
    ]
    return "".join(parts)


def _table(parts: Iterable[Part]) -> list[str]:
    rows = [f"| {_xep(part.xep)} | {part.version} | {_links(part.files)} |\n" for part in sorted(parts)]
    return ["| XEP | name | version | where |\n|---|---|---|---|\n", *rows]


def _xep(number: int) -> str:
    return f"[{number:04}](https://xmpp.org/extensions/xep-{number:04}.html) | {XEP_NAMES[number]}"


def _links(files: Iterable[str]) -> str:
    return ", ".join(f"[`{file}`](../{file})" for file in files)


def _told(whose: str, names: Iterable[str]) -> str:
    return f"| {whose} | {', '.join(f'`{name}`' for name in sorted(set(names)))} |\n"


PAGES: Final = {"settings": settings, "settings-sms": sms_settings, "xeps": xeps, "admin-api": api_reference.page}


if __name__ == "__main__":
    print(PAGES[sys.argv[1] if len(sys.argv) > 1 else "settings"](), end="")
