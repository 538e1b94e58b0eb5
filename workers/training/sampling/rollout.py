"""Sampling completions: an own decode loop over unmodified transformers modules.

Each prompt is run once and its keys and values serve all its samples; finished completions leave at once and
waiting prompts take their slots. A completion's tokens follow from its key (stream, seed, step, row, sample),
its prompt and the weights, not from what is sampled beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.training.base.randomness import keyed_seed, uniforms
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.grammar import Grammar
from workers.training.rendering.stop_strings import StopStrings
from workers.training.sampling.decode_attention import prefill
from workers.training.sampling.decode_step import ActiveRows, Ints
from workers.training.sampling.decoders import CacheSize, MakeDecoder, bytes_of_group, make_decoder
from workers.training.sampling.draw import draw
from workers.training.sampling.general_decoder import GeneralDecoder

CACHE_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30}
"""The most memory for keys and values; fewer slots are used for longer sequences. Chosen, not measured."""


@dataclass(frozen=True)
class SamplerLimits:
    """Bounds memory and waste of one call of the sampler. It changes no completion.

    All were chosen, not measured.

    Attributes:
        slots: most completions decoded side by side.
        first_columns: tokens of a completion that the cache holds at first; it doubles as completions grow.
        prefill_tokens: most padded prompt tokens in one forward pass.
        prefill_padding: padding, in tokens, up to which prompts of different lengths are run together; above
            it, up to a quarter of the pass may be padding.
    """

    slots: int = 256
    first_columns: int = 512
    prefill_tokens: int = 16_384
    prefill_padding: int = 256


LIMITS = SamplerLimits()

OnCompletion = Callable[[int, int, Completion], None]
Bools = NDArray[np.bool_]


class SampledModel(Protocol):
    """Is what is sampled from: a policy, or a model as it lies on disk."""

    @property
    def rollout_model(self) -> Any:
        """Returns the causal model."""

    @property
    def tokenizer(self) -> Any:
        """Returns the model's tokenizer."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Returns every token id that ends a completion."""

    @property
    def context(self) -> int:
        """Returns the most tokens of prompt and completion together."""

    @property
    def device(self) -> torch.device:
        """Returns where the model computes."""


@dataclass(frozen=True)
class Sampling:
    """Says how to sample, and names the random numbers.

    Attributes:
        samples: completions for each prompt (G).
        max_tokens: a completion is cut here, or where the context ends.
        temperature: 0 is greedy; logprobs are then those at temperature 1.
        key: names the random stream, such as ("train", seed, step); row and sample are added to it.
        top_p: draw among the most likely tokens that together reach this probability. Logprobs stay those of
            the whole distribution at the temperature, so training samples with 1.
        stop: texts that end a completion. Its text ends before the first of them; its tokens go up to and
            include the one that completed it.
        grammar: which tokens may come next. Logprobs are those among the allowed tokens.
    """

    samples: int
    max_tokens: int
    temperature: float
    key: tuple[int | str, ...]
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None


@torch.inference_mode()
def sample_groups(
    policy: SampledModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    on_completion: OnCompletion | None = None,
    model: Any | None = None,
    *,
    limits: SamplerLimits = LIMITS,
    make_decoder: MakeDecoder = make_decoder,
) -> list[Group]:
    """Samples `sampling.samples` completions for each prompt; returns a group for each, as the prompts stand.

    `on_completion(index of the prompt, sample, completion)` is told of each completion as soon as it has
    ended, on this thread. `model` is sampled from instead of `policy.rollout_model`. `make_decoder` is by
    default the one that chooses what suits model and device; every other gives the same completions.
    """
    if not prompts:
        return []
    decoding = _Decoding(
        policy,
        prompts,
        sampling,
        on_completion,
        policy.rollout_model if model is None else model,
        limits,
        make_decoder,
    )
    while decoding.waiting or len(decoding.last):
        decoding.start_waiting()
        decoding.drop_finished()
        if len(decoding.last):
            decoding.step()
            decoding.drop_finished()
    return [
        Group(prompt, tuple(decoding.completions[i, sample] for sample in range(sampling.samples)))
        for i, prompt in enumerate(prompts)
    ]


