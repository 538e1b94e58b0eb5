"""Storage: whole files or none, folders with their manifest last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage import LocalStorage, ObjectStorage, Storage, open_storage


@pytest.fixture(params=["local", "object"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "local":
        yield LocalStorage(tmp_path / "store")
    else:
        yield ObjectStorage("memory:///")


def folder_of(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_bytes_come_back_and_a_second_put_replaces_them(storage: Storage) -> None:
    storage.put_bytes("files/a", b"first")
    storage.put_bytes("files/a", b"second")
    assert storage.read_bytes("files/a") == b"second"
    assert storage.size("files/a") == 6


@pytest.mark.parametrize("move", [False, True], ids=["copy", "move"])
def test_a_large_file_is_streamed(storage: Storage, tmp_path: Path, move: bool) -> None:
    source = tmp_path / "big"
    source.write_bytes(b"0123456789abcdef" * 200_000)
    storage.put_file("files/big", source, move=move)
    chunks = list(storage.open_stream("files/big"))
    assert b"".join(chunks) == b"0123456789abcdef" * 200_000
    assert len(chunks) > 1 or isinstance(storage, ObjectStorage)
    assert source.exists() is not move


def test_a_stream_is_stored_whole_or_not_at_all(storage: Storage) -> None:
    def broken() -> Iterator[bytes]:
        yield from [b"x" * 1_000_000] * 20
        raise FileNotFoundError("the part is gone")

    storage.put_stream("files/a", iter([b"0123456789abcdef" * 50_000] * 25))
    assert storage.size("files/a") == 20_000_000
    assert storage.read_bytes("files/a") == b"0123456789abcdef" * 50_000 * 25
    with pytest.raises(FileNotFoundError):
        storage.put_stream("files/b", broken())
    with pytest.raises(FileNotFoundError):
        storage.put_stream("files/a", broken())
    assert storage.list_keys("files") == ["files/a"]
    assert storage.size("files/a") == 20_000_000


def test_a_missing_key_is_told_at_once(storage: Storage) -> None:
    assert not storage.exists("files/none")
    with pytest.raises(FileNotFoundError):
        storage.open_stream("files/none")
    with pytest.raises(FileNotFoundError):
        storage.size("files/none")
    storage.delete("files/none")


def test_a_folder_is_published_with_its_manifest_last_and_fetched_whole(
    storage: Storage, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "out", **{"manifest.json": "{}", "not a key": "z", "adapter__a.txt": "a"})
    with pytest.raises(ValueError, match="Not a storage key"):
        storage.publish_folder(folder, "jobs/j/checkpoints/1")
    assert storage.list_keys("jobs/j") == [], "half a folder only takes room"
    (folder / "not a key").rename(folder / "z.txt")
    storage.publish_folder(folder, "jobs/j/checkpoints/1")
    assert len(storage.list_keys("jobs/j")) == 3

    storage.fetch_folder("jobs/j/checkpoints/1", tmp_path / "in")
    assert (tmp_path / "in" / "adapter" / "a.txt").read_text() == "a"
    assert [path.name for path in tmp_path.glob("in*")] == ["in"]


def test_a_prefix_is_a_folder_not_the_start_of_a_name(storage: Storage) -> None:
    storage.put_bytes("jobs/a/x", b"1")
    storage.put_bytes("jobs/ab/x", b"1")
    storage.delete_prefix("jobs/a")
    assert storage.list_keys("jobs") == ["jobs/ab/x"]
    storage.delete_prefix("jobs/never")


def test_fetching_nothing_is_an_error(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.fetch_folder("jobs/none", tmp_path / "in")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/./b", "a\x00", "a/", "ä", "a\n"]
)
def test_only_plain_keys_are_taken(storage: Storage, key: str) -> None:
    with pytest.raises(ValueError, match="Not a storage key"):
        storage.put_bytes(key, b"")


def test_a_url_names_the_store(tmp_path: Path) -> None:
    assert isinstance(open_storage("", tmp_path), LocalStorage)
    named = open_storage(f"file://{tmp_path}/with%20space", tmp_path)
    assert named.local_path("k") == tmp_path / "with space" / "k"
