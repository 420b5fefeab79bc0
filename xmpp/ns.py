"""Every namespace the server knows, once: RFCs first, then XEPs in order of their numbers."""

from __future__ import annotations

from typing import Final

# RFC 6120, 6121
STREAMS: Final = "http://etherx.jabber.org/streams"
CLIENT: Final = "jabber:client"
SERVER: Final = "jabber:server"
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND: Final = "urn:ietf:params:xml:ns:xmpp-bind"
SESSION: Final = "urn:ietf:params:xml:ns:xmpp-session"  # RFC 3921, 3
STANZAS: Final = "urn:ietf:params:xml:ns:xmpp-stanzas"
STREAM_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-streams"
ROSTER: Final = "jabber:iq:roster"
ROSTERVER_FEATURE: Final = "urn:xmpp:features:rosterver"
SUBSCRIPTION_PREAPPROVAL_FEATURE: Final = "urn:xmpp:features:pre-approval"
XML: Final = "http://www.w3.org/XML/1998/namespace"

# XEPs
DATA_FORMS: Final = "jabber:x:data"  # 0004
LAST: Final = "jabber:iq:last"  # 0012
DISCO_INFO: Final = "http://jabber.org/protocol/disco#info"  # 0030
DISCO_ITEMS: Final = "http://jabber.org/protocol/disco#items"
MUC: Final = "http://jabber.org/protocol/muc"  # 0045
MUC_USER: Final = "http://jabber.org/protocol/muc#user"
MUC_ADMIN: Final = "http://jabber.org/protocol/muc#admin"
MUC_OWNER: Final = "http://jabber.org/protocol/muc#owner"
OCCUPANT_ID: Final = "urn:xmpp:occupant-id:0"  # 0421
ADDRESS: Final = "http://jabber.org/protocol/address"  # 0033
PUBSUB: Final = "http://jabber.org/protocol/pubsub"  # 0060
IBB: Final = "http://jabber.org/protocol/ibb"  # 0047
PRIVATE: Final = "jabber:iq:private"  # 0049
COMMANDS: Final = "http://jabber.org/protocol/commands"  # 0050
VCARD: Final = "vcard-temp"  # 0054
VCARD_UPDATE: Final = "vcard-temp:x:update"  # 0153
RSM: Final = "http://jabber.org/protocol/rsm"  # 0059
PUBSUB_EVENT: Final = "http://jabber.org/protocol/pubsub#event"  # 0060
REGISTER: Final = "jabber:iq:register"  # 0077
REGISTER_FEATURE: Final = "http://jabber.org/features/iq-register"
CHAT_STATES: Final = "http://jabber.org/protocol/chatstates"  # 0085
VERSION: Final = "jabber:iq:version"  # 0092
GATEWAY: Final = "jabber:iq:gateway"  # 0100
COMPONENT: Final = "jabber:component:accept"  # 0114
CAPS: Final = "http://jabber.org/protocol/caps"  # 0115
VALIDATE: Final = "http://jabber.org/protocol/xdata-validate"  # 0122
RECEIPTS: Final = "urn:xmpp:receipts"  # 0184
BLOCKING: Final = "urn:xmpp:blocking"  # 0191
BLOCKING_ERRORS: Final = "urn:xmpp:blocking:errors"
SM: Final = "urn:xmpp:sm:3"  # 0198
PING: Final = "urn:xmpp:ping"  # 0199
TIME: Final = "urn:xmpp:time"  # 0202
DELAY: Final = "urn:xmpp:delay"  # 0203
DIALBACK: Final = "jabber:server:dialback"  # 0220
DIALBACK_FEATURE: Final = "urn:xmpp:features:dialback"
SERVER_INFO: Final = "http://jabber.org/network/serverinfo"  # 0157
EXTERNAL_SERVICES: Final = "urn:xmpp:extdisco:2"  # 0215
SOFTWARE_INFO: Final = "urn:xmpp:dataforms:softwareinfo"  # 0232
DIRECT_INVITATION: Final = "jabber:x:conference"  # 0249
CARBONS: Final = "urn:xmpp:carbons:2"  # 0280
CARBONS_RULES: Final = "urn:xmpp:carbons:rules:0"
BIDI: Final = "urn:xmpp:bidi"  # 0288
BIDI_FEATURE: Final = "urn:xmpp:features:bidi"
FORWARD: Final = "urn:xmpp:forward:0"  # 0297
RTT: Final = "urn:xmpp:rtt:0"  # 0301
HATS: Final = "urn:xmpp:hats:0"  # 0317
HATS_COMMANDS: Final = "urn:xmpp:hats:commands"
MAM: Final = "urn:xmpp:mam:2"  # 0313
MAM_EXTENDED: Final = "urn:xmpp:mam:2#extended"
MAM_GROUPCHAT_FIELD: Final = "urn:xmpp:mam:2#groupchat-field"
MARKERS: Final = "urn:xmpp:chat-markers:0"  # 0333
HINTS: Final = "urn:xmpp:hints"  # 0334
CSI: Final = "urn:xmpp:csi:0"  # 0352
REFERENCE: Final = "urn:xmpp:reference:0"  # 0372
PRIVILEGE: Final = "urn:xmpp:privilege:2"  # 0356
SID: Final = "urn:xmpp:sid:0"  # 0359
RETRACT: Final = "urn:xmpp:message-retract:1"  # 0424
RETRACT_TOMBSTONE: Final = "urn:xmpp:message-retract:1#tombstone"
MODERATE: Final = "urn:xmpp:message-moderate:1"  # 0425
FULL_TEXT: Final = "urn:xmpp:fulltext:0"  # 0431
CHANNEL_SEARCH: Final = "urn:xmpp:channel-search:0:search"  # 0433
CHANNEL_SEARCH_PARAMETERS: Final = "urn:xmpp:channel-search:0:search-params"
CHANNEL_SEARCH_ORDER: Final = "urn:xmpp:channel-search:0:order"
CHANNEL_SEARCH_ERROR: Final = "urn:xmpp:channel-search:0:error"
ROOM_ACTIVITY: Final = "urn:xmpp:rai:0"  # 0437
SASL_CHANNEL_BINDING: Final = "urn:xmpp:sasl-cb:0"  # 0440
MAM_PREFERENCES: Final = "urn:xmpp:mam:2"  # 0441 keeps the namespace of 0313
MENTIONED: Final = "urn:xmpp:mmn:0"  # 0452
AFFILIATIONS: Final = "urn:xmpp:muc:affiliations:1"  # 0463
STREAM_LIMITS: Final = "urn:xmpp:stream-limits:0"  # 0478
MENTIONS: Final = "urn:xmpp:mentions:0"  # 0513
