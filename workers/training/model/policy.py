"""The policy: a base model and what is trained of it (a LoRA adapter, or every weight).

Three views of it, never mixed up:

* `policy.model` is trained. Always in `eval()`: with dropout it would not be the policy that sampled.
* `policy.rollout_model` samples. For LoRA it is base + delta in buffers of its own: merging in place and
  back moves a bf16 base a little each time. Where every weight is trained it is `model` itself, or with
  `async_steps` a copy. It follows the trained weights when told to (`sync_rollout`).
* `policy.reference()` is the starting policy: the adapter switched off, or a frozen copy.

All three read the same numbers of a quantised base (quantised.py), and add the adapter beside it.

Sharded (FSDP, sharding.py), the trained and the reference model are split over the processes and the sampling
copy is whole in each, so that sampling needs no other process. It is what was read; shards are cut from it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from methods.model_files.precision import QUANTISED
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.errors import ModelInvalid
from workers.training.base.pass_tokens import USUAL_TOKENS, PassTokens
from workers.training.model import sharding
from workers.training.model.adapter import Share, add_adapter, shares
from workers.training.model.arithmetic import compute_in
from workers.training.model.base_model import BaseModel, load_base
from workers.training.model.delivered import order_config, write_beside_adapter, write_model
from workers.training.model.gates import remake_gates
from workers.training.model.grammar import compile_grammar
from workers.training.model.merged_lora import bases_alone, forget_sum, train_through_sum
from workers.training.model.quantised import QuantisedLinear, write_quantisation
from workers.training.model.recompute import recompute_layers
from workers.training.model.rollout_weights import (
    ADAPTER,
    adapted_base,
    adapted_parameter,
    follow,
    own_weight,
)
from workers.training.model.rounding import Rounded
from workers.training.model.sharding import cast_weights, whole
from workers.training.model.stored_types import stored_types
from workers.training.model.value import make_value_head
from workers.training.rendering.parts import reader_of
from workers.training.rendering.template import with_variables

VALUE_HEAD = "value_head."
"""How the names of the value head's weights begin."""