class _Decoding:
    """Keeps the state of one call. Slots 0, 1, ... hold active completions, and prompts, as they come.

    What has one entry per slot lives on the host, but for the last tokens.
    """

    def __init__(
        self,
        policy: SampledModel,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_completion: OnCompletion | None,
        model: Any,
        limits: SamplerLimits,
        make_decoder: MakeDecoder,
    ) -> None:
        self.model = model
        self.most = limits
        self.device = policy.device
        self.prompts = prompts
        self.sampling = sampling
        self.on_completion = on_completion
        self.completions: dict[tuple[int, int], Completion] = {}
        self.end_ids = frozenset(policy.end_ids)
        self.ends = torch.tensor(policy.end_ids, device=self.device)
        self.stops = StopStrings(policy.tokenizer, sampling.stop)
        self.matchers = sampling.grammar.matchers() if sampling.grammar else None

        G = sampling.samples
        self.lengths = np.array([len(prompt.tokens) for prompt in prompts])
        longest = np.minimum(sampling.max_tokens, policy.context - self.lengths)
        self.limits = np.repeat(np.maximum(longest, 1), G)
        keys = [keyed_seed(*sampling.key, prompt.row, sample) for prompt in prompts for sample in range(G)]
        self.seeds = np.array(keys, dtype=np.uint64)
        self.max_columns = int(self.limits.max())
        # Long prompts first, so that prompts run together are of similar length.
        self.waiting = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].tokens))
        size = self._cache_size()
        self.cache, self.decode = make_decoder(model, size, G, len(self.seeds))
        self.tokens = torch.zeros(len(self.seeds), size.columns, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(len(self.seeds), size.columns, device=self.device)

        nothing = np.zeros(0, dtype=np.int64)
        self.completion_of = nothing  # (B,) number of the completion
        self.active = ActiveRows(group=nothing, counts=nothing, prompt_lengths=nothing)
        self.last = torch.zeros(0, dtype=torch.long, device=self.device)  # (B,)
        self.ended = np.zeros(0, dtype=bool)  # (B,) by an end token or a stop string

    def _cache_size(self) -> CacheSize:
        """Returns a size for as many groups as the memory allows, at least one."""
        G = self.sampling.samples
        longest = int(self.lengths.max())
        per_group = bytes_of_group(self.model, G, longest, self.max_columns)
        at_once = min(
            len(self.prompts), max(1, min(self.most.slots // G, CACHE_BYTES[self.device.type] // per_group))
        )
        groups = min(len(self.prompts), min(G, 2) * at_once)
        return CacheSize(
            groups,
            prompt_columns=longest,
            slots=at_once * G,
            columns=min(self.max_columns, self.most.first_columns),
            most_columns=self.max_columns,
        )

    def start_waiting(self) -> None:
        """Runs waiting prompts if a good share of the slots is free, and draws their first tokens."""
        G, cache = self.sampling.samples, self.cache
        free = cache.slots - len(self.last)
        while self.waiting and (len(self.last) == 0 or free >= max(G, cache.slots // 4)):
            free_groups = min(
                (cache.slots - len(self.last)) // G, cache.groups - len(self.active.prompt_lengths)
            )
            if free_groups == 0:
                return
            chosen = self._next_waiting(free_groups)
            self._start(chosen)

    def _next_waiting(self, most: int) -> list[int]:
        """Returns the longest waiting prompts that may be run in one pass without much padding."""
        longest = tokens = int(self.lengths[self.waiting[0]])
        n = 1
        for i in self.waiting[1:most]:
            padded = (n + 1) * longest
            tokens += int(self.lengths[i])
            allowed_padding = max(self.most.prefill_padding, padded // 4)
            if padded > self.most.prefill_tokens or padded - tokens > allowed_padding:
                break
            n += 1
        chosen, self.waiting = self.waiting[:n], self.waiting[n:]
        return chosen

    def _start(self, chosen: Sequence[int]) -> None:
        G, active = self.sampling.samples, self.active
        lengths = self.lengths[chosen]
        ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
        for row, i in enumerate(chosen):
            ids[row, : lengths[row]] = torch.tensor(self.prompts[i].tokens)
        first = len(active.prompt_lengths)
        read = ids.to(self.device), torch.from_numpy(lengths).to(self.device)
        if isinstance(self.cache, GeneralDecoder):
            logits = self.cache.prefill(len(self.last), *read)
        else:
            logits = prefill(self.model, self.cache, first, *read)
        started = np.repeat(np.array(chosen) * G, G) + np.tile(np.arange(G), len(chosen))
        self.active = ActiveRows(
            group=np.concatenate([active.group, np.repeat(np.arange(first, first + len(chosen)), G)]),
            counts=np.concatenate([active.counts, np.zeros(len(started), dtype=np.int64)]),
            prompt_lengths=np.concatenate([active.prompt_lengths, lengths]),
        )
        self.completion_of = np.concatenate([self.completion_of, started])
        self._take(logits.repeat_interleave(G, 0), len(self.last))

    def step(self) -> None:
        """Reads each last token and draws the next."""
        self._take(self.decode(self.active, self.last), 0)

    def _take(self, logits: Tensor, first: int) -> None:
        """Draws a token for each slot from `first` on, writes it down, and sees which of them end there."""
        rows, counts = self.completion_of[first:], self.active.counts[first:]
        self._widen(int(counts.max()) + 1)
        uniform = torch.from_numpy(uniforms(self.seeds[rows], counts)).to(self.device)
        if self.matchers is not None:
            logits = self.matchers.apply(logits, rows.tolist())
        tokens, logprobs = draw(logits, uniform, self.sampling.temperature, self.sampling.top_p)
        if self.matchers is not None:
            self.matchers.accept(rows.tolist(), tokens.tolist())
        at = (torch.from_numpy(rows).to(self.device), torch.from_numpy(counts).to(self.device))
        self.tokens[at] = tokens
        self.logprobs[at] = logprobs
        counts += 1
        self.last = torch.cat([self.last[:first], tokens])
        ended = torch.isin(tokens, self.ends).cpu().numpy()
        if self.stops:
            ended |= self._at_stop(rows, counts, tokens.tolist())
        self.ended = np.concatenate([self.ended[:first], ended])

    def _widen(self, columns: int) -> None:
        while columns > self.tokens.shape[1]:
            wider = min(2 * self.tokens.shape[1], self.max_columns)
            more = (0, wider - self.tokens.shape[1])
            self.tokens = torch.nn.functional.pad(self.tokens, more)
            self.logprobs = torch.nn.functional.pad(self.logprobs, more)
            self.cache.grow(wider)

    def _at_stop(self, rows: Ints, counts: Ints, tokens: Sequence[int]) -> Bools:
        found = np.zeros(len(rows), dtype=bool)
        for i, token in enumerate(tokens):
            if self.stops.may_end(token):
                found[i] = self.stops.is_complete(self.tokens[rows[i], : counts[i]].tolist())
        return found

    def drop_finished(self) -> None:
        """Hands over finished completions and frees their slots: the last active ones move into the gaps."""
        active = self.active
        finished = self.ended | (active.counts >= self.limits[self.completion_of])
        if not finished.any():
            return
        self._hand_over(self.completion_of[finished], active.counts[finished])
        kept, gaps, movers = _compaction(finished)
        if len(gaps):
            width = int(active.counts.max())
            self.cache.move_completions(self._on_device(movers), self._on_device(gaps), width)
        for values in (self.completion_of, active.group, active.counts):
            values[gaps] = values[movers]
        self.last[self._on_device(gaps)] = self.last[self._on_device(movers)]
        self.completion_of, self.last = self.completion_of[:kept], self.last[:kept]
        self.ended = np.zeros(kept, dtype=bool)
        self.active = self._drop_prompts(
            ActiveRows(active.group[:kept], active.counts[:kept], active.prompt_lengths)
        )

    def _drop_prompts(self, active: ActiveRows) -> ActiveRows:
        """Frees the slots of prompts whose completions have all ended."""
        n = len(active.prompt_lengths)
        idle = np.bincount(active.group, minlength=n) == 0
        kept, gaps, movers = _compaction(idle)
        if kept == n:
            return active
        if len(gaps):
            width = int(active.prompt_lengths[movers].max())
            self.cache.move_prompts(self._on_device(movers), self._on_device(gaps), width)
        slots = np.arange(n)
        slots[movers] = gaps
        lengths = active.prompt_lengths.copy()
        lengths[gaps] = lengths[movers]
        return ActiveRows(slots[active.group], active.counts, lengths[:kept])

    def _hand_over(self, rows: Ints, counts: Ints) -> None:
        G = self.sampling.samples
        if self.matchers is not None:
            self.matchers.drop(rows.tolist())
        at = self._on_device(rows)
        width = int(counts.max())
        tokens = [row[:n] for row, n in zip(self.tokens[at, :width].tolist(), counts.tolist(), strict=True)]
        logprobs = self.logprobs[at, :width].tolist()
        at_end = [row[-1] in self.end_ids for row in tokens]
        texts = self.stops.decoded(
            [row[:-1] if end else row for row, end in zip(tokens, at_end, strict=True)]
        )
        for i, row in enumerate(rows.tolist()):
            text, at_stop = self.stops.cut(texts[i])
            completion = Completion(
                tokens=tuple(tokens[i]),
                logprobs=tuple(logprobs[i][: len(tokens[i])]),
                text=text,
                finish_reason="stop" if at_end[i] or at_stop else "length",
            )
            prompt, sample = divmod(row, G)
            self.completions[prompt, sample] = completion
            if self.on_completion is not None:
                self.on_completion(prompt, sample, completion)

    def _on_device(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _compaction(free: Bools) -> tuple[int, Ints, Ints]:
    """Returns how many slots stay in use, the gaps among them, and the slots that move into the gaps."""
    kept = int((~free).sum())
    return kept, free[:kept].nonzero()[0], (~free[kept:]).nonzero()[0] + kept
