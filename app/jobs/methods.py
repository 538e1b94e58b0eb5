"""The training method of a request: which one, its hyperparameters, its grader."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model, model_validator

from app.tools.schemas import MAX_TOOLS, Environment, Tool
from app.wire import Wire
from methods.hyperparameters import request_fields
from methods.run_config import RequestOnly
from methods.train_config import MAX_EPISODE_STEPS, TrainConfig
from methods.tune_config import TuneConfig


def _named_block(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"~{kind}" if kind in ("supervised", "dpo", "reinforcement") else "~unknown"


class AutoHyperparameters(Wire):
    """null asks for the default, as leaving a name out does."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}


SupervisedHyperparameters = create_model(
    "SupervisedHyperparameters",
    __base__=AutoHyperparameters,
    __doc__="OpenAI's hyperparameters of a supervised job, and Cherry's beside them (docs/methods.md).",
    **request_fields(RequestOnly, "supervised"),
    **request_fields(TuneConfig, "supervised"),
)
DpoHyperparameters = create_model(
    "DpoHyperparameters",
    __base__=AutoHyperparameters,
    **request_fields(RequestOnly, "dpo"),
    **request_fields(TuneConfig, "dpo"),
)
Hyperparameters = create_model(
    "Hyperparameters",
    __base__=AutoHyperparameters,
    __doc__="OpenAI's hyperparameters of a reinforcement job, and Cherry's beside them (docs/extensions.md).",
    **request_fields(RequestOnly, "reinforcement"),
    **request_fields(TrainConfig, "reinforcement"),
)


class Reinforcement(Wire):
    grader: dict[str, Any]
    hyperparameters: Hyperparameters | None = None
    response_format: Any = None
    tools: list[Tool] | None = Field(
        default=None,
        max_length=MAX_TOOLS,
        description="Azure's: functions that the policy may call, in several turns.",
        json_schema_extra={"x-cherry": True},
    )
    environment: Environment | None = Field(
        default=None,
        description="Cherry: who replies beside tools (docs/tools.md, docs/environments.md).",
        json_schema_extra={"x-cherry": True},
    )
    max_episode_steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_EPISODE_STEPS,
        description="Azure's: most turns of the policy in an episode; 10 by default.",
        json_schema_extra={"x-cherry": True},
    )
    gold_grader: dict[str, Any] | None = Field(
        default=None,
        description="Cherry: a grader that evaluations are measured by too, and that is never trained on.",
        json_schema_extra={"x-cherry": True},
    )


class Supervised(Wire):
    hyperparameters: SupervisedHyperparameters | None = None


class Dpo(Wire):
    hyperparameters: DpoHyperparameters | None = None


class ReinforcementMethod(Wire):
    """Blocks of other methods may be present, as the official client sends them; they are not read."""

    type: Literal["reinforcement"]
    reinforcement: Reinforcement
    supervised: Any = None
    dpo: Any = None


class SupervisedMethod(Wire):
    type: Literal["supervised"]
    supervised: Supervised | None = None
    dpo: Any = None
    reinforcement: Any = None


class DpoMethod(Wire):
    type: Literal["dpo"]
    dpo: Dpo | None = None
    supervised: Any = None
    reinforcement: Any = None


class UnknownMethod(Wire):
    """What names no method of ours: it fails on its type."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Any = None
    dpo: Any = None
    reinforcement: Any = None


Method = Annotated[
    Annotated[ReinforcementMethod, Tag("~reinforcement")]
    | Annotated[SupervisedMethod, Tag("~supervised")]
    | Annotated[DpoMethod, Tag("~dpo")]
    | Annotated[UnknownMethod, Tag("~unknown")],
    Discriminator(_named_block),
]
