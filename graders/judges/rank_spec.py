"""Declares the wire format of the grader `rank`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from graders.judges.ranking import calls_for
from graders.judges.spec import AskingSpec
from graders.spec_base import TemplateText, invalid, refuse
from graders.template import Template

MAX_INSTRUCTION = 16 * 1024
"""Longest instruction, in characters. Chosen, not measured: each call repeats it."""
MAX_PERMUTATIONS = 16
MAX_ANSWERS = 8
"""Different answers in one call, where a grader does not say. Chosen, not measured: what a group has as a
rule."""
LARGE_GROUP = 32
"""Different answers for which a grading has time enough. Chosen, not measured: a group of 16 beside as many
of the base's."""
INSTRUCTION = "The better an answer does what it was asked for, the more it is worth."
"""What answers are scored by, where a grader does not say."""


def _of_the_row(text: str) -> str:
    if Template.parse(text).reads_sample:
        refuse(lambda: invalid("It is the same for all answers, so it may read 'item' only."))
    return text


OfTheRow = Annotated[TemplateText, AfterValidator(_of_the_row)]


class RankSpec(AskingSpec):
    """Asks a model to score the answers to one prompt against each other."""

    type: Literal["rank"]
    input: TemplateText = "{{sample.output_text}}"
    """What of each answer the judge is shown."""
    instruction: Annotated[OfTheRow, Field(min_length=1, max_length=MAX_INSTRUCTION)] = INSTRUCTION
    """What makes an answer better than another one."""
    prompt: OfTheRow | None = None
    """What the answers answer; without one, the row's `messages`."""
    permutations: Annotated[int, Field(ge=1, le=MAX_PERMUTATIONS)] = 1
    """In so many orders the answers are shown; the scores are averaged."""
    max_answers: Annotated[int, Field(ge=4, le=64)] = MAX_ANSWERS
    """Most different answers in one call; more of them are split, with some that stand in each call."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def calls_per_grade(self) -> int:
        """Returns how many calls one group takes, of as many answers as are expected at most."""
        return self.calls_of(LARGE_GROUP)

    @property
    def usual_calls(self) -> int:
        """Returns how many calls one group takes as a rule: of as many answers as one call holds."""
        return self.calls_of(self.max_answers)

    def calls_of(self, answers: int) -> int:
        """Returns how many calls a group of different answers takes."""
        return calls_for(answers, self.max_answers) * self.permutations

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        yield "instruction", self.instruction
        if self.prompt is not None:
            yield "prompt", self.prompt
