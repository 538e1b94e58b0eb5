"""Reward against KL: which checkpoints are on the frontier, and their intervals."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from app.cards.curves import MOST_POINTS, stride, thinned
from app.cards.points import frontier, points
from tests.factories import Tenant, make_checkpoint, make_job, make_tuned_model


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([(0.0, 0.0)], [True], id="the base alone"),
        pytest.param([(0.0, 0.0), (1.0, 0.2), (2.0, 0.1), (3.0, 0.3)], [True, True, False, True], id="bent"),
        pytest.param([(0.0, 0.0), (1.0, -0.2)], [True, False], id="worse than the base"),
        pytest.param([(1.0, 0.2), (2.0, 0.2)], [True, False], id="as much for less KL"),
        pytest.param([(1.0, 0.2), (1.0, 0.3)], [False, True], id="more for as much KL"),
        pytest.param([(1.0, 0.2), (1.0, 0.2)], [True, True], id="the same twice"),
        pytest.param([(3.0, 0.3), (1.0, 0.2)], [True, True], id="whatever the order"),
        pytest.param([(0.5, None), (1.0, 0.2)], [False, True], id="never compared"),
    ],
)
def test_the_frontier(measured: list[tuple[float, float | None]], expected: list[bool]) -> None:
    assert frontier(measured) == expected


def test_intervals_of_checkpoints(db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    make_checkpoint(db, job, 0, kl=0.0, kl_stderr=0.0)
    make_checkpoint(db, job, 1, kl=0.1, kl_stderr=0.1, advantage_over_base=0.2, advantage_stderr=0.1)
    make_checkpoint(db, job, 2, kl_stderr=None, storage_key=None)
    job.fine_tuned_model = make_tuned_model(db, job).name
    base, tuned, unknown = points(db, job)
    assert (base.gain, base.gain_interval, base.kl) == (0.0, (0.0, 0.0), (0.0, 0.0))
    assert tuned.gain_interval == pytest.approx((0.2 - 0.196, 0.2 + 0.196), abs=1e-4)
    assert tuned.kl == pytest.approx((0.0, 0.1 + 0.196), abs=1e-4)
    assert [each.is_delivered for each in (base, tuned, unknown)] == [False, True, False]
    assert [each.on_frontier for each in (base, tuned, unknown)] == [True, True, False]
    assert (unknown.gain, unknown.gain_interval, unknown.kl) == (None, (None, None), (None, None))


def test_the_api_shows_every_checkpoint_with_its_interval(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id)
    make_checkpoint(db, job, 0, kl=0.0)
    make_checkpoint(db, job, 5, storage_key=None, kl=0.5, advantage_over_base=-0.1, advantage_stderr=0.05)
    db.commit()
    shown = http.get(f"/v1/fine_tuning/jobs/{job.id}/frontier").json()
    assert shown["fine_tuning_job_id"] == job.id
    assert [(p["step"], p["on_frontier"], p["kept"]) for p in shown["points"]] == [
        (0, True, True),
        (5, False, False),
    ]
    assert shown["points"][1]["reward_over_base_high"] == pytest.approx(-0.1 + 1.96 * 0.05, abs=1e-4)


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1000, 1001, 10_000])
def test_thinned_curves_keep_their_ends_and_are_bounded(count: int) -> None:
    kept = thinned(range(count))
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert len(kept) <= MOST_POINTS + 1
    assert all(number % stride(count) == 0 for number in kept[:-1])


def test_bounds_and_p_over_all_looks_are_shown_where_they_are_known(db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="succeeded", verdict={"basis": "training"})
    make_checkpoint(db, job, 0, kl=0.0, valid_reward=None)
    trust = {"p": 0.01, "low": 0.1, "high": 0.5}
    make_checkpoint(
        db, job, 1, valid_reward=None, advantage_over_base=0.3, advantage_stderr=0.01, trust=trust
    )
    base, tuned = points(db, job)
    assert (tuned.p, tuned.gain_interval, tuned.basis) == (0.01, (0.1, 0.5), "training")
    assert (base.gain, base.p) == (0.0, None)
