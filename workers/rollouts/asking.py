"""What one call asks of a vLLM server, completion by completion, and what becomes of its replies.

A completion of several turns is asked for turn by turn: what was written and what the environment has replied
are the prompt of its next request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.replies import By, Written, read_reply
from workers.rollouts.vllm_client import Asked
from workers.training.base.randomness import keyed_seed
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.policy import Policy
from workers.training.sampling.asked import OnCompletion, Sampling
from workers.training.sampling.completing import Completing
from workers.training.sampling.turns import GoesOn, Over, Turns


class Asking:
    """Keeps one call: a completion goes by its number, that of its prompt times the samples of each."""

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        by: By,
        on_completion: OnCompletion | None = None,
        turns: Turns | None = None,
        longest: int = 0,
    ) -> None:
        """`longest` is the most tokens of prompt and completion that the server takes; 0 is no limit."""
        self._policy = policy
        self._prompts = prompts
        self._sampling = sampling
        self._by = by
        self._told = on_completion
        self._turns = turns
        self._longest = longest
        self._completing = Completing(policy, prompts, sampling, self._tell, turns)
        self._most: dict[int, int] = {}
        """Tokens that were asked for, by number."""

    @property
    def waits_for_replies(self) -> bool:
        """Whether an environment has still to reply to something."""
        return self._turns is not None and self._turns.are_open

    @property
    def groups(self) -> list[Group]:
        """Returns what came of it, when all has ended."""
        found, samples = self._completing.completions, range(self._sampling.samples)
        return [
            Group(prompt, tuple(self._signed(found[i, sample]) for sample in samples))
            for i, prompt in enumerate(self._prompts)
        ]

    def first(self) -> Iterator[tuple[int, Asked]]:
        """Yields the request for each completion, or for its first turn."""
        most, context = self._sampling.max_tokens, self._policy.context
        for i, prompt in enumerate(self._prompts):
            for sample in range(self._sampling.samples):
                own = max(1, min(most, context - len(prompt.tokens)))
                yield self._asked(GoesOn(i, sample, prompt.tokens, 0, own, 0))

    def take(self, number: int, reply: Mapping[str, Any]) -> None:
        """Takes a reply in. Raises `ServerAway` for one that cannot be used."""
        written = read_reply(reply, self._by, self._policy.vocabulary, self._most[number])
        tokens, is_cut = _cut(written, self._completing)
        is_ended = is_cut or tokens[-1] in self._completing.end_ids
        if written.is_ended != is_ended:
            raise ServerAway(f"a reply of it cannot be used: it does not end as it says ({tokens[-3:]})")
        self._completing.hand_over([number], [list(tokens)], [list(written.logprobs[: len(tokens)])])

    def next(self, *, wait: bool) -> Iterator[tuple[int, Asked]]:
        """Yields the requests for turns that follow what has been replied; `wait`s for one reply at least."""
        for found in self._turns.next(wait=wait) if self.waits_for_replies and self._turns else ():
            if isinstance(found, Over):
                self._completing.keep(found)
            else:
                yield self._asked(found)

    def _asked(self, one: GoesOn) -> tuple[int, Asked]:
        if self._longest and len(one.tokens) + one.most > self._longest:
            raise RolloutsRefused(
                f"The vLLM server takes {self._longest} tokens of prompt and completion, and a row needs"
                f" {len(one.tokens)} and {one.most}. Start it with a larger --max-model-len, or lower"
                " max_completion_tokens."
            )
        number = one.prompt * self._sampling.samples + one.sample
        self._most[number] = one.most
        return number, Asked(one.tokens, self._parameters(one))

    def _parameters(self, one: GoesOn) -> dict[str, Any]:
        """Returns vLLM's sampling parameters. A completion's first turn has the key of one without turns."""
        sampling = self._sampling
        turn = (one.turn,) if one.turn else ()
        parameters = {
            "n": 1,
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "max_tokens": one.most,
            # vLLM's seeds are signed numbers of 64 bits
            "seed": keyed_seed(*sampling.key, self._prompts[one.prompt].row, one.sample, *turn) >> 1,
            "logprobs": 0,
            "ignore_eos": True,
            "stop_token_ids": list(self._policy.end_ids),
            "detokenize": bool(sampling.stop),
        }
        if sampling.stop:
            parameters |= {"stop": list(sampling.stop), "skip_special_tokens": False}
        return parameters

    def _tell(self, prompt: int, sample: int, completion: Completion) -> None:
        if self._told is not None:
            self._told(prompt, sample, self._signed(completion))

    def _signed(self, completion: Completion) -> Completion:
        return replace(completion, sampled_by=self._by.name)


def _cut(written: Written, completing: Completing) -> tuple[tuple[int, ...], bool]:
    """Returns the tokens up to the one that completed a stop string, and whether one did."""
    tokens, stops = written.tokens, completing.stops
    if stops:
        for count in range(1, len(tokens) + 1):
            if stops.is_complete(tokens[:count]):
                return tokens[:count], True
    return tokens, False


def check_sampling(sampling: Sampling) -> None:
    """Raises `RolloutsRefused` for what validation should have refused."""
    asked = {
        "a response format": sampling.grammar is not None,
        "a budget of thoughts": sampling.thinking_tokens is not None and sampling.reader is not None,
        "top_p": sampling.top_p != 1,
        "temperature 0": sampling.temperature == 0,
    }
    if named := [name for name, is_asked in asked.items() if is_asked]:
        raise RolloutsRefused(
            f"vLLM does not do rollouts with {', '.join(named)} here: set rollouts to built_in."
        )
