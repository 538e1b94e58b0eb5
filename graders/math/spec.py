"""Declares the wire format of the grader `math`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from graders.spec_base import (
    EXTRACTORS,
    ComparingSpec,
    Extractor,
)


class MathSpec(ComparingSpec):
    """Asks whether the answer is the same number or expression as the reference: an extension."""

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
    """From which value on evals count an answer as passed; it changes no value."""
