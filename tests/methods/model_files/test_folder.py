"""Model folders with files in them that nobody should read, or that are not what they are called."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from methods.model_files.folder import ModelFolderInvalid, check_folder
from tests.model_folders import CONFIG, packed, tensor, whole, write

ROOT = Path(__file__).parents[3]


class Harmless:
    """What a pickle of it would call does nothing; a hostile one calls whatever it likes."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return str, ("harmless",)


def pickled(protocol: int) -> bytes:
    return pickle.dumps([Harmless()], protocol)


def zipped(*names: str, comment: bytes = b"") -> bytes:
    file = io.BytesIO(comment)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        for name in names:
            archive.writestr(name, pickled(2))
    return file.getvalue()


def tarred(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def faults(folder: Path) -> list[str]:
    try:
        check_folder(folder)
    except ModelFolderInvalid as problem:
        return problem.faults
    return []


def test_the_built_in_model_and_a_plain_folder_are_good(tmp_path: Path) -> None:
    assert faults(ROOT / "workers" / "models" / "cherry_nano") == []
    assert faults(write(tmp_path, {})) == []


def test_what_published_folders_hold_besides_is_let_be(tmp_path: Path) -> None:
    """A clone of a repository has these: its documents, its hooks, translations, pictures, an old index."""
    extra: dict[str, bytes | None] = {
        "README.md": b"contents\nof a model card\nReally.\n",
        "README.pt.md": b"Leia-me",
        "LICENSE": b"copyright\nsomebody\nRights\n.",
        ".gitattributes": b"*.bin filter=lfs",
        ".git/hooks/pre-push.sample": b"#!/bin/sh\n",
        "pytorch_model.bin.index.json": b"{}",
        "modules.json": b"[]",
        "vocab.txt": b"N.\n(.\n].\n",
        "merges.txt": b"#version: 0.2\n\xc4\xa0 t\n",
        "picture.png": b"\x89PNG\r\n\x1a\n",
        "notes.zip": zipped("notes.txt"),
        "tokenizer.model": b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
        "tokenizer_config.json": json.dumps(
            {"chat_template": "{{ messages }}", "model_max_length": 10**30, "auto_map": None}
        ).encode(),
        # a header whose length begins like a pickle of protocol 2
        "extra.safetensors": packed(json.dumps({"x": tensor("U8", [1], 0, 1)}).encode().ljust(0x280), b"1"),
    }
    assert faults(write(tmp_path, extra)) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        pytest.param("pytorch_model.bin", b"", "is pickled", id="bin"),
        pytest.param("original/consolidated.00.PTH", b"", "is pickled", id="in-a-folder-in-capitals"),
        pytest.param(".cache/a/b/optimizer.pt", b"", "is pickled", id="hidden-and-deep"),
        pytest.param("model.pkl.gz", b"", "is pickled", id="compressed"),
        pytest.param("weights.ckpt", b"", "is pickled", id="ckpt"),
        *(
            pytest.param("notes", pickled(protocol), "begins like a pickle", id=f"protocol-{protocol}")
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
        pytest.param("a.txt", b"cos\nsystem\n(S'true'\ntR.", "begins like a pickle", id="by-hand"),
        pytest.param("a.txt", b"(S'true'\nios\nsystem\n.", "begins like a pickle", id="old-instance"),
        pytest.param("a.txt", b"cos\nsystem\n(" + b"S'a'\n" * 20_000 + b"tR.", "like a pickle", id="long"),
        pytest.param(
            "a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', ", "begins like a pickle", id="numpy-objects"
        ),
        pytest.param(
            "weights", zipped("archive/data.pkl", "archive/version"), "an archive with", id="torch-zip"
        ),
        pytest.param(
            "weights", zipped("data.pkl", comment=b"#!/bin/sh\n"), "an archive with", id="zip-behind-a-head"
        ),
        pytest.param("weights", b"PK\x03\x04and no more", "an archive with", id="broken-zip"),
        pytest.param("weights", tarred("pickle", "tensors"), "an archive with", id="torch-tar"),
        pytest.param("weights.tar", tarred("weights/model.pt"), "an archive with", id="tar"),
        pytest.param("modeling_x.py", b"", "is code", id="python"),
        pytest.param("custom_generate/generate.py", b"", "is code", id="generate"),
        pytest.param("lib/libx.so.1.2", b"", "is code", id="library"),
        pytest.param("run.sh", b"", "is code", id="shell"),
        pytest.param("runner", b"\x7fELF\x02", "is a program", id="program"),
        pytest.param("model.safetensors", pickled(2), "begins like a pickle", id="renamed-pickle"),
        pytest.param("model.safetensors", zipped("archive/data.pkl"), "an archive", id="renamed-zip"),
        pytest.param("model.safetensors", whole()[:-1], "cannot be used: tensor 'b'", id="cut"),
        pytest.param("nested/other.safetensors", b"", "cannot be used", id="another"),
        pytest.param(
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "git lfs pull",
            id="lfs-weights",
        ),
        pytest.param(
            "tokenizer.json", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull", id="lfs"
        ),
        pytest.param("config.json", b"", "is no JSON", id="empty-config"),
        pytest.param("config.json", b"<html>404</html>", "is no JSON", id="html"),
        pytest.param("config.json", b"[]", "is no JSON object", id="list"),
        pytest.param("config.json", b"\xff\xfe{\x00}\x00", "is no JSON", id="utf-16"),
        pytest.param("config.json", b'{"a":' + b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param("config.json", b"{}", "has no model_type", id="no-type"),
        pytest.param("generation_config.json", b"{", "is no JSON", id="generation-config"),
        pytest.param("tokenizer.json", b"{" * 3, "is no JSON", id="tokenizer"),
        pytest.param("special_tokens_map.json", b"null", "is no JSON object", id="special-tokens"),
        pytest.param(
            "config.json",
            json.dumps({**CONFIG, "auto_map": {"AutoModel": "m.M"}}).encode(),
            "m.M",
            id="auto-map",
        ),
        pytest.param(
            "config.json",
            json.dumps({**CONFIG, "text_config": [{"auto_map": {"AutoConfig": "other/repo--c.C"}}]}).encode(),
            "names code in its auto_map",
            id="auto-map-within",
        ),
        pytest.param(
            "tokenizer_config.json",
            json.dumps({"chat_template": "{{ messages }}", "auto_map": ["t.T", None]}).encode(),
            "names code in its auto_map",
            id="auto-map-of-the-tokenizer",
        ),
        pytest.param(
            "adapter_config.json", b'{"base_model_name_or_path": "/x"}', "an adapter of", id="adapter"
        ),
        pytest.param(
            "config.json",
            json.dumps({**CONFIG, "transformers_weights": "../other.safetensors"}).encode(),
            "'../other.safetensors' as its transformers_weights",
            id="weights-elsewhere",
        ),
        pytest.param(
            "config.json",
            json.dumps({**CONFIG, "transformers_weights": ["x"]}).encode(),
            "transformers_weights",
            id="odd-weights-elsewhere",
        ),
        pytest.param(
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "model-00002-of-00002.safetensors"}}',
            "names model-00002-of-00002.safetensors, which is missing",
            id="shard",
        ),
        pytest.param("chat_template.jinja", b" \n", "is an empty chat template", id="empty-template"),
        pytest.param("chat_template.jinja", b"\xff", "is no text in UTF-8", id="template-in-no-text"),
        pytest.param(
            "chat_template.jinja", b"x" * (2**20 + 1), "has more than 1,048,576", id="huge-template"
        ),
    ],
)
def test_a_file_that_may_not_be_there_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (fault,) = faults(write(tmp_path, {name: content}))
    assert fault.startswith(name)
    assert reason in fault


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", r"there are no *.safetensors weights"),
        ("tokenizer.json", "the tokenizer is missing"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, without: str, reason: str) -> None:
    (fault,) = faults(write(tmp_path, {without: None}))
    assert reason in fault


