"""What the operations of a decode step compute, in plain tensor operations: on a CPU, and to test against.

Sums and products are taken in fp32 and rounded where the library's modules round. Shapes as in `ops`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_rms_norm(states: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Computes `ops.add_rms_norm`: (B, H) -> (B, H)."""
    if added is not None:
        states.add_(added)
    return _normed(states, weight, eps)


def _normed(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    exact = states.float()
    scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    return weight * (exact * scale).to(states.dtype)


def rotate_and_keep(
    mixed: Tensor,
    query_norm: Tensor | None,
    key_norm: Tensor | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    columns: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
) -> Tensor:
    """Computes `ops.rotate_and_keep`: queries, (B, heads, D)."""
    kv_heads, width = keys.shape[1], keys.shape[3]
    apart = mixed.view(len(mixed), -1, width)
    query, key, value = torch.split(apart, [heads, kv_heads, kv_heads], 1)
    if query_norm is not None and key_norm is not None:
        query, key = _normed(query, query_norm, eps), _normed(key, key_norm, eps)
    rows = torch.arange(len(mixed), device=mixed.device)
    keys[rows, :, columns] = _rotated(key, cos, sin)
    values[rows, :, columns] = value
    return _rotated(query, cos, sin)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, two = heads.float().chunk(2, -1)
    turned = torch.cat([-two, one], -1)
    found = heads.float() * cos[:, None].float() + turned * sin[:, None].float()
    return found.to(heads.dtype)


def gated_silu(gate_up: Tensor) -> Tensor:
    """Computes `ops.gated_silu`: (B, 2 * I) -> (B, I)."""
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def decode_attention(
    query: Tensor,
    prompt_keys: Tensor,
    prompt_values: Tensor,
    keys: Tensor,
    values: Tensor,
    prompt_lengths: Tensor,
    columns: Tensor,
    source: Tensor,
    place: Tensor,
    prompt_width: int,
    width: int,
    scaling: float,
) -> Tensor:
    """Computes `ops.decode_attention`: (B, heads, D) -> (B, heads * D)."""
    rows, heads, D = query.shape
    kv_heads, members = keys.shape[1], len(source) // len(prompt_lengths)
    group = torch.where(source[place] == torch.arange(rows, device=place.device), place // members, -1)
    folded = query.view(rows, kv_heads, heads // kv_heads, D)
    # A spare row has no place of its own, and so no prompt.
    lengths = torch.where(group >= 0, prompt_lengths[group], 0)
    of_prompts = prompt_keys[:, :, :prompt_width][group], prompt_values[:, :, :prompt_width][group]
    of_own = keys[:rows, :, :width], values[:rows, :, :width]
    scores = [
        _scores(folded, of_prompts[0], lengths, scaling),
        _scores(folded, of_own[0], columns + 1, scaling),
    ]
    weights = torch.split(torch.cat(scores, -1).softmax(-1), [prompt_width, width], -1)
    # Columns that are hidden may hold anything.
    values_of_prompts, own_values = (stored[1].float().nan_to_num() for stored in (of_prompts, of_own))
    found = weights[0] @ values_of_prompts + weights[1] @ own_values
    return found.to(query.dtype).view(rows, heads * D)


def _scores(query: Tensor, keys: Tensor, lengths: Tensor, scaling: float) -> Tensor:
    """Computes (rows, kv_heads, folded, D), (rows, kv_heads, S, D) -> (rows, kv_heads, folded, S) in fp32.

    It is -inf beyond each row's length.
    """
    scores = query.float() @ keys.float().transpose(-1, -2) * scaling
    hidden = torch.arange(keys.shape[2], device=lengths.device) >= lengths[:, None]
    return scores.masked_fill(hidden[:, None, None], -torch.inf)
