"""Declares the wire format of the grader `rlvr`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from graders.intervals import Interval
from graders.judges.spec import JudgeSpec
from graders.spec_base import GraderName, NamedSpec, TemplateText


class RlvrSpec(NamedSpec):
    """Asks for the score of the verifier that each row names, as open-instruct's data does: an extension."""

    type: Literal["rlvr"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    input: TemplateText = "{{sample.output_text}}"
    """What of the answer is verified."""
    dataset: TemplateText = "{{item.dataset}}"
    """The verifier's name, or a list of names."""
    ground_truth: TemplateText = "{{item.ground_truth}}"
    """What the verifier compares with; a list beside a list of names."""
    remap: dict[str, str] = Field(default_factory=dict)
    """Names of verifiers to be read as others."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """The sum of the verifiers' scores is multiplied by this; open-instruct has 10."""
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """For `code`: a lower share of passed tests counts as 0."""
    max_length: Annotated[int, Field(ge=1, le=1_000_000)] = 8192
    """For `max_length`: the score falls by 1 over this many tokens."""
    judge: JudgeSpec | None = None
    """For `general-*` and `rubric`: the model that scores them, as in `score_model`."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def reward_range(self) -> Interval:
        """Returns the range of a row with one verifier, as nearly all have; several add up."""
        return Interval(0.0, self.scale)

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        yield "dataset", self.dataset
        yield "ground_truth", self.ground_truth
