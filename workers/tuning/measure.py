"""Loss and accuracy on written completions, exact: sums over tokens, whatever shares a forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workers.training.base.pass_tokens import PassTokens
from workers.training.base.types import Completion, Prompt
from workers.training.passes.forward import PackedCompletion, batches_for, completion_states, output_head
from workers.training.passes.token_logprobs import LOGIT_BYTES
from workers.tuning.examples import Example, Pair

Alive = Callable[[], None]
"""Called now and then, so that whoever follows knows that something goes on."""


class Score(NamedTuple):
    """Holds of one example's learned tokens: log-probability (nats), number, and how many come first."""

    logprob: float
    n_tokens: int
    n_correct: int


class Measure(NamedTuple):
    """Holds, of a set of examples, mean loss and share of tokens that come first.

    The loss is in nats per token, or per pair.
    """

    loss: float
    accuracy: float
    reward_accuracy: float | None = None
    reward_margin: float | None = None


def score(model: Any, examples: Sequence[Example], passes: PassTokens, alive: Alive) -> list[Score]:
    """Returns what a model makes of each example, one after the other."""
    return passes.attempt(lambda: _score(model, examples, passes, alive))


@torch.no_grad()
def _score(model: Any, examples: Sequence[Example], passes: PassTokens, alive: Alive) -> list[Score]:
    completions = [
        PackedCompletion(Prompt(i, {}, example.tokens[:1]), _completion(example.tokens[1:]))
        for i, example in enumerate(examples)
    ]
    device = model.get_input_embeddings().weight.device
    found: dict[int, Score] = {}
    for batch in batches_for(model, completions, passes.most, device):
        alive()
        passes.begin(batch.n_forwarded, len(batch.indices))
        is_learned = torch.tensor(
            [learned for i in batch.indices for learned in examples[i].is_learned[1:]], device=device
        )
        states = completion_states(model, batch)[is_learned]
        logprobs, correct = _read(states, output_head(model), batch.targets[is_learned])
        lengths = [sum(examples[i].is_learned) for i in batch.indices]
        found_by_batch = zip(
            batch.indices, torch.split(logprobs, lengths), torch.split(correct, lengths), strict=True
        )
        for i, of_tokens, are_correct in found_by_batch:
            found[i] = Score(float(of_tokens.double().sum()), len(of_tokens), int(are_correct.sum()))
    return [found[i] for i in range(len(examples))]


def supervised_measure(scores: Sequence[Score]) -> Measure:
    """Returns mean negative log-likelihood, in nats, and accuracy per learned token."""
    n_tokens = sum(each.n_tokens for each in scores)
    loss = -math.fsum(each.logprob for each in scores) / n_tokens
    return Measure(loss, sum(each.n_correct for each in scores) / n_tokens)


def dpo_measure(scores: Sequence[Score], reference: Sequence[Score], beta: float) -> Measure:
    """Returns the DPO loss, mean over pairs.

    Both lists hold the chosen and the rejected completion of each pair in turn. Accuracy is that of the
    chosen completions' tokens; a reward is beta times the log-ratio to the reference, in nats.

    Source: Rafailov et al. 2023, arXiv:2305.18290, equation 7.
    """
    ratios = [mine.logprob - start.logprob for mine, start in zip(scores, reference, strict=True)]
    margins = [beta * (ratios[i] - ratios[i + 1]) for i in range(0, len(ratios), 2)]
    chosen = supervised_measure(scores[::2])
    return Measure(
        loss=math.fsum(_softplus(-margin) for margin in margins) / len(margins),
        accuracy=chosen.accuracy,
        reward_accuracy=sum(margin > 0 for margin in margins) / len(margins),
        reward_margin=math.fsum(margins) / len(margins),
    )


def both_completions(pairs: Sequence[Pair]) -> list[Example]:
    """Returns the chosen and the rejected completion of each pair in turn, as examples."""
    return [_as_example(pair, completion) for pair in pairs for completion in (pair.chosen, pair.rejected)]


def _as_example(pair: Pair, completion: Sequence[int]) -> Example:
    is_learned = (False,) * len(pair.prompt) + (True,) * len(completion)
    return Example((*pair.prompt, *completion), is_learned, len(pair.prompt), pair.row)


def _read(states: Tensor, head: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the log-probability of each target, and whether it is the likeliest: (N, H) -> (N,), (N,)."""
    found = list(_read_chunks(states, head, targets))
    logprobs, correct = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(correct)


def _read_chunks(states: Tensor, head: Any, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, LOGIT_BYTES // (4 * head.weight.shape[0]))
    for chunk, wanted in zip(torch.split(states, size), torch.split(targets, size), strict=True):
        logits = head(chunk).float()
        yield torch.log_softmax(logits, -1).gather(-1, wanted[:, None])[:, 0], logits.argmax(-1) == wanted


def _completion(tokens: tuple[int, ...]) -> Completion:
    return Completion(tokens, (0.0,) * len(tokens), "", "stop")


def _softplus(x: float) -> float:
    """Computes log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
