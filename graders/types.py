"""Declares what graders take and return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from graders import strict_json


class FailureKind(StrEnum):
    """Names why a completion got no valid grade. The values are the flags of OpenAI's grader run endpoint."""

    FORMULA_PARSE = "formula_parse_error"
    SAMPLE_PARSE = "sample_parse_error"
    TRUNCATED_OBSERVATION = "truncated_observation_error"
    UNRESPONSIVE_REWARD = "unresponsive_reward_error"
    INVALID_VARIABLE = "invalid_variable_error"
    PYTHON_SERVER = "python_grader_server_error"
    PYTHON_RUNTIME = "python_grader_runtime_error"
    MODEL_SERVER = "model_grader_server_error"
    MODEL_REFUSAL = "model_grader_refusal_error"
    MODEL_PARSE = "model_grader_parse_error"
    MODEL_MAX_TOKENS = "model_grader_exceeded_max_tokens_error"
    ENDPOINT_INTERNAL = "endpoint_grader_internal_error"
    ENDPOINT_SERVER = "endpoint_grader_server_error"
    TOOL_SERVER = "tool_server_error"
    USER_SIMULATOR = "user_simulator_error"
    OTHER = "other_error"

    @property
    def is_completions_fault(self) -> bool:
        """Tells whether the completion itself is at fault (it does not parse), not the grader or the data.

        The policy can learn to avoid these, so the engine trains on them with the least that the grader can
        give (`Grade.reward`); every other kind leaves the completion out of the gradient.
        """
        return self is FailureKind.SAMPLE_PARSE

    @property
    def is_servers_fault(self) -> bool:
        """Tells whether a server that was asked could not reply: no completion would have fared better."""
        return self in (
            FailureKind.MODEL_SERVER,
            FailureKind.ENDPOINT_INTERNAL,
            FailureKind.ENDPOINT_SERVER,
            FailureKind.TOOL_SERVER,
            FailureKind.USER_SIMULATOR,
        )


@dataclass(frozen=True)
class TokenUsage:
    """Counts tokens that a model has read (`cached_tokens` of them out of its cache) and written, in how many
    calls; and replies that were `known` from earlier calls and cost none.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    calls: int = 0
    known: int = 0

    @property
    def total_tokens(self) -> int:
        """Returns how many tokens were read and written together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.calls + other.calls,
            self.known + other.known,
        )


Usage = Mapping[str, TokenUsage]
"""By model."""


def add_usages(usages: Iterable[Usage]) -> dict[str, TokenUsage]:
    """Adds up what several have used, model by model."""
    total: dict[str, TokenUsage] = {}
    for usage in usages:
        for model, tokens in usage.items():
            total[model] = total.get(model, TokenUsage()) + tokens
    return total


@dataclass(frozen=True)
class Failure:
    """Says why a grade could not be given: what kind, and a sentence a person can act on.

    `lost` says, where a server was waited for in vain, which one, since when and its last error: nothing more
    can be graded until a person has seen to it.
    """

    kind: FailureKind
    message: str
    lost: str = ""


