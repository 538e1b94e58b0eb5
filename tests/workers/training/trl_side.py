"""TRL's trainer with our weights, and the gradients of both sides: for comparing them on one batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from methods.train_config import TrainConfig
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.policy import Policy
from workers.training.passes.forward import (
    PackedCompletion,
    batches_for,
    completion_states,
    output_head,
    per_completion,
    token_logprobs,
)
from workers.training.rewards import Rewards
from workers.training.update import make_optimizer, update_policy

LIMIT, TEMPERATURE, P, G = 9, 0.8, 4, 4
CLIP_LOW, CLIP_HIGH = 0.2, 0.27


def make_trainer(
    name: str,
    model: Any,
    folder: Path,
    reward: Any = None,
    *,
    prompts: Sequence[Any] = ("a",),
    tools: Sequence[Any] = (),
    **settings: Any,
) -> Any:
    """A trainer that is never run: only its functions for one batch are called."""
    import trl
    from datasets import Dataset

    if name == "GRPO":
        settings = {"use_bias_correction_kl": True, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(trl, f"{name}Config")(
            **{
                "output_dir": str(folder / "out"),
                "use_cpu": True,
                "bf16": False,
                "gradient_checkpointing": False,
                "report_to": "none",
                "per_device_train_batch_size": P * G,
                "num_generations": G,
                "max_completion_length": LIMIT,
                "epsilon": CLIP_LOW,
                "epsilon_high": CLIP_HIGH,
                "temperature": TEMPERATURE,
                **settings,
            }
        )
        trainer = getattr(trl, f"{name}Trainer")(
            model=AutoModelForCausalLM.from_pretrained(model),
            reward_funcs=reward or (lambda completions, **_: [0.0] * len(completions)),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=AutoTokenizer.from_pretrained(model),
            **({"tools": list(tools)} if tools else {}),
        )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()  # TRL normalises differently in eval; this model has no dropout
    return trainer


def gradients(loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a loss, by the names of weights."""
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: g for name, g in zip(weights, found, strict=True) if g is not None}


def their_model(policy: Policy, trainer: Any, adapter: str) -> tuple[Any, dict[str, Tensor]]:
    """TRL's model with our weights, and these by our names."""
    mine = policy.trained()
    model, prefix = trainer.model, ""
    if adapter == "lora":
        lora = LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, prefix = get_peft_model(trainer.model, lora), "base_model.model."
    weights = {name: model.get_parameter(prefix + name) for name in mine}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(mine[name])
    return model.train(), weights


def our_gradient(
    policy: Policy, groups: Sequence[Group], rewards: Rewards, config: TrainConfig
) -> dict[str, Tensor]:
    """Of the step's only update, as the optimizer is given it."""
    found: dict[str, Tensor] = {}

    def keep() -> None:
        grads = {name: weight.grad for name, weight in policy.trained().items()}
        found.update({name: grad.clone() for name, grad in grads.items() if grad is not None})

    optimizer: Any = make_optimizer(policy, config)
    optimizer.step = keep
    update_policy(policy, optimizer, groups, rewards, config, step=1)
    return found


def groups_of_tools(policy: Policy, prompts: Sequence[Prompt], inputs: Mapping[str, Any]) -> list[Group]:
    """TRL's tokens, and its mask of what tools wrote, as completions that our policy has just sampled."""
    size = len(inputs["completion_ids"]) // len(prompts)
    packed = []
    for row, ids in enumerate(inputs["completion_ids"]):
        length = int(inputs["completion_mask"][row].sum())
        given = tuple((inputs["tool_mask"][row, :length] == 0).tolist())
        made = Completion(tuple(ids[:length].tolist()), (0.0,) * length, "", "stop", given)
        packed.append(PackedCompletion(prompts[row // size], made))
    logprobs = [iter(found.tolist()) for found in policy_logprobs(policy, packed)]
    made_of = [
        replace(one.completion, logprobs=tuple(0.0 if given else next(of) for given in one.completion.given))
        for one, of in zip(packed, logprobs, strict=True)
    ]
    return [Group(prompt, tuple(made_of[n * size : n * size + size])) for n, prompt in enumerate(prompts)]


@torch.no_grad()
def policy_logprobs(policy: Policy, packed: Sequence[PackedCompletion]) -> list[Tensor]:
    """The engine's log-probabilities of the sampled tokens of each completion."""
    found: dict[int, Tensor] = {}
    for batch in batches_for(policy.model, packed, 10**6, policy.device):
        states = completion_states(policy.model, batch)
        logprobs, _ = token_logprobs(states, output_head(policy.model), batch.targets, 1.0)
        found |= dict(zip(batch.indices, per_completion(logprobs, batch), strict=True))
    return [found[i] for i in range(len(packed))]


def apart(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The norm of the difference, as a share of that of `expected`."""
    assert found.keys() == expected.keys()
    difference = torch.stack([(found[name] - value).norm() for name, value in expected.items()]).norm()
    return float(difference / torch.stack([value.norm() for value in expected.values()]).norm())
