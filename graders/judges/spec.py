"""Declares the wire formats of graders that ask somebody: `score_model`, `label_model`, `endpoint`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from graders.intervals import Interval
from graders.services import Target
from graders.spec_base import GraderName, NamedSpec, RewardRange, SpecModel, TemplateText, invalid, refuse
from graders.template import Template, check_braces

MAX_MESSAGES = 64
MAX_ITEMS = 64
"""Items in the content of one message."""
MAX_MEDIA = 1024 * 1024
"""Longest image URL (also a `data:` one) and longest audio in base64, in characters."""
MAX_LABELS = 256
MAX_HEADERS = 32

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,4096}")
_OURS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding")
KeyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


def _check_media(text: str) -> str:
    refuse(lambda: check_braces(text))
    if Template.parse(text).reads_sample:
        refuse(lambda: invalid("Images and audio may come from 'item' only, never from the model's answer."))
    return text


MediaTemplate = Annotated[str, Field(max_length=MAX_MEDIA), AfterValidator(_check_media)]


class TextItem(SpecModel):
    """Holds a text; `output_text` is meant for what an assistant said."""

    type: Literal["input_text", "output_text"]
    text: TemplateText


class ImageItem(SpecModel):
    """Names an image that the judge fetches, or holds one as a `data:` URL."""

    type: Literal["input_image"]
    image_url: MediaTemplate
    detail: Literal["auto", "low", "high"] | None = None


class Audio(SpecModel):
    """Holds the bytes of a recording in base64, and names their format."""

    data: MediaTemplate
    format: Literal["mp3", "wav"]


class AudioItem(SpecModel):
    """Wraps a recording as an item of a message."""

    type: Literal["input_audio"]
    input_audio: Audio


ContentItem = Annotated[TextItem | ImageItem | AudioItem, Field(discriminator="type")]


def _content_form(content: Any) -> str:
    match content:
        case list():
            return "~items"
        case dict() | SpecModel():
            return "~item"
        case _:
            return "~text"


OneOfMany = Annotated[
    Annotated[TemplateText, Tag("~text")] | Annotated[ContentItem, Tag("~item")],
    Discriminator(_content_form),
]
Content = Annotated[
    Annotated[TemplateText, Tag("~text")]
    | Annotated[ContentItem, Tag("~item")]
    | Annotated[list[OneOfMany], Field(min_length=1, max_length=MAX_ITEMS), Tag("~items")],
    Discriminator(_content_form),
]


class MessageSpec(SpecModel):
    """Describes one message to the judge."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] = "message"

    @property
    def items(self) -> list[str | TextItem | ImageItem | AudioItem]:
        """Returns the items of the message, one or several."""
        return list(self.content) if isinstance(self.content, list) else [self.content]