class GradeFailed(Exception):
    """Reports, inside a grader, that there is no value to give.

    `Grader.grade` turns it into a failed `Grade`. `usage` is what was spent all the same. `is_away` says that
    a server answers nobody for now: it cannot be reached, is broken or busy, or its quota is spent.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        usage: Usage | None = None,
        is_away: bool = False,
        lost: str = "",
    ) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message, lost)
        self.usage = usage or {}
        self.is_away = is_away


@dataclass(frozen=True)
class Sample:
    """Holds one completion as graders see it.

    Attributes:
        output_text: the text as it was written, without the token that ended it; of a completion that was
            taken apart, its answer.
        finish_reason: "stop" or "length".
        output_tools: the tool calls, in the chat shape.
        output_audio: {"data", "transcript"}; None where the model speaks no audio.
        output_tokens: how many tokens the model wrote; None where that is not known.
        output_thoughts: what it thought before it answered, as the model's own template tells; else None.
        raw_text: all that was written, of a completion that was taken apart by the model's own template; None
            where graders tell thoughts by tags.
        messages: what followed the row's messages in an episode, in the chat form: turns, tools' answers.
        trace_id: names the episode to the tool servers that were asked in it.
        environment_reward: how the environment of its episode judges it; None where none does.
        draw: names the draw of a prompt in training, the same for all completions of its group: what a grader
            decides by chance follows from it. Empty everywhere else, where nothing is left to chance.
    """

    output_text: str
    finish_reason: str = "stop"
    output_tools: Sequence[Mapping[str, Any]] = ()
    output_audio: Mapping[str, Any] | None = None
    output_tokens: int | None = None
    output_thoughts: str | None = None
    raw_text: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    trace_id: str = ""
    environment_reward: float | None = None
    draw: str = ""

    @cached_property
    def output_json(self) -> Any:
        """Returns the whole text as strict JSON; white space around it is allowed, fences and chat are not.

        It is parsed once and shared between graders, so it must not be changed. Raises `StrictJsonError`.
        """
        return strict_json.loads(self.output_text.strip())

    @cached_property
    def choices(self) -> list[dict[str, Any]]:
        """Returns the one completion as a chat choice."""
        message: dict[str, Any] = {"role": "assistant", "content": self.output_text}
        if self.output_tools:
            message["tool_calls"] = list(self.output_tools)
        return [{"index": 0, "message": message, "finish_reason": self.finish_reason}]


@dataclass(frozen=True)
class Grade:
    """Holds a value, or a named failure; never neither, never both.

    Attributes:
        value: the reward in grader units; None if and only if `failure` is set.
        failure: why there is no value.
        parts: a score for each named part (sub-graders of `multi`, fields of `fields`), for curves.
        part_failures: parts that failed by name (a sub-grader whose failure counted as 0 in a formula).
        reason: a short explanation for a person.
        seconds: wall time the grading took.
        usage: tokens of judge models, by model, all parts together. Replies out of a cache cost none.
        part_seconds, part_usage: the same of each sub-grader of `multi`.
        least: what training counts instead, where the completion does not parse and the grader can give less
            than the value that the grade shows; None where it can not.
    """

    value: float | None
    failure: Failure | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    part_failures: Mapping[str, Failure] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    usage: Usage = field(default_factory=dict)
    part_seconds: Mapping[str, float] = field(default_factory=dict)
    part_usage: Mapping[str, Usage] = field(default_factory=dict)
    least: float | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.failure is None):
            raise ValueError("a grade is either a value or a failure")

    @property
    def lost(self) -> str:
        """Returns what is said of a server that it or a part of it was waiting for in vain; else nothing."""
        failures = [self.failure, *self.part_failures.values()]
        return next((failure.lost for failure in failures if failure is not None and failure.lost), "")

    @property
    def reward(self) -> float | None:
        """Returns the number that training sees; None for a gap.

        What does not parse is never worth more than an answer that does: it counts as 0, or as the least that
        the grader can give where that is below.
        """
        if self.least is not None:
            return self.least
        if self.failure is not None and self.failure.kind.is_completions_fault:
            return 0.0
        return self.value


class Grader(Protocol):
    """Grades one completion. It raises nothing for bad completions, opens no sockets and keeps no state."""

    @property
    def name(self) -> str:
        """Returns the name that the grader's config gives it."""

    @property
    def type(self) -> str:
        """Returns the kind of grader, as the config's `type` has it."""

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        """Returns the grade of a completion to a dataset row, in grader units. Raises nothing."""


Base = Sequence["Sample | None"]
"""What the base model wrote for a row; None in the place of what did not parse."""


@runtime_checkable
class GroupGrader(Grader, Protocol):
    """Grades the completions of one prompt together: what one is worth follows from the others."""

    def grade_group(
        self, samples: Sequence[Sample], item: Mapping[str, Any], base: Base | None = None
    ) -> list[Grade]:
        """Returns the grade of each completion to the same dataset row, in their order. Raises nothing.

        What the whole group has cost is told by one of the grades. With `base` a value says how a completion
        compares with what the base wrote for this row, where 0.5 is as good: each with the base's in its
        place, which was sampled by the same random numbers. Without any that parsed, all are as good.
        """


class GraderInvalid(Exception):
    """Says why a grader config is malformed.

    `param` is the path within the grader, such as `graders.a.input`.

    `code` is one of OpenAI's: missing_required_parameter, invalid_type, invalid_value, unknown_parameter,
    string_above_max_length, string_below_min_length, decimal_above_max_value, decimal_below_min_value;
    or `unsupported_grader` for what this build refuses, `python_grader_unavailable` for code where there is
    no sandbox to run it in.
    """

    def __init__(self, message: str, *, param: str = "", code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.others: tuple[GraderInvalid, ...] = ()
        """What else is wrong with the config, as far as that was found."""

    @property
    def all(self) -> list[GraderInvalid]:
        """Returns this and all others, each by itself."""
        return [self, *self.others]

    @property
    def told(self) -> str:
        """Returns the messages of all, for a person."""
        others = " ".join(one.message for one in self.others)
        return f"{self.message} Also: {others}" if others else self.message

    @classmethod
    def together(cls, faults: Sequence[GraderInvalid]) -> GraderInvalid:
        """Returns the first of several, which knows of the others."""
        first, *others = {id(each): each for fault in faults for each in fault.all}.values()
        first.others = tuple(others)
        return first

    def below(self, path: str) -> GraderInvalid:
        """Returns the same error, seen from a grader that holds this one at `path`."""
        param = f"{path}.{self.param}" if self.param else path
        message = self.message.replace(f"'{self.param}'", f"'{param}'") if self.param else self.message
        moved = GraderInvalid(message, param=param, code=self.code)
        moved.others = tuple(other.below(path) for other in self.others)
        return moved
