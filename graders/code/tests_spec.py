"""Declares the wire format of the grader `code_tests`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from graders.spec_base import (
    CodeTemplate,
    GraderName,
    NamedSpec,
    TemplateText,
    text_or_list,
)

MAX_TESTS = 512
"""Most tests of one row."""


class CodeTestsSpec(NamedSpec):
    """Asks for the share of tests that the completion's Python passes, run in the sandbox: an extension."""

    type: Literal["code_tests"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    input: TemplateText
    """The answer that holds the code."""
    tests: Annotated[
        Annotated[CodeTemplate, Tag("~text")]
        | Annotated[list[CodeTemplate], Field(min_length=1, max_length=MAX_TESTS), Tag("~list")],
        Discriminator(text_or_list),
    ]
    """The row's list of tests, or texts of tests."""
    before: CodeTemplate = ""
    """Code put before the completion's."""
    function: TemplateText | None = None
    """Which function tests of arguments and results call, unless a test names its own."""
    scoring: Literal["share", "all"] = "share"
    """The share of tests that pass, or 1 only if all do."""
    min_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A lower share counts as 0."""
    time_limit: Annotated[float, Field(ge=0.1, le=60)] = 5.0
    """Seconds for each test."""
    total_time_limit: Annotated[float, Field(ge=0.1, le=600)] = 60.0
    """Seconds for all tests of a completion; tests that are not reached count as failed."""
    memory_mb: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Memory that the answer's code may take, in MiB."""
    rel_tolerance: Annotated[float, Field(ge=0, le=1)] = 1e-9
    """How far a number that is not whole may be from the expected one."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        if isinstance(self.tests, str):
            yield "tests", self.tests
        else:
            yield from ((f"tests[{at}]", text) for at, text in enumerate(self.tests))
        yield "before", self.before
        if self.function is not None:
            yield "function", self.function
