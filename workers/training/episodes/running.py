"""One episode under way: what was written and given so far, and the completion that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graders.types import Usage, add_usages
from workers.training.base.parts import Parts
from workers.training.base.turns import Turn
from workers.training.base.types import Completion, Prompt
from workers.training.episodes.environment import Episode, EpisodeLost, Reply


@dataclass
class Running:
    """Keeps an episode. Its prompt and all its tokens, as they were sampled and given, are the next prompt.

    Attributes:
        place: index of the prompt in the call, and of the sample.
        episode: what replies, once it was asked.
        usage: what models were asked for its replies so far.
        ending: how it ends, once nothing may follow its last turn.
        reward: the environment's own judgement.
    """

    place: tuple[int, int]
    prompt: Prompt
    trace_id: str
    episode: Episode | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    given: list[bool] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    last: Completion | None = None
    usage: Usage = field(default_factory=dict)
    ending: Literal["stop", "length"] | None = None
    reward: float | None = None

    @property
    def item(self) -> Mapping[str, Any]:
        """Returns the row."""
        return self.prompt.item

    @property
    def read(self) -> tuple[int, ...]:
        """Returns the prompt and all that has followed."""
        return (*self.prompt.tokens, *self.tokens)

    @property
    def n_sampled(self) -> int:
        """Counts the tokens that the policy chose, in all turns."""
        return len(self.tokens) - sum(self.given)

    def write(self, written: Completion, parts: Parts) -> None:
        """Takes a turn of the policy."""
        self.tokens += written.tokens
        self.logprobs += written.logprobs
        self.given += written.given or (False,) * len(written.tokens)
        self.turns.append(Turn(parts, written.n_sampled))
        self.last = written

    def note(self, reply: Reply) -> None:
        """Takes what has come back to the newest turn."""
        self.turns[-1] = replace(self.turns[-1], results=tuple(reply.results), messages=tuple(reply.messages))

    def spend(self, usage: Usage) -> None:
        """Takes what a reply has cost."""
        self.usage = add_usages([self.usage, usage])

    def give(self, tokens: Sequence[int]) -> None:
        """Takes the tokens that the policy reads next."""
        self.tokens += tokens
        self.logprobs += [0.0] * len(tokens)
        self.given += [True] * len(tokens)

    def completion(
        self, text: str, finish_reason: Literal["stop", "length"], lost: EpisodeLost | None = None
    ) -> Completion:
        """Returns the episode as it stands."""
        of_loss: dict[str, Any] = {}
        if lost is not None:
            of_loss = {"lost": str(lost), "lost_by": lost.kind, "waited_for": lost.waited_for}
        return Completion(
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            text=text,
            finish_reason=finish_reason,
            given=tuple(self.given) if any(self.given) else (),
            parts=self.turns[-1].parts,
            turns=tuple(self.turns),
            trace_id=self.trace_id,
            usage=self.usage,
            environment_reward=self.reward,
            **of_loss,
        )