class Policy:
    """Holds base model, trained weights and reference. Built the same way twice, it has the same bits."""

    def __init__(self, base: BaseModel, config: TrainConfig, world: World = ALONE) -> None:
        self.tokenizer = with_variables(base.tokenizer, config.template_kwargs)
        self.end_ids = base.end_ids
        self.context = base.context
        self.vocabulary = base.vocabulary
        self.device = base.device
        self.folder = base.folder
        self._precision, self._compute_dtype = config.base_precision, base.compute_dtype
        self.model: Any = base.model
        self.adapter: Any = None
        """The PEFT wrapper of `model`; None when every weight is trained."""
        self._is_as_delivered = False
        self._merged: list[tuple[Any, nn.Linear]] = []
        """LoRA layers of `model`, and the layers of `rollout_model` that hold their sum."""
        self.adapted: dict[str, Share] = {}
        """How many of the layers' matrices have an adapter, by kind; empty when every weight is trained."""
        self.is_sharded = is_sharded(config, world)
        """Every process must then make the same number of passes through `model` and the reference."""
        self._weights: dict[str, nn.Parameter] = {}
        """The weights of a sharded model by the names they had; its modules do not always show these."""
        self.reader = reader_of(self.tokenizer, base.end_ids)
        """Takes completions apart; None where the model's family is not known."""
        self.grammar = compile_grammar(
            config.response_format, self.tokenizer, base.model, base.end_ids, self.reader
        )
        """What completions are held to, in sampling and in training; None for plain text."""
        torch.manual_seed(config.seed)
        if config.adapter == "lora":
            self._add_adapter(config, world)
        elif self.is_sharded:
            self._split_everything(base.compute_dtype, world)
        else:
            self._train_everything(base.compute_dtype, config)
        if base.compute_dtype != torch.float32:  # in fp32 a CPU's own kernels do so (passes/fused_nodes.py)
            remake_gates(self.model)
        self.passes = _passes(config, base.device, world, is_sharded=self.is_sharded)
        """How many tokens share a pass; on a GPU chosen when the model lies there (memory_plan.py)."""
        self.recomputes = False
        if config.gradient_checkpointing is True:
            self.recompute()
        self.value_head = make_value_head(self.model, self.device, config)
        """Reads the states of `model`; in no checkpoint, since nobody samples with it."""
        self.model.eval()
        self.rollout_model.eval()
        if not self.is_sharded:
            # A fresh policy computes through its sums from the first step on, as a resumed one does.
            self.sync_rollout()

    @classmethod
    def load(cls, config: TrainConfig, world: World = ALONE) -> Policy:
        """Reads the base model and puts fresh trained weights on it.

        Raises `ModelInvalid`, `DeviceMissing`.
        """
        base = load_base(
            Path(config.model_path),
            world.device(config.device),
            config.adapter,
            config.dtype,
            precision=config.base_precision,
            is_straight=is_sharded(config, world),
        )
        return cls(base, config, world)

    def _train_everything(self, compute: torch.dtype, config: TrainConfig) -> None:
        """Makes fp32 weights to train, and copies in the dtype of the arithmetic: reference and sampler."""
        self._reference = _copied(self.model, self.device, compute)
        self.rollout_model = self.model
        # With async steps the model changes while it is sampled from.
        if compute != torch.float32 or config.async_steps:
            self.rollout_model = _copied(self.model, self.device, compute)
        self.model.requires_grad_(True)
        if compute != torch.float32:
            compute_in(self.model, compute)

    def _split_everything(self, compute: torch.dtype, world: World) -> None:
        """Does so for a model that is split: the whole copy is what was read, and shards are cut from it.

        The copy takes its dtype layer by layer behind the cut, so that at no time there is more than it and
        the shards, and one layer.
        """
        self.rollout_model = _copied(self.model, self.device, is_shared=True)

        def narrow(layer: str) -> None:
            cast_weights(self.rollout_model.get_submodule(layer), compute)

        self.model.requires_grad_(True)
        self._weights = sharding.shard(self.model, self.device, world, compute, then=narrow)
        cast_weights(self.rollout_model, compute)
        self._reference = _copied(self.rollout_model, self.device, is_shared=True)
        sharding.shard(self._reference, self.device, world)

    def _add_adapter(self, config: TrainConfig, world: World) -> None:
        self.rollout_model = _beside(self.model)
        self.adapter = add_adapter(self.model, config)
        if self.is_sharded:  # the copy keeps the whole weights, of which the base has had its share
            self._weights = sharding.shard(self.model, self.device, world)
        adapted = []
        for name, layer in self.model.named_modules():
            if isinstance(layer, LoraLayer):
                name = name.replace(".base_layer", "")  # several parameters of one module are nested
                parameter = adapted_parameter(layer)
                copied: Any = self.rollout_model.get_submodule(name)
                if parameter not in dict(copied.named_parameters(recurse=False)):
                    raise ModelInvalid(
                        f"LoRA cannot train the layer '{name}' of '{config.model}'; train it full."
                    )
                copied = own_weight(self.rollout_model, name, parameter)
                self._merged.append((layer, copied))
                adapted.append((name, parameter))
                if not self.is_sharded:
                    train_through_sum(layer, copied)
        self.adapted = shares(self.rollout_model, adapted)

    def recompute(self) -> None:
        """Lets layers be run again in the backward pass from now on, in place of keeping what they made."""
        if not self.recomputes:
            recompute_layers(self.model)
        self.recomputes = True

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the trained weights by name; fp32 on every device."""
        weights = self._weights or dict(self.model.named_parameters())
        if self.value_head is not None:
            weights = weights | {VALUE_HEAD + name: w for name, w in self.value_head.named_parameters()}
        return {name: weight for name, weight in weights.items() if weight.requires_grad}

    @torch.no_grad()
    def load_trained(self, weights: dict[str, Tensor]) -> None:
        """Replaces the trained weights, of any shape, in the sampling copy too.

        Every process is given all, and whole.
        """
        self.reshard()
        mine = self.trained()
        if mine.keys() != weights.keys():
            raise ValueError("these are the trained weights of another model or adapter")
        for name, weight in mine.items():
            weight.copy_(sharding.like(weights[name], weight))
        self.sync_rollout()

    @torch.no_grad()
    def sync_rollout(self) -> None:
        """Lets the sampling copy follow the trained weights; for LoRA see rollout_weights.py.

        It is collective where the model is sharded: one weight after the other is gathered.
        """
        if self.adapter is None and self.rollout_model is not self.model:
            trained = self.trained()
            for name, copied in self.rollout_model.named_parameters():
                copied.copy_(whole(trained[name]))
        for layer, copied in self._merged:
            follow(layer, copied)

    def reshard(self) -> None:
        """Lets go of what passes of a sharded model have gathered. All processes call it, or none.

        What one process alone does with the model, as saving it, gathers and lets go of nothing for the
        others, who must find the same gathered as it does.
        """
        if self.is_sharded:
            sharding.close(self.model)
            if self.adapter is None:
                sharding.close(self._reference)

    def weights_changed(self) -> None:
        """Takes note that the trained weights are no longer what the sampling copy holds."""
        for layer, _ in self._merged:
            forget_sum(layer)

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """Gives the starting policy, as a model to run without gradient."""
        with torch.no_grad():
            if self.adapter is None:
                yield self._reference
            else:
                with bases_alone(self.adapter, [layer for layer, _ in self._merged]):
                    yield self.model
        self.reshard()

    @contextmanager
    def as_delivered(self) -> Iterator[float | None]:
        """Lets what is measured of the policy be what a checkpoint of it holds: weights in the base's dtypes.

        Gives the size of what rounding loses beside that of the change to the base (`Rounded.error`). The
        trained weights are the same afterwards, bit for bit. It is collective where the model is sharded.
        """
        rounded = Rounded(self.rollout_model, stored_types(self.folder))
        with torch.no_grad():
            self._round(rounded)
        self._is_as_delivered = rounded.is_rounded
        try:
            yield rounded.error
        finally:
            self._is_as_delivered = False
            with torch.no_grad():
                rounded.put_back()
            if rounded.is_rounded:
                self.sync_rollout()

    def _round(self, rounded: Rounded) -> None:
        if self.adapter is not None:
            for layer, copied in self._merged:
                if isinstance(copied, QuantisedLinear):
                    rounded.merge(copied)
                    continue
                base, delta = whole(adapted_base(layer)), layer.get_delta_weight(ADAPTER)
                rounded.round_sum(copied, base, delta, adapted_parameter(layer))
            return
        start = {} if self.is_sharded else dict(self._reference.named_parameters())
        for name, weight in self.rollout_model.named_parameters():
            rounded.round_weight(name, weight, start.get(name))

    @property
    def measured_model(self) -> Any:
        """Returns what is measured: `model`, but inside `as_delivered` what holds the rounded weights.

        A sharded policy has these only in the copy that samples.
        """
        is_rounded = self._is_as_delivered and not self.is_sharded
        return self.rollout_model if is_rounded else self.model

    def save_model(self, folder: Path) -> None:
        """Writes a complete model folder: weights merged in fp32, then cast to the base's dtypes."""
        write_model(folder, self.folder, self.rollout_model, self.end_ids)

    def save_adapter(self, folder: Path) -> None:
        """Writes the LoRA adapter in PEFT's form, in fp32; nothing when every weight is trained."""
        if self.adapter is not None:
            self.adapter.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # an empty model card
            order_config(folder)
            write_beside_adapter(folder, self.folder, self.end_ids)
            if self._precision in QUANTISED:
                write_quantisation(folder, self._precision, self._compute_dtype)


