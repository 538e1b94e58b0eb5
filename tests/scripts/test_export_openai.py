"""The exporter against a service with OpenAI's shapes: whole, broken off, busy, closed and strange."""

from __future__ import annotations

import email.utils
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import export_openai
from tests.app.grading.judge_servers import Answered, answered, refused
from tests.app.http.openai_schema import faults_of_response
from tests.app.webhooks.receivers import Received
from tests.scripts.openai_server import OpenAI, a_job, a_project, first, listed, serving

SCRIPT = Path(export_openai.__file__)
PATHS = {
    "/evals": "evals.jsonl",
    "/evals/eval_1/runs": "evals/eval_1/runs.jsonl",
    "/evals/eval_2/runs": "evals/eval_2/runs.jsonl",
    "/evals/eval_1/runs/evalrun_1/output_items": "evals/eval_1/items/evalrun_1.jsonl",
    "/chat/completions": "completions.jsonl",
    "/fine_tuning/jobs": "jobs.jsonl",
    "/fine_tuning/jobs/ftjob-1/events": "jobs/ftjob-1/events.jsonl",
    "/fine_tuning/jobs/ftjob-1/checkpoints": "jobs/ftjob-1/checkpoints.jsonl",
    "/files": "files.jsonl",
}
NO_PAUSE = {"retry_after": "0.001"}


@pytest.fixture(autouse=True)
def _a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")


def export(url: str, folder: Path, *options: str) -> int:
    return export_openai.main([str(folder), "--base-url", url, *options])


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_id(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: str(item["id"]))


def missing(folder: Path) -> list[tuple[str, int | None]]:
    return [(one["what"], one["status"]) for one in lines(folder / "missing.jsonl")]


def all_but_mine(project: OpenAI) -> OpenAI:
    """The project without the file that OpenAI does not give out."""
    project.lists["/files"] = project.lists["/files"][:1]
    return project


def holds_all(folder: Path, project: OpenAI) -> None:
    for path, file in PATHS.items():
        assert by_id(lines(folder / file)) == by_id(project.lists[path]), file
    for line in lines(folder / "messages.jsonl"):
        assert line["messages"] == project.lists[f"/chat/completions/{line['completion_id']}/messages"]
    assert {path.name: path.read_bytes() for path in (folder / "files").iterdir()} == project.contents
    assert not [*folder.rglob("*.part"), *folder.rglob("*.old")]


def test_every_object_is_written_as_the_service_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = a_project(n_items=250)
    with serving(project) as url:
        assert export(url, tmp_path) == 1
    holds_all(tmp_path, project)
    assert missing(tmp_path) == [("content of file-mine", 400)]
    about = json.loads((tmp_path / "export.json").read_text())
    assert (about["format"], about["missing"], about["counts"]["output items"]) == (1, 1, 250)
    assert "content of file-mine: 400 Not allowed" in capsys.readouterr().err


@pytest.mark.parametrize("path", [*PATHS, "/chat/completions/chatcmpl-0/messages"])
def test_the_stand_in_has_the_shapes_that_openai_publishes(path: str) -> None:
    body = listed(a_project(n_items=2).lists[path])
    assert faults_of_response("GET", path, 200, body) == []


@pytest.mark.parametrize(
    ("place", "again"),
    [
        pytest.param("after=outputitem_199", 0, id="the third page of output items"),
        pytest.param("after=ftevent-20", 1, id="the second page of a list that shows the newest first"),
        pytest.param("/chat/completions/chatcmpl-2/messages", 0, id="messages"),
        pytest.param("/files/file-train/content", 0, id="a file"),
    ],
)
def test_a_killed_export_goes_on_where_it_was(tmp_path: Path, place: str, again: int) -> None:
    project = all_but_mine(a_project(n_items=250, n_events=120))
    project.hangs_at = place
    with serving(project) as url:
        command = [sys.executable, str(SCRIPT), str(tmp_path), "--base-url", url, "--workers", "1"]
        export_of_a_while = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ})
        assert project.reached.wait(30)
        export_of_a_while.kill()
        export_of_a_while.wait()
        project.hangs_at, n_before = None, len(project.asked)
        assert export(url, tmp_path) == 0
    begun_again = {path for path in project.asked[n_before:] if "after" not in path} & set(
        project.asked[: n_before - 1]
    )
    holds_all(tmp_path, project)
    assert len(begun_again) == again, begun_again


