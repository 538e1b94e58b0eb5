"""Rows of the training file are held out for validation where a job has no file for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.hold_out import hold_out, n_held_out
from methods.hyperparameters import Facts
from methods.resolve import VALIDATION_SPLIT, ConfigImpossible, resolve_train
from methods.rows import Row
from methods.train_config import TrainConfig


def rows(*texts: str) -> list[Row]:
    return [
        Row(i + 1, {"messages": [{"role": "user", "content": text}], "answer": i})
        for i, text in enumerate(texts)
    ]


def resolve(n_train: int, n_valid: int = 0, **asked: Any) -> TrainConfig:
    method = {"type": "reinforcement", "reinforcement": {"hyperparameters": asked}}
    facts = Facts(512, 256, 20, n_train, n_valid)
    return resolve_train(method, facts, model="m", model_path="m", seed=1)


@pytest.mark.parametrize(("n", "share", "held"), [(40, 0.2, 10), (48, 0.2, 10), (100, 0.2, 20), (100, 0, 0)])
def test_a_share_is_ten_rows_at_least(n: int, share: float, held: int) -> None:
    assert n_held_out(n, share) == held


def test_the_rows_are_divided_in_their_order_by_the_seed() -> None:
    given_rows = rows(*map(str, range(48)))
    train, valid = hold_out(given_rows, 0.2, seed=1)
    assert (len(train), len(valid)) == (38, 10)
    assert sorted(row.place or 0 for row in [*train, *valid]) == list(range(48))
    assert [row.line for row in valid] == sorted(row.line for row in valid)
    assert all(given_rows[row.place or 0].item == row.item for row in valid)
    assert hold_out(given_rows, 0.2, seed=1) == (train, valid)
    assert hold_out(given_rows, 0.2, seed=2)[1] != valid


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=20, max_size=60), st.integers(0, 99))
def test_no_held_out_prompt_is_trained_on(texts: list[str], seed: int) -> None:
    train, valid = hold_out(rows(*texts), 0.2, seed)
    of_train = {row.item["messages"][0]["content"] for row in train}
    assert not of_train & {row.item["messages"][0]["content"] for row in valid}
    assert len(train) + len(valid) == len(texts)
    assert len(valid) <= n_held_out(len(texts), 0.2)


@pytest.mark.parametrize(
    ("n_train", "n_valid", "split"), [(39, 0, 0.0), (40, 0, 0.2), (500, 0, 0.2), (500, 3, 0.0)]
)
def test_a_fifth_is_held_out_from_forty_rows_on(n_train: int, n_valid: int, split: float) -> None:
    assert resolve(n_train, n_valid).validation_split == split


def test_the_steps_are_those_of_the_rows_that_are_left() -> None:
    config = resolve(48)
    assert config.prompts_per_step == 8
    assert config.eval_interval == 5  # ceil(38 / 8)
    assert resolve(48, validation_split=0).eval_interval == 6


@pytest.mark.parametrize(("n_train", "n_valid"), [(19, 0), (100, 5)])
def test_a_share_that_cannot_be_held_out_is_refused(n_train: int, n_valid: int) -> None:
    with pytest.raises(ConfigImpossible) as refused:
        resolve(n_train, n_valid, validation_split=0.2)
    assert refused.value.param == VALIDATION_SPLIT
