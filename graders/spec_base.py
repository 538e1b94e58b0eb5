"""Holds what the specs of all graders are made of."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from graders.intervals import Interval
from graders.template import Template, check_braces
from graders.types import GraderInvalid

MAX_TEMPLATE = 64 * 1024
"""Longest template, in characters."""


def refuse(check: Callable[[], object], param: str = "") -> None:
    """Runs a check, turning its `GraderInvalid` into what pydantic expects. `param` is below the value."""
    try:
        check()
    except GraderInvalid as error:
        raise PydanticCustomError(
            "grader_invalid", "{message}", {"message": error.message, "code": error.code, "param": param}
        ) from None


def invalid(message: str, *, code: str = "invalid_value") -> None:
    """Raises `GraderInvalid`, always; for use in `refuse`."""
    raise GraderInvalid(message, code=code)


def _check_template(text: str) -> str:
    refuse(lambda: check_braces(text))
    return text


def _check_code(text: str) -> str:
    refuse(lambda: Template.parse(text))
    return text


TemplateText = Annotated[str, Field(max_length=MAX_TEMPLATE), AfterValidator(_check_template)]
CodeTemplate = Annotated[str, Field(max_length=MAX_TEMPLATE), AfterValidator(_check_code)]
"""Text with variables that is code: there `{item.x}` may be meant as it stands."""
GraderName = Annotated[str, Field(min_length=1, max_length=256)]


def _check_range(bounds: list[float]) -> list[float]:
    if bounds[0] >= bounds[1]:
        refuse(lambda: invalid("The first number must be smaller than the second."))
    return bounds


RewardRange = Annotated[
    list[Annotated[float, Field(ge=-1e9, le=1e9)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_check_range),
]
"""The least and the largest value that a grader gives."""


class SpecModel(BaseModel):
    """Reads strictly, as the API does: no conversion of types, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def text_or_list(value: Any) -> str:
    """Returns the tag of a union of a text and a list: `~text` or `~list`."""
    return "~text" if isinstance(value, str) else "~list"


ThoughtTag = Annotated[str, Field(min_length=1, max_length=64)]


def _check_pair(pair: list[str]) -> list[str]:
    if pair[0] == pair[1]:
        refuse(lambda: invalid("what opens a thought and what closes it must differ."))
    return pair


ThoughtsSetting = Annotated[
    Annotated[Literal["auto", "none"], Tag("~text")]
    | Annotated[
        list[ThoughtTag], Field(min_length=2, max_length=2), AfterValidator(_check_pair), Tag("~list")
    ],
    Discriminator(text_or_list),
]


class NamedSpec(SpecModel):
    """Describes a grader with a name; one that is left out is made up from the content, always the same."""

    thoughts: ThoughtsSetting = "auto"
    """Which tags hold thoughts, which are no part of the answer; a sub-grader has those of its `multi`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_name(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "name" not in raw:
            return {**raw, "name": made_up_name(raw)}
        return raw

    def templates(self) -> Iterator[tuple[str, str]]:
        """Yields every templated text, as (where it stands in the grader, the text)."""
        yield from ()

    @property
    def reward_range(self) -> Interval:
        """Returns what the grader's values lie in, in grader units; no bounds where that is not known."""
        return Interval(0.0, 1.0)


class ComparingSpec(NamedSpec):
    """Describes a grader that compares what two templates become."""

    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    input: TemplateText
    """What of the answer is compared: all of it, or a part of an answer that is JSON."""
    reference: TemplateText
    """What it is compared with: mostly a field of the row."""

    def templates(self) -> Iterator[tuple[str, str]]:
        yield "input", self.input
        yield "reference", self.reference


def made_up_name(raw: dict[str, Any]) -> str:
    """Returns `grader-` and 12 letters or digits that depend on the content only."""
    content = json.dumps(
        raw,
        sort_keys=True,
        default=lambda part: part.model_dump() if isinstance(part, BaseModel) else str(part),
    )
    number = int.from_bytes(hashlib.sha256(content.encode("utf-8", "replace")).digest()[:12], "big")
    alphabet = string.digits + string.ascii_letters
    letters = []
    for _ in range(12):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "grader-" + "".join(letters)


Extractor = Literal["boxed", "hash", "answer", "latex", "number", "whole"]


EXTRACTORS: tuple[Extractor, ...] = ("boxed", "hash", "answer", "latex", "number")
"""Those of `math`, unless it names its own."""
