"""Rooms (XEP-0045): entities of the router that many users speak in."""
