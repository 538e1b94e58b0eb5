"""The checkpoints of a job: table, forms, downloads and the box to try one, over HTTP and in a browser."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.dashboard.sign_in import COOKIE
from app.exports.models import Export
from app.jobs.models import Job
from app.settings import get_settings
from app.tenants import sessions
from tests.app.dashboard.windows import assert_fits_a_phone
from tests.app.inference.model_server import ModelServer, running
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_job,
    make_metrics,
    make_tenant,
    make_tuned_model,
)

TUNED = "ft:cherry-nano:acme:people:AbCd1234"
FILES = {"adapter/adapter_model.safetensors": b"a" * 5000, "model/config.json": b"{}"}
HOSTILE = "<script>document.title = 'owned'</script>\u202egnp \x1b[31m"


@pytest.fixture
def browser(server_url: str, tenant: Tenant, db: Session) -> Iterator[httpx.Client]:
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    headers = {"accept": "text/html", "cookie": f"{COOKIE}={token}"}
    with httpx.Client(base_url=server_url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    verdict = {"kind": "better_unseen", "sentence": f"Better on unseen rows {HOSTILE}", "basis": "unseen"}
    made = make_job(db, tenant.project_id, status="succeeded", suffix="people", last_step=20, verdict=verdict)
    make_checkpoint(db, made, 0, valid_reward=0.4, storage_key=None, advantage_over_base=None)
    trust = {"p": 0.004, "low": 0.11, "high": 0.33, "greedy_reward": 0.71, "canary_over_base": 0.02}
    for step in (10, 20):
        make_metrics(db, made, step)
        make_checkpoint(db, made, step, FILES, advantage_over_base=0.2, trust=trust)
    tuned = make_tuned_model(db, made, name=TUNED)
    tuned.storage_key = f"jobs/{made.id}/checkpoints/10-1"
    made.fine_tuned_model = TUNED
    db.commit()
    return made


def of_step(db: Session, job: Job, step: int) -> Checkpoint:
    return db.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == step)).one()


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server at which the service asks its models."""
    server = ModelServer()
    with running(server.app()) as url:
        monkeypatch.setenv("CHERRY_SAMPLER_URL", url)
        get_settings.cache_clear()
        yield server
    get_settings.cache_clear()


def test_each_number_that_was_measured_has_a_column_and_no_other(browser: httpx.Client, job: Job) -> None:
    shown = browser.get(f"/dashboard/jobs/{job.id}/checkpoints").text
    assert "+0.200 (+0.110 to +0.330)" in shown
    assert "0.680 ± 0.020" in shown
    for text in ("0.004", "0.710", "+0.020", "0.0100 ± 0.0020", "files dropped", "better unseen"):
        assert text in shown
    assert "Step 10 is delivered." in shown
    for empty in ("Validation loss", "Gold gap"):
        assert empty not in shown
    assert "<script>document" not in shown


def test_a_supervised_job_shows_its_losses(browser: httpx.Client, db: Session, tenant: Tenant) -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
    job = make_job(db, tenant.project_id, status="succeeded", method=method)
    make_metrics(db, job, 4, {"loss/train": 0.5, "loss/full_valid": 0.25})
    make_checkpoint(db, job, 4, valid_reward=None, valid_reward_stderr=None)
    db.commit()
    shown = browser.get(f"/dashboard/jobs/{job.id}/checkpoints").text
    assert "Validation loss" in shown
    assert "0.2500" in shown
    assert "Validation reward" not in shown


def test_the_lines_to_copy_name_this_checkpoint_and_this_service(
    browser: httpx.Client, db: Session, job: Job, server_url: str
) -> None:
    delivered = browser.get(f"/dashboard/jobs/{job.id}/checkpoints").text
    assert f"model=&#34;{TUNED}&#34;" in delivered
    assert f"{server_url}/v1" in delivered
    assert f"cherry models download {TUNED} --format merged" in delivered
    assert "vllm serve FOLDER --served-model-name ft-cherry-nano-acme-people-abcd1234" in delivered
    assert "AutoModelForCausalLM.from_pretrained(&#39;FOLDER&#39;)" in delivered
    assert "llama-server -m FOLDER/model-*.gguf" in delivered
    assert "ollama create ft-cherry-nano-acme-people-abcd1234 -f Modelfile" in delivered
    assert "tar -xf ft-cherry-nano-acme-people-abcd1234-merged.tar" in delivered
    last = of_step(db, job, 20)
    other = browser.get(f"/dashboard/jobs/{job.id}/checkpoints?checkpoint={last.id}").text
    assert f"model=&#34;{last.model_name}&#34;" in other


def test_a_download_is_what_the_api_sends(
    browser: httpx.Client, http: httpx.Client, db: Session, job: Job
) -> None:
    chosen = of_step(db, job, 10)
    ours = browser.get(f"/dashboard/jobs/{job.id}/checkpoints/{chosen.id}/download?format=merged")
    api = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{chosen.id}/download?format=merged")
    assert ours.status_code == 200
    assert ours.content == api.content
    with tarfile.open(fileobj=io.BytesIO(ours.content)) as tar:
        assert "config.json" in tar.getnames()
    part = browser.get(
        f"/dashboard/jobs/{job.id}/checkpoints/{chosen.id}/download?format=merged",
        headers={"range": "bytes=0-99"},
    )
    assert part.status_code == 206
    assert part.content == api.content[:100]


