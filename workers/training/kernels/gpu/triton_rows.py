"""Triton kernels over the rows of a decode step: norm, rotation and gate, each one pass over memory.

They round where the library's modules do, so that both compute the same numbers but for the order of sums.
Shapes: B rows, H wide states, heads of D each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

GATE_BLOCK = 1024
"""Numbers of a row that one program gates. Chosen: eight for each of 128 threads."""


@triton.jit
def add_rms_norm_kernel(  # type: ignore[no-untyped-def]
    states,
    added,
    weight,
    normed,
    states_stride,
    added_stride,
    width,
    eps,
    HAS_ADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds to one row of states and normalises it."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    given = tl.load(states + row * states_stride + at, mask=inside, other=0.0)
    if HAS_ADDED:
        more = tl.load(added + row * added_stride + at, mask=inside, other=0.0)
        given = (given.to(tl.float32) + more.to(tl.float32)).to(given.dtype)
        tl.store(states + row * states_stride + at, given, mask=inside)
    exact = given.to(tl.float32)
    scale = tl.math.rsqrt(tl.sum(exact * exact, 0) / width + eps)
    rounded = (exact * scale).to(given.dtype).to(tl.float32)
    scaled = rounded * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * width + at, scaled.to(given.dtype), mask=inside)


@triton.jit
def rotate_and_keep_kernel(  # type: ignore[no-untyped-def]
    mixed,
    query_norm,
    key_norm,
    cos,
    sin,
    columns,
    query,
    keys,
    values,
    mixed_stride,
    cos_stride,
    keys_slot,
    keys_head,
    keys_column,
    values_slot,
    values_head,
    values_column,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    HAS_NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Does one head of one row: a query's is rotated, a key's rotated and kept, a value's kept."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    HALF: tl.constexpr = WIDTH // 2
    at = tl.arange(0, BLOCK)
    inside = at < HALF
    given = mixed + row * mixed_stride + head * WIDTH + at
    first = tl.load(given, mask=inside, other=0.0)
    second = tl.load(given + HALF, mask=inside, other=0.0)
    column = tl.load(columns + row).to(tl.int64)
    if head >= HEADS + KV_HEADS:
        to = (
            values + row * values_slot + (head - HEADS - KV_HEADS) * values_head + column * values_column + at
        )
        tl.store(to, first, mask=inside)
        tl.store(to + HALF, second, mask=inside)
    else:
        dtype = first.dtype
        one, two = first.to(tl.float32), second.to(tl.float32)
        if HAS_NORM:
            scale = tl.math.rsqrt(tl.sum(one * one + two * two, 0) / WIDTH + eps)
            is_query = head < HEADS
            in_query, in_key = inside & is_query, inside & (head >= HEADS)
            weight_one = tl.load(query_norm + at, mask=in_query, other=0.0).to(tl.float32)
            weight_one += tl.load(key_norm + at, mask=in_key, other=0.0).to(tl.float32)
            weight_two = tl.load(query_norm + HALF + at, mask=in_query, other=0.0).to(tl.float32)
            weight_two += tl.load(key_norm + HALF + at, mask=in_key, other=0.0).to(tl.float32)
            one = ((one * scale).to(dtype).to(tl.float32) * weight_one).to(dtype).to(tl.float32)
            two = ((two * scale).to(dtype).to(tl.float32) * weight_two).to(dtype).to(tl.float32)
        angles = row * cos_stride + at
        cos_one = tl.load(cos + angles, mask=inside, other=0.0).to(tl.float32)
        cos_two = tl.load(cos + angles + HALF, mask=inside, other=0.0).to(tl.float32)
        sin_one = tl.load(sin + angles, mask=inside, other=0.0).to(tl.float32)
        sin_two = tl.load(sin + angles + HALF, mask=inside, other=0.0).to(tl.float32)
        rotated_one = (one * cos_one - two * sin_one).to(dtype)
        rotated_two = (two * cos_two + one * sin_two).to(dtype)
        if head < HEADS:
            to = query + (row * HEADS + head) * WIDTH + at
            tl.store(to, rotated_one, mask=inside)
            tl.store(to + HALF, rotated_two, mask=inside)
        else:
            to = keys + row * keys_slot + (head - HEADS) * keys_head + column * keys_column + at
            tl.store(to, rotated_one, mask=inside)
            tl.store(to + HALF, rotated_two, mask=inside)


@triton.jit
def gated_silu_kernel(  # type: ignore[no-untyped-def]
    gate_up,
    out,
    gate_up_stride,
    width,
    BLOCK: tl.constexpr,
):
    """Gates one block of one row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    given = gate_up + row * gate_up_stride + at
    gate = tl.load(given, mask=inside, other=0.0)
    up = tl.load(given + width, mask=inside, other=0.0).to(tl.float32)
    exact = gate.to(tl.float32)
    opened = (exact / (1.0 + tl.exp(-exact))).to(gate.dtype).to(tl.float32)
    tl.store(out + row * width + at, (opened * up).to(gate.dtype), mask=inside)


def add_rms_norm(states: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Computes `ops.add_rms_norm` by one kernel: (B, H) -> (B, H)."""
    rows, width = states.shape
    normed = states.new_empty(states.shape)
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(states):
        add_rms_norm_kernel[(rows,)](
            states,
            states if added is None else added,
            weight,
            normed,
            states.stride(0),
            0 if added is None else added.stride(0),
            width,
            eps,
            HAS_ADDED=added is not None,
            BLOCK=block,
            num_warps=norm_warps(block),
        )
    return normed


def norm_warps(block: int) -> int:
    """Returns how many warps normalise a row: eight numbers a thread, from 1 to 16 warps."""
    return max(1, min(16, block // 256))


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
    """Computes `ops.rotate_and_keep` by one kernel: queries, (B, heads, D)."""
    rows, kv_heads, width = len(mixed), keys.shape[1], keys.shape[3]
    query = mixed.new_empty(rows, heads, width)
    with torch.cuda.device_of(mixed):
        rotate_and_keep_kernel[(rows, heads + 2 * kv_heads)](
            mixed,
            mixed if query_norm is None else query_norm,
            mixed if key_norm is None else key_norm,
            cos,
            sin,
            columns,
            query,
            keys,
            values,
            mixed.stride(0),
            cos.stride(0),
            *keys.stride()[:3],
            *values.stride()[:3],
            eps,
            HEADS=heads,
            KV_HEADS=kv_heads,
            WIDTH=width,
            HAS_NORM=query_norm is not None,
            BLOCK=triton.next_power_of_2(width // 2),
            num_warps=1,
        )
    return query


def gated_silu(gate_up: Tensor) -> Tensor:
    """Computes `ops.gated_silu` by one kernel."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    with torch.cuda.device_of(gate_up):
        gated_silu_kernel[(rows, triton.cdiv(width, GATE_BLOCK))](
            gate_up, out, gate_up.stride(0), width, BLOCK=GATE_BLOCK, num_warps=4
        )
    return out
