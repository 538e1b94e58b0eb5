"""What a run costs: the operator's table of prices, for models that grade and for the device that trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from graders import TokenUsage

PER = 1_000_000
"""Prices of models are for so many tokens, as their sellers name them."""
SECONDS_PER_HOUR = 3600


class ModelPrice(BaseModel):
    """What a million tokens of one model cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(default=0.0, ge=0)
    cached: float | None = Field(default=None, ge=0)
    """Of prompt tokens out of the model's cache; None where they cost what others do."""

    def of(self, usage: TokenUsage) -> float:
        """Returns what these tokens cost."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        spent = fresh * self.input + usage.cached_tokens * cached + usage.completion_tokens * self.output
        return spent / PER


class Prices(BaseModel):
    """The operator's prices, all in one currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(default="USD", max_length=16)
    device_hour: float = Field(default=0.0, ge=0)
    """Of one process of a training: of one GPU, or of a CPU process."""
    models: dict[str, ModelPrice] = Field(default_factory=dict)
    """By the names that graders give models that grade."""

    def unpriced(self, models: Iterable[str]) -> list[str]:
        """Returns those of these models that have no price."""
        return sorted(set(models) - set(self.models))

    def cost(self, usage: Mapping[str, TokenUsage], device_seconds: float) -> float:
        """Returns what tokens and time cost; a model without a price adds nothing."""
        asked = sum(self.models[model].of(tokens) for model, tokens in usage.items() if model in self.models)
        return asked + self.device_hour * device_seconds / SECONDS_PER_HOUR
