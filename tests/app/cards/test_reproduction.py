"""The same run again: the request that a card means, and what two cards say of how it came out."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from app.cards.reproduction import CannotReproduce, as_run, compare, hyperparameters, request_of
from app.jobs.methods import DpoHyperparameters, Hyperparameters, SupervisedHyperparameters
from app.jobs.request import checked_method
from app.jobs.schemas import JobCreate
from app.settings import Settings
from methods.algorithms import RECIPES
from methods.hyperparameters import Facts
from methods.resolve import resolve_train, resolve_tuning
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from tests.factories import GRADER

FACTS = Facts(hidden_size=256, context=512, longest_prompt=20, n_train=48, n_valid=0)
ASKED: dict[str, dict[str, Any]] = {
    "all auto": {},
    "multipliers": {"learning_rate_multiplier": 3.0, "compute_multiplier": 2.0},
    "full": {"adapter": "full", "learning_rate_multiplier": 0.1},
    "rank": {"lora_rank": 4, "stop": ["\n", "END"], "temperature": 0.7, "dtype": "bfloat16"},
    "beta": {"beta": 0.1, "scale_advantage": False, "warmup_steps": 5},
    "no guard": {"guard": "off", "early_stop": False, "allow_flat_reward": True, "validation_split": 0},
    "drift": {"kl_target": 0.1, "kl_target_share": 0.5, "kl_probe_size": 5, "kl_probe_samples": 2},
    "no drift": {"kl_target": 0.0, "skip_flat_prompts": False, "guard": "warn", "guard_kl": 1.5},
    "bounds": {"max_steps": 7, "max_seconds": 60.0, "on_budget": "pause", "controls": ["random_reward"]},
    **{name: {"algorithm": name} for name in RECIPES},
}


def resolved(asked: dict[str, Any], facts: Facts = FACTS) -> TrainConfig:
    method = {"reinforcement": {"hyperparameters": Hyperparameters(**asked).model_dump(exclude_none=True)}}
    given = {"grade_concurrency": 16, "grade_failure_limit": 0.25}
    return resolve_train(method, facts, model="m", model_path="/a", seed=7, grading=given)


@pytest.mark.parametrize("facts", [FACTS, FACTS._replace(n_valid=9, n_train=5)], ids=["split", "file"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_a_resolved_config_asked_for_again_is_the_same(asked: dict[str, Any], facts: Facts) -> None:
    first = resolved(asked, facts)
    sent = json.loads(json.dumps(hyperparameters(first.model_dump(mode="json"), "reinforcement")))
    assert resolved(sent, facts) == first


@pytest.mark.parametrize("kind", ["supervised", "dpo"])
@pytest.mark.parametrize(
    "asked", [{}, {"learning_rate_multiplier": 2.0, "lora_rank": 4}, {"adapter": "full"}]
)
def test_so_is_that_of_a_tuned_run(kind: Any, asked: dict[str, Any]) -> None:
    form = SupervisedHyperparameters if kind == "supervised" else DpoHyperparameters

    def tuned(given: dict[str, Any]) -> TuneConfig:
        method = {"type": kind, kind: {"hyperparameters": form(**given).model_dump(exclude_none=True)}}
        return resolve_tuning(method, FACTS, model="m", model_path="/a", seed=7)

    first = tuned(asked)
    assert tuned(hyperparameters(first.model_dump(mode="json"), kind)) == first


@pytest.mark.parametrize(("samples", "meant"), [(1, 0.0), (4, 0.7)])
def test_a_config_of_an_earlier_version_keeps_what_it_meant(samples: int, meant: float) -> None:
    """What it lacks is the old behaviour, which a new job has to ask for."""
    old = {"model": "m", "seed": 1, "n_epochs": 1, "learning_rate": 1e-3, "eval_interval": 5}
    old |= {"prompts_per_step": 4, "group_size": 4, "max_completion_tokens": 8, "eval_samples": samples}
    old["temperature"] = 0.7
    again = resolved(hyperparameters(old, "reinforcement"))
    assert (again.guard, again.early_stop, again.eval_temperature) == ("off", False, meant)
    assert again.model_dump(exclude={"model_path", "seed"}) == as_run(old).model_copy(
        update={"grade_concurrency": 8}
    ).model_dump(exclude={"model_path", "seed"})


def a_card(**changed: Any) -> dict[str, Any]:
    attempt = {"attempt": 1, "device": "cpu", "threads": 2, "versions": {"torch": "2.13.0"}}
    files = {"model/model.safetensors": "1" * 64, "model/config.json": "2" * 64}
    card = {
        "job": {"status": "succeeded", "method": "reinforcement", "model": "m", "suffix": None},
        "data": {"training_file": {"rows_sha256": "a"}},
        "base_model": {"sha256": "b"},
        "grader": {"sha256": "c"},
        "config": resolved({}).model_dump(mode="json"),
        "attempts": [attempt],
        "delivered": {"step": 5, "files": files},
        "checkpoints": [{"delivered": True, "gain": 0.3, "gain_interval": [0.2, 0.4]}],
    }
    card["job"]["resources"] = None
    return copy.deepcopy(card | changed)


def on(device: str = "cpu", torch: str = "2.13.0", attempt: int = 1) -> dict[str, Any]:
    return {"attempt": attempt, "device": device, "threads": 2, "versions": {"torch": torch}}


def delivering(gain: float | None, reach: float | None = 0.1) -> list[dict[str, Any]]:
    known = gain is not None and reach is not None
    interval = [gain - reach, gain + reach] if known else [None, None]
    return [{"delivered": True, "gain": gain, "gain_interval": interval}]


OTHER_WEIGHTS = {"step": 5, "files": {"model/model.safetensors": "9" * 64, "model/config.json": "2" * 64}}
OTHER_CONFIG = {"step": 5, "files": {"model/model.safetensors": "1" * 64, "model/config.json": "8" * 64}}


@pytest.mark.parametrize(
    ("changed", "reproduced", "said"),
    [
        pytest.param({}, True, "bit for bit", id="the same"),
        pytest.param({"attempts": [on(attempt=3)]}, True, "bit for bit", id="in a later attempt"),
        pytest.param({"delivered": OTHER_CONFIG}, True, "bit for bit", id="weights alone count"),
        pytest.param({"delivered": OTHER_WEIGHTS}, False, "the weights differ", id="other weights"),
        pytest.param({"delivered": {"step": 6, "files": {}}}, False, "now that of step 6", id="another step"),
        pytest.param({"job": {"status": "failed"}}, False, "has failed", id="failed"),
        pytest.param({"data": {}}, False, "rows of the training file", id="other rows"),
        pytest.param({"base_model": {"sha256": "x"}}, False, "base model differs", id="another base"),
        pytest.param({"grader": {"sha256": "x"}}, False, "grader differs", id="another grader"),
        pytest.param(
            {"config": resolved({"beta": 0.5}).model_dump(mode="json")}, False, "config beta", id="config"
        ),
        pytest.param(
            {"attempts": [on(torch="2.14.0")]}, True, "versions torch: 2.13.0, then 2.14.0", id="torch"
        ),
        pytest.param({"attempts": [on("cuda")]}, True, "device: cpu, then cuda", id="another device"),
        pytest.param({"attempts": [on(), on(torch="2.14.0", attempt=2)]}, True, "torch", id="moved within"),
        pytest.param({"attempts": []}, True, "not noted", id="of an earlier version"),
    ],
)
def test_what_two_cards_say(changed: dict[str, Any], reproduced: bool, said: str) -> None:
    outcome = compare(a_card(), a_card(**changed))
    assert outcome.reproduced is reproduced
    assert said in " ".join([outcome.sentence, *outcome.details])


def kept(step: int, digit: str) -> dict[str, Any]:
    measured = {"delivered": False, "gain": 0.1, "gain_interval": [0.0, 0.2]}
    return {"step": step, "files": {"model/model.safetensors": digit * 64}, **measured}


def test_where_the_base_was_delivered_the_checkpoints_that_both_have_kept_are_compared() -> None:
    base = {"step": 0, "files": {"model/model.safetensors": "0" * 64}}
    first = a_card(delivered=base, checkpoints=[kept(2, "3"), kept(4, "4")])
    again = compare(first, a_card(delivered=base, checkpoints=[kept(4, "4"), kept(6, "5")]))
    assert again.reproduced
    assert "those of the others that both jobs have kept (of 4)" in again.sentence
    other = compare(first, a_card(delivered=base, checkpoints=[kept(4, "9")]))
    assert (other.reproduced, other.sentence) == (False, "Not reproduced: the weights differ.")
    assert other.details == [f"step 4, model/model.safetensors: {'4' * 64}, then {'9' * 64}"]
    alone = compare(first, a_card(delivered=base, checkpoints=[]))
    assert (alone.reproduced, "no trained checkpoint was kept by both jobs" in alone.sentence) == (True, True)


@pytest.mark.parametrize(
    ("checkpoints", "reproduced"),
    [
        pytest.param(delivering(0.44), True, id="within the interval of the difference"),
        pytest.param(delivering(0.45), False, id="outside it"),
        pytest.param(delivering(0.15), False, id="outside it below"),
        pytest.param(delivering(None), False, id="never measured"),
        pytest.param(delivering(0.3, None), False, id="interval unknown"),
        pytest.param([], False, id="nothing delivered"),
    ],
)
def test_on_a_gpu_rewards_are_compared(checkpoints: list[dict[str, Any]], reproduced: bool) -> None:
    """0.1 either way is the reach of each, so 0.141 is that of their difference."""
    first = a_card(attempts=[on("cuda")])
    outcome = compare(first, a_card(attempts=[on("cuda")], delivered=OTHER_WEIGHTS, checkpoints=checkpoints))
    assert outcome.reproduced is reproduced
    assert "GPU" in outcome.details[0]


def a_job(grader: dict[str, Any]) -> dict[str, Any]:
    files = {"training_file": "file-1", "validation_file": None}
    return {
        "id": "ftjob-1",
        "status": "succeeded",
        "seed": 7,
        "method": {"reinforcement": {"grader": grader}},
    } | files


def test_a_request_names_every_number_and_is_one_that_the_service_takes(settings: Settings) -> None:
    body = request_of(a_job(GRADER), a_card())
    assert (body["seed"], body["metadata"], body["training_file"]) == (7, {"reproduces": "ftjob-1"}, "file-1")
    assert "validation_file" not in body
    kept = checked_method(JobCreate(**body), "proj_1")["reinforcement"]
    assert kept["grader"] == GRADER
    left = {name for name, value in kept["hyperparameters"].items() if value == "auto"}
    assert left == {"learning_rate_multiplier", "compute_multiplier"}, "which no config keeps"


def test_a_simulated_user_and_the_bound_of_its_episodes_are_in_the_request() -> None:
    user = {"type": "user_simulator", "model": "judge", "instructions": "{{item.wish}}", "stop": "END"}
    job = a_job(GRADER)
    job["method"]["reinforcement"] |= {"environment": user, "max_episode_steps": 4}
    block = request_of(job, a_card())["method"]["reinforcement"]
    assert (block["environment"], block["max_episode_steps"]) == (user, 4)


def test_a_grader_whose_headers_are_secret_has_to_be_given() -> None:
    secret = {"type": "endpoint", "name": "e", "url": "https://x.example", "headers": {"a": "********"}}
    with pytest.raises(CannotReproduce, match="--grader FILE"):
        request_of(a_job(secret), a_card())
    assert request_of(a_job(secret), a_card(), GRADER)["method"]["reinforcement"]["grader"] == GRADER


def test_a_job_without_a_result_cannot_be_reproduced() -> None:
    with pytest.raises(CannotReproduce, match="only one that has succeeded"):
        request_of(a_job(GRADER), a_card(job={"status": "failed"}))
