"""What the engine passes around. P prompts, G completions each, B = P*G, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from graders import Grade
from graders.types import FailureKind, Usage
from workers.training.base.parts import Parts
from workers.training.base.turns import Turn

T = TypeVar("T")
Split = Literal["train", "valid", "fresh", "greedy", "control"]
"""Training rows; validation rows; training rows sampled afresh to judge a checkpoint; the rows that a
checkpoint is judged by, answered greedily; what a control trains on, with its grades dealt out anew."""


@dataclass(frozen=True)
class Prompt:
    """Holds one dataset row, tokenised.

    Attributes:
        row: 0-based index among the run's rows.
        item: the whole row, as graders see it.
        tokens: prompt token ids, with the generation prompt of the chat template.
        place: 0-based index of the row in its file (blank lines not counted), where others of that were held
            out; None where it is `row`.
    """

    row: int
    item: Mapping[str, Any]
    tokens: tuple[int, ...]
    place: int | None = None

    @property
    def has_tools(self) -> bool:
        """Whether the row names functions that may be called."""
        return bool(self.item.get("tools") or self.item.get("functions"))

    @property
    def file_row(self) -> int:
        """Returns the 0-based index of the row in its file."""
        return self.row if self.place is None else self.place


@dataclass(frozen=True)
class Completion:
    """Holds what the policy wrote once for one prompt.

    Attributes:
        tokens: (T,) ids, with the end token where there is one.
        logprobs: (T,) log-probability of each id under the policy that sampled it (nats), at the sampling
            temperature; 0 for a given one.
        text: all of it decoded, special tokens too, but for the one token that ended it.
        finish_reason: "stop" at an end token, "length" where cut.
        given: (T,) which tokens the policy did not choose: the mark that closed its thoughts when their
            budget was used up, what a tool or a user wrote, what the template writes between turns. They are
            read and bear no loss. Empty where it chose all of them.
        parts: its thoughts, answer and calls; None where the model's template tells of none. Of an episode
            they are those of its last turn.
        turns: of an episode; none where there is no environment.
        trace_id: names the episode to tool servers and graders.
        lost: why the episode broke off by the fault of its environment. It is then left out.
        lost_by: who was at fault: a tool server, or the model that plays the user.
        waited_for: which server the environment has waited for in vain, where it did (`Failure.lost`).
        usage: what its environment has asked models for. Its grade counts it too.
        environment_reward: how its environment judges it, where it does.
        sampled_by: names the weights that wrote it, where a server sampled; "" stands for the sampler in
            the training process.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length"]
    given: tuple[bool, ...] = ()
    parts: Parts | None = None
    turns: tuple[Turn, ...] = ()
    trace_id: str = ""
    lost: str = ""
    lost_by: FailureKind = FailureKind.TOOL_SERVER
    waited_for: str = ""
    usage: Usage = field(default_factory=dict)
    environment_reward: float | None = None
    sampled_by: str = ""

    @property
    def n_sampled(self) -> int:
        """Counts the tokens that the policy chose."""
        return len(self.tokens) - sum(self.given)

    @property
    def answer(self) -> str:
        """Returns what is meant for the reader: all of the text where it was not taken apart."""
        return self.text if self.parts is None or self.parts.is_plain else self.parts.answer

    @property
    def thought_tokens(self) -> int:
        """Counts the tokens of its thoughts, of all its turns; 0 where nothing tells them."""
        of_turns = [turn.parts for turn in self.turns]
        parts = of_turns if of_turns or self.parts is None else [self.parts]
        return sum(each.thought_tokens for each in parts)

    @property
    def sampled_logprobs(self) -> tuple[float, ...]:
        """Returns the (n_sampled,) log-probabilities of the tokens that the policy chose."""
        return tuple(self.of_sampled(self.logprobs))

    def of_sampled(self, values: Sequence[T]) -> Sequence[T]:
        """Returns those of (T,) values that belong to tokens which the policy chose."""
        if not self.given:
            return values
        return [value for value, is_given in zip(values, self.given, strict=True) if not is_given]


@dataclass(frozen=True)
class Group:
    """Holds the G completions of one prompt, and their grades once graded (in the same order)."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    grades: tuple[Grade, ...] = ()


class ScoredText(NamedTuple):
    """Holds a few tokens of text and what a model makes of them.

    Attributes:
        tokens: ids; the first is given, the others are predicted.
        logprobs: of each but the first, in nats at temperature 1.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Describes a saved point of the run: its folder is complete when this exists.

    Attributes:
        step: updates made before it; 0 is the untouched base.
        epoch: finished passes over the data at that step, 1-based for step > 0.
        folder: holds `model/` (complete, loadable), `adapter/` (LoRA runs) and `manifest.json` with a sha256
            for each file.
        kl: mean over probe prompts of the exact KL(policy || base) in nats per token.
        kl_stderr: its standard error over prompts; None of a single one.
        valid_reward: mean validation reward in grader units; None without validation rows.
        valid_reward_stderr: its standard error over rows; None of fewer than four.
        advantage_over_base: mean paired difference to the base on the rows that checkpoints are judged by, in
            grader units.
        advantage_stderr: its standard error over rows; None of fewer than four.
        extra: what else was measured of it, by the names of `CheckpointOut.metrics`.
        scored: some of the canary's texts, as the trainer scores them; in the folder too, and only there once
            a state was read back.
    """

    step: int
    epoch: int
    folder: Path
    kl: float
    kl_stderr: float | None
    valid_reward: float | None
    valid_reward_stderr: float | None
    advantage_over_base: float | None
    advantage_stderr: float | None
    extra: dict[str, float | str | None] = field(default_factory=dict)
    scored: tuple[ScoredText, ...] = ()


@dataclass(frozen=True)
class Action:
    """Says what a run has done of its own accord, beside training, or would have done.

    Attributes:
        step: the step after which.
        number: counts a run's actions from 1, those that were not carried out too.
        kind: what was done, such as "roll_back".
        reason: what for, such as "kl".
        message: both in sentences, for the person who follows the run.
        figures: the numbers that led to it, with the `threshold` that was crossed.
        is_done: it was carried out; else it was only told.
    """

    step: int
    number: int
    kind: str
    reason: str
    message: str
    figures: Mapping[str, float]
    is_done: bool = True

    @property
    def gives_up_weights(self) -> bool:
        """Whether the weights after the step are given up, so that they are no checkpoint."""
        return self.is_done and self.kind in {"roll_back", "stop"}
