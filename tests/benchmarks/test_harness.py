"""The benchmarks' arithmetic, and one small case of each from end to end. No test looks at how fast it is."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from types import SimpleNamespace

import pytest

from benchmarks import scale, soak
from benchmarks.engine import memory, report
from benchmarks.engine.gemm import Linears, gemm_rate, linears_of, share_of_rate, step_flops
from benchmarks.engine.models import Shape, build, byte_tokenizer
from benchmarks.engine.setup import Setup
from benchmarks.engine.timing import PHASES, Seconds, StepCost, Timer, milliseconds_per_token, ratio_of
from benchmarks.engine.workloads import WORKLOADS, Workload, make_reward, make_rows
from tests.tiny_model import make_tiny_model

TINY = Workload("tiny", "", 60, 5, 2, 3, False, "random", 4)


def cost(seconds, tokens, phase="train", reward=0.0):
    return StepCost({phase: Seconds(seconds, 2 * seconds)}, (tokens,), 0, reward)


def make_setup(folder, workload=TINY, **changes):
    fields = {"model": "tiny", "adapter": "lora", "dtype": "float32", "device": "cpu", "steps": 4}
    return Setup(workload=workload, folder=str(folder), **{**fields, **changes})


def test_time_counts_for_the_innermost_phase_alone():
    """The test moves the clock; CPU time runs at half the pace of wall time."""
    clock = SimpleNamespace(at=0.0)
    timer = Timer("cpu", lambda: Seconds(clock.at / 2, clock.at))
    with timer.phase("rest"):
        clock.at += 1
        with timer.phase("generate"):
            clock.at += 10
            with timer.phase("reference"):
                clock.at += 100
            clock.at += 1000
        clock.at += 10_000
    clock.at += 5  # belongs to no phase
    spent = timer.take()
    assert {name: seconds.wall for name, seconds in spent.items()} == {
        "rest": 10_001,
        "generate": 1010,
        "reference": 100,
    }
    assert spent["generate"].cpu == 505
    assert timer.take() == {}


def test_ratio_is_of_times_per_token_pair_by_pair():
    stock = [cost(8.0, 4), cost(9.0, 3), cost(10.0, 1)]
    ours = [cost(2.0, 2), cost(1.0, 1), cost(1.0, 1)]
    assert ratio_of(stock, ours, "cpu") == (3.0, 2.0, 10.0)
    assert ratio_of(stock, ours, "wall", "train") == (3.0, 2.0, 10.0)
    assert ratio_of(stock, ours, "cpu", "reference") is None
    assert milliseconds_per_token(stock, "wall") == pytest.approx(6000.0)


def test_least_work_of_a_step_by_hand():
    """10 prompt and 4 sampled tokens; 6 weights in the body, 15 in the head."""
    linears = Linears([(1, 2), (2, 2)], (3, 5))
    lora = 6 * (2 * 10 + 2 * 4 + 2 * 14 + 4 * 14) + 15 * (2 + 2 + 4) * 4
    assert step_flops(linears, "lora", 10, 4) == lora
    assert step_flops(linears, "full", 10, 4) == lora + 2 * (6 * 14 + 15 * 4)


def test_learning_curve_is_the_mean_reward_of_each_sixth():
    steps = [cost(1.0, 1, reward=float(i)) for i in range(12)]
    assert report.curve_of(steps) == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]


@pytest.mark.parametrize("name", ["w1", "w2"])
def test_prompts_have_the_workloads_length(name):
    tokenizer = byte_tokenizer(1000)
    assert len(tokenizer) == 1000
    workload = WORKLOADS[name]
    rows = make_rows(workload, tokenizer)
    lengths = {
        len(
            tokenizer.apply_chat_template(row.item["messages"], add_generation_prompt=True, return_dict=False)
        )
        for row in rows
    }
    assert lengths == {workload.prompt_tokens}
    assert len({row.item["messages"][0]["content"] for row in rows}) == workload.rows


def test_half_of_w3s_groups_have_no_spread():
    reward = make_reward(WORKLOADS["w3"])
    spreads = [len({reward(f"answer {i}", row) for i in range(8)}) > 1 for row in range(32)]
    assert sum(spreads) == 16


def test_rewards_are_the_same_for_both_sides():
    for workload in WORKLOADS.values():
        one, other = make_reward(workload), make_reward(workload)
        assert [one(t, i) for i in range(4) for t in "ab"] == [other(t, i) for i in range(4) for t in "ab"]


def test_exponent_of_a_power_law():
    assert scale.exponent([1, 2, 4], [5.0, 5 * 2**1.5, 5 * 4**1.5]) == pytest.approx(1.5)


def test_scale_doubles_one_size_at_a_time():
    for axis, values in scale.AXES.items():
        assert all(b == 2 * a for a, b in pairwise(values))
        assert scale.BASE[axis] in values


def test_soak_sees_a_leak_and_passes_over_the_warm_up():
    rng = random.Random(0)

    def grown(per_step):
        return [
            soak.Memory(
                step, int(4e8 + min(step, 200) * 1e6 + max(step - 200, 0) * per_step + rng.random()), 6, 9
            )
            for step in range(0, 2001, 20)
        ]

    steady, leaking = soak.plateau_of(grown(0)), soak.plateau_of(grown(15e3))
    assert steady.growth < 1
    assert leaking.growth > soak.ALLOWED_GROWTH
    assert leaking.per_1000_steps == pytest.approx(15e6, rel=0.01)
    with pytest.raises(ValueError, match="too few steps"):
        soak.plateau_of(grown(0)[:11])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_a_tiny_case_from_end_to_end(tmp_path):
    """Both sides sample as many tokens for the same prompts, with times for every phase, and are reported."""
    from benchmarks.engine.pairs import run_pairs

    folder = make_tiny_model(tmp_path / "model", scale=0.3)
    setup = make_setup(folder)
    pairs = run_pairs(setup)
    for side in pairs:
        assert [step.lengths for step in side] == [(5,) * 6] * 4
        assert {step.prompt_tokens for step in side} == {2 * 60}
        assert all(set(step.spent) == set(PHASES) for step in side)
        assert all(seconds.cpu > 0 for step in side for seconds in step.spent.values())
    linears = linears_of(setup.folder)
    rate = gemm_rate(linears, setup)
    shares = tuple(share_of_rate(side, linears, rate, setup) for side in pairs)
    peak = memory.measure("ours", setup)
    assert peak.whole > peak.training > 0
    result = report.Result(setup, pairs, (peak, peak), rate, shares)
    text = report.text_of([result], threads=1)
    assert text.count("| tiny | tiny | lora |") == 6
    assert len(json.loads(json.dumps(report.data_of([result])))[0]["ours"]) == 4
    assert Setup.from_json(setup.to_json()) == setup


@pytest.mark.slow
def test_warm_up_makes_a_model_end_its_answers(tmp_path):
    from benchmarks.engine.ours import Ours

    shape = Shape(hidden=64, intermediate=128, layers=2, vocab=300, head_dim=16, warm_up_steps=60)
    workload = Workload("natural", "", 60, 64, 4, 8, True, "random", 4)
    with Ours(make_setup(build(shape, tmp_path / "model"), workload)) as ours:
        lengths = ours.step(0).lengths
    assert 8 < sum(lengths) / len(lengths) < 40
    assert sum(length < 64 for length in lengths) > 24


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scale_measures_a_point_and_draws(tmp_path):
    setup = scale.make_setup({"P": 1, "G": 2, "T": 4, "V": 512}, tmp_path)
    point = scale.run_point(setup)
    assert point["tokens"] == 8
    points = [scale.Point(n, point["cpu"] * n, 8 * n, point["memory"]) for n in (1, 2, 4)]
    found = dict.fromkeys("PGTV", points)
    assert "| prompts per step | 1.00 | 0.00 |" in scale.text_of(found)
    scale.draw(found, tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").stat().st_size < 60_000
