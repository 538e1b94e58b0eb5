"""The wire formats of the graders that verify an answer: `math`, `instructions`, `code_tests`, `rlvr`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from graders.instructions.constraints import ConstraintInvalid, bound
from graders.spec_base import ComparingSpec, GraderName, NamedSpec, SpecModel, TemplateText, invalid, refuse

Extractor = Literal["boxed", "hash", "answer", "latex", "number", "whole"]

EXTRACTORS: tuple[Extractor, ...] = ("boxed", "hash", "answer", "latex", "number")
"""Those of `math`, unless it names its own."""

MAX_TESTS = 512
"""Most tests of one row."""


def _text_or_list(value: Any) -> str:
    return "~text" if isinstance(value, str) else "~list"


class MathSpec(ComparingSpec):
    """An extension: is the answer the same number or expression as the reference?"""

    type: Literal["math"]
    extract: Annotated[list[Extractor], Field(min_length=1, max_length=6)] = Field(
        default_factory=lambda: list(EXTRACTORS)
    )
    """Where in the text the answer stands, tried in this order; the first that is there is the answer."""
    any_candidate: bool = False
    """Count the answer as right if any of the extractors finds a right one."""
    strict: bool = True
    """The names of variables matter, and a set is not a tuple."""
    decimals: Annotated[int, Field(ge=0, le=30)] = 6
    """Numbers that are not whole are compared rounded to so many places."""
    time_limit: Annotated[float, Field(ge=0.1, le=60)] = 5.0
    """Seconds for one comparison; an answer that takes longer is wrong."""
    pass_threshold: float | None = None


class ConstraintSpec(SpecModel):
    """One constraint that holds for every row."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_known(self) -> ConstraintSpec:
        try:
            bound(self.id, self.kwargs)
        except ConstraintInvalid as fault:
            message = str(fault)
            refuse(lambda: invalid(message), fault.param)
        return self


class InstructionsSpec(NamedSpec):
    """An extension: the share of verifiable constraints (IFEval) that an answer meets."""

    type: Literal["instructions"]
    name: GraderName
    input: TemplateText
    instructions: Annotated[
        Annotated[TemplateText, Tag("~text")]
        | Annotated[list[ConstraintSpec], Field(min_length=1, max_length=64), Tag("~list")],
        Discriminator(_text_or_list),
    ]
    """Constraints of every row, or the row's: ids, or the object or text of a `ground_truth`."""
    kwargs: TemplateText | None = None
    """The row's arguments, if `instructions` gives ids alone."""
    mode: Literal["strict", "loose"] = "strict"
    scoring: Literal["share", "all"] = "share"
    strip_thinking: bool = False
    """Look only at what follows the last `</think>`."""
    pass_threshold: float | None = None

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        if isinstance(self.instructions, str):
            yield "instructions", self.instructions
        if self.kwargs is not None:
            yield "kwargs", self.kwargs

    @model_validator(mode="after")
    def _arguments_belong_to_ids(self) -> InstructionsSpec:
        if self.kwargs is not None and not isinstance(self.instructions, str):
            refuse(lambda: invalid("give the arguments with each constraint instead."), "kwargs")
        return self


class CodeTestsSpec(NamedSpec):
    """An extension: the share of tests that the answer's Python passes, run in the sandbox."""

    type: Literal["code_tests"]
    name: GraderName
    input: TemplateText
    tests: Annotated[
        Annotated[TemplateText, Tag("~text")]
        | Annotated[list[TemplateText], Field(min_length=1, max_length=MAX_TESTS), Tag("~list")],
        Discriminator(_text_or_list),
    ]
    """The row's list of tests, or texts of tests."""
    before: TemplateText = ""
    """Code put before the answer's."""
    function: TemplateText | None = None
    """Which function tests of arguments and results call, unless a test names its own."""
    scoring: Literal["share", "all"] = "share"
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A lower share counts as 0."""
    time_limit: Annotated[float, Field(ge=0.1, le=60)] = 5.0
    """Seconds for each test."""
    total_time_limit: Annotated[float, Field(ge=0.1, le=600)] = 60.0
    """Seconds for all tests of an answer; tests that are not reached count as failed."""
    memory_mb: Annotated[int, Field(ge=64, le=8192)] = 1024
    rel_tolerance: Annotated[float, Field(ge=0, le=1)] = 1e-9
    """How far a number that is not whole may be from the expected one."""
    pass_threshold: float | None = None

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        if isinstance(self.tests, str):
            yield "tests", self.tests
        else:
            yield from ((f"tests[{at}]", text) for at, text in enumerate(self.tests))
        yield "before", self.before
        if self.function is not None:
            yield "function", self.function


class RlvrSpec(NamedSpec):
    """An extension: the verifier that each row names, as open-instruct's data has it."""

    type: Literal["rlvr"]
    name: GraderName
    input: TemplateText = "{{sample.output_text}}"
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
    pass_threshold: float | None = None

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        yield "dataset", self.dataset
        yield "ground_truth", self.ground_truth
