"""What becomes of the tokens of a call's rows: where they end, and which completion they are.

A row is a completion by its number in the call: that of its prompt times the samples of each, and its sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workers.training.base.types import Completion, Prompt
from workers.training.rendering.conversation import tools_of
from workers.training.rendering.stop_strings import StopStrings
from workers.training.sampling.asked import OnCompletion, SampledModel, Sampling
from workers.training.sampling.thought_budgets import thought_budgets
from workers.training.sampling.turns import Over, Turns
from workers.training.sampling.waiting import Beginning


class Completing:
    """Follows what is written in one call, and hands over what has ended."""

    def __init__(
        self,
        policy: SampledModel,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_completion: OnCompletion | None,
        turns: Turns | None,
    ) -> None:
        self.completions: dict[tuple[int, int], Completion] = {}
        """What has ended, by prompt and sample."""
        self.end_ids = frozenset(policy.end_ids)
        self.stops = StopStrings(policy.tokenizer, sampling.stop)
        self.matchers = sampling.grammar.matchers() if sampling.grammar else None
        self.budgets = thought_budgets(sampling.reader, sampling.thinking_tokens)
        self._prompts = prompts
        self._sampling = sampling
        self._on_completion = on_completion
        self._turns = turns

    def begin(self, started: Sequence[Beginning]) -> None:
        """Takes note that rows go on from what was read."""
        for one in started:
            if self.matchers is not None:
                prompt = self._prompts[one.rows[0] // self._sampling.samples]
                self.matchers.begin(one.rows, one.tokens, has_tools=prompt.has_tools)
            if self.budgets is not None:
                self.budgets.begin(one.rows, one.tokens)

    def hand_over(
        self, rows: Sequence[int], tokens: Sequence[list[int]], logprobs: Sequence[list[float]]
    ) -> None:
        """Hands over rows that have ended, each with its tokens and log-probabilities."""
        if self.matchers is not None:
            self.matchers.drop(rows)
        at_end = [row[-1] in self.end_ids for row in tokens]
        texts = self.stops.decoded(
            [row[:-1] if end else row for row, end in zip(tokens, at_end, strict=True)]
        )
        for i, row in enumerate(rows):
            text, at_stop = self.stops.cut(texts[i])
            completion = Completion(
                tokens=tuple(tokens[i]),
                logprobs=tuple(logprobs[i]),
                text=text,
                finish_reason="stop" if at_end[i] or at_stop else "length",
                given=() if self.budgets is None else self.budgets.end(row),
            )
            prompt, sample = divmod(row, self._sampling.samples)
            if self._turns is None:
                self._keep(prompt, sample, self._taken_apart(completion, prompt, is_whole=not at_stop))
            else:
                self._turns.end(prompt, sample, completion)

    def keep(self, found: Over) -> None:
        """Takes in a completion that has ended with a reply."""
        self._keep(found.prompt, found.sample, found.completion)

    def _taken_apart(self, completion: Completion, prompt: int, *, is_whole: bool) -> Completion:
        """Returns the completion with its parts; one that is not whole has text behind its stop string."""
        reader = self._sampling.reader
        if reader is None:
            return completion
        tools = tools_of(self._prompts[prompt].item)
        text = None if is_whole else completion.text
        return replace(
            completion, parts=reader.read(self._prompts[prompt].tokens, completion.tokens, tools, text)
        )

    def _keep(self, prompt: int, sample: int, completion: Completion) -> None:
        self.completions[prompt, sample] = completion
        if self._on_completion is not None:
            self._on_completion(prompt, sample, completion)
