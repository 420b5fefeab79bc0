"""What every section of a configuration is made of (`cluster/config.py` has the sections)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

SECRET: Final[dict[str, Any]] = {"secret": True}  # never shown: not in errors, not by `stentor check config`

Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Secret = Annotated[str, Field(repr=False, json_schema_extra=SECRET)]


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