def is_sharded(config: TrainConfig, world: World) -> bool:
    """Says whether the model is split; a process alone, but for torchrun's, has nobody to split it with."""
    return config.sharding == "fsdp" and world.is_grouped


def _passes(config: TrainConfig, device: torch.device, world: World, *, is_sharded: bool) -> PassTokens:
    asked = config.micro_batch_tokens
    return PassTokens(USUAL_TOKENS if asked == "auto" else asked, device, world, is_sharded=is_sharded)


def _copied(
    model: Any, device: torch.device, dtype: torch.dtype | None = None, *, is_shared: bool = False
) -> Any:
    """Returns a frozen copy of a model on a device, its weights in a dtype, by default their own.

    Buffers keep theirs: rotary frequencies need fp32. Each weight is copied where it shall be and as it
    shall be, so that host memory never holds a second model that was not asked for; with `is_shared` the
    copy has the same memory where it can.
    """
    there: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to(device, dtype, copy=not is_shared), requires_grad=False)
        for weight in model.parameters()
    }
    there |= {id(buffer): buffer.detach().to(device, copy=True) for buffer in model.buffers()}
    return copy.deepcopy(model, memo=there)


def _beside(model: Any) -> Any:
    """Returns a copy of a model that has the same weights and buffers until it is given others."""
    shared: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo=shared)
