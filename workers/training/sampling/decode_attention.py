"""The sampler's attention: a prompt once for the whole group, each completion's own tokens beside it.

All active completions of a group attend to their prompt together, so its keys and values are stored and read
once; the two halves of a softmax are put together by their log-sum-exp (as in Hydragen, arXiv:2402.05099).
Grouped heads are folded into the query's rows: keys and values are never repeated.

Shapes as in `decode_step`; heads = kv_heads * folded, each D wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workers.training.model import attention
from workers.training.model.head import output_head
from workers.training.model.parts import decoder_of
from workers.training.sampling.decode_step import Span, Step
from workers.training.sampling.slot_cache import KeyValues, LayerShape, SlotCache

if TYPE_CHECKING:
    from workers.training.sampling.panel_cache import PanelCache


def decode(model: Any, cache: SlotCache, step: Step) -> Tensor:
    """Reads each last token, keeps its keys and values, and returns the logits of the next: (B, V)."""
    with attention.use(DecodeAttention(cache, step), step.reach):
        states = decoder_of(model)(
            input_ids=step.ids[:, None], position_ids=step.positions[:, None], use_cache=False
        ).last_hidden_state
    logits: Tensor = output_head(model)(states[:, -1])
    return logits


def prefill(model: Any, cache: SlotCache | PanelCache, first: int, ids: Tensor, lengths: Tensor) -> Tensor:
    """Reads prompts, keeps their keys and values in slots from `first` on; returns the next token's logits.

    (n, L) ids, padded on the right, and (n,) lengths -> (n, V). Causal attention keeps every token from
    seeing padding.
    """

    def keep(layer: int, key: Tensor, value: Tensor) -> None:
        cache.keep_prompts(layer, first, key, value)

    return _read_prompts(model, keep, ids, lengths)


def prefill_in(model: Any, cache: SlotCache, slots: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Does what `prefill` does, keeping the prompts in (n,) slots: (n, L), (n,) -> (n, V)."""

    def keep(layer: int, key: Tensor, value: Tensor) -> None:
        cache.keep_prompts_in(layer, slots, key, value)

    return _read_prompts(model, keep, ids, lengths)


def _read_prompts(
    model: Any, keep: Callable[[int, Tensor, Tensor], None], ids: Tensor, lengths: Tensor
) -> Tensor:
    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        keep(module.layer_idx, key, value)
        return _causal(query, key, value, scaling)

    with attention.use(attend, ids.shape[1]):
        states = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state
    last = states[torch.arange(len(ids), device=ids.device), lengths - 1]
    logits: Tensor = output_head(model)(last)
    return logits


def layer_shapes(model: Any, device: torch.device) -> tuple[list[LayerShape], Tensor]:
    """Returns what each attention layer keeps for a token, and an example of it, (1, kv_heads, 1, D).

    It finds out by running one token, once for each dtype that a model has had.
    """
    decoder = decoder_of(model)
    key = decoder.dtype, device
    found = _shapes.setdefault(decoder, {})
    if key not in found:
        found[key] = _layer_shapes(model, device)
    return found[key]


_shapes: WeakKeyDictionary[nn.Module, dict[Any, tuple[list[LayerShape], Tensor]]] = WeakKeyDictionary()


