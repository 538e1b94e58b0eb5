"""/v1/uploads: large files in parts, through the official client and raw."""

from __future__ import annotations

import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, get_args

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.files.models import File
from app.files.schemas import Purpose
from app.settings import get_settings
from app.storage import get_storage
from app.uploads import service as uploads
from app.uploads.models import Upload, UploadPart
from app.uploads.schemas import MAX_PARTS
from app.uploads.service import Plan, part_key
from tests.app.answers import error_of
from tests.app.http import openai_schema
from tests.e2e.service import wait_for
from tests.factories import Tenant, make_tenant
from workers.jobs.sweep import sweep

DATA = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(DATA).hexdigest()


def create(http: httpx.Client, size: int = len(DATA), **changed: Any) -> dict[str, Any]:
    body = {
        "filename": "d.bin",
        "purpose": "user_data",
        "bytes": size,
        "mime_type": "application/octet-stream",
    }
    response = http.post("/v1/uploads", json=body | changed)
    assert response.status_code == 200, response.text
    return response.json()


def add(http: httpx.Client, upload: dict[str, Any], data: bytes) -> httpx.Response:
    return http.post(f"/v1/uploads/{upload['id']}/parts", files={"data": ("upload", data)})


def complete(http: httpx.Client, upload: dict[str, Any], parts: list[str], **more: Any) -> httpx.Response:
    return http.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": parts, **more})


def keys() -> list[str]:
    return get_storage().list_keys("uploads")


def end_life(db: Session, upload: dict[str, Any]) -> None:
    """An hour later."""
    row = db.get_one(Upload, upload["id"], populate_existing=True)
    row.expires_at -= timedelta(hours=1)
    db.commit()


def make_due(db: Session) -> None:
    """Two hours later, for the sweep."""
    for row in db.scalars(select(Upload).where(Upload.clear_at.is_not(None))):
        row.clear_at = datetime.now(UTC) - timedelta(seconds=1)
    db.commit()


@pytest.mark.parametrize("given", ["path", "bytes"])
def test_the_client_uploads_in_chunks(client: openai.OpenAI, tmp_path: Path, given: str) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(DATA)
    common: Any = {"mime_type": "application/octet-stream", "purpose": "user_data", "part_size": 70_000}
    if given == "path":
        done = client.uploads.upload_file_chunked(file=path, md5=MD5, **common)
    else:
        done = client.uploads.upload_file_chunked(
            file=DATA, filename="large.bin", bytes=len(DATA), md5=MD5.upper(), **common
        )
    assert done.status == "completed"
    assert done.file
    assert (done.file.filename, done.file.bytes, done.file.purpose) == ("large.bin", len(DATA), "user_data")
    assert client.files.content(done.file.id).read() == DATA
    assert client.files.retrieve(done.file.id) == done.file
    assert keys() == [f"uploads/{done.id}/{done.file.id}"], "the parts are gone"
    assert client.files.delete(done.file.id).deleted
    assert keys() == []


def test_part_ids_give_the_order_and_parts_may_come_side_by_side(http: httpx.Client, db: Session) -> None:
    upload = create(http)
    pieces = [DATA[start : start + 30_000] for start in range(0, len(DATA), 30_000)]
    with ThreadPoolExecutor(5) as pool:
        sent = list(
            pool.map(lambda index: (index, add(http, upload, pieces[index]).json()["id"]), range(10)[::-1])
        )
    unused = add(http, upload, b"sent in vain").json()["id"]
    order = [part_id for _, part_id in sorted(sent)]
    done = complete(http, upload, order).json()
    assert http.get(f"/v1/files/{done['file']['id']}/content").content == DATA
    assert db.get_one(File, done["file"]["id"]).sha256 == hashlib.sha256(DATA).hexdigest()
    assert unused not in order


def test_every_answer_fits_the_published_schema(http: httpx.Client) -> None:
    upload = create(http, 4, expires_after={"anchor": "created_at", "seconds": 3600})
    part = add(http, upload, b"data").json()
    done = complete(http, upload, [part["id"]]).json()
    cancelled = http.post(f"/v1/uploads/{create(http)['id']}/cancel").json()
    for answer in (upload, done, cancelled, http.get(f"/v1/uploads/{upload['id']}").json()):
        openai_schema.check(answer, "Upload")
        assert answer["object"] == "upload"
    openai_schema.check(part, "UploadPart")
    openai_schema.check(done["file"], "OpenAIFile")
    assert upload["expires_at"] - upload["created_at"] == 3600
    assert done["file"]["expires_at"] - done["file"]["created_at"] == 3600
    assert cancelled["status"] == "cancelled"


def test_every_purpose_is_taken(http: httpx.Client) -> None:
    for purpose in get_args(Purpose):
        upload = create(http, 1, purpose=purpose, filename="rows.jsonl")
        file = complete(http, upload, [add(http, upload, b"x").json()["id"]]).json()["file"]
        assert file["purpose"] == purpose
        assert ("expires_at" in file) is (purpose == "batch")


