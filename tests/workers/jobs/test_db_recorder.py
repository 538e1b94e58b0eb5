"""What a run tells becomes rows and stored files, once, and only while its claim holds."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint as CheckpointRow
from app.db import unit_of_work
from app.evals import of_jobs
from app.evals import service as evals
from app.evals.models import EvalOutputItem, EvalRun
from app.evals.schemas import OutputItemOut
from app.events.models import JobEvent, JobMetrics
from app.jobs import runs
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.jobs.status import Claim, LeaseLost
from app.rollouts.models import Rollout
from app.rollouts.schemas import RolloutOut
from app.storage import get_storage
from app.webhooks.models import WebhookEvent
from graders import Failure, FailureKind, Grade
from methods.train_config import TrainConfig
from tests.factories import make_webhook_endpoint
from tests.workers.rows import fresh, make_job
from workers.jobs import delivery
from workers.jobs.db_recorder import DatabaseRecorder, state_names, states_to_resume
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.turns import CallResult, Turn
from workers.training.base.types import Action, Checkpoint, Completion, Group, Prompt
from workers.training.result import RunResult
from workers.training.trust.selection import Look, judge
from workers.training.trust.verdict import Sampled, verdict

LEASE = timedelta(seconds=30)
HERE = Capacity(gpus=0, processes=1)


CONFIG = TrainConfig(
    model="tiny",
    model_path="tiny",
    seed=7,
    n_epochs=2,
    prompts_per_step=2,
    group_size=2,
    max_completion_tokens=4,
    learning_rate=0.01,
    eval_interval=2,
)


@pytest.fixture
def job(db: Session) -> Job:
    return make_job(db, status="queued", total_steps=4, suffix="mine", config=CONFIG.model_dump(mode="json"))


@pytest.fixture
def claim(job: Job) -> Claim:
    with unit_of_work() as db:
        claimed = runs.claim_for_training(db, "me", LEASE, HERE)
    assert claimed
    return claimed


@pytest.fixture
def recorder(claim: Claim) -> DatabaseRecorder:
    return DatabaseRecorder(claim, get_storage())


def folder_with(folder: Path, text: str) -> Path:
    """A published folder of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file.txt").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    files = {"file.txt": {"bytes": len(text), "sha256": digest}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    return folder


def saved(folder: Path, step: int, *, gain: float | None = 0.2) -> Checkpoint:
    return Checkpoint(
        step=step,
        epoch=1,
        folder=folder_with(folder / f"step_{step}", f"weights {step}"),
        kl=0.01,
        kl_stderr=0.001,
        valid_reward=0.5,
        valid_reward_stderr=0.1,
        advantage_over_base=gain,
        advantage_stderr=0.05,
    )


def group(text: str, grade: Grade) -> Group:
    prompt = Prompt(row=3, item={"letter": "a"}, tokens=(1, 2))
    completion = Completion(tokens=(5, 6, 7), logprobs=(-1.0, -1.0, -1.0), text=text, finish_reason="stop")
    return Group(prompt, (completion,), (grade,))


def take_over(db: Session, job: Job) -> None:
    """Another worker has claimed the job."""
    db.execute(update(Job).where(Job.id == job.id).values(lease_expires_at=func.now() - LEASE))
    db.commit()
    with unit_of_work() as other:
        assert runs.claim_for_training(other, "another", LEASE, HERE)


def test_a_step_is_numbers_event_and_progress(db: Session, job: Job, recorder: DatabaseRecorder) -> None:
    recorder.metrics(1, 1, {"reward/mean": 0.25, "optim/lr": 1e-4})
    row = db.scalars(select(JobMetrics)).one()
    assert (row.step, row.values) == (1, {"reward/mean": 0.25, "optim/lr": 1e-4})
    event = db.scalars(select(JobEvent).where(JobEvent.key == "step-1")).one()
    assert event.type == "metrics"
    assert event.data["train_mean_reward"] == 0.25
    assert fresh(db, job).last_step == 1


