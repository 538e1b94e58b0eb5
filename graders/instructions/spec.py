"""Declares the wire format of the grader `instructions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from graders.instructions.registry import InstructionInvalid, bind
from graders.spec_base import (
    GraderName,
    NamedSpec,
    SpecModel,
    TemplateText,
    invalid,
    refuse,
    text_or_list,
)


class FixedInstruction(SpecModel):
    """Names one instruction that holds for every row."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_known(self) -> FixedInstruction:
        try:
            bind(self.id, self.kwargs)
        except InstructionInvalid as fault:
            message = str(fault)
            refuse(lambda: invalid(message), fault.param)
        return self


class InstructionsSpec(NamedSpec):
    """Asks for the share of verifiable instructions (IFEval) that a completion follows: an extension."""

    type: Literal["instructions"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    input: TemplateText
    """The answer that is checked."""
    instructions: Annotated[
        Annotated[TemplateText, Tag("~text")]
        | Annotated[list[FixedInstruction], Field(min_length=1, max_length=64), Tag("~list")],
        Discriminator(text_or_list),
    ]
    """Instructions of every row, or the row's: ids, or the object or text of a `ground_truth`."""
    kwargs: TemplateText | None = None
    """The row's arguments, if `instructions` gives ids alone."""
    mode: Literal["strict", "loose"] = "strict"
    """`loose` also tries the answer without its first line, its last, and asterisks."""
    scoring: Literal["share", "all"] = "share"
    """The share of instructions that are followed, or 1 only if all are."""
    strip_thinking: bool = False
    """The older name of `thoughts: "auto"`, which holds unless another setting is given."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        if isinstance(self.instructions, str):
            yield "instructions", self.instructions
        if self.kwargs is not None:
            yield "kwargs", self.kwargs

    @model_validator(mode="after")
    def _thoughts_are_said_once(self) -> InstructionsSpec:
        if self.strip_thinking and self.thoughts != "auto":
            refuse(lambda: invalid("'thoughts' says it; leave this out."), "strip_thinking")
        return self

    @model_validator(mode="after")
    def _arguments_belong_to_ids(self) -> InstructionsSpec:
        if self.kwargs is not None and not isinstance(self.instructions, str):
            refuse(lambda: invalid("give the arguments with each instruction instead."), "kwargs")
        return self
