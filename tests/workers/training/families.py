"""Tiny random models of several families, with weights so large that they depend on what they read."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from workers.training.model import attention

VOCABULARY = 97

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
PACKED: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 64},
    "phi3": {"num_key_value_heads": 4},
    "gemma3_text": {
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 8,
    },
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
}


def make_family(family: str, implementation: str = attention.NAME, **changes: Any) -> Any:
    """A causal model in eval mode; `changes` are of its config."""
    torch.manual_seed(0)
    sizes = {**_SIZES, **PACKED.get(family, {}), **changes}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **sizes), attn_implementation=implementation
    )
    return model.eval()


def add_lora(model: Any) -> Any:
    """The same model with only a LoRA adapter to train, which already does something."""
    model.requires_grad_(False)
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name it has renamed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*fan_in_fan_out.*", UserWarning)
        get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.eval()