def test_a_rollout_keeps_thoughts_answer_and_calls(db: Session, recorder: DatabaseRecorder) -> None:
    taken_apart = group("<think>hm</think>4", Grade(value=1.0))
    parts = Parts("hm", "4", (ToolCall("add", {"x": 1}),), thought_tokens=9)
    completion = replace(taken_apart.completions[0], parts=parts)
    recorder.rollouts("train", 1, 1, [replace(taken_apart, completions=(completion,))])
    row = db.scalars(select(Rollout)).one()
    assert row.text == "<think>hm</think>4"
    assert row.message == {
        "role": "assistant",
        "content": "4",
        "reasoning_content": "hm",
        "reasoning_tokens": 9,
        "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
        ],
    }
    assert RolloutOut.of(row).model_dump()["message"] == row.message
    plain = replace(completion, parts=Parts(answer="<think>hm</think>4"))
    recorder.rollouts("train", 2, 1, [replace(taken_apart, completions=(plain,))])
    row = db.scalars(select(Rollout).where(Rollout.step == 2)).one()
    assert "message" not in RolloutOut.of(row).model_dump()


def test_an_action_is_one_numbered_event_with_its_figures_however_often_it_is_told(
    db: Session, recorder: DatabaseRecorder
) -> None:
    figures = {"kl": 2.5, "threshold": 2.0}
    action = Action(10, 1, "roll_back", "kl", "Guard, action 1, step 10: ...", figures)
    recorder.action(action)
    recorder.action(action)
    event = db.scalars(select(JobEvent).where(JobEvent.key.startswith("action-"))).one()
    assert (event.type, event.level, event.message) == ("message", "warn", action.message)
    assert event.data["figures"] == figures
    told = {name: event.data[name] for name in ("action", "reason", "number", "step", "is_done")}
    assert told == {"action": "roll_back", "reason": "kl", "number": 1, "step": 10, "is_done": True}


def test_a_repeated_step_overwrites_its_numbers_and_adds_no_event(
    db: Session, recorder: DatabaseRecorder
) -> None:
    recorder.metrics(1, 1, {"reward/mean": 0.25})
    recorder.metrics(1, 1, {"reward/mean": 0.75})
    assert db.scalars(select(JobMetrics)).one().values == {"reward/mean": 0.75}
    assert len(db.scalars(select(JobEvent).where(JobEvent.key == "step-1")).all()) == 1


def test_numbers_that_json_cannot_hold_are_stored_as_null(db: Session, recorder: DatabaseRecorder) -> None:
    recorder.metrics(
        1, 1, {"optim/grad_norm": math.nan, "kl/probe_mean": math.inf, "parts/train/a\x00b": 1.0}
    )
    assert db.scalars(select(JobMetrics)).one().values == {
        "optim/grad_norm": None,
        "kl/probe_mean": None,
        "parts/train/ab": 1.0,
    }


def test_the_finish_is_estimated_also_by_the_steps_of_earlier_attempts(
    db: Session, job: Job, recorder: DatabaseRecorder
) -> None:
    db.execute(update(Job).values(config={"eval_interval": 2}, total_steps=102))
    db.commit()
    recorder.metrics(0, 0, {"time/eval": 10.0, "time/step": 10.0})
    assert fresh(db, job).estimated_finish is None
    recorder.metrics(1, 1, {"time/step": 1.0, "time/total": 11.0})
    assert fresh(db, job).usage_metrics == {"training_seconds": 11.0, "grader_tokens": {}}
    take_over(db, job)
    again = DatabaseRecorder(Claim(job.id, fresh(db, job).attempt, "running"), get_storage())
    again.metrics(2, 1, {"time/eval": 10.0, "time/step": 11.0})
    now = db.scalar(select(func.now()))
    finish = fresh(db, job).estimated_finish
    assert now
    assert finish
    left = 100 * 1.0 + 50 * 10.0
    assert timedelta(seconds=left - 5) < finish - now < timedelta(seconds=left + 60)


