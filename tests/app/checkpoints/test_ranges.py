"""Downloads in parts: ranges, versions, and what a client that goes on must get."""

from __future__ import annotations

import base64
import hashlib

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from tests.app.answers import error_of
from tests.damage import flip_last_bit
from tests.factories import Tenant, make_checkpoint, make_job

CONTENTS = {"model/a": bytes(range(256)) * 40, "model/b": b"b" * 700}


@pytest.fixture
def path(db: Session, tenant: Tenant) -> str:
    job = make_job(db, tenant.project_id)
    checkpoint = make_checkpoint(db, job, 7, CONTENTS)
    db.commit()
    return f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download"


@pytest.fixture
def whole(http: httpx.Client, path: str) -> httpx.Response:
    return http.get(path)


def test_the_whole_tells_its_sum(whole: httpx.Response) -> None:
    digest = hashlib.sha256(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["etag"] == f'"{digest.hexdigest()}"'
    assert whole.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"


RANGES = [
    ("bytes=0-0", 0, 0),
    ("bytes=1000-2999", 1000, 2999),
    ("bytes=9000-", 9000, -1),
    ("bytes=-1", -1, -1),
    ("bytes=-700", -700, -1),
    ("bytes=-999999999", 0, -1),
    ("Bytes=5-999999999", 5, -1),
]
NO_RANGES = ["bytes=5-2", "bytes=-", "bytes=0-1,4-5", "lines=0-1", "bytes=0-" + "9" * 40]


def test_a_range_is_that_of_the_whole(
    http: httpx.Client, path: str, whole: httpx.Response, subtests: pytest.Subtests
) -> None:
    size = len(whole.content)
    for asked, first, last in RANGES:
        with subtests.test(asked):
            start, stop = first % size, last % size
            part = http.get(path, headers={"range": asked})
            assert (part.status_code, part.headers["content-range"]) == (206, f"bytes {start}-{stop}/{size}")
            assert part.content == whole.content[start : stop + 1]
            assert int(part.headers["content-length"]) == len(part.content)
            for name in ("etag", "repr-digest"):
                assert part.headers[name] == whole.headers[name]


def test_what_is_no_single_range_is_answered_with_all(
    http: httpx.Client, path: str, whole: httpx.Response, subtests: pytest.Subtests
) -> None:
    for asked in NO_RANGES:
        with subtests.test(asked):
            answer = http.get(path, headers={"range": asked})
            assert (answer.status_code, answer.content) == (200, whole.content)


def test_nothing_lies_behind_the_end(http: httpx.Client, path: str, whole: httpx.Response) -> None:
    size = len(whole.content)
    for asked in (f"bytes={size}-", "bytes=-0"):
        answer = http.get(path, headers={"range": asked})
        assert (answer.status_code, error_of(answer)["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_who_goes_on_with_another_version_gets_all_of_the_new_one(
    http: httpx.Client, path: str, whole: httpx.Response
) -> None:
    same = http.get(path, headers={"range": "bytes=10-", "if-range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, whole.content[10:])
    for other in ('"other"', "Mon, 30 Nov 2026 03:00:00 GMT"):
        answer = http.get(path, headers={"range": "bytes=10-", "if-range": other})
        assert (answer.status_code, answer.content) == (200, whole.content)


def test_a_damaged_file_is_found_before_the_first_byte_of_the_whole(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id)
    checkpoint = make_checkpoint(db, job, 7, CONTENTS)
    db.commit()
    path = f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download"
    flip_last_bit(f"{checkpoint.storage_key}/model/a")
    for headers in ({}, {"range": "bytes=100-"}):
        assert error_of(http.get(path, headers=headers))["code"] == "checkpoint_damaged"
