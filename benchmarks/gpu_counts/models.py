"""Small Qwen2 models, whose layers ask for as many kernels as large ones, and an adapter that has moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.engine.models import byte_tokenizer
from methods.train_config import TrainConfig
from workers.training.model.policy import Policy

VOCABULARY = 512
MOVED = 1e-3
"""Standard deviation of what is added to the adapter: a 16-bit layer then computes it beside its weight."""


def make_model(folder: Path, layers: int, hidden: int = 64) -> Path:
    """Writes a random Qwen2 of so many layers with so wide states; returns its folder."""
    torch.manual_seed(0)
    target = folder / f"qwen2-{layers}-{hidden}"
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            initializer_range=0.1,
            tie_word_embeddings=True,
        )
    ).save_pretrained(target)
    byte_tokenizer(VOCABULARY).save_pretrained(target)
    return target


def config_of(folder: Path, **changes: Any) -> TrainConfig:
    """Returns a run's config: LoRA in bf16 on the GPU."""
    fields: dict[str, Any] = {
        "model": "qwen2",
        "model_path": str(folder),
        "seed": 1,
        "n_epochs": 1,
        "prompts_per_step": 8,
        "group_size": 4,
        "max_completion_tokens": 256,
        "learning_rate": 1e-4,
        "eval_interval": 100,
        "dtype": "bfloat16",
        "device": "cuda",
    }
    return TrainConfig(**{**fields, **changes})


def moved_policy(config: TrainConfig) -> Policy:
    """Loads a policy whose adapter is no longer zero and whose sampling copy follows it."""
    policy = Policy.load(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight.add_((MOVED * torch.randn(weight.shape, generator=generator)).to(weight.device))
    policy.sync_rollout()
    policy.end_ids = (VOCABULARY,)  # drawn by nobody: completions have their full length
    return policy
