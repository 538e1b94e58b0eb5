"""Whole runs on the tiny model: what is told, in what order, and how runs end."""

import contextlib
import hashlib
import json
import math
from itertools import groupby

import pytest
import torch

from graders import Failure, FailureKind, Grade, build_grader, parse_grader
from graders.spec import known_range
from methods import metrics
from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    early_letters,
    group_of,
    make_config,
    make_rows,
)
from workers.training import loop, update
from workers.training.base.errors import GradingFailed, NonFinite, OutOfContext, RunCancelled
from workers.training.base.types import Prompt
from workers.training.folders import read_manifest
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import Rewards
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.watch import NON_FINITE_LIMIT

pytestmark = pytest.mark.slow

ROWS = make_rows("one", "two", "three")
VALID = make_rows("four", "five")
FRESH = 33
"""Completions of the three training rows by which a checkpoint is judged: 32 or a few more."""


def run(config, tmp_path, grade=early_letters, valid=VALID, rows=ROWS, **options):
    recorder = ListRecorder()
    result = train(config, rows, valid, FunctionGrader(grade), recorder, tmp_path / "run", **options)
    return result, recorder


def weights_hash(folder):
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_a_run_tells_its_steps_in_order(tiny, tmp_path):
    result, recorder = run(make_config(tiny), tmp_path)
    assert [(step, epoch) for step, epoch, _ in recorder.all("metrics")] == [
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
    ]
    assert [saved.step for (saved,) in recorder.all("checkpoint")] == [0, 2, 4]
    assert [step for step, _ in recorder.all("state")] == [0, 2, 4]
    assert result.steps == 4
    told = [entry[0] for entry in recorder.told if entry[0] != "phase"]
    assert told[:6] == ["rollouts", "rollouts", "note", "metrics", "checkpoint", "state"]
    assert [phase for phase, _ in groupby(phase for (phase,) in recorder.all("phase"))][:8] == [
        "loading",
        "validating",
        "saving",
        "sampling",
        "grading",
        "updating",
        "sampling",
        "grading",
    ]


def test_every_epoch_visits_every_row_once_in_its_own_order(tiny, tmp_path):
    rows = make_rows(*"abcdefg")
    _, recorder = run(make_config(tiny, n_epochs=2, prompts_per_step=3), tmp_path, rows=rows, valid=[])
    seen = {1: [], 2: []}
    for split, _, epoch, groups in recorder.all("rollouts"):
        if split == "train":
            seen[epoch] += [group.prompt.row for group in groups]
    assert sorted(seen[1]) == sorted(seen[2]) == list(range(7))
    assert seen[1] != seen[2]


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_constant_grader_moves_nothing(tiny, tmp_path, adapter):
    config = make_config(tiny, adapter=adapter)
    result, recorder = run(config, tmp_path, lambda text, item: 0.7)
    assert result.best.step == 0
    assert result.trained_tokens == 0
    folders = [saved.folder for (saved,) in recorder.all("checkpoint")]
    assert len({weights_hash(folder) for folder in folders}) == 1
    assert recorder.series("groups/no_spread_share") == [1.0] * 4
    assert recorder.series("optim/lr") == []
    assert recorder.series("kl/probe_mean") == [0.0] * 3
    states = sorted((tmp_path / "run").glob("state_*/optimizer.safetensors"))
    assert states
    assert all(len(state.read_bytes()) < 100 for state in states)


def test_metrics_are_finite_numbers_that_json_can_hold(tiny, tmp_path):
    _, recorder = run(make_config(tiny), tmp_path)
    for _, _, values in recorder.all("metrics"):
        json.dumps(values, allow_nan=False)
        assert all(math.isfinite(value) for value in values.values())
    last = recorder.all("metrics")[-1][2]
    assert last["sampler/mismatch"] <= 1e-5
    assert last["reward/valid_mean"] == recorder.all("checkpoint")[-1][0].valid_reward
    assert last["grades/train_count"] in (4, 8)


