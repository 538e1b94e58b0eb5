"""Parameters that several endpoints of inference have: their bounds, and what of them cannot be had here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from app.errors import ApiError, BadRequest
from app.wire import Wire
from methods.response_format import ResponseFormatInvalid, checked

MAX_CHOICES = 128
MAX_STOPS = 4
MAX_STOP = 256
"""Characters of a stop string. Chosen, not measured."""
MAX_BIASES = 1024
"""Tokens that a request may favour or avoid. Chosen, not measured."""
MAX_BIAS = 100
MAX_SEED = 2**63 - 1
MAX_ALTERNATIVES = 20
MAX_KWARGS = 32
"""Variables that a chat template may be given. Chosen, not measured."""
NEVER = "is not available in this version of Cherry; leave it out"


def _listed(value: Any) -> Any:
    """Reads one stop string as a list of it."""
    return [value] if isinstance(value, str) else value


Model = Annotated[str, Field(min_length=1, max_length=256)]
Temperature = Annotated[float | None, Field(ge=0, le=2)]
TopP = Annotated[float | None, Field(ge=0, le=1)]
Penalty = Annotated[float | None, Field(ge=-2, le=2)]
Choices = Annotated[int | None, Field(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int | None, Field(ge=-MAX_SEED - 1, le=MAX_SEED)]
Bias = Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
LogitBias = Annotated[dict[TokenId, Bias] | None, Field(max_length=MAX_BIASES)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP)]
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_STOP}
Stop = Annotated[
    Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None,
    BeforeValidator(_listed),
    WithJsonSchema(
        {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": MAX_STOPS}, {"type": "null"}]}
    ),
]
SafetyIdentifier = Annotated[str | None, Field(max_length=64)]
Ignored = Annotated[Any, Field(description="Accepted; it changes nothing here.")]
Unavailable = Annotated[Any, Field(description="Refused, but for values that ask for nothing.")]


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
MaxThinkingTokens = Annotated[
    int | None,
    Field(
        ge=0, description="An extension. The most tokens of thoughts: they are closed once these are used up."
    ),
]
TemplateKwargs = Annotated[
    dict[str, Any] | None,
    Field(max_length=MAX_KWARGS, description="An extension. Variables for the model's chat template."),
]
Tools = Annotated[list[dict[str, Any]] | None, Field(description="Functions that the model may call.")]
ToolChoice = Annotated[
    Any, Field(description="'auto', 'none', 'required', a function by its name, or `allowed_tools`.")
]


class StreamOptions(Wire):
    """How a stream is sent. Obfuscation is never added."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def unavailable(body: Mapping[str, Any], harmless: Mapping[str, Sequence[Any]]) -> Iterator[ApiError]:
    """Yields a refusal for each parameter that asks for what is not here; null always asks for nothing.

    `harmless` has the values of each such parameter that change nothing.
    """
    for name, values in harmless.items():
        asked = body.get(name)
        if asked is not None and not any(type(asked) is type(value) and asked == value for value in values):
            yield BadRequest(f"The parameter '{name}' {NEVER}.", param=name, code="unsupported_parameter")


def check_response_format(asked: Any, at: str = "response_format") -> dict[str, Any] | None:
    """Returns a response format in the form of chats as it came, or None. Raises `BadRequest`."""
    if asked is None:
        return None
    try:
        found = checked(asked)
    except ResponseFormatInvalid as fault:
        below = f"{at}.{fault.param}" if fault.param else at
        message = fault.message.replace(f"'{fault.param or 'response_format'}'", f"'{below}'")
        raise BadRequest(message, param=below, code=fault.code) from None
    return None if found == {"type": "text"} else found


def given(**parameters: Any) -> dict[str, Any]:
    """Returns the parameters that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}
