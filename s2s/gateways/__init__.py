"""Gateways to other networks: external components (XEP-0114) that any XMPP server can have, not only this one."""