def test_every_metric_is_declared(tiny, tmp_path):
    def everything(text, item):
        failure = Failure(FailureKind.SAMPLE_PARSE, "made up")
        return Grade(early_letters(text, item), parts={"a": 1.0}, part_failures={"b": failure})

    _, recorder = run(make_config(tiny, asks_judge=True), tmp_path, everything)
    names = {name for _, _, values in recorder.all("metrics") for name in values}
    assert {"parts/train/a", "part_failures/valid/sample_parse_error/b"} <= names
    assert "guard/judge_talk_share" in names
    assert [name for name in names if metrics.find(name) is None] == []


def test_checkpoints_are_complete_and_say_what_is_in_them(tiny, tmp_path):
    result, recorder = run(make_config(tiny, checkpoints_kept=1), tmp_path)
    kept = sorted(folder.name for folder in (tmp_path / "run").glob("step_*"))
    dropped = {f"step_{step:06d}" for (step,) in recorder.all("dropped")}
    told = {saved.folder.name for (saved,) in recorder.all("checkpoint")}
    assert set(kept) == told - dropped
    assert "step_000000" in kept
    assert result.best.folder.name in kept
    manifest = read_manifest(result.best.folder)
    assert manifest["step"] == result.best.step
    assert manifest["kl"] == result.best.kl
    assert manifest["valid_reward"] == result.best.valid_reward
    assert {"torch", "transformers", "peft"} <= manifest["versions"].keys()
    names = set(manifest["files"])
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= names
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= names


def test_a_checkpoint_that_is_worse_than_the_base_is_not_delivered(tiny, tmp_path):
    calls = iter(range(10**6))

    def worse_and_worse(text, item):
        return -float(next(calls))

    result, recorder = run(make_config(tiny), tmp_path, worse_and_worse)
    assert result.best.step == 0
    assert recorder.all("checkpoint")[-1][0].advantage_over_base < 0


def test_without_validation_rows_training_rows_are_sampled_afresh(tiny, tmp_path):
    result, recorder = run(make_config(tiny), tmp_path, valid=[])
    assert result.best.valid_reward is None
    assert len(recorder.series("kl/probe_stderr")) == 3
    assert len(recorder.series("reward/fresh_mean")) == 3
    assert (result.verdict.basis, result.verdict.rows * result.verdict.samples) == ("training", FRESH)
    assert result.verdict.step == result.best.step
    assert {split for split, _, _, _ in recorder.all("rollouts")} == {"train", "fresh"}


def test_kl_is_measured_at_beta_zero_too(tiny, tmp_path):
    _, recorder = run(make_config(tiny, beta=0.0), tmp_path)
    assert len(recorder.series("kl/probe_mean")) == 3
    assert recorder.series("kl/probe_mean")[-1] > 0
    assert len(recorder.series("kl/reference")) == 4


def test_cancel_is_seen_before_the_next_step(tiny, tmp_path):
    stops = iter([False, False, True])
    with pytest.raises(RunCancelled, match="after step 2"):
        run(make_config(tiny), tmp_path, should_stop=lambda: next(stops))


def test_a_grader_that_always_fails_ends_the_run_with_its_messages(tiny, tmp_path):
    with pytest.raises(GradingFailed, match="python_grader_runtime_error: made up"):
        run(make_config(tiny), tmp_path, lambda text, item: FailureKind.PYTHON_RUNTIME)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"n_epochs": 1}, id="2-steps"),
        pytest.param({"n_epochs": 1, "prompts_per_step": 3}, id="1-step"),
        pytest.param({"grade_failure_limit": 1.0}, id="any-share-may-fail"),
        pytest.param({"grade_failure_steps": 1000}, id="any-number-of-steps-may-fail"),
    ],
)
def test_a_grader_that_always_fails_never_ends_in_a_model(tiny, tmp_path, changes):
    with pytest.raises(GradingFailed, match="python_grader_runtime_error: made up"):
        run(make_config(tiny, **changes), tmp_path, lambda text, item: FailureKind.PYTHON_RUNTIME)


def test_a_short_run_with_one_good_step_is_not_given_up(tiny, tmp_path):
    failing = iter([FailureKind.OTHER] * (FRESH + 8) + [0.5] * (4 + FRESH))
    config = make_config(tiny, n_epochs=1, grade_concurrency=1)
    result, recorder = run(config, tmp_path, lambda text, item: next(failing), valid=[])
    assert recorder.series("grades/train_ungraded_share") == [1.0, 0.0]
    assert result.steps == 2