def _layer_shapes(model: Any, device: torch.device) -> tuple[list[LayerShape], Tensor]:
    shapes: dict[int, LayerShape] = {}
    examples: list[Tensor] = []

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        shapes[module.layer_idx] = LayerShape(key.shape[1], key.shape[3], value.shape[3])
        examples.append(key)
        return _causal(query, key, value, scaling)

    with attention.use(attend):
        decoder_of(model)(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    return [shapes[i] for i in range(len(shapes))], examples[0]


class DecodeAttention:
    """Is the attention function of one decode step (`attention.use`)."""

    def __init__(self, cache: SlotCache, step: Step) -> None:
        self._cache = cache
        self._step = step
        self._write_at = write_places(cache, step)
        dtype = cache.prompts[0].keys.dtype
        self._own = _biases(step.completion_spans, step.columns + 1, dtype)
        self._prompt = _biases(step.prompt_spans, step.prompt_lengths, dtype)

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """Computes (B, heads, 1, D) queries, (B, kv_heads, 1, ...) keys and values -> (B, 1, heads, E)."""
        B, heads, _, D = query.shape
        layer: Any = module.layer_idx
        scaling = D**-0.5 if scaling is None else scaling
        found = self.read_and_write(layer, query[:, :, 0], key[:, :, 0], value[:, :, 0], scaling)
        return found.view(B, 1, heads, -1)

    def read_and_write(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Keeps one token's keys and values for each slot and attends to all it has.

        (B, heads, D), (B, kv_heads, D), (B, kv_heads, E) -> (B, heads, E).
        """
        stored, prompts = self._cache.completions[layer], self._cache.prompts[layer]
        B, heads, D = query.shape
        kv_heads = key.shape[1]
        write(stored, self._write_at, key, value)
        query = query.reshape(B, kv_heads, heads // kv_heads, D)
        own = _over_spans(query, stored.keys, stored.values, self._own, scaling)
        found = _merge(own, self._over_prompts(query, prompts.keys, prompts.values, scaling))
        return found.to(query.dtype).view(B, heads, -1)

    def _over_prompts(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> _Partial:
        step = self._step
        n = len(step.prompt_lengths)
        _, kv_heads, folded, D = query.shape
        if step.source is not None:
            query = query.index_select(0, step.source)
        M = len(query) // n
        together = query.view(n, M, kv_heads, folded, D).transpose(1, 2).reshape(n, kv_heads, M * folded, D)
        partial = _over_spans(together, keys, values, self._prompt, scaling)
        states, weights = (
            found.view(n, kv_heads, M, folded, -1).transpose(1, 2).reshape(n * M, kv_heads, folded, -1)
            for found in partial
        )
        if step.place is None:
            return _Partial(states, weights)
        return _Partial(states.index_select(0, step.place), weights.index_select(0, step.place))


def write_places(cache: SlotCache, step: Step) -> dict[int, Tensor]:
    """Returns where each slot's next token is kept, (B * kv_heads,), by the number of heads of a layer."""
    slots = torch.arange(len(step.ids), device=step.ids.device)
    found: dict[int, Tensor] = {}
    for heads in {layer.keys.shape[1] for layer in cache.completions}:
        head = torch.arange(heads, device=slots.device)
        first = (slots[:, None] * heads + head) * cache.columns
        found[heads] = (first + step.columns[:, None]).flatten()
    return found


def write(stored: KeyValues, places: dict[int, Tensor], key: Tensor, value: Tensor) -> None:
    """Keeps one token's keys and values, (B, kv_heads, width), for each slot."""
    for kept, new in zip(stored, (key, value), strict=True):
        rows = kept.view(-1, kept.shape[3])
        rows.index_copy_(0, places[kept.shape[1]], new.reshape(-1, kept.shape[3]))


class _Partial(NamedTuple):
    """Is attention over some of the columns: (slots, kv_heads, rows, width) and its log-sum-exp, (..., 1)."""

    states: Tensor
    logsumexp: Tensor


def _merge(one: _Partial, other: _Partial) -> Tensor:
    weight = torch.sigmoid(other.logsumexp - one.logsumexp)
    return torch.lerp(one.states.to(weight.dtype), other.states.to(weight.dtype), weight)


def _biases(spans: Sequence[Span], lengths: Tensor, dtype: torch.dtype) -> list[tuple[Span, Tensor | None]]:
    """Returns what each span adds to its scores, (slots, 1, 1, width): -inf where a slot is not filled."""
    found: list[tuple[Span, Tensor | None]] = []
    for span in spans:
        bias = None
        if not span.is_full:
            hidden = torch.arange(span.width, device=lengths.device) >= lengths[span.first : span.last, None]
            bias = torch.zeros(hidden.shape, dtype=dtype, device=lengths.device)
            bias = bias.masked_fill_(hidden, -torch.inf)[:, None, None]
        found.append((span, bias))
    return found


def _over_spans(
    query: Tensor, keys: Tensor, values: Tensor, spans: Sequence[tuple[Span, Tensor | None]], scaling: float
) -> _Partial:
    partials = [
        partial_attention(
            query[span.first : span.last],
            keys[span.first : span.last, :, : span.width],
            values[span.first : span.last, :, : span.width],
            bias,
            scaling,
        )
        for span, bias in spans
    ]
    if len(partials) == 1:
        return _Partial(*partials[0])
    return _Partial(*(torch.cat(pieces) for pieces in zip(*partials, strict=True)))


def partial_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor]:
    """Computes attention and the log-sum-exp of its scores.

    (N, heads, T, D), (N, heads, S, D), (N, heads, S, E), (N, 1, 1, S) -> (N, heads, T, E), (N, heads, T, 1).
    """
    if query.device.type == "cpu" and key.shape[-1] == value.shape[-1]:
        mask = None if bias is None else bias.expand(*query.shape[:3], key.shape[2])
        # The one of the library's kernels for the CPU; its public function keeps the log-sum-exp to itself.
        states, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, attn_mask=mask, scale=scaling
        )
        return states, logsumexp[..., None]
    return plain_attention(query, key, value, bias, scaling)


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float
) -> tuple[Tensor, Tensor]:
    """Computes what `partial_attention` does in plain operations: (N, heads, T, E) and (N, heads, T, 1)."""
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if bias is not None:
        scores = scores + bias
    logsumexp = scores.logsumexp(-1, keepdim=True)
    return (scores - logsumexp).exp().to(value.dtype) @ value, logsumexp


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    found = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=query.shape[2] > 1, scale=scaling, enable_gqa=grouped
    )
    return found.transpose(1, 2)