def test_another_project_downloads_makes_and_tries_nothing(db: Session, server_url: str, job: Job) -> None:
    other = make_tenant(db, "other")
    token = sessions.begin(db, other.key_id)
    db.commit()
    chosen = of_step(db, job, 10)
    at = f"/dashboard/jobs/{job.id}/checkpoints"
    with httpx.Client(base_url=server_url, headers={"cookie": f"{COOKIE}={token}"}) as stranger:
        for path in (at, f"{at}/{chosen.id}/download?format=merged", f"{at}/{chosen.id}/forms/gguf"):
            assert stranger.get(path).status_code == 404
        for path in (f"{at}/{chosen.id}/forms/gguf", f"{at}/{chosen.id}/try"):
            assert stranger.post(path, data={"prompt": "x"}).status_code == 404
    assert httpx.get(f"{server_url}{at}").status_code == 303


def test_a_form_of_another_site_makes_and_asks_nothing(
    browser: httpx.Client, db: Session, job: Job, models: ModelServer
) -> None:
    at = f"/dashboard/jobs/{job.id}/checkpoints/{of_step(db, job, 10).id}"
    for path in ("forms/gguf", "try"):
        answer = browser.post(f"{at}/{path}", data={"prompt": "x"}, headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403
    assert not models.asked
    assert db.scalars(select(Export)).all() == []


def test_a_form_that_a_worker_makes_is_asked_for_and_followed(
    browser: httpx.Client, db: Session, job: Job
) -> None:
    chosen = of_step(db, job, 10)
    at = f"/dashboard/jobs/{job.id}/checkpoints/{chosen.id}/forms/gguf"
    assert "Make it" in browser.get(at).text
    assert db.scalars(select(Export)).all() == [], "looking asks for nothing"
    assert "It waits for a worker." in browser.post(at).text
    export = db.scalars(select(Export)).one()
    export.status, export.progress = "running", {"phase": "converting", "share": 0.4}
    db.commit()
    following = browser.get(at).text
    assert "converting, 40%" in following
    assert 'hx-trigger="every 2s"' in following
    export.status, export.error = "failed", {"code": "server_error", "message": "No room."}
    db.commit()
    failed = browser.get(at).text
    assert "No room." in failed
    assert "Try again" in failed


def test_both_models_are_asked_the_same_as_the_key_that_signed_in(
    browser: httpx.Client, db: Session, job: Job, models: ModelServer, tenant: Tenant
) -> None:
    at = f"/dashboard/jobs/{job.id}/checkpoints/{of_step(db, job, 10).id}/try"
    models.deltas = ({"reasoning_content": HOSTILE}, {"content": HOSTILE})
    asked = {"prompt": "Ada, 36", "system": "Be brief.", "temperature": "0.5", "max_tokens": "9"}
    said = browser.post(at, data=asked).text
    assert sorted(body["model"] for body in models.asked) == ["cherry-nano", TUNED]
    for body, headers in zip(models.asked, models.headers, strict=True):
        assert [message["content"] for message in body["messages"]] == ["Be brief.", "Ada, 36"]
        assert (body["temperature"], body["max_completion_tokens"]) == (0.5, 9)
        assert headers["x-cherry-key"] == tenant.key_id
    assert "<script>document" not in said
    assert "right-to-left override" in said
    assert "<summary>Thoughts</summary>" in said


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prompt": ""}, "Write a prompt of 1 to"),
        ({"temperature": "9"}, "The temperature is a number from 0 to 2."),
        ({"max_tokens": "many"}, "The most tokens are a whole number"),
    ],
)
def test_what_is_wrong_with_a_question_is_a_sentence(
    browser: httpx.Client, db: Session, job: Job, models: ModelServer, wrong: dict[str, str], sentence: str
) -> None:
    at = f"/dashboard/jobs/{job.id}/checkpoints/{of_step(db, job, 10).id}/try"
    answer = browser.post(at, data={"prompt": "x", "temperature": "1", "max_tokens": "9", **wrong})
    assert answer.status_code == 422
    assert sentence in answer.text
    assert not models.asked


def test_a_model_that_cannot_answer_says_why_beside_the_other(
    browser: httpx.Client, db: Session, job: Job, models: ModelServer
) -> None:
    models.refusal = (503, {"message": "The sampler is full."}, {})
    at = f"/dashboard/jobs/{job.id}/checkpoints/{of_step(db, job, 10).id}/try"
    said = browser.post(at, data={"prompt": "x"})
    assert said.status_code == 200
    assert said.text.count("The sampler is full.") == 2


def test_without_a_sampler_the_page_says_what_to_do(browser: httpx.Client, job: Job) -> None:
    assert "CHERRY_SAMPLER_URL" in browser.get(f"/dashboard/jobs/{job.id}/checkpoints").text


@pytest.mark.slow
def test_a_person_asks_both_models_and_copies_the_lines(
    visitor: Page, db: Session, job: Job, models: ModelServer
) -> None:
    models.deltas = ({"content": HOSTILE},)
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.goto(f"/dashboard/jobs/{job.id}")
    visitor.get_by_role("link", name="Checkpoints", exact=True).click()
    visitor.get_by_label("Prompt").fill("Ada, 36")
    visitor.get_by_role("button", name="Ask both").click()
    expect(visitor.locator("#answers .card")).to_have_count(2)
    expect(visitor.locator("#answers")).to_contain_text("<script>")
    assert "owned" not in visitor.title()
    python = visitor.locator(".snippet", has_text="OpenAI").first
    python.get_by_role("button", name="Copy").click()
    expect(python.get_by_role("button")).to_have_text("Copied")
    assert TUNED in visitor.evaluate("navigator.clipboard.readText()")
    visitor.get_by_role("button", name="Make it").click()
    expect(visitor.locator("#gguf")).to_contain_text("It waits for a worker.")
    assert_fits_a_phone(visitor)
