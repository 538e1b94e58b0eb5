"""The models that are measured: cherry-nano, and random Qwen3 models warmed up to end their answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging as transformers_logging

from benchmarks.engine.workloads import WORKLOADS, make_rows

NANO = Path(__file__).resolve().parents[2] / "workers" / "models" / "cherry_nano"

END_RATE = 1 / 22
"""Chance that an answer of the warm-up ends at a token, which makes natural lengths geometric."""

WARM_UP_ROWS = 8

_TEMPLATE = (
    "{% for m in messages %}<begin>{{ m['role'] }}:{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant:{% endif %}"
)


class Shape(NamedTuple):
    """A Qwen3 configuration; grouped key/value heads 2:1. `cuda_only`: too large for a CPU to wait for."""

    hidden: int
    intermediate: int
    layers: int
    vocab: int
    head_dim: int
    warm_up_steps: int
    dtype: torch.dtype = torch.float32
    cuda_only: bool = False


SHAPES = {
    "qwen2m": Shape(192, 384, 6, 2048, 32, 80),
    "qwen20m": Shape(384, 1152, 10, 8192, 64, 40),
    "qwen0.5b": Shape(1024, 2816, 24, 151_936, 128, 60, torch.bfloat16, cuda_only=True),
}
GENERAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("gemma2", {"head_dim": 32}),
    "gptoss": ("gpt_oss", {"head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 2}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "conv", "full_attention"] * 2}),
}
"""Families on the general path, as wide and deep as qwen2m: model type and what its config needs beside."""
MODELS = ("nano", *SHAPES, *GENERAL)


def make_model(name: str, folder: Path, device: str) -> Path:
    """The folder of a model, built below `folder` unless it is there; cherry-nano lies in the package."""
    if name == "nano":
        return NANO
    target = folder / name
    if (target / "config.json").exists():
        return target
    return build_general(name, target) if name in GENERAL else build(SHAPES[name], target, device)


def build_general(name: str, target: Path) -> Path:
    """Write a random model of a family on the general path, warmed up; returns its folder."""
    torch.manual_seed(0)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    shape = SHAPES["qwen2m"]
    tokenizer = byte_tokenizer(shape.vocab)
    family, more = GENERAL[name]
    config = AutoConfig.for_model(
        family,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        vocab_size=shape.vocab,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **more,
    )
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager")
    warm_up(model, tokenizer, shape.warm_up_steps)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def build(shape: Shape, target: Path, device: str = "cpu") -> Path:
    """Write a random model of this shape, warmed up; returns its folder."""
    torch.manual_seed(0)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = byte_tokenizer(shape.vocab)
    model: Any = Qwen3ForCausalLM(_config(shape, tokenizer))
    model.to(device)
    if shape.warm_up_steps:
        warm_up(model, tokenizer, shape.warm_up_steps)
    model.to(shape.dtype).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def byte_tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """One token for each byte, `<begin>`, `<end>`, `<pad>`, and tokens that no text has up to `vocab`."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f"#{i}" for i in range(vocab - len(names) - 3)]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<begin>", "eos_token": "<end>", "unk_token": None}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]
    fast.chat_template = _TEMPLATE
    return fast


def _config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    heads = shape.hidden // shape.head_dim
    return Qwen3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=shape.head_dim,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def warm_up(model: Any, tokenizer: PreTrainedTokenizerFast, steps: int) -> float:
    """Supervised training on random lower-case answers of geometric length; returns the last loss (nats)."""
    rng = random.Random(0)
    prompts = [row.item["messages"] for row in make_rows(WORKLOADS["w1"], tokenizer, seed=1)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    device = next(model.parameters()).device
    for _ in range(steps):
        ids, labels = _warm_up_batch(prompts, tokenizer, rng)
        loss = model(input_ids=ids.to(device), labels=labels.to(device)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return float(loss.detach())


def _warm_up_batch(
    prompts: list[list[dict[str, str]]], tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, starts = [], []
    for messages in rng.sample(prompts, WARM_UP_ROWS):
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        text = rng.choice("abcdefghijklmnopqrstuvwxyz")
        while rng.random() > END_RATE and len(text) < 100:
            text += rng.choice("abcdefghijklmnopqrstuvwxyz")
        rows.append([*prompt, *tokenizer(text).input_ids, tokenizer.eos_token_id])
        starts.append(len(prompt))
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, start : len(row)] = torch.tensor(row[start:])
    return ids, labels
