"""A decode step over merged weights, for Llama and Qwen models on a CPU that are not compiled.

Reads one token for each row with a third of the tensor operations of the library's modules: queries, keys and
values come from one product, gate and up from another, and fp32 weights lie transposed, which the CPU's
small products read faster. Same arithmetic otherwise. The weights are copied for one call of the sampler, so
nothing has to follow an update. Other models, and models that are too large to copy, do without.
Shapes: B rows, H wide states, heads and kv_heads of D each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaModel, Qwen2Model, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from workers.training.model.parts import decoder_of
from workers.training.model.rollout_weights import FollowingLinear
from workers.training.sampling.decode_attention import DecodeAttention
from workers.training.sampling.decode_step import Step
from workers.training.sampling.slot_cache import SlotCache

FAMILIES = (LlamaModel, Qwen2Model, Qwen3Model)
MOST_BYTES = 1 << 30
"""The largest weights that are copied. Chosen, not measured."""


class JoinedLinear(NamedTuple):
    """Is one or several linear layers with the same input: (inputs, outputs) and (outputs,)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, states: Tensor) -> Tensor:
        """Computes (B, inputs) -> (B, outputs)."""
        if self.bias is None:
            return states @ self.weight
        return torch.addmm(self.bias, states, self.weight)

    def added_to(self, states: Tensor, given: Tensor) -> Tensor:
        """Adds to `states`, (B, outputs), what the layer makes of `given`, (B, inputs)."""
        found = torch.addmm(states, given, self.weight)
        return found if self.bias is None else found.add_(self.bias)


@dataclass(frozen=True)
class Norm:
    """Normalises the last dimension by its root mean square; `weight` is None where what follows has it."""

    weight: Tensor | None
    eps: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Computes (..., H) -> (..., H)."""
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self.eps, length, length, value=1 / states.shape[-1]).rsqrt_()
        normed = states * scale
        return normed if self.weight is None else normed.to(states.dtype).mul_(self.weight)


@dataclass(frozen=True)
class Layer:
    """Is one decoder layer.

    `head_norm` normalises each head of queries and keys; its weight is (heads, D).
    """

    norm: Norm
    qkv: JoinedLinear
    head_norm: Norm | None
    out: JoinedLinear
    mlp_norm: Norm
    gate_up: JoinedLinear
    activation: nn.Module
    down: JoinedLinear
    heads: int
    kv_heads: int
    scaling: float

    def __call__(
        self,
        index: int,
        states: Tensor,
        rotary: tuple[Tensor, Tensor],
        attend: DecodeAttention,
    ) -> Tensor:
        """Computes (B, H) -> (B, H), and keeps the tokens' keys and values; `rotary` is (B, 1, D) twice."""
        mixed = self.qkv(self.norm(states)).view(states.shape[0], self.heads + 2 * self.kv_heads, -1)
        n_rotated = self.heads + self.kv_heads
        rotated, value = mixed[:, :n_rotated], mixed[:, n_rotated:]
        if self.head_norm is not None:
            rotated = self.head_norm(rotated)
        rotated = _rotate(rotated, *rotary)
        query, key = rotated[:, : self.heads], rotated[:, self.heads :]
        found = attend.read_and_write(index, query, key, value, self.scaling)
        states = self.out.added_to(states, found.flatten(1))
        gate, up = self.gate_up(self.mlp_norm(states)).chunk(2, -1)
        return self.down.added_to(states, self.activation(gate).mul_(up))


class LeanDecoder:
    """Holds embedding, layers, norm and output layer of one model."""

    def __init__(self, model: Any) -> None:
        decoder = decoder_of(model)
        self._embed = decoder.embed_tokens
        self._rotary = decoder.rotary_emb
        self._layers = [_layer(layer, decoder.config) for layer in decoder.layers]
        self._norm, self._head = _after_norm(decoder.norm, model.get_output_embeddings())

    def decode(self, cache: SlotCache, step: Step) -> Tensor:
        """Reads each last token, keeps its keys and values, and returns the logits of the next: (B, V)."""
        attend = DecodeAttention(cache, step)
        states = self._embed(step.ids)
        cos, sin = self._rotary(states, step.positions[:, None])
        half = sin.shape[-1] // 2
        sin[..., :half].neg_()
        for i, layer in enumerate(self._layers):
            states = layer(i, states, (cos, sin), attend)
        return self._head(self._norm(states))


def can_be_lean(model: Any) -> bool:
    """Says whether `LeanDecoder` does all that this model does, and its weights are few enough to copy."""
    size = sum(tensor.nbytes for tensor in decoder_of(model).parameters())
    return is_known(model) and size <= MOST_BYTES


def is_known(model: Any) -> bool:
    """Says whether a model is made of plain layers on the CPU, as this module and the kernels expect."""
    decoder = decoder_of(model)
    return (
        type(decoder) in FAMILIES
        and set(getattr(decoder.config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and all(_is_plain(linear) for layer in decoder.layers for linear in linears(layer))
        and _is_plain(model.get_output_embeddings())
        and decoder.embed_tokens.weight.device.type == "cpu"
        and len({tensor.dtype for tensor in decoder.parameters()}) == 1
    )


def _is_plain(linear: Any) -> bool:
    return type(linear) is nn.Linear or (type(linear) is FollowingLinear and linear.branch is None)


def linears(layer: Any) -> list[Any]:
    """Returns the linear layers of queries, keys, values, what is attended to, gate, up and down."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    ]


def _layer(layer: Any, config: Any) -> Layer:
    query, key, value, out, gate, up, down = linears(layer)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_norm = None
    if isinstance(layer.self_attn, Qwen3Attention):
        weights: list[Tensor] = [layer.self_attn.q_norm.weight] * heads
        weights += [layer.self_attn.k_norm.weight] * kv_heads
        head_norm = Norm(torch.stack(weights), _norm(layer.self_attn.q_norm).eps)
    norm, qkv = _after_norm(layer.input_layernorm, query, key, value)
    mlp_norm, gate_up = _after_norm(layer.post_attention_layernorm, gate, up)
    return Layer(
        norm=norm,
        qkv=qkv,
        head_norm=head_norm,
        out=_joined(out),
        mlp_norm=mlp_norm,
        gate_up=gate_up,
        activation=layer.mlp.act_fn,
        down=_joined(down),
        heads=heads,
        kv_heads=kv_heads,
        scaling=layer.self_attn.scaling,
    )


def _norm(module: Any) -> Norm:
    return Norm(module.weight, torch.tensor([module.variance_epsilon]))


def _after_norm(norm: Any, *linears: Any) -> tuple[Norm, JoinedLinear]:
    """Returns a norm and the layers that read it.

    In fp32 these have its weight: in 16 bits that would round.
    """
    if norm.weight.dtype != torch.float32:
        return _norm(norm), _joined(*linears)
    return replace(_norm(norm), weight=None), _joined(*linears, scale=norm.weight)


def _joined(*linears: Any, scale: Tensor | None = None) -> JoinedLinear:
    """Joins layers side by side, each input times `scale`, (inputs,)."""
    joined = torch.cat([linear.weight for linear in linears])
    weight = (joined if scale is None else joined.mul_(scale)).t()
    if weight.dtype == torch.float32:
        weight = weight.contiguous()
    biases = [linear.bias for linear in linears if linear.bias is not None]
    return JoinedLinear(weight, torch.cat(biases) if biases else None)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates by position: (B, heads, D) by (B, 1, D) cosines and sines, the first half of these negated."""
    return (heads * cos).addcmul_(heads.roll(heads.shape[-1] // 2, -1), sin)
