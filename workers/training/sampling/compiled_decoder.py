"""Decode steps of Llama and Qwen models on a CPU in fp32, each one call of a compiled kernel.

The weights are copied into the panels that the kernel reads, for one call of the sampler, so nothing has to
follow an update. Several threads share the completions out among themselves, and each reads all weights:
that pays as long as the processor's cache holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.training.kernels.attend import Floats, KeyValueArrays, Rows
from workers.training.kernels.decode import Weights, decode, read
from workers.training.kernels.decode_ahead import Draws, decode_ahead
from workers.training.kernels.low_rank import Adapters
from workers.training.kernels.panels import PANEL, pack
from workers.training.kernels.threads import in_parallel
from workers.training.model.adapter_rows import LowRank
from workers.training.model.parts import decoder_of
from workers.training.sampling.decode_step import ActiveRows, Ints
from workers.training.sampling.lean_decoder import linears
from workers.training.sampling.packed_adapters import no_adapters, packed_adapters, padded_heads
from workers.training.sampling.panel_cache import PanelCache
from workers.training.sampling.prompt_pieces import Piece

ROWS_PER_THREAD = 4
"""The fewest completions for which another thread pays: each reads all weights. Chosen, not measured."""
ROWS_PER_THREAD_STREAMED = 8
"""The same where no cache holds the weights. Measured on a model of 538 MB: a step of 8 rows takes 21 ms, of
one row 16, since memory gives the weights no faster (docs/benchmarks.md).
"""

CACHED_BYTES = 32 << 20
"""Weights up to which the processor's caches are taken to hold them from step to step. Chosen: they hold
15 MB, and not 538 MB (docs/benchmarks.md).
"""


class CompiledDecoder:
    """Decodes the active rows of one cache."""

    def __init__(self, model: Any, cache: PanelCache, positions: int) -> None:
        """Copies the weights. `positions`: of the longest sequence."""
        self._model = model
        self._weights = packed_weights(model, positions)
        self._adapters = no_adapters(len(self._weights.qkv))
        self._least_rows = ROWS_PER_THREAD_STREAMED if self._weights.streams else ROWS_PER_THREAD
        self._prompts, self._completions = cache.arrays()
        self._logits = torch.empty(cache.slots, len(self._weights.embedding))
        self._own = np.arange(cache.slots)

    def set_adapters(self, adapters: Mapping[int, Mapping[str, LowRank]]) -> None:
        """Takes adapters in the place of all before, each by its number, by the names of the model's layers.

        Raises `ValueError` if one is of a layer that is none of the seven linear ones of each decoder layer.
        """
        self._adapters = packed_adapters(self._model, adapters)

    def __call__(self, active: ActiveRows, ids: Tensor, adapter_of_slot: Ints | None = None) -> Tensor:
        """Returns the logits of the next token of each active completion, given its last: (B,) -> (B, V).

        They are overwritten by the next call. `adapter_of_slot` (B,) has each one's adapter, -1 for none.
        """
        in_parallel(
            decode,
            len(ids),
            self._least_rows,
            *self._arguments(active, ids, adapter_of_slot),
        )
        return self._logits[: len(ids)]

    def is_serial(self, n: int) -> bool:
        """Says whether so many completions are decoded in one thread."""
        return torch.get_num_threads() == 1 or n < 2 * self._least_rows

    def ahead(self, active: ActiveRows, ids: Tensor, adapter_of_slot: Ints | None, draws: Draws) -> int:
        """Decodes several tokens of each completion, in one thread; (B,) `ids` and `active.counts` follow.

        Returns how many each was given.
        """
        return decode_ahead(*self._arguments(active, ids, adapter_of_slot), draws)

    def read(self, pieces: Sequence[Piece], adapters: Ints | None) -> Tensor:
        """Reads pieces of prompts, in one thread; returns states, (n, W, H), as `read_pieces` does."""
        widths = [len(piece.ids) for piece in pieces]
        tokens = sum(widths)
        behind = np.repeat([piece.first for piece in pieces], widths)
        number = np.concatenate([np.arange(width) for width in widths])
        rows = Rows(
            slots=np.arange(tokens),
            group=np.zeros(tokens, np.int64),
            counts=behind + number + 1,
            prompt_lengths=np.zeros(1, np.int64),
            own=np.repeat([piece.slot for piece in pieces], widths),
        )
        used = no_adapters(len(self._weights.qkv))
        if adapters is not None:
            used = self._adapters._replace(of_slot=np.repeat(adapters, widths))
        ids = np.array([token for piece in pieces for token in piece.ids])
        found = read(rows, ids, self._weights, used, self._prompts, self._prompts)
        states = torch.zeros(len(pieces), max(widths), self._weights.embedding.shape[1])
        flat = torch.from_numpy(found)[:, : states.shape[2]]
        states[np.repeat(np.arange(len(pieces)), widths), number] = flat
        return states

    def _arguments(self, active: ActiveRows, ids: Tensor, adapter_of_slot: Ints | None) -> _Arguments:
        slots, adapters = active.slots_by_group, no_adapters(len(self._weights.qkv))
        if adapter_of_slot is not None:
            slots = np.lexsort((active.group, adapter_of_slot))
            adapters = self._adapters._replace(of_slot=adapter_of_slot)
        rows = Rows(slots, active.group, active.counts, active.prompt_lengths, self._own)
        caches = self._prompts, self._completions
        return rows, ids.numpy(), self._weights, adapters, *caches, self._logits.numpy()


_Arguments = tuple[Rows, Ints, Weights, Adapters, KeyValueArrays, KeyValueArrays, Floats]


def packed_weights(model: Any, positions: int) -> Weights:
    """Returns a model's weights in panels; `positions`: of the longest sequence."""
    decoder, config = decoder_of(model), model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    layers, attention = decoder.layers, decoder.layers[0].self_attn
    of = [linears(layer) for layer in layers]
    cos, sin = decoder.rotary_emb(decoder.embed_tokens.weight, torch.arange(positions)[None])
    half = cos.shape[-1] // 2
    size = sum(parameter.nbytes for parameter in decoder.parameters())
    return Weights(
        embedding=_array(decoder.embed_tokens.weight),
        norm=_array(torch.stack([layer.input_layernorm.weight for layer in layers])),
        mlp_norm=_array(torch.stack([layer.post_attention_layernorm.weight for layer in layers])),
        last_norm=_array(decoder.norm.weight),
        qkv=_packed([[q.weight, k.weight, v.weight] for q, k, v, *_ in of]),
        qkv_bias=_array(torch.stack([_bias(linears[:3]) for linears in of])),
        head_norm=_array(torch.stack([_head_norm(layer.self_attn, heads, kv_heads) for layer in layers])),
        out=_packed([[padded_heads(out.weight, heads)] for _, _, _, out, *_ in of]),
        gate=_packed([[gate.weight] for *_, gate, _, _ in of]),
        up=_packed([[up.weight] for *_, up, _ in of]),
        down=_packed([[down.weight] for *_, down in of]),
        head=_packed([[model.get_output_embeddings().weight]])[0],
        cos=_array(cos[0, :, :half]),
        sin=_array(sin[0, :, :half]),
        eps=np.float32(decoder.norm.variance_epsilon),
        head_eps=np.float32(attention.q_norm.variance_epsilon if hasattr(attention, "q_norm") else 0),
        scaling=np.float32(attention.scaling),
        streams=np.bool_(size > CACHED_BYTES),
    )


