"""A decoder's forward over a packed stream in fewer passes over memory, for Llama and Qwen in fp32 on a CPU.

Half of a small model's training pass is not products but what lies between them, and the library's modules
read and write the states for each tensor operation of it. Here

* norm, rotary embedding and gate are one compiled kernel each, forward and backward (fused_nodes.py);
* LoRA layers with the same input share a node (`merged_lora.side_by_side`);
* the last layer's output projection and MLP run for the tokens that predict something, and for no others.

The weights and linear layers are those of the model's own modules. A model that has anything else about it
(another family or dtype, hooks, a replaced `forward`) runs by its modules, and so does one whose states come
out differently in a small trial (forward.py).

N tokens of the stream, H wide states, heads of D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from workers.training.model.attention import Attend
from workers.training.model.merged_lora import side_by_side
from workers.training.model.recompute import is_recomputed, recomputed
from workers.training.passes.fused_nodes import add_and_norm, gated, norm, rotate
from workers.training.passes.packing import Batch

FAMILIES = (llama.LlamaModel, qwen2.Qwen2Model, qwen3.Qwen3Model)
KNOWN = (
    *FAMILIES,
    *(llama.LlamaDecoderLayer, llama.LlamaAttention, llama.LlamaMLP, llama.LlamaRMSNorm),
    *(qwen2.Qwen2DecoderLayer, qwen2.Qwen2Attention, qwen2.Qwen2MLP, qwen2.Qwen2RMSNorm),
    *(qwen3.Qwen3DecoderLayer, qwen3.Qwen3Attention, qwen3.Qwen3MLP, qwen3.Qwen3RMSNorm),
    *(llama.LlamaRotaryEmbedding, qwen2.Qwen2RotaryEmbedding, qwen3.Qwen3RotaryEmbedding),
    *(nn.Embedding, nn.ModuleList),
)


def is_known(decoder: Any) -> bool:
    """Says whether the decoder, as it is at this moment, is one that `fused_states` knows by heart."""
    return (
        type(decoder) in FAMILIES
        and not torch.is_autocast_enabled("cpu")
        and set(getattr(decoder.config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and all(_is_untouched(module) for module in _own_modules(decoder))
    )


def fused_states(decoder: Any, batch: Batch, attend: Attend) -> Tensor:
    """Returns the states that predict each completion token, (N, H), after the decoder's last norm."""
    states = decoder.embed_tokens(batch.token_ids[0])
    cos, sin = (operand[0] for operand in decoder.rotary_emb(states, position_ids=batch.positions))
    half = sin.shape[-1] // 2
    rotary = cos.contiguous(), torch.cat((-sin[:, :half], sin[:, half:]), -1)
    read, place = batch.read
    for layer in decoder.layers:
        wanted = read if layer is decoder.layers[-1] else None
        if is_recomputed(layer):
            states = recomputed(_layer, layer, states, rotary, attend, wanted)
        else:
            states = _layer(layer, states, rotary, attend, wanted)
    return norm(decoder.norm, states).index_select(0, place)


def _layer(
    layer: Any, states: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend, read: Tensor | None
) -> Tensor:
    """Runs one decoder layer, (N, H) -> (N, H).

    If `read` is given, it runs for the tokens in it alone: the others give their keys and values.
    """
    module, mlp = layer.self_attn, layer.mlp
    normed = norm(layer.input_layernorm, states)
    query, key, value = side_by_side((module.q_proj, module.k_proj, module.v_proj), normed)
    if isinstance(module, qwen3.Qwen3Attention):
        query, key = _norm_heads(module.q_norm, query), _norm_heads(module.k_norm, key)
    operands = rotate(query, *rotary), rotate(key, *rotary), value
    query, key, value = (
        operand.view(1, len(operand), -1, module.head_dim).transpose(1, 2) for operand in operands
    )
    mixed = attend(module, query, key, value, module.scaling)[0].flatten(1)
    if read is not None:
        mixed, states = mixed.index_select(0, read), states.index_select(0, read)
    states, normed = add_and_norm(layer.post_attention_layernorm, states, module.o_proj(mixed))
    gate, up = side_by_side((mlp.gate_proj, mlp.up_proj), normed)
    moved: Tensor = mlp.down_proj(_gated(mlp.act_fn, gate, up))
    return states + moved


def _norm_heads(module: Any, heads: Tensor) -> Tensor:
    """Normalises each head by itself: (N, heads * D) -> (N, heads * D)."""
    return norm(module, heads.view(len(heads), -1, module.weight.shape[0])).view(heads.shape)


def _gated(activation: nn.Module, gate: Tensor, up: Tensor) -> Tensor:
    if isinstance(activation, SiLUActivation):
        return gated(gate, up)
    found: Tensor = activation(gate) * up
    return found


def _own_modules(decoder: Any) -> list[nn.Module]:
    """Returns all modules of the decoder but its linear layers, which are called as they are."""
    found: list[nn.Module] = [decoder, decoder.embed_tokens, decoder.norm, decoder.rotary_emb, decoder.layers]
    for layer in decoder.layers:
        found += [layer, layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm]
        if isinstance(layer.self_attn, qwen3.Qwen3Attention):
            found += [layer.self_attn.q_norm, layer.self_attn.k_norm]
    return found


def _is_untouched(module: nn.Module) -> bool:
    weights = module.parameters(recurse=False)
    return (
        type(module) in KNOWN
        and ("forward" not in vars(module) or is_recomputed(module))
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and all(
            type(w) is nn.Parameter and w.dtype == torch.float32 and w.device.type == "cpu" for w in weights
        )
    )
