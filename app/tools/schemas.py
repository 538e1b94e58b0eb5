"""Tools on the wire, as Azure's jobs have them, and Cherry's that run here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.wire import Wire
from graders.judges.spec import Headers

MAX_TOOLS = 128
"""Most tools of a job: OpenAI's bound for the functions of a chat call."""

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Tool(Wire):
    """A function that the policy may call: its rows list it under `tools` by this name."""

    name: ToolName
    server_url: str | None = Field(default=None, min_length=1, max_length=2048)
    headers: Headers | None = None
    python: str | None = Field(
        default=None,
        min_length=1,
        description="Cherry: Python that defines a function of this name, run in the sandbox.",
        json_schema_extra={"x-cherry": True},
    )


class Tools(Wire):
    """Holds the tools of a job."""

    tools: list[Tool] = Field(max_length=MAX_TOOLS)
