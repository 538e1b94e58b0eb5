"""Renders `{{ item.answer }}` and `{{ sample.output_text }}` inside grader strings.

A path grammar of our own and nothing else: no expressions, no attributes, no format codes. Values are
inserted as data, so a completion that contains `{{item.answer}}` stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders.strict_json import StrictJsonError
from graders.types import FailureKind, GradeFailed, GraderInvalid, Sample

MAX_RENDERED = 1024 * 1024
"""Longest text a template may become, in characters."""

MAX_STEPS = 32
"""Keys and indexes in one path."""

_OPEN = re.compile(r"\{\{(?!\{)")
_SINGLE = re.compile(r"\{\s*((?:item|sample)[.\[][^{}\s]{1,200})\s*\}")
_NAMESPACE = re.compile(r"\s*([A-Za-z_]\w*)")
_STEP = re.compile(r"""\.([\w-]+)|\[([0-9]{1,9})\]|\["([^"\]]+)"\]|\['([^'\]]+)'\]""")
_SAMPLE_KEYS = (
    "output_text",
    "output_json",
    "output_tools",
    "choices",
    "output_audio",
    "output_reasoning_summary",
    "output_thoughts",
    "messages",
)
_WRITTEN_BY_POLICY = ("output_json", "output_tools")
"""What the completion decides the shape of: a path missing below these is the completion's fault."""


@dataclass(frozen=True)
class Variable:
    """Names one value by a path: a namespace and the keys (str) and indexes (int) below it."""

    namespace: str
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> Variable:
        """Reads `item.a.b[0]`; any key can be written `["like this"]`. Raises `GraderInvalid`."""
        start = _NAMESPACE.match(text)
        if start is None:
            raise _not_a_variable(text)
        steps: list[str | int] = []
        position, end = start.end(), len(text.rstrip())
        while position < end:
            step = _STEP.match(text, position, end)
            if step is None or len(steps) == MAX_STEPS:
                raise _not_a_variable(text)
            key, index, *quoted = step.groups()
            steps.append(int(index) if index is not None else key or quoted[0] or quoted[1])
            position = step.end()
        variable = cls(start[1], tuple(steps))
        variable._check_root()
        return variable

    def _check_root(self) -> None:
        if self.namespace not in ("item", "sample"):
            raise GraderInvalid(
                f"Unknown namespace in '{{{{{self}}}}}': a variable starts with 'item.' or 'sample.'."
            )
        if not self.steps or not isinstance(self.steps[0], str):
            raise GraderInvalid(f"'{{{{{self}}}}}' names no key: write {{{{{self.namespace}.key}}}}.")
        if self.namespace == "sample" and self.steps[0] not in _SAMPLE_KEYS:
            known = ", ".join(f"sample.{key}" for key in _SAMPLE_KEYS)
            raise GraderInvalid(f"Unknown variable '{{{{{self}}}}}'. Supported: {known}.")

    def __str__(self) -> str:
        return self.namespace + "".join(_written(step) for step in self.steps)

    def is_in(self, item: Mapping[str, Any]) -> bool:
        """Tells whether a dataset row has this path. It is always true for the `sample` namespace."""
        if self.namespace == "sample":
            return True
        try:
            _descend(item, self.steps)
        except LookupError:
            return False
        return True

    def value(self, sample: Sample, item: Mapping[str, Any]) -> Any:
        """Returns the value at this path.

        Raises `GradeFailed`: invalid_variable_error or sample_parse_error.
        """
        try:
            if self.namespace == "item":
                return _descend(item, self.steps)
            return _descend(_sample_value(sample, self.steps[0]), self.steps[1:])
        except StrictJsonError as error:
            raise GradeFailed(FailureKind.SAMPLE_PARSE, f"The output is not JSON: {error}.") from None
        except LookupError:
            if self.namespace == "sample" and self.steps[0] in _WRITTEN_BY_POLICY:
                raise GradeFailed(FailureKind.SAMPLE_PARSE, f"The output has no '{self}'.") from None
            raise GradeFailed(FailureKind.INVALID_VARIABLE, f"There is no '{self}'.") from None


