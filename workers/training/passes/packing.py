"""Which completions share a forward pass, and how their tokens lie in it.

A pass is one stream of tokens without padding: each prompt once, then its completions,

    [prompt 1, completion 1.1, ..., completion 1.G, prompt 2, completion 2.1, ...]

A completion's last token is predicted but never read, so it is not in the stream. Tokens that the policy
did not choose (`Completion.given`) are read and not predicted. P prompts, B completions, N chosen tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from workers.training.base.types import Completion, Prompt
from workers.training.model.grammar import Allowed
from workers.training.passes.packed_attention import PackedAttention, Segment


class PackedCompletion(NamedTuple):
    """Is one completion to run, and its prompt."""

    prompt: Prompt
    completion: Completion


@dataclass(frozen=True)
class Batch:
    """Is one forward pass. The N tokens lie end to end, completion by completion.

    Attributes:
        indices: (B,) which of the completions given to `make_batches` each one is.
        targets: (N,) completion ids that the policy chose.
        lengths: (B,) how many of those each completion has, on the CPU.
        token_ids: (1, n_forwarded) the stream.
        positions: (1, n_forwarded) each token's place in its own sequence.
        predictors: (N,) the place in the stream that predicts each token: that of the token before it.
        segments: (P,) the stream's layout.
        allowed: what each token was chosen among; None for the whole vocabulary.
    """

    indices: tuple[int, ...]
    targets: Tensor
    lengths: Tensor
    token_ids: Tensor
    positions: Tensor
    predictors: Tensor
    segments: tuple[Segment, ...]
    allowed: Allowed | None = None

    @property
    def n_tokens(self) -> int:
        """Counts the completion tokens: N."""
        return len(self.targets)

    @property
    def n_forwarded(self) -> int:
        """Counts the tokens of prompts and completions that go through the model."""
        return self.token_ids.shape[1]

    @cached_property
    def attention(self) -> PackedAttention:
        """Returns what lets each token see its own prompt and completion only."""
        return PackedAttention(self.segments, self.token_ids.device)

    @cached_property
    def read(self) -> tuple[Tensor, Tensor]:
        """Returns the places in the stream that predict, each once, (n,), and a way back to `predictors`.

        The second, (N,), says where in the first each of `predictors` is.
        """
        places, inverse = torch.unique(self.predictors, return_inverse=True)
        return places, inverse

    @cached_property
    def reach(self) -> int:
        """Returns the most tokens that any token looks at, itself counted."""
        return max(segment.prompt + max(segment.completions) for segment in self.segments)


def make_batches(
    completions: Sequence[PackedCompletion],
    token_budget: int,
    device: torch.device,
    *,
    repeats_prompts: bool = False,
) -> list[Batch]:
    """Splits completions over forward passes of about equal size, each of at most `token_budget` tokens.

    The completions of one prompt stay together unless they are over the budget by themselves; each piece has
    the prompt again. One completion is always allowed. `repeats_prompts` counts the prompt once for each
    completion, as rows of their own have it.
    """
    by_prompt: dict[int, list[int]] = {}
    for i, packed in enumerate(completions):
        by_prompt.setdefault(id(packed.prompt), []).append(i)
    pieces, sizes = [], []
    for members in by_prompt.values():
        prompt = len(completions[members[0]].prompt.tokens)
        lengths = [max(1, len(completions[i].completion.tokens)) for i in members]
        shared = prompt
        if repeats_prompts:
            lengths, shared = [prompt + length for length in lengths], 0
        for chosen in spread(lengths, token_budget - shared):
            pieces.append([members[j] for j in chosen])
            sizes.append(shared + sum(lengths[j] for j in chosen))
    return [
        _batch(completions, [pieces[k] for k in chosen], device) for chosen in spread(sizes, token_budget)
    ]


def spread(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Puts the indices of positive `sizes` in few and even bins.

    None is above `capacity` unless it holds one item. The largest item goes to the emptiest bin, then the
    next; if that does not fit, with one more bin.

    Source: longest processing time first, Graham 1969 (doi:10.1137/0117039).
    """
    largest_first = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    n_bins = min(len(sizes), max(1, -(-sum(sizes) // max(1, capacity))))
    while True:
        bins: list[list[int]] = [[] for _ in range(n_bins)]
        loads = [0] * n_bins
        for i in largest_first:
            emptiest = loads.index(min(loads))
            bins[emptiest].append(i)
            loads[emptiest] += sizes[i]
        if all(load <= capacity or len(chosen) == 1 for load, chosen in zip(loads, bins, strict=True)):
            return sorted(sorted(chosen) for chosen in bins)
        n_bins += 1


def per_completion(values: Tensor, batch: Batch) -> Iterator[Tensor]:
    """Cuts (N,) values into one tensor, (T,), for each completion of the batch."""
    return iter(torch.split(values, batch.lengths.tolist()))


def _batch(
    completions: Sequence[PackedCompletion], pieces: Sequence[Sequence[int]], device: torch.device
) -> Batch:
    """Lays out completions, a piece for those of one prompt. Built on the CPU as lists, then moved once."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    segments = []
    for piece in pieces:
        prompt = completions[piece[0]].prompt.tokens
        start, width = len(ids), len(prompt)
        ids += prompt
        positions += range(width)
        read = [completions[i].completion.tokens[:-1] for i in piece]
        for i, tokens in zip(piece, read, strict=True):
            at = len(ids)
            if completions[i].completion.tokens:
                predicting = [start + width - 1, *range(at, at + len(tokens))]
                predictors += completions[i].completion.of_sampled(predicting)
            ids += tokens
            positions += range(width, width + len(tokens))
        segments.append(Segment(start, width, tuple(map(len, read))))
    members = tuple(i for piece in pieces for i in piece)
    tokens_of = [completions[i].completion.of_sampled(completions[i].completion.tokens) for i in members]
    return Batch(
        indices=members,
        targets=torch.tensor([token for tokens in tokens_of for token in tokens], dtype=torch.long).to(
            device
        ),
        lengths=torch.tensor([len(tokens) for tokens in tokens_of]),
        token_ids=torch.tensor([ids]).to(device),
        positions=torch.tensor([positions]).to(device),
        predictors=torch.tensor(predictors, dtype=torch.long).to(device),
        segments=tuple(segments),
    )


def padded_rows(batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each completion behind its prompt as a row of its own, for models that cannot read the stream.

    Yields:
        For each completion its ids without the last, (S,), and where among them lie the states that predict
        its tokens, (T,).
    """
    ids = batch.token_ids[0]
    places = iter(torch.split(batch.positions[0][batch.predictors], batch.lengths.tolist()))
    for segment in batch.segments:
        first = segment.start + segment.prompt
        starts = accumulate(segment.completions, initial=first)
        for start, read in zip(starts, segment.completions, strict=False):
            yield torch.cat([ids[segment.start : first], ids[start : start + read]]), next(places)
