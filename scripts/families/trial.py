"""What each method makes of a family, and the checks that decide whether it is right."""

from __future__ import annotations

import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.families.listed import Family, loader, make_model, rows

METHODS = ("lora", "full", "supervised", "dpo")
TOLERANCE = 1e-4
"""Nats between sampler and trainer, and difference of logits relative to the largest. Measured over all
families in fp32: at most 2e-5, of linear attention, which is chunked in training and goes step by step in
sampling; a wrong mask, position or state gives 1e-2 and more.
"""
ROUNDED_TOLERANCE = 2e-3
"""The same of logits where weights are stored in 16 bits: both are rounded, but were added up in another
order, so that a few fall on the other side. Measured: 7e-4.
"""


class Letters:
    """Is a grader that likes some letters."""

    name = "letters"
    type = "python"

    def grade(self, sample: Any, _: Any) -> Any:
        """Gives the share of the answer that is one of them."""
        from graders import Grade

        text = sample.output_text
        return Grade(sum(c in "aeiorst" for c in text) / max(len(text), 1))


def reinforce(model: Path, adapter: str, run_dir: Path) -> dict[str, Any]:
    """Trains two steps of reinforcement; returns what was measured of the start, and checks the end."""
    from methods.train_config import TrainConfig
    from workers.training.loop import train
    from workers.training.recorders import Silent

    config = TrainConfig(
        model="tiny", model_path=str(model), seed=1, adapter=adapter, n_epochs=1, prompts_per_step=2,
        group_size=4, max_completion_tokens=12, learning_rate=1e-2, lora_rank=4, lora_alpha=8.0,
        eval_interval=2, save_state_every=2, kl_probe_size=4, device="cpu",
    )  # fmt: skip
    found = at_the_start(config)
    told: list[str] = []

    last = run_dir.with_name(f"{adapter}-last")

    class Told(Silent):
        def note(self, _: str, message: str) -> None:
            told.append(message)

        def checkpoint(self, saved: Any) -> None:
            if saved.step > 0:
                shutil.copytree(saved.folder, last, dirs_exist_ok=True)

    train(config, rows("reinforcement"), [], Letters(), Told(), run_dir)
    return found | delivered(model, last) | {"notes": told}


def at_the_start(config: Any) -> dict[str, Any]:
    """Returns how far sampler and trainer are apart, the KL to the reference, and the path."""
    import torch

    from workers.training.model.policy import Policy
    from workers.training.passes.forward import (
        PackedCompletion,
        completion_states,
        make_batches,
        output_head,
        per_completion,
        token_kl,
        token_logprobs,
        why_general,
    )  # fmt: skip
    from workers.training.prompts import make_prompts
    from workers.training.sampling.general_decoder import way_of
    from workers.training.sampling.rollout import Sampling, sample_groups

    policy = Policy.load(config)
    prompts = make_prompts(rows("reinforcement"), policy.tokenizer, policy.context, "training")
    groups = sample_groups(policy, prompts, Sampling(4, 12, 1.0, ("families",)))
    packed = [PackedCompletion(group.prompt, each) for group in groups for each in group.completions]
    apart, drift = 0.0, 0.0
    with torch.no_grad():
        for batch in make_batches(packed, policy.passes.most, policy.device):
            states = completion_states(policy.model, batch)
            logprobs, _ = token_logprobs(states, output_head(policy.model), batch.targets, 1.0)
            for i, values in zip(batch.indices, per_completion(logprobs, batch), strict=True):
                sampled = torch.tensor(packed[i].completion.logprobs)
                apart = max(apart, float((values - sampled).abs().max()))
            with policy.reference() as reference:
                ref = completion_states(reference, batch)
                kl = token_kl(states, output_head(policy.model), ref, output_head(reference))
            drift = max(drift, float(kl.abs().max()))
    longest = max(len(prompt.tokens) for prompt in prompts) + config.max_completion_tokens
    reason, beyond = why_general(policy.model), why_general(policy.model, longest)
    if not apart <= TOLERANCE:
        raise AssertionError(f"sampler and trainer are {apart:.1e} nats apart")
    if drift != 0:
        raise AssertionError(f"the KL at the start is {drift:.1e}")
    return {
        "apart": apart,
        "path": "general" if reason else "fast, general beyond its window" if beyond else "fast",
        "way": way_of(policy.rollout_model) if beyond else None,
        "reason": reason,
        "adapted": {kind: list(share) for kind, share in policy.adapted.items()},
    }