class SamplingParams(SpecModel):
    """Says how the judge samples.

    The plural `max_completions_tokens` is OpenAI's name here; the chat API's is taken too.
    """

    seed: int | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> SamplingParams:
        limits = {self.max_completions_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            message = "It says the same as max_completions_tokens, but with another number; give one of them."
            refuse(lambda: invalid(message), "max_completion_tokens")
        return self

    def for_chat(self) -> dict[str, Any]:
        """Returns the parameters under the names of the chat call, without what was left out."""
        given = self.model_dump(exclude_none=True)
        limit = given.pop("max_completions_tokens", None)
        return given if limit is None else {**given, "max_completion_tokens": limit}


class JudgeSpec(SpecModel):
    """Says which model judges, where it is, and how it samples.

    `base_url` and `api_key_name` are extensions: the judge's address, and the name of a key that the operator
    has set. A key itself never stands in a grader.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)]
    """The model that judges: one of this service, or one at `base_url`."""
    sampling_params: SamplingParams | None = None
    """How the judge samples."""
    base_url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """Where the judge is, where it is not at this service."""
    api_key_name: KeyName | None = None
    """The name of a key for that address, which the operator has set."""

    @model_validator(mode="after")
    def _key_has_an_address(self) -> Self:
        if self.api_key_name is not None and self.base_url is None:
            message = "It is for a judge at a 'base_url' of the grader's own, and there is none."
            refuse(lambda: invalid(message), "api_key_name")
        return self

    @property
    def sampling(self) -> dict[str, Any]:
        """Returns the parameters of the chat call; none if the grader sets none."""
        return self.sampling_params.for_chat() if self.sampling_params else {}

    @property
    def target(self) -> Target:
        """Returns the judge as those who ask it know it."""
        return Target(self.model, self.base_url, self.api_key_name)


class AskingSpec(NamedSpec, JudgeSpec):
    """Holds what every grader has that asks one judge model."""

    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""

    @property
    def calls_per_grade(self) -> int:
        """Returns how many calls one grade makes at most: how long it may take follows."""
        return 1

    @property
    def usual_calls(self) -> int:
        """Returns how many calls one grade makes as a rule: what it costs follows."""
        return self.calls_per_grade


class JudgedSpec(AskingSpec):
    """Holds what `score_model` and `label_model` share: messages of the user's own."""

    input: Annotated[list[MessageSpec], Field(min_length=1, max_length=MAX_MESSAGES)]
    """The messages to the judge."""

    def templates(self) -> Iterator[tuple[str, str]]:
        for i, message in enumerate(self.input):
            at = f"input[{i}].content"
            for j, item in enumerate(message.items):
                yield from _templates_of(item, f"{at}[{j}]" if isinstance(message.content, list) else at)


def _templates_of(item: str | TextItem | ImageItem | AudioItem, at: str) -> Iterator[tuple[str, str]]:
    match item:
        case str():
            yield at, item
        case TextItem():
            yield f"{at}.text", item.text
        case ImageItem():
            yield f"{at}.image_url", item.image_url
        case AudioItem():
            yield f"{at}.input_audio.data", item.input_audio.data


class ScoreModelSpec(JudgedSpec):
    """Asks a model for a number, which is clamped into `range`."""

    type: Literal["score_model"]
    range: RewardRange = Field(default_factory=lambda: [0.0, 1.0])
    """The least and the largest score that it may give."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def reward_range(self) -> Interval:
        return Interval(*self.range)


Label = Annotated[str, Field(min_length=1, max_length=256)]
Labels = Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)]


class LabelModelSpec(JudgedSpec):
    """Asks a model to choose one of `labels`; the value is 1 if it is among `passing_labels`, else 0."""

    type: Literal["label_model"]
    labels: Labels
    """What the judge chooses from."""
    passing_labels: Labels
    """Those of the labels that are worth 1."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @model_validator(mode="after")
    def _labels_fit(self) -> LabelModelSpec:
        if len(set(self.labels)) < len(self.labels):
            refuse(lambda: invalid("A label stands there twice."), "labels")
        if unknown := [label for label in self.passing_labels if label not in self.labels]:
            message = f"'{unknown[0]}' is not among the labels."
            refuse(lambda: invalid(message), "passing_labels")
        return self


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            refuse(lambda name=name: invalid(f"'{name[:60]}' is not the name of an HTTP header."))  # type: ignore[misc]
        if name.lower() in _OURS:
            refuse(lambda name=name: invalid(f"The header '{name}' is set by this service."))  # type: ignore[misc]
        if not _HEADER_VALUE.fullmatch(value):
            message = f"The value of '{name}' must be at most 4096 printable ASCII characters."
            refuse(lambda message=message: invalid(message))  # type: ignore[misc]
    return headers


Headers = Annotated[dict[str, str], Field(max_length=MAX_HEADERS), AfterValidator(_check_headers)]


class EndpointSpec(NamedSpec):
    """Asks a server of the user's for the score. `rate_limit` is in requests per second.

    `range` is an extension: what the scores lie in, which nobody else can know.
    """

    type: Literal["endpoint"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    """Where the server is asked, by POST."""
    headers: Headers = Field(default_factory=dict)
    """Headers of the request; their values are kept encrypted."""
    rate_limit: Annotated[float, Field(ge=0.1, le=1000)] | None = None
    """Most requests a second."""
    range: RewardRange | None = None
    """The least and the largest score that it gives, where you know them."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def reward_range(self) -> Interval:
        return Interval.stated(self.range)
