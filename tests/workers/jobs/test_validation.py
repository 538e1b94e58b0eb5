"""A job's files, grader and model are checked before it is queued, and every fault is named."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.events.models import JobEvent
from app.files.models import File
from app.storage import get_storage
from methods.train_config import TrainConfig
from tests.workers.rows import GRADER, data_rows, fresh, make_job, make_model
from workers.jobs.validators import validate_all

RUNNING = threading.Event()
FIELDS = {"type": "string_check", "name": "g", "operation": "eq", "input": "{{sample.output_text}}"}


def row(**changed: Any) -> dict[str, Any]:
    return {**data_rows(1)[0], **changed}


def test_a_good_job_is_queued_with_a_resolved_config(db: Session, tiny_model: Path) -> None:
    job = make_job(db, validation=data_rows(2))
    assert validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    assert job.error is None
    config = TrainConfig.model_validate(job.config)
    assert (config.model_path, config.seed, config.group_size) == (str(tiny_model), 7, 2)
    assert job.total_steps == 4
    assert job.lease_owner is None
    last = select(JobEvent.message).order_by(JobEvent.seq.desc()).limit(1)
    assert db.scalars(last).one() == "Files validated, moving job to queued state"


def warnings(db: Session, job_id: str) -> list[str]:
    query = select(JobEvent.message).where(JobEvent.job_id == job_id, JobEvent.level == "warn")
    return list(db.scalars(query.order_by(JobEvent.seq)))


def doubts_about_data(db: Session, job_id: str) -> list[str]:
    """Without those about the grader, which is as soft as a tiny model needs it."""
    return [told for told in warnings(db, job_id) if not told.startswith("The grader: ")]


def test_files_that_look_swapped_are_doubted(db: Session, tiny_model: Path) -> None:
    job = make_job(db, training=data_rows(2), validation=data_rows(6)[2:])
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    assert doubts_about_data(db, job.id) == [
        "The validation file has more rows (4) than the training file (2). Were the two swapped?"
    ]


def test_validation_rows_that_are_trained_on_are_counted(db: Session, tiny_model: Path) -> None:
    job = make_job(db, training=data_rows(4), validation=data_rows(4)[2:])
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    (told,) = doubts_about_data(db, job.id)
    assert told.startswith("2 of 2 validation prompts are in the training file too (the first on line 1)")


def test_apart_files_raise_no_doubt(db: Session, tiny_model: Path) -> None:
    job = make_job(db, training=data_rows(4)[:3], validation=data_rows(4)[3:])
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    assert doubts_about_data(db, job.id) == []


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (12.0, "12 times what"),
        (10.0, "10 times what"),
        (1 / 20, "a 20th of what"),
        (1e-3, "a 1,000th of what"),
        (9.0, None),
        (0.2, None),
    ],
)
def test_a_learning_rate_far_off_is_doubted(
    db: Session, tiny_model: Path, factor: float, said: str | None
) -> None:
    job = make_job(db, hyperparameters={"learning_rate_multiplier": factor})
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    told = [doubt for doubt in doubts_about_data(db, job.id) if "The learning rate" in doubt]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


def test_one_row_is_enough(db: Session, tiny_model: Path) -> None:
    job = make_job(db, training=data_rows(1))
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"


def test_without_jobs_there_is_nothing_to_do(db: Session) -> None:
    assert not validate_all("me", RUNNING)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        pytest.param(b"", "no rows", id="empty"),
        pytest.param(b'{"messages": [}\n', "line 1: not valid JSON", id="no JSON"),
        pytest.param([row(), {"letter": "a"}], "line 2: 'messages' is missing", id="no messages"),
        pytest.param([row(), row(letter="b"), row(messages=[{"content": "x"}])], "line 3", id="no role"),
        pytest.param(
            [{"messages": row()["messages"]}],
            "1 of 1 rows lacks 'item.letter', which the grader reads: line 1",
            id="no field",
        ),
        pytest.param([row(messages=[{"role": "user", "content": "x" * 400}])], "line 1", id="too long"),
    ],
)
def test_a_bad_training_file_fails_the_job_and_names_the_line(
    db: Session, tiny_model: Path, training: Any, said: str
) -> None:
    job = make_job(db, training=training)
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "failed"
    assert job.error
    assert (job.error["code"], job.error["param"]) == ("invalid_training_file", "training_file")
    assert said in job.error["message"]
    assert f"The training file {job.training_file} (train.jsonl) " in job.error["message"]
    assert job.finished_at is not None


def test_a_bad_validation_file_is_named_as_such(db: Session, tiny_model: Path) -> None:
    job = make_job(db, validation=[{"letter": "a"}])
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert (job.error["code"], job.error["param"]) == ("invalid_validation_file", "validation_file")


def test_a_fault_that_every_row_has_is_told_once(db: Session, tiny_model: Path) -> None:
    job = make_job(db, training=[{"messages": row()["messages"]} for _ in range(30)])
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    said = "30 of 30 rows lack 'item.letter', which the grader reads: lines 1-30"
    assert job.error["message"].splitlines()[1:] == [said]


def test_tools_that_the_template_does_not_show_are_a_fault(db: Session, tiny_model: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    job = make_job(db, training=[row(), row(tools=tools)])
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert job.error["code"] == "invalid_training_file"
    assert "leaves out the tools of the training row on line 2" in job.error["message"]


def test_thoughts_that_the_template_drops_are_a_doubt(db: Session, tiny_model: Path) -> None:
    asked = row()["messages"]
    thinking = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    job = make_job(db, training=[row(), row(messages=[*asked, thinking, *asked])])
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    (doubt,) = doubts_about_data(db, job.id)
    assert "leaves out the thought of an earlier answer of the training row on line 2" in doubt


@pytest.mark.parametrize("what", ["row", "bytes"])
def test_a_file_deleted_meanwhile_fails_the_job(db: Session, tiny_model: Path, what: str) -> None:
    job = make_job(db)
    if what == "row":
        db.execute(delete(File))
    else:
        get_storage().delete(db.scalars(select(File.storage_key)).one())
    db.commit()
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert "was deleted" in job.error["message"]


def test_a_grader_that_cannot_be_built_fails_the_job(db: Session, tiny_model: Path) -> None:
    job = make_job(db, grader={**GRADER, "operation": "sounds_like"})
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert job.error["param"].startswith("method.reinforcement.grader")


def test_a_model_that_is_not_there_fails_the_job(db: Session, tmp_path: Path) -> None:
    make_model(db, str(tmp_path / "gone"))
    job = make_job(db)
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert job.error["code"] == "model_error"


def test_more_tokens_than_the_model_holds_are_refused(db: Session, tiny_model: Path) -> None:
    rows = [row(), row(messages=[{"role": "user", "content": "a longer question"}]), row()]
    job = make_job(db, training=rows, hyperparameters={"max_completion_tokens": 100_000})
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert job.error["param"] == "method.reinforcement.hyperparameters.max_completion_tokens"
    assert "It is on line 2 of the training file" in job.error["message"]


def test_a_grader_that_pays_for_anything_is_doubted_and_the_job_goes_on(
    db: Session, tiny_model: Path
) -> None:
    job = make_job(db, grader={**GRADER, "operation": "like", "reference": "{{item.answer}}"}, training=[
        row(answer=""), row(answer=""), row(answer="")
    ])  # fmt: skip
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued"
    assert any("nothing can be learnt" in told for told in warnings(db, job.id))


PYTHON = {"type": "python", "name": "broken"}


def test_a_grader_that_fails_on_everything_fails_the_job_with_its_traceback(
    db: Session, tiny_model: Path
) -> None:
    source = "def grade(sample, item):\n    return float(sample['output_text'] == item['lettre'])\n"
    job = make_job(db, grader={**PYTHON, "source": source})
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "failed"
    assert job.error
    assert (job.error["code"], job.error["param"]) == ("grader_error", "method.reinforcement.grader")
    assert "The grader fails on every answer: 32 of 32 that were tried" in job.error["message"]
    assert job.error["message"].endswith("KeyError: 'lettre'")
    assert "line 2, in grade" in job.error["message"]


def test_a_grader_that_fails_on_odd_answers_alone_is_doubted(db: Session, tiny_model: Path) -> None:
    source = "def grade(sample, item):\n    return 1 / sample['output_text'].count(item['letter'])\n"
    grader = {**PYTHON, "source": source, "range": [0, 1]}
    job = make_job(db, grader=grader, training=[row(letter=letter) for letter in "äöü"])
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
    assert any("24 of 24 tries" in told for told in warnings(db, job.id))
    assert TrainConfig.model_validate(job.config).reward_range == (0, 1)


def test_a_response_format_reaches_the_config(db: Session, tiny_model: Path) -> None:
    made = make_job(db)
    asked = {"type": "json_object"}
    made.method = {**made.method, "reinforcement": {**made.method["reinforcement"], "response_format": asked}}
    db.commit()
    validate_all("me", RUNNING)
    assert fresh(db, made).status == "queued"
    assert TrainConfig.model_validate(made.config).response_format == asked


def test_a_schema_that_the_sampler_cannot_hold_fails_the_job(db: Session, tiny_model: Path) -> None:
    made = make_job(db)
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "magic"}}}
    made.method = {**made.method, "reinforcement": {**made.method["reinforcement"], "response_format": asked}}
    db.commit()
    validate_all("me", RUNNING)
    assert fresh(db, made).status == "failed"
    assert made.error["param"] == "method.reinforcement.response_format"
    assert made.error["code"] == "response_format_error"
    assert "Invalid type: magic" in made.error["message"]


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"max_position_embeddings": None}, id="class-default"),
        pytest.param(
            {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 4},
            id="a-window-is-no-context",
        ),
    ],
)
def test_a_configs_class_says_how_long_a_prompt_may_be(
    db: Session, tiny_folder: Path, tmp_path: Path, edit: dict[str, Any]
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | edit
    told = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(told))
    make_model(db, str(folder))
    job = make_job(db)
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
