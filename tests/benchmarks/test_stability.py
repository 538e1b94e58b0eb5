"""The stability grid's plan, data sets, resume, statistics and bars, and one short run from end to end."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from benchmarks.stability import bars, datasets, prompts, results
from benchmarks.stability.chunks import make_chunk
from benchmarks.stability.datasets import BY_NAME, GRID, DataSet
from benchmarks.stability.engine import run_ours
from benchmarks.stability.evaluation import Judge
from benchmarks.stability.findings import Finding, found_in, pairs
from benchmarks.stability.material import JobGrader, material_of
from benchmarks.stability.models import Models
from benchmarks.stability.plan import Run, plan, runs_of
from benchmarks.stability.report import text_of
from benchmarks.stability.sampler import Loaded, sample
from benchmarks.stability.statistics import clustered, highest_rate, holm, interval, worse_p, worst_decile


def finding(
    rows, *, data="clean", rate=1, seed=0, canary=1.0, actions=(), part="grid", verdict="better_unseen"
):
    """A run whose base earns 0.5 on each of 12 rows, its model `rows` more; None delivers the base."""
    base = {"worth": [0.5] * 12, "meant": [0.5] * 12, "canary": 1.0, "kl": 0.0}
    model = (
        None
        if rows is None
        else {**base, "worth": [0.5 + each for each in rows], "canary": canary, "kl": 0.1}
    )
    facts = {"verdict": verdict, "actions": list(actions), "seconds": 5.0, "cpu_seconds": 4.0, "steps": 40}
    result = {"build": "abc", "status": "succeeded", **facts, "models": {"base": base, "delivered": model}}
    run = next(each for each in plan().values() if each.id == f"{part}/{data}/x{rate}/s{seed}")
    return Finding(run, {"id": run.id, **result}, "delivered")


UP, DOWN = [0.3, 0.2] * 6, [-0.3, -0.2] * 6


def test_the_plan_is_the_one_that_was_announced():
    parts = Counter(run.part for run in plan().values())
    assert len(GRID) == 16
    assert parts["grid"] == 16 * 3 * 7 == 336
    assert 3 * parts["trl"] == parts["grid"]
    assert (parts["coin"], parts["smol"]) == (200, 12)
    clean = [run for run in runs_of("ours") if run.data.is_clean and run.rate == 1]
    assert len(clean) >= 100
    assert {run.rate for run in plan().values() if run.part == "grid"} == {1, 3, 10}


def test_every_run_of_the_peer_has_one_of_ours_with_the_same_rows():
    ours = {(run.data.name, run.rate, run.seed): run for run in runs_of("ours")}
    for run in runs_of("trl"):
        mine = ours[run.data.name, run.rate, run.seed]
        assert mine.has_file
        assert material_of(run) == material_of(mine)


@pytest.mark.parametrize("name", BY_NAME)
def test_rows_follow_from_the_run_and_no_test_row_is_trained_on(name):
    run = plan()[f"grid/{name}/x1/s1"]
    material = material_of(run)
    assert material == material_of(replace(run, rate=10))
    asked = [{item["messages"][0]["content"] for item in rows} for rows in material[:3]]
    assert len(asked[2]) == 48
    assert not asked[2] & (asked[0] | asked[1])
    assert not asked[0] & asked[1]


def test_a_fifth_of_the_labels_is_flipped_in_training_and_none_in_the_test():
    run = plan()["grid/flipped/x1/s0"]
    material = material_of(run)
    assert sum(item["flipped"] for item in material.train) == 8
    assert all("flipped" not in item for item in material.test)
    grader = JobGrader(run.data, 0)
    paid = {item["flipped"]: grader.pays(item["reference"], item) for item in material.train}
    assert paid == {False: 1.0, True: 0.0}


def test_contradictory_rows_pay_for_one_answer_each_and_the_test_for_half_of_both():
    run = plan()["grid/contradictory/x1/s0"]
    material, grader = material_of(run), JobGrader(run.data, 0)
    first, second = material.train[:2]
    assert first["messages"] == second["messages"]
    assert [grader.pays(first["reference"], item) for item in (first, second)] == [1.0, 0.0]
    assert material.worth(first["reference"], first) == material.worth(first["other"], first) == 0.5


def test_a_coin_is_fair_and_the_same_in_every_order():
    data = BY_NAME["random"]
    items = prompts.different(prompts.story, 10, random.Random(1))
    asked = [(f"text {i % 40}", item) for i in range(80) for item in items]
    there, back = JobGrader(data, 0), JobGrader(data, 0)
    paid = [there.pays(*each) for each in asked]
    assert Counter(paid) == Counter(back.pays(*each) for each in reversed(asked))
    assert abs(sum(paid) / len(paid) - 0.5) < 4 * 0.5 / math.sqrt(len(paid))


@pytest.mark.parametrize(
    ("name", "seed", "low", "high"),
    [("constant", 0, 0.5, 0.5), ("constant", 1, 0.5, 0.50001), ("scale", 0, 0, 1e-6), ("scale", 1, 0, 1e6)],
)
def test_a_job_sees_the_worth_through_its_data_sets_fault(name, seed, low, high):
    run = plan()[f"grid/{name}/x1/s{seed}"]
    item = material_of(run).train[0]
    paid = [JobGrader(run.data, seed).pays(text, item) for text in ("", f"{item['name']} mmm" * 9)]
    assert low <= min(paid) <= max(paid) <= high


def test_a_tenth_of_the_grades_breaks():
    run = plan()["grid/errors/x1/s0"]
    item, grader = material_of(run).train[0], JobGrader(run.data, 0)
    broken = sum(grader.pays(str(i), item) is None for i in range(1000))
    assert 60 < broken < 140


def test_a_length_that_is_paid_for_is_not_what_was_meant():
    assert datasets.long("ha " * 60, {}) == 1
    assert datasets.sentence("ha " * 30 + ".", {}) == 0
    assert datasets.sentence("Tom went to the park to look for his red ball.", {}) == 1
    assert (datasets.often("play play play", {}), datasets.once("play play play", {})) == (1, 0)


@pytest.mark.parametrize(
    ("text", "worth"), [("42", 1), (" 17 + 25 = 42.\n\nSo 7", 1), ("42 - 17 = 25", 0), ("", 0), ("no", 0)]
)
def test_a_sum_is_judged_by_the_last_number_of_the_first_line(text, worth):
    assert datasets.last_number(text, {"reference": "42"}) == worth


def test_a_chunk_makes_what_is_missing_in_order_and_stops_in_time(tmp_path):
    runs, path, now = runs_of("coin")[:5], tmp_path / "coin.jsonl", [0.0]
    made = []

    def make(run):
        now[0] += 10
        made.append(run.id)
        return {"status": "succeeded"}

    def chunk(seconds):
        return make_chunk(runs, path, make, facts={"build": "a"}, seconds=seconds, clock=lambda: now[0])

    assert chunk(15) == 3
    assert chunk(5) == 2
    path.write_text(path.read_text() + '{"id": "coin/coin-f')  # killed while it wrote
    assert chunk(100) == 0
    assert made == [run.id for run in runs]
    assert list(results.read(path)) == made


def test_two_chunks_do_not_write_into_one_file(tmp_path):
    with results.appending(tmp_path / "a.jsonl"), pytest.raises(BlockingIOError):
        make_chunk([], tmp_path / "a.jsonl", lambda _: {}, facts={}, seconds=1)


def test_holm_by_hand():
    assert holm([0.012, 0.2, 0.03, 0.001]) == [True, False, False, True]  # 0.03 > 0.05 / 2
    assert holm([]) == []


def test_a_one_sided_test_knows_its_side():
    assert worse_p(DOWN) < 1e-6
    assert worse_p(UP) > 0.999
    assert (worse_p([0.0] * 9), worse_p([-0.1] * 9)) == (1.0, 0.0)
    rng = random.Random(1)
    falls = [worse_p([rng.gauss(0, 1) for _ in range(12)]) <= 0.05 for _ in range(400)]
    assert 0.02 < sum(falls) / 400 < 0.08


def test_an_interval_by_hand():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.stderr) == (2.0, pytest.approx(1 / math.sqrt(3)))
    assert found.high - found.mean == pytest.approx(4.3027 / math.sqrt(3), abs=1e-3)
    twice = clustered([1.0, 1.0, 2.0, 2.0, 3.0, 3.0], "aabbcc")
    assert twice.stderr == pytest.approx(found.stderr)
    assert clustered([1.0, 2.0], "aa").low == -math.inf


def test_the_worst_tenth_and_the_highest_rate():
    assert worst_decile([float(i) for i in range(20)]) == 0.5
    assert highest_rate(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))


def test_bars_are_missed_by_what_they_forbid_and_met_by_what_they_allow():
    good, base = finding(UP), finding(None, seed=1)
    worse = finding(DOWN, data="hackable", verdict="better_training")
    wrecked = finding(UP, data="five", canary=2.5)
    assert bars.never_worse([good, base]).is_met
    assert not bars.never_worse([good, base, worse]).is_met
    assert worse.run.id in bars.never_worse([good, worse]).said
    assert bars.gains([good, finding(UP, seed=1), base]).is_met
    assert not bars.gains([good, worse]).is_met
    assert bars.forgetting([good, base]).is_met
    assert not bars.forgetting([good, wrecked]).is_met


def test_alarms_are_false_where_the_run_was_sound():
    acted = [{"step": 5, "kind": "roll_back", "reason": "kl", "is_done": True}]
    warned = [{"step": 5, "kind": "roll_back", "reason": "kl", "is_done": False}]
    sound = [finding(UP, seed=seed, actions=warned) for seed in range(2)] * 50
    hot, faulty = finding(UP, rate=10, actions=acted), finding(UP, data="flipped", actions=acted)
    false = [finding(UP, seed=seed, actions=acted) for seed in range(3)]
    assert bars.false_alarms([*sound, *false[:2], hot, faulty]).is_met
    assert not bars.false_alarms([*sound, *false]).is_met
    assert bars.false_alarms(sound[:50]).is_met is None


def test_claims_under_a_coin_are_counted_by_what_the_job_says():
    claimed = [
        finding(None, data="coin-few", part="coin", seed=seed, verdict="better_training") for seed in (0, 1)
    ]
    silent = [
        finding(UP, data="coin-few", part="coin", seed=seed, verdict="not measured") for seed in range(2, 50)
    ]
    few = bars.false_claims([*claimed, *silent])
    assert few.said.startswith("2 of 50")
    assert few.is_met is None
    assert bars.false_claims([*claimed, *silent * 5]).is_met
    assert not bars.false_claims([*claimed * 8, *silent * 5]).is_met


def test_a_peer_is_compared_pair_by_pair():
    ours = [finding(UP, rate=10, seed=seed) for seed in range(3)]
    peer = [finding(DOWN, rate=10, seed=seed) for seed in (2, 0)]
    assert [(a.run.seed, b.run.seed) for a, b in pairs(ours, peer)] == [(0, 0), (2, 2)]
    (bar,) = bars.beside_peer(ours, peer)
    assert bar.is_met
    assert "+0.500 +- 0.000 (n=2)" in bar.said
    (bar,) = bars.beside_peer(peer, ours)
    assert not bar.is_met


def test_the_report_has_a_line_for_each_bar_and_data_set(tmp_path):
    every = [finding(UP, seed=0), finding(None, seed=1), finding(DOWN, data="five", rate=3)]
    lines = [json.dumps(each.result) for each in every]
    lines.append(json.dumps({"id": "grid/noisy/x1/s0", "build": "abc", "status": "broke", "said": "oh"}))
    (tmp_path / "ours.jsonl").write_text("\n".join(lines) + "\n")
    text = text_of(tmp_path)
    assert len(found_in(tmp_path / "ours.jsonl", ("grid",))) == 3
    assert "1 of 2 tuned models by Holm" in text
    assert "| clean, verifiable | x1 | 0.500 | 0.625 | 1 of 2 |" in text
    assert "grid/noisy/x1/s0: broke, oh" in text


class Scripted:
    """A model of 4 tokens whose next one depends on the last alone."""

    def __init__(self, rows):
        self.probs = torch.tensor(rows)

    def __call__(self, *, input_ids, past_key_values, logits_to_keep=0, **_):
        from types import SimpleNamespace

        if not past_key_values.get_seq_length():  # of the prompt, so that the cache has something to repeat
            state = torch.zeros(len(input_ids), 1, 1, 1)
            past_key_values.update(state, state, 0)
        return SimpleNamespace(logits=self.probs[input_ids].log()[:, -logits_to_keep:])


def test_samples_follow_the_model_and_end_at_an_end_token():
    """From 1 on: 2 or the end (3), evenly; from 2 on: the end."""
    model = Scripted([[0.25] * 4, [0, 0, 0.5, 0.5], [0, 0, 0, 1.0], [0.25] * 4])
    tokenizer = type("Tokenizer", (), {"decode": lambda _, tokens, **__: "".join(map(str, tokens))})()
    loaded = Loaded(model, tokenizer, frozenset([3]))
    found = sample(loaded, [[0, 1], [1]], samples=400, max_tokens=5, seed=7)
    texts = Counter(answer.text for row in found for answer in row)
    assert set(texts) == {"2", ""}
    assert 320 < texts[""] < 480
    assert found == sample(loaded, [[0, 1], [1]], samples=400, max_tokens=5, seed=7)


@pytest.mark.slow
def test_a_short_job_is_made_and_judged(tmp_path):
    data = DataSet("short", "", (datasets.COUNT,), train_rows=4)
    run = Run("grid", data, 1, 0, has_file=True, n_epochs=1)
    material, model = material_of(run), Models(tmp_path).folder_of("nano")
    outcome = run_ours(run, material, model, tmp_path / "run")
    assert outcome.facts["status"] == "succeeded"
    assert outcome.facts["steps"] == 1
    judged = Judge().judge(run, material, model, outcome.models)
    assert len(judged["base"]["worth"]) == 48
    assert 0.2 < sum(judged["base"]["worth"]) / 48 < 0.5
    assert judged["base"]["kl"] == 0
