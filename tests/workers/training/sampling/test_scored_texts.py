"""What a checkpoint notes of its weights is what they answer with, loaded as they are served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.workers.training.conftest import moved
from tests.workers.training.support import make_config
from workers.jobs.served import TOLERANCE, check_served, served_warning
from workers.training.checkpoints import make_checkpoint, save_checkpoint
from workers.training.evaluate import Estimate
from workers.training.measures.canary import SCORED, Canary
from workers.training.model.policy import Policy
from workers.training.sampling.scored_texts import FILE, largest_difference, logprobs_by_steps, read_scored

CPU = torch.device("cpu")


def saved(policy: Policy, config, folder: Path) -> Path:
    """Writes a checkpoint of the policy as a run does, with what the trainer makes of the canary."""
    with policy.as_delivered():
        loss = Canary(policy).measure()
    assert loss is not None
    checkpoint = make_checkpoint(folder, 2, 1, Estimate(0.1, 0.01, 8), None, scored=loss.scored)
    save_checkpoint(policy, checkpoint)
    return folder


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_model_answers_as_its_trainer_noted(sharp, adapter, tmp_path):
    config = make_config(sharp, adapter=adapter)
    policy = Policy.load(config)
    moved(policy)
    folder = saved(policy, config, tmp_path / "step_000002")
    assert len(read_scored(folder)) == SCORED
    found = check_served(folder, sharp, CPU)
    assert found is not None
    assert 0 < found.served_difference <= TOLERANCE == found.served_tolerance
    assert found.served_tokens == sum(len(text.logprobs) for text in read_scored(folder))
    assert served_warning(2, found) is None


def test_a_model_that_is_another_is_told(sharp, tmp_path):
    config = make_config(sharp)
    policy = Policy.load(config)
    folder = saved(policy, config, tmp_path / "step_000002")
    assert check_served(folder, None, CPU).served_difference <= TOLERANCE
    weights = load_file(folder / "model" / "model.safetensors")
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    save_file(weights | {name: weights[name] * 1.5}, folder / "model" / "model.safetensors", {"format": "pt"})
    found = check_served(folder, None, CPU)
    assert found is not None
    assert found.served_difference > 0.01
    assert "is not the one that was trained" in str(served_warning(2, found))


def test_a_number_that_is_none_is_the_largest_difference(sharp, tmp_path):
    config = make_config(sharp)
    policy = Policy.load(config)
    text = read_scored(saved(policy, config, tmp_path / "step_000002"))[0]
    assert largest_difference(policy, [replaced(text, float("nan"))]) == float("inf")
    assert largest_difference(policy, [replaced(text, text.logprobs[0] - 2)]) == pytest.approx(2, abs=1e-3)


def replaced(text, logprob: float):
    return text._replace(logprobs=(logprob, *text.logprobs[1:]))


@torch.no_grad()
def test_texts_of_any_length_are_scored_as_by_a_plain_forward(sharp):
    policy = Policy.load(make_config(sharp))
    texts = [(5, 6), (7, 8, 9, 10, 11), (3, 3, 4)]
    for text, found in zip(texts, logprobs_by_steps(policy, texts), strict=True):
        logprobs = policy.rollout_model(input_ids=torch.tensor([text])).logits[0].log_softmax(-1)
        assert found == pytest.approx(logprobs[range(len(text) - 1), text[1:]].tolist(), abs=1e-4)


def test_a_checkpoint_without_texts_is_not_checked(sharp, tmp_path):
    config = make_config(sharp)
    policy = Policy.load(config)
    folder = saved(policy, config, tmp_path / "step_000002")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert FILE in manifest["files"]
    assert "scored" not in manifest
    (folder / FILE).unlink()
    assert check_served(folder, None, CPU) is None
