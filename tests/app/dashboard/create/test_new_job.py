"""The form of a new job over HTTP: what it shows, what it starts, and what it says of faults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.dashboard.create.snippets import in_command, in_curl, in_python
from app.dashboard.sign_in import COOKIE
from app.jobs.models import Job
from app.preflights.models import Preflight
from app.tenants import sessions
from tests.app.dashboard.create.posts import Form
from tests.factories import GRADER, Tenant, make_file, make_job, make_preflight, make_tenant

CHAT = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 12
HOSTILE = "</textarea><script>alert(1)</script>\u202e{{7*7}}"


@pytest.fixture
def browser(server_url: str, tenant: Tenant, db: Session) -> Iterator[httpx.Client]:
    """A browser in which the tenant has signed in."""
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    with httpx.Client(base_url=server_url, cookies={COOKIE: token}, timeout=60) as client:
        yield client


@pytest.fixture
def given(db: Session, tenant: Tenant) -> dict[str, str]:
    """The fields of a reinforcement job that is right."""
    train, valid = make_file(db, tenant.project_id), make_file(db, tenant.project_id)
    db.commit()
    return {
        "method": "reinforcement",
        "model": "cherry-nano",
        "training_file": train.id,
        "validation_file": valid.id,
        "grader_view": "json",
        "grader_json": json.dumps(GRADER),
        "hp/n_epochs": "2",
    }


def newest(db: Session) -> Job:
    db.expire_all()
    return db.scalars(select(Job).order_by(Job.created_at.desc())).first() or pytest.fail("no job was made")


def test_the_form_starts_the_job_that_it_shows(
    browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    made = browser.post("/dashboard/new", data={**given, "suffix": "mine", "seed": "5", "hp/beta": ""})
    job = newest(db)
    assert (made.status_code, made.headers["location"]) == (303, f"/dashboard/jobs/{job.id}")
    assert (job.model, job.suffix, job.seed) == ("cherry-nano", "mine", 5)
    assert job.method["reinforcement"]["grader"] == GRADER
    assert job.method["reinforcement"]["hyperparameters"]["n_epochs"] == 2
    assert "beta" not in job.method["reinforcement"]["hyperparameters"]


def test_htmx_is_led_to_the_job(browser: httpx.Client, given: dict[str, str], db: Session) -> None:
    made = browser.post("/dashboard/new", data=given, headers={"hx-request": "true"})
    assert made.headers["hx-redirect"] == f"/dashboard/jobs/{newest(db).id}"


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_other_methods_need_no_grader(
    method: str, browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    browser.post("/dashboard/new", data={**given, "method": method, "grader_json": "{"})
    assert newest(db).method == {
        "type": method,
        method: {"hyperparameters": newest(db).method[method]["hyperparameters"]},
    }


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        pytest.param({"model": ""}, "model", "Choose the model", id="no model"),
        pytest.param({"model": "gpt-9"}, "model", "not available for fine-tuning", id="unknown model"),
        pytest.param({"training_file": ""}, "training_file", "Choose a training file", id="no file"),
        pytest.param({"training_file": "file-x"}, "training_file", "No such File", id="unknown file"),
        pytest.param({"hp/n_epochs": "0"}, "hp/n_epochs", "expected a value &gt;= 1", id="number too small"),
        pytest.param({"hp/n_epochs": "many"}, "hp/n_epochs", "expected a number or", id="no number"),
        pytest.param({"seed": "x"}, "seed", "expected an integer", id="seed"),
        pytest.param({"suffix": "x" * 65}, "suffix", "at most 64 characters", id="suffix"),
        pytest.param({"grader_json": "{"}, "grader_json", "This is no JSON", id="grader is no JSON"),
        pytest.param({"more": "[1]"}, "more", "one JSON object", id="more is no object"),
        pytest.param({"more": '{"metadata": {"a": 1}}'}, "more", "metadata", id="metadata"),
        pytest.param(
            {"format": "json_schema", "schema": '{"name": "a"'}, "schema", "This is no JSON", id="schema"
        ),
    ],
)
def test_a_fault_stands_beside_its_field_and_nothing_typed_is_lost(
    change: dict[str, str], at: str, said: str, browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    sent = {**given, "suffix": "kept", "hp/group_size": "4", **change}
    answer = browser.post("/dashboard/new", data=sent)
    assert answer.status_code == 400
    below = answer.text.rpartition(f'id="{at}"')[2].partition('<div class="field"')[0]
    assert said in below, "beside the field"
    stands = Form(answer.text).fields
    lost = {name: stands.get(name) for name, value in sent.items() if stands.get(name) != value}
    unknown = {"gpt-9", "file-x"}  # a list offers what there is
    assert not {name for name in lost if sent[name] not in unknown}
    assert db.scalars(select(Job)).first() is None


def test_all_faults_are_told_at_once(browser: httpx.Client, given: dict[str, str]) -> None:
    wrong = {
        "type": "multi",
        "graders": {"a": {"type": "string_check", "input": "{{x"}},
        "calculate_output": "b",
    }
    sent = {**given, "model": "gpt-9", "hp/beta": "-1", "grader_json": json.dumps(wrong)}
    answer = browser.post("/dashboard/new", data=sent).text
    for said in ("gpt-9", "beta", "graders.a.operation", "calculate_output"):
        assert said in answer


def test_lines_that_a_method_cannot_use_are_shown_with_their_faults(
    browser: httpx.Client, given: dict[str, str], db: Session, tenant: Tenant
) -> None:
    data = b'{"messages": [{"role": "user", "content": "fine"}]}\n{"prompt": "wrong"}\nnonsense <b>\n'
    file = make_file(db, tenant.project_id, data)
    db.commit()
    page = browser.post("/dashboard/new/form", data={**given, "training_file": file.id}).text
    assert "2 of 3 lines cannot be used for a reinforcement job" in page
    assert "not valid JSON" in page
    assert "nonsense &lt;b&gt;" in page


def test_a_file_is_held_against_the_method_that_is_chosen(
    browser: httpx.Client, given: dict[str, str], db: Session, tenant: Tenant
) -> None:
    file = make_file(db, tenant.project_id, CHAT)
    db.commit()
    sent = {**given, "training_file": file.id}
    assert "12 of 12 lines cannot be used" in browser.post("/dashboard/new/form", data=sent).text
    fine = browser.post("/dashboard/new/form", data={**sent, "method": "supervised"}).text
    assert "12 rows, all of them in the form that a supervised job reads" in fine


def test_an_upload_is_a_file_of_the_project(
    browser: httpx.Client, tenant: Tenant, http: httpx.Client
) -> None:
    sent = {"file": ("rows.jsonl", CHAT)}
    data = {"purpose": "fine-tune"}
    made = browser.post("/dashboard/new/upload", data=data, files=sent).json()
    assert http.get(f"/v1/files/{made['id']}").json()["filename"] == made["filename"] == "rows.jsonl"
    assert http.get(f"/v1/files/{made['id']}/content").content == CHAT


@pytest.mark.parametrize(
    ("name", "data", "said"), [("rows.csv", CHAT, "must be named *.jsonl"), ("rows.jsonl", b"", "is empty")]
)
def test_an_upload_is_refused_as_the_api_refuses_it(
    name: str, data: bytes, said: str, browser: httpx.Client
) -> None:
    purpose = {"purpose": "fine-tune"}
    answer = browser.post("/dashboard/new/upload", data=purpose, files={"file": (name, data)})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_the_suggested_grader_gives_the_suggested_answers_the_full_score(
    browser: httpx.Client, given: dict[str, str]
) -> None:
    start = {name: given[name] for name in ("method", "model", "training_file")}
    form = Form(browser.post("/dashboard/new/form", data=start).text).fields
    assert form["grader/?"] == "string_check"
    tried = browser.post("/dashboard/new/try", data=form).text
    assert tried.count("the full score") == 3
    (typed, *_) = [name for name in form if name.startswith("try/") and name.endswith("/answer")]
    worse = browser.post("/dashboard/new/try", data={**form, typed: "not it"}).text
    assert worse.count("the full score") == 2
    assert "not it" in worse


def test_the_clone_of_a_job_asks_for_the_same(
    browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    more = {"metadata": {"team": "a"}, "method": {"reinforcement": {"gold_grader": GRADER}}}
    schema = {"name": "x", "schema": {"type": "object", "properties": {}, "additionalProperties": False}}
    first = {
        **given,
        "suffix": "again",
        "more": json.dumps(more),
        "format": "json_schema",
        "schema": json.dumps(schema),
        "hp/stop": '["\\n"]',
        "hp/learning_rate_multiplier": "0.5",
    }
    browser.post("/dashboard/new", data=first)
    job = newest(db)
    form = Form(browser.get(f"/dashboard/new?from={job.id}").text).fields
    made = browser.post("/dashboard/new", data=form)
    clone = newest(db)
    assert made.status_code == 303
    assert clone.id != job.id
    for name in ("model", "training_file", "validation_file", "suffix", "meta", "method"):
        assert getattr(clone, name) == getattr(job, name), name


def test_the_secrets_of_a_job_are_not_cloned_and_their_masks_not_taken_for_them(
    browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    secret = {"type": "endpoint", "url": "https://example.com/", "headers": {"x-key": "hush"}}
    browser.post("/dashboard/new", data={**given, "grader_json": json.dumps(secret)})
    job = newest(db)
    page = browser.get(f"/dashboard/new?from={job.id}").text
    assert "hush" not in page
    refused = browser.post("/dashboard/new", data=Form(page).fields)
    assert refused.status_code == 400
    assert "Type the secret itself" in refused.text


@pytest.mark.parametrize("path", ["/dashboard/new?from={}", "/dashboard/new/preflight/{}"])
def test_nothing_of_another_project_is_shown(path: str, browser: httpx.Client, db: Session) -> None:
    other = make_tenant(db)
    theirs = {"new?": make_job(db, other.project_id).id, "pref": make_preflight(db, other.project_id).id}
    db.commit()
    for one in theirs.values():
        assert browser.get(path.format(one)).status_code == 404


@pytest.mark.parametrize("path", ["", "/form", "/grader", "/side", "/try", "/upload", "/preflight"])
def test_nobody_who_has_not_signed_in_and_no_other_site_gets_anything(
    path: str, server_url: str, browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert browser.post(f"/dashboard/new{path}", data=given, headers=headers).status_code == 403
    unknown = httpx.post(f"{server_url}/dashboard/new{path}", data=given)
    assert unknown.status_code in (303, 401)
    assert db.scalars(select(Job)).first() is None
    assert db.scalars(select(Preflight)).first() is None


def test_hostile_text_is_text(
    browser: httpx.Client, given: dict[str, str], db: Session, tenant: Tenant
) -> None:
    row = json.dumps(
        {"messages": [{"role": "user", "content": HOSTILE}], HOSTILE: HOSTILE, "answer": HOSTILE}
    )
    file = make_file(db, tenant.project_id, row.encode() + b"\n", name="x<b>.jsonl")
    db.commit()
    sent = {**given, "training_file": file.id, "suffix": HOSTILE, "more": HOSTILE, "hp/stop": HOSTILE}
    page = browser.post("/dashboard/new", data=sent).text
    assert "<script>alert" not in page
    assert "{{7*7}}" in page
    assert Form(page).fields["suffix"] == HOSTILE


def test_a_preflight_is_shown_while_it_runs_and_with_its_findings(
    browser: httpx.Client, given: dict[str, str], db: Session
) -> None:
    page = browser.post("/dashboard/new/preflight", data=given).text
    preflight = db.scalars(select(Preflight)).one()
    assert f"/dashboard/new/preflight/{preflight.id}" in page
    assert "every 1s" in page
    finding: dict[str, Any] = {
        "code": "x",
        "severity": "warn",
        "message": "Half of the rows are alike.",
        "param": None,
        "lines": [],
    }
    job = {"steps": 40, "seconds_low": 60.0, "seconds_high": 240.0, "device": "cpu"}
    example = {"line": 7, "text": "<b>5", "reward": None, "failure": {"kind": "x", "message": "No number."}}
    base = {"mean_reward": 0.25, "examples": [example]}
    preflight.status = "succeeded"
    preflight.report = {"verdict": "It can run.", "findings": [finding], "job": job, "base": base}
    db.commit()
    over = browser.get(f"/dashboard/new/preflight/{preflight.id}").text
    for said in (
        "It can run.",
        "Half of the rows are alike.",
        "1 min to 4 min",
        "40",
        "Line 7: no score",
        "&lt;b&gt;5",
        "No number.",
    ):
        assert said in over
    assert "every 1s" not in over


def test_a_preflight_that_is_refused_says_why(browser: httpx.Client, given: dict[str, str]) -> None:
    assert "Choose the model" in browser.post("/dashboard/new/preflight", data={**given, "model": ""}).text


def ran(command: list[str], tenant: Tenant, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "CHERRY_API_KEY": tenant.key, "NO_PROXY": "*", "PATH": path}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def body(given: dict[str, str]) -> dict[str, Any]:
    """A request with all that quoting could break."""
    odd = {**GRADER, "reference": 'it\'s {{item.answer}} $HOME `x` \\n "é"\n\tJSON\n'}
    return {
        "model": given["model"],
        "training_file": given["training_file"],
        "suffix": "it's",
        "metadata": {"a": "b c"},
        "resources": {"processes": 1},
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": odd,
                "hyperparameters": {"n_epochs": 2, "stop": ["'\n"], "guard": "off"},
            },
        },
    }


def assert_is_asked(job: Job, body: dict[str, Any]) -> None:
    asked = body["method"]["reinforcement"]
    kept = job.method["reinforcement"]
    assert kept["grader"] == asked["grader"]
    assert asked["hyperparameters"].items() <= kept["hyperparameters"].items()
    assert (job.suffix, job.meta, job.resources) == (body["suffix"], body["metadata"], body["resources"])


def test_the_python_that_is_shown_starts_the_same_job(
    server_url: str, tenant: Tenant, body: dict[str, Any], db: Session, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text(in_python(body, server_url))
    said = ran([sys.executable, "job.py"], tenant, tmp_path)
    assert said.strip() == newest(db).id
    assert_is_asked(newest(db), body)


def test_the_curl_that_is_shown_starts_the_same_job(
    server_url: str, tenant: Tenant, body: dict[str, Any], db: Session, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    said = ran(["sh", "-c", in_curl(body, server_url)], tenant, tmp_path)
    assert json.loads(said)["id"] == newest(db).id
    assert_is_asked(newest(db), body)


@pytest.mark.long
def test_the_command_that_is_shown_starts_the_same_job_and_says_what_it_has_no_option_for(
    server_url: str, tenant: Tenant, body: dict[str, Any], db: Session, tmp_path: Path
) -> None:
    assert "resources" in in_command(body, server_url).note
    del body["resources"]
    shown = in_command(body, server_url)
    assert "no option" not in shown.note
    said = ran(["sh", "-c", shown.text.replace(" --wait", " --json")], tenant, tmp_path)
    assert json.loads(said)["id"] == newest(db).id
    assert_is_asked(newest(db), {**body, "resources": None})
