"""`python -m scripts.gpu.checks.timed DEVICE MODEL OUT FOLDER`: sampling and updates by themselves, timed.

A line of JSON for each shape is printed and added to OUT: tokens a second, milliseconds a decode step and how
many times that is what reading weights, keys and values takes at the least, and the update's peak of memory.
Of a 7B shape the weights are random and made on the GPU.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from benchmarks.engine.models import make_model
from methods.train_config import TrainConfig
from workers.training.base.types import Group, Prompt
from workers.training.model import attention
from workers.training.model.base_model import BaseModel
from workers.training.model.policy import Policy
from workers.training.rewards import Rewards
from workers.training.sampling.decode_attention import layer_shapes
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.update import make_optimizer, update_policy

NEVER = (10**6,)
"""An end token that nobody draws: completions have their full length."""
COPIED, COPIES = 2 << 30, 10
"""Bytes of the copy that measures a GPU's memory, and how often it is made."""
SEVEN_BILLION = Qwen2Config(
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    vocab_size=152064,
    tie_word_embeddings=False,
    max_position_embeddings=32768,
)


class Size(NamedTuple):
    """Says what is sampled: prompts, completions of each, tokens of a prompt and of a completion."""

    prompts: int
    samples: int
    width: int
    tokens: int


USUAL, WIDE, REHEARSED = Size(8, 8, 300, 256), Size(32, 8, 300, 256), Size(2, 4, 30, 16)


def main(device: str, name: str, out: Path, folder: Path) -> None:
    """Times LoRA and full training of a small model, and on a GPU LoRA of a 7B shape."""
    model = make_model(name, folder, device)
    size = USUAL if device == "cuda" else REHEARSED
    config = config_of(model, device)
    policy = Policy.load(config)
    tell(out, timed(f"{name} lora", policy, config, size))
    if device == "cuda":
        tell(out, timed(f"{name} lora, 256 completions", policy, config, WIDE))
        profile(policy, out.with_name("decode_profile.txt"))
    del policy
    free()
    config = config_of(model, device, adapter="full")
    tell(out, timed(f"{name} full", Policy.load(config), config, size))
    for checkpointing in (True, False) if device == "cuda" else ():
        free()
        config = config_of(model, device, gradient_checkpointing=checkpointing)
        policy = Policy(seven_billion(model), config)
        tell(out, timed(f"7B lora, gradient checkpointing {checkpointing}", policy, config, USUAL))
        del policy


def config_of(model: Path, device: str, **changes: Any) -> TrainConfig:
    """Returns a run's config in bf16."""
    fields: dict[str, Any] = {
        "model": "timed",
        "model_path": str(model),
        "seed": 1,
        "n_epochs": 1,
        "prompts_per_step": 8,
        "group_size": 8,
        "max_completion_tokens": 256,
        "learning_rate": 1e-5,
        "eval_interval": 100,
        "dtype": "bfloat16",
        "device": device,
    }
    return TrainConfig(**{**fields, **changes})