def test_a_line_that_a_kill_broke_is_read_again(tmp_path: Path) -> None:
    project = all_but_mine(a_project(n_items=10))
    part = tmp_path / "evals" / "eval_1" / "items" / "evalrun_1.jsonl.part"
    part.parent.mkdir(parents=True)
    whole = "".join(
        json.dumps(item) + "\n" for item in project.lists["/evals/eval_1/runs/evalrun_1/output_items"][:7]
    )
    part.write_text(whole + '{"id": "outputitem_7", "obj')
    with serving(project) as url:
        assert export(url, tmp_path) == 0
    holds_all(tmp_path, project)
    assert project.count("after=outputitem_6&") == 1


def tomorrow() -> str:
    return email.utils.formatdate(time.time() + 86_400, usegmt=True)


@pytest.mark.parametrize(
    "refuse",
    [
        pytest.param(
            first(3, "/evals", refused(429, "slow down", "rate_limit_exceeded", **NO_PAUSE)), id="429"
        ),
        pytest.param(first(2, "/output_items", refused(503, "overloaded", **NO_PAUSE)), id="503"),
        pytest.param(first(2, "/content", refused(500, "oh", retry_after_ms="1")), id="500 for a file"),
        pytest.param(first(1, "limit=100", refused(400, "Invalid 'limit'")), id="large pages are refused"),
        pytest.param(
            first(1, "/content", (200, {"content-length": "99"}, b"short")), id="a file that breaks off"
        ),
        pytest.param(
            first(1, "/events", (200, {"content-length": "99"}, b'{"data":')), id="a page that breaks off"
        ),
    ],
)
def test_a_busy_service_is_asked_again(tmp_path: Path, refuse: Callable[[Received], Answered | None]) -> None:
    project = all_but_mine(a_project())
    project.refuse = refuse
    with serving(project) as url:
        assert export(url, tmp_path) == 0
    holds_all(tmp_path, project)


@pytest.mark.parametrize(
    ("refusal", "n_asked"),
    [
        pytest.param(refused(410, "Evals are closed."), 1, id="closed"),
        pytest.param(refused(403, "No access."), 1, id="no right"),
        pytest.param(refused(401, "Missing scopes: api.evals.read", "missing_scope"), 1, id="a key of less"),
        pytest.param(refused(429, "no money", "insufficient_quota"), 2, id="no quota"),
        pytest.param(refused(503, "later", x_should_retry="false"), 2, id="not to be retried"),
        pytest.param(refused(429, "later", retry_after="3600"), 2, id="in an hour"),
        pytest.param(refused(429, "later", retry_after=tomorrow()), 2, id="tomorrow"),
        pytest.param(refused(500, "oh", **NO_PAUSE), 4, id="broken"),
        pytest.param((200, {"content-type": "text/html"}, b"<html>"), 2, id="a page of a proxy"),
        pytest.param((200, {"content-type": "application/json"}, b"{"), 2, id="no JSON"),
    ],
)
def test_what_is_refused_is_told_and_the_rest_is_got(tmp_path: Path, refusal: Answered, n_asked: int) -> None:
    project = all_but_mine(a_project())
    project.refuse = lambda received: refusal if received.path.startswith("/v1/evals") else None
    with serving(project) as url:
        assert export(url, tmp_path, "--tries", "2") == 1
        status = None if refusal[0] == 200 else refusal[0]
        assert missing(tmp_path) == [("evals", status)]
        assert project.count("/evals") == n_asked
        assert len(lines(tmp_path / "jobs.jsonl")) == 1
        project.refuse = lambda _: None
        assert export(url, tmp_path) == 0
    holds_all(tmp_path, project)


def test_what_was_got_stays_when_the_service_closes_or_forgets(tmp_path: Path) -> None:
    project = all_but_mine(a_project())
    held = {path: list(items) for path, items in project.lists.items()}
    with serving(project) as url:
        assert export(url, tmp_path) == 0
        project.refuse = lambda received: refused(410, "closed") if "/evals" in received.path else None
        project.lists["/fine_tuning/jobs"] = [a_job("ftjob-2")]
        project.lists |= {f"/fine_tuning/jobs/ftjob-2/{name}": [] for name in ("events", "checkpoints")}
        assert export(url, tmp_path, "--refresh") == 1
    project.lists = {**held, "/fine_tuning/jobs": [*held["/fine_tuning/jobs"], a_job("ftjob-2")]}
    for path in ("/evals", "/evals/eval_1/runs", "/evals/eval_1/runs/evalrun_1/output_items"):
        assert lines(tmp_path / PATHS[path]) == held[path]
    assert by_id(lines(tmp_path / "jobs.jsonl")) == by_id(project.lists["/fine_tuning/jobs"])


