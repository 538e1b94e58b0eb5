"""Finds out whether a vLLM server gives log-probabilities of the distribution that it samples from.

By default they are those of the raw logits. An importance ratio made of those would be wrong without a sign.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.vllm_client import Asked, VllmClient

WARM = 2.0
"""The temperature that is compared with 1: the highest that vLLM takes."""
TOP = 5
"""So many of the likeliest tokens are compared, the one that was drawn among them."""
LEAST_SPREAD = 0.05
"""Nats between the first and the last of them, over all prompts together, below which nothing can be told.
Chosen, not measured: ten times the rounding of logits in bf16.
"""
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


async def _likeliest(
    client: VllmClient, model: str, prompts: Sequence[Sequence[int]], temperature: float
) -> list[Mapping[int, float]]:
    """Returns the log-probabilities of the likeliest first tokens of each prompt, in nats, by token."""
    parameters = {"temperature": temperature, "max_tokens": 1, "logprobs": TOP, "detokenize": False}
    asked = [Asked(prompt, parameters) for prompt in prompts]
    found = {number: _top(reply) async for number, reply in client.generate(model, asked)}
    return [found[number] for number in range(len(asked))]


def _top(reply: Mapping[str, Any]) -> Mapping[int, float]:
    try:
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {int(one["token_id"]): float(one["logprob"]) for one in top}
    except (KeyError, IndexError, TypeError, ValueError):
        raise ServerAway("a reply to the probe has no log-probabilities") from None


def _spread(values: Mapping[int, float], others: Mapping[int, float]) -> float:
    """Returns how far apart the tokens are that both have; the token that was drawn is among them or not."""
    both = [values[token] for token in values.keys() & others.keys()]
    return max(both) - min(both) if both else 0.0