def timed(label: str, policy: Policy, config: TrainConfig, size: Size) -> dict[str, Any]:
    """Samples and updates twice; returns the second's figures, for the first warms up."""
    policy.end_ids = NEVER
    found: dict[str, Any] = {"label": label, **size._asdict()}
    first, _ = sampled(policy, size, size.tokens, 0)
    seconds, groups = sampled(policy, size, size.tokens, 1)
    few = max(1, size.tokens // 8)
    short, _ = sampled(policy, size, few, 2)
    step = (seconds - short) / (size.tokens - few)
    least = least_seconds(policy, size, (size.tokens + few) // 2)
    found |= {
        "sample_s_first": round(first, 3),
        "sample_s": round(seconds, 3),
        "sampled_tokens_a_second": round(size.prompts * size.samples * size.tokens / seconds),
        "ms_a_decode_step": round(1000 * step, 3),
        "least_ms": round(1000 * least, 3),
        "times_the_memory_limit": round(step / least, 2),
    }
    try:
        return found | updated(policy, config, groups, size)
    except torch.OutOfMemoryError as error:
        return found | {"update": f"out of memory: {str(error)[:160]}"}


def sampled(policy: Policy, size: Size, tokens: int, turn: int) -> tuple[float, list[Group]]:
    """Samples completions of so many tokens; returns how long it takes, in seconds, and them."""
    sampling = Sampling(size.samples, tokens, 1.0, ("timed", turn))
    return clocked(policy, lambda: sample_groups(policy, prompts_of(size), sampling))


def least_seconds(policy: Policy, size: Size, tokens: int) -> float:
    """Returns what a decode step takes at the least: reading weights, and keys and values, once each.

    Rows have so many tokens of their own, and those of one prompt read its keys and values together.
    """
    model = policy.rollout_model
    embeddings, head = (part().weight for part in (model.get_input_embeddings, model.get_output_embeddings))
    read: int = sum(weight.nbytes for weight in model.parameters())
    read -= 0 if embeddings is head else embeddings.nbytes
    layers, like = layer_shapes(model, model.device)
    held = size.prompts * (size.width + size.samples * tokens)
    read += held * sum(layer.numbers for layer in layers) * like.element_size()
    return read / bytes_a_second(policy.device)


@cache
def bytes_a_second(device: torch.device) -> float:
    """Measures how fast the device copies memory: bytes read and written a second."""
    source = torch.ones(COPIED if device.type == "cuda" else COPIED // 64, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    wait: Callable[[], Any] = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    target.copy_(source)
    wait()
    began = time.perf_counter()
    for _ in range(COPIES):
        target.copy_(source)
    wait()
    return 2 * COPIES * source.nbytes / (time.perf_counter() - began)


def updated(policy: Policy, config: TrainConfig, groups: list[Group], size: Size) -> dict[str, Any]:
    """Makes two updates with made-up rewards; returns the second's figures."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(size.prompts, size.samples, generator=generator, dtype=torch.float64)
    rewards = Rewards(values, torch.ones_like(values, dtype=torch.bool))
    optimizer = make_optimizer(policy, config)
    found: dict[str, Any] = {}
    for turn in range(2):
        if policy.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds, stats = clocked(
            policy,
            lambda step=turn + 1: update_policy(policy, optimizer, groups, rewards, config, step),  # type: ignore[misc]
        )
        policy.sync_rollout()
        found = {"update_s": round(seconds, 3), "mismatch": stats.values.get("sampler/mismatch")}
        if policy.device.type == "cuda":
            found["update_peak_GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def clocked(policy: Policy, call: Callable[[], Any]) -> tuple[float, Any]:
    """Returns how long a call takes, in seconds, with all that it asked of the GPU, and what it returns."""
    wait: Callable[[], Any] = torch.cuda.synchronize if policy.device.type == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    found = call()
    wait()
    return time.perf_counter() - began, found


def prompts_of(size: Size) -> list[Prompt]:
    """Returns random prompts, the same each time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 200, (size.prompts, size.width), generator=generator)
    return [Prompt(i, {}, tuple(row)) for i, row in enumerate(ids.tolist())]


def seven_billion(tokenizer: Path) -> BaseModel:
    """Makes the weights of a 7B shape on the GPU; no file is read or written but the tokenizer's."""
    with torch.device("cuda"), default_dtype(torch.bfloat16):
        model: Any = Qwen2ForCausalLM(SEVEN_BILLION)
    model.eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    print("7B keeps its own attention:", attention.adopt(model) or "no", flush=True)
    half = torch.bfloat16
    known = AutoTokenizer.from_pretrained(tokenizer)
    return BaseModel(tokenizer, model, known, NEVER, 32768, torch.device("cuda"), half, half)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Makes new floating-point tensors of a type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def profile(policy: Policy, file: Path) -> None:
    """Writes which kernels a short sampling launches and how long they take."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        sample_groups(policy, prompts_of(USUAL), Sampling(8, 48, 1.0, ("profiled", 0)))
    file.write_text(found.key_averages().table(sort_by="cuda_time_total", row_limit=60))


def free() -> None:
    """Gives back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tell(out: Path, found: dict[str, Any]) -> None:
    """Prints a shape's figures and keeps them."""
    line = json.dumps(found)
    print(line, flush=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
