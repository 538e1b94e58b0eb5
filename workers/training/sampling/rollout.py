"""Sampling completions: an own decode loop over unmodified transformers modules.

Each prompt is run once and its keys and values serve all its samples; finished completions leave at once and
waiting prompts take their slots. A completion's tokens follow from its key (stream, seed, step, row, sample),
its prompt and the weights, not from what is sampled beside it. On a GPU the loop is that of `graphed`, for
models on the fast path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.training.base.randomness import uniforms
from workers.training.base.types import Group, Prompt
from workers.training.sampling.asked import Call, OnCompletion, SampledModel, Sampling
from workers.training.sampling.completing import Completing
from workers.training.sampling.decode_attention import prefill
from workers.training.sampling.decode_step import ActiveRows, Ints
from workers.training.sampling.decoders import CacheSize, MakeDecoder, bytes_of_group, is_fast, step_function
from workers.training.sampling.decoders import make_decoder as default_decoder
from workers.training.sampling.draw import draw
from workers.training.sampling.general_decoder import GeneralDecoder
from workers.training.sampling.graphed.kept import budget_for, sampler_for
from workers.training.sampling.graphed.queue import QueuedDecoding, needs_of
from workers.training.sampling.turns import Over, Turns
from workers.training.sampling.waiting import LIMITS, Beginning, SamplerLimits, Waiting

__all__ = ["SampledModel", "SamplerLimits", "Sampling", "sample_groups"]

SLOTS = 256
"""Completions that are decoded side by side at most, where one by one decides. Chosen, not measured."""

Bools = NDArray[np.bool_]


@torch.inference_mode()
def sample_groups(
    policy: SampledModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    on_completion: OnCompletion | None = None,
    model: Any | None = None,
    *,
    turns: Turns | None = None,
    limits: SamplerLimits = LIMITS,
    make_decoder: MakeDecoder | None = None,
    is_queued: bool | None = None,
) -> list[Group]:
    """Samples `sampling.samples` completions for each prompt; returns a group for each, as the prompts stand.

    `on_completion(index of the prompt, sample, completion)` is told of each completion as soon as it has
    ended, on this thread. `model` is sampled from instead of `policy.rollout_model`. With `turns`, what was
    written is one turn of a completion, and those say which go on; sampling goes on meanwhile.

    `make_decoder` names a way of decoding, and `is_queued` says whether tokens are read one step late.
    Without them, it is what suits model and device. Every way gives the same completions.
    """
    if not prompts:
        return []
    sampled = policy.rollout_model if model is None else model
    completing = Completing(policy, prompts, sampling, on_completion, turns)
    call = Call(policy, sampled, prompts, sampling, turns, limits)
    if is_queued is None:
        is_queued = make_decoder is None and policy.device.type == "cuda"
    if is_queued and is_fast(sampled, call.longest_sequence):
        with sampler_for(sampled, needs_of(call), step_function, is_kept=model is None) as lease:
            QueuedDecoding(call, completing, lease).run()
    else:
        _one_by_one(call, completing, make_decoder or default_decoder)
    found = completing.completions
    return [
        Group(prompt, tuple(found[i, sample] for sample in range(sampling.samples)))
        for i, prompt in enumerate(prompts)
    ]


def _one_by_one(call: Call, completing: Completing, make_decoder: MakeDecoder) -> None:
    """Samples with every token seen before the next is drawn."""
    decoding = _Decoding(call, completing, make_decoder)
    while decoding.is_under_way:
        decoding.take_replies()
        decoding.start_waiting()
        decoding.drop_finished()
        if len(decoding.last):
            decoding.step()
            decoding.drop_finished()


class _Decoding:
    """Keeps the state of one call. Slots 0, 1, ... hold active completions, and prompts, as they come.

    What has one entry per slot lives on the host, but for the last tokens.
    """

    def __init__(self, call: Call, completing: Completing, make_decoder: MakeDecoder) -> None:
        policy, prompts, sampling, limits = call.policy, call.prompts, call.sampling, call.limits
        self.model = call.model
        self.turns = turns = call.turns
        self.most = limits
        self.device = policy.device
        self.prompts = prompts
        self.sampling = sampling
        self.completing = completing
        self.ends = torch.tensor(policy.end_ids, device=self.device)
        self.stops = self.completing.stops
        self.context = policy.context
        self.matchers, self.budgets = self.completing.matchers, self.completing.budgets

        lengths = np.array([len(prompt.tokens) for prompt in prompts])
        self.limits = call.longest
        self.written = np.zeros(len(self.limits), dtype=np.int64)  # tokens of earlier turns
        self.seeds = call.seeds
        self.max_columns = int(self.limits.max())
        # On a CPU what a reply has begun is read alone, so that no bit depends on when it came.
        is_alone = turns is not None and self.device.type == "cpu"
        self.waiting = Waiting(call.beginnings, limits, is_alone=is_alone)
        room = 0 if turns is None else min(sampling.max_tokens, policy.context - int(lengths.max()))
        self.make_decoder = make_decoder
        self.columns = min(self.max_columns, limits.first_columns)
        self.make_cache(int(lengths.max()) + room)
        self.tokens = torch.zeros(len(self.seeds), self.columns, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(len(self.seeds), self.columns, device=self.device)

        nothing = np.zeros(0, dtype=np.int64)
        self.completion_of = nothing  # (B,) number of the completion
        self.active = ActiveRows(group=nothing, counts=nothing, prompt_lengths=nothing)
        self.last = torch.zeros(0, dtype=torch.long, device=self.device)  # (B,)
        self.ended = np.zeros(0, dtype=bool)  # (B,) by an end token or a stop string

    @property
    def is_under_way(self) -> bool:
        """Whether any completion is still to be sampled, or may go on."""
        return bool(self.waiting) or len(self.last) > 0 or (self.turns is not None and self.turns.are_open)

    def make_cache(self, prompt_columns: int) -> None:
        """Makes a cache for prompts of so many tokens, and what decodes over it. Nothing is active."""
        self.size = self._cache_size(prompt_columns)
        n = len(self.seeds)
        self.cache, self.decode = self.make_decoder(self.model, self.size, self.sampling.samples, n)

    def _cache_size(self, prompt_columns: int) -> CacheSize:
        """Returns a size for as many groups as the memory allows, at least one.

        Where completions go on after a reply, each has a prompt of its own.
        """
        G, n_prompts = self.sampling.samples, len(self.prompts)
        each = G if self.turns is None else 1
        per_group = bytes_of_group(self.model, each, prompt_columns, self.max_columns) * (G // each)
        at_once = min(
            n_prompts, max(1, min((self.most.slots or SLOTS) // G, budget_for(self.model) // per_group))
        )
        return CacheSize(
            groups=min(n_prompts, min(G, 2) * at_once) if self.turns is None else at_once * G,
            prompt_columns=prompt_columns,
            slots=at_once * G,
            columns=self.columns,
            most_columns=self.max_columns,
        )

    def take_replies(self) -> None:
        """Takes in what has come of earlier turns; waits for it where there is nothing else to do."""
        if self.turns is None:
            return
        for found in self.turns.next(wait=not self.waiting and len(self.last) == 0):
            if isinstance(found, Over):
                self.completing.keep(found)
                continue
            row = found.prompt * self.sampling.samples + found.sample
            self.written[row], self.limits[row] = found.written, found.most
            self.waiting.add(Beginning(found.tokens, [row], found.turn))

    def start_waiting(self) -> None:
        """Runs waiting prompts if a good share of the slots is free, and draws their first tokens."""
        free = self.cache.slots - len(self.last)
        while (first := self.waiting.first) is not None:
            if len(self.last) and free < max(len(first.rows), self.cache.slots // 4):
                return
            free_groups = self.cache.groups - len(self.active.prompt_lengths)
            free_rows = self.cache.slots - len(self.last)
            if chosen := self.waiting.take(free_groups, free_rows, self.size.prompt_columns):
                self._start(chosen)
            elif len(self.last) == 0:  # all that fits has been sampled
                del self.cache, self.decode  # their memory goes first
                self.make_cache(min(2 * len(first.tokens), self.context))
            else:
                return

    def _start(self, chosen: Sequence[Beginning]) -> None:
        active = self.active
        sizes = np.array([len(one.rows) for one in chosen])
        lengths = np.array([len(one.tokens) for one in chosen])
        ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
        for row, one in enumerate(chosen):
            ids[row, : lengths[row]] = torch.tensor(one.tokens)
        first = len(active.prompt_lengths)
        read = ids.to(self.device), torch.from_numpy(lengths).to(self.device)
        if isinstance(self.cache, GeneralDecoder):
            logits = self.cache.prefill(len(self.last), *read, sizes)
        else:
            logits = prefill(self.model, self.cache, first, *read)
        started = np.concatenate([np.array(one.rows) for one in chosen])
        self.active = ActiveRows(
            group=np.concatenate([active.group, np.repeat(np.arange(first, first + len(chosen)), sizes)]),
            counts=np.concatenate([active.counts, np.zeros(len(started), dtype=np.int64)]),
            prompt_lengths=np.concatenate([active.prompt_lengths, lengths]),
        )
        self.completion_of = np.concatenate([self.completion_of, started])
        self.completing.begin(chosen)
        self._take(logits.repeat_interleave(self._on_device(sizes), 0), len(self.last))

    def step(self) -> None:
        """Reads each last token and draws the next."""
        self._take(self.decode(self.active, self.last), 0)

    def _take(self, logits: Tensor, first: int) -> None:
        """Draws a token for each slot from `first` on, writes it down, and sees which of them end there."""
        rows, counts = self.completion_of[first:], self.active.counts[first:]
        self._widen(int(counts.max()) + 1)
        numbers = uniforms(self.seeds[rows], self.written[rows] + counts)
        uniform = torch.from_numpy(numbers).to(self.device)
        if self.matchers is not None:
            logits = self.matchers.apply(logits, rows.tolist())
        tokens, logprobs = draw(logits, uniform, self.sampling.temperature, self.sampling.top_p)
        if self.budgets is not None:
            self._give(self.budgets.take(rows.tolist(), tokens.tolist()), tokens, logprobs)
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

    def _give(self, given: dict[int, int], tokens: Tensor, logprobs: Tensor) -> None:
        """Puts tokens in the place of some that were drawn, by their places."""
        if given:
            at = torch.tensor(list(given), device=self.device)
            tokens[at] = torch.tensor(list(given.values()), device=self.device)
            logprobs[at] = 0.0

    def _widen(self, columns: int) -> None:
        while columns > self.tokens.shape[1]:
            wider = min(2 * self.tokens.shape[1], self.max_columns)
            more = (0, wider - self.tokens.shape[1])
            self.tokens = torch.nn.functional.pad(self.tokens, more)
            self.logprobs = torch.nn.functional.pad(self.logprobs, more)
            self.cache.grow(wider)
            self.columns = wider

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
        at = self._on_device(rows)
        width = int(counts.max())
        tokens = [row[:n] for row, n in zip(self.tokens[at, :width].tolist(), counts.tolist(), strict=True)]
        logprobs = self.logprobs[at, :width].tolist()
        found = [row[: len(own)] for row, own in zip(logprobs, tokens, strict=True)]
        self.completing.hand_over(rows.tolist(), tokens, found)

    def _on_device(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _compaction(free: Bools) -> tuple[int, Ints, Ints]:
    """Returns how many slots stay in use, the gaps among them, and the slots that move into the gaps."""
    kept = int((~free).sum())
    return kept, free[:kept].nonzero()[0], (~free[kept:]).nonzero()[0] + kept
