"""`python -m scripts.gpu.checks.varlen DEVICE`: does attention without masks give what tiles with masks do?

Outputs and gradients in bf16 are compared with the tiles' in fp32, and on a GPU both are timed in bf16. In a
rehearsal on a CPU the calls of the library are their plain twins, which is not timed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from unittest.mock import patch

import torch
from torch import Tensor, nn

from scripts.gpu.checks.warned import show_warnings
from workers.training.passes import packed_attention, varlen_attention
from workers.training.passes.packed_attention import PackedAttention, Segment
from workers.training.passes.varlen_trial import is_right

HEADS = ((14, 2, 64), (28, 4, 128), (16, 8, 128), (32, 8, 80))
"""Heads of queries, of keys, and their width: as in Qwen2.5-0.5B, 7B and Qwen3-0.6B, and an odd one."""
GROUPS = ((300, (256, 1, 0, 90, 256, 17, 200, 64)), (5, (130,)), (128, (128, 128)), (1, (3, 250)))
"""Tokens of prompts and of their completions."""
TOLERANCE = 2e-2
"""The largest difference, relative to the norm. Chosen: rounding to bf16 is 4e-3, a wrong mask makes 1e-1."""
TURNS = 20


def main(device: str) -> int:
    """Prints a line for each shape; returns 1 where one is off or its kernels are refused, else 0."""
    show_warnings()
    wrong = False
    for shape in HEADS:
        found = checked(shape, torch.device(device))
        wrong |= not max(found) <= TOLERANCE
        line = f"heads {shape}: off by {', '.join(f'{off:.1e}' for off in found)} (output, q, k, v)"
        if device == "cuda":
            heads, kv, width = shape
            trusted = is_right(heads, kv, width, width, torch.bfloat16, torch.device(device))
            wrong |= not trusted
            line += f"; {'used' if trusted else 'REFUSED'}; ms forward and backward: {timed(shape)}"
        print(line, flush=True)
    return int(wrong)


def segments() -> list[Segment]:
    """Returns the groups as they lie in a stream."""
    made, start = [], 0
    for prompt, completions in GROUPS:
        made.append(Segment(start, prompt, completions))
        start += prompt + sum(completions)
    return made


def operands(shape: tuple[int, int, int], device: torch.device) -> tuple[Tensor, ...]:
    """Returns random queries, keys, values, (1, heads, N, width) each, and a gradient of the output."""
    heads, kv, width = shape
    n = sum(segment.prompt + sum(segment.completions) for segment in segments())
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, of, n, width, generator=generator) for of in (heads, kv, kv)]
    gradient = torch.randn(1, n, heads, width, generator=generator)
    return tuple(tensor.to(device, torch.bfloat16) for tensor in (*made, gradient))


def checked(shape: tuple[int, int, int], device: torch.device) -> list[float]:
    """Returns how far output and gradients are from the tiles' in fp32, relative to their norms."""
    *inputs, gradient = operands(shape, device)
    layout = varlen_attention.make_layout(segments(), device)

    def without_masks(*given: Tensor) -> Tensor:
        query, key, value = (tensor[0].transpose(0, 1) for tensor in given)
        return varlen_attention.attend(query, key, value, layout, shape[-1] ** -0.5)[None]

    by_tiles = PackedAttention(segments(), device)
    found = slopes(without_masks, inputs, gradient)
    exact = slopes(
        lambda q, k, v: by_tiles(nn.Module(), q, k, v, None), [x.float() for x in inputs], gradient.float()
    )
    return [float((a.float() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)]


def slopes(call: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: Tensor) -> list[Tensor]:
    """Returns the output and the gradients of its inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = call(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient)]


def timed(shape: tuple[int, int, int]) -> str:
    """Times both ways of a training pass's attention on a GPU."""
    *inputs, gradient = operands(shape, torch.device("cuda"))
    packed = PackedAttention(segments(), torch.device("cuda"))

    def run() -> float:
        for turn in range(TURNS + 1):
            if turn == 1:  # the first one warms up
                torch.cuda.synchronize()
                began = time.perf_counter()
            slopes(lambda q, k, v: packed(nn.Module(), q, k, v, None), inputs, gradient)
        torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began) / TURNS

    without_masks = run()
    with patch.object(packed_attention, "_has_varlen", lambda *_: False):
        return f"{without_masks:.2f}, by tiles {run():.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
