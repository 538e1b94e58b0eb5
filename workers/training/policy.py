"""The policy: a base model and what is trained of it (a LoRA adapter, or every weight).

Three views of it, never mixed up:

* `policy.model` is trained. Always in `eval()`: with dropout it would not be the policy that sampled.
* `policy.rollout_model` samples. For LoRA it is base + delta in buffers of its own: merging in place and
  back moves a bf16 base a little each time.
* `policy.reference()` is the starting policy: the adapter switched off, or a frozen copy.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from workers.config import TrainConfig
from workers.training.base_model import BaseModel, load_base
from workers.training.errors import ModelInvalid


class Policy:
    """Base model, trained weights and reference. Built the same way twice, it holds the same bits."""

    def __init__(self, base: BaseModel, config: TrainConfig) -> None:
        self.tokenizer = base.tokenizer
        self.end_ids = base.end_ids
        self.context = base.context
        self.device = base.device
        self.stored_dtype = base.stored_dtype
        self.folder = base.folder
        self.model: Any = base.model
        self.adapter: Any = None
        """The PEFT wrapper of `model`; None when every weight is trained."""
        self._merged: list[tuple[Any, nn.Linear]] = []
        """LoRA layers of `model`, and the layers of `rollout_model` that hold their sum."""
        torch.manual_seed(config.seed)
        if config.adapter == "lora":
            self._add_adapter(config)
        else:
            self._reference = copy.deepcopy(base.model).requires_grad_(False)
            self.rollout_model = self.model.requires_grad_(True)
        self.model.eval()
        self.rollout_model.eval()

    @classmethod
    def load(cls, config: TrainConfig) -> Policy:
        """Read the base model and put fresh trained weights on it. Raises `ModelInvalid`."""
        return cls(load_base(Path(config.model_path), config.device, config.adapter), config)

    def _add_adapter(self, config: TrainConfig) -> None:
        shared = {id(tensor): tensor for tensor in [*self.model.parameters(), *self.model.buffers()]}
        self.rollout_model = copy.deepcopy(self.model, memo=dict(shared))
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # any positive number works
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name it has renamed
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            self.adapter = get_peft_model(self.model, lora)
        lora.base_model_name_or_path = config.model
        for name, layer in self.model.named_modules():
            if isinstance(layer, LoraLayer):
                copied: Any = self.rollout_model.get_submodule(name)
                if "weight" not in dict(copied.named_parameters(recurse=False)):
                    raise ModelInvalid(
                        f"LoRA cannot train the layer '{name}' of '{config.model}'; train it full."
                    )
                copied.weight = nn.Parameter(copied.weight.detach().clone(), requires_grad=False)
                self._merged.append((layer, copied))

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained weights by name; fp32 on every device."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def load_trained(self, weights: dict[str, Tensor]) -> None:
        """Replace the trained weights, in the sampling copy too."""
        mine = self.trained()
        if mine.keys() != weights.keys():
            raise ValueError("these are the trained weights of another model or adapter")
        for name, weight in mine.items():
            weight.copy_(weights[name])
        self.sync_rollout()

    @torch.no_grad()
    def sync_rollout(self) -> None:
        """Let the sampling copy follow the trained weights: W + scale * B A, added up in fp32."""
        for layer, copied in self._merged:
            delta = layer.get_delta_weight("default").float()
            copied.weight.copy_(layer.get_base_layer().weight.float() + delta)

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """The starting policy, as a model to run without gradient."""
        with torch.no_grad():
            if self.adapter is None:
                yield self._reference
            else:
                with self.adapter.disable_adapter():
                    yield self.model

    def save_model(self, folder: Path) -> None:
        """Write a complete model folder: weights merged in fp32, then cast to the base's dtype."""
        cast: dict[int, Tensor] = {}
        state = {}
        for name, tensor in self.rollout_model.state_dict().items():
            # Tied weights are one tensor and have to stay one.
            kept = cast.setdefault(tensor.data_ptr(), tensor.detach().to(self.stored_dtype))
            state[name] = kept if kept.shape == tensor.shape else tensor.detach().to(self.stored_dtype)
        self.rollout_model.save_pretrained(folder, state_dict=state)
        for file in sorted(self.folder.iterdir()):
            if file.is_file() and _belongs_to_a_model(file):
                (folder / file.name).write_bytes(file.read_bytes())

    def save_adapter(self, folder: Path) -> None:
        """Write the LoRA adapter in PEFT's form; nothing when every weight is trained."""
        if self.adapter is not None:
            self.adapter.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def _belongs_to_a_model(file: Path) -> bool:
    """Config, tokenizer and licence files, which training does not change."""
    if file.name.endswith(".index.json"):
        return False
    return file.suffix in {".json", ".jinja", ".txt", ".model"} or file.name.startswith(("LICENSE", "NOTICE"))
