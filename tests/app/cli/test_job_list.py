"""`cherry jobs list`: how far each job is, and what it has got."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.main import cli
from app.events import service as events
from tests.factories import Tenant, make_job

STEPS: dict[str, list[dict[str, Any]]] = {
    "sums": [
        {"step": 1, "total_steps": 8, "train_mean_reward": 0.25, "full_valid_mean_reward": 0.125},
        {"step": 2, "total_steps": 8, "train_mean_reward": 0.5},
    ],
    "style": [{"step": 3, "total_steps": 4, "train_loss": 1.5}],
    "new": [],
}


@pytest.fixture
def place(db: Session, tenant: Tenant, server_url: str) -> list[str]:
    for suffix, steps in STEPS.items():
        job = make_job(db, tenant.project_id, suffix=suffix)
        for numbers in steps:
            events.append(db, job.id, f"step-{numbers['step']}", "a step", data=numbers)
        events.append(db, job.id, "over", "a later sentence")
    db.commit()
    return ["jobs", "list", "--url", server_url, "--key", tenant.key]


def test_jobs_are_listed_with_step_and_newest_reward(place: list[str]) -> None:
    jobs = json.loads(CliRunner().invoke(cli, [*place, "--json"]).output)
    told = {job["user_provided_suffix"]: tuple(job["progress"].values()) for job in jobs}
    assert told == {
        "sums": (2, 8, 0.125, None),
        "style": (3, 4, None, 1.5),
        "new": (None, None, None, None),
    }


def test_a_person_reads_method_suffix_step_and_reward(place: list[str]) -> None:
    lines = CliRunner().invoke(cli, place).output.splitlines()
    assert lines[0].split()[:7] == ["ID", "Status", "Method", "Model", "Suffix", "Step", "Reward"]
    (sums,) = (line.split() for line in lines if " sums " in line)
    assert sums[1:7] == ["queued", "reinforcement", "cherry-nano", "sums", "2/8", "0.125"]
    (style,) = (line.split() for line in lines if " style " in line)
    assert style[5:8] == ["3/4", "loss", "1.5"]