def test_a_list_that_closes_while_it_is_read_anew_keeps_what_it_had(tmp_path: Path) -> None:
    project = all_but_mine(a_project())
    part = tmp_path / "jobs.jsonl.part"
    part.write_text(json.dumps(a_job("ftjob-1")) + "\n")
    project.refuse = lambda received: refused(410, "closed") if received.path.startswith("/v1/fine") else None
    with serving(project) as url:
        assert export(url, tmp_path) == 1
        project.refuse = lambda _: None
        project.lists["/fine_tuning/jobs"] = []
        assert export(url, tmp_path) == 0
    assert lines(tmp_path / "jobs.jsonl") == [a_job("ftjob-1")]
    assert len(lines(tmp_path / "jobs" / "ftjob-1" / "events.jsonl")) == 2


def test_refreshed_lists_show_what_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = all_but_mine(a_project())
    project.lists["/fine_tuning/jobs"] = [a_job("ftjob-1", status="running")]
    with serving(project) as url:
        assert export(url, tmp_path) == 0
        assert "Not over yet: ftjob-1." in capsys.readouterr().err
        project.lists["/fine_tuning/jobs"] = [a_job("ftjob-1")]
        assert export(url, tmp_path) == 0
        assert lines(tmp_path / "jobs.jsonl")[0]["status"] == "running"
        assert export(url, tmp_path, "--refresh") == 0
    holds_all(tmp_path, project)


def test_an_item_that_was_deleted_meanwhile_ends_no_list_early(tmp_path: Path) -> None:
    project = all_but_mine(a_project())
    gone = {"id": "eval_0", "object": "eval"}
    (tmp_path / "evals.jsonl.part").write_text(json.dumps(gone) + "\n")
    with serving(project) as url:
        assert export(url, tmp_path) == 1
    assert [item["id"] for item in lines(tmp_path / "evals.jsonl")] == ["eval_0", "eval_1", "eval_2"]
    assert missing(tmp_path) == [("runs of eval_0", 404)]


def test_a_service_that_answers_nothing_behind_a_gone_item_is_read_from_the_start(tmp_path: Path) -> None:
    project = all_but_mine(a_project())
    (tmp_path / "completions.jsonl.part").write_text('{"id": "chatcmpl-x"}\n')
    project.refuse = lambda got: answered(listed([])) if "after=chatcmpl-x" in got.path else None
    with serving(project) as url:
        assert export(url, tmp_path, "--only", "completions") == 1
    assert len(lines(tmp_path / "completions.jsonl")) == 4
    assert project.count("/evals") == 0


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(listed([{"id": "eval_1"}], has_more=True), id="the same page for ever"),
        pytest.param({"object": "list", "data": [{"name": "x"}], "has_more": True}, id="items without ids"),
        pytest.param({"object": "list", "data": None}, id="no items"),
    ],
)
def test_a_list_that_does_not_end_is_told(tmp_path: Path, page: dict[str, Any]) -> None:
    project = a_project()
    project.refuse = lambda got: answered(page) if got.path.startswith("/v1/evals?") else None
    with serving(project) as url:
        assert export(url, tmp_path, "--only", "evals") == 1
    assert missing(tmp_path)[0] == ("evals", None)
    assert not (tmp_path / "evals.jsonl").exists()


def test_a_wrong_key_ends_the_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = a_project()
    project.refuse = lambda _: refused(401, "Incorrect API key provided: sk-th…irs.", "invalid_api_key")
    with serving(project) as url:
        assert export(url, tmp_path) == 1
    assert len(project.asked) == 1
    assert "does not accept the key" in capsys.readouterr().err


def test_a_service_out_of_reach_ends_the_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("http://127.0.0.1:9/v1", tmp_path, "--tries", "1") == 1
    assert "out of reach" in capsys.readouterr().err


def test_two_projects_are_not_mixed_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = all_but_mine(a_project())
    with serving(project) as url:
        assert export(url, tmp_path) == 0
        monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
        n_before = len(project.asked)
        assert export(url, tmp_path) == 2
        assert len(project.asked) == n_before
        assert export(url, tmp_path, "--other-key") == 0


def test_without_a_key_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert export("http://127.0.0.1:9/v1", tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "C:x", "ft:base:org::id"])
def test_no_id_leads_out_of_its_folder(name: str) -> None:
    found = export_openai.place(name)
    assert not set(found) & set("./\\:") or found == name
    assert found not in (".", "..")


def test_a_client_without_evals_is_told_what_to_do() -> None:
    old: Any = SimpleNamespace(files=SimpleNamespace(list=None))
    service = export_openai.Service(old, 1)
    with pytest.raises(export_openai.NotGot, match="pip install --upgrade openai"):
        service.part("evals")
