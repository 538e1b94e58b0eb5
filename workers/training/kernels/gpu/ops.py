"""The operations of a decode step on a GPU, as operations of torch: `torch.ops.cherry`.

Each is one call: by Triton on a GPU, where it can be captured in a CUDA graph, and by plain tensor operations
(`plain`) elsewhere. They change the tensors that are named so and no others; none has a gradient.

Shapes: B rows (completions), H wide states, heads = kv_heads * folded heads of D, n prompts, M places for
completions of one prompt. The last dimension of every tensor is contiguous, and all of a cache's is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.training.kernels.gpu import plain


@torch.library.custom_op("cherry::add_rms_norm", mutates_args=("states",))
def add_rms_norm(states: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Adds to the states, in place, and returns them normalised by their root mean square: (B, H).

    Args:
        states: (B, H).
        added: (B, H), or None for nothing.
        weight: (H,).
    """
    return plain.add_rms_norm(states, added, weight, eps)


@add_rms_norm.register_fake
def _(states: Tensor, _added: Tensor | None, _weight: Tensor, _eps: float) -> Tensor:
    return torch.empty_like(states, memory_format=torch.contiguous_format)


@add_rms_norm.register_kernel("cuda")
def _(states: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    from workers.training.kernels.gpu import triton_rows

    return triton_rows.add_rms_norm(states, added, weight, eps)


@torch.library.custom_op("cherry::rotate_and_keep", mutates_args=("keys", "values"))
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
    """Normalises and rotates each head of queries and keys, keeps keys and values, and returns the queries.

    Args:
        mixed: (B, (heads + 2 * kv_heads) * D) queries, keys and values.
        query_norm, key_norm: (D,) weights of a norm of each head; both None where there is none.
        cos, sin: (B, D).
        columns: (B,) where a row's keys and values are kept.
        keys, values: (slots, kv_heads, columns, D), row b's in slot b.

    Returns:
        (B, heads, D).
    """
    return plain.rotate_and_keep(mixed, query_norm, key_norm, eps, cos, sin, columns, keys, values, heads)


@rotate_and_keep.register_fake
def _(
    mixed: Tensor,
    _query_norm: Tensor | None,
    _key_norm: Tensor | None,
    _eps: float,
    _cos: Tensor,
    _sin: Tensor,
    _columns: Tensor,
    keys: Tensor,
    _values: Tensor,
    heads: int,
) -> Tensor:
    return mixed.new_empty(mixed.shape[0], heads, keys.shape[3])


@rotate_and_keep.register_kernel("cuda")
def _(
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
    from workers.training.kernels.gpu import triton_rows

    return triton_rows.rotate_and_keep(
        mixed, query_norm, key_norm, eps, cos, sin, columns, keys, values, heads
    )


@torch.library.custom_op("cherry::gated_silu", mutates_args=())
def gated_silu(gate_up: Tensor) -> Tensor:
    """Computes silu(gate) * up of both side by side: (B, 2 * I) -> (B, I)."""
    return plain.gated_silu(gate_up)


@gated_silu.register_fake
def _(gate_up: Tensor) -> Tensor:
    return gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)


@gated_silu.register_kernel("cuda")
def _(gate_up: Tensor) -> Tensor:
    from workers.training.kernels.gpu import triton_rows

    return triton_rows.gated_silu(gate_up)


@torch.library.custom_op("cherry::decode_attention", mutates_args=())
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
    """Attends with one token of each row to its prompt and to its own columns.

    A row whose place names another row is spare: it attends to its own columns alone.

    Args:
        query: (B, heads, D).
        prompt_keys, prompt_values: (slots, kv_heads, columns, D), prompt i's in slot i.
        keys, values: (slots, kv_heads, columns, D), row b's in slot b.
        prompt_lengths: (n,) tokens of each prompt.
        columns: (B,) the last column of each row.
        source: (n * M,) the row in each place of each prompt, any for an empty place.
        place: (B,) where each row is found in `source`.
        prompt_width, width: no prompt and no row has more columns.

    Returns:
        (B, heads * D).
    """
    return plain.decode_attention(
        query,
        prompt_keys,
        prompt_values,
        keys,
        values,
        prompt_lengths,
        columns,
        source,
        place,
        prompt_width,
        width,
        scaling,
    )


@decode_attention.register_fake
def _(query: Tensor, *_: Tensor | float) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1] * query.shape[2])


@decode_attention.register_kernel("cuda")
def _(
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
    from workers.training.kernels.gpu import triton_attention

    return triton_attention.decode_attention(
        query,
        prompt_keys,
        prompt_values,
        keys,
        values,
        prompt_lengths,
        columns,
        source,
        place,
        prompt_width,
        width,
        scaling,
    )
