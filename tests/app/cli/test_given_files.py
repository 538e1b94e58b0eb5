"""Files that commands are given: what cannot be read is said in a sentence, no upload stays without a use."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.output import CliError
from app.files.models import File
from tests.factories import Tenant, make_eval

READING = {
    "graders run": ["graders", "run", "{}", "--sample", "a"],
    "graders validate": ["graders", "validate", "{}"],
    "evals create": ["evals", "create", "{}"],
    "evals run": ["evals", "run", "eval_x", "--source", "{}"],
    "jobs regrade": ["jobs", "regrade", "ftjob-x", "{}"],
    "jobs check": ["jobs", "check", "{}"],
    "jobs create": ["jobs", "create", "--model", "m", "--train", "file-x", "--grader", "{}"],
    "import": ["import", "openai-jobs", "{}"],
}
ODD = {
    "binary": (b"\xff\xfe{", "is no UTF-8 text"),
    "half": (b'{"type": ', "is no JSON"),
    "list": (b"[]", "holds no JSON object"),
    "nothing": (b"", "is no JSON"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("command", READING)
def test_what_is_no_json_object_is_named(tmp_path: Path, command: str, odd: str) -> None:
    content, said = ODD[odd]
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    arguments = [str(path) if each == "{}" else each for each in READING[command]]
    done = CliRunner().invoke(cli, [*arguments, "--url", "http://127.0.0.1:9", "--key", "k"])
    assert isinstance(done.exception, CliError), done.output
    assert f"{path} {said}" in str(done.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evals", "run", "eval_gone", "--data-file"],
        ["datasets", "from-stored", "--format", "dpo", "--filename", "x.txt", "--validation-file"],
    ],
    ids=["evals run", "datasets from-stored"],
)
def test_what_was_uploaded_for_a_refused_request_goes_again(
    server_url: str, tenant: Tenant, db: Session, tmp_path: Path, arguments: list[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    service = ["--url", server_url, "--key", tenant.key]
    done = CliRunner().invoke(cli, [*arguments, str(path), *service])
    assert done.exit_code == 1
    assert "Deleted file-" in done.output
    assert db.scalars(select(File).where(File.project_id == tenant.project_id)).all() == []
    missing = CliRunner().invoke(cli, [*arguments, str(tmp_path / "gone.jsonl"), *service])
    assert "gone.jsonl is neither a file here nor the id of one" in str(missing.exception)


def test_what_is_used_stays(server_url: str, tenant: Tenant, db: Session, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"item": {}, "sample": {"output_text": "a"}}\n')
    evaluation = make_eval(db, tenant.project_id)
    db.commit()
    arguments = ["evals", "run", evaluation.id, "--no-wait", "--data-file", str(path)]
    done = CliRunner().invoke(cli, [*arguments, "--url", server_url, "--key", tenant.key])
    assert done.exit_code == 0, done.output
    assert len(db.scalars(select(File)).all()) == 1
