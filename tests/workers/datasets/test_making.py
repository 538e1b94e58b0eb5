"""Data sets in real child processes: the file, where its rows came from, and how they end."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.chat.models import StoredChat
from app.datasets import service
from app.datasets.models import Dataset, DatasetSource
from app.datasets.runs import LEASES
from app.db import unit_of_work
from app.files.models import File
from app.jobs.leases import LeaseLost
from app.settings import Settings, get_settings
from app.storage import get_storage
from tests.e2e.service import wait_for
from tests.factories import (
    Tenant,
    make_dataset,
    make_feedback,
    make_file,
    make_job,
    make_stored_chat,
    make_tenant,
    make_tuned_model,
)
from tests.workers.jobs.test_validators import checking, newest
from workers.datasets.attempt import DATASETS
from workers.datasets.stored import count, read_page
from workers.jobs.validators import validate_all

LEASE = timedelta(seconds=30)
REDACT = """
import re
def redact(row):
    if "secret" in row["messages"][0]["content"]:
        return None
    for message in row["messages"]:
        message["content"] = re.sub(r"[\\w.]+@[\\w.]+", "[email]", message["content"])
    return row
"""


@pytest.fixture
def tenant(db: Session) -> Tenant:
    made = make_tenant(db)
    db.commit()
    return made


def made(db: Session, tenant: Tenant, **asked: Any) -> Dataset:
    """A data set, made by a worker."""
    db.commit()
    dataset = make_dataset(db, tenant.project_id, asked)
    db.commit()
    assert validate_all("me", threading.Event(), DATASETS) == 1
    db.refresh(dataset)
    return dataset


def rows_of(db: Session, dataset: Dataset) -> list[Any]:
    assert dataset.status == "succeeded", dataset.error
    assert dataset.file_id is not None
    assert dataset.report is not None
    file = db.get_one(File, dataset.file_id)
    data = get_storage().read_bytes(file.storage_key)
    assert (file.purpose, file.bytes, file.sha256) == (
        "fine-tune",
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert (dataset.report["bytes"], dataset.report["sha256"]) == (file.bytes, file.sha256)
    rows = [json.loads(line) for line in data.splitlines()]
    assert dataset.report["rows"] == len(rows)
    return rows


def failed(dataset: Dataset) -> Mapping[str, Any]:
    assert dataset.status == "failed"
    assert dataset.error is not None
    assert dataset.file_id is None
    return dataset.error


def test_a_file_is_made_and_knows_where_its_rows_came_from(db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    tuned = make_tuned_model(db, job)
    right = make_stored_chat(db, tenant.project_id, tuned.name, asked="2 + 2?", answers=("4",))
    wrong = make_stored_chat(db, tenant.project_id, asked="3 + 3?", answers=("5",))
    make_stored_chat(db, tenant.project_id, asked="4 + 4?")
    theirs = make_stored_chat(db, make_tenant(db, "other").project_id, asked="theirs")
    make_feedback(db, theirs, correction="x")
    right.created_at -= timedelta(seconds=1)
    praise, correction = make_feedback(db, right), make_feedback(db, wrong, correction="6")
    dataset = made(db, tenant, format="reinforcement", filename="next.jsonl")
    assert [(row["messages"][0]["content"], row["reference"]) for row in rows_of(db, dataset)] == [
        ("2 + 2?", "4"),
        ("3 + 3?", "6"),
    ]
    assert db.get_one(File, dataset.file_id).filename == "next.jsonl"
    report = dataset.report or {}
    assert (report["completions"], report["left_out"]) == (3, {"no_reference": 1})
    assert report["models"] == [
        {"model": "cherry-nano", "job": None, "rows": 1},
        {"model": tuned.name, "job": job.id, "rows": 1},
    ]
    assert report["feedback"] == {"reward": 1, "correction": 1, "reference": 0}
    sources = db.scalars(select(DatasetSource).order_by(DatasetSource.line)).all()
    assert [(s.line, s.completion_id, s.model, s.feedback_ids) for s in sources] == [
        (1, right.id, tuned.name, [praise.id]),
        (2, wrong.id, "cherry-nano", [correction.id]),
    ]


def test_only_what_fits_the_filter_and_was_there_before_is_looked_at(db: Session, tenant: Tenant) -> None:
    mine = {"team": "a", "more": "x"}
    stored = {
        name: make_stored_chat(db, tenant.project_id, model, asked=name, metadata=metadata)
        for name, model, metadata in (
            ("right", "m", mine),
            ("other model", "n", mine),
            ("other team", "m", {"team": "b"}),
            ("bad", "m", mine),
            ("expired", "m", mine),
            ("nothing said", "m", mine),
            ("old", "m", mine),
        )
    }
    for name, chat in stored.items():
        if name != "nothing said":
            make_feedback(db, chat, reward=0.2 if name == "bad" else 0.9)
    stored["expired"].expires_at -= timedelta(hours=2)
    stored["old"].created_at -= timedelta(days=2)
    since = int(stored["right"].created_at.timestamp()) - 3600
    wanted = {
        "model": "m",
        "metadata": {"team": "a"},
        "min_reward": 0.5,
        "feedback": ["reward"],
        "created_after": since,
        "created_before": since + 7200,
    }
    db.commit()
    dataset = make_dataset(db, tenant.project_id, {"format": "supervised", "filter": wanted})
    db.commit()
    make_feedback(db, make_stored_chat(db, tenant.project_id, "m", asked="later", metadata=mine))
    db.commit()
    validate_all("me", threading.Event(), DATASETS)
    db.refresh(dataset)
    assert [row["messages"][0]["content"] for row in rows_of(db, dataset)] == ["right"]


def test_rows_are_redacted_before_they_are_written_and_compared(db: Session, tenant: Tenant) -> None:
    for asked in ("Mail ann@x.org", "Mail bob@y.org", "A secret", "Hello"):
        make_stored_chat(db, tenant.project_id, asked=asked)
    dataset = made(db, tenant, redact=REDACT)
    assert sorted(row["messages"][0]["content"] for row in rows_of(db, dataset)) == ["Hello", "Mail [email]"]
    report = dataset.report or {}
    assert report["left_out"] == {"exact_duplicate": 1, "redacted": 1}
    assert report["redaction"] == {"sha256": hashlib.sha256(REDACT.encode()).hexdigest(), "rows_changed": 2}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param("return 1 / 0", "ZeroDivisionError", id="raises"),
        pytest.param("return [row]", "must return the row, or None", id="returns-a-list"),
        pytest.param("return {}", "no supervised row: 'messages' is missing", id="returns-no-row"),
        pytest.param("return None", "all were left out (redacted 1)", id="leaves-all-out"),
        pytest.param("open('/etc/passwd')", "failed on row 1 (raised)", id="reads-files"),
        pytest.param("import os; os._exit(0)", "no_result", id="leaves"),
    ],
)
def test_a_redaction_that_fails_writes_nothing(db: Session, tenant: Tenant, body: str, told: str) -> None:
    make_stored_chat(db, tenant.project_id)
    error = failed(made(db, tenant, redact=f"def redact(row):\n    {body}"))
    assert told in error["message"]
    assert error["code"] == ("no_rows" if "None" in body else "redaction_failed")
    assert db.scalars(select(File)).all() == []


def test_prompts_of_the_validation_file_stay_out_as_written_and_as_redacted(
    db: Session, tenant: Tenant
) -> None:
    for asked in ("Mail ann@x.org", "Mail bob@y.org", "Mail her"):
        make_stored_chat(db, tenant.project_id, asked=asked)
    lines = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "x"}]}
        for asked in ("Mail bob@y.org",)
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    valid = make_file(db, tenant.project_id, data)
    dataset = made(db, tenant, validation_file=valid.id, redact=REDACT)
    assert sorted(row["messages"][0]["content"] for row in rows_of(db, dataset)) == [
        "Mail [email]",
        "Mail her",
    ]
    assert (dataset.report or {})["left_out"] == {"leak": 1}
    error = failed(made(db, tenant, validation_file=valid.id, on_leak="fail"))
    assert (error["code"], error["param"]) == ("leak", "validation_file")


def test_a_validation_file_of_another_method_is_named(db: Session, tenant: Tenant) -> None:
    make_stored_chat(db, tenant.project_id)
    valid = make_file(db, tenant.project_id)  # of reinforcement
    error = failed(made(db, tenant, validation_file=valid.id))
    assert (error["code"], error["param"]) == ("invalid_validation_file", "validation_file")
    assert valid.id in error["message"]


def test_nothing_to_make_a_file_of_is_told(db: Session, tenant: Tenant) -> None:
    assert failed(made(db, tenant))["message"] == "No row is left: no stored completion fits the filter."


def test_a_project_that_may_store_no_more_is_told(
    db: Session, tenant: Tenant, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stored_chat(db, tenant.project_id)
    monkeypatch.setenv("CHERRY_MAX_PROJECT_BYTES", "10")
    error = failed(made(db, tenant))
    assert "may store 10" in error["message"]


def test_a_walk_over_pages_meets_each_completion_once(db: Session, tenant: Tenant) -> None:
    chats = [make_stored_chat(db, tenant.project_id, asked=str(n)) for n in range(5)]
    chats[0].created_at -= timedelta(seconds=1)  # the others have one time
    make_feedback(db, chats[3], reward=0.5)
    parts = [{"type": "text", "text": text} for text in ("so ", "it is")]
    chats[0].messages = [{"role": "user", "content": parts, "name": None}]
    db.commit()
    dataset = make_dataset(db, tenant.project_id)
    db.commit()
    seen, place = [], None
    while page := read_page(db, dataset, place, limit=2):
        place = (page[-1].created_at, page[-1].id)
        seen += page
    assert count(db, dataset) == len(seen) == 5
    assert (seen[0].id, seen[0].messages) == (chats[0].id, [{"role": "user", "content": "so it is"}])
    assert {each.id for each in seen} == {each.id for each in chats}
    assert [each.reward(0) for each in seen if each.id == chats[3].id] == [0.5]


def test_a_claim_fences_and_a_cancel_takes_it_away(db: Session, tenant: Tenant) -> None:
    dataset = make_dataset(db, tenant.project_id)
    db.commit()
    first = LEASES.claim_next(db, "a", timedelta(seconds=-1))
    second = LEASES.claim_next(db, "b", LEASE)
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    assert LEASES.claim_next(db, "c", LEASE) is None
    with pytest.raises(LeaseLost):
        LEASES.enter(db, first, "reading")
    LEASES.enter(db, second, "reading", 1, 2)
    service.cancel(db, tenant.project_id, dataset.id)
    with pytest.raises(LeaseLost):
        LEASES.finish_succeeded(db, second)
    db.refresh(dataset)
    assert (dataset.status, dataset.progress) == ("cancelled", None)


def test_a_killed_child_is_tried_again(db: Session, tenant: Tenant, settings: Settings) -> None:
    make_stored_chat(db, tenant.project_id)
    dataset = make_dataset(
        db, tenant.project_id, {"redact": "import time\ndef redact(row):\n    time.sleep(600)\n"}
    )
    db.commit()
    stopping = threading.Event()
    worker = threading.Thread(target=validate_all, args=("me", stopping, DATASETS))
    worker.start()
    try:
        wait_for(lambda: phase_of(dataset.id) == "redacting", what="the child")
        os.kill(newest(checking()), signal.SIGKILL)
        wait_for(lambda: attempt_of(dataset.id) == 2, what="the second attempt")
    finally:
        stopping.set()
        worker.join()
    db.refresh(dataset)
    assert (dataset.status, dataset.fruitless_attempts) == ("queued", 1), "a worker that stops gives it back"


def attempt_of(dataset_id: str) -> int:
    with unit_of_work() as db:
        return db.get_one(Dataset, dataset_id).attempt


def phase_of(dataset_id: str) -> str | None:
    with unit_of_work() as db:
        return (db.get_one(Dataset, dataset_id).progress or {}).get("phase")


def test_what_is_erased_while_a_data_set_is_made_is_not_in_it(db: Session, tenant: Tenant) -> None:
    gone, stays = (make_stored_chat(db, tenant.project_id, asked=asked) for asked in ("gone", "stays"))
    db.commit()
    dataset = make_dataset(
        db,
        tenant.project_id,
        {"redact": "import time\ndef redact(row):\n    time.sleep(1)\n    return row\n"},
    )
    db.commit()
    worker = threading.Thread(target=validate_all, args=("me", threading.Event(), DATASETS))
    worker.start()
    wait_for(lambda: phase_of(dataset.id) == "redacting", what="the rows to be read")
    db.execute(delete(StoredChat).where(StoredChat.id == gone.id))
    db.commit()
    worker.join()
    db.refresh(dataset)
    assert [row["messages"][0]["content"] for row in rows_of(db, dataset)] == ["stays"]
    assert (dataset.report or {})["left_out"] == {"erased": 1}
    assert db.scalars(select(DatasetSource.completion_id)).all() == [stays.id]
    assert len([path for path in (get_settings().data_dir).rglob("file-*") if path.is_file()]) == 1


def test_what_is_expired_is_not_read(db: Session, tenant: Tenant) -> None:
    make_stored_chat(db, tenant.project_id, keep=timedelta(seconds=-1))
    assert db.scalars(select(StoredChat)).all()
    assert failed(made(db, tenant))["code"] == "no_rows"
