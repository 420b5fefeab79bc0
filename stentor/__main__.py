"""`python -m stentor`: how the supervisor starts processes."""

from stentor.cli import main

main()
