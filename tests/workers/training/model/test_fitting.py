"""What fits a GPU: tokens of a pass by free memory, and what is said where a run does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from methods.memory import PASS_TOKENS, Run, of_training
from scripts import memory_tables
from scripts.memory_tables import GB, MODELS, run_of
from workers.training.model import fitting
from workers.training.model.fitting import LEAST_TOKENS, Plan, least_bytes, plan, planned, what_fits

SEVEN = MODELS["7B"]
RUN = run_of(SEVEN, "reinforcement", "lora")


def test_tokens_of_a_pass_follow_from_what_is_free() -> None:
    large, small = (plan(SEVEN, RUN, gb * GB) for gb in (140, 60))
    assert (large, small.recomputes) == (Plan(16_384, recomputes=False), False)
    assert LEAST_TOKENS < small.tokens < large.tokens == PASS_TOKENS
    each = fitting.bytes_of_token(SEVEN, RUN, small)
    assert 0.85 * 60 * GB < small.tokens * each < 60 * GB


def test_layers_are_run_again_where_few_tokens_would_share_a_pass() -> None:
    made = plan(SEVEN, RUN, 20 * GB)
    assert made.recomputes
    assert made.tokens > 4096
    assert not plan(SEVEN, RUN._replace(recomputes=False), 20 * GB).recomputes, "what is asked for holds"
    assert plan(SEVEN, RUN._replace(pass_tokens=777), 200 * GB) == Plan(777, recomputes=False)
    short = RUN._replace(groups=1, samples=2, prompt_tokens=64, answer_tokens=64)
    assert not plan(SEVEN, short, 20 * GB).recomputes, "the whole step fits a pass"


def test_a_planned_run_takes_no_more_than_there_is() -> None:
    for gb in (48, 80, 141):
        made = planned(SEVEN, RUN, gb * GB)
        assert of_training(SEVEN, made).total <= gb * GB


def test_a_run_that_does_not_fit_is_told_what_would() -> None:
    full = run_of(SEVEN, "reinforcement", "full")
    assert least_bytes(SEVEN, full) == pytest.approx(160 * GB, rel=0.01)
    fits = what_fits(SEVEN, full, 80 * GB)
    assert fits == ["adapter 'lora' (28.38 GiB)", "sharding 'fsdp' over 3 GPUs (66.75 GiB)"]
    long = RUN._replace(answer_tokens=60_000, recomputes=False)
    fits = what_fits(SEVEN, long, 48 * GB)
    assert fits == ["max_completion_tokens 2,048 (40.26 GiB)"]


@pytest.mark.parametrize("changed", [{"recomputes": True}, {"answer_tokens": 64}])
def test_less_is_needed_after_each_change(changed: dict[str, Any]) -> None:
    run: Run = RUN._replace(recomputes=False, answer_tokens=2048)
    assert least_bytes(SEVEN, run._replace(**changed)) < least_bytes(SEVEN, run)


@pytest.mark.parametrize(
    "table", [memory_tables.passes, memory_tables.one_gpu, memory_tables.largest, memory_tables.several_gpus]
)
def test_the_tables_of_the_docs_are_those_of_the_arithmetic(table: Callable[[], Iterator[str]]) -> None:
    docs = Path(__file__).parents[4] / "docs" / "scaling.md"
    assert "\n".join(table()) in docs.read_text(), "run `python -m scripts.memory_tables` and paste it"
