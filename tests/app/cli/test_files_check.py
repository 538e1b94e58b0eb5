"""`cherry files check` reads rows as a job of the method that is named would."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from app.cli.files import cli
from tests.workers.rows import chat_rows, data_rows, preference_rows


def test_rows_are_checked_for_the_method_that_is_named(tmp_path: Path) -> None:
    rows = {"supervised": chat_rows(10), "dpo": preference_rows(3), "reinforcement": data_rows(3)}
    for written, made in rows.items():
        file = tmp_path / f"{written}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in made))
        for method in rows:
            found = CliRunner().invoke(cli, ["check", str(file), "--method", method])
            assert (found.exit_code == 0) == (method == written), (written, method, found.output)


def test_a_supervised_file_with_too_few_rows_is_told(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat_rows(9)))
    found = CliRunner().invoke(cli, ["check", str(tmp_path / "rows.jsonl"), "--method", "supervised"])
    assert "has 9 example(s), but must have at least 10 examples" in str(found.exception)
