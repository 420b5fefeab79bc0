"""The settings reference, docs/settings.md, made from the configuration's own declarations; a test holds it to them."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.config import Config, Section, is_secret

HEAD = """# Settings

One TOML file (`--config FILE`); every key also as an environment variable, `STENTOR_SECTION__KEY`, which wins over
the file, and as `--set section.key=value`, which wins over both. Lists and tables are JSON in variables and `--set`.
Unknown keys are errors. `stentor check config` prints every value and where it came from.

This page is generated from the code: `python -m stentor.reference > docs/settings.md`.
"""


def settings() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, field in Config.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        parts.append(
            f"\n## [{name}]\n\n{(model.__doc__ or '').strip()}\n\n| key | default | meaning |\n|---|---|---|\n"
        )
        parts += [_row(f"{name}.{key}", key, info) for key, info in model.model_fields.items()]
    return "".join(parts)


def _row(full: str, key: str, info: FieldInfo) -> str:
    return f"| `{key}` | {_default(full, info)} | {info.description or ''}{_range(info)} |\n"


def _default(full: str, info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "the host's name" if full == "node.name" else "computed"
    value: Any = info.default
    if value is PydanticUndefined:
        return "needed"
    if is_secret(full) and value == "":
        return "none"
    if isinstance(value, BaseModel):
        return "none"
    if isinstance(value, Path | Enum):
        value = str(value)
    return "none" if value is None else f"`{json.dumps(value)}`"


def _range(info: FieldInfo) -> str:
    bounds = [f"{name} {getattr(item, attr)}" for item in info.metadata
              for attr, name in (("ge", "at least"), ("gt", "more than"), ("le", "at most"))
              if getattr(item, attr, None) is not None]  # fmt: skip
    return f" ({', '.join(bounds)})" if bounds else ""


if __name__ == "__main__":
    print(settings(), end="")
