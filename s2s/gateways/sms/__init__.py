"""The SMS gateway (XEP-0100): an XMPP component on one side, an SMPP 3.4 client of an operator's SMSC on the other."""
