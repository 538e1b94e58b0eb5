"""`python -m scripts.gpu.checks.deep_models DEVICE`: are deep models in bf16 let onto the fast path?"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from workers.training.model import attention
from workers.training.passes.path import why_general

SHAPES = ((24, 896, 14, 0.02), (48, 1024, 8, 0.02), (80, 512, 8, 0.04))
"""Layers, width, heads, and the standard deviation of the weights."""
SMALL = ((24, 64, 4, 0.02), (48, 64, 4, 0.02))
"""For a rehearsal on a CPU."""


def main(device: str) -> int:
    """Prints a line for each depth; returns 1 if a model is refused, else 0."""
    refused = False
    for layers, hidden, heads, deviation in SHAPES if device == "cuda" else SMALL:
        torch.manual_seed(0)
        config = Qwen2Config(
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=2,
            vocab_size=2048,
            initializer_range=deviation,
            tie_word_embeddings=True,
        )
        model: Any = Qwen2ForCausalLM(config)
        model.set_attn_implementation("eager")
        model = model.to(device, torch.bfloat16).eval()
        own = attention.adopt(model)
        general = why_general(model)
        refused |= own is not None or general is not None
        print(f"{layers} layers: keeps its own attention: {own or 'no'}; general path: {general or 'no'}")
    return int(refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
