"""Sample completions: an own decode loop over unmodified transformers modules.

Each prompt is run once and its keys and values are given to all its samples; finished completions leave at
once and waiting prompts take their slots. A completion's tokens follow from its key (stream, seed, step, row,
sample), its prompt and the weights, not from what is sampled beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from workers.training.policy import Policy
from workers.training.randomness import keyed_seed, uniforms
from workers.training.slot_cache import SlotCache, layer_tensors
from workers.training.types import Completion, Group, Prompt

FIRST_COLUMNS = 512
"""Tokens of a sequence for which the cache has room at first; it doubles as sequences grow."""

MAX_SLOTS = 256
"""Most completions decoded side by side."""

CACHE_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30}
"""Most memory for keys and values; fewer slots are used for longer sequences."""

PREFILL_TOKENS = 16_384
"""Most padded prompt tokens in one forward pass."""


@dataclass(frozen=True)
class Sampling:
    """How to sample, and the key of the random numbers.

    Attributes:
        samples: completions for each prompt (G).
        max_tokens: a completion is cut here, or where the context ends.
        temperature: 0 is greedy; logprobs are then those at temperature 1.
        key: names the random stream, such as ("train", seed, step); row and sample are added to it.
    """

    samples: int
    max_tokens: int
    temperature: float
    key: tuple[int | str, ...]


@torch.no_grad()
def sample_groups(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> list[Group]:
    """Sample `sampling.samples` completions for each prompt, in the prompts' order."""
    decoding = _Decoding(policy, prompts, sampling)
    while decoding.waiting or decoding.live:
        decoding.start_waiting()
        decoding.drop_finished()
        if decoding.live:
            decoding.step()
            decoding.drop_finished()
    texts = policy.tokenizer.batch_decode(
        [[token for token in tokens if token not in policy.end_ids] for tokens in decoding.tokens],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    completions = [
        Completion(
            tokens=tuple(tokens),
            logprobs=tuple(logprobs),
            text=text,
            finish_reason="stop" if tokens[-1] in policy.end_ids else "length",
        )
        for tokens, logprobs, text in zip(decoding.tokens, decoding.logprobs, texts, strict=True)
    ]
    G = sampling.samples
    return [Group(prompt, tuple(completions[i * G : i * G + G])) for i, prompt in enumerate(prompts)]


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """One token for each row by inverse CDF in fp32, and its log-probability: (B, V), (B,) -> (B,), (B,).

    A token of probability 0 is never drawn. Temperature 0 takes the most likely token.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
    if temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        cdf = logprobs.exp().cumsum(-1)
        tokens = torch.searchsorted(cdf, (uniform * cdf[:, -1])[:, None], right=True)[:, 0]
        tokens = tokens.clamp(max=logits.shape[-1] - 1)  # matters for NaN alone
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


class _Decoding:
    """The state of one call: slots 0..live hold completions under way, in no particular order."""

    def __init__(self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        self.model: Any = policy.rollout_model
        self.device = policy.device
        self.prompts = prompts
        self.sampling = sampling
        self.ends = torch.tensor(policy.end_ids)
        G = sampling.samples
        self.tokens: list[list[int]] = [[] for _ in range(len(prompts) * G)]
        self.logprobs: list[list[float]] = [[] for _ in range(len(prompts) * G)]
        keys = [keyed_seed(*sampling.key, prompt.row, sample) for prompt in prompts for sample in range(G)]
        self.seeds = np.array(keys, dtype=np.uint64)
        self.limits = torch.tensor(
            [min(sampling.max_tokens, policy.context - len(prompt.tokens)) for prompt in prompts]
        ).repeat_interleave(G)
        # Long prompts first, so that prompts run together are of similar length.
        self.waiting = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].tokens))
        self.longest_prompt = max(len(prompt.tokens) for prompt in prompts)
        self.columns = max(
            len(p.tokens) + min(sampling.max_tokens, policy.context - len(p.tokens)) for p in prompts
        )
        self.cache: SlotCache | None = None
        self.slots = 0
        self.live = 0
        self.completion_of = torch.zeros(0, dtype=torch.long)  # (live,)
        self.count = torch.zeros(0, dtype=torch.long)  # (live,) tokens sampled
        self.position = torch.zeros(0, dtype=torch.long)  # (live,) of the last token
        self.last = torch.zeros(0, dtype=torch.long)  # (live,) the last token

    def start_waiting(self) -> None:
        """Run waiting prompts if a good part of the slots is free, and draw their first tokens."""
        G = self.sampling.samples
        room = max(self.slots - self.live, 0) // G if self.cache else 1
        if not self.waiting or room == 0 or (self.live and room * G < self.slots // 4):
            return
        room = min(room, max(1, PREFILL_TOKENS // len(self.prompts[self.waiting[0]].tokens)))
        chosen, self.waiting = self.waiting[:room], self.waiting[room:]
        prefilled, logits = self._prefill(chosen)
        if self.cache is None:
            self._allocate(prefilled)
        assert self.cache is not None
        self.cache.fill(self.live, prefilled, G)
        rows = torch.tensor(chosen)[:, None] * G + torch.arange(G)
        lengths = torch.tensor([len(self.prompts[i].tokens) for i in chosen]).repeat_interleave(G)
        self.completion_of = torch.cat([self.completion_of, rows.flatten()])
        self.count = torch.cat([self.count, torch.zeros_like(lengths)])
        self.position = torch.cat([self.position, lengths - 1])
        self.last = torch.cat([self.last, torch.zeros_like(lengths)])
        self._take(slice(self.live, None), logits.repeat_interleave(G, 0))
        self.live = len(self.completion_of)

    def step(self) -> None:
        """Read each last token and draw the next."""
        assert self.cache is not None
        positions = self.position.to(self.device)
        width = int(self.position.max()) + 1
        if width > self.cache.columns:
            self.cache.grow(min(2 * self.cache.columns, self.columns))
        self.cache.aim(positions, width)
        sees = torch.arange(width, device=self.device) <= positions[:, None]  # (live, width)
        states = self.model.get_decoder()(
            input_ids=self.last.to(self.device)[:, None],
            position_ids=positions[:, None],
            attention_mask=sees[:, None, None],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self._take(slice(None), self.model.get_output_embeddings()(states[:, -1]))

    def drop_finished(self) -> None:
        """Free the slots of finished completions: the last live ones move into the gaps."""
        finished = torch.isin(self.last, self.ends) | (self.count >= self.limits[self.completion_of])
        kept = int((~finished).sum())
        if kept == self.live:
            return
        gaps = finished[:kept].nonzero()[:, 0]
        movers = (~finished[kept:]).nonzero()[:, 0] + kept
        if len(gaps):
            assert self.cache is not None
            width = int(self.position.max()) + 1
            self.cache.move(movers.to(self.device), gaps.to(self.device), width)
        for values in (self.completion_of, self.count, self.position, self.last):
            values[gaps] = values[movers]
        self.completion_of, self.count = self.completion_of[:kept], self.count[:kept]
        self.position, self.last = self.position[:kept], self.last[:kept]
        self.live = kept

    def _take(self, slots: slice, logits: Tensor) -> None:
        """Draw a token for each of these slots and write it down."""
        rows = self.completion_of[slots]
        uniform = torch.from_numpy(uniforms(self.seeds[rows.numpy()], self.count[slots].numpy()))
        tokens, logprobs = draw(logits, uniform.to(logits.device), self.sampling.temperature)
        self.last[slots] = tokens.cpu()
        self.count[slots] += 1
        self.position[slots] += 1
        for row, token, logprob in zip(rows.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)

    def _prefill(self, chosen: Sequence[int]) -> tuple[DynamicCache, Tensor]:
        """Run prompts, padded on the right: causal attention keeps every token from seeing padding."""
        lengths = torch.tensor([len(self.prompts[i].tokens) for i in chosen], device=self.device)
        ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
        for row, i in enumerate(chosen):
            ids[row, : len(self.prompts[i].tokens)] = torch.tensor(self.prompts[i].tokens)
        cache = DynamicCache()
        decoder = self.model.get_decoder()
        states = decoder(
            input_ids=ids.to(self.device), past_key_values=cache, use_cache=True
        ).last_hidden_state
        last = states[torch.arange(len(chosen), device=self.device), lengths - 1]
        return cache, self.model.get_output_embeddings()(last)

    def _allocate(self, like: DynamicCache) -> None:
        """Make room for as many completions as the memory allows, at least one group."""
        per_slot = sum(
            2 * keys.shape[1] * keys.shape[3] * keys.element_size() * self.columns
            for keys, _ in layer_tensors(like)
        )
        wanted = min(len(self.tokens), MAX_SLOTS, CACHE_BYTES[self.device.type] // per_slot)
        self.slots = max(wanted, self.sampling.samples)
        columns = min(self.columns, max(FIRST_COLUMNS, self.longest_prompt + 1))
        self.cache = SlotCache(like, self.slots, columns)
