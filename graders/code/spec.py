"""Declares the wire format of `python` graders, and what is asked of their source before any of it runs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from graders.intervals import Interval
from graders.spec_base import GraderName, NamedSpec, RewardRange, invalid, refuse
from graders.types import GraderInvalid

MAX_SOURCE_BYTES = 256 * 1024
IMAGE_TAG = "2025-05-08"
"""OpenAI's only published one. Kept and echoed; the packages are those installed here."""
NUMBERS = {1: "one positional argument", 2: "two positional arguments"}


def check_function(source: str, name: str, parameters: Sequence[str]) -> None:
    """Checks that a source parses, and defines a function of so many positional arguments.

    Nothing of it is run. Raises `GraderInvalid`.
    """
    size = len(source.encode("utf-8", "replace"))
    if size > MAX_SOURCE_BYTES:
        invalid(
            f"expected at most {MAX_SOURCE_BYTES:,} bytes, but got {size:,}.", code="string_above_max_length"
        )
    function = _function(_parsed(source), name, parameters)
    if not _takes(function.args, len(parameters)):
        count = NUMBERS[len(parameters)]
        told = " and ".join(parameters)
        invalid(f"'{name}' on line {function.lineno} must take {count}: {told}.")


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        where = "" if error.lineno is None else f" (line {error.lineno})"
        raise GraderInvalid(f"it is no valid Python: {error.msg}{where}.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise GraderInvalid(f"it is no valid Python: {str(error) or 'nested too deeply'}.") from None


def _function(module: ast.Module, wanted: str, parameters: Sequence[str]) -> ast.FunctionDef:
    """Returns the last definition of a function at the top of the module."""
    for statement in reversed(module.body):
        match statement:
            case ast.FunctionDef(name=name) if name == wanted:
                return statement
            case ast.AsyncFunctionDef(name=name) if name == wanted:
                raise GraderInvalid(f"'{wanted}' on line {statement.lineno} must not be async.")
    raise GraderInvalid(f"it defines no function '{wanted}({', '.join(parameters)})' at its top level.")


def _takes(arguments: ast.arguments, count: int) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    if None in arguments.kw_defaults:
        return False
    return required <= count and (positional >= count or arguments.vararg is not None)


def _checked_source(source: str) -> str:
    refuse(lambda: check_function(source, "grade", ("sample", "item")))
    return source


class PythonSpec(NamedSpec):
    """Asks for the number that `grade(sample, item)` returns, run in the sandbox.

    `range` is an extension: what the numbers lie in, which nobody else can know.
    """

    type: Literal["python"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    source: Annotated[str, Field(min_length=1), AfterValidator(_checked_source)]
    """Python that defines `grade(sample, item)`, which returns a number."""
    image_tag: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] = IMAGE_TAG
    """OpenAI's name of the packages that it may import; those installed here are taken."""
    range: RewardRange | None = None
    """The least and the largest number that it returns, where you know them."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def reward_range(self) -> Interval:
        return Interval.stated(self.range)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_image(cls, raw: Any) -> Any:
        """Fills the image in, so that what is stored and echoed names it, as OpenAI's does."""
        if isinstance(raw, dict) and raw.get("image_tag") is None:
            return {**raw, "image_tag": IMAGE_TAG}
        return raw
