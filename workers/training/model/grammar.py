"""Constrained decoding: which tokens may come next, so that a completion is of a given form (llguidance).

The policy is then the model's distribution over the allowed tokens, renormalised: that is sampled from, and
that is trained (docs/decisions/0011-constrained-policy.md). A mask follows from the tokens before it, so the
trainer finds the sampler's masks again from prompts and completions alone. Thoughts are free (`held.py`).

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
from workers.training.base.transfer import to_device
from workers.training.base.types import Completion, Prompt
from workers.training.model.held import Held, Thoughts
from workers.training.rendering.parts import PartsReader

BANNED = -1e20
"""The logit of a token that is not allowed: its probability is 0, and 0 times the logarithm is 0, not NaN.
It follows from fp32, whose largest number it stays far below.
"""

MOST_TOKENIZERS = 8
"""Tokenizers that stay as llguidance has read them. Chosen, not measured."""

_BITS = np.array([1, 2, 4, 8, 16, 32, 64, 128], np.uint8)


@dataclass(frozen=True)
class Allowed:
    """Holds the allowed tokens of N places, each different mask once.

    Attributes:
        masks: (U, 4 W) uint8, packed bits.
        which: (N,) the mask of each place; -1 where every token is allowed.
    """

    masks: Tensor
    which: Tensor

    def split(self, size: int) -> list[Allowed]:
        """Cuts the (N,) places into pieces of `size`."""
        return [Allowed(self.masks, places) for places in torch.split(self.which, size)]

    def apply(self, logits: Tensor) -> Tensor:
        """Puts the (N, V) logits of other tokens out of reach, in place."""
        held = (self.which >= 0).nonzero()[:, 0]
        used, place = torch.unique(self.which[held], return_inverse=True)
        banned = _banned(self.masks.index_select(0, used), logits.shape[-1]).index_select(0, place)
        if len(held) == len(logits):
            return logits.masked_fill_(banned, BANNED)
        return logits.index_put_((held,), logits[held].masked_fill(banned, BANNED)) if len(held) else logits


class Grammar:
    """Is one grammar over one vocabulary. All completions share it, and several threads may use it."""

    def __init__(
        self,
        text: str,
        tokenizer: Any,
        vocabulary: int,
        end_ids: Sequence[int],
        reader: PartsReader | None = None,
    ) -> None:
        """Compiles the text. `reader` tells where the thoughts of a completion end, in a family that has any.

        Raises `GrammarFailed` for a tokenizer that cannot be read, or a grammar too large for it.
        """
        self._thoughts = Thoughts(reader) if reader is not None and reader.may_think else None
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

    def allowed(
        self,
        completions: Sequence[Completion],
        device: torch.device,
        prompts: Sequence[Prompt] = (),
    ) -> Allowed:
        """Returns what was allowed at each of the (N,) tokens that the policy chose, laid end to end.

        `prompts` are those of the completions, where these may think.
        """
        known: dict[bytes, int] = {}
        which: list[int] = []
        for i, completion in enumerate(completions):
            masks = self._masks_along(completion, prompts[i] if prompts else None)
            for mask in completion.of_sampled(masks):
                which.append(-1 if mask is None else known.setdefault(mask.tobytes(), len(known)))
        packed = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(len(known), 4 * self._words)
        return Allowed(
            torch.from_numpy(packed.copy()).to(device), torch.tensor(which, dtype=torch.long).to(device)
        )

    def start(self, prompt: Sequence[int] = (), *, has_tools: bool = False) -> Held:
        """Returns the state before the first token of a completion of a prompt. Give it back with `end`.

        Where it `has_tools` a call may stand in the place of an answer.
        """
        try:
            matcher = self._idle.pop()
        except IndexError:
            matcher = self._start.deep_copy()
        return Held(matcher, self._thoughts, prompt, has_tools=has_tools)

    def end(self, held: Held) -> None:
        """Takes back the state of a completion that has ended."""
        if held.matcher.reset():
            self._idle.append(held.matcher)

    def masks(self, every: Sequence[Held]) -> NDArray[np.int32]:
        """Returns the packed masks, (B, W), of completions that are not free.

        Raises `GrammarFailed` if the grammar turns out too complex.
        """
        packed = np.zeros((len(every), self._words), dtype=np.int32)
        places = [(held.matcher, i) for i, held in enumerate(every) if held.is_answering]
        if places:
            self._executor.unsafe_compute_mask_ptr(places, packed.ctypes.data, 4 * self._words, len(every))
        for matcher, _ in places:
            _check(matcher)
        for row, held in zip(packed.view(np.uint32), every, strict=True):
            for token in held.beside:
                row[token // 32] |= np.uint32(1 << token % 32)
        return packed

    def hold(self, logits: Tensor, every: Sequence[Held]) -> Tensor:
        """Puts out of reach, in (B, V) logits of the next tokens, what may not come: in place."""
        rows = [i for i, held in enumerate(every) if not held.is_free]
        if not rows:
            return logits
        packed = to_device(self.masks([every[i] for i in rows]).view(np.uint8), logits.device)
        banned = _banned(packed, logits.shape[-1])
        if len(rows) == len(every):
            return logits.masked_fill_(banned, BANNED)
        at = to_device(np.array(rows), logits.device)
        logits[at] = logits[at].masked_fill(banned, BANNED)
        return logits

    def consume(self, held: Held, token: int) -> None:
        """Goes on by a token that was allowed. After an end token nothing comes."""
        if token not in self._end_ids:
            held.consume(token)
            _check(held.matcher)

    def _masks_along(self, completion: Completion, prompt: Prompt | None) -> list[NDArray[np.int32] | None]:
        """Returns the mask of each token of a completion, None for one that was free or given."""
        tokens, given = completion.tokens, completion.given or (False,) * len(completion.tokens)
        read, has_tools = ((), False) if prompt is None else (prompt.tokens, prompt.has_tools)
        masks: list[NDArray[np.int32] | None] = [None] * len(tokens)
        for turn in _turns(completion):
            held = self.start((*read, *tokens[: turn.start]), has_tools=has_tools)
            for place in turn:
                if not (held.is_free or given[place]):
                    masks[place] = self.masks([held])[0]
                self.consume(held, tokens[place])
            self.end(held)
        return masks


def _turns(completion: Completion) -> Iterator[range]:
    """Yields the places of what was written in each turn, without what was given between them."""
    given = completion.given or (False,) * len(completion.tokens)
    chosen = [place for place, is_given in enumerate(given) if not is_given]
    start = first = 0
    for turn in completion.turns[:-1]:
        first += turn.tokens
        if first >= len(chosen):
            break
        yield range(start, chosen[first - 1] + 1)
        start = chosen[first]
    yield range(start, len(completion.tokens))


def compile_grammar(
    response_format: Mapping[str, Any] | None,
    tokenizer: Any,
    model: Any,
    end_ids: Sequence[int],
    reader: PartsReader | None = None,
) -> Grammar | None:
    """Returns the grammar that a response format means for a model; None for plain text."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return grammar_for(response_format, tokenizer, vocabulary, end_ids, reader)


def grammar_for(
    response_format: Mapping[str, Any] | None,
    tokenizer: Any,
    vocabulary: int,
    end_ids: Sequence[int],
    reader: PartsReader | None = None,
) -> Grammar | None:
    """Returns the same for a model of so many tokens, without its weights."""
    text = grammar_of(response_format)
    return None if text is None else Grammar(text, tokenizer, vocabulary, end_ids, reader)


class Matchers:
    """Knows where each completion under way stands, by its number."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._by_row: dict[int, Held] = {}

    def begin(self, rows: Sequence[int], read: Sequence[int], *, has_tools: bool = False) -> None:
        """Takes note that these completions go on from what was read."""
        for row in rows:
            self._by_row[row] = self._grammar.start(read, has_tools=has_tools)

    def apply(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Puts out of reach, in the (B, V) logits of these completions' next tokens, what may not come."""
        return self._grammar.hold(logits, [self._by_row[row] for row in rows])

    def accept(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Takes note that these tokens come next."""
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
    bits = to_device(_BITS, packed.device)
    return packed[:, :, None].bitwise_and(bits).eq(0).flatten(1)[:, :vocabulary]


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise GrammarFailed(f"The response format cannot be followed: {reason_of(matcher.get_error())}")
