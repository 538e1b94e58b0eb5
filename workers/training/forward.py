"""Run the model over completions, each prompt once for all its completions.

The prompt's keys and values are computed once (with gradient) and every completion attends to them, over
unmodified transformers modules. The result is the same as running each prompt + completion as a row of its
own. Shapes: P prompts of at most L tokens, B completions of at most T tokens, N completion tokens in all, H
wide states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from workers.training.losses import kl_exact
from workers.training.slot_cache import layer_tensors
from workers.training.types import Completion, Prompt

ROWS = 16
"""Completions run side by side. They are sorted by length, so that few of them are padded far."""

CHUNK = 1024
"""Tokens whose logits exist at the same time."""


class Answer(NamedTuple):
    """One completion to run, and the advantage of its tokens."""

    prompt: Prompt
    completion: Completion
    advantage: float = 0.0


@dataclass(frozen=True)
class Batch:
    """One forward pass. Right-padded; the N tokens lie end to end, completion by completion."""

    prompts: Tensor  # (P, L) ids
    prompt_lengths: Tensor  # (P,)
    completions: Tensor  # (B, T) ids
    lengths: Tensor  # (B,)
    prompt_of: Tensor  # (B,) index into prompts
    rollout_logprobs: Tensor  # (N,) nats
    advantages: Tensor  # (N,)

    @cached_property
    def targets(self) -> Tensor:
        """(N,) the completion ids."""
        return self.completions[_is_token(self.lengths, self.completions.shape[1])]

    @property
    def n_tokens(self) -> int:
        return len(self.rollout_logprobs)


def make_batches(answers: Sequence[Answer], token_budget: int, device: torch.device) -> list[Batch]:
    """Split completions over forward passes of at most `token_budget` padded tokens (or one completion)."""
    batches: list[list[Answer]] = []
    n_prompts = prompt_tokens = completion_tokens = 0
    last: Prompt | None = None
    for answer in answers:
        is_new = answer.prompt is not last
        longest_prompt = max(prompt_tokens, len(answer.prompt.tokens))
        longest = max(completion_tokens, len(answer.completion.tokens))
        rows = len(batches[-1]) + 1 if batches else 1
        if not batches or (n_prompts + is_new) * longest_prompt + rows * longest > token_budget:
            batches.append([])
            n_prompts, is_new = 0, True
            longest_prompt, longest = len(answer.prompt.tokens), len(answer.completion.tokens)
        batches[-1].append(answer)
        n_prompts, prompt_tokens, completion_tokens = n_prompts + is_new, longest_prompt, longest
        last = answer.prompt
    return [_batch(part, device) for part in batches]


def _batch(answers: Sequence[Answer], device: torch.device) -> Batch:
    answers = sorted(answers, key=lambda answer: -len(answer.completion.tokens))
    prompts = list({id(answer.prompt): answer.prompt for answer in answers}.values())
    index = {id(prompt): i for i, prompt in enumerate(prompts)}
    lengths = torch.tensor([len(answer.completion.tokens) for answer in answers])
    logprobs = [value for answer in answers for value in answer.completion.logprobs]
    advantages = torch.tensor([answer.advantage for answer in answers]).repeat_interleave(lengths)
    return Batch(
        prompts=_padded([prompt.tokens for prompt in prompts]).to(device),
        prompt_lengths=torch.tensor([len(prompt.tokens) for prompt in prompts]).to(device),
        completions=_padded([answer.completion.tokens for answer in answers]).to(device),
        lengths=lengths.to(device),
        prompt_of=torch.tensor([index[id(answer.prompt)] for answer in answers]).to(device),
        rollout_logprobs=torch.tensor(logprobs, dtype=torch.float32).to(device),
        advantages=advantages.to(device),
    )


def completion_states(model: Any, batch: Batch) -> Tensor:
    """The decoder's states that predict each completion token, (N, H)."""
    decoder = model.get_decoder()
    prompt_cache = DynamicCache()
    # Causal attention and padding on the right: no token ever sees padding, so no mask is needed.
    states = decoder(input_ids=batch.prompts, past_key_values=prompt_cache, use_cache=True).last_hidden_state
    n_prompts, width, _ = states.shape
    ends = torch.arange(n_prompts, device=states.device) * width + batch.prompt_lengths - 1
    first = states.flatten(0, 1).index_select(0, ends)  # (P, H), predicts each first token
    parts = []
    for rows in torch.split(torch.arange(len(batch.lengths), device=states.device), ROWS):
        lengths, prompt_of = batch.lengths[rows], batch.prompt_of[rows]
        longest = int(lengths.max())
        found = first.index_select(0, prompt_of)[:, None]
        if longest > 1:  # a completion's last token is predicted, never read
            fed = batch.completions[rows, : longest - 1]
            rest = _continue(decoder, prompt_cache, batch.prompt_lengths[prompt_of], prompt_of, fed)
            found = torch.cat([found, rest], 1)
        chosen = _is_token(lengths, longest).flatten().nonzero()[:, 0]
        parts.append(found.flatten(0, 1).index_select(0, chosen))
    return torch.cat(parts)


