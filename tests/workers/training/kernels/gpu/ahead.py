"""Compiles the Triton kernels to machine code without a GPU, as a first call on one would."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from workers.training.kernels.gpu import triton_attention, triton_rows
from workers.training.kernels.gpu.trial import Widths

POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
INDEXES = ("columns", "lengths", "source", "place")
EXACT = ("partial", "sums")
NUMBERS = ("eps", "scale")


class Compiled(NamedTuple):
    """Is what came of one kernel: its name, its machine code, and the shared memory of a block, bytes."""

    name: str
    machine_code: bytes
    shared: int


def compile_kernel(
    kernel: Any, constants: dict[str, Any], dtype: torch.dtype, capability: int, **options: int
) -> Compiled:
    """Compiles a kernel for a compute capability, with strides and addresses that are multiples of 16.

    Raises Triton's or the assembler's error where it does not compile.
    """
    names = kernel.arg_names
    pointers = dict.fromkeys(INDEXES, "*i64") | dict.fromkeys(EXACT, "*fp32")
    kinds: dict[str, str] = {}
    for name in names:
        if name in constants:
            kinds[name] = "constexpr"
        elif name in NUMBERS:
            kinds[name] = "fp32"
        elif name in pointers:
            kinds[name] = pointers[name]
        elif name.endswith(("_stride", "_slot", "_head", "_column", "_split", "_splits", "_programs")):
            kinds[name] = "i32"
        else:
            kinds[name] = "i32" if name in ("width", "members") else POINTERS[dtype]
    aligned = [
        name
        for name, kind in kinds.items()
        if kind.startswith("*") or name.endswith(("_stride", "_slot", "_head", "_column"))
    ]
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return Compiled(kernel.__name__, found.asm["cubin"], found.metadata.shared)


def compile_all(widths: Widths, members: int, dtype: torch.dtype, capability: int) -> list[Compiled]:
    """Compiles all kernels for a model's widths and so many completions of a prompt."""
    heads, kv_heads, width, hidden, _ = widths
    blocks = triton_attention.blocks_for(members, heads // kv_heads, width, dtype.itemsize)
    norm = triton.next_power_of_2(hidden)
    rotated = {
        "HEADS": heads,
        "KV_HEADS": kv_heads,
        "WIDTH": width,
        "BLOCK": triton.next_power_of_2(width // 2),
    }
    attended = {
        "FOLDED": heads // kv_heads,
        "KV_HEADS": kv_heads,
        "WIDTH": width,
        "PROMPT_ROWS": blocks.prompt_rows,
        "OWN_ROWS": blocks.own_rows,
        "BLOCK_COLUMNS": blocks.columns,
        "BLOCK_WIDTH": blocks.width,
    }
    merged = {
        "HEADS": heads,
        "WIDTH": width,
        "BLOCK_COLUMNS": blocks.columns,
        "BLOCK_SPLITS": 64,
        "BLOCK_WIDTH": blocks.width,
    }
    rows, attention = triton_rows, triton_attention
    warps = rows.norm_warps(norm)
    cases: list[tuple[Any, dict[str, Any], dict[str, int]]] = [
        (rows.add_rms_norm_kernel, {"HAS_ADDED": True, "BLOCK": norm}, {"num_warps": warps}),
        (rows.add_rms_norm_kernel, {"HAS_ADDED": False, "BLOCK": norm}, {"num_warps": warps}),
        (rows.rotate_and_keep_kernel, {**rotated, "HAS_NORM": True}, {"num_warps": 1}),
        (rows.rotate_and_keep_kernel, {**rotated, "HAS_NORM": False}, {"num_warps": 1}),
        (rows.gated_silu_kernel, {"BLOCK": rows.GATE_BLOCK}, {"num_warps": 4}),
        (attention.attend_kernel, attended, {"num_warps": 4, "num_stages": blocks.stages}),
        (attention.merge_kernel, merged, {"num_warps": 1}),
    ]
    return [
        compile_kernel(kernel, constants, dtype, capability, **options)
        for kernel, constants, options in cases
    ]
