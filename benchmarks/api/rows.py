"""A database as full as a busy service's, written by the database itself."""

from __future__ import annotations

import json

import psycopg

GRADER = {"type": "string_check", "name": "a", "input": "i", "reference": "r", "operation": "eq"}
METHOD = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "hyperparameters": {}}}


def job_id(number: int) -> str:
    """Of the job that is so many seconds old."""
    return f"ftjob-bench{number:08}"


JOB = job_id(0)

JOBS = """
INSERT INTO jobs (id, project_id, status, model, training_file, seed, method, created_at)
SELECT 'ftjob-bench' || lpad(n::text, 8, '0'), 'proj_default', 'succeeded', 'cherry-nano', 'file-none', 1,
       %s, now() - n * interval '1 second'
FROM generate_series(0, %s - 1) n
"""
EVENTS = """
INSERT INTO job_events (job_id, seq, id, key, attempt, type, level, message, data)
SELECT %s, n, 'ftevent-bench' || n, 'step-' || n, 1, 'metrics', 'info', 'Step ' || n || '/1000', '{"step": 1}'
FROM generate_series(1, 1000) n
"""
GRADES = """
INSERT INTO rollouts (job_id, split, step, row, sample, epoch, attempt, text, tokens, finish_reason, reward,
                      parts, reason)
SELECT %s, 'train', n / 64, (n / 8) %% 8, n %% 8, 1, 1, 'an answer of some length', 24, 'stop', 0.5,
       '{"a": 0.5}', ''
FROM generate_series(0, %s - 1) n
"""


def fill(database_url: str, *, jobs: int, grades: int) -> None:
    """That many jobs; the newest has 1,000 events and so many grades."""
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute(JOBS, (json.dumps(METHOD), jobs))
        db.execute(EVENTS, (JOB,))
        db.execute(GRADES, (JOB, grades))
        db.execute("VACUUM ANALYZE")  # else the server does it, and writes it all out, while we measure
        db.execute("CHECKPOINT")
