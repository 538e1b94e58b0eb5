"""`Idempotency-Key`: carried out once, answered alike, whoever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from app.auth import Caller
from app.db import unit_of_work
from app.files.models import File
from app.http.idempotency import Idempotency
from app.http.transaction import STATE, KeptRoute, RequestState
from app.idempotency import service
from app.idempotency.models import IdempotencyKey
from app.idempotency.service import SHOWN_ONCE, KeyedRequest
from app.jobs.models import Job
from app.main import create_app
from app.settings import Settings, get_settings
from app.storage import get_storage
from app.uploads.models import Upload, UploadPart
from tests.app.answers import error_of
from tests.app.files.test_files import upload
from tests.e2e.service import wait_for
from tests.factories import ROWS, Tenant, make_tenant
from tests.locks import waiting_for_locks
from workers.jobs.sweep import sweep

JOBS = "/v1/fine_tuning/jobs"
UPLOAD = {"filename": "a", "purpose": "user_data", "bytes": 3, "mime_type": "a/b"}


def post(http: httpx.Client, path: str, body: Any, key: str = "k") -> httpx.Response:
    return http.post(path, json=body, headers={"idempotency-key": key})


def count(db: Session, table: type[Any]) -> int:
    db.rollback()
    return db.scalar(select(func.count()).select_from(table)) or 0


def is_replay(response: httpx.Response) -> bool:
    return response.headers.get("idempotent-replayed") == "true"


def test_the_same_request_is_carried_out_once_and_answered_alike(
    http: httpx.Client, db: Session, job_body: dict[str, Any]
) -> None:
    first = post(http, JOBS, job_body)
    again = post(http, JOBS, dict(reversed(job_body.items())))
    assert (first.status_code, first.text) == (again.status_code, again.text) == (200, first.text)
    assert not is_replay(first)
    assert is_replay(again)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["original-request"] == first.headers["x-request-id"] != again.headers["x-request-id"]
    assert count(db, Job) == 1
    assert post(http, JOBS, job_body, key="other").json()["id"] != first.json()["id"]
    assert http.post(JOBS, json=job_body).json()["id"] != first.json()["id"]


def test_the_official_client_can_send_it(
    client: openai.OpenAI, db: Session, job_body: dict[str, Any]
) -> None:
    made = [
        client.fine_tuning.jobs.create(**job_body, extra_headers={"Idempotency-Key": "k"}) for _ in range(3)
    ]
    assert len({job.id for job in made}) == 1
    assert count(db, Job) == 1


def test_a_key_is_for_one_request(http: httpx.Client, job_body: dict[str, Any]) -> None:
    post(http, JOBS, job_body)
    for path, body in (
        (JOBS, job_body | {"seed": 1}),
        (f"{JOBS}?x=1", job_body),
        ("/v1/uploads", UPLOAD),
        (f"{JOBS}/ftjob-x/cancel", None),
    ):
        response = post(http, path, body)
        assert response.status_code == 400
        error = error_of(response)
        assert (error["type"], error["code"]) == ("idempotency_error", "idempotency_key_reused")
    assert upload(http, idempotency="k").status_code == 400


def test_errors_of_a_request_that_was_carried_out_are_kept_too(
    http: httpx.Client, db: Session, job_body: dict[str, Any]
) -> None:
    missing = job_body | {"training_file": "file-none"}
    answers = [post(http, JOBS, missing) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert [is_replay(answer) for answer in answers] == [False, True]
    assert answers[0].text == answers[1].text

    db.execute(text("ALTER TABLE job_events RENAME TO away"))
    db.commit()
    failed = post(http, JOBS, job_body, key="fault")
    db.execute(text("ALTER TABLE away RENAME TO job_events"))
    db.commit()
    again = post(http, JOBS, job_body, key="fault")
    assert failed.status_code == again.status_code == 500
    assert failed.headers["x-request-id"] in again.json()["error"]["message"]
    assert count(db, Job) == 0


def test_what_was_not_carried_out_is_not_kept(
    http: httpx.Client, db: Session, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post(http, JOBS, job_body | {"seed": "one"}).status_code == 400
    assert post(http, JOBS, {}).status_code == 400
    assert http.post(JOBS, content=b"{", headers={"idempotency-key": "k"}).status_code == 400
    assert post(http, "/v1/nowhere", {}).status_code == 404
    assert post(http, "/v1/models", {}).status_code == 405
    assert upload(http, name="x.txt", idempotency="k").status_code == 400
    with monkeypatch.context() as full:
        full.setenv("CHERRY_MAX_ACTIVE_JOBS", "1")
        get_settings.cache_clear()
        assert post(http, JOBS, job_body, key="first").status_code == 200
        assert post(http, JOBS, job_body).status_code == 429
    get_settings.cache_clear()
    assert post(http, JOBS, job_body).status_code == 200
    assert count(db, IdempotencyKey) == 2


def test_keys_of_projects_do_not_meet(
    http: httpx.Client, server_url: str, db: Session, job_body: dict[str, Any]
) -> None:
    other = make_tenant(db, "other")
    db.commit()
    mine = post(http, "/v1/uploads", UPLOAD)
    with httpx.Client(base_url=server_url, headers={"authorization": f"Bearer {other.key}"}) as their:
        theirs = post(their, "/v1/uploads", UPLOAD)
    assert not is_replay(theirs)
    assert mine.json()["id"] != theirs.json()["id"]


@pytest.mark.parametrize(("key", "status"), [("x" * 255, 200), ("x" * 256, 400), ("", 400), ("a\tb", 400)])
def test_a_key_has_a_form(http: httpx.Client, key: str, status: int) -> None:
    assert post(http, "/v1/uploads", UPLOAD, key=key).status_code == status


def test_a_key_counts_on_posts_alone(http: httpx.Client, db: Session) -> None:
    for method in ("GET", "DELETE"):
        http.request(method, "/v1/files/file-x", headers={"idempotency-key": "k"})
    assert count(db, IdempotencyKey) == 0


def test_of_many_at_once_one_is_carried_out(
    http: httpx.Client, db: Session, job_body: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(http, JOBS, job_body), range(48)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 200}) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert error_of(answer)["code"] == "idempotency_key_in_use"
            assert answer.headers["retry-after"] == "1"
    assert count(db, Job) == 1


def abandoned(db: Session) -> None:
    """The lease of every key has run out."""
    db.execute(update(IdempotencyKey).values(locked_until=func.now() - timedelta(seconds=1)))
    db.commit()


def test_a_process_killed_before_its_commit_leaves_nothing_but_a_lease(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    print_ = service.fingerprint("POST", "/v1/uploads", b"", UPLOAD)
    dead = KeyedRequest(tenant.project_id, "k", "/v1/uploads", "req_dead")
    assert service.begin(db, dead, print_) is None
    db.commit()
    assert post(http, "/v1/uploads", UPLOAD).status_code == 409
    abandoned(db)
    assert post(http, "/v1/uploads", UPLOAD | {"bytes": 4}).status_code == 400
    done = post(http, "/v1/uploads", UPLOAD)
    assert (done.status_code, is_replay(done)) == (200, False)
    assert count(db, Upload) == 1
    with pytest.raises(service.IdempotencyKeyInUse), unit_of_work() as late:
        service.keep(late, dead, 200, "application/json", b"{}")  # it was not dead after all


def test_a_process_killed_after_its_commit_has_kept_its_answer(
    http: httpx.Client, db: Session, job_body: dict[str, Any]
) -> None:
    """The answer is in the handler's own transaction: its row has the number of the same one (`xmin`)."""
    file = upload(http, idempotency="file")
    parts = post(http, "/v1/uploads", UPLOAD, key="upload").json()["id"]
    answers = {
        "job": post(http, JOBS, job_body, key="job"),
        "file": file,
        "part": http.post(
            f"/v1/uploads/{parts}/parts", files={"data": b"abc"}, headers={"idempotency-key": "part"}
        ),
    }
    ids = [answers["part"].json()["id"]]
    answers["complete"] = post(http, f"/v1/uploads/{parts}/complete", {"part_ids": ids}, key="complete")
    db.rollback()
    tables = {"job": "jobs", "file": "files", "part": "upload_parts", "complete": "uploads"}
    for key, answer in answers.items():
        row = db.get_one(IdempotencyKey, (db.scalar(select(Job.project_id)), key))
        assert (row.status, row.body, row.media_type) == (200, answer.content, "application/json")
        kept_in = db.scalar(text("SELECT xmin::text FROM idempotency_keys WHERE key = :key"), {"key": key})
        made = text(f"SELECT xmin::text FROM {tables[key]} WHERE id = :id")
        assert db.scalar(made, {"id": answer.json()["id"]}) == kept_in