BAD_CREATES: list[tuple[dict[str, Any], str, str]] = [
    ({"bytes": -1}, "bytes", "integer_below_min_value"),
    ({"bytes": "1"}, "bytes", "invalid_type"),
    ({"bytes": 8 * 2**30 + 1}, "bytes", "integer_above_max_value"),
    ({"bytes": 2**63 - 1}, "bytes", "integer_above_max_value"),
    ({"purpose": "fun"}, "purpose", "invalid_value"),
    ({"purpose": "fine-tune"}, "filename", "invalid_file_format"),
    ({"purpose": "batch", "filename": "a.jsonl", "bytes": 2**30}, "bytes", "file_too_large"),
    ({"filename": ""}, "filename", "string_below_min_length"),
    ({"mime_type": None}, "mime_type", "invalid_type"),
    ({"expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after.anchor", "invalid_value"),
    (
        {"expires_after": {"anchor": "created_at", "seconds": 1}},
        "expires_after.seconds",
        "integer_below_min_value",
    ),
    ({"more": 1}, "more", "unknown_parameter"),
]


def test_a_bad_announcement_is_refused(http: httpx.Client, subtests: pytest.Subtests) -> None:
    right = {"filename": "d.bin", "purpose": "user_data", "bytes": 1, "mime_type": "a/b"}
    for change, param, code in BAD_CREATES:
        with subtests.test(str(change)):
            response = http.post("/v1/uploads", json=right | change)
            assert response.status_code == 400
            error = error_of(response)
            assert (error["param"], error["code"]) == (param, code)


def test_what_does_not_fit_together_is_not_completed(http: httpx.Client, subtests: pytest.Subtests) -> None:
    upload, other = create(http, 6), create(http, 6)
    first, second, foreign = (add(http, to, b"abc").json()["id"] for to in (upload, upload, other))
    cases: list[tuple[list[str], dict[str, Any], str]] = [
        ([first], {}, "part_ids"),
        ([first, first], {}, "part_ids"),
        ([first, foreign], {}, "part_ids[1]"),
        ([first, "part_none"], {}, "part_ids[1]"),
        ([], {}, "part_ids"),
        ([first, second], {"md5": "md5"}, "md5"),
        ([first, second], {"md5": MD5}, "md5"),
        ([first, second], {"order": 1}, "order"),
    ]
    for parts, more, param in cases:
        with subtests.test(param, parts=parts):
            response = complete(http, upload, parts, **more)
            assert response.status_code == 400
            assert error_of(response)["param"] == param
    assert len(keys()) == 3, "only parts are stored"
    right = hashlib.md5(b"abcabc").hexdigest()
    assert complete(http, upload, [second, first], md5=right).status_code == 200


def test_completing_twice_gives_the_same_file_and_nothing_else_is_possible(
    http: httpx.Client, db: Session
) -> None:
    upload = create(http, 6)
    parts = [add(http, upload, data).json()["id"] for data in (b"abc", b"def")]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: complete(http, upload, parts), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert db.scalar(select(func.count()).select_from(File)) == 1
    assert len(keys()) == 1
    for refused in (
        complete(http, upload, parts[::-1]),
        add(http, upload, b"x"),
        http.post(f"/v1/uploads/{upload['id']}/cancel"),
    ):
        assert refused.status_code == 400
        assert "already completed" in error_of(refused)["message"]
    assert len(keys()) == 1


def test_a_cancelled_upload_is_over(http: httpx.Client, db: Session) -> None:
    upload = create(http, 3)
    part = add(http, upload, b"abc").json()["id"]
    for _ in range(2):
        cancelled = http.post(
            f"/v1/uploads/{upload['id']}/cancel", headers={"content-type": "application/json"}
        )
        assert cancelled.json()["status"] == "cancelled"
    assert keys() == []
    for refused in (add(http, upload, b"x"), complete(http, upload, [part])):
        assert refused.status_code == 400
        assert "already cancelled" in error_of(refused)["message"]
    assert keys() == []


def test_an_upload_expires_after_an_hour_and_its_bytes_are_swept(http: httpx.Client, db: Session) -> None:
    upload, young = create(http, 3), create(http, 3)
    part = add(http, upload, b"abc").json()["id"]
    kept = add(http, young, b"abc").json()["id"]
    get_storage().put_bytes(uploads.part_key(upload["id"], "part_without_a_row"), b"killed in between")
    end_life(db, upload)
    assert http.get(f"/v1/uploads/{upload['id']}").json()["status"] == "expired"
    for refused in (
        add(http, upload, b"x"),
        complete(http, upload, [part]),
        http.post(f"/v1/uploads/{upload['id']}/cancel"),
    ):
        assert refused.status_code == 400
        assert "has expired" in error_of(refused)["message"]
    sweep(Event())
    assert len(keys()) == 3, "requests under way may still read them"
    row = db.get_one(Upload, upload["id"], populate_existing=True)
    row.clear_at = datetime.now(UTC)
    db.commit()
    sweep(Event())
    assert keys() == [uploads.part_key(young["id"], kept)]
    assert db.scalars(select(UploadPart.id)).all() == [kept]
    db.expire_all()
    assert (row.status, row.clear_at) == ("expired", None)


def test_killed_between_bytes_and_row_an_upload_can_be_completed_again(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    upload = create(http, 3)
    part = add(http, upload, b"abc").json()["id"]
    with unit_of_work() as other:
        plan = uploads.plan(other, tenant.project_id, upload["id"], [part])
    assert isinstance(plan, Plan)
    uploads.compose(plan, None)  # and then nothing: the process is gone
    assert len(keys()) == 2
    file_id = complete(http, upload, [part]).json()["file"]["id"]
    make_due(db)
    sweep(Event())
    assert keys() == [f"uploads/{upload['id']}/{file_id}"]
    assert http.get(f"/v1/files/{file_id}/content").content == b"abc"


@pytest.mark.parametrize("sizes", [[3], [1, 2]], ids=["after its last part", "before its last part"])
def test_an_upload_cancelled_while_it_is_put_together_makes_no_file(
    http: httpx.Client, db: Session, sizes: list[int]
) -> None:
    """Its first part is a pipe, so that whoever puts it together waits for the test to write."""
    upload = create(http, 3)
    parts = [add(http, upload, b"x" * size).json()["id"] for size in sizes]
    pipe = get_storage().local_path(part_key(upload["id"], parts[0]))
    assert pipe is not None
    pipe.unlink()
    os.mkfifo(pipe)

    def writer() -> int | None:
        with suppress(OSError):  # nobody reads it yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return None

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(complete, http, upload, parts)
        with os.fdopen(wait_for(writer, what="the parts being put together"), "wb") as part:
            assert http.post(f"/v1/uploads/{upload['id']}/cancel").status_code == 200
            part.write(b"x" * sizes[0])
        refused = asked.result()
    assert refused.status_code == 400
    assert "already cancelled" in error_of(refused)["message"]
    assert keys() == []
    assert db.scalar(select(func.count()).select_from(File)) == 0


def test_parts_have_limits(http: httpx.Client, db: Session) -> None:
    upload = create(http, 1500)
    assert add(http, upload, b"").status_code == 400
    too_large = add(http, upload, b"x" * (uploads.MAX_PART_BYTES + 1))
    assert (too_large.status_code, error_of(too_large)["param"]) == (413, "data")
    assert error_of(add(http, create(http, 10), b"x" * 11))["param"] == "data"
    for _ in range(3):
        assert add(http, upload, b"x" * 1000).status_code == 200
    assert "twice" in error_of(add(http, upload, b"x"))["message"]
    empty = {"upload_id": upload["id"], "bytes": 0}
    db.execute(insert(UploadPart), [{"id": f"part_{n}", **empty} for n in range(MAX_PARTS - 3)])
    db.commit()
    assert "maximum" in error_of(add(http, upload, b"x"))["message"]
    assert len(keys()) == 3
    for response in (
        http.post(f"/v1/uploads/{upload['id']}/parts", files={"file": b"x"}),
        http.post(f"/v1/uploads/{upload['id']}/parts", json={"data": "x"}),
        http.post(f"/v1/uploads/{upload['id']}/parts"),
    ):
        assert response.status_code == 400


def test_announced_bytes_count_for_the_projects_room(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_PROJECT_BYTES", "10")
    get_settings.cache_clear()
    upload = create(http, 6)
    right = {"filename": "d", "purpose": "user_data", "bytes": 6, "mime_type": "a/b"}
    assert error_of(http.post("/v1/uploads", json=right))["code"] == "insufficient_quota"
    http.post(f"/v1/uploads/{upload['id']}/cancel")
    assert http.post("/v1/uploads", json=right).status_code == 200


def test_anothers_parts_are_no_parts(
    http: httpx.Client, server_url: str, db: Session, tenant: Tenant
) -> None:
    other = make_tenant(db, "other")
    db.commit()
    with httpx.Client(base_url=server_url, headers={"authorization": f"Bearer {other.key}"}) as their:
        theirs, ours = create(their, 3), create(http, 3)
        part = add(their, theirs, b"abc").json()["id"]
        answers = [complete(http, ours, [name]) for name in (part, "part_none")]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert answers[0].text.replace(part, "part_none") == answers[1].text
        assert add(http, theirs, b"abc").status_code == 404
        assert complete(their, theirs, [part]).status_code == 200
