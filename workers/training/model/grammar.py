"""Constrained decoding: which tokens may come next, so that a completion is of a given form (llguidance).

The policy is then the model's distribution over the allowed tokens, renormalised: that is sampled from, and
that is trained (docs/decisions/0011-constrained-policy.md). A mask follows from the tokens before it, so the
trainer finds the sampler's masks again from the completions alone.

N tokens, V in the vocabulary, W = V / 32 words of a packed mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer
from numpy.typing import NDArray
from torch import Tensor

from methods.response_format import grammar_of, reason_of
from workers.training.base.errors import GrammarFailed
from workers.training.base.types import Completion

BANNED = -1e20
"""The logit of a token that is not allowed: its probability is 0, and 0 times the logarithm is 0, not NaN.
It follows from fp32, whose largest number it stays far below.
"""

MOST_TOKENIZERS = 8
"""Tokenizers that stay as llguidance has read them. Chosen, not measured."""

_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)


@dataclass(frozen=True)
class Allowed:
    """Holds the allowed tokens of N places, each different mask once.

    Attributes:
        masks: (U, 4 W) uint8, packed bits.
        which: (N,) the mask of each place.
    """

    masks: Tensor
    which: Tensor

    def split(self, size: int) -> list[Allowed]:
        """Cuts the (N,) places into pieces of `size`."""
        return [Allowed(self.masks, places) for places in torch.split(self.which, size)]

    def apply(self, logits: Tensor) -> Tensor:
        """Puts the (N, V) logits of other tokens out of reach, in place."""
        used, place = torch.unique(self.which, return_inverse=True)
        banned = _banned(self.masks.index_select(0, used), logits.shape[-1])
        return logits.masked_fill_(banned.index_select(0, place), BANNED)


class Grammar:
    """Is one grammar over one vocabulary. All completions share it, and several threads may use it."""

    def __init__(self, text: str, tokenizer: Any, vocabulary: int, end_ids: Sequence[int]) -> None:
        """Compiles the text.

        Raises `GrammarFailed` for a tokenizer that cannot be read, or a grammar too large for it.
        """
        self._end_ids = frozenset(end_ids)
        self._words = -(-vocabulary // 32)
        self._tokenizer = _read(tokenizer, vocabulary, tuple(end_ids))
        # Verbose errors would carry the whole schema into logs.
        limits = LLParserLimits(verbose_errors=False)
        self._start = LLMatcher(self._tokenizer, text, log_level=0, limits=limits)
        _check(self._start)
        self._idle: list[LLMatcher] = []
        """Matchers to use again: they keep what they have worked out of the grammar."""
        self._executor = LLExecutor(max(1, torch.get_num_threads()))

    def matchers(self) -> Matchers:
        """Returns the state of completions about to be sampled."""
        return Matchers(self)

    def allowed(self, completions: Sequence[Completion], device: torch.device) -> Allowed:
        """Returns what was allowed at each of the (N,) tokens that the policy chose, laid end to end."""
        known: dict[bytes, int] = {}
        which = [
            known.setdefault(mask.tobytes(), len(known))
            for completion in completions
            for mask in completion.of_sampled(list(self._masks_along(completion.tokens)))
        ]
        masks = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(len(known), 4 * self._words)
        return Allowed(
            torch.from_numpy(masks.copy()).to(device), torch.tensor(which, dtype=torch.long).to(device)
        )

    def start(self) -> LLMatcher:
        """Returns the state before the first token. Give it back with `end`."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._start.deep_copy()

    def end(self, matcher: LLMatcher) -> None:
        """Takes back the state of a completion that has ended."""
        if matcher.reset():
            self._idle.append(matcher)

    def masks(self, matchers: Sequence[LLMatcher]) -> NDArray[np.int32]:
        """Returns the packed masks, (B, W). Raises `GrammarFailed` if the grammar turns out too complex."""
        packed = np.zeros((len(matchers), self._words), dtype=np.int32)
        places = [(matcher, i) for i, matcher in enumerate(matchers)]
        self._executor.unsafe_compute_mask_ptr(places, packed.ctypes.data, 4 * self._words, len(matchers))
        for matcher in matchers:
            _check(matcher)
        return packed

    def hold(self, logits: Tensor, matchers: Sequence[LLMatcher]) -> Tensor:
        """Puts out of reach, in (B, V) logits of the next tokens, what may not come: in place."""
        packed = torch.from_numpy(self.masks(matchers).view(np.uint8))
        return logits.masked_fill_(_banned(packed.to(logits.device), logits.shape[-1]), BANNED)

    def consume(self, matcher: LLMatcher, token: int) -> None:
        """Goes on by a token that was allowed. After an end token nothing comes."""
        if token not in self._end_ids:
            matcher.consume_token(token)
            _check(matcher)

    def _masks_along(self, tokens: Sequence[int]) -> Iterator[NDArray[np.int32]]:
        matcher = self.start()
        for token in tokens:
            yield self.masks([matcher])[0]
            self.consume(matcher, token)
        self.end(matcher)


def compile_grammar(
    response_format: Mapping[str, Any] | None, tokenizer: Any, model: Any, end_ids: Sequence[int]
) -> Grammar | None:
    """Returns the grammar that a response format means for a model; None for plain text."""
    return grammar_for(response_format, tokenizer, model.get_output_embeddings().weight.shape[0], end_ids)


def grammar_for(
    response_format: Mapping[str, Any] | None, tokenizer: Any, vocabulary: int, end_ids: Sequence[int]
) -> Grammar | None:
    """Returns the same for a model of so many tokens, without its weights."""
    text = grammar_of(response_format)
    return None if text is None else Grammar(text, tokenizer, vocabulary, end_ids)


class Matchers:
    """Knows where each completion under way stands, by its number."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._by_row: dict[int, LLMatcher] = {}

    def apply(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Puts out of reach, in the (B, V) logits of these completions' next tokens, what may not come."""
        for row in rows:
            if row not in self._by_row:
                self._by_row[row] = self._grammar.start()
        return self._grammar.hold(logits, [self._by_row[row] for row in rows])

    def accept(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Takes note that these tokens were drawn."""
        for row, token in zip(rows, tokens, strict=True):
            self._grammar.consume(self._by_row[row], token)

    def drop(self, rows: Sequence[int]) -> None:
        """Takes note that these completions have ended."""
        for row in rows:
            self._grammar.end(self._by_row.pop(row))


@lru_cache(MOST_TOKENIZERS)
def _read(tokenizer: Any, vocabulary: int, end_ids: tuple[int, ...]) -> LLTokenizer:
    """Returns a tokenizer as llguidance knows it: of 50,000 tokens this holds the interpreter for 0.5 s."""
    try:
        return from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(end_ids))
    except (ValueError, RuntimeError) as error:
        raise GrammarFailed(f"The model's tokenizer cannot be used with a response format: {error}") from None


def _banned(packed: Tensor, vocabulary: int) -> Tensor:
    """Turns (B, 4 W) uint8, a bit for each allowed token, into (B, V) bool: what is not allowed."""
    if packed.device.type == "cpu":  # twenty times as fast as torch's bit operations
        bits = np.unpackbits(~packed.numpy(), axis=1, count=vocabulary, bitorder="little")
        return torch.from_numpy(bits.view(np.bool_))
    return _banned_by_torch(packed, vocabulary)


def _banned_by_torch(packed: Tensor, vocabulary: int) -> Tensor:
    return packed[:, :, None].bitwise_and(_BITS.to(packed.device)).eq(0).flatten(1)[:, :vocabulary]


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise GrammarFailed(f"The response format cannot be followed: {reason_of(matcher.get_error())}")