def test_a_request_whose_lease_was_lost_undoes_what_it_did(http: httpx.Client, db: Session) -> None:
    """It waits with its row, until another request has taken its key and waits behind it."""
    with ThreadPoolExecutor(2) as pool, unit_of_work() as blocking:
        blocking.execute(text("LOCK TABLE uploads IN SHARE MODE"))
        slow = pool.submit(post, http, "/v1/uploads", UPLOAD)
        wait_for(lambda: waiting_for_locks() == 1, what="the first request at its row")
        abandoned(db)
        other = pool.submit(post, http, "/v1/uploads", UPLOAD)
        wait_for(lambda: waiting_for_locks() == 2, what="the second request at its row")
        blocking.commit()
        assert slow.result().status_code == 409
        assert other.result().status_code == 200
    db.rollback()
    (only,) = db.scalars(select(Upload.id)).all()
    assert other.result().json()["id"] == only
    assert post(http, "/v1/uploads", UPLOAD).json()["id"] == only


def test_a_long_request_keeps_its_key(settings: Settings) -> None:
    """Its lease would be over while it runs, but it is renewed again and again."""
    may_end = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await may_end.wait()
        await Response(b"done", 200)(scope, receive, send)

    layer = Idempotency(slow, lease=timedelta(seconds=1.5))

    async def ask() -> bytes:
        """What the layer sends for one and the same request."""
        scope: Scope = {"type": "http", "method": "POST", "path": "/v1/slow", "query_string": b""}
        scope["headers"] = [(b"idempotency-key", b"k")]
        scope[STATE] = RequestState("req_1", Caller("key_1", "proj_1", "org-1"))
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await layer(scope, receive, send)
        return b"".join(message.get("body", b"") for message in sent)

    def lease() -> tuple[datetime, datetime] | None:
        with unit_of_work() as db:
            found = db.execute(select(IdempotencyKey.locked_until, func.now())).first()
        return (found[0], found[1]) if found else None

    async def scene() -> None:
        first = asyncio.create_task(ask())
        ends: set[datetime] = set()
        while len(ends) < 4:  # as it was claimed, and three renewals
            if found := await asyncio.to_thread(lease):
                locked_until, now = found
                assert locked_until > now
                ends.add(locked_until)
            await asyncio.sleep(0.05)
        with pytest.raises(service.IdempotencyKeyInUse):
            await ask()
        may_end.set()
        assert await first == b"done"
        assert await ask() == b"done"

    asyncio.run(scene())