def _array(tensor: Tensor) -> Floats:
    found: Floats = tensor.detach().contiguous().numpy()
    return found


def _packed(weights: Sequence[Sequence[Tensor]]) -> Floats:
    """Packs some weights of each layer, (outputs, inputs), side by side: (L, panels, inputs, 16).

    Inputs are as many as whole panels hold.
    """
    inputs = weights[0][0].shape[1]
    outputs = sum(len(weight) for weight in weights[0])
    packed = np.zeros((len(weights), -(-outputs // PANEL), -(-inputs // PANEL) * PANEL, PANEL), np.float32)
    for i, side_by_side in enumerate(weights):
        first = 0
        for weight in side_by_side:
            pack(_array(weight), first, packed[i])
            first += len(weight)
    return packed


def _bias(linears: Sequence[Any]) -> Tensor:
    """Returns their biases side by side, (panels * 16,)."""
    biases = [
        linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
        for linear in linears
    ]
    joined = torch.cat(biases)
    return torch.nn.functional.pad(joined, (0, -len(joined) % PANEL))


def _head_norm(attention: Any, heads: int, kv_heads: int) -> Tensor:
    if not hasattr(attention, "q_norm"):
        return torch.empty(0, 0)
    return torch.stack([attention.q_norm.weight] * heads + [attention.k_norm.weight] * kv_heads)
