"""What comes from another server (docs/moving.md). What is here stays: things are added where there is nothing."""