@dataclass(frozen=True)
class Template:
    """Holds a string with variables in it, parsed once and rendered often.

    It is safe to share between threads.
    """

    text: str
    pieces: tuple[str | Variable, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Finds the variables. Raises `GraderInvalid` for anything in `{{ }}` that is not a path."""
        pieces: list[str | Variable] = []
        position = 0
        while opened := _OPEN.search(text, position):
            closed = text.find("}}", opened.end())
            if closed < 0:
                raise GraderInvalid(f"'{{{{' without '}}}}' at character {opened.start()}.")
            if opened.start() > position:
                pieces.append(text[position : opened.start()])
            pieces.append(Variable.parse(text[opened.end() : closed]))
            position = closed + 2
        if position < len(text):
            pieces.append(text[position:])
        return cls(text, tuple(pieces))

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Returns every variable, in order, repeats included."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Variable))

    @property
    def reads_sample(self) -> bool:
        """Tells whether the completion has any influence on the result."""
        return any(variable.namespace == "sample" for variable in self.variables)

    def render(self, sample: Sample, item: Mapping[str, Any]) -> str:
        """Returns the text with values in place: strings as they are, everything else as compact JSON.

        Raises `GradeFailed`: invalid_variable_error, sample_parse_error, or other_error when the text
        would be longer than `MAX_RENDERED`.
        """
        rendered: list[str] = []
        size = 0
        for piece in self.pieces:
            text = piece if isinstance(piece, str) else as_text(piece.value(sample, item))
            size += len(text)
            if size > MAX_RENDERED:
                raise GradeFailed(
                    FailureKind.OTHER, f"A template became longer than {MAX_RENDERED:,} characters."
                )
            rendered.append(text)
        return "".join(rendered)

    def value(self, sample: Sample, item: Mapping[str, Any]) -> Any:
        """Returns the variable's own value if the template is one variable alone, else the rendered text."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], Variable):
            return self.pieces[0].value(sample, item)
        return self.render(sample, item)


def check_braces(text: str) -> None:
    """Raises `GraderInvalid` for a variable in single braces: it would be read as plain text."""
    for piece in Template.parse(text).pieces:
        if isinstance(piece, str) and (found := _SINGLE.search(piece)):
            raise GraderInvalid(
                f"'{found[0]}' has single braces, so it would stand there as plain text;"
                f" a variable has two: {{{{{found[1]}}}}}."
            )


def as_text(value: Any) -> str:
    """Returns a value as it reads inside a template: a string as it is, everything else as compact JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sample_variables(sample: Sample) -> dict[str, Any]:
    """Returns the whole `sample` namespace, as code gets it.

    `output_json` is None where the text is no JSON.
    """
    try:
        output_json = sample.output_json
    except StrictJsonError:
        output_json = None
    return {
        "choices": sample.choices,
        "output_text": sample.output_text,
        "output_json": output_json,
        "output_tools": list(sample.output_tools),
        "output_audio": sample.output_audio,
        "output_reasoning_summary": None,
        "output_thoughts": sample.output_thoughts,
        **({"messages": list(sample.messages)} if sample.messages else {}),
    }


def _sample_value(sample: Sample, key: str | int) -> Any:
    match key:
        case "output_text":
            return sample.output_text
        case "output_json":
            return sample.output_json
        case "output_tools":
            return list(sample.output_tools)
        case "output_thoughts":
            return sample.output_thoughts or ""
        case "output_reasoning_summary":
            return None
        case "messages":
            return list(sample.messages)
        case "output_audio" if sample.output_audio is None:
            raise LookupError(key)
        case "output_audio":
            return sample.output_audio
        case _:
            return sample.choices


def _descend(value: Any, steps: Sequence[str | int]) -> Any:
    """Follows keys into objects and indexes into arrays. Raises `LookupError` where there is nothing."""
    for step in steps:
        match step:
            case int() if isinstance(value, list):
                value = value[step]
            case str() if isinstance(value, Mapping):
                value = value[step]
            case _:
                raise LookupError(step)
    return value


def _written(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if re.fullmatch(r"[\w-]+", step):
        return f".{step}"
    return f"['{step}']" if '"' in step else f'["{step}"]'


def _not_a_variable(text: str) -> GraderInvalid:
    shown = text if len(text) <= 80 else text[:80] + "..."
    return GraderInvalid(
        f"'{{{{{shown}}}}}' is not a variable; write {{{{item.key}}}} or {{{{sample.output_text}}}}."
    )