@pytest.mark.parametrize(
    "config",
    [
        None,
        b"{}",
        b'{"chat_template": ""}',
        b'{"chat_template": null}',
        b'{"chat_template": {"default": 1}}',
        b'{"chat_template": [{"name": "tool_use", "template": "x"}]}',
    ],
)
def test_a_folder_without_a_chat_template_hears_how_to_give_one(tmp_path: Path, config: bytes | None) -> None:
    (fault,) = faults(write(tmp_path, {"tokenizer_config.json": config}))
    assert "put one into chat_template.jinja" in fault
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": b'{"chat_template": [{"name": "tool_use", "template": "x"}]}'},
        {"additional_chat_templates/tool_use.jinja": b"x", "additional_chat_templates/rag.jinja": b"x"},
    ],
)
def test_templates_by_name_without_a_default_are_named(tmp_path: Path, files: dict[str, bytes]) -> None:
    (fault,) = faults(write(tmp_path, files))
    assert re.search(r"has chat templates by name \((rag, )?tool_use\) and none named default", fault)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert faults(tmp_path) == []


def test_a_broken_template_among_those_by_name_is_named(tmp_path: Path) -> None:
    files = {"chat_template.jinja": b"x", "additional_chat_templates/tool_use.jinja": b"\xff"}
    (fault,) = faults(write(tmp_path, files))
    assert fault.startswith("additional_chat_templates/tool_use.jinja is no text in UTF-8")