def delivered(base: Path, checkpoint: Path) -> dict[str, Any]:
    """Holds a checkpoint's model, and its adapter on the base, to each other and to the engine's sampler."""
    import torch
    from peft import PeftModel
    from transformers import AutoConfig

    from workers.training.base.types import Prompt
    from workers.training.model.base_model import load_base
    from workers.training.sampling.rollout import Sampling, sample_groups

    config = AutoConfig.from_pretrained(checkpoint / "model")
    plain = loader(config)
    merged = plain.from_pretrained(checkpoint / "model", dtype=torch.float32).eval()
    start = plain.from_pretrained(base, dtype=torch.float32).eval()
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        expected = merged(input_ids=ids).logits
        moved = float((start(input_ids=ids).logits - expected).abs().max())
    if not moved > 0:
        raise AssertionError("nothing was trained")
    text = _greedy(merged, ids)
    found = {"moved": moved}
    if (checkpoint / "adapter").is_dir():
        adapted = PeftModel.from_pretrained(start, checkpoint / "adapter").eval()
        tolerance = TOLERANCE
        if config.dtype not in (None, torch.float32):  # what was merged is rounded, and so this has to be
            adapted = adapted.merge_and_unload().to(config.dtype).float()
            tolerance = ROUNDED_TOLERANCE
        with torch.no_grad():
            apart = float((adapted(input_ids=ids).logits - expected).abs().max() / expected.abs().max())
        if not apart <= tolerance:
            raise AssertionError(f"adapter and merged model are {apart:.1e} apart")
        if _greedy(adapted, ids) != text:
            raise AssertionError("adapter and merged model write other texts")
        found["adapter_apart"] = apart
    own = load_base(checkpoint / "model", adapter="full")
    (group,) = sample_groups(own, [Prompt(0, {}, tuple(ids[0].tolist()))], Sampling(1, 12, 0.0, ("greedy",)))
    sampled = list(group.completions[0].tokens)
    if sampled != text[: len(sampled)]:
        raise AssertionError("the sampler writes another text than plain transformers")
    return found


def _greedy(model: Any, ids: Any) -> list[int]:
    found = model.generate(
        input_ids=ids, attention_mask=ids * 0 + 1, do_sample=False, max_new_tokens=12, use_cache=True
    )
    return [int(token) for token in found[0, ids.shape[1] :]]


def tune(model: Path, method: str, run_dir: Path) -> dict[str, Any]:
    """Trains an epoch of supervised or dpo, and checks the end."""
    from methods.tune_config import TuneConfig
    from workers.training.recorders import Silent
    from workers.tuning.run import tune as run

    config = TuneConfig(
        model="tiny", model_path=str(model), seed=1, method=method, n_epochs=1, batch_size=2,
        learning_rate=1e-2, lora_rank=4, lora_alpha=8.0, eval_interval=2, valid_every=2, save_state_every=2,
        kl_probe_size=4, device="cpu", beta=0.1, probe_tokens=4,
    )  # fmt: skip
    result = run(config, rows(method), rows(method, 2), Silent(), run_dir)
    return delivered(model, result.best.folder)


def try_family(family: Family) -> dict[str, Any]:
    """Returns what each method made of a family: what was measured, or the fault."""
    warnings.filterwarnings("ignore")
    ways: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
        "lora": lambda model, out: reinforce(model, "lora", out),
        "full": lambda model, out: reinforce(model, "full", out),
        "supervised": lambda model, out: tune(model, "supervised", out),
        "dpo": lambda model, out: tune(model, "dpo", out),
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            model = make_model(family, Path(scratch, "model"))
        except Exception as fault:
            return {"model": _fault(fault)}
        for method, way in ways.items():
            try:
                found[method] = way(model, Path(scratch, method))
            except Exception as fault:
                found[method] = _fault(fault)
        if any("fault" in outcome for outcome in found.values()):
            found["trl_trains"] = trl_trains(model, Path(scratch, "trl"))
    return found


def _fault(fault: Exception) -> dict[str, Any]:
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return {"fault": f"{type(fault).__name__}: {str(fault)[:300]}", "at": f"{last.filename}:{last.lineno}"}


def trl_trains(model: Path, out: Path) -> bool:
    """Says whether stock TRL makes a supervised step with a model: only where not, a refusal is right."""
    import datasets
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    data = datasets.Dataset.from_list([row.item for row in rows("supervised")])
    how = SFTConfig(
        output_dir=str(out), max_steps=1, per_device_train_batch_size=2, use_cpu=True, bf16=False,
        report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    try:
        SFTTrainer(model=str(model), args=how, train_dataset=data).train()
    except Exception:  # whatever it says, it is a refusal
        return False
    return True
