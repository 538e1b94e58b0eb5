"""The curves of a job as its page gets them: few points that lose no peak, with intervals and marks."""

from __future__ import annotations

import math
import random
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from app.dashboard.job.catalogue import MOST_LINES, charts_of
from app.dashboard.thinning import MOST, kept
from app.events import service as events
from app.jobs.models import Job
from tests.factories import Tenant, make_checkpoint, make_job, make_metrics


def charts(signed_in: httpx.Client, job: Job, **query: int) -> dict[str, Any]:
    found = signed_in.get(f"/dashboard/jobs/{job.id}/curves", params=query).json()
    return {chart["key"]: chart for chart in found["charts"]} | {
        "marks": found["marks"],
        "last": found["last"],
    }


def test_of_a_long_curve_ends_and_peaks_stay() -> None:
    chance = random.Random(0)
    values = [chance.random() for _ in range(10_000)]
    values[4321], values[8765] = 9.0, -9.0
    places = list(kept(values))
    assert len(places) <= MOST
    assert places == sorted(set(places))
    assert {0, 4321, 8765, 9999} <= set(places)
    assert list(kept(values[:MOST])) == list(range(MOST))


def test_a_curve_has_its_interval_and_what_is_behind_a_step_comes_alone(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="running", config={"prompts_per_step": 4}, last_step=3)
    for step in range(1, 4):
        values = {"reward/mean": step / 10, "reward/std": 0.2}
        make_metrics(
            db,
            job,
            step,
            values | ({"reward/valid_mean": 0.5, "reward/valid_stderr": 0.1} if step == 2 else {}),
        )
    make_checkpoint(db, job, 2)
    db.commit()
    training, validation = charts(signed_in, job)["reward"]["curves"]
    assert training["steps"] == [1, 2, 3]
    assert training["values"] == [0.1, 0.2, 0.3]
    assert training["high"][0] == pytest.approx(0.1 + 1.96 * 0.2 / math.sqrt(4), abs=1e-4)
    assert (validation["steps"], validation["values"]) == ([2], [0.5])
    assert validation["low"] == [pytest.approx(0.5 - 0.196, abs=1e-4)]
    (added,) = charts(signed_in, job, since=2)["reward"]["curves"]
    assert added["steps"] == [3]
    assert charts(signed_in, job, since=3)["last"] == 3


def test_fields_of_a_grader_have_curves_and_what_never_happened_has_none(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="running", last_step=1)
    parts = {"parts/train/city <b>": 0.5, "parts/train/date": 0.25, "parts/valid/date": 0.75}
    idle = {"ratio/clipped_share": 0.0, "completion/train_reasoning_tokens_mean": 0.0}
    make_metrics(db, job, 1, {"reward/mean": 0.5, **parts, **idle})
    db.commit()
    found = charts(signed_in, job)
    assert [curve["label"] for curve in found["parts-train"]["curves"]] == ["city <b>", "date"]
    assert [curve["values"] for curve in found["parts-valid"]["curves"]] == [[0.75]]
    assert not {"clip", "thoughts", "loss"} & set(found)


def test_too_many_parts_leave_out_the_inner_ones() -> None:
    inner = {f"parts/train/{name}.{number}" for name in "ab" for number in range(MOST_LINES)}
    (chart,) = charts_of({"parts/train/a", "parts/train/b", *inner})
    assert [curve.label for curve in chart.curves] == ["a", "b"]
    assert chart.left_out == 2 * MOST_LINES


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        pytest.param({"loss/train": 2.0, "accuracy/train": 0.4}, {"loss", "accuracy"}, id="supervised"),
        pytest.param(
            {"loss/train": 0.7, "dpo/reward_margin": 0.1, "dpo/reward_accuracy": 0.6},
            {"loss", "margin", "pairs"},
            id="dpo",
        ),
    ],
)
def test_other_methods_have_their_own_curves_only(
    signed_in: httpx.Client, tenant: Tenant, db: Session, values: dict[str, float], keys: set[str]
) -> None:
    job = make_job(db, tenant.project_id, status="running", method={"type": "dpo"}, last_step=1)
    make_metrics(db, job, 1, values)
    make_checkpoint(db, job, 1, valid_reward=None)
    db.commit()
    assert set(charts(signed_in, job)) - {"marks", "last"} == keys
    page = signed_in.get(f"/dashboard/jobs/{job.id}").text
    assert "KL to base" in page
    assert "validation reward" not in page
    assert "Completions" not in page


def test_what_the_guard_did_is_marked_at_its_step(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="running", last_step=1)
    make_metrics(db, job, 1)
    data = {"action": "rollback", "step": 7, "number": 1}
    events.append(db, job.id, "action-7-1", "Guard, step 7: back", level="warn", data=data, is_metrics=False)
    db.commit()
    assert charts(signed_in, job)["marks"] == [{"step": 7, "text": "Guard, step 7: back"}]


def test_seeds_lie_over_each_other_by_their_own_steps(
    signed_in: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="running", last_step=4)
    for step, (seed, own) in enumerate([(7, 1), (9, 1), (7, 2), (9, 2)]):
        make_metrics(
            db, job, step, {"reward/mean": seed / 10 + own, "arm/seed": float(seed), "arm/step": float(own)}
        )
    db.commit()
    found = signed_in.get(f"/dashboard/jobs/{job.id}/curves").json()
    assert found["whole"]
    seeds = next(chart for chart in found["charts"] if chart["key"] == "seeds")
    assert [(c["label"], c["steps"], c["values"]) for c in seeds["curves"]] == [
        ("seed 7", [1, 2], [1.7, 2.7]),
        ("seed 9", [1, 2], [1.9, 2.9]),
    ]


def test_curves_of_nobody_and_of_others_are_not_shown(
    http: httpx.Client, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id)
    db.commit()
    assert http.get(f"/dashboard/jobs/{job.id}/curves").status_code == 401
    assert http.get(f"/dashboard/jobs/{job.id}/live").status_code == 401