def test_of_forms_the_contents_are_compared(http: httpx.Client, db: Session) -> None:
    first, again = upload(http, idempotency="k"), upload(http, idempotency="k")
    assert first.text == again.text
    assert (is_replay(first), is_replay(again)) == (False, True)
    for change in ({"data": ROWS + ROWS}, {"name": "other.jsonl"}, {"purpose": "batch"}):
        assert error_of(upload(http, idempotency="k", **change))["code"] == "idempotency_key_reused"
    assert count(db, File) == 1
    assert len(get_storage().list_keys("files")) == 1


def test_a_part_is_added_once(http: httpx.Client, db: Session) -> None:
    made = http.post("/v1/uploads", json=UPLOAD).json()["id"]
    headers = {"idempotency-key": "k"}
    sent = [
        http.post(f"/v1/uploads/{made}/parts", files={"data": data}, headers=headers)
        for data in (b"abc", b"abc", b"abd")
    ]
    assert [answer.status_code for answer in sent] == [200, 200, 400]
    assert sent[0].text == sent[1].text
    assert count(db, UploadPart) == 1


def test_keys_are_forgotten_after_a_day(http: httpx.Client, db: Session) -> None:
    first = post(http, "/v1/uploads", UPLOAD)
    db.execute(update(IdempotencyKey).values(created_at=func.now() - timedelta(hours=24)))
    db.commit()
    second = post(http, "/v1/uploads", UPLOAD | {"bytes": 4})
    assert second.status_code == 200
    assert second.json()["id"] != first.json()["id"]
    db.execute(update(IdempotencyKey).values(created_at=func.now() - timedelta(hours=24)))
    db.commit()
    sweep(Event())
    assert count(db, IdempotencyKey) == 0