def test_a_template_where_tokenizers_do_not_look_is_named(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, {"tokenizer_config.json": b"{}", "chat_template.json": b"{}"}))
    assert fault.startswith("chat_template.json is no place where tokenizers look")


def to_a_file(folder: Path) -> str:
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to("../secret.txt")
    return "notes.txt is a symbolic link out of the folder"


def to_blobs(folder: Path) -> str:
    """How the download cache of Hugging Face keeps its files."""
    shutil.move(folder / "model.safetensors", folder.parent / "blob")
    (folder / "model.safetensors").symlink_to("../blob")
    return "model.safetensors is a symbolic link out of the folder"


def to_a_folder(folder: Path) -> str:
    (folder / "more").symlink_to("/")
    return "more is a symbolic link out of the folder"


def to_nothing(folder: Path) -> str:
    (folder / "notes.txt").symlink_to("gone")
    return "notes.txt cannot be read"


def to_itself(folder: Path) -> str:
    (folder / "notes.txt").symlink_to("notes.txt")
    return "notes.txt cannot be read"


def a_pipe(folder: Path) -> str:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    return "config.json is neither a file nor a folder"


def a_pipe_of_weights(folder: Path) -> str:
    os.mkfifo(folder / "more.safetensors")
    return "more.safetensors is neither a file nor a folder"


def a_pickle_by_another_name(folder: Path) -> str:
    (folder / "x.bin").symlink_to("tokenizer.json")
    return "x.bin is pickled"


@pytest.mark.parametrize(
    "spoil",
    [
        to_a_file,
        to_blobs,
        to_a_folder,
        to_nothing,
        to_itself,
        a_pipe,
        a_pipe_of_weights,
        a_pickle_by_another_name,
    ],
)
def test_links_and_pipes_are_named_and_never_opened(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    folder = write(tmp_path / "model", {})
    told = spoil(folder)
    assert faults(folder)[0].startswith(told)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "real", {})
    (folder / "copy.safetensors").symlink_to("model.safetensors")
    (folder / "again").symlink_to(".")
    (tmp_path / "link").symlink_to("real")
    assert faults(tmp_path / "link") == []


def test_no_more_than_ten_faults_are_told(tmp_path: Path) -> None:
    assert len(faults(write(tmp_path, {f"{i}.bin": b"" for i in range(30)}))) == 10


def test_weights_that_are_still_to_be_fetched_may_be_missing(tmp_path: Path) -> None:
    index = b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
    check_folder(
        write(tmp_path, {"model.safetensors": None, "model.safetensors.index.json": index}),
        with_weights=False,
    )