def test_turns_of_an_episode_are_stored_as_messages(db: Session, recorder: DatabaseRecorder) -> None:
    call = ToolCall("look_up", {"key": "a"})
    result = CallResult("call_1", call, "7\x00", 0.25, is_error=False, tokens=1)
    turns = (Turn(Parts("hm", calls=(call,)), 5, (result,)), Turn(Parts(answer="7"), 2))
    plain = group("7", Grade(1.0))
    completion = replace(plain.completions[0], turns=turns, trace_id="trace_1")
    recorder.rollouts("train", 1, 1, [replace(plain, completions=(completion,))])
    recorder.rollouts("valid", 1, 1, [plain])
    stored = {each.split: each.episode for each in db.scalars(select(Rollout))}
    assert stored["valid"] is None
    assert stored["train"] == {
        "trace_id": "trace_1",
        "messages": [
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "hm",
                "tool_calls": [call.chat_form("call_1")],
                "tokens": 5,
            },
            {
                "role": "tool",
                "tool_call_id": "call_1",
                "name": "look_up",
                "content": "7",
                "tokens": 1,
                "seconds": 0.25,
                "is_error": False,
            },
            {"role": "assistant", "content": "7", "tokens": 2},
        ],
    }


def test_completions_are_stored_with_grade_or_failure(db: Session, recorder: DatabaseRecorder) -> None:
    good = group("fine", Grade(value=1.0, parts={"city": 0.5}, reason="because"))
    recorder.rollouts("train", 1, 1, [good])
    failed = group("bad\x00 \ud800", Grade(value=None, failure=Failure(FailureKind.OTHER, "no\x00pe")))
    recorder.rollouts("valid", 1, 1, [failed])
    train = db.scalars(select(Rollout).where(Rollout.split == "train")).one()
    assert (train.row, train.sample, train.text, train.tokens, train.reward) == (3, 0, "fine", 3, 1.0)
    assert (train.parts, train.reason, train.failure) == ({"city": 0.5}, "because", None)
    valid = db.scalars(select(Rollout).where(Rollout.split == "valid")).one()
    assert (valid.text, valid.reward, valid.failure) == ("bad ?", None, "other_error")
    assert valid.failure_message == "nope"


def test_a_completion_names_the_weights_that_a_server_sampled_it_by(
    db: Session, recorder: DatabaseRecorder
) -> None:
    own = group("fine", Grade(value=1.0))
    served = replace(own.completions[0], sampled_by="ftjob-1-seed-1-after-000002-ab")
    recorder.rollouts("train", 1, 1, [replace(own, completions=(served,))])
    recorder.rollouts("train", 2, 1, [own])
    first, second = db.scalars(select(Rollout).order_by(Rollout.step))
    assert RolloutOut.of(first).model_dump()["sampled_by"] == served.sampled_by
    assert "sampled_by" not in RolloutOut.of(second).model_dump()


def test_the_parts_of_a_grade_that_failed_are_kept_by_name(db: Session, recorder: DatabaseRecorder) -> None:
    failed = {"form": Failure(FailureKind.SAMPLE_PARSE, "no JSON\0")}
    recorder.rollouts(
        "train", 1, 1, [group("a", Grade(value=0.2, parts={"form": 0.0}, part_failures=failed))]
    )
    recorder.rollouts("train", 2, 1, [group("a", Grade(value=1.0))])
    first, second = db.scalars(select(Rollout).order_by(Rollout.step))
    told = {"form": {"kind": "sample_parse_error", "message": "no JSON"}}
    assert RolloutOut.of(first).model_dump()["part_failures"] == told
    assert "part_failures" not in RolloutOut.of(second).model_dump()


