"""/v1/files, through the official client and raw."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, get_args
from urllib.parse import unquote

import httpx2 as httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.testclient import TestClient

from app.errors import BadRequest, RequestTimeout
from app.files import receive
from app.files import service as files
from app.files.models import File
from app.files.receive import clean_filename
from app.files.schemas import MAX_BATCH_BYTES, Purpose, UploadForm
from app.files.sending import attachment
from app.main import create_app
from app.settings import Settings, get_settings
from app.storage import get_storage
from tests.app.answers import error_of
from tests.app.http import openai_schema
from tests.e2e.service import wait_for
from tests.factories import ROWS, Tenant, make_file, make_job
from workers.jobs import sweep


def upload(
    http: httpx.Client, data: bytes = ROWS, name: str = "train.jsonl", idempotency: str = "", **fields: str
) -> httpx.Response:
    headers = {"idempotency-key": idempotency} if idempotency else {}
    form = {"purpose": "fine-tune"} | fields
    return http.post("/v1/files", data=form, files={"file": (name, data)}, headers=headers)


def test_a_file_comes_back_as_it_was_sent(client: openai.OpenAI, db: Session) -> None:
    sent = client.files.create(file=("train.jsonl", ROWS), purpose="fine-tune")
    assert (sent.filename, sent.bytes, sent.purpose) == ("train.jsonl", len(ROWS), "fine-tune")
    assert client.files.wait_for_processing(sent.id).status == "processed"
    assert client.files.content(sent.id).read() == ROWS
    assert client.files.retrieve(sent.id) == sent
    assert [file.id for file in client.files.list()] == [sent.id]
    assert client.files.delete(sent.id).deleted
    with pytest.raises(openai.NotFoundError, match=f"No such File object: {sent.id}"):
        client.files.retrieve(sent.id)
    assert get_storage().list_keys("files") == []


def test_a_large_file_is_hashed_and_stored_whole(http: httpx.Client, db: Session, settings: Settings) -> None:
    data = random.Random(0).randbytes(5_000_000)
    sent = upload(http, data).json()
    row = db.get(File, sent["id"])
    assert row is not None
    import hashlib

    assert row.sha256 == hashlib.sha256(data).hexdigest()
    assert http.get(f"/v1/files/{sent['id']}/content").content == data
    assert list((settings.data_dir / "uploads").iterdir()) == []


def test_content_is_sent_to_be_saved_never_shown(http: httpx.Client) -> None:
    sent = upload(http, name='../é"x\r\n\x00.jsonl').json()
    response = http.get(f"/v1/files/{sent['id']}/content")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment; filename=")
    assert response.headers["content-length"] == str(len(ROWS))


def test_expiry_is_kept_and_ends_a_file(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    sent = upload(http, **fields).json()
    assert sent["expires_at"] - sent["created_at"] == 3600
    row = db.get(File, sent["id"])
    assert row is not None
    row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    db.commit()
    assert http.get(f"/v1/files/{sent['id']}").status_code == 404
    assert http.get(f"/v1/files/{sent['id']}/content").status_code == 404
    assert http.delete(f"/v1/files/{sent['id']}").status_code == 404
    assert http.get("/v1/files").json()["data"] == []
    assert get_storage().list_keys("files") == [f"files/{sent['id']}"]
    sweep.sweep(Event())
    assert get_storage().list_keys("files") == []
    db.expire_all()
    assert db.get(File, sent["id"]) is None


def test_the_sweep_takes_more_than_one_batch(db: Session, tenant: Tenant) -> None:
    for _ in range(5):
        make_file(db, tenant.project_id).expires_at = datetime.now(UTC) - timedelta(seconds=1)
    kept = make_file(db, tenant.project_id)
    db.commit()
    sweep.sweep(Event(), most=2)
    assert db.scalars(select(File.id)).all() == [kept.id]


def test_only_batch_files_expire_by_themselves(http: httpx.Client) -> None:
    ends = {purpose: upload(http, purpose=purpose).json() for purpose in get_args(Purpose)}
    batch = ends.pop("batch")
    assert batch["expires_at"] - batch["created_at"] == 30 * 24 * 3600
    assert [sent["purpose"] for sent in ends.values() if "expires_at" in sent] == []
    assert {name for sent in ends.values() for name, value in sent.items() if value is None} == set()


def test_what_is_said_of_files_fits_the_published_schema(http: httpx.Client) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592000"}
    for purpose in get_args(Purpose):
        if purpose != "evals":  # OpenAI's own document lacks it among the purposes of a file
            openai_schema.check(upload(http, purpose=purpose, **fields).json(), "OpenAIFile")
            sent = upload(http, purpose=purpose).json()
            openai_schema.check(sent, "OpenAIFile")
            openai_schema.check(http.get(f"/v1/files/{sent['id']}").json(), "OpenAIFile")
    openai_schema.check(http.get("/v1/files").json(), "ListFilesResponse")
    openai_schema.check(http.get("/v1/files?purpose=none").json(), "ListFilesResponse")
    openai_schema.check(http.delete(f"/v1/files/{sent['id']}").json(), "DeleteFileResponse")


def test_a_project_has_room_for_so_many_bytes(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_MAX_PROJECT_BYTES", str(2 * len(ROWS)))
    get_settings.cache_clear()
    first, second, third = (upload(http) for _ in range(3))
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert error_of(third)["code"] == "insufficient_quota"
    assert third.headers["x-should-retry"] == "false"
    assert len(get_storage().list_keys("files")) == 2
    http.delete(f"/v1/files/{first.json()['id']}")
    assert upload(http).status_code == 200


def test_an_expired_file_of_an_unfinished_job_is_not_removed(db: Session, tenant: Tenant) -> None:
    file = make_file(db, tenant.project_id)
    file.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    job = make_job(db, tenant.project_id, training_file=file.id)
    assert files.remove_expired(db) == 0
    job.status = "failed"
    assert files.remove_expired(db) == 1


def test_a_file_in_use_stays_until_its_job_is_over(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    file = make_file(db, tenant.project_id)
    job = make_job(db, tenant.project_id, status="running", validation_file=file.id)
    db.commit()
    response = http.delete(f"/v1/files/{file.id}")
    assert response.status_code == 400
    assert job.id in error_of(response)["message"]
    job.status = "failed"
    db.commit()
    assert http.delete(f"/v1/files/{file.id}").status_code == 200


BAD_UPLOADS = [
    pytest.param({"data": b""}, "file", None, id="empty"),
    pytest.param({"name": "train.json"}, "file", "invalid_file_format", id="not-jsonl"),
    pytest.param({"purpose": "fun"}, "purpose", "invalid_value", id="unknown-purpose"),
    pytest.param({"purpose": ""}, "purpose", "missing_required_parameter", id="no-purpose"),
    pytest.param(
        {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
        "expires_after[anchor]",
        "invalid_value",
        id="anchor",
    ),
    pytest.param(
        {"expires_after[seconds]": "3600"},
        "expires_after[anchor]",
        "missing_required_parameter",
        id="no-anchor",
    ),
    pytest.param(
        {"expires_after[anchor]": "created_at"},
        "expires_after[seconds]",
        "missing_required_parameter",
        id="no-seconds",
    ),
    pytest.param(
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
        "expires_after[seconds]",
        "integer_above_max_value",
        id="over-a-month",
    ),
    pytest.param(
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
        "expires_after[seconds]",
        "integer_below_min_value",
        id="too-soon",
    ),
    pytest.param(
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "9" * 30},
        "expires_after[seconds]",
        "invalid_type",
        id="too-long",
    ),
]


def test_a_bad_upload_is_refused(http: httpx.Client, subtests: pytest.Subtests, settings: Settings) -> None:
    for case in BAD_UPLOADS:
        change, param, code = case.values
        with subtests.test(case.id):
            response = upload(http, **change)
            assert response.status_code == 400
            error = error_of(response)
            assert (error["param"], error["code"]) == (param, code)
            assert list((settings.data_dir / "uploads").iterdir()) == []
            assert not (settings.data_dir / "storage").exists()


BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}
FILE = 'content-disposition: form-data; name="file"; filename="a.jsonl"'


BROKEN_FORMS = [
    pytest.param({"content-type": "multipart/form-data"}, b"x", id="no-boundary"),
    pytest.param({"content-type": "multipart/form-data; boundary=" + "b" * 500}, b"x", id="long-boundary"),
    pytest.param(BOUNDARY, b"", id="nothing"),
    pytest.param(BOUNDARY, b"--c\r\n\r\n", id="other-boundary"),
    pytest.param(BOUNDARY, f"--b\r\n{FILE}\r\n\r\n{{}}".encode(), id="broken-off"),
    pytest.param(BOUNDARY, b"--b\r\nx: y\r\n\r\nz\r\n--b--\r\n", id="part-without-a-name"),
    pytest.param(BOUNDARY, (f"--b\r\n{FILE}\r\n\r\nx\r\n" * 2 + "--b--\r\n").encode(), id="two-files"),
    pytest.param(
        BOUNDARY,
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n' + b"x" * 2000 + b"\r\n--b--\r\n",
        id="long-field",
    ),
    pytest.param(
        BOUNDARY,
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n\xff\r\n'
        + f"--b\r\n{FILE}\r\n\r\nx\r\n--b--\r\n".encode(),
        id="field-not-utf8",
    ),
    pytest.param({"content-type": "application/json"}, b"{}", id="json"),
    pytest.param(BOUNDARY, b"--b\r\n" + b"x" * 100_000 + b": y\r\n\r\n", id="long-header"),
]


def test_a_broken_form_is_refused(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for case in BROKEN_FORMS:
        headers, body = case.values
        with subtests.test(case.id):
            response = http.post("/v1/files", headers=headers, content=body)
            assert response.status_code == 400, response.text
            error_of(response)


def test_a_file_over_the_limit_is_refused_while_it_is_sent(
    http: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_FILE_BYTES", "1000")
    get_settings.cache_clear()
    assert upload(http, b"x" * 1000).status_code == 200
    response = upload(http, b"x" * 1001)
    assert (response.status_code, error_of(response)["param"]) == (413, "file")
    assert upload(http, b"x" * 5_000_000).status_code == 413
    assert list((settings.data_dir / "uploads").iterdir()) == []


def test_a_batch_file_has_a_limit_of_its_own(http: httpx.Client) -> None:
    def announced(size: int, purpose: str) -> httpx.Response:
        about = {"filename": "a.jsonl", "mime_type": "application/jsonl", "bytes": size, "purpose": purpose}
        return http.post("/v1/uploads", json=about)

    assert announced(MAX_BATCH_BYTES, "batch").status_code == 200
    response = announced(MAX_BATCH_BYTES + 1, "batch")
    assert (response.status_code, error_of(response)["code"]) == (400, "file_too_large")
    assert announced(MAX_BATCH_BYTES + 1, "fine-tune").status_code == 200

    sent = receive.Upload({"purpose": "batch"}, Path("spool"), "a.jsonl", MAX_BATCH_BYTES + 1, "sha256")
    with pytest.raises(BadRequest, match="at most"):
        UploadForm.of(sent)


def test_pages_hold_every_file_once(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    made = [make_file(db, tenant.project_id).id for _ in range(7)]  # one transaction: all as old
    make_file(db, tenant.project_id, purpose="batch")
    db.commit()
    newest = [file.id for file in client.files.list(limit=3, purpose="fine-tune")]
    oldest = [file.id for file in client.files.list(limit=2, purpose="fine-tune", order="asc")]
    assert sorted(newest) == sorted(made)
    assert newest == oldest[::-1]


def test_odd_but_harmless_queries_are_answered(http: httpx.Client) -> None:
    for query in ("limit=0", "after=after", "purpose=purpose", "after=file-none&limit=0&order=asc"):
        response = http.get(f"/v1/files?{query}")
        assert response.status_code == 200
        assert response.json() == {
            "object": "list",
            "data": [],
            "first_id": "",
            "last_id": "",
            "has_more": False,
        }


BAD_QUERIES = [
    ("limit=-1", "limit", "integer_below_min_value"),
    ("limit=10001", "limit", "integer_above_max_value"),
    ("limit=x", "limit", "invalid_type"),
    ("limit=1e2", "limit", "invalid_type"),
    ("limit=99999999999999999999999", "limit", "integer_above_max_value"),
    ("order=up", "order", "invalid_value"),
    ("after=" + "x" * 300, "after", "string_above_max_length"),
]


def test_bad_queries_name_the_parameter(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for query, param, code in BAD_QUERIES:
        with subtests.test(query[:40]):
            response = http.get(f"/v1/files?{query}")
            assert response.status_code == 400
            error = error_of(response)
            assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..", "upload"),
        ("", "upload"),
        ("a\\b\\c.jsonl", "c.jsonl"),
        ("a\x00b\r\nX: y\u202e.jsonl", "abX: y.jsonl"),
        ("e\u0301.jsonl", "é.jsonl"),
        ("é" * 200 + ".jsonl", "é" * 124 + ".jsonl"),
        ("x" * 300, "x" * 255),
        (".jsonl", ".jsonl"),
    ],
)
def test_names_are_only_names(sent: str, kept: str) -> None:
    assert clean_filename(sent) == kept


@given(st.text(max_size=300))
def test_whatever_a_file_is_called_its_name_is_short_and_shows_nothing_hidden(sent: str) -> None:
    kept = clean_filename(sent)
    assert 1 <= len(kept.encode()) <= 255
    assert kept not in (".", "..")
    assert not set(kept) & set("/\\")
    assert not [letter for letter in kept if unicodedata.category(letter)[0] == "C"]
    header = attachment(kept)
    assert header.isascii()
    assert header.count('"') == 2
    assert unquote(header.rpartition("''")[2]) == kept


def test_an_upload_that_drips_ends_at_a_limit(tmp_path: Path) -> None:
    drops = itertools.chain([f"--b\r\n{FILE}\r\n".encode()], itertools.repeat(b"x"))

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": next(drops), "more_body": True}

    async def take() -> None:
        headers = [(name.encode(), value.encode()) for name, value in BOUNDARY.items()]
        request = Request({"type": "http", "method": "POST", "headers": headers}, drip)
        async with receive.receive_upload(request, tmp_path, 10_000_000, seconds=0.2):
            raise AssertionError("it never ends")

    with pytest.raises(RequestTimeout, match="took more than") as refused:
        asyncio.run(take())
    assert refused.value.status == 408
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_disk_keeps_its_base_name(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "my data.jsonl"
    path.write_bytes(ROWS)
    with path.open("rb") as file:
        assert client.files.create(file=file, purpose="fine-tune").filename == "my data.jsonl"


def test_remains_of_uploads_go_while_the_service_runs(settings: Settings) -> None:
    folder = settings.data_dir / "uploads"
    folder.mkdir(parents=True)
    young, old = folder / "upload-young", folder / "upload-old"
    young.touch()

    def leave_one() -> None:
        old.touch()
        os.utime(old, (time.time() - 25 * 3600,) * 2)

    leave_one()
    with TestClient(create_app(settings)):
        wait_for(lambda: not old.exists(), what="the sweep as the service starts")

    async def later() -> None:
        sweeping = asyncio.create_task(receive.keep_swept(folder, every_seconds=0.01))
        for _ in range(2):
            leave_one()
            while old.exists():
                await asyncio.sleep(0.01)
        sweeping.cancel()

    asyncio.run(later())
    assert list(folder.iterdir()) == [young]
