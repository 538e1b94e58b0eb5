"""Whether the grader tells the first completions apart: where it does not, there is nothing to learn from.

While no prompt's completions differ in reward, no update has a gradient but that of the KL at its minimum. So
the first steps' completions are all the base's, and nothing is sampled only to find this out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from methods.rewards import scale_of
from methods.train_config import TrainConfig
from workers.training.advantages import groups_with_spread, least_spread
from workers.training.base.errors import FlatReward
from workers.training.base.types import Group
from workers.training.rewards import Rewards, rewards_of

COMPLETIONS = 256
"""Completions, none of which differs in reward from the others of its prompt, after which a run fails. The
chance to see no right answer among them is 5 % where one in 86 is right. Chosen, not measured.
"""
EXAMPLES = 3
"""Completions that the message shows, of different prompts. Chosen, not measured."""
EXAMPLE_CHARACTERS = 200
"""Most characters of a completion that it shows. Chosen, not measured."""


@dataclass
class FlatStart:
    """What a run's completions had for rewards as long as no group had any spread. Part of the state.

    Attributes:
        completions: graded ones so far.
        lowest: reward so far, in grader units; None before the first.
        highest: the same.
        is_over: some group had spread, or enough was seen.
    """

    completions: int = 0
    lowest: float | None = None
    highest: float | None = None
    is_over: bool = False

    def note(self, step: int, groups: Sequence[Group], config: TrainConfig) -> None:
        """Takes in completions to training rows. Raises `FlatReward` once too many had no spread."""
        if self.is_over or config.allow_flat_reward:
            return
        rewards = _compared(groups, config)
        if self._has_spread(rewards, config):
            self.is_over = True
            return
        self._count(rewards)
        if self.completions >= COMPLETIONS:
            raise FlatReward(self._message(step, groups, config))

    def note_unseen(self, groups: Sequence[Group], config: TrainConfig) -> None:
        """Takes in the base's completions to validation rows, whose rewards count where none of them differ.

        They decide nothing alone, since what differs there may differ in training, or not.
        """
        rewards = _compared(groups, config)
        if not self._has_spread(rewards, config):
            self._count(rewards)

    def _has_spread(self, rewards: Rewards, config: TrainConfig) -> bool:
        largest = max(
            (abs(reward) for reward in (self.lowest, self.highest) if reward is not None), default=0.0
        )
        return bool(groups_with_spread(*rewards, least_spread(config, rewards, largest)).any())

    def _count(self, rewards: Rewards) -> None:
        found = rewards.values[rewards.graded].tolist()
        self.completions += len(found)
        self.lowest = min([*found, *_known(self.lowest)], default=None)
        self.highest = max([*found, *_known(self.highest)], default=None)

    def _message(self, step: int, groups: Sequence[Group], config: TrainConfig) -> str:
        lines = [
            f"Nothing can be learnt: of {self.completions} completions up to step {step}, none got another"
            f" reward than the others to its prompt. {self._what(config)} With allow_flat_reward the job"
            " trains all the same. Examples:",
            *_examples(groups),
        ]
        return "\n".join(lines)

    def _what(self, config: TrainConfig) -> str:
        """Says which reward it was, and what that can mean."""
        assert self.lowest is not None
        assert self.highest is not None
        scale = scale_of(config.reward_range, max(abs(self.lowest), abs(self.highest)))
        if self.highest - self.lowest > scale.least_spread:
            return (
                f"Rewards differ between prompts alone ({self.lowest:.3g} to {self.highest:.3g}): some are"
                " always right and the others always wrong, or the grader looks at the row and not at the"
                " answer."
            )
        if self.lowest >= scale.right_from:
            return (
                f"All were right (reward {self.highest:.3g}): the model solves these rows already, or the"
                " grader accepts anything. Use harder rows or a stricter grader."
            )
        if self.highest <= scale.wrong_to:
            return (
                f"All were wrong (reward {self.lowest:.3g}): the task is out of the model's reach, or the"
                " grader asks for a form that it does not write. Show it the form in the prompt, use easier"
                " rows or a stronger model, or give part of the reward for part of the answer."
            )
        return (
            f"All got the same reward ({self.lowest:.3g}), neither right nor wrong: the grader does not tell"
            " answers apart."
        )


def _compared(groups: Sequence[Group], config: TrainConfig) -> Rewards:
    """Returns the rewards by what is compared, (P, G).

    Where completions are compared with those of other prompts, that is all of them together, (1, P * G).
    """
    values, graded = rewards_of(groups)
    if config.recipe.baseline in ("batch", "value"):
        return Rewards(values.reshape(1, -1), graded.reshape(1, -1))
    return Rewards(values, graded)


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _examples(groups: Sequence[Group]) -> Iterator[str]:
    """Yields a completion of each of a few prompts, with its grade."""
    for group in groups[:EXAMPLES]:
        for completion, grade in list(zip(group.completions, group.grades, strict=True))[:1]:
            text = completion.text.strip()
            shown = text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]}…"
            reward = "no grade" if grade.reward is None else f"reward {grade.reward:.3g}"
            why = f", {grade.failure.kind}" if grade.failure is not None else ""
            yield f"- line {group.prompt.file_row + 1}, {reward}{why}: {shown!r}"
