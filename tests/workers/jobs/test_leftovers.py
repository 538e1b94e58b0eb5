"""What killed runs leave of jobs goes once the job is over, and nothing else does; what they leave to the
next attempt stays until then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy.orm import Session

from app.jobs.models import Job
from app.jobs.status import Claim
from app.settings import Settings
from app.storage import get_storage
from tests.factories import make_checkpoint
from tests.workers.rows import fresh, make_job
from workers.jobs import delivery, leftovers
from workers.jobs.faults import Exit
from workers.jobs.restoring import carry_on_pass_tokens, keep_pass_tokens
from workers.jobs.run import _crashed
from workers.jobs.sweep import sweep
from workers.training.base.errors import PassTooLarge


def stored(job: Job, *names: str) -> list[str]:
    """Files of a job in storage."""
    keys = [f"jobs/{job.id}/{name}" for name in names]
    for key in keys:
        get_storage().put_bytes(key, b"x")
    return keys


@pytest.mark.parametrize("status", ["running", "paused", "succeeded", "failed", "cancelled"])
def test_checkpoints_that_were_never_recorded_go_with_the_job(db: Session, status: str) -> None:
    job = make_job(db, status=status, state_step=4)
    kept = stored(job, "checkpoints/4-1/manifest.json", "checkpoints/4-1/model/config.json")
    left = stored(
        job,
        "checkpoints/2-1/model/model.safetensors",  # dropped in the row, and killed before the files
        "checkpoints/5-1/adapter/adapter_config.json",  # killed in the middle of its files
        "checkpoints/4-2/manifest.json",  # killed before the row, which an earlier attempt has written
        "state/4-1/manifest.json",
    )
    make_checkpoint(db, job, 4, storage_key=f"jobs/{job.id}/checkpoints/4-1")
    make_checkpoint(db, job, 2, storage_key=None)
    db.commit()
    other = make_job(db, status="running", state_step=1)
    others = stored(other, "checkpoints/1-1/manifest.json", "state/1-1/manifest.json")
    sweep(Event())
    is_over = status in ("succeeded", "failed", "cancelled")
    assert get_storage().list_keys("jobs") == sorted([*kept, *others, *([] if is_over else left)])
    assert fresh(db, job).state_step == (None if is_over else 4)


def test_working_folders_go_when_their_job_is_over_and_they_are_quiet(
    db: Session, settings: Settings
) -> None:
    over, young, at_work = (make_job(db, status=status) for status in ("failed", "failed", "running"))
    folders = [
        settings.data_dir / "runs" / name for name in (over.id, young.id, at_work.id, "ftjob-elsewhere")
    ]
    for folder in folders:
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "metrics.jsonl").write_text("{}\n")
        if folder.name != young.id:
            age(folder)
    sweep(Event())
    assert sorted(path.name for path in (settings.data_dir / "runs").iterdir()) == sorted(
        folder.name for folder in folders[1:]
    )


def age(folder: Path) -> None:
    for path in (folder, folder / "1"):
        os.utime(path, (time.time() - 2 * 3600,) * 2)


def test_what_earlier_attempts_have_stored_in_vain_goes_when_the_next_begins(db: Session) -> None:
    job = make_job(db, status="running", attempt=3)
    kept = stored(
        job,
        "state/4-1/manifest.json",
        "state/5-3/trained.safetensors",  # of this attempt
        "checkpoints/4-1/model/config.json",  # its manifest is in the row
        "checkpoints/6-3/model/config.json",
    )
    stored(job, "state/5-2/trained.safetensors", "checkpoints/5-2/manifest.json")
    make_checkpoint(db, job, 4, storage_key=f"jobs/{job.id}/checkpoints/4-1")
    db.commit()
    leftovers.remove_half_written(Claim(job.id, 3, "running"))
    assert get_storage().list_keys("jobs") == sorted(kept)


def aged(path: Path) -> Path:
    """The same, as if it lay there for a minute."""
    then = time.time() - 60
    os.utime(path, (then, then))
    return path


HOLDER = """
import sys, time
from pathlib import Path
from app.disk import hold, scratch_folder
with scratch_folder("cherry-validate-") as folder, open(sys.argv[1], "wb") as file:
    hold(file)
    (folder / "copy").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_temporary_files_of_a_killed_process_go_and_those_of_a_live_one_stay(
    db: Session, settings: Settings
) -> None:
    partial = settings.data_dir / "storage" / ".partial"
    partial.mkdir(parents=True)
    holders, places = [], []
    for name in ("killed", "alive"):
        command = [sys.executable, "-c", HOLDER, str(partial / name)]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert holder.stdout
        holders.append(holder)
        places.append((Path(holder.stdout.readline().strip()), partial / name))
    try:
        for place in places:
            for path in place:
                aged(path)
        sweep(Event())
        assert all(path.exists() for place in places for path in place)
        holders[0].kill()
        holders[0].wait()
        sweep(Event())
        assert [path.exists() for place in places for path in place] == [False, False, True, True]
    finally:
        for holder in holders:
            holder.terminate()
            holder.communicate()
        shutil.rmtree(places[1][0])


@pytest.fixture
def job_id(db: Session) -> str:
    job = make_job(db, status="running", attempt=1)
    db.commit()
    return job.id


def test_attempts_begin_with_what_those_before_have_left(job_id: str) -> None:
    first, second, third, fourth = (Claim(job_id, attempt, "running") for attempt in (1, 2, 3, 4))
    assert carry_on_pass_tokens(first) is None
    assert _crashed(first, PassTooLarge("A pass ran out of memory.", 8192)) is Exit.CRASHED
    assert delivery.last_words(first) == "A pass ran out of memory"
    assert carry_on_pass_tokens(second) == 8192
    _crashed(second, PassTooLarge("A pass ran out of memory.", 4096))
    assert carry_on_pass_tokens(third) == 4096
    _crashed(third, ValueError("something else"))
    leftovers.remove_half_written(third)
    assert carry_on_pass_tokens(fourth) == 4096


def test_what_is_left_is_no_training_state_and_goes_with_the_attempts(job_id: str) -> None:
    keep_pass_tokens(Claim(job_id, 1, "running"), 100)
    carry_on_pass_tokens(Claim(job_id, 3, "running"))
    leftovers.remove_half_written(Claim(job_id, 3, "running"))
    assert get_storage().list_keys(f"jobs/{job_id}") == [f"jobs/{job_id}/state/passes-3/tokens.txt"]
