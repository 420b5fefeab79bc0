"""What `stentor check` looks at and how it judges it; judging is pure, `federation.py` and `probe.py` do the I/O."""
