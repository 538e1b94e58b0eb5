"""Tools on the wire, as Azure's jobs have them, and Cherry's that run here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from app.wire import Wire
from graders.judges.spec import Headers, KeyName, SamplingParams
from graders.spec_base import TemplateText

MAX_TOOLS = 128
"""Most tools of a job: OpenAI's bound for the functions of a chat call."""

STOP = "###STOP###"
"""What a simulated user says to end the conversation where a job does not say: that of tau-bench."""

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


class UserSimulator(Wire):
    """A model that plays the user: after a turn without calls it writes the user's next message."""

    type: Literal["user_simulator"]
    model: str = Field(min_length=1, max_length=256, description="A judge, as `score_model` graders name it.")
    instructions: TemplateText = Field(
        min_length=1, description="Who the user is and what it wants, with `{{item.key}}` of each row."
    )
    stop: str = Field(
        default=STOP, min_length=1, max_length=64, description="A reply that holds it ends the episode."
    )
    sampling_params: SamplingParams | None = None
    base_url: str | None = Field(default=None, min_length=1, max_length=2048)
    api_key_name: KeyName | None = None


class NamedEnvironment(Wire):
    """An environment that the operator has installed: it replies to every turn, and may judge the episode."""

    type: Literal["named"]
    name: str = Field(
        min_length=1, max_length=64, description="Its name: `GET /v1/fine_tuning/environments`."
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="What it is made with, as far as the operator lets a job say so."
    )


class AnyEnvironment(Wire):
    """An environment of any kind, as far as its type: what names none fails on that."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["user_simulator", "named"]


def _environment_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"~{kind}" if kind in ("user_simulator", "named") else "~unknown"


Environment = Annotated[
    Annotated[UserSimulator, Tag("~user_simulator")]
    | Annotated[NamedEnvironment, Tag("~named")]
    | Annotated[AnyEnvironment, Tag("~unknown")],
    Discriminator(_environment_tag),
]


class Tools(Wire):
    """Holds the tools of a job."""

    tools: list[Tool] = Field(max_length=MAX_TOOLS)
