"""A decode step's attention in two Triton kernels: over parts of the columns, and their sum.

The first computes, for a prompt, all completions of its group together, so that its keys and values are read
once (Hydragen, arXiv:2402.05099); for a completion's own columns, all query heads of one head of keys. Long
contexts are shared out among programs (flash-decoding, arXiv:2311.01282). Lengths are read on the device: the
grid depends on shapes alone, so both can be replayed as a CUDA graph. Shapes as in `ops.decode_attention`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_SPLITS = 32
"""The most parts that columns are cut into. Chosen: then summing them up reads less than the keys."""
PROGRAMS_A_PROCESSOR = 2
"""Programs for each multiprocessor from which columns are not cut. Chosen: two fit beside each other."""
LOG2_E = 1.4426950408889634
"""The logarithm of e to base 2: it follows from that that exp(x) is exp2(x * LOG2_E), one instruction."""


@triton.jit
def _columns_of(length, splits, split, BLOCK_COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns where a split's columns, which are whole blocks, begin and end; it may have none."""
    each = tl.cdiv(tl.cdiv(length, splits), BLOCK_COLUMNS) * BLOCK_COLUMNS
    first = tl.minimum(split * each, length)
    return first, tl.minimum(first + each, length)


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    query_at,
    is_row,
    keys,
    values,
    key_column,
    value_column,
    first,
    last,
    partial_at,
    sum_at,
    scale,
    WIDTH: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Attends with a block of rows to the columns first..last of one head; scale is of powers of 2."""
    wide = tl.arange(0, BLOCK_WIDTH)
    is_wide = wide < WIDTH
    query = tl.load(query_at[:, None] + wide[None, :], mask=is_row[:, None] & is_wide[None, :], other=0.0)
    most = tl.full([BLOCK_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    found = tl.zeros([BLOCK_ROWS, BLOCK_WIDTH], tl.float32)
    for start in range(first, last, BLOCK_COLUMNS):
        column = start + tl.arange(0, BLOCK_COLUMNS)
        is_seen = column < last
        key = tl.load(
            keys + column[None, :] * key_column + wide[:, None],
            mask=is_seen[None, :] & is_wide[:, None],
            other=0.0,
        )
        scores = tl.dot(query, key, input_precision="ieee") * scale
        scores = tl.where(is_seen[None, :], scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        lost = tl.exp2(most - higher)
        total = total * lost + tl.sum(weights, 1)
        value = tl.load(
            values + column[:, None] * value_column + wide[None, :],
            mask=is_seen[:, None] & is_wide[None, :],
            other=0.0,
        )
        found = found * lost[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        most = higher
    is_found = is_row & (first < last)
    total = tl.where(is_found, total, 1.0)
    tl.store(
        partial_at[:, None] + wide[None, :],
        found / total[:, None],
        mask=is_found[:, None] & is_wide[None, :],
    )
    tl.store(sum_at, most + tl.log2(total), mask=is_found)


@triton.jit(do_not_specialize=["n_prompt_programs", "prompt_splits", "own_splits", "members"])
def attend_kernel(  # type: ignore[no-untyped-def]
    query,
    prompt_keys,
    prompt_values,
    keys,
    values,
    lengths,
    columns,
    source,
    place,
    partial,
    sums,
    n_prompt_programs,
    prompt_splits,
    own_splits,
    members,
    prompt_key_slot,
    prompt_key_head,
    prompt_key_column,
    prompt_value_slot,
    prompt_value_head,
    prompt_value_column,
    key_slot,
    key_head,
    key_column,
    value_slot,
    value_head,
    value_column,
    sums_split,
    scale,
    FOLDED: tl.constexpr,
    KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PROMPT_ROWS: tl.constexpr,
    OWN_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Attends to a part of one prompt or of one completion's own columns, with a block of rows."""
    HEADS: tl.constexpr = FOLDED * KV_HEADS
    program = tl.program_id(0)
    if program < n_prompt_programs:
        blocks = tl.cdiv(members * FOLDED, PROMPT_ROWS)
        row = (program % blocks) * PROMPT_ROWS + tl.arange(0, PROMPT_ROWS)
        rest = program // blocks
        split = rest % prompt_splits
        rest = rest // prompt_splits
        kv_head = rest % KV_HEADS
        slot = (rest // KV_HEADS).to(tl.int64)
        member = row // FOLDED
        spot = slot * members + member
        completion = tl.load(source + spot, mask=member < members, other=0)
        # An empty place names any completion; that one's own place is another.
        is_row = tl.load(place + completion, mask=member < members, other=-1) == spot
        length = tl.where(tl.max(is_row.to(tl.int32), 0) > 0, tl.load(lengths + slot), 0).to(tl.int32)
        first, last = _columns_of(length, prompt_splits, split, BLOCK_COLUMNS)
        head = completion * HEADS + kv_head * FOLDED + row % FOLDED
        at = split * sums_split.to(tl.int64) + head
        _attend(
            query + head * WIDTH,
            is_row,
            prompt_keys + slot * prompt_key_slot + kv_head * prompt_key_head,
            prompt_values + slot * prompt_value_slot + kv_head * prompt_value_head,
            prompt_key_column,
            prompt_value_column,
            first,
            last,
            partial + at * WIDTH,
            sums + at,
            scale,
            WIDTH,
            PROMPT_ROWS,
            BLOCK_COLUMNS,
            BLOCK_WIDTH,
        )
    else:
        # No name of the other branch: the compiler would want it to be of one type.
        OWN_BLOCKS: tl.constexpr = (FOLDED + OWN_ROWS - 1) // OWN_ROWS
        own = program - n_prompt_programs
        own_row = (own % OWN_BLOCKS) * OWN_ROWS + tl.arange(0, OWN_ROWS)
        own_split = own // OWN_BLOCKS % own_splits
        own_rest = own // OWN_BLOCKS // own_splits
        own_head = own_rest % KV_HEADS
        own_slot = (own_rest // KV_HEADS).to(tl.int64)
        own_length = (tl.load(columns + own_slot) + 1).to(tl.int32)
        own_first, own_last = _columns_of(own_length, own_splits, own_split, BLOCK_COLUMNS)
        query_head = own_slot * HEADS + own_head * FOLDED + own_row
        own_at = (prompt_splits + own_split) * sums_split.to(tl.int64) + query_head
        _attend(
            query + query_head * WIDTH,
            own_row < FOLDED,
            keys + own_slot * key_slot + own_head * key_head,
            values + own_slot * value_slot + own_head * value_head,
            key_column,
            value_column,
            own_first,
            own_last,
            partial + own_at * WIDTH,
            sums + own_at,
            scale,
            WIDTH,
            OWN_ROWS,
            BLOCK_COLUMNS,
            BLOCK_WIDTH,
        )


@triton.jit(do_not_specialize=["prompt_splits", "own_splits", "members"])
def merge_kernel(  # type: ignore[no-untyped-def]
    partial,
    sums,
    lengths,
    columns,
    source,
    place,
    out,
    prompt_splits,
    own_splits,
    members,
    sums_split,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Puts the parts of one head of one row together, by their log-sum-exp."""
    row = tl.program_id(0).to(tl.int64)
    at = row * HEADS + tl.program_id(1)
    spot = tl.load(place + row)
    # A spare row has no place of its own, and so no prompt.
    has_prompt = tl.load(source + spot) == row
    prompt_length = tl.where(has_prompt, tl.load(lengths + spot // members), 0).to(tl.int32)
    own_length = (tl.load(columns + row) + 1).to(tl.int32)
    split = tl.arange(0, BLOCK_SPLITS)
    prompt_first, prompt_last = _columns_of(prompt_length, prompt_splits, split, BLOCK_COLUMNS)
    own_first, own_last = _columns_of(own_length, own_splits, split - prompt_splits, BLOCK_COLUMNS)
    of_prompt = (split < prompt_splits) & (prompt_first < prompt_last)
    of_own = (split >= prompt_splits) & (split < prompt_splits + own_splits) & (own_first < own_last)
    is_found = of_prompt | of_own
    part = split * sums_split.to(tl.int64) + at
    weights = tl.load(sums + part, mask=is_found, other=float("-inf"))
    weights = tl.exp2(weights - tl.max(weights, 0))
    weights = weights / tl.sum(weights, 0)
    wide = tl.arange(0, BLOCK_WIDTH)
    is_wide = wide < WIDTH
    parts = tl.load(
        partial + part[:, None] * WIDTH + wide[None, :],
        mask=is_found[:, None] & is_wide[None, :],
        other=0.0,
    )
    found = tl.sum(weights[:, None] * parts, 0)
    tl.store(out + at * WIDTH + wide, found.to(out.dtype.element_ty), mask=is_wide)


class Blocks(NamedTuple):
    """Says how much one program of `attend_kernel` works on."""

    prompt_rows: int
    own_rows: int
    columns: int
    width: int
    stages: int
    """Loads under way at once."""


def blocks_for(members: int, folded: int, width: int, element_size: int) -> Blocks:
    """Returns blocks whose tiles fit in 96 KiB of shared memory, the least that GPUs since 2020 have.

    A product needs at least 16 rows, and columns, and width.
    """
    block_width = max(16, triton.next_power_of_2(width))
    bytes_wide = element_size * block_width
    most_rows = 64 if element_size == 2 and bytes_wide <= 256 else 32 if bytes_wide <= 512 else 16
    return Blocks(
        prompt_rows=max(16, min(most_rows, triton.next_power_of_2(members * folded))),
        own_rows=max(16, min(most_rows, triton.next_power_of_2(folded))),
        columns=max(16, min(64, 16384 // (element_size * block_width))),
        width=block_width,
        stages=2,
    )


def splits_for(programs: int, columns: int, block_columns: int, processors: int) -> int:
    """Returns into how many parts so many columns are cut, where so many programs would read them uncut."""
    wanted = triton.cdiv(PROGRAMS_A_PROCESSOR * processors, programs)
    return int(max(1, min(wanted, triton.cdiv(columns, block_columns), MOST_SPLITS)))


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


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
    processors: int | None = None,
) -> Tensor:
    """Computes `ops.decode_attention` by two kernels: (B, heads, D) -> (B, heads * D).

    Args:
        processors: multiprocessors of the GPU; by default it is asked.
    """
    rows, heads, D = query.shape
    kv_heads, groups = keys.shape[1], len(prompt_lengths)
    folded, members = heads // kv_heads, len(source) // groups
    blocks = blocks_for(members, folded, D, query.element_size())
    row_blocks = triton.cdiv(members * folded, blocks.prompt_rows)
    own_blocks = triton.cdiv(folded, blocks.own_rows)
    processors = processors or _processors(query.device)
    prompt_programs, own_programs = groups * kv_heads * row_blocks, rows * kv_heads * own_blocks
    prompt_splits = splits_for(prompt_programs, prompt_width, blocks.columns, processors)
    own_splits = splits_for(own_programs, width, blocks.columns, processors)
    n_prompt_programs = prompt_programs * prompt_splits
    splits = prompt_splits + own_splits
    partial = torch.empty(splits, rows, heads, D, dtype=torch.float32, device=query.device)
    sums = torch.empty(splits, rows, heads, dtype=torch.float32, device=query.device)
    out = query.new_empty(rows, heads * D)
    with torch.cuda.device_of(query):
        attend_kernel[(n_prompt_programs + own_programs * own_splits,)](
            query,
            prompt_keys,
            prompt_values,
            keys,
            values,
            prompt_lengths,
            columns,
            source,
            place,
            partial,
            sums,
            n_prompt_programs,
            prompt_splits,
            own_splits,
            members,
            *prompt_keys.stride()[:3],
            *prompt_values.stride()[:3],
            *keys.stride()[:3],
            *values.stride()[:3],
            sums.stride(0),
            scaling * LOG2_E,
            FOLDED=folded,
            KV_HEADS=kv_heads,
            WIDTH=D,
            PROMPT_ROWS=blocks.prompt_rows,
            OWN_ROWS=blocks.own_rows,
            BLOCK_COLUMNS=blocks.columns,
            BLOCK_WIDTH=blocks.width,
            num_warps=4,
            num_stages=blocks.stages,
        )
        merge_kernel[(rows, heads)](
            partial,
            sums,
            prompt_lengths,
            columns,
            source,
            place,
            out,
            prompt_splits,
            own_splits,
            members,
            sums.stride(0),
            HEADS=heads,
            WIDTH=D,
            BLOCK_COLUMNS=blocks.columns,
            BLOCK_SPLITS=triton.next_power_of_2(splits),
            BLOCK_WIDTH=blocks.width,
            num_warps=1,
        )
    return out
