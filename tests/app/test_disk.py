"""What happens when a disk is full: on a real file system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import openai
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from app.disk import Room, has_room, is_full
from app.http.health import PARTS
from app.settings import get_settings
from app.storage import get_storage
from tests.app.answers import error_of
from tests.factories import Tenant
from tests.full_disks import fill, small_disk

ROWS = b'{"messages": [{"role": "user", "content": "Say a."}], "letter": "a"}\n' * 4
MEBIBYTE = 2**20


@pytest.fixture
def disk(settings: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Four mebibytes for all that the service stores."""
    with small_disk(tmp_path / "disk", 4) as folder:
        monkeypatch.setenv("CHERRY_DATA_DIR", str(folder))
        monkeypatch.setenv("CHERRY_LEAST_FREE_BYTES", str(MEBIBYTE // 4))
        get_settings.cache_clear()
        get_storage.cache_clear()
        yield folder


def upload(http: httpx.Client, content: bytes) -> httpx.Response:
    form = {"purpose": "fine-tune"}
    return http.post("/v1/files", files={"file": ("train.jsonl", content)}, data=form)


@pytest.mark.parametrize("least", ["262144", "0"], ids=["refused-at-once", "found-full-while-it-came"])
def test_an_upload_without_room_is_a_507_that_nobody_repeats(
    http: httpx.Client,
    tenant: Tenant,
    server_url: str,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    least: str,
) -> None:
    monkeypatch.setenv("CHERRY_LEAST_FREE_BYTES", least)
    get_settings.cache_clear()
    response = upload(http, ROWS * 20_000)
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (
        507,
        "server_error",
        "insufficient_storage",
    )
    assert "no room left" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert not [path for path in disk.rglob("*") if path.is_file()], "it took up room"
    asked = []
    with (
        openai.OpenAI(
            base_url=f"{server_url}/v1",
            api_key=tenant.key,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [asked.append]}),
        ) as client,
        pytest.raises(openai.InternalServerError, match="no room left"),
    ):
        client.files.create(file=("train.jsonl", ROWS * 20_000), purpose="fine-tune")
    assert len(asked) == 1
    assert upload(http, ROWS).status_code == 200


def test_an_upload_in_parts_without_room_is_told_too(http: httpx.Client, disk: Path) -> None:
    announced = {
        "purpose": "fine-tune",
        "filename": "a.jsonl",
        "bytes": 2 * MEBIBYTE,
        "mime_type": "text/jsonl",
    }
    made = http.post("/v1/uploads", json=announced).json()["id"]
    parts = []
    for _ in range(2):
        sent = http.post(f"/v1/uploads/{made}/parts", files={"data": ("part", b"x" * MEBIBYTE)})
        parts.append(sent.json()["id"])
    ballast = fill(disk, leaving=MEBIBYTE)
    refused = http.post(f"/v1/uploads/{made}/complete", json={"part_ids": parts})
    assert (refused.status_code, error_of(refused)["code"]) == (507, "insufficient_storage")
    ballast.unlink()
    assert http.post(f"/v1/uploads/{made}/complete", json={"part_ids": parts}).status_code == 200


def test_readiness_says_that_there_is_no_room(disk: Path) -> None:
    assert PARTS["disk"]() == "ok"
    ballast = fill(disk)
    assert PARTS["disk"]() == "no room left"
    ballast.unlink()
    assert PARTS["disk"]() == "ok"


def test_room_is_what_can_be_written(disk: Path) -> None:
    assert has_room(Room(str(disk), 3 * MEBIBYTE))
    assert not has_room(Room(str(disk), 5 * MEBIBYTE))
    assert not has_room(Room(str(disk / "gone"), 1))


def test_full_disks_are_known_whoever_meets_them(disk: Path) -> None:
    fill(disk, leaving=4096)
    with pytest.raises(OSError, match="No space left") as written:
        (disk / "file").write_bytes(bytes(MEBIBYTE))
    with pytest.raises(SafetensorError) as saved:
        save_file({"weights": np.zeros(MEBIBYTE)}, disk / "model.safetensors")
    wrapped = RuntimeError("a library hides it")
    wrapped.__cause__ = written.value
    assert [is_full(problem) for problem in (written.value, saved.value, wrapped)] == [True] * 3
    assert not is_full(FileNotFoundError(2, "none"))
