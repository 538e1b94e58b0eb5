"""GRPO in one file, to be read from top to bottom: sample, grade, compare, update.

    python examples/grpo_in_one_file.py

trains the built-in model to turn short biographies into JSON and prints each step's mean reward: with torch,
transformers, a CPU and about a minute. It imports nothing of the engine (workers/training): this is the same
algorithm with nothing around it, and a test holds its loss and gradient to the engine's. What the engine adds
makes a run fast, exact to resume and safe to deliver (docs/architecture.md).

P prompts a step, G completions of each, T tokens of the longest. Logprobs and KL are in nats. Source: Shao et
al. 2024, arXiv:2402.03300; token mean and asymmetric clip as in DAPO, Yu et al. 2025, arXiv:2503.14476.
"""

from __future__ import annotations

import copy
import json
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
MODEL, DATA = ROOT / "workers/models/cherry_nano", ROOT / "examples/people/train.jsonl"
STEPS, P, G, UPDATES = 10, 4, 8, 2  # UPDATES: optimiser steps made with the same completions
MAX_TOKENS, LEARNING_RATE, MAX_GRAD_NORM = 96, 1e-4, 1.0
BETA, CLIP_LOW, CLIP_HIGH = 0.02, 0.2, 0.27


def reward(text: str, reference: dict[str, Any]) -> float:
    """Returns the share, 0 to 1, of the reference's fields that the text has right as a JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        return 0.0
    if not isinstance(found, dict):
        return 0.0
    return sum(bool(found.get(name) == value) for name, value in reference.items()) / len(reference)


@torch.no_grad()
def sample(model: Any, prompts: list[list[int]], end_ids: list[int]) -> list[list[list[int]]]:
    """Samples G completions of each of P prompts by the model's own distribution, each with its end token."""
    longest = max(map(len, prompts))
    padded = [[0] * (longest - len(prompt)) + prompt for prompt in prompts for _ in range(G)]
    seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts for _ in range(G)]
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": MAX_TOKENS}
    rows = model.generate(torch.tensor(padded), attention_mask=torch.tensor(seen), **options)
    completions = []
    for row in rows[:, longest:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in end_ids), len(row))
        completions.append(row[:end])  # what follows is padding
    return [completions[i : i + G] for i in range(0, len(completions), G)]


def group_advantages(rewards: Tensor) -> Tensor:
    """Compares each completion with its group, in standard deviations from the mean: (G,) -> (G,)."""
    return (rewards - rewards.mean()) / rewards.std().clamp(min=1e-6)


def completion_logprobs(model: Any, prompt: list[int], completions: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Returns the logprob of each token of a group, (G, T), and where there is a token, (G, T) bool."""
    rows = [torch.tensor(prompt + completion) for completion in completions]
    ids = pad_sequence(rows, batch_first=True)  # on the right: causal attention never looks at the padding
    logits = model(ids).logits[:, len(prompt) - 1 : -1]  # the state before a token predicts it
    targets = ids[:, len(prompt) :]
    logprobs = torch.log_softmax(logits.float(), -1).gather(-1, targets[..., None])[..., 0]
    lengths = torch.tensor([len(completion) for completion in completions])
    return logprobs, torch.arange(targets.shape[1]) < lengths[:, None]


def token_losses(logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Returns the GRPO loss of each token, (G, T), from logprobs, (G, T) each, and advantages, (G, 1).

    `logprobs` are by the policy now and carry the gradient; `old_logprobs` by the policy that sampled, before
    the step's first update; `ref_logprobs` by the reference, the model as it was at the start.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)  # beyond the bounds nothing is gained
    log_ratio = ref_logprobs - logprobs
    kl = torch.expm1(log_ratio) - log_ratio  # estimator k3 of KL(policy || reference), never negative
    return -surrogate + BETA * ratio * kl  # without the ratio, the gradient would not be that of the KL


class GradedGroup(NamedTuple):
    """A prompt, its completions, their advantages, (G,), and the logprobs that stay fixed, (G, T) each."""

    prompt: list[int]
    completions: list[list[int]]
    advantages: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor


def add_gradient(model: Any, groups: list[GradedGroup], n_tokens: int) -> None:
    """Adds the gradient of the mean loss over a step's tokens to the model's weights, group by group."""
    for group in groups:
        logprobs, is_token = completion_logprobs(model, group.prompt, group.completions)
        losses = token_losses(logprobs, group.old_logprobs, group.ref_logprobs, group.advantages[:, None])
        torch.autograd.backward(losses[is_token].sum() / n_tokens)


def main() -> list[float]:
    """Trains, prints each step, and returns the mean reward of each step."""
    torch.manual_seed(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    reference = copy.deepcopy(model.eval()).requires_grad_(
        False
    )  # eval: no dropout, in training as in sampling
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    data = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    order, history, ends = random.Random(1), [], model.generation_config.eos_token_id
    as_tokens = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    for step in range(1, STEPS + 1):
        start = time.perf_counter()
        rows = order.sample(data, P)
        prompts = [tokenizer.apply_chat_template(row["messages"], **as_tokens) for row in rows]
        groups = sample(model, prompts, ends)  # 1. sample
        n_tokens = sum(len(completion) for completions in groups for completion in completions)
        learnable, mean_rewards = [], []
        for row, prompt, completions in zip(rows, prompts, groups, strict=True):
            texts = tokenizer.batch_decode([c[:-1] if c[-1] in ends else c for c in completions])
            rewards = torch.tensor([reward(text, row["reference"]) for text in texts])  # 2. grade
            mean_rewards.append(float(rewards.mean()))
            if rewards.std() > 0:  # a group whose rewards are all equal teaches nothing
                with torch.no_grad():
                    old, _ = completion_logprobs(model, prompt, completions)
                    ref, _ = completion_logprobs(reference, prompt, completions)
                advantages = group_advantages(rewards)  # 3. compare
                learnable.append(GradedGroup(prompt, completions, advantages, old, ref))
        for _ in range(UPDATES):  # 4. update
            optimizer.zero_grad()
            add_gradient(model, learnable, n_tokens)
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
        history.append(sum(mean_rewards) / P)
        print(f"step {step:2}/{STEPS}  reward {history[-1]:.3f}  {time.perf_counter() - start:.1f} s")
    return history


if __name__ == "__main__":
    main()
