"""`cherry jobs show` has a line for each seed of a job: by its verdict, and by its metrics before."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli import seeds
from app.cli.main import cli
from app.jobs.models import Job
from methods.halving import arm_seeds
from tests.factories import AUTO, GRADER, Tenant, make_job, make_metrics

FIRST, SECOND, THIRD = arm_seeds(7, 3)
ARM = {"reward": 0.75, "gain": 0.25, "low": 0.1, "high": 0.4, "p": 0.002, "kl": 0.512}
ARMS = [
    {**ARM, "seed": SECOND, "steps": 40, "ended": "finished", "rung": None, "is_delivered": True},
    {**ARM, "seed": FIRST, "steps": 20, "ended": "halved", "rung": 2, "is_delivered": False},
    {**dict.fromkeys(ARM), "seed": THIRD, "steps": 4, "ended": "non_finite", "rung": 1}
    | {"is_delivered": False},
]


def job_of_seeds(db: Session, tenant: Tenant, **columns: Any) -> Job:
    block = {"grader": dict(GRADER), "hyperparameters": {**AUTO, "n_seeds": 3}}
    method = {"type": "reinforcement", "reinforcement": block}
    return make_job(db, tenant.project_id, method=method, **columns)


def lines(shown: str) -> dict[str, list[str]]:
    """The table's cells, by seed."""
    found = [line.split() for line in shown.splitlines()]
    return {cells[0]: cells[1:] for cells in found if cells and cells[0].isdigit()}


def test_a_job_that_is_over_shows_its_seeds_by_the_verdict(
    server_url: str, db: Session, tenant: Tenant
) -> None:
    job = job_of_seeds(db, tenant, status="succeeded", verdict={"sentence": "Better.", "arms": ARMS})
    db.commit()
    command = ["jobs", "show", job.id, "--url", server_url, "--key", tenant.key]
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0, shown.output
    measured = ["0.75", "+0.25", "(+0.1", "to", "+0.4)", "0.002", "0.512"]
    assert lines(shown.output) == {
        str(SECOND): [*measured, "40", "finished,", "delivered"],
        str(FIRST): [*measured, "20", "halved", "at", "rung", "2"],
        str(THIRD): ["4", "non", "finite,", "out", "after", "halving", "1"],
    }


def test_one_that_is_under_way_shows_them_by_what_was_measured(
    client: OpenAI, db: Session, tenant: Tenant, capsys: Any
) -> None:
    job = job_of_seeds(db, tenant, status="running")
    steps: list[tuple[int, int, float | None]] = [
        (FIRST, 1, None),
        (FIRST, 2, 0.2),
        (FIRST, 3, 0.1),
        (SECOND, 1, None),
    ]
    make_metrics(db, job, 0, {"reward/valid_mean": 0.4, "arm/seed": float(FIRST), "arm/step": 0.0})
    for step, (seed, own, gain) in enumerate(steps, 1):
        values = {"arm/seed": float(seed), "arm/step": float(own)}
        if gain is not None:
            values |= {"reward/valid_mean": 0.4 + gain, "reward/over_base_mean": gain, "kl/probe_mean": 0.3}
        make_metrics(db, job, step, values)
    make_metrics(db, job, 5, {"arm/seed": 7.0, "arm/step": 9.0, "arm/is_control": 1.0})
    db.commit()
    sent = client.fine_tuning.jobs.retrieve(job.id).to_dict(mode="json", warnings=False)
    seeds.print_seeds(client, sent, page=2)
    assert lines(capsys.readouterr().out) == {
        str(FIRST): ["0.6", "+0.2", "0.3", "3", "so", "far"],
        str(SECOND): ["1", "trained", "last"],
        str(THIRD): ["0", "not", "begun"],
    }


def test_a_job_of_one_seed_has_no_such_table(
    client: OpenAI, db: Session, tenant: Tenant, capsys: Any
) -> None:
    job = make_job(db, tenant.project_id)
    db.commit()
    seeds.print_seeds(client, client.fine_tuning.jobs.retrieve(job.id).to_dict(mode="json", warnings=False))
    assert capsys.readouterr().out == ""
