"""Validations side by side: no project has all places, no fault reaches another job, each has limits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.events.models import JobEvent
from app.jobs import control
from app.jobs.models import Job
from app.settings import get_settings
from tests.e2e.service import wait_for
from tests.factories import make_tenant
from tests.workers.rows import fresh, make_job, make_model
from workers.jobs.validators import validate_all

NEVER_ENDS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ messages }}"
EATS_MEMORY = "{% for i in range(1000) %}{{ 'x' * 99999999 }}{% endfor %}"


def use(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"CHERRY_{name.upper()}", value)
    get_settings.cache_clear()


def make_templated(db: Session, tiny_folder: Path, folder: Path, template: str) -> None:
    """A model "odd" with this chat template, past the trial of `cherry models add`."""
    shutil.copytree(tiny_folder, folder)
    (folder / "chat_template.jinja").write_text(template)
    make_model(db, str(folder), "odd")


def row(job_id: str) -> Job:
    with unit_of_work() as db:
        return db.get_one(Job, job_id)


def is_rendering(job_id: str, attempt: int) -> bool:
    job = row(job_id)
    return (job.attempt, job.phase) == (attempt, "rendering")


def checking() -> set[int]:
    """The processes of this test that a fork server's keepers watch: they use the CPU."""
    found = psutil.Process().children(recursive=True)
    return {each.pid for each in found if "workers.jobs.fork_server" in " ".join(each.cmdline())}


def newest(pids: set[int]) -> int:
    """The process that began last; numbers of processes begin anew when they are used up."""
    return max(pids, key=lambda pid: psutil.Process(pid).create_time())


@contextmanager
def validating(stopping: threading.Event) -> Iterator[threading.Thread]:
    """A worker that validates until nothing is left, or until it is told to stop."""
    worker = threading.Thread(target=validate_all, args=("me", stopping))
    worker.start()
    try:
        yield worker
    finally:
        stopping.set()
        worker.join()


@pytest.mark.long
def test_a_project_whose_jobs_never_end_holds_up_no_other_and_a_cancel_frees_their_places(
    db: Session, tiny_model: Path, tmp_path: Path
) -> None:
    make_templated(db, tiny_model, tmp_path / "odd", NEVER_ENDS)
    endless = [make_job(db, model="odd").id for _ in range(4)]
    other = make_tenant(db, "other").project_id
    jobs = [make_job(db, status="paused") for _ in range(2)]
    for job in jobs:
        job.project_id = other
    db.commit()
    before = checking()
    with validating(threading.Event()) as worker:
        wait_for(lambda: sum(row(job_id).phase == "rendering" for job_id in endless) == 2, what="two at work")
        for job in jobs:  # they come when the endless ones have all that they can get
            job.status = "validating_files"
        db.commit()
        wait_for(lambda: all(row(job.id).status == "queued" for job in jobs), what="the other project")
        assert [row(job_id).attempt for job_id in endless] == [1, 1, 0, 0], "half of the places stay free"
        for job_id in endless:
            with unit_of_work() as owner:
                control.request_cancel(owner, job_id)
        wait_for(lambda: not worker.is_alive(), what="the end")
    assert {row(job_id).status for job_id in endless} == {"cancelled"}
    assert len(checking() - before) <= 1, "the fork server alone is left"


@pytest.mark.parametrize(
    ("template", "limits", "code", "said"),
    [
        pytest.param(
            NEVER_ENDS,
            {"validation_limit": "PT3S"},
            "validation_too_long",
            "took longer than 0:00:03 and was stopped while the model's chat template made prompts",
            id="time",
        ),
        pytest.param(
            EATS_MEMORY,
            {"validation_memory_bytes": str(2**30)},
            "validation_out_of_memory",
            "more than the 1024 MiB of memory that it may take and was stopped while the model's chat",
            id="memory",
        ),
    ],
)
def test_a_template_is_stopped_at_its_limit_and_the_owner_hears_what_it_was(
    db: Session,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str,
    limits: dict[str, str],
    code: str,
    said: str,
) -> None:
    use(monkeypatch, **limits)
    make_templated(db, tiny_model, tmp_path / "odd", template)
    job = make_job(db, model="odd")
    assert validate_all("me", threading.Event()) == 1
    assert fresh(db, job).status == "failed"
    assert job.error
    assert (job.error["code"], job.error["param"]) == (code, "model")
    assert said in job.error["message"]
    assert job.attempt == 1


def test_a_worker_that_stops_gives_the_job_back_uncounted(
    db: Session, tiny_model: Path, tmp_path: Path
) -> None:
    make_templated(db, tiny_model, tmp_path / "odd", NEVER_ENDS)
    job = make_job(db, model="odd")
    with validating(threading.Event()):
        wait_for(lambda: row(job.id).phase == "rendering", what="the validation")
    assert fresh(db, job).status == "validating_files"
    assert (job.lease_owner, job.fruitless_attempts) == (None, 0)


def test_a_child_that_is_killed_again_and_again_fails_the_job_with_the_reason(
    db: Session, tiny_model: Path, tmp_path: Path
) -> None:
    make_templated(db, tiny_model, tmp_path / "odd", NEVER_ENDS)
    job = make_job(db, model="odd")
    with validating(threading.Event()) as worker:
        for attempt in (1, 2, 3):
            wait_for(partial(is_rendering, job.id, attempt), what=f"attempt {attempt}")
            os.kill(newest(checking()), signal.SIGKILL)  # which is the child
        wait_for(lambda: not worker.is_alive(), what="the end")
    assert fresh(db, job).status == "failed"
    assert job.error == {
        "code": "server_error",
        "message": "The validation ended early in each of its attempts. Of the last one: it was ended by"
        " SIGKILL, perhaps for lack of memory.",
        "param": None,
    }
    told = db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")).all()
    assert len(told) == 2
    assert told[0].startswith("The validation ended early: it was ended by SIGKILL")


def test_a_model_folder_that_was_changed_since_it_was_added_fails_the_job(
    db: Session, tiny_model: Path, tmp_path: Path
) -> None:
    make_templated(db, tiny_model, tmp_path / "odd", "{{ messages }}")
    (tmp_path / "odd" / "modeling_odd.py").write_text("")
    job = make_job(db, model="odd")
    validate_all("me", threading.Event())
    assert fresh(db, job).error == {
        "code": "model_invalid",
        "message": "The model odd cannot be used: modeling_odd.py is code, and no code of a model is run"
        " here: remove it.",
        "param": "model",
    }


def test_a_library_that_aborts_at_the_limit_is_not_tried_again(
    db: Session, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These rules of a normalizer claim 4 GiB of states; where Python raises `MemoryError`, Rust aborts."""
    use(monkeypatch, validation_memory_bytes=str(2**30))
    make_templated(db, tiny_model, tmp_path / "odd", "{{ messages }}")
    path = tmp_path / "odd" / "tokenizer.json"
    rules = {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": rules}))
    job = make_job(db, model="odd")
    validate_all("me", threading.Event())
    assert fresh(db, job).error
    assert (job.error["code"], job.attempt) == ("validation_out_of_memory", 1)
