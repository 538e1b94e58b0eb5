"""The integrations of a job on the wire: where else its numbers are shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from app.wire import Wire

OPENAIS = "wandb"
"""The one type that OpenAI's API has."""
TYPES = (OPENAIS, "tensorboard", "mlflow", "trackio")

Name = Annotated[str, Field(min_length=1, max_length=128)]


class Wandb(Wire):
    """Where the run shows up at Weights & Biases."""

    project: Name
    name: str | None = Field(default=None, max_length=128)
    entity: str | None = Field(default=None, max_length=128)
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(default=None, max_length=64)


class Mlflow(Wire):
    """Where the run shows up at the MLflow server or store of the service's operator."""

    experiment: Name
    name: Name | None = None


class Trackio(Wire):
    """Where the run shows up in the Trackio dashboard of the service's operator."""

    project: Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$")
    name: Name | None = None


class WandbIntegration(Wire):
    type: Literal["wandb"]
    wandb: Wandb


class TensorBoardIntegration(Wire):
    """Cherry: event files in the worker's folder."""

    type: Literal["tensorboard"]


class MlflowIntegration(Wire):
    """Cherry: a run of an experiment."""

    type: Literal["mlflow"]
    mlflow: Mlflow


class TrackioIntegration(Wire):
    """Cherry: a run of a project."""

    type: Literal["trackio"]
    trackio: Trackio


class UnknownIntegration(Wire):
    """What no type is; it is refused by its type."""

    type: Literal["wandb", "tensorboard", "mlflow", "trackio"]


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"~{kind}" if kind in TYPES else "~unknown"


Integration = Annotated[
    Annotated[WandbIntegration, Tag("~wandb")]
    | Annotated[TensorBoardIntegration, Tag("~tensorboard")]
    | Annotated[MlflowIntegration, Tag("~mlflow")]
    | Annotated[TrackioIntegration, Tag("~trackio")]
    | Annotated[UnknownIntegration, Tag("~unknown")],
    Discriminator(_kind),
]
