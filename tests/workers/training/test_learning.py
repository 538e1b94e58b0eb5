"""It learns: reward goes up."""

import json

import pytest

from graders import build_grader, parse_grader
from methods.algorithms import RECIPES
from methods.rows import read_rows
from tests.shared_data import shared_path
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.loop import train

pytestmark = pytest.mark.slow


def letters(model, run_dir, steps, **changes):
    """A random model is to write nothing but the letters a to t."""
    config = make_config(
        model,
        **{
            "n_epochs": steps,
            "prompts_per_step": 4,
            "group_size": 16,
            "max_completion_tokens": 8,
            "eval_interval": steps,
            "eval_samples": 4,
            "learning_rate": 2e-2,
            "beta": 0.0,
            **changes,
        },
    )
    recorder = ListRecorder()
    valid = make_rows("v", "w", "x", "y", "z")
    result = train(config, make_rows(*"abcd"), valid, FunctionGrader(early_letters), recorder, run_dir)
    rewards = recorder.series("reward/mean")
    return result, rewards[0], sum(rewards[-5:]) / 5, recorder


@pytest.mark.parametrize(("adapter", "rate"), [("lora", 2e-2), ("full", 5e-3)])
def test_reward_rises_from_chance_to_nine_tenths(sharp, tmp_path, adapter, rate):
    result, first, last, _ = letters(sharp, tmp_path, 40, adapter=adapter, learning_rate=rate)
    assert first < 0.2
    assert last >= 0.9
    assert result.best.step == 40
    assert result.best.valid_reward >= 0.9


@pytest.mark.parametrize("algorithm", [name for name in RECIPES if name != "grpo"])
def test_every_algorithm_comes_from_chance_to_nine_tenths(sharp, tmp_path, algorithm):
    result, first, last, _ = letters(sharp, tmp_path, 32, algorithm=algorithm)
    assert first < 0.2
    assert last >= 0.9
    assert result.best.valid_reward >= 0.85


@pytest.mark.parametrize("algorithm", RECIPES)
def test_a_constant_grader_moves_no_weight(sharp, tmp_path, algorithm):
    """With the algorithm's own settings: dynamic sampling finds nothing, and a KL of 0 pulls nowhere."""
    config = make_config(sharp, algorithm=algorithm, n_epochs=1)
    recorder = ListRecorder()
    grader = FunctionGrader(lambda text, item: 0.7)
    result = train(config, make_rows(*"abcd"), [], grader, recorder, tmp_path)
    assert result.trained_tokens == 0
    saved = [entry.folder / "model" / "model.safetensors" for (entry,) in recorder.all("checkpoint")]
    assert len(saved) == 2
    assert len({file.read_bytes() for file in saved}) == 1


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce_pp", "ppo"])
def test_a_penalty_in_the_reward_keeps_the_policy_near(sharp, tmp_path, algorithm):
    """Eight steps towards the letters, with a penalty that outweighs them and without."""
    *_, rose, free = letters(sharp, tmp_path / "free", 8, algorithm=algorithm)
    *_, stayed, held = letters(sharp, tmp_path / "held", 8, algorithm=algorithm, beta=1.0)
    assert held.series("kl/probe_mean")[-1] < 0.5 * free.series("kl/probe_mean")[-1]
    assert stayed < rose


def stories(tmp_path, grader=None, **changes):
    """19 prompts and a pretrained model of 260,000 parameters, with what `auto` stands for."""
    data, model = shared_path("data/tinystories-prompts-19"), shared_path("models/stories260k")
    auto = {
        "n_epochs": 14,
        "prompts_per_step": 8,
        "group_size": 8,
        "max_completion_tokens": 64,
        "learning_rate": 2e-3,
        "lora_rank": 16,
        "lora_alpha": 32.0,
        "beta": 0.04,
        "eval_interval": 50,
        "kl_probe_size": 64,
    }
    config = make_config(model, **{**auto, **changes})
    recorder = ListRecorder()
    grader = grader or build_grader(parse_grader(json.loads((data / "grader.json").read_text())))
    rows = read_rows(data / "train.jsonl")
    return train(config, rows, [], grader, recorder, tmp_path), recorder


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_stories_come_to_mention_the_keyword(tmp_path, seed):
    result, recorder = stories(tmp_path, seed=seed)
    rewards = recorder.series("reward/mean")[:40]
    assert sum(rewards[:3]) / 3 < 0.2
    assert sum(rewards[-5:]) / 5 >= 0.9
    assert 0 < result.best.kl < 3


@pytest.mark.slow
def test_a_constant_grader_does_not_move_the_stories(tmp_path):
    result, recorder = stories(tmp_path, FunctionGrader(lambda text, item: 1.0), seed=3, n_epochs=1)
    assert (result.trained_tokens, result.best.kl) == (0, 0.0)
    files = [saved.folder / "model" / "model.safetensors" for (saved,) in recorder.all("checkpoint")]
    assert len({file.read_bytes() for file in files}) == 1
