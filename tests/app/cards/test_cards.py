"""The card of a job over HTTP: its numbers, its signature, when it is made, and who may see it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import openai
import pytest
from markdown_it import MarkdownIt
from sqlalchemy.orm import Session

from app.cards import keys, signature
from app.cards import service as cards
from app.cards.canonical import digest
from app.cards.contents import without_queries
from app.cards.markdown import markdown
from app.db import unit_of_work
from app.jobs.models import Job
from app.jobs.status import Claim
from app.sealing import Sealer
from app.settings import Settings
from app.storage import get_storage
from tests.factories import (
    GRADER,
    Tenant,
    make_checkpoint,
    make_file,
    make_job,
    make_metrics,
    make_tuned_model,
)
from workers.jobs.db_recorder import DatabaseRecorder
from workers.training.base.types import Action

FILES = {
    "adapter/adapter_model.safetensors": b"a" * 1000,
    "model/model.safetensors": b"m",
    "model/config.json": b"{}",
}
FACTS = {
    "data": {
        "training_file": {"name": "file-1 (t.jsonl)", "sha256": "1" * 64, "rows": 3, "rows_sha256": "2" * 64}
    },
    "base_model": {"name": "cherry-nano", "files": {"model.safetensors": "3" * 64}, "sha256": "4" * 64},
}
ATTEMPT = {"attempt": 1, "device": "cpu", "versions": {"torch": "2.13.0"}}


def finished_job(db: Session, tenant: Tenant, **columns: Any) -> Job:
    """A job that has delivered its checkpoint of step 1, of the three that it made."""
    values = {"last_step": 2, "total_steps": 2, "config": {"seed": 7, "guard": "act", "model_path": "/x"}}
    job = make_job(db, tenant.project_id, status="succeeded", **{**values, **columns})
    make_checkpoint(db, job, 0, {"model/model.safetensors": b"base"}, kl=0.0)
    gained = {"advantage_over_base": 0.25, "advantage_stderr": 0.05}
    make_checkpoint(db, job, 1, FILES, **gained)
    make_checkpoint(db, job, 2, storage_key=None, **gained)
    for step in range(3):
        make_metrics(db, job, step)
    job.fine_tuned_model = make_tuned_model(db, job, f"ft:cherry-nano:acme::{job.id[-8:]}").name
    job.usage_metrics = {"training_seconds": 1.5, "grader_tokens": {}}
    cards.note_facts(db, job.id, ATTEMPT, FACTS)
    db.commit()
    return job


def public_keys(db: Session) -> dict[str, bytes]:
    return {key.id: key.public_key for key in keys.every(db)}


def card_path(job: Job) -> str:
    return f"/v1/fine_tuning/jobs/{job.id}/card"


def test_a_card_holds_the_jobs_numbers_and_is_signed(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    job = finished_job(db, tenant)
    document: Any = client.get(card_path(job).removeprefix("/v1"), cast_to=object)
    signature.check(document, public_keys(db))
    card = document["card"]
    assert card["format"] == "cherry.run_card.v1"
    assert (card["job"]["id"], card["job"]["status"], card["seeds"]) == (job.id, "succeeded", [7])
    assert card["data"] == FACTS["data"]
    assert card["base_model"] == FACTS["base_model"]
    assert card["grader"] == {"spec": GRADER, "sha256": digest(GRADER)}
    assert card["config"] == {"seed": 7, "guard": "act"}, "where a model lies says nothing of it"
    assert card["attempts"] == [ATTEMPT]
    assert card["delivered"]["step"] == 1
    assert card["delivered"]["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }
    assert "+0.250" in card["verdict"]["sentence"]
    assert [(each["step"], each["kept"], each["delivered"]) for each in card["checkpoints"]] == [
        (0, True, False),
        (1, True, True),
        (2, False, False),
    ]
    assert card["checkpoints"][1]["gain_interval"] == pytest.approx([0.152, 0.348], abs=1e-3)
    assert "files" not in card["checkpoints"][2]
    rewards = card["curves"]["columns"].index("reward/mean")
    assert [(row[0], row[rewards]) for row in card["curves"]["rows"]] == [(0, 0.421), (1, 0.421), (2, 0.421)]
    assert card["usage"] == {
        "training_seconds": 1.5,
        "grader_tokens": {},
        "steps": 2,
        "trained_tokens": None,
    }


def test_a_card_is_made_once_whatever_happens_to_the_rows(
    http: httpx.Client, db: Session, tenant: Tenant, settings: Settings
) -> None:
    job = finished_job(db, tenant)
    with ThreadPoolExecutor(4) as askers:
        first, *others = askers.map(lambda _: http.get(card_path(job)).text, range(4))
    assert others == [first] * 3
    keys.rotate(db, Sealer(settings))
    http.delete(f"/v1/models/{job.fine_tuned_model}").raise_for_status()
    db.commit()
    assert http.get(card_path(job)).text == first
    signature.check(json.loads(first), public_keys(db))


def test_the_markdown_is_the_text_whose_hash_is_signed(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = finished_job(db, tenant)
    told = http.get(card_path(job), params={"format": "markdown"})
    assert told.headers["content-type"].startswith("text/markdown")
    document = http.get(card_path(job)).json()
    assert hashlib.sha256(told.content).hexdigest() == document["markdown_sha256"]
    assert told.text == markdown(document["card"])
    assert "| 1 | 0.6800 | +0.2500 (0.1520 to 0.3480) |" in told.text


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_delivered_nothing_has_a_card_that_says_so(
    http: httpx.Client, db: Session, tenant: Tenant, status: str
) -> None:
    error = {"code": "grader_error", "message": "no", "param": None} if status == "failed" else None
    job = make_job(
        db, tenant.project_id, status=status, error=error, training_file=make_file(db, tenant.project_id).id
    )
    db.commit()
    document = http.get(card_path(job)).json()
    signature.check(document, public_keys(db))
    assert document["card"]["delivered"] is None
    assert ("grader_error" if error else "cancelled after step 0") in document["card"]["verdict"]["sentence"]
    assert document["card"]["data"]["training_file"]["sha256"] is not None
    assert document["card"]["data"]["validation_file"]["sha256"] is None


def test_a_job_that_is_not_over_has_a_card_that_nobody_signed_and_nobody_keeps(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="running")
    db.commit()
    document = http.get(card_path(job)).json()
    assert (document["signature"], document["unsigned_reason"]) == (None, cards.NOT_OVER)
    job.status = "cancelled"
    db.commit()
    signature.check(http.get(card_path(job)).json(), public_keys(db))


def test_a_card_that_cannot_be_signed_says_why_and_is_signed_once_it_can_be(
    db: Session, tenant: Tenant, settings: Settings
) -> None:
    job = finished_job(db, tenant)
    without = settings.model_copy(update={"secret_key": type(settings.secret_key)("")})
    document = json.loads(cards.card_of(db, job, without).document)
    assert "CHERRY_SECRET_KEY" in document["unsigned_reason"]
    with unit_of_work() as own:
        document = json.loads(cards.card_of(own, job, settings).document)
    signature.check(document, public_keys(db))


def test_what_the_guard_did_is_on_the_card(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="running", attempt=1, config={"guard": "act"})
    db.commit()
    recorder = DatabaseRecorder(Claim(job.id, 1, "running"), get_storage())
    recorder.action(Action(10, 1, "roll_back", "kl", "Rolled back to step 5.", {"kl": 2.5, "threshold": 2.0}))
    recorder.note("warn", "Something else.")
    guard = http.get(card_path(job)).json()["card"]["guard"]
    assert guard["mode"] == "act"
    (action,) = guard["actions"]
    assert (action["said"], action["action"], action["step"]) == ("Rolled back to step 5.", "roll_back", 10)
    assert action["figures"] == {"kl": 2.5, "threshold": 2.0}
    told = http.get(card_path(job), params={"format": "markdown"}).text
    assert f"- Event {action['event']}: Rolled back to step 5." in told


def test_secrets_of_a_grader_are_not_on_the_card(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    endpoint = {
        "type": "endpoint",
        "name": "e",
        "url": "https://me:pass@x.example/grade?token=hidden1",
        "headers": {"authorization": "hidden2"},
    }
    multi = {"type": "multi", "graders": {"a": endpoint, "b": GRADER}, "calculate_output": "a + b"}
    block = {"grader": multi, "hyperparameters": {}}
    job = finished_job(db, tenant, method={"type": "reinforcement", "reinforcement": block})
    for form in ("json", "markdown"):
        told = http.get(card_path(job), params={"format": form}).text
        assert not any(secret in told for secret in ("hidden1", "hidden2", "pass@"))
    assert without_queries({"base_url": "https://h/v1"}) == {"base_url": "https://h/v1"}


ATTACKS = [
    "<script>alert(1)</script>",
    "a | b\n\n# heading",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/pixel)",
    "https://evil.example www.evil.example me@evil.example",
    "`code` *bold* _under_ __strong__ ~~gone~~ \\| $x$ \\<b>",
    "<https://evil.example> &lt;b&gt; &#60;b&#62;",
    "x" * 10_000,
]
MARKUP = ("<a", "<img", "<script", "<em", "<code", "<s>", "<b>", "<h1>heading")


def test_names_of_users_are_no_markup(db: Session, tenant: Tenant, settings: Settings) -> None:
    config = {"seed": 7, "stop": ATTACKS} | {attack: attack for attack in ATTACKS}
    job = finished_job(db, tenant, suffix=ATTACKS[0], config=config)
    card = json.loads(cards.card_of(db, job, settings).document)["card"]
    for name, each in enumerate(ATTACKS):
        card["data"][f"file_{name}"] = {**FACTS["data"]["training_file"], "name": each}
        card["guard"]["actions"].append({"event": 1, "said": each})
    card["verdict"]["sentence"] = " ".join(ATTACKS)
    text = markdown(card)
    assert len(text) < 50_000
    read = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    assert "<h1>Run card of" in read
    assert read.count("<h1") == 1
    assert read.count("<tr>") == read.count("</tr>")
    assert not [markup for markup in MARKUP if markup in read]
    assert "alert(1)" in read


def test_a_download_of_a_job_that_is_over_has_its_card(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = finished_job(db, tenant)
    (checkpoint, *_) = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints").json()["data"]
    response = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint['id']}/download")
    assert int(response.headers["content-length"]) == len(response.content)
    with tarfile.open(fileobj=io.BytesIO(response.content)) as tar:
        names = tar.getnames()
        assert names[0] == "manifest.json"
        assert names[-2:] == ["card.json", "card.md"]
        card = tar.extractfile("card.json")
        assert card is not None
        assert card.read().decode() == http.get(card_path(job)).text
