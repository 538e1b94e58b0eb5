"""Writes the policy's LoRA adapter as files that vLLM reads, and finds out why one could not be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from methods.train_config import TrainConfig
from workers.rollouts.errors import RolloutsRefused, WeightsNotWritten
from workers.training.model.policy import VALUE_HEAD, Policy
from workers.training.model.sharding import whole

PREFIX = "base_model.model."
"""How names of weights begin in PEFT's files."""
OWN_NAME = ".default."
"""The name that the engine's adapter has inside PEFT."""
DIGEST_BYTES = 6


@torch.no_grad()
def adapter_weights(policy: Policy) -> dict[str, Tensor]:
    """Returns copies of the adapter's weights under PEFT's names, fp32 on the CPU.

    It is collective where the model is sharded. Raises `RolloutsRefused` for an adapter of anything but
    linear layers, which vLLM would read otherwise or not at all.
    """
    found: dict[str, Tensor] = {}
    for name, weight in policy.trained().items():
        if name.startswith(VALUE_HEAD):
            continue
        matrix = whole(weight).detach().to("cpu", torch.float32, copy=True).contiguous()
        if ".base_layer" in name or matrix.ndim != 2 or not name.endswith(f"{OWN_NAME}weight"):
            raise RolloutsRefused(
                f"vLLM cannot do this job's rollouts: the adapter has a part that is no linear layer"
                f" ({name}), as of experts that lie fused in one parameter. Set rollouts to built_in."
            )
        found[PREFIX + name.replace(OWN_NAME, ".")] = matrix
    return found


def adapter_config(weights: Mapping[str, Tensor], config: TrainConfig) -> dict[str, object]:
    """Returns the adapter's `adapter_config.json`."""
    modules = {name.partition(".lora_")[0].rpartition(".")[2] for name in weights}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.model,
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(modules),
    }


def write_adapter(parent: Path, prefix: str, weights: Mapping[str, Tensor], config: TrainConfig) -> str:
    """Writes an adapter into a folder of its own below `parent`, and returns its name.

    The name is `prefix` and a digest of the weights, so that one name never stands for two adapters; the same
    weights are not written twice. Raises `WeightsNotWritten` where they cannot be written.
    """
    content = save(dict(weights))
    name = f"{prefix}-{blake2b(content, digest_size=DIGEST_BYTES).hexdigest()}"
    folder = parent / name
    if folder.exists():
        return name
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = parent / f"{name}.partial"
        partial.mkdir(mode=0o700, exist_ok=True)
        (partial / "adapter_model.safetensors").write_bytes(content)
        (partial / "adapter_config.json").write_text(json.dumps(adapter_config(weights, config)))
        partial.rename(folder)
    except OSError as problem:
        raise WeightsNotWritten("adapter", parent, problem) from None
    return name