def test_completions_of_a_repeated_step_are_overwritten(db: Session, recorder: DatabaseRecorder) -> None:
    for text in ("first", "second"):
        recorder.rollouts("train", 1, 1, [group(text, Grade(value=1.0))])
    assert db.scalars(select(Rollout.text)).all() == ["second"]


def test_a_checkpoint_is_files_row_and_event(
    db: Session, job: Job, recorder: DatabaseRecorder, tmp_path: Path
) -> None:
    recorder.checkpoint(saved(tmp_path, 2))
    row = db.scalars(select(CheckpointRow)).one()
    assert row.storage_key
    assert get_storage().read_bytes(f"{row.storage_key}/file.txt") == b"weights 2"
    assert row.model_name.startswith("ft:tiny:cherry:mine:")
    assert row.model_name.endswith(":ckpt-step-2")
    event = db.scalars(select(JobEvent).where(JobEvent.key == "ckpt-2")).one()
    assert event.message == f"Checkpoint created at step 2 with Snapshot ID: {row.model_name}"


def test_a_repeated_checkpoint_keeps_its_name_and_leaves_no_second_copy(
    db: Session, job: Job, recorder: DatabaseRecorder, tmp_path: Path
) -> None:
    recorder.checkpoint(saved(tmp_path, 2))
    name = db.scalars(select(CheckpointRow.model_name)).one()
    take_over(db, job)
    again = DatabaseRecorder(Claim(job.id, fresh(db, job).attempt, "running"), get_storage())
    again.checkpoint(saved(tmp_path, 2))
    db.rollback()
    assert db.scalars(select(CheckpointRow.model_name)).one() == name
    kept = get_storage().list_keys(f"jobs/{job.id}/checkpoints")
    assert {key.split("/")[3] for key in kept} == {f"2-{job.attempt}"}


def test_a_checkpoint_is_told_once_to_endpoints_that_want_to_know(
    db: Session, job: Job, recorder: DatabaseRecorder, tmp_path: Path
) -> None:
    make_webhook_endpoint(db, job.project_id, types=("fine_tuning.checkpoint.created",))
    db.commit()
    for step in (0, 2, 2):
        recorder.checkpoint(saved(tmp_path, step))
    checkpoint = db.scalars(select(CheckpointRow).where(CheckpointRow.step == 2)).one()
    told = json.loads(db.scalars(select(WebhookEvent.body)).one())
    assert told["type"] == "fine_tuning.checkpoint.created"
    assert told["data"] == {"id": checkpoint.id, "fine_tuning_job_id": job.id}


def test_a_dropped_checkpoint_loses_its_files_and_keeps_its_row(
    db: Session, recorder: DatabaseRecorder, tmp_path: Path
) -> None:
    recorder.checkpoint(saved(tmp_path, 2))
    key = db.scalars(select(CheckpointRow.storage_key)).one()
    db.rollback()
    for _ in range(2):  # told again after a resume
        recorder.dropped(2)
    assert db.scalars(select(CheckpointRow.storage_key)).one() is None
    assert not get_storage().exists(f"{key}/file.txt")


