"""Trains a tiny random model of every family in families.toml by every method, and writes what came of it.

`python -m scripts.families` runs each family in a process of its own and writes the table of docs/models.md;
`python -m scripts.families NAME ...` prints what came of some. A cell is right only if

* the sampler's log-probabilities are the trainer's, the KL at the start is exactly 0 (LoRA), and
* the delivered model, loaded by plain transformers, and the delivered adapter, by plain PEFT, give the same
  logits and write the same text, which is that of the engine's own sampler.

A refusal is right only where TRL cannot train the model either.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
LIST = HERE / "families.toml"
PAGE = HERE.parent / "docs" / "models.md"
BUILT_IN = HERE.parent / "workers" / "models" / "cherry_nano"
METHODS = ("lora", "full", "supervised", "dpo")

TOLERANCE = 1e-4
"""Nats between sampler and trainer, and difference of logits relative to the largest. Measured over all
families in fp32: at most 2e-5, of linear attention, which is chunked in training and goes step by step in
sampling; a wrong mask, position or state gives 1e-2 and more.
"""
VOCABULARY = 1280
"""Of the built-in model's tokenizer, which every tiny model has."""
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
SECONDS = 600
"""After which a family is given up. Chosen: the slowest took 60."""


class Family(NamedTuple):
    """Is one entry of the list."""

    name: str
    type: str
    released: str
    models: tuple[str, ...]
    config: Mapping[str, Any]


def families() -> list[Family]:
    """Returns the list, in its order."""
    entries = tomllib.loads(LIST.read_text())["family"]
    return [
        Family(
            entry["name"], entry["type"], entry["released"], tuple(entry["models"]), entry.get("config", {})
        )
        for entry in entries
    ]


def make_model(family: Family, folder: Path) -> Path:
    """Writes a tiny random model of a family, with the built-in model's tokenizer and template."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(BUILT_IN)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    special["bos_token_id"] = special["eos_token_id"]
    sizes = SIZES | special
    given = dict(family.config)
    text = given.pop("text_config", None)
    if text is not None:
        config = AutoConfig.for_model(family.type, text_config=sizes | text, **given)
    else:
        config = AutoConfig.for_model(family.type, **(sizes | given))
    torch.manual_seed(0)
    model: Any = loader(config).from_config(config)
    model.generation_config.eos_token_id = special["eos_token_id"]
    model.generation_config.pad_token_id = special["pad_token_id"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loader(config: Any) -> Any:
    """Returns the auto class that the engine loads such a model with."""
    from workers.training.model.base_model import auto_class

    return auto_class(config)


def rows(method: str, n: int = 4) -> list[Any]:
    """Returns some short rows of a method."""
    from methods.rows import Row

    words = ("Say cherry.", "Name the city of the person in question, please.", "Count.", "What is it?")
    return [Row(i + 1, _item(method, words[i % len(words)])) for i in range(n)]


def _item(method: str, text: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    answer = [{"role": "assistant", "content": f"{text} Yes."}]
    if method == "supervised":
        return {"messages": asked + answer}
    if method == "dpo":
        refused = [{"role": "assistant", "content": "No."}]
        return {"input": {"messages": asked}, "preferred_output": answer, "non_preferred_output": refused}
    return {"messages": asked, "answer": text}


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
        for batch in make_batches(packed, config.micro_batch_tokens, policy.device):
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

    plain = loader(AutoConfig.from_pretrained(checkpoint / "model"))
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
        with torch.no_grad():
            apart = float((adapted(input_ids=ids).logits - expected).abs().max() / expected.abs().max())
        if not apart <= TOLERANCE:
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
    return found


def _fault(fault: Exception) -> dict[str, Any]:
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return {"fault": f"{type(fault).__name__}: {str(fault)[:300]}", "at": f"{last.filename}:{last.lineno}"}


def main(names: Sequence[str]) -> None:
    """Tries the named families here, one after the other, and prints what came of each as a line of JSON."""
    for family in families():
        if not names or family.name in names or family.type in names:
            print(json.dumps({"family": family.name, **try_family(family)}), flush=True)


def in_processes(names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns what came of each family, tried in a process of its own."""
    found = []
    for name in names:
        command = [sys.executable, "-m", "scripts.families", name]
        with suppress(subprocess.TimeoutExpired):
            told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            lines = [line for line in told.stdout.splitlines() if line.startswith('{"family"')]
            found.append(json.loads(lines[-1]) if lines else {"family": name, "model": {"fault": "crashed"}})
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
