"""RLVR rows as a job's training file: taken as they are, or refused with the line at fault."""

from tests.methods.test_rlvr_import import GSM8K, IFEVAL, SYSTEM, USER
from tests.workers.jobs.test_validation import RUNNING
from tests.workers.rows import fresh, make_job
from workers.jobs.validators import validate_all

RLVR = {"type": "rlvr", "name": "row"}


def rlvr_job(db, rows):
    job = make_job(db, training=rows, grader=RLVR)
    assert validate_all("me", RUNNING)
    return fresh(db, job)


def test_rows_are_a_jobs_training_file_as_they_are(db, tiny_model):
    assert rlvr_job(db, [GSM8K, IFEVAL, GSM8K | {"messages": [SYSTEM, USER]}]).status == "queued"


def test_a_job_names_the_line_of_an_unknown_verifier(db, tiny_model):
    job = rlvr_job(db, [GSM8K, GSM8K | {"dataset": "gsm9k"}])
    assert job.status == "failed"
    assert job.error["code"] == "invalid_training_file"
    assert "line 2" in job.error["message"]
    assert "gsm9k" in job.error["message"]
