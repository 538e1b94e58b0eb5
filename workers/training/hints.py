"""Tells from a run's metrics what its owner should know: nothing is learnt, answers are cut, rewards below 0.

Hints, not triggers: in a trial of 94 runs, ten steps without spread were seen in 33 of the 51 that had
collapsed, and in 10 of the 27 sound ones, which had solved their task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from methods import metrics as names
from methods.train_config import TrainConfig

STEPS_WITHOUT_SPREAD = 10
"""Steps in a row in which no group has spread after which that is told; see above for the trial. A run with
fewer steps is told when none of them had one.
"""
TRUNCATED_SHARE = 0.5
"""Share of a step's completions that are cut from which on it counts. Chosen, not measured."""
STEPS_TRUNCATED = 5
"""Steps in a row with so many cut completions after which that is told, or all of a shorter run. Chosen, not
measured.
"""

CUT_IN_THOUGHTS_SHARE = 0.1
"""Share of a step's completions that are cut inside their thoughts from which on that is told. Chosen, not
measured.
"""
UNPARSED_SHARE = 0.05
"""Share of a step's completions that are unparsed from which on that is told. Chosen, not measured."""
LOST_SHARE = 0.05
"""Share of a step's episodes that are lost from which on that is told. Chosen, not measured."""

ROUNDING = 1e-9
"""By how much of its size a reward may miss the range without a word: a formula's rounding is far below.
Chosen, not measured.
"""


@dataclass
class Hints:
    """How long what is hinted at has lasted, in steps. A part of the training state."""

    without_spread: int = 0
    truncated: int = 0
    is_range_asked_for: bool = False
    """Whether the owner was told that the grader should state its range."""
    is_cut_told: bool = False
    """Whether the owner was told that thoughts are cut."""
    is_unparsed_told: bool = False
    """Whether the owner was told that completions cannot be taken apart."""
    is_lost_told: bool = False
    """Whether the owner was told that episodes are lost."""

    def after(
        self, step: int, total_steps: int, values: Mapping[str, float], config: TrainConfig
    ) -> Iterator[str]:
        """Takes in a step's metrics; yields a sentence for each thing that has now lasted long enough."""
        lowest = values.get(names.REWARD_MIN, 0.0)
        bound = 0.0 if config.reward_range is None else config.reward_range[0]
        if lowest < bound - ROUNDING * max(1.0, abs(bound)) and not self.is_range_asked_for:
            self.is_range_asked_for = True
            yield _below_the_range(step, lowest, config)
        yield from self._of_parts(step, values, config)
        yield from self._of_lost(step, values)
        has_no_spread = values.get(names.NO_SPREAD_SHARE, 0.0) == 1.0
        self.without_spread = self.without_spread + 1 if has_no_spread else 0
        if self.without_spread == min(STEPS_WITHOUT_SPREAD, total_steps):
            yield _without_spread(step, self.without_spread, values.get(names.REWARD_MEAN))
        share = values.get(names.TRUNCATED_SHARE.format(split="train"), 0.0)
        self.truncated = self.truncated + 1 if share >= TRUNCATED_SHARE else 0
        if self.truncated == min(STEPS_TRUNCATED, total_steps):
            yield (
                f"Step {step}: {share:.0%} of the completions were cut at max_completion_tokens"
                f" ({config.max_completion_tokens}), and for {_steps(self.truncated)} at least"
                f" {TRUNCATED_SHARE:.0%}. What is cut is graded without its end: raise max_completion_tokens,"
                " or ask for shorter answers."
            )

    def _of_parts(self, step: int, values: Mapping[str, float], config: TrainConfig) -> Iterator[str]:
        """Tells once each that thoughts are cut, and that completions cannot be taken apart."""
        cut = values.get(names.CUT_IN_THOUGHTS_SHARE.format(split="train"), 0.0)
        if cut >= CUT_IN_THOUGHTS_SHARE and not self.is_cut_told:
            self.is_cut_told = True
            yield (
                f"Step {step}: {cut:.0%} of the completions were cut inside their thoughts, so that they have"
                f" no answer. Raise max_completion_tokens ({config.max_completion_tokens}), or have thoughts"
                " closed earlier: set max_thinking_tokens, or a lower reasoning_effort."
            )
        unparsed = values.get(names.UNPARSED_SHARE.format(split="train"), 0.0)
        if unparsed >= UNPARSED_SHARE and not self.is_unparsed_told:
            self.is_unparsed_told = True
            yield (
                f"Step {step}: {unparsed:.0%} of the completions do not lie in the parts that the model's"
                " response template knows, and were graded on nothing. Look at their failures among the"
                " rollouts. Where the model was taught to write so, give its tokenizer a response_template."
            )

    def _of_lost(self, step: int, values: Mapping[str, float]) -> Iterator[str]:
        """Tells once that episodes are lost: nothing else fails while they are few."""
        lost = values.get(names.EPISODES_LOST.format(split="train"), 0.0)
        share = lost / max(values.get(names.GRADES_COUNT.format(split="train"), 0.0), 1.0)
        if share >= LOST_SHARE and not self.is_lost_told:
            self.is_lost_told = True
            yield (
                f"Step {step}: {share:.0%} of the episodes broke off because a tool server, or the model that"
                " plays the user, failed. They are in no gradient, so little is learnt of what calls bring."
                " What was answered is in the failures (tool_server_error, user_simulator_error) of the"
                " rollouts."
            )


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _without_spread(step: int, lasted: int, mean: float | None) -> str:
    """Says that nothing was learnt, and what that can mean."""
    rewards = "" if mean is None else f" (mean {mean:.3g})"
    return (
        f"Step {step}: for {_steps(lasted)} all completions of each prompt had the same reward{rewards}, to a"
        " thousandth of the grader's range, so nothing was learnt. Either the task is solved, or it is out of"
        " reach, or the grader does not tell answers apart: look at the completions and their grades."
    )


def _below_the_range(step: int, lowest: float, config: TrainConfig) -> str:
    """Says that answers which do not parse may fare better than others."""
    if config.reward_range is None:
        return (
            f"Step {step}: the grader gives rewards below 0 ({lowest:.3g}), and what it can give at least is"
            " not known. A part of an answer that cannot be parsed counts as 0, which may be more than a"
            ' wrong one gets. Give python and endpoint graders their "range": [least, largest].'
        )
    low, high = config.reward_range
    return (
        f"Step {step}: the grader gives {lowest:.3g}, below its range of {low:.3g} to {high:.3g}. An answer"
        f" that cannot be parsed is taken to be worth {min(low, 0.0):.3g}, more than that: correct the range."
    )
