"""Thoughts beside plain completions: `python -m benchmarks.engine.thoughts`.

What a token costs where thoughts of ten times the answer's length stand before it, closed by a budget and
taken apart, what it costs where the answer keeps to a schema too, and what it costs in plain completions of
that length. They are sampled in turn, from the same model and with the same random numbers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from methods.train_config import TrainConfig
from tests.chat_templates import tokenizer_of
from tests.tiny_model import make_tiny_model
from workers.training.base.types import Prompt
from workers.training.model.policy import Policy
from workers.training.prompts import chat_prompt
from workers.training.sampling.rollout import Sampling, sample_groups

FAMILY = "qwen3_5_think"
HIDDEN, LAYERS, VOCABULARY = 192, 4, 4096
"""Of the model: about as large as cherry-nano. So many tokens that hardly a completion ends by chance."""
PROMPTS, GROUP = 4, 8
ANSWER, TIMES = 40, 10
"""Tokens of an answer, and how many times as many its thoughts have."""
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "a", "schema": {"type": "object", "additionalProperties": {"type": "string"}}},
}


class Found(NamedTuple):
    """Holds microseconds a token, of each round."""

    plain: list[float]
    thinking: list[float]
    held: list[float]


def measure(rounds: int) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tokenizer_of(FAMILY)
        size = {"hidden": HIDDEN, "layers": LAYERS, "context": 1024, "vocabulary": VOCABULARY}
        model = make_tiny_model(Path(folder), tokenizer=tokenizer, **size)
        policy = Policy.load(_config(model))
        ids, _ = chat_prompt({"messages": [{"role": "user", "content": "q"}]}, tokenizer)
        prompts = [Prompt(row, {}, tuple(ids)) for row in range(PROMPTS)]
        plain = Sampling(GROUP, (TIMES + 1) * ANSWER, 1.0, ("bench",))
        thinking = replace(plain, reader=policy.reader, thinking_tokens=TIMES * ANSWER)
        held = replace(thinking, grammar=policy.grammar)
        found = Found([], [], [])
        for number in range(rounds + 1):
            for sampling, into in zip((plain, thinking, held), found, strict=True):
                each = _per_token(policy, prompts, replace(sampling, key=("bench", number)))
                if number:  # the first round compiles and warms up
                    into.append(each)
        return found


def _per_token(policy: Policy, prompts: list[Prompt], sampling: Sampling) -> float:
    start = time.perf_counter()
    groups = sample_groups(policy, prompts, sampling)
    seconds = time.perf_counter() - start
    return 1e6 * seconds / sum(len(one.tokens) for group in groups for one in group.completions)


def _config(model: Path) -> TrainConfig:
    return TrainConfig(
        model="bench",
        model_path=str(model),
        seed=1,
        n_epochs=1,
        prompts_per_step=PROMPTS,
        group_size=GROUP,
        max_completion_tokens=(TIMES + 1) * ANSWER,
        learning_rate=1e-3,
        eval_interval=1,
        device="cpu",
        response_format=SCHEMA,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    torch.set_num_threads(1)
    found = measure(parser.parse_args().rounds)
    print("| completions | microseconds a token | range | beside plain, in pairs |\n|---|---|---|---|")
    for name, values in zip(("plain", "thoughts", "thoughts, answer by a schema"), found, strict=True):
        ratios = [each / plain for each, plain in zip(values, found.plain, strict=True)]
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {name} | {statistics.median(values):.1f} | {spread} | {statistics.median(ratios):.3f} |")


if __name__ == "__main__":
    main()
