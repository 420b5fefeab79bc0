"""What browsers and web clients use: pages, WebSocket, BOSH, discovery; one listener for all (server.py)."""
