"""A decode step of few kernels for Llama and Qwen models on a GPU, with or without adapters beside.

A layer is 14 kernels: norms that also add, products of joined weights (`joined_linears`), each with one more
for its adapters, rotation that also keeps keys and values, attention in two, and the gate. What it computes
is what the library's modules do but for the order of sums. Other models are decoded by these
(`decode_attention.decode`), and so is one whose operations do not run. On a CPU their plain twins run.

Shapes: B rows, H wide states, heads and kv_heads of D each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from workers.training.kernels.gpu import ops
from workers.training.kernels.gpu.trial import Widths, fault_of
from workers.training.model.parts import decoder_of
from workers.training.model.rollout_weights import FollowingLinear
from workers.training.sampling.decode_attention import decode as decode_by_modules
from workers.training.sampling.decode_step import Step
from workers.training.sampling.graphed.joined_linears import JoinedLinears
from workers.training.sampling.lean_decoder import FAMILIES, linears
from workers.training.sampling.slot_cache import KeyValues, SlotCache

log = logging.getLogger(__name__)

MOST_WIDTH = 256
"""The widest head that the attention's kernel takes. Chosen for its registers, not measured."""

DecodeStep = Callable[[SlotCache, Step], Tensor]
"""Reads each last token, keeps its keys and values, and returns the logits of the next: (B, V)."""


class Places(NamedTuple):
    """Says where a step reads and writes, as `ops.decode_attention` has it."""

    columns: Tensor
    prompt_lengths: Tensor
    source: Tensor
    place: Tensor
    prompt_width: int
    width: int


@dataclass(frozen=True)
class Norm:
    """Normalises the last dimension by its root mean square."""

    weight: Tensor
    eps: float

    def __call__(self, states: Tensor, added: Tensor | None) -> Tensor:
        """Adds (B, H) to the states (B, H), in place, and normalises them."""
        found: Tensor = ops.add_rms_norm(states, added, self.weight, self.eps)
        return found


@dataclass(frozen=True)
class Layer:
    """Is one decoder layer."""

    norm: Norm
    qkv: JoinedLinears
    query_norm: Norm | None
    key_norm: Norm | None
    out: JoinedLinears
    mlp_norm: Norm
    gate_up: JoinedLinears
    down: JoinedLinears
    heads: int
    scaling: float

    def __call__(
        self,
        states: Tensor,
        added: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        prompts: KeyValues,
        own: KeyValues,
        places: Places,
    ) -> Tensor:
        """Adds (B, H) and what is attended to to the states, (B, H), in place; returns what else to add."""
        mixed = self.qkv(self.norm(states, added))
        query = self._rotate_and_keep(mixed, rotary, own, places.columns)
        columns, lengths, source, place, prompt_width, width = places
        found = ops.decode_attention(
            *(query, *prompts, *own),
            *(lengths, columns, source, place, prompt_width, width, self.scaling),
        )
        normed = self.mlp_norm(states, self.out(found))
        return self.down(ops.gated_silu(self.gate_up(normed)))

    def _rotate_and_keep(
        self, mixed: Tensor, rotary: tuple[Tensor, Tensor], own: KeyValues, columns: Tensor
    ) -> Tensor:
        norms = self.query_norm, self.key_norm
        weights = (None if norm is None else norm.weight for norm in norms)
        eps = 0.0 if self.query_norm is None else self.query_norm.eps
        found: Tensor = ops.rotate_and_keep(mixed, *weights, eps, *rotary, columns, *own, self.heads)
        return found

    @property
    def joined(self) -> tuple[JoinedLinears, ...]:
        """Returns its products."""
        return self.qkv, self.out, self.gate_up, self.down


class GpuDecoder:
    """Holds the layers of one model, whose weights it has joined: `why_by_modules` must find nothing."""

    def __init__(self, model: Any) -> None:
        decoder = decoder_of(model)
        self._embed = decoder.embed_tokens
        self._rotary = decoder.rotary_emb
        self._layers = [_layer(layer, decoder.config) for layer in decoder.layers]
        self._norm = _norm(decoder.norm)
        self._head = model.get_output_embeddings()

    @property
    def is_current(self) -> bool:
        """Says whether the model's weights still lie where they were joined."""
        return all(joined.is_current for layer in self._layers for joined in layer.joined)

    def decode(self, cache: SlotCache, step: Step) -> Tensor:
        """Reads each last token, keeps its keys and values, and returns the logits of the next: (B, V)."""
        states = self._embed(step.ids)
        cos, sin = self._rotary(states, step.positions[:, None])
        rotary, places = (cos[:, 0], sin[:, 0]), _places(step)
        added = None
        for layer, prompts, own in zip(self._layers, cache.prompts, cache.completions, strict=True):
            added = layer(states, added, rotary, prompts, own, places)
        logits: Tensor = self._head(self._norm(states, added))
        return logits


