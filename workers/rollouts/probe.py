"""Finds out whether a vLLM server samples the policy, and gives log-probabilities of what it samples from.

By default they are those of the raw logits. An importance ratio made of those would be wrong without a sign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.replies import By, check_versions
from workers.rollouts.vllm_client import Asked, VllmClient
from workers.training.model.policy import Policy
from workers.training.sampling.asked import Sampling

WARM = 2.0
"""The temperature that is compared with 1: the highest that vLLM takes."""
TOP = 5
"""So many of the likeliest tokens are compared, the one that was drawn among them."""
LEAST_SPREAD = 0.05
"""Nats between the first and the last of them, over all prompts together, below which nothing can be told.
Chosen, not measured: ten times the rounding of logits in bf16.
"""
MOST_APART = 0.25
"""Nats, on average over the likeliest tokens, beyond which a server computes something else than the policy.
Chosen, not measured: bf16 moves a log-probability of a likely token by some hundredths.
"""
MOST_GROWN = 4.0
ROUNDING = 0.03
"""A server to which all weights go anew may come to be so many times as far from the trainer as it was at
first, or so many nats. Chosen, not measured: rounding stays what it was, and a layer that was left out grows.
"""
COARSE = 0.002
"""Nats beyond which a server rounds more than fp32 does, where the trainer computes in it: 1e-5 was measured
between two of fp32.
"""
OTHER = (
    "The vLLM server at {url} does not compute this policy: with {name}, its log-probabilities of the"
    " likeliest tokens after {n} prompts are {apart:.3g} nats from the trainer's on average, and rounding"
    " makes at most {most:.2g}. See that it serves the same base model, of the same revision, in the"
    " trainer's dtype, and reads all that the trainer writes for it (docs/vllm.md); or set rollouts to"
    " built_in."
)
TOKENIZER = (
    "The vLLM server at {url} reads text otherwise than the job's model does: {text!r} is {theirs} there, and"
    " {ours} here. It would stop elsewhere than at the job's `stop` strings. Start it with the tokenizer of"
    " the job's model (--tokenizer), or leave `stop` out."
)
RAW = (
    "The vLLM server at {url} gives log-probabilities of the raw logits, not of the distribution that it"
    " samples from, so no importance ratio can be made of them. Start it with"
    " --logprobs-mode processed_logprobs (docs/vllm.md)."
)
UNTOLD = (
    "It cannot be told which log-probabilities the vLLM server at {url} gives: the likeliest tokens of {n}"
    " prompts are within {spread:.3f} nats of each other."
)


def check_logprobs(client: VllmClient, model: str, prompts: Sequence[Sequence[int]]) -> None:
    """Raises `RolloutsRefused` unless the server's log-probabilities are those of what it samples from.

    At twice the temperature the distances between tokens' log-probabilities are half as large, if they are;
    raw ones stay as they were. Raises `ServerAway`.
    """
    plain, warm = (asyncio.run(_likeliest(client, model, prompts, heat)) for heat in (1.0, WARM))
    pairs = list(zip(plain, warm, strict=True))
    spread = sum(_spread(one, other) for one, other in pairs)
    spread_warm = sum(_spread(other, one) for one, other in pairs)
    if spread < LEAST_SPREAD:
        raise RolloutsRefused(UNTOLD.format(url=client.url, n=len(prompts), spread=spread))
    if abs(spread_warm - spread / WARM) > abs(spread_warm - spread):
        raise RolloutsRefused(RAW.format(url=client.url))


def check_policy(
    client: VllmClient, by: By, policy: Policy, prompts: Sequence[Sequence[int]], most: float = MOST_APART
) -> float:
    """Returns how many nats the server's log-probabilities are from the policy's, on average.

    They are those of the likeliest tokens after each prompt. Raises `RolloutsRefused` where that is more than
    `most`, and `ServerAway` where other weights have replied.
    """
    found = asyncio.run(_likeliest(client, by.model, prompts, 1.0, by))
    apart = [
        abs(ours[token] - value)
        for prompt, theirs in zip(prompts, found, strict=True)
        for ours in [_logprobs(policy, prompt)]
        for token, value in theirs.items()
        if token < len(ours)
    ]
    mean = sum(apart) / len(apart)
    if not mean <= most:
        told = {"url": client.url, "name": by.name, "n": len(prompts), "apart": mean, "most": most}
        raise RolloutsRefused(OTHER.format(**told))
    return mean


@torch.inference_mode()
def _logprobs(policy: Policy, prompt: Sequence[int]) -> list[float]:
    """Returns the (V,) log-probabilities of what follows a prompt, as the sampling model has them."""
    tokens = torch.tensor([list(prompt)], device=policy.device)
    logits = policy.rollout_model(input_ids=tokens, use_cache=False).logits[0, -1]
    values: list[float] = torch.log_softmax(logits.float(), dim=-1).tolist()
    return values


def check_tokenizer(client: VllmClient, model: str, policy: Policy, sampling: Sampling) -> None:
    """Raises `RolloutsRefused` where the server, which looks for stop strings, reads them as other tokens."""
    for text in sampling.stop:
        ours = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        theirs = client.tokens_of(model, text)
        if ours != theirs:
            told = {"url": client.url, "text": text, "theirs": theirs, "ours": ours}
            raise RolloutsRefused(TOKENIZER.format(**told))


async def _likeliest(
    client: VllmClient,
    model: str,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    by: By | None = None,
) -> list[Mapping[int, float]]:
    """Returns the log-probabilities of the likeliest first tokens of each prompt, in nats, by token."""
    parameters = {"temperature": temperature, "max_tokens": 1, "logprobs": TOP, "detokenize": False}
    found: dict[int, Mapping[int, float]] = {}
    async with client.requests(model) as requests:
        for number, prompt in enumerate(prompts):
            requests.ask(number, Asked(prompt, parameters))
        while requests.are_open:
            found |= {number: _top(reply, by) for number, reply in await requests.replies()}
    return [found[number] for number in range(len(prompts))]


def _top(reply: Mapping[str, Any], by: By | None) -> Mapping[int, float]:
    try:
        choice = reply["choices"][0]
        if by is not None:
            check_versions(choice.get("weight_versions"), by)
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        return {int(one["token_id"]): float(one["logprob"]) for one in top}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ServerAway("a reply to the probe has no log-probabilities") from None


def _spread(values: Mapping[int, float], others: Mapping[int, float]) -> float:
    """Returns how far apart the tokens are that both have; the token that was drawn is among them or not."""
    both = [values[token] for token in values.keys() & others.keys()]
    return max(both) - min(both) if both else 0.0
