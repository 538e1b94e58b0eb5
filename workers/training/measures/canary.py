"""The ability canary: what a policy has forgotten of text that has nothing to do with its task.

A small frozen set of texts lies beside this module: prose, talk, code and numbers. The loss on them rises
when training wears away what the model could do before. A job may bring a file of its own instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from methods.canary_rows import MOST_TEXTS, check_canary_row
from methods.rows import Row, read_rows
from workers.training.base.distributed import ALONE, World
from workers.training.base.types import Completion, Prompt, ScoredText
from workers.training.evaluate import Estimate, estimate
from workers.training.model.policy import Policy
from workers.training.passes.forward import (
    Batch,
    PackedCompletion,
    batches_for,
    completion_states,
    output_head,
    per_completion,
    token_logprobs,
)
from workers.training.passes.micro_batches import fillers
from workers.training.prompts import chat_tokens
from workers.training.row_faults import RowFaults

BUILT_IN = Path(__file__).with_name("canary.jsonl")

MOST_TOKENS = 1024
"""Tokens of all texts together, the same share for each. Chosen for the cost, measured with cherry-nano:
2,048 were 15 % of a run of 40 steps and five evaluations, half as many are 7 %.
"""

SCORED = 8
"""Pieces of which a checkpoint keeps each token's log-probability. Chosen, not measured: about 170 tokens."""


class CanaryLoss(NamedTuple):
    """Holds the loss in nats per token, the mean over texts, and by how much it is above the start's.

    `scored` are a few of the texts, token by token, in the main process.
    """

    loss: Estimate
    over_base: Estimate
    scored: tuple[ScoredText, ...] = ()


class Canary:
    """Measures one run's policy again and again on the same texts. Its calls are collective."""

    def __init__(self, policy: Policy, world: World = ALONE, rows: Sequence[Row] | None = None) -> None:
        """`rows` are the user's own; None stands for those of the package. Raises `PromptInvalid`."""
        self._policy = policy
        self._world = world
        chosen = read_rows(BUILT_IN, check=check_canary_row) if rows is None else rows
        self._texts = world.slice(cut_texts(chosen, policy.tokenizer, policy.context, policy.vocabulary))
        self._base: list[float] | None = None

    @torch.no_grad()
    def measure(self) -> CanaryLoss | None:
        """Returns the loss of the policy as it is; None where no text has the two tokens that it takes."""
        if self._base is None:
            with self._policy.reference() as start:
                self._base = self._losses(start)[0]
        losses, scored = self._losses(self._policy.measured_model)
        loss = estimate(losses)
        over_base = estimate([now - before for now, before in zip(losses, self._base, strict=True)])
        return CanaryLoss(loss, over_base, scored) if loss and over_base else None

    def _losses(self, model: Any) -> tuple[list[float], tuple[ScoredText, ...]]:
        """Returns each text's mean loss over its tokens, in every process, and this one's first pieces."""
        own, scored = self._policy.passes.attempt(lambda: self._own_losses(model))
        return self._world.merge(own), scored

    def _own_losses(self, model: Any) -> tuple[list[float], tuple[ScoredText, ...]]:
        """Returns each of this process's texts' mean loss over its tokens, and its first pieces."""
        pieces = [(i, piece) for i, text in enumerate(self._texts) for piece in text]
        packed = [as_completion(piece) for _, piece in pieces]
        passes = self._policy.passes
        batches = batches_for(model, packed, passes.most, self._policy.device)
        filler = Prompt(0, {}, (self._policy.end_ids[0],))
        empty = fillers(self._policy, filler, len(batches), self._world)
        sums, counts = [0.0] * len(self._texts), [0] * len(self._texts)
        scored: dict[int, ScoredText] = {}
        for batch in batches:
            passes.begin(batch.n_forwarded, len(batch.indices))
            for k, values in zip(batch.indices, per_completion(_logprobs(model, batch), batch), strict=True):
                sums[pieces[k][0]] -= float(values.double().sum())
                counts[pieces[k][0]] += len(values)
                if k < SCORED:
                    scored[k] = ScoredText(tuple(pieces[k][1]), tuple(values.tolist()))
        for batch in empty:
            _logprobs(model, batch)
        losses = [total / n for total, n in zip(sums, counts, strict=True)]
        return losses, tuple(scored[k] for k in sorted(scored))


def _logprobs(model: Any, batch: Batch) -> Tensor:
    states = completion_states(model, batch)
    return token_logprobs(states, output_head(model), batch.targets, 1.0)[0]


def as_completion(tokens: Sequence[int]) -> PackedCompletion:
    """Returns a text as a forward pass takes it: its first token is given, the others are to be predicted."""
    learned = tuple(tokens[1:])
    completion = Completion(learned, (0.0,) * len(learned), text="", finish_reason="length")
    return PackedCompletion(Prompt(0, {}, tuple(tokens[:1])), completion)


def cut_texts(
    rows: Sequence[Row], tokenizer: Any, context: int, vocabulary: int | None = None
) -> list[list[list[int]]]:
    """Returns the pieces of each text: its first tokens, in as many pieces as the model's context asks for.

    Texts of a single token, of which nothing can be predicted, are left out. Raises `PromptInvalid`;
    `vocabulary` is how many tokens the model has embedding rows for, where that is known.
    """
    each = max(2, MOST_TOKENS // max(len(rows), 1))
    tokenised = _tokenised(rows[:MOST_TEXTS], tokenizer, vocabulary)
    texts = [list(_pieces(tokens[:each], context)) for tokens in tokenised]
    return [pieces for pieces in texts if pieces]


def _pieces(tokens: Sequence[int], context: int) -> Iterator[list[int]]:
    """Yields even pieces of at most `context` tokens."""
    n_pieces = math.ceil(len(tokens) / context)
    size = math.ceil(len(tokens) / max(n_pieces, 1))
    for first in range(0, len(tokens), max(size, 1)):
        if len(piece := list(tokens[first : first + size])) > 1:
            yield piece


def _tokenised(rows: Sequence[Row], tokenizer: Any, vocabulary: int | None) -> list[list[int]]:
    """Returns the tokens of texts, and of conversations as the model's chat template writes them."""
    faults = RowFaults("canary", len(rows))
    found: list[list[int]] = []
    for row in rows:
        tokens = faults.attempt(row, partial(_tokens, row.item, tokenizer))
        if tokens is not None:
            faults.check_ids(row, tokens, tokenizer, vocabulary)
            found.append(tokens)
    faults.check(lambda whose, n: f"{whose} text has {n:,} tokens")
    return found


def _tokens(item: Any, tokenizer: Any) -> list[int]:
    if "text" in item:
        tokens: list[int] = tokenizer(item["text"])["input_ids"]
        return tokens
    return chat_tokens(item, tokenizer)
