"""What the form says of hyperparameters is what a job would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from app.dashboard.create.numbers import numbers, resolve
from app.dashboard.create.rows import Look, cell
from app.models.models import Model
from methods.hyperparameters import Facts, Method
from methods.resolve import resolve_train
from methods.rows import Row


@pytest.fixture
def model(tmp_path: Path) -> Model:
    import numpy
    from safetensors.numpy import save_file

    save_file({"w": numpy.zeros((4, 8), numpy.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "max_position_embeddings": 1024}))
    return Model(name="small", folder=str(tmp_path))


def rows(count: int) -> Look:
    return Look([Row(1, {})], count, [], 0, is_whole=True, longest=100)


@pytest.mark.parametrize("method", get_args(Method))
def test_every_hyperparameter_has_a_sentence_and_says_what_leaving_it_out_comes_to(
    method: Method, model: Model
) -> None:
    found = resolve(method, {}, model, rows(100), None)
    assert found is not None
    usual, others = numbers(method, found)
    assert {"n_epochs", "batch_size", "learning_rate_multiplier"} <= {one.name for one in usual}
    for one in [*usual, *others]:
        assert one.sentence.endswith("."), one.name
        assert one.left_out, one.name
        assert one.takes, one.name


def test_numbers_and_steps_are_those_that_the_worker_would_resolve(model: Model) -> None:
    asked = {"n_epochs": 3, "group_size": 4}
    found = resolve("reinforcement", asked, model, rows(100), rows(20))
    facts = Facts(64, 1024, longest_prompt=300, n_train=100, n_valid=20)
    block = {"type": "reinforcement", "reinforcement": {"hyperparameters": asked}}
    config = resolve_train(block, facts, model="", model_path="", seed=0)
    assert found is not None
    assert found.steps == config.job_steps(100) == 39
    assert found.values["eval_samples"] == config.eval_samples
    assert found.values["learning_rate"] == config.learning_rate


def test_rows_that_are_held_out_are_told(model: Model) -> None:
    found = resolve("reinforcement", {}, model, rows(100), None)
    assert found is not None
    assert (found.n_train, found.held_out) == (80, 20)


@pytest.mark.parametrize("asked", [{"n_epochs": "many"}, {"n_epochs": -1}, {"learning_rate": 9.0}])
def test_nothing_is_made_up_where_a_number_is_wrong(asked: dict[str, object], model: Model) -> None:
    assert resolve("reinforcement", asked, model, rows(100), None) is None


def test_nothing_is_made_up_of_a_model_that_is_not_here() -> None:
    assert resolve("supervised", {}, Model(name="x", folder="/nowhere"), rows(100), None) is None


def test_a_cell_shows_who_says_what_and_is_never_long() -> None:
    assert cell([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ["x"]}]) == (
        'user: Hi\nassistant: ["x"]'
    )
    assert len(cell("a" * 10_000)) < 500