class _ByModules:
    """Decodes by a model's own modules. It does not keep the model alive."""

    def __init__(self, model: Any) -> None:
        self._model = ref(model)

    def __call__(self, cache: SlotCache, step: Step) -> Tensor:
        return decode_by_modules(self._model(), cache, step)


class _Guarded:
    """Decodes by a `GpuDecoder` until that fails, and by the model's modules from then on."""

    def __init__(self, model: Any, decoder: GpuDecoder) -> None:
        self.decoder = decoder
        self._by_modules = _ByModules(model)
        self._has_failed = False

    def __call__(self, cache: SlotCache, step: Step) -> Tensor:
        if not self._has_failed:
            try:
                return self.decoder.decode(cache, step)
            except torch.OutOfMemoryError:
                raise
            # A kernel that does not compile raises what Triton, the C compiler or the driver makes of it.
            except Exception as error:
                if step.ids.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                    raise
                self._has_failed = True
                log.warning("decode_by_modules", extra={"reason": f"{type(error).__name__}: {error}"[:300]})
        return self._by_modules(cache, step)


def step_function(model: Any) -> DecodeStep:
    """Returns what decodes a step of a model on a GPU: its modules where it must, with a warning.

    It is the same function as before unless the model's weights have moved: graphs of another are of no use.
    """
    found = _functions.get(model)
    if found is None or (isinstance(found, _Guarded) and not found.decoder.is_current):
        found = _functions[model] = _step_function(model)
    return found


_functions: WeakKeyDictionary[nn.Module, DecodeStep] = WeakKeyDictionary()


def _step_function(model: Any) -> DecodeStep:
    reason = why_by_modules(model)
    if reason is None and model.device.type == "cuda":
        reason = fault_of(_widths(model), model.dtype, model.device)
    if reason is None:
        return _Guarded(model, GpuDecoder(model))
    log.warning("decode_by_modules", extra={"reason": reason[:300]})
    return _ByModules(model)


def why_by_modules(model: Any) -> str | None:
    """Returns why `GpuDecoder` is not for a model; None if it is."""
    decoder = decoder_of(model)
    if type(decoder) not in FAMILIES:
        return f"{type(decoder).__name__} is none of {', '.join(family.__name__ for family in FAMILIES)}."
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"Its layers are of the kinds {', '.join(sorted(kinds))}."
    if decoder.config.hidden_act != "silu":
        return f"Its gate is '{decoder.config.hidden_act}', not 'silu'."
    width = _widths(model).head
    if width > MOST_WIDTH or width % 2:
        return f"Its heads are {width} wide; they may be even widths up to {MOST_WIDTH}."
    if len({tensor.dtype for tensor in decoder.parameters()}) != 1:
        return "Its weights are of several dtypes."
    return next(filter(None, map(_fault_of_layers, _groups(decoder))), None)


def _fault_of_layers(joined: tuple[Any, ...]) -> str | None:
    for linear in joined:
        if type(linear) not in (nn.Linear, FollowingLinear):
            return f"A layer of it is a {type(linear).__name__}, which is no plain linear layer."
    if len({linear.bias is None for linear in joined}) > 1:
        return "Some of its layers with one input have a bias and others have none."
    return None


def _groups(decoder: Any) -> Iterator[tuple[Any, ...]]:
    """Yields linear layers with the same input."""
    for layer in decoder.layers:
        query, key, value, out, gate, up, down = linears(layer)
        yield from ((query, key, value), (out,), (gate, up), (down,))


def _widths(model: Any) -> Widths:
    config = decoder_of(model).config
    heads = config.num_attention_heads
    return Widths(
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        hidden=config.hidden_size,
        gate=config.intermediate_size,
    )


def _layer(layer: Any, config: Any) -> Layer:
    attention = layer.self_attn
    query, key, value, out, gate, up, down = linears(layer)
    has_head_norms = isinstance(attention, Qwen3Attention)
    return Layer(
        norm=_norm(layer.input_layernorm),
        qkv=JoinedLinears(query, key, value),
        query_norm=_norm(attention.q_norm) if has_head_norms else None,
        key_norm=_norm(attention.k_norm) if has_head_norms else None,
        out=JoinedLinears(out),
        mlp_norm=_norm(layer.post_attention_layernorm),
        gate_up=JoinedLinears(gate, up),
        down=JoinedLinears(down),
        heads=config.num_attention_heads,
        scaling=attention.scaling,
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _places(step: Step) -> Places:
    """Returns where a step reads and writes; completions stand as their prompts do where it does not say."""
    source, place = step.source, step.place
    if source is None or place is None:
        source = place = torch.arange(len(step.ids), device=step.ids.device)
    return Places(
        columns=step.columns,
        prompt_lengths=step.prompt_lengths,
        source=source,
        place=place,
        prompt_width=max(span.width for span in step.prompt_spans),
        width=max(span.width for span in step.completion_spans),
    )
