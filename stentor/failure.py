"""How commands fail: one exception whose text is for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.config import Config, ConfigError


class Failed(Exception):
    """The command cannot do what it was asked. The text says what is wrong and what to do; no traceback follows."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def load_config(path: str | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration, or Failed with exit code 2 and every problem in it."""
    from cluster.config import ConfigError, load

    try:
        return load(path, overrides)
    except ConfigError as error:
        raise misconfigured(error) from None


def misconfigured(error: ConfigError) -> Failed:
    """What the operator reads of a wrong configuration."""
    return Failed("wrong configuration\n" + "\n".join(f"  {problem}" for problem in error.problems), 2)
