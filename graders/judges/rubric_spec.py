"""Declares the wire format of the grader `rubric`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from graders.judges.criteria import MAX_CRITERIA, MAX_CRITERION, MAX_NAME, MAX_POINTS, MAX_TAGS
from graders.judges.spec import AskingSpec
from graders.judges.verdicts import RESERVED
from graders.spec_base import SpecModel, TemplateText, invalid, refuse, text_or_list
from graders.template import Template

ROW_CRITERIA = 10
"""Criteria that a row's rubric has as a rule: HealthBench's 5,000 rows have 48,562."""


def _of_the_row(text: str) -> str:
    if Template.parse(text).reads_sample:
        refuse(lambda: invalid("A criterion may read 'item' only, never the model's answer."))
    if not text.strip():
        refuse(lambda: invalid("A criterion needs a text."))
    return text


def _names_a_field(text: str) -> str:
    template = Template.parse(text)
    if template.reads_sample or not template.variables:
        message = "It must be a list of criteria, or name the row's, such as {{item.rubrics}}."
        refuse(lambda: invalid(message))
    return text


class CriterionSpec(SpecModel):
    """States one thing that an answer may do; points below 0 are for a fault."""

    criterion: Annotated[
        TemplateText, Field(min_length=1, max_length=MAX_CRITERION), AfterValidator(_of_the_row)
    ]
    """What the answer does, in a sentence."""
    points: Annotated[float, Field(ge=-MAX_POINTS, le=MAX_POINTS)]
    """What it is worth; below 0 for a fault."""
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None = None
    """Names its curve; without one the first words do."""
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=MAX_TAGS)] = (
        Field(default_factory=list)
    )


Criteria = Annotated[
    Annotated[TemplateText, AfterValidator(_names_a_field), Tag("~text")]
    | Annotated[list[CriterionSpec], Field(min_length=1, max_length=MAX_CRITERIA), Tag("~list")],
    Discriminator(text_or_list),
]


class RubricSpec(AskingSpec):
    """Asks a model which criteria an answer meets; the value is the points reached over those to reach."""

    type: Literal["rubric"]
    criteria: Criteria
    """What an answer should do, each with its points; or the field of the row that lists them."""
    input: TemplateText = "{{sample.output_text}}"
    """What of the answer the judge is shown."""
    prompt: TemplateText | None = None
    """What the answer answers; without one, the row's `messages`."""
    calls: Literal["one", "each"] = "one"
    """One call for all criteria, or one for each of them."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the criteria that are left out by chance in training, for a whole group alike."""
    min_answered: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the criteria that the judge must have answered for there to be a value."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def calls_per_grade(self) -> int:
        """Returns how many calls one grade makes at most."""
        if self.calls == "one":
            return 1
        return len(self.criteria) if isinstance(self.criteria, list) else MAX_CRITERIA

    @property
    def usual_calls(self) -> int:
        """Returns how many calls one grade makes as a rule."""
        return (
            min(self.calls_per_grade, ROW_CRITERIA)
            if isinstance(self.criteria, str)
            else self.calls_per_grade
        )

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        if self.prompt is not None:
            yield "prompt", self.prompt
        if isinstance(self.criteria, str):
            yield "criteria", self.criteria
            return
        for place, one in enumerate(self.criteria):
            yield f"criteria[{place}].criterion", one.criterion

    @model_validator(mode="after")
    def _criteria_fit(self) -> Self:
        if isinstance(self.criteria, str):
            return self
        if not any(one.points > 0 for one in self.criteria):
            message = "No criterion has points above 0, so that nothing could be reached."
            refuse(lambda: invalid(message), "criteria")
        names = [one.name for one in self.criteria if one.name]
        if twice := [name for name in names if names.count(name) > 1 or name in RESERVED]:
            message = f"The name '{twice[0]}' is taken: each criterion has one of its own."
            refuse(lambda: invalid(message), "criteria")
        return self
