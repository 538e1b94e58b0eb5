"""`python -m scripts.gpu.checks.decode DEVICE FOLDER`: does the lean decode step give what the modules do?

On a GPU its operations are Triton's. On a CPU, in a rehearsal, they are their plain twins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from benchmarks.gpu_counts.models import config_of, make_model, moved_policy
from scripts.gpu.checks.warned import show_warnings
from workers.training.model import attention
from workers.training.sampling.decode_attention import decode, prefill
from workers.training.sampling.decode_step import ActiveRows, exact_step
from workers.training.sampling.decoders import CacheSize, slot_cache
from workers.training.sampling.graphed.gpu_decoder import DecodeStep, step_function

FAMILIES: tuple[tuple[Any, Any, dict[str, int]], ...] = (
    (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"hidden_size": 896, "num_attention_heads": 14, "num_key_value_heads": 2},
    ),
    (
        Qwen3Config,
        Qwen3ForCausalLM,
        {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    ),
    (
        LlamaConfig,
        LlamaForCausalLM,
        {"hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8},
    ),
)
"""As wide as Qwen2.5-0.5B, Qwen3-0.6B and Llama-3.2-1B, and two layers deep."""
VOCABULARY, PROMPT = 512, 200
ROWS = ActiveRows(
    group=np.array([2, 0, 0, 1]), counts=np.array([1, 1, 1, 1]), prompt_lengths=np.array([90, 1, PROMPT])
)
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""The largest difference of logits, relative to their norm. Measured on a CPU: 1e-6, and 3.4e-2 in bf16. On a
GPU fp32 may go by TF32. A wrong kernel is off by a tenth at least."""


def main(device: str, folder: Path) -> int:
    """Prints a line for each model; returns 1 where one is off or, on a GPU, decoded by modules; else 0."""
    show_warnings()
    wrong = False
    for label, model in models(torch.device(device), folder):
        function = step_function(model)
        is_lean = hasattr(function, "decoder")
        found, expected = one_step(model, function), one_step(model, partial(decode, model))
        off = float((found - expected).norm() / expected.norm())
        wrong |= not off <= TOLERANCE[model.dtype] or not is_lean
        print(f"{label}: {'own operations' if is_lean else 'BY MODULES'}, off by {off:.1e}", flush=True)
    return int(wrong)


def models(device: torch.device, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yields models by name, the last with an adapter that stays beside its 16-bit base."""
    for config, family, widths in FAMILIES:
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            shape = {"num_hidden_layers": 2, "intermediate_size": 1536, "vocab_size": VOCABULARY}
            model: Any = family(config(**widths, **shape, initializer_range=0.1))
            model.set_attn_implementation("eager")
            model = model.to(device, dtype).eval()
            attention.adopt(model)
            yield f"{family.__name__} {dtype}", model
    policy = moved_policy(config_of(make_model(folder, 2), device=device.type))
    yield "Qwen2 with an adapter beside", policy.rollout_model


@torch.no_grad()
def one_step(model: Any, function: DecodeStep) -> Tensor:
    """Reads three prompts and decodes a step of four rows; returns its logits, (4, V), fp32."""
    cache = slot_cache(model, CacheSize(groups=3, prompt_columns=PROMPT, slots=4, columns=8, most_columns=8))
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(2, VOCABULARY, (3, PROMPT), generator=generator).to(model.device)
    prefill(model, cache, 0, ids, torch.from_numpy(ROWS.prompt_lengths).to(model.device))
    return function(cache, exact_step(ROWS, ids[0, :4])).float().clone()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