def _continue(
    decoder: Any, prompt_cache: DynamicCache, prompt_lengths: Tensor, prompt_of: Tensor, tokens: Tensor
) -> Tensor:
    """States of (R, T) tokens that follow their prompts, (R, T, H)."""
    shared = [
        (k.index_select(0, prompt_of), v.index_select(0, prompt_of)) for k, v in layer_tensors(prompt_cache)
    ]
    rows, width = tokens.shape
    columns = shared[0][0].shape[2]
    steps = torch.arange(width, device=tokens.device)
    sees_prompt = torch.arange(columns, device=tokens.device) < prompt_lengths[:, None]  # (R, L)
    sees_itself = steps[:, None] >= steps  # (T, T)
    mask = torch.cat(
        [sees_prompt[:, None].expand(rows, width, columns), sees_itself.expand(rows, width, width)], -1
    )
    states: Tensor = decoder(
        input_ids=tokens,
        position_ids=prompt_lengths[:, None] + steps,
        attention_mask=mask[:, None],
        past_key_values=DynamicCache(shared),
        use_cache=True,
    ).last_hidden_state
    return states


def token_logprobs(states: Tensor, head: Any, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each target at the sampling temperature, and the entropy (no gradient). (N,) each.

    Logits exist for `CHUNK` tokens at a time; with several chunks the backward pass computes them again.
    """
    pieces = []
    for part, wanted in zip(torch.split(states, CHUNK), torch.split(targets, CHUNK), strict=True):
        if torch.is_grad_enabled() and len(states) > CHUNK:
            pieces.append(checkpoint(_chunk_logprobs, part, head, wanted, temperature, use_reentrant=False))
        else:
            pieces.append(_chunk_logprobs(part, head, wanted, temperature))
    return torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces])


def _chunk_logprobs(states: Tensor, head: Any, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(head(states).float() / temperature, -1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, targets[:, None])[:, 0], entropy


@torch.no_grad()
def token_kl(states: Tensor, head: Any, ref_states: Tensor, ref_head: Any) -> Tensor:
    """Exact KL(policy || reference) over the vocabulary at each token, temperature 1. (N,)."""
    chunks = zip(torch.split(states, CHUNK), torch.split(ref_states, CHUNK), strict=True)
    return torch.cat([kl_exact(head(part), ref_head(ref_part)) for part, ref_part in chunks])


def per_completion(values: Tensor, batch: Batch) -> Iterator[Tensor]:
    """Cut (N,) values into one tensor for each completion of the batch."""
    return iter(torch.split(values, batch.lengths.tolist()))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """(rows, longest) ids, padded on the right with 0, which nothing reads."""
    out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


def _is_token(lengths: Tensor, width: int) -> Tensor:
    return torch.arange(width, device=lengths.device) < lengths[:, None]
