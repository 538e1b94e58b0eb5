"""The dashboard in a real browser, over a real server and database."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.events import service as events
from app.jobs.models import Job
from tests.app.dashboard.windows import assert_fits_a_phone, sign_in
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_eval,
    make_eval_run,
    make_job,
    make_metrics,
    make_output_item,
    make_rollout,
    make_tenant,
    make_tuned_model,
)

pytestmark = pytest.mark.slow

ATTACKS = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "</td></table><svg onload=\"document.title = 'owned'\">",
    "{{ 7 * 7 }} javascript:alert(1)",
]

INLINE = """() => {
  const script = document.createElement("script")
  script.textContent = "document.documentElement.dataset.ran = 'yes'"
  document.body.append(script)
  return document.documentElement.dataset.ran ?? null
}"""
"""Adds a script to the page, as markup that was not escaped would, and tells whether it ran."""


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    """A finished job with curves, checkpoints, grades and hostile texts."""
    made = make_job(db, tenant.project_id, status="succeeded", suffix="triage", last_step=2, total_steps=2)
    for step in range(3):
        make_metrics(db, made, step)
        make_checkpoint(
            db, made, step, valid_reward=0.4 + 0.2 * step, valid_reward_stderr=0.01, kl_stderr=None
        )
    for sample, attack in enumerate(ATTACKS):
        call = {"function": {"name": attack, "arguments": attack}}
        turns = [
            {"role": "assistant", "content": attack, "reasoning_content": attack, "tool_calls": [call]},
            {
                "role": "tool",
                "name": attack,
                "content": attack,
                "tokens": 1,
                "seconds": 0.5,
                "is_error": True,
            },
            {"role": "user", "content": attack},
        ]
        episode = {"trace_id": "trace_1", "messages": turns} if sample % 2 else None
        own = {"text": attack, "reason": attack, "parts": {attack: 0.5}, "sampled_by": attack}
        make_rollout(db, made, 2, 0, sample, episode=episode, **own)
    make_rollout(
        db,
        made,
        1,
        0,
        text="first answer",
        reward=None,
        failure="sample_parse_error",
        failure_message="no JSON",
    )
    events.append(db, made.id, "created", f"Created {ATTACKS[0]}")
    db.commit()
    return made


def test_wrong_key_is_refused_and_shows_nothing(page: Page, job: Job) -> None:
    page.goto(f"/dashboard/jobs/{job.id}")
    page.get_by_placeholder("sk-cherry-").fill("sk-cherry-wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    assert "triage" not in page.content()


def test_key_signs_in_and_jobs_lead_to_curves_checkpoints_and_grades(
    page: Page, tenant: Tenant, job: Job, db: Session
) -> None:
    make_tuned_model(
        db, job, name="ft:cherry-nano:acme:triage:AbCd1234"
    ).storage_key = f"jobs/{job.id}/checkpoints/1-1"
    job.fine_tuned_model = "ft:cherry-nano:acme:triage:AbCd1234"
    job.verdict = {"kind": "better_unseen", "sentence": "Better on unseen rows: <b>+0.2</b>"}
    db.commit()
    sign_in(page, tenant)
    row = page.get_by_role("row", name="triage")
    expect(row).to_contain_text("succeeded")
    expect(row).to_contain_text("0.400 → 0.600")  # of the model delivered, not the highest ever seen
    page.get_by_role("link", name="triage").click()
    expect(page.locator("figure.chart", has_text="Reward")).to_be_visible()
    expect(page.locator(".verdict")).to_have_text("Better on unseen rows: <b>+0.2</b>")
    expect(page.locator("tr.best")).to_contain_text("delivered")
    expect(page.locator("tr.best")).to_contain_text("0.600 ± 0.010")
    expect(page.locator("tr.best")).to_contain_text("0.0100 ± unknown")
    page.get_by_role("link", name="training", exact=True).click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("step 2")
    page.get_by_role("link", name="← step 1").click()
    expect(page.get_by_text("first answer")).to_be_visible()
    expect(page.locator(".sample")).to_contain_text("sample_parse_error: no JSON")


def test_thoughts_turns_and_tools_are_shown_and_fit_a_phone(
    page: Page, tenant: Tenant, job: Job, db: Session
) -> None:
    for step in (3, 4):
        make_metrics(
            db,
            job,
            step,
            {"completion/train_reasoning_tokens_mean": 20.0 + step, "episodes/valid_turns_mean": step / 2},
        )
    tool = {
        "name": "get_price",
        "train_calls_mean": 1.25,
        "train_tokens_mean": None,
        "train_error_count": 3.0,
    }
    told = {"train_latency_mean": 0.1254, "valid_calls_mean": 0.75, "valid_error_count": 0.0}
    events.append(db, job.id, "step-4", "Step 4", data={"tools": [tool | told]})
    job.config = {"model_path": "x" * 300}
    db.commit()
    page.set_viewport_size({"width": 390, "height": 800})
    sign_in(page, tenant)
    page.goto(f"/dashboard/jobs/{job.id}")
    expect(page.locator("figure.chart", has_text="Thoughts")).to_be_visible()
    expect(page.locator("figure.chart", has_text="Turns of an episode")).to_be_visible()
    row = page.get_by_role("row", name="get_price training")
    assert row.locator("td").all_inner_texts()[2:] == ["1.25", "", "0.125", "3"]
    expect(page.get_by_role("row", name="get_price validation")).to_contain_text("0.75")
    page.get_by_text("Resolved configuration").click()
    assert_fits_a_phone(page)
    page.goto(f"/dashboard/jobs/{job.id}/rollouts?split=train&step=2")
    assert_fits_a_phone(page)


def test_seeds_and_controls_are_shown_beside_each_other(
    page: Page, tenant: Tenant, job: Job, db: Session
) -> None:
    measured = {"gain": 0.25, "low": 0.1, "high": 0.4, "p": 0.002, "kl": 0.5}
    arm = {"seed": 7, "steps": 40, "ended": "finished", "is_delivered": True, **measured}
    lost = {**arm, "seed": 9, "steps": 10, "ended": "halved", "is_delivered": False, "gain": None, "p": None}
    control = {"kind": "random_reward", "steps": 10, "ended": "finished", "real_gain": 0.2, **measured}
    job.verdict = {"kind": "better_unseen", "sentence": "s", "arms": [arm, lost], "controls": [control]}
    db.commit()
    sign_in(page, tenant)
    page.goto(f"/dashboard/jobs/{job.id}")
    expect(page.get_by_role("row", name="7 40")).to_contain_text("+0.250 (+0.100 to +0.400)")
    expect(page.get_by_role("row", name="7 40")).to_contain_text("finished, delivered")
    expect(page.get_by_role("row", name="9 10")).to_contain_text("halved")
    expect(page.get_by_role("row", name="random reward")).to_contain_text("the real reward gained +0.200")


def test_hostile_completions_are_text(page: Page, tenant: Tenant, job: Job) -> None:
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url))
    sign_in(page, tenant)
    for path in (f"/dashboard/jobs/{job.id}", f"/dashboard/jobs/{job.id}/rollouts?step=2"):
        page.goto(path)
        assert page.locator("body script, body img").count() == 0
        assert "owned" not in page.title()
    assert page.get_by_text(ATTACKS[0]).count() > 0
    assert {url.split("/dashboard")[0] for url in outside} == {page.url.split("/dashboard")[0]}


def test_another_tenants_job_does_not_exist(page: Page, tenant: Tenant, db: Session) -> None:
    other = make_job(db, make_tenant(db, "other").project_id)
    db.commit()
    sign_in(page, tenant)
    page.wait_for_url("**/dashboard")
    answer = page.goto(f"/dashboard/jobs/{other.id}")
    assert answer is not None
    assert answer.status == 404


def test_signing_out_ends_it(page: Page, tenant: Tenant, job: Job) -> None:
    sign_in(page, tenant)
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"/dashboard/jobs/{job.id}")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_pages_run_no_script_but_the_services_own_and_the_cookie_is_closed_to_them(
    page: Page, tenant: Tenant
) -> None:
    answer = page.goto("/dashboard/login")
    assert answer is not None
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    sign_in(page, tenant)
    page.wait_for_url("**/dashboard")
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    other = page.context.new_page()  # of which no console is looked at
    other.goto("/dashboard")
    assert other.evaluate(INLINE) is None


def test_a_run_of_an_eval_is_shown_where_its_report_leads(page: Page, tenant: Tenant, db: Session) -> None:
    counts = {"total": 2, "passed": 1, "failed": 1, "errored": 0}
    run = make_eval_run(
        db, make_eval(db, tenant.project_id), status="completed", total=2, result_counts=counts
    )
    make_output_item(db, run, 1, sample={"output": [{"content": "a"}]})
    wrong = {"sample": {"output": [{"content": ATTACKS[0]}]}, "datasource_item": {"answer": ATTACKS[1]}}
    make_output_item(db, run, 2, status="fail", **wrong)
    db.commit()
    sign_in(page, tenant)
    page.goto(f"/dashboard/evals/{run.eval_id}/runs/{run.id}")
    expect(page.locator("main")).to_contain_text("1 passed, 1 failed, 0 could not be judged, of 2")
    expect(page.locator(".rollouts tr")).to_have_count(3)
    page.get_by_role("link", name="failed", exact=True).click()
    expect(page.locator(".rollouts tr")).to_have_count(2)
    expect(page.locator(".rollouts")).to_contain_text(ATTACKS[0])
    expect(page).to_have_title("a run · Cherry")
