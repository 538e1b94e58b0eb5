"""Samples from any model folder with transformers alone: what judges an engine uses none of its code.

Random numbers follow from (seed, row, sample, position), so that two models answer the same prompts with the
same luck, and differ only as far as their weights do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig

PROMPTS_AT_ONCE = 64
"""Prompts of about one length that are run side by side. It bounds memory and changes no answer."""


class Loaded(NamedTuple):
    """A model as it lies on disk, in fp32."""

    model: Any
    tokenizer: Any
    end_ids: frozenset[int]


class Answer(NamedTuple):
    """What a model wrote: its tokens, with the end token where there is one, and their text."""

    tokens: tuple[int, ...]
    text: str


def load(folder: Path) -> Loaded:
    """Reads a model folder. Every id that its generation config lists ends an answer."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Loaded(model.eval(), tokenizer, frozenset([ends] if isinstance(ends, int) else ends))


def prompt_tokens(loaded: Loaded, messages: Sequence[Any]) -> list[int]:
    """The messages by the model's chat template, with its generation prompt."""
    tokens: list[int] = loaded.tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tokens


@torch.inference_mode()
def sample(
    loaded: Loaded, prompts: Sequence[Sequence[int]], *, samples: int, max_tokens: int, seed: int
) -> list[list[Answer]]:
    """Returns `samples` answers to each prompt at temperature 1."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: dict[int, list[Answer]] = {}
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        rows = order[start : start + PROMPTS_AT_ONCE]
        luck = np.stack([_luck(seed, row, i, max_tokens) for row in rows for i in range(samples)])
        tokens = _decode(loaded, [prompts[row] for row in rows], samples, torch.from_numpy(luck))
        answers = [answer_of(loaded, each) for each in tokens]
        for at, row in enumerate(rows):
            found[row] = answers[at * samples : (at + 1) * samples]
    return [found[row] for row in range(len(prompts))]


def _luck(seed: int, row: int, sample: int, length: int) -> Any:
    """The uniform numbers of one answer, one for each of its tokens."""
    return np.random.default_rng((seed, row, sample)).random(length)


def _decode(loaded: Loaded, prompts: Sequence[Sequence[int]], samples: int, luck: Tensor) -> list[list[int]]:
    """Decodes all samples of all prompts side by side; prompts are padded on the left."""
    ids, mask = _padded(prompts)
    cache = DynamicCache()
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    out = loaded.model(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, logits_to_keep=1
    )
    cache.batch_repeat_interleave(samples)
    mask, place = (part.repeat_interleave(samples, 0) for part in (mask, places[:, -1:]))
    logits = out.logits[:, -1].repeat_interleave(samples, 0)
    written: list[list[int]] = [[] for _ in luck]
    is_over = [False] * len(written)
    for step in range(luck.shape[1]):
        tokens = _drawn(logits, luck[:, step])
        for i, token in enumerate(tokens.tolist()):
            if not is_over[i]:
                written[i].append(token)
                is_over[i] = token in loaded.end_ids
        if all(is_over) or step + 1 == luck.shape[1]:
            break
        place = place + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
        logits = loaded.model(
            input_ids=tokens[:, None], attention_mask=mask, position_ids=place, past_key_values=cache
        ).logits[:, -1]
    return written


def _drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token for each row, by the inverse of its cumulative distribution in fp64."""
    sums = torch.softmax(logits.double(), -1).cumsum(-1)
    aim = uniform * sums[:, -1]
    return torch.searchsorted(sums, aim[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    return ids, mask


def answer_of(loaded: Loaded, tokens: Sequence[int]) -> Answer:
    """Returns an answer with its text, without the token that ended it."""
    written = tokens[:-1] if tokens and tokens[-1] in loaded.end_ids else tokens
    return Answer(tuple(tokens), loaded.tokenizer.decode(written))