def posts(routes: list[BaseRoute]) -> Iterator[Any]:
    for route in routes:
        if included := getattr(route, "original_router", None):
            yield from posts(included.routes)
        elif "POST" in (getattr(route, "methods", None) or ()) and route.path.startswith("/v1/"):  # type: ignore[attr-defined]
            yield route


def test_every_post_keeps_its_answer(settings: Settings) -> None:
    """A router with a POST below /v1 is made with `route_class=KeptRoute`."""
    found = list(posts(create_app(settings).routes))
    assert len(found) >= 10
    assert [route.path for route in found if not isinstance(route, KeptRoute)] == []


def test_secrets_that_are_shown_once_are_not_kept(settings: Settings) -> None:
    """An answer with a secret in it must not lie in the table: its path is in `SHOWN_ONCE`."""
    document = create_app(settings).openapi()
    secret = {"signing_secret", "value", "api_key", "key", "secret"}
    checked = 0
    for path, operations in document["paths"].items():
        if "post" in operations:
            responses = operations["post"]["responses"]
            response = responses.get("200") or responses["201"]
            schema = response["content"]["application/json"]["schema"]
            named = document["components"]["schemas"].get(schema.get("$ref", "").rsplit("/", 1)[-1], {})
            if secret & named.get("properties", {}).keys():
                checked += 1
                assert SHOWN_ONCE.fullmatch(path), path
    assert checked >= 5


def test_an_answer_with_a_secret_is_not_given_twice(http: httpx.Client, db: Session) -> None:
    body = {"name": "x", "url": "https://93.184.216.34/hook", "event_types": ["fine_tuning.job.succeeded"]}
    first = post(http, "/v1/webhook_endpoints", body)
    assert first.status_code == 200, first.text
    again = post(http, "/v1/webhook_endpoints", body)
    assert again.status_code == 400
    assert "shown once" in error_of(again)["message"]
    assert len(http.get("/v1/webhook_endpoints").json()["data"]) == 1
    db.rollback()
    assert db.scalars(select(IdempotencyKey.body)).all() == [None]


def test_an_admin_keys_requests_are_carried_out_once_too(
    admin: httpx.Client, http: httpx.Client, tenant: Tenant
) -> None:
    projects = "/v1/organization/projects"
    first, again = (post(admin, projects, {"name": "new"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.text == again.text
    assert (is_replay(first), is_replay(again)) == (False, True)
    assert [each["name"] for each in admin.get(projects).json()["data"]].count("new") == 1
    reused = post(admin, projects, {"name": "other"})
    assert (reused.status_code, error_of(reused)["code"]) == (400, "idempotency_key_reused")
    assert not is_replay(post(http, "/v1/uploads", UPLOAD)), "a project's keys are its own"

    accounts = f"{projects}/{tenant.project_id}/service_accounts"
    made, repeated = (post(admin, accounts, {"name": "ci"}, key="account") for _ in range(2))
    assert made.json()["api_key"]["value"].startswith("sk-")
    assert repeated.status_code == 400
    assert "shown once" in error_of(repeated)["message"]
    assert len(admin.get(accounts).json()["data"]) == 1
