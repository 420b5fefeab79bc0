"""Publish-subscribe (XEP-0060): the nodes of accounts (XEP-0163) and of services of their own (docs/pubsub.md)."""
