"""What is measured: sizes, prompts and rewards, the same for both sides. P prompts, G completions each."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from methods.rows import Row

WORDS = (
    *("apple", "river", "stone", "cloud", "garden", "winter", "island", "orange", "green", "silver", "horse"),
    *("table", "paper", "music", "bridge", "window", "forest", "summer", "red", "sea", "old", "tea", "sun"),
)
INSTRUCTION = "Write the words in capital letters:"
LETTERS = frozenset("abcdefghijklm")
ENOUGH = 40
"""Characters below which an answer cannot have the full reward: else the shortest would win."""

Reward = Callable[[str, int], float]
"""(completion, index of the prompt's row) -> reward."""


@dataclass(frozen=True)
class Workload:
    """One kind of work.

    Attributes:
        title: one line for people.
        prompt_tokens: of each prompt, chat template included.
        ends: completions end at the model's end token; False lets every one run to `max_tokens`.
        reward: "random" gives every group a spread and nothing to learn; "half" leaves every second prompt's
            group without spread; "letters" is the share of characters from a to m, and can be learnt.
        rows: different prompts.
    """

    name: str
    title: str
    prompt_tokens: int
    max_tokens: int
    prompts: int
    group: int
    ends: bool
    reward: Literal["random", "half", "letters"]
    rows: int
    learning_rate: float = 1e-6


_W1 = Workload(
    name="w1",
    title="60-token prompts, natural lengths up to 64, G=8",
    prompt_tokens=60,
    max_tokens=64,
    prompts=4,
    group=8,
    ends=True,
    reward="random",
    rows=32,
)
_W1_CAP = replace(
    _W1, name="w1cap", title="60-token prompts, 64 new tokens (all to the cap), G=8", ends=False
)
_W2 = replace(
    _W1_CAP,
    name="w2",
    title="512-token prompts, 64 new tokens (all to the cap), G=16",
    prompt_tokens=512,
    prompts=2,
    group=16,
    rows=8,
)
_W3 = replace(_W1, name="w3", title="as w1, half of the groups without spread", reward="half")
_W4 = replace(
    _W1,
    name="w4",
    title="as w1, 10 epochs over 32 prompts, a reward to learn",
    reward="letters",
    learning_rate=5e-4,
)
WORKLOADS = {workload.name: workload for workload in (_W1_CAP, _W1, _W2, _W3, _W4)}


def make_rows(workload: Workload, tokenizer: Any, seed: int = 0) -> list[Row]:
    """Different rows, whose prompts have `prompt_tokens` tokens, or as few more as the last word makes."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < workload.rows:
        texts[_request(workload.prompt_tokens, tokenizer, rng)] = None
    messages = [[{"role": "user", "content": text}] for text in texts]
    return [Row(line=i + 1, item={"messages": message, "row": i}) for i, message in enumerate(messages)]


def _request(prompt_tokens: int, tokenizer: Any, rng: random.Random) -> str:
    """To copy words in capitals: a task of cherry-nano's kind."""
    text = INSTRUCTION

    def tokens() -> int:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        return len(ids)

    while (missing := prompt_tokens - tokens()) > 0:
        word = " " + rng.choice(WORDS)
        text += word[:missing]
    return text


def make_reward(workload: Workload) -> Reward:
    """A workload's reward. "random" is a checksum, which is as good as random and the same in every run."""
    if workload.reward == "letters":
        return lambda text, _: sum(c in LETTERS for c in text) / max(len(text), ENOUGH)

    def reward(text: str, row: int) -> float:
        if workload.reward == "half" and row % 2:
            return 0.5
        return zlib.crc32(f"{row} {text}".encode()) / 2**32

    return reward
