"""Temporary."""
def server_caps(features, settings): return b""
