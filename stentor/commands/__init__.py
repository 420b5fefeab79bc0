"""One file per group of commands. What is heavy is imported inside the commands: `stentor --help` must be quick."""
