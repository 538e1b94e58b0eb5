"""`cherry models add NAME FILE.gguf`: a GGUF file becomes a base model in a folder of its own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from sqlalchemy.orm import Session
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.models import bases
from app.settings import Settings
from tests.workers.exports.gguf.small_models import make
from workers.exports.gguf.write import read_model, write_model


def add(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", "add", *arguments, "--data", str(settings.data_dir)])


@pytest.mark.long
def test_a_gguf_file_becomes_a_base_model(db: Session, settings: Settings, tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    file = write_model(read_model(tmp_path / "model"), "gpt-2", tmp_path, lambda share: None)
    db.commit()
    done = add(settings, "mine", str(file))
    assert done.exit_code == 0, done.output
    row = bases.find_base(db, "mine")
    assert row is not None
    assert row.origin is not None
    place = Path(str(row.folder))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert place == (settings.data_dir / "models" / f"mine-{digest[:12]}").absolute()
    assert (row.origin["folder"], row.origin["revision"]) == (str(file), f"sha256:{digest}")
    ids = torch.arange(30, 60)[None]
    back = AutoModelForCausalLM.from_pretrained(place)
    assert torch.allclose(back(ids).logits, model(ids).logits, atol=1e-5)
    assert AutoTokenizer.from_pretrained(place).chat_template is not None
    db.commit()

    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}<end>{% endfor %}")
    again = add(settings, "mine", str(file), "--template", str(template), "--replace")
    assert again.exit_code == 0, again.output
    db.expire_all()
    row = bases.find_base(db, "mine")
    assert row is not None
    assert not place.exists()
    assert (Path(str(row.folder)) / "chat_template.jinja").read_text() == template.read_text()


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_refused_and_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    done = add(settings, "broken", str(file))
    assert done.exit_code != 0
    assert "it is no GGUF file that can be read" in str(done.output) + str(done.exception)
    assert not list((settings.data_dir / "models").glob("*broken*"))
    shutil.rmtree(tmp_path)