def test_the_newest_two_states_are_kept(
    db: Session, job: Job, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    for step in (2, 4, 10):
        recorder.state(step, folder_with(tmp_path / f"state_{step}", f"state {step}"))
    assert fresh(db, job).state_step == 10
    assert sorted(state_names(get_storage(), job.id)) == [f"10-{claim.attempt}", f"4-{claim.attempt}"]
    prefixes = {step: f"jobs/{job.id}/state/{step}-{claim.attempt}" for step in (10, 4)}
    assert list(states_to_resume(get_storage(), job.id, 10).items()) == list(prefixes.items())
    assert list(states_to_resume(get_storage(), job.id, 9)) == [4], "a later one is a fenced attempt's"


def test_a_state_that_was_damaged_goes_once_there_are_two_others(
    db: Session, job: Job, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    for step in (2, 4):
        recorder.state(step, folder_with(tmp_path / f"state_{step}", f"state {step}"))
    take_over(db, job)  # it goes on from step 2, as that of step 4 is damaged
    second = DatabaseRecorder(Claim(job.id, fresh(db, job).attempt, "running"), get_storage())
    second.state(4, folder_with(tmp_path / "again", "state 4 again"))
    names = [f"2-{claim.attempt}", f"4-{fresh(db, job).attempt}"]
    assert sorted(state_names(get_storage(), job.id)) == names


def test_a_note_is_told_once_however_often_it_is_repeated(
    db: Session, job: Job, recorder: DatabaseRecorder
) -> None:
    halving = "Halving 1 of 2: Seed 7 (gain +0.1 at a KL of 0.2) goes on; 8 (gain +0 at a KL of 0) ended."
    recorder.metrics(4, 1, {})
    recorder.note("info", halving)
    recorder.note("info", "Step 4: training ends here. That saves about 12 seconds.")
    take_over(db, job)
    second = DatabaseRecorder(Claim(job.id, fresh(db, job).attempt, "running"), get_storage())
    second.note("info", halving)
    second.note("info", "Step 4: training ends here. That saves about 13 seconds.")
    second.note("info", halving.replace("1 of 2", "2 of 2"))
    db.rollback()
    told = db.scalars(select(JobEvent.message).where(JobEvent.key.startswith("note-"))).all()
    assert [message.split()[:2] for message in told] == [["Halving", "1"], ["Step", "4:"], ["Halving", "2"]]


def test_a_zombie_writes_no_row_and_destroys_no_file(
    db: Session, job: Job, recorder: DatabaseRecorder, tmp_path: Path
) -> None:
    take_over(db, job)
    owner = DatabaseRecorder(Claim(job.id, fresh(db, job).attempt, "running"), get_storage())
    owner.checkpoint(saved(tmp_path, 2))
    owner.state(2, folder_with(tmp_path / "state", "state"))
    before = get_storage().list_keys(f"jobs/{job.id}")
    told = db.scalar(select(func.count()).select_from(JobEvent))
    for write in (
        lambda: recorder.dropped(2),
        lambda: recorder.phase("sampling"),
        lambda: recorder.metrics(3, 1, {}),
        lambda: recorder.rollouts("train", 3, 1, [group("x", Grade(value=1.0))]),
        lambda: recorder.checkpoint(saved(tmp_path, 2)),
        lambda: recorder.state(3, folder_with(tmp_path / "old", "old state")),
        lambda: recorder.note("info", "hello"),
    ):
        with pytest.raises(LeaseLost):
            write()
    db.rollback()
    assert set(before) <= set(get_storage().list_keys(f"jobs/{job.id}"))
    assert db.scalar(select(func.count()).select_from(JobEvent)) == told
    assert db.scalars(select(JobMetrics)).all() == []
    assert db.scalars(select(Rollout)).all() == []


def test_delivery_makes_results_model_and_last_events(
    db: Session, job: Job, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    recorder.metrics(1, 1, {"reward/mean": 0.25})
    recorder.checkpoint(saved(tmp_path, 2))
    delivery.deliver(claim, 2, trained_tokens=123)
    assert fresh(db, job).status == "succeeded"
    assert job.trained_tokens == 123
    assert job.fine_tuned_model
    assert job.fine_tuned_model.startswith("ft:tiny:cherry:mine:")
    table = get_storage().read_bytes(f"files/{job.result_files[0]}").decode()
    assert table.startswith("step,train_mean_reward")
    told = db.scalars(select(JobEvent.message).order_by(JobEvent.seq.desc()).limit(2)).all()
    assert told == [
        "The job has successfully completed",
        f"New fine-tuned model created: {job.fine_tuned_model}",
    ]


def test_delivering_the_base_says_so(
    db: Session, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    recorder.checkpoint(saved(tmp_path, 0, gain=0.0))
    measured = {"grades/valid_count": 24.0, "reward/over_base_mean": 0.03, "reward/over_base_stderr": 0.05}
    recorder.metrics(2, 1, measured)
    delivery.deliver(claim, 0, trained_tokens=1)
    warned = db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")).one()
    assert "the delivered model equals the base" in warned
    assert "at step 2, was +0.03 ± 0.05 on 24 validation rows" in warned


def test_delivering_a_model_far_from_its_base_says_so(
    db: Session, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    recorder.checkpoint(replace(saved(tmp_path, 2), kl=9.43))
    delivery.deliver(claim, 2, trained_tokens=1)
    warned = db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")).one()
    assert "has moved 9.4 nats per token from the base" in warned


def test_delivering_a_model_that_rounding_has_changed_says_so(
    db: Session, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    recorder.checkpoint(replace(saved(tmp_path, 2), extra={"rounding_error": 0.83}))
    delivery.deliver(claim, 2, trained_tokens=1)
    warned = db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")).one()
    assert "moved the weights by 83% of what training had" in warned
    assert "`adapter/` holds the change in fp32" in warned


def test_the_verdict_is_in_the_job_its_last_event_and_every_checkpoint(
    db: Session, job: Job, recorder: DatabaseRecorder, claim: Claim, tmp_path: Path
) -> None:
    looks = [Look(0, 0.0, (0.2,) * 6), Look(2, 0.1, (0.7,) * 6), Look(4, 0.2, (0.1, 0.3) * 3)]
    for look in looks:
        checkpoint = saved(tmp_path, look.step)
        checkpoint.extra.update({"p": 0.5, "basis": "unseen"})
        recorder.checkpoint(checkpoint)
    found = verdict(looks, {0, 2, 4}, Sampled("unseen", 6, 4, 1.0), seed=1)
    result = RunResult(saved(tmp_path / "again", found.step), 4, 123, found, judge(looks, 1))
    delivery.deliver(claim, found.step, trained_tokens=123, result=result)
    told = fresh(db, job).verdict
    assert told is not None
    assert (told["kind"], told["step"], told["p"]) == ("better_unseen", 2, 1 / 32)
    events = db.scalars(select(JobEvent).order_by(JobEvent.seq)).all()
    assert told["sentence"] in [event.message for event in events]
    assert (events[-1].type, events[-1].data) == ("message", {"verdict": told})
    rows = db.scalars(select(CheckpointRow).order_by(CheckpointRow.step))
    assert [(row.trust or {})["p"] for row in rows] == [0.5, 1 / 32, pytest.approx(0.66, abs=0.1)]


@pytest.mark.parametrize(
    ("p", "method", "status"),
    [
        pytest.param(0.02, "reinforcement", "succeeded", id="a checkpoint better than the base is delivered"),
        pytest.param(None, "supervised", "succeeded", id="of a supervised job the newest is delivered"),
        pytest.param(None, "reinforcement", "failed", id="one that was not judged is not"),
        pytest.param(0.06, "reinforcement", "failed", id="one that may be luck is not"),
    ],
)
def test_giving_up_after_a_checkpoint(
    db: Session,
    job: Job,
    recorder: DatabaseRecorder,
    claim: Claim,
    tmp_path: Path,
    p: float | None,
    method: str,
    status: str,
) -> None:
    job.method = {**job.method, "type": method, method: {**job.method["reinforcement"]}}
    db.commit()
    recorder.checkpoint(saved(tmp_path, 0, gain=0.0))
    better = saved(tmp_path, 2, gain=0.2)
    better.extra.update({"p": p} if p else {})
    recorder.checkpoint(better)
    recorder.metrics(2, 1, {"tokens/trained_total": 321.0})
    delivery.give_up(claim, "grader_error", "The grader broke.")
    assert fresh(db, job).status == status
    assert job.trained_tokens == (321 if status == "succeeded" else None)
    if status == "failed":
        assert job.error == {"code": "grader_error", "message": "The grader broke.", "param": None}
    else:
        warned = db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")).one()
        assert "The grader broke." in warned


@pytest.mark.parametrize(
    ("canary", "guard", "delivered"),
    [
        pytest.param(0.6, "act", False, id="one that forgot is not"),
        pytest.param(0.6, "warn", True, id="unless the guard only warns"),
        pytest.param(0.4, "act", True, id="one that did not is"),
        pytest.param(0.45, "act", False, id="one that may have is not"),
    ],
)
def test_giving_up_delivers_nothing_that_forgot(
    db: Session,
    job: Job,
    recorder: DatabaseRecorder,
    claim: Claim,
    tmp_path: Path,
    canary: float,
    guard: str,
    delivered: bool,
) -> None:
    job.config = {**(job.config or {}), "guard": guard, "guard_canary": 0.5}
    db.commit()
    better = saved(tmp_path, 2, gain=0.2)
    better.extra.update({"p": 0.02, "canary_over_base": canary, "canary_over_base_stderr": 0.05})
    recorder.checkpoint(better)
    recorder.snapshot(replace(saved(tmp_path, 3, gain=0.9), extra={"p": 0.01}))  # of a pause: no candidate
    delivery.give_up(claim, "grader_error", "The grader broke.")
    assert (fresh(db, job).status == "succeeded") == delivered
    told = db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")).all()
    assert any("checkpoint of step 2 is delivered" in each for each in told) == delivered


def test_a_validation_is_a_run_of_the_jobs_eval_named_by_its_checkpoint(
    db: Session, job: Job, recorder: DatabaseRecorder, tmp_path: Path
) -> None:
    of_jobs.make(db, job)
    make_webhook_endpoint(db, job.project_id, types=("eval.run.succeeded",))
    db.commit()
    groups = [group("a", Grade(1.0)), group("b", Grade(0.0, reason="no"))]
    groups += [group("c", Grade(None, Failure(FailureKind.OTHER, "broke")))]
    recorder.rollouts("train", 1, 1, groups)
    recorder.rollouts("valid", 2, 1, groups[:1])
    recorder.rollouts("valid", 2, 1, groups)  # of a step that is repeated after a resume
    recorder.checkpoint(saved(tmp_path, 2))
    (run,) = db.scalars(select(EvalRun)).all()
    name = db.scalars(select(CheckpointRow.model_name)).one()
    assert (run.status, run.name, run.model, run.data_source["model"]) == ("completed", "Step 2", name, name)
    (event,) = db.scalars(select(WebhookEvent)).all()
    assert json.loads(event.body)["data"] == {"id": run.id, "fine_tuning_job_id": job.id}
    assert run.meta == {"fine_tuning_job": job.id, "step": "2"}
    assert run.result_counts == {"total": 3, "passed": 1, "failed": 1, "errored": 1}
    assert [one["model_name"] for one in run.per_model_usage] == [name]
    items = db.scalars(select(EvalOutputItem).order_by(EvalOutputItem.seq)).all()
    assert [(item.status, item.datasource_item_id) for item in items] == [
        ("pass", 3),
        ("fail", 3),
        ("error", 3),
    ]
    assert items[1].results[0]["sample"] == {"reason": "no"}
    told = OutputItemOut.of(items[0], run).sample
    assert (told.model, told.output[0].content, told.usage.total_tokens) == (name, "a", 5)


def test_a_deleted_eval_gets_no_more_runs_and_the_job_goes_on(
    db: Session, job: Job, recorder: DatabaseRecorder
) -> None:
    of_jobs.make(db, job)
    db.commit()
    evals.remove(db, job.project_id, str(job.eval_id))
    db.commit()
    recorder.rollouts("valid", 2, 1, [group("a", Grade(1.0))])
    assert db.scalars(select(EvalRun)).all() == []
    assert len(db.scalars(select(Rollout)).all()) == 1
    assert fresh(db, job).eval_id is not None
