"""Registering base models: only folders that are safe and complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.models import service as models
from app.models.service import BaseModelInvalid
from tests.factories import Tenant

FILES = {
    "config.json": "{}",
    "model.safetensors": "",
    "tokenizer.json": "{}",
    "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
}


def folder(root: Path, files: dict[str, str]) -> Path:
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def test_a_model_is_everybodys_and_can_move(db: Session, tenant: Tenant, tmp_path: Path) -> None:
    first = models.add_base_model(db, "qwen3-0.6b", folder(tmp_path / "a", FILES))
    again = models.add_base_model(db, "qwen3-0.6b", folder(tmp_path / "b", FILES))
    assert first.id == again.id
    assert models.tunable(db, tenant.project_id, "qwen3-0.6b").folder == str(tmp_path / "b")


@pytest.mark.parametrize(
    ("without", "extra", "reason"),
    [
        pytest.param("config.json", {}, "config.json is missing", id="no-config"),
        pytest.param("model.safetensors", {}, r"no \*\.safetensors", id="no-weights"),
        pytest.param("", {"pytorch_model.bin": ""}, "pickled files", id="pickle"),
        pytest.param("tokenizer.json", {}, "tokenizer is missing", id="no-tokenizer"),
        pytest.param("tokenizer_config.json", {}, "no chat template", id="no-template"),
        pytest.param("", {"tokenizer_config.json": "{"}, "no chat template", id="broken-json"),
        pytest.param("", {"tokenizer_config.json": "[]"}, "no chat template", id="odd-json"),
    ],
)
def test_an_unfit_folder_is_refused(
    db: Session, tmp_path: Path, without: str, extra: dict[str, str], reason: str
) -> None:
    files = {name: text for name, text in FILES.items() if name != without} | extra
    with pytest.raises(BaseModelInvalid, match=reason):
        models.add_base_model(db, "m", folder(tmp_path / "m", files))


@pytest.mark.parametrize("name", ["", "ft:a", "a/b", "../a", "a b", ".a", "x" * 97, "a\n"])
def test_names_are_plain(db: Session, tmp_path: Path, name: str) -> None:
    with pytest.raises(BaseModelInvalid, match="cannot name a model"):
        models.add_base_model(db, name, folder(tmp_path / "m", FILES))


def test_a_folder_that_is_not_there_is_refused(db: Session, tmp_path: Path) -> None:
    with pytest.raises(BaseModelInvalid, match="not a folder"):
        models.add_base_model(db, "m", tmp_path / "none")
