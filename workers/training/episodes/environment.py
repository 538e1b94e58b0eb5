"""What an environment is to the engine. It may call tools or play a user; how, the engine does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from graders.types import FailureKind, Usage
from workers.training.base.parts import Parts
from workers.training.base.turns import CallResult


class EpisodeLost(Exception):
    """Says why an episode cannot go on by the fault of nobody who is trained: a tool server failed.

    Its rollout is left out of the gradient and gets no grade. The text is for the person who follows the run.
    `usage` is what models were asked for all the same, `kind` names who failed, and `results` are what tools
    answered to the other calls of the turn. `waited_for` says which server was waited for in vain, where one
    was: then the run pauses.
    """

    def __init__(
        self,
        message: str,
        usage: Usage | None = None,
        kind: FailureKind = FailureKind.TOOL_SERVER,
        results: Sequence[CallResult] = (),
        waited_for: str = "",
    ) -> None:
        super().__init__(message)
        self.usage, self.kind, self.results = usage or {}, kind, results
        self.waited_for = waited_for


@dataclass(frozen=True)
class Reply:
    """Is what an environment replies to a turn. The episode is over where there is nothing to read.

    Attributes:
        results: of the turn's calls, in their order.
        messages: other messages in the chat form, behind those.
        usage: what models were asked for it.
        reward: the environment's own judgement of an episode that is over; None where it has none.
    """

    results: Sequence[CallResult] = ()
    messages: Sequence[Mapping[str, Any]] = ()
    usage: Usage = field(default_factory=dict)
    reward: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the policy has nothing more to read."""
        return not self.results and not self.messages


class Episode(Protocol):
    """Is one rollout's conversation. Its calls come one after another, each from any thread."""

    def reply(self, parts: Parts) -> Reply:
        """Returns what comes back to a turn. It may take long. Raises `EpisodeLost`."""


@runtime_checkable
class FollowedEpisode(Episode, Protocol):
    """Is an episode whose environment follows it to its end, and may judge it."""

    def end(self, parts: Parts | None, *, is_cut: bool) -> Reply:
        """Hears the last turn, behind which the policy writes no more, whatever would be replied.

        `parts` are None where the policy cannot read the reply to a turn that was told before. Returns an
        end, perhaps with a reward. Raises `EpisodeLost`.
        """


@runtime_checkable
class DroppedEpisode(Episode, Protocol):
    """Is an episode whose environment wants to know when nobody goes on with it."""

    def drop(self) -> None:
        """Hears that the episode was left, as when sampling broke off. It may hear it twice."""


class Environment(Protocol):
    """Begins episodes. It is safe to call from many threads."""

    def start(self, item: Mapping[str, Any], trace_id: str) -> Episode:
        """Begins the episode of a row. `trace_id` names it to whoever is asked. Raises `EpisodeLost`."""
