"""Where a model folder is from: its place in the hub's cache, and the licence that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from methods.model_files.folder import ModelFolderInvalid, check_folder
from methods.model_files.hub_cache import snapshot_of
from methods.model_files.licence import licence_in
from tests.model_folders import write

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, repository: str = "models--acme--nano-1.5") -> Path:
    """A model in the cache of the hub's client: links to files that lie beside."""
    snapshot = cache / repository / "snapshots" / COMMIT
    write(cache / "files", {})
    for path in (cache / "files").iterdir():
        blob = cache / repository / "blobs" / path.name
        blob.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blob)
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    return snapshot


def test_a_folder_of_the_hubs_cache_is_a_model_and_says_whose(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    check_folder(snapshot)
    found = snapshot_of(snapshot)
    assert found is not None
    assert (found.hub, found.revision) == ("acme/nano-1.5", COMMIT)


def test_its_links_may_lead_to_its_own_blobs_only(tmp_path: Path) -> None:
    snapshot = cached(tmp_path)
    (tmp_path / "models--other--m" / "blobs").mkdir(parents=True)
    (tmp_path / "models--other--m" / "blobs" / "secret").write_text("x")
    (snapshot / "notes.txt").symlink_to("../../../models--other--m/blobs/secret")
    with pytest.raises(ModelFolderInvalid, match=r"notes.txt is a symbolic link out of the folder"):
        check_folder(snapshot)


@pytest.mark.parametrize(
    ("place", "hub"),
    [
        (f"models--gpt2/snapshots/{COMMIT}", "gpt2"),
        (f"models--a--b--c/snapshots/{COMMIT}", "a/b--c"),
        ("models--acme--nano/snapshots/main", None),
        (f"models--acme--nano/other/{COMMIT}", None),
        (f"datasets--acme--nano/snapshots/{COMMIT}", None),
    ],
)
def test_the_path_alone_says_whose_it_is(place: str, hub: str | None) -> None:
    found = snapshot_of(Path("/cache", place))
    assert (found and found.hub) == hub


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlanguage: en\nlicense: 'apache-2.0'\n---\n# M\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: qwen-research\n---\n"}, "qwen-research"),
        ({"README.md": "---\nlicense: mit\n"}, None),
        ({"README.md": "# M\nlicense: mit\n"}, None),
        ({"README.md": "---\ntags:\n- x\n  license: mit\n---\n"}, None),
        ({"README.md": "---\nlicense: a b\n---\n", "LICENSE": "Text"}, "other"),
        ({"LICENSE": "Text"}, "other"),
        ({"MODEL_CARD.md": "---\nlicense: mit\n---\n"}, "mit"),
        ({}, None),
    ],
)
def test_a_folder_names_its_licence(tmp_path: Path, files: dict[str, str], licence: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_in(tmp_path) == licence