def test_completions_that_do_not_parse_are_learnt_from(tiny, tmp_path):
    def parses_if_letters(text, item):
        return 1.0 if early_letters(text, item) > 0.3 else FailureKind.SAMPLE_PARSE

    result, recorder = run(make_config(tiny, group_size=8), tmp_path, parses_if_letters)
    assert result.trained_tokens > 0
    assert recorder.series("grades/train_ungraded_share") == [0.0] * 4
    assert max(recorder.series("grades/train_parse_error_share")) > 0
    assert max(recorder.series("failures/train/sample_parse_error")) > 0


def test_what_does_not_parse_is_worth_less_than_0_under_a_penalty(tiny, tmp_path):
    wrong = {
        "type": "string_check",
        "operation": "ne",
        "input": "{{sample.output_json.x}}",
        "reference": "1",
    }
    spec = parse_grader({"type": "multi", "calculate_output": "0 - wrong", "graders": {"wrong": wrong}})
    recorder = ListRecorder()
    config = make_config(tiny, reward_range=known_range(spec), n_epochs=1)
    train(config, ROWS, VALID, build_grader(spec), recorder, tmp_path / "run")
    assert set(recorder.series("reward/mean")) == {-1.0}
    assert set(recorder.series("reward/valid_mean")) == {-1.0}
    assert recorder.series("part_failures/train/sample_parse_error/wrong") == [8.0, 4.0]
    grades = [g for _, *_, groups in recorder.all("rollouts") for group in groups for g in group.grades]
    assert {grade.value for grade in grades} == {0.0}


def test_ungraded_completions_stay_out_of_the_gradient(tiny, tmp_path):
    """With a gap in place of every value but one, no group can compare anything."""
    answered = iter([*[FailureKind.OTHER] * FRESH, 1.0, *[FailureKind.OTHER] * 10**4])
    config = make_config(tiny, grade_failure_limit=1.0)
    result, recorder = run(config, tmp_path, lambda text, item: next(answered), valid=[])
    assert result.trained_tokens == 0
    assert len(recorder.series("reward/mean")) <= 1


def test_an_update_that_is_not_finite_is_skipped_and_the_third_fails_the_run(tiny, tmp_path, monkeypatch):
    broken = [True, False, True, True, True]
    plain = update.policy_loss

    def sometimes_nan(*args, **options):
        found = plain(*args, **options)
        return found._replace(loss=found.loss * float("nan")) if broken.pop(0) else found

    monkeypatch.setattr(update, "policy_loss", sometimes_nan)
    recorder = ListRecorder()
    with pytest.raises(NonFinite, match="3 steps in a row, last at step 5"):
        train(
            make_config(tiny, n_epochs=4),
            ROWS,
            [],
            FunctionGrader(early_letters),
            recorder,
            tmp_path / "run",
        )
    assert [level for level, _ in recorder.all("note")] == ["info", "warn", "warn", "warn"]
    assert NON_FINITE_LIMIT == 3


def test_groups_without_spread_add_nothing_but_their_tokens(sharp):
    """The loss is a mean over the tokens of all graded completions, taught from or not."""
    prompts = [Prompt(row, {}, (1, 2, row)) for row in range(2)]
    taught, equal = group_of(prompts[0], (5, 6, 7), (8,)), group_of(prompts[1], (5, 6), (8, 9))

    def norm_of(groups, rewards, graded):
        policy = Policy.load(make_config(sharp))
        found = Rewards(torch.tensor(rewards).double(), torch.tensor(graded))
        config = make_config(sharp, max_grad_norm=1e9, scale_advantage=False)
        stats = update.update_policy(policy, update.make_optimizer(policy, config), groups, found, config, 1)
        return stats.values["optim/grad_norm"]

    alone = norm_of([taught], [[1.0, 0.0]], [[True, True]])
    beside = norm_of([taught, equal], [[1.0, 0.0], [0.5, 0.5]], [[True, True], [True, True]])
    ungraded = norm_of([taught, equal], [[1.0, 0.0], [0.5, 0.5]], [[True, True], [False, False]])
    assert beside == pytest.approx(alone * 4 / 8, rel=1e-4)
    assert ungraded == pytest.approx(alone, rel=1e-4)


