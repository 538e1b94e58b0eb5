"""What the wire forms of all resources share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
"""What users attach to an object of theirs."""


class Wire(BaseModel):
    """A request body: no guessing of types, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid")


def seconds(moment: datetime | None) -> int | None:
    """Returns seconds since 1970, as OpenAI tells times."""
    return int(moment.timestamp()) if moment else None
