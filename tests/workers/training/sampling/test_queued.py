"""Steps that are read one step late sample what one by one does, whatever ends, waits or moves meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.sizes.sampler import Costs, Needs, Shape, plan
from tests.properties import examples
from tests.workers.training.support import make_config
from workers.training.base.types import Group, Prompt
from workers.training.model.policy import Policy
from workers.training.sampling import decoders
from workers.training.sampling.decode_step import Ints
from workers.training.sampling.graphed.kept import release
from workers.training.sampling.graphed.shapes import rung, sizes
from workers.training.sampling.graphed.slots import Slots
from workers.training.sampling.rollout import SamplerLimits, Sampling, sample_groups

LENGTHS = (3, 90, 17, 1, 40)
SAMPLING = Sampling(samples=4, max_tokens=40, temperature=1.0, key=("train", 1, 5))


@pytest.fixture(scope="module")
def policy(sharp: Path) -> Policy:
    """One token in thirteen ends a completion."""
    policy = Policy.load(make_config(sharp))
    policy.end_ids = tuple(range(0, 256, 13))
    return policy


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(row, {}, tuple(torch.randint(0, 256, (n,), generator=generator).tolist()))
        for row, n in enumerate(LENGTHS)
    ]


def assert_same(found: list[Group], expected: list[Group]) -> None:
    for one, other in zip(found, expected, strict=True):
        for mine, theirs in zip(one.completions, other.completions, strict=True):
            assert mine.tokens == theirs.tokens
            assert (mine.text, mine.finish_reason) == (theirs.text, theirs.finish_reason)
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=3e-5)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"temperature": 0.7}, id="tempered"),
        pytest.param({"temperature": 0.0}, id="greedy"),
        pytest.param({"top_p": 0.8}, id="nucleus"),
        pytest.param({"stop": ("e", "th", "\N{REPLACEMENT CHARACTER}a")}, id="stops"),
        pytest.param({"samples": 1}, id="one-each"),
        pytest.param({"max_tokens": 1}, id="one-token"),
        pytest.param({"max_tokens": 2}, id="two-tokens"),
    ],
)
def test_tokens_read_late_are_those_of_one_by_one(
    policy: Policy, prompts: list[Prompt], changes: dict[str, Any]
) -> None:
    asked = dataclasses.replace(SAMPLING, **changes)
    expected = sample_groups(policy, prompts, asked, make_decoder=decoders.by_modules)
    assert_same(sample_groups(policy, prompts, asked, is_queued=True), expected)


@pytest.mark.parametrize("slots", [4, 9, 13])
def test_few_slots_refilled_sample_what_plenty_do(policy: Policy, prompts: list[Prompt], slots: int) -> None:
    expected = sample_groups(policy, prompts, SAMPLING, make_decoder=decoders.by_modules)
    found = sample_groups(policy, prompts, SAMPLING, limits=SamplerLimits(slots=slots), is_queued=True)
    assert_same(found, expected)


def test_rows_and_prompts_that_close_up_are_sampled_on(policy: Policy, prompts: list[Prompt]) -> None:
    """Of 80 rows few are left in the end, so that steps of 64, 32, 16 and 8 rows follow."""
    many = [dataclasses.replace(prompts[i % 5], row=i) for i in range(40)]
    asked = dataclasses.replace(SAMPLING, samples=2)
    expected = sample_groups(policy, many, asked, make_decoder=decoders.by_modules)
    assert_same(sample_groups(policy, many, asked, is_queued=True), expected)
    release(policy.rollout_model)


def test_completions_are_told_as_they_end_each_once(policy: Policy, prompts: list[Prompt]) -> None:
    told: list[tuple[int, int, Any]] = []
    groups = sample_groups(policy, prompts, SAMPLING, lambda *each: told.append(each), is_queued=True)
    assert sorted(each[:2] for each in told) == [(p, s) for p in range(5) for s in range(4)]
    assert all(groups[prompt].completions[sample] == found for prompt, sample, found in told)
    lengths = [len(found.tokens) for *_, found in told]
    assert lengths == sorted(lengths)


def test_a_prompt_that_leaves_no_room_gets_what_the_context_has(
    policy: Policy, prompts: list[Prompt]
) -> None:
    nearly_full = dataclasses.replace(prompts[0], tokens=tuple(range(1, 254)))
    groups = sample_groups(policy, [nearly_full, prompts[1]], SAMPLING, is_queued=True)
    expected = sample_groups(policy, [nearly_full, prompts[1]], SAMPLING, make_decoder=decoders.by_modules)
    assert_same(groups, expected)


needs = st.builds(
    Needs,
    rows=st.integers(1, 600),
    groups=st.integers(1, 300),
    samples=st.integers(1, 32),
    prompt_columns=st.integers(1, 3000),
    columns=st.integers(1, 5000),
)


@given(calls=st.lists(needs, min_size=1, max_size=4), budget=st.integers(1, 1 << 33))
@examples(200)
def test_a_shape_does_for_all_calls_so_far_and_keeps_to_its_budget(calls: list[Needs], budget: int) -> None:
    costs = Costs(token=1000, row=50_000)
    wanted: Needs | None = None
    for call in calls:
        wanted = call.and_those(wanted)
        shape = plan(wanted, costs, budget)
        assert shape.samples >= call.samples
        assert shape.slots >= call.samples
        assert shape.columns >= call.columns
        assert shape.prompt_columns >= call.prompt_columns
        assert 1 <= shape.groups <= shape.slots
        assert costs.of(shape) <= budget or shape.slots < wanted.samples + 8
    assert wanted is not None
    assert all(call.and_those(wanted) == wanted for call in calls)  # the second time nothing is made anew


@given(call=needs)
@examples(100)
def test_a_step_computes_at_most_twice_what_is_active(call: Needs) -> None:
    shape = plan(call, Costs(token=1, row=1), 1 << 50)
    ready = set(sizes(shape, call))
    rows = min(call.rows, shape.slots)
    for n in {1, 9, rows // 2 + 1, rows}:
        size = rung(n, 8, shape.slots)
        assert size < 2 * max(n, 8)
        for columns in {1, call.columns // 2 + 1, call.columns}:
            width = rung(columns, 128, shape.columns)
            assert width <= 2 * max(columns, 128)
            if n <= rows:
                assert (size, width) in ready
    assert len(ready) <= 8 * 7


def test_what_moves_keeps_its_prompt_and_its_count() -> None:
    slots = Slots(Shape(slots=32, groups=32, samples=1, prompt_columns=64, columns=64))
    rows = np.arange(20)
    placed, _ = slots.start(rows, np.ones(20, np.int64), rows + 5)
    slots.counts[placed] = rows + 1
    slots.leave(np.arange(18)[np.arange(18) % 3 > 0])
    moved, prompts = slots.close_up()
    assert moved is not None
    assert prompts is not None
    assert moved.width == 20
    found = slots.places()
    active: Ints = slots.active
    assert active.max() < slots.size().rows == 8
    kept = slots.row[active]
    assert sorted(kept) == [0, 3, 6, 9, 12, 15, 18, 19]
    assert found.columns[active].tolist() == kept.tolist()
    # the position of the last token: behind a prompt of row + 5 tokens, and row of its own
    assert found.positions[active].tolist() == (2 * kept + 5).tolist()
    assert found.moving.sum() == len(kept)