def test_noise_in_the_rewards_moves_nothing(tiny, tmp_path):
    def jitters(text, item):
        return 0.5 + 1e-5 * early_letters(text, item)

    result, recorder = run(make_config(tiny, beta=0.02), tmp_path, jitters)
    assert recorder.series("kl/probe_mean") == [0.0] * 3
    assert recorder.series("groups/no_spread_share") == [1.0] * 4
    assert result.trained_tokens == 0


def test_a_sampler_that_disagrees_with_the_trainer_is_told_of_once(tiny, tmp_path, monkeypatch):
    plain = loop.update_policy
    gaps = iter([0.05, 0.06, 0.06, 0.06])

    def disagrees(*args):
        stats = plain(*args)
        stats.values["sampler/mismatch"] = next(gaps)
        return stats

    monkeypatch.setattr(loop, "update_policy", disagrees)
    notes = []
    for stops in ([False] * 3 + [True], [False] * 9):  # stopped after step 3, and resumed
        recorder = ListRecorder()
        with contextlib.suppress(RunCancelled):
            arguments = (make_config(tiny), ROWS, [], FunctionGrader(early_letters), recorder, tmp_path)
            train(*arguments, iter(stops).__next__)
        notes += [note for note in recorder.all("note") if "smallest gain" not in note[1]]
    assert [level for level, _ in notes] == ["warn", "info", "warn"]
    assert "Step 2: sampler and trainer differ by 0.060 nats per token" in notes[0][1]
    assert notes[1][1] == "Resumed after step 3."
    assert "for 4 steps at least 50%" in notes[2][1], "all answers of this short run are cut"


def test_several_updates_with_the_same_rollouts_clip_the_ratio(tiny, tmp_path):
    config = make_config(tiny, updates_per_step=4, learning_rate=0.05, beta=0.0)
    _, recorder = run(config, tmp_path, valid=[])
    assert max(recorder.series("ratio/clipped_share")) > 0
    assert max(recorder.series("sampler/mismatch")) < 1e-4


def test_the_rate_warms_up_from_zero(tiny, tmp_path):
    _, recorder = run(make_config(tiny, warmup_steps=3, learning_rate=0.04), tmp_path, valid=[])
    assert recorder.series("optim/lr") == pytest.approx([0.01, 0.02, 0.03, 0.04])


def test_micro_batches_change_neither_the_history_nor_the_result_much(tiny, tmp_path):
    ends = []
    for budget in (64, 16_384):
        _, recorder = run(make_config(tiny, micro_batch_tokens=budget), tmp_path / str(budget), valid=[])
        ends.append(recorder.history()[4])
    for name in ("optim/loss", "optim/grad_norm", "kl/reference", "reward/mean"):
        assert ends[0][name] == pytest.approx(ends[1][name], rel=1e-3, abs=1e-5), name


def test_a_row_that_does_not_fit_fails_before_anything_is_sampled(tiny, tmp_path):
    with pytest.raises(OutOfContext, match="line 1 is too long") as caught:
        run(make_config(tiny), tmp_path, rows=make_rows("x" * 400))
    assert caught.value.code == "out_of_context"


def test_training_leaves_the_base_folder_alone(tiny, tmp_path):
    before = {file.name: file.read_bytes() for file in tiny.iterdir()}
    run(make_config(tiny, adapter="full"), tmp_path)
    assert {file.name: file.read_bytes() for file in tiny.iterdir()} == before


def test_the_saved_model_answers_as_the_policy_did_when_it_was_measured(sharp, tmp_path):
    _, recorder = run(make_config(sharp), tmp_path)
    saved = recorder.all("checkpoint")[-1][0]
    told = next(e for e in reversed(recorder.all("rollouts")) if e[:2] == ("valid", saved.step))[3]
    policy = Policy.load(make_config(saved.folder / "model"))
    prompts = make_prompts(VALID, policy.tokenizer, policy.context, "validation")
    again = sample_groups(policy, prompts, Sampling(1, 6, temperature=0.0, key=("valid", 1)))
    assert [g.completions[0].tokens for g in again] == [g.completions[0].tokens for g in told]
