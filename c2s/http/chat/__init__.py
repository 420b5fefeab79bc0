"""The web chat at `/`: Converse.js (`vendor` fetches it), and what makes it ours."""
