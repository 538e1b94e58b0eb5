"""Reads the folder that scripts/export_openai.py writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.cli.output import CliError

FORMAT = 1
"""What the exporter calls the layout that is read here."""
UNFINISHED = ".part"


class ExportFolder:
    """What a project held at OpenAI. Each list is in the order of its file; of ids there may be none."""

    def __init__(self, path: Path) -> None:
        """Raises `CliError` if the folder is no export, or one of another layout."""
        self.path = path
        try:
            about = json.loads((path / "export.json").read_text("utf-8"))
        except FileNotFoundError:
            raise CliError(f"{path} is no export: scripts/export_openai.py makes one") from None
        if about.get("format") != FORMAT:
            raise CliError(f"{path} has format {about.get('format')}; this version reads {FORMAT}")

    def jobs(self) -> list[dict[str, Any]]:
        return [*self._lines("jobs.jsonl")]

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        return self._lines(f"jobs/{place(job_id)}/events.jsonl")

    def evals(self) -> list[dict[str, Any]]:
        return [*self._lines("evals.jsonl")]

    def runs(self, eval_id: str) -> Iterator[dict[str, Any]]:
        return self._lines(f"evals/{place(eval_id)}/runs.jsonl")

    def items(self, eval_id: str, run_id: str) -> Iterator[dict[str, Any]]:
        return self._lines(f"evals/{place(eval_id)}/items/{place(run_id)}.jsonl")

    def content(self, file_id: str) -> Path | None:
        """Returns where the bytes of a file are, or None if they were not got."""
        path = self.path / "files" / place(file_id)
        return path if path.is_file() else None

    def file_name(self, file_id: str) -> str:
        """Returns the name under which a file was uploaded once."""
        return self._file_names.get(file_id, f"{file_id}.jsonl")

    def unfinished(self) -> list[str]:
        """Returns the lists that the exporter has not read to their ends."""
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob(f"*.jsonl{UNFINISHED}"))

    @cached_property
    def _file_names(self) -> dict[str, str]:
        return {file["id"]: file["filename"] for file in self._lines("files.jsonl")}

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yields the objects of a list, none if it was not got; of one that is not whole what there is."""
        path = self.path / name
        if not path.exists():
            path = path.with_name(path.name + UNFINISHED)
        if not path.exists():
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return  # a kill came in the middle of it
                try:
                    yield json.loads(line)
                except ValueError as problem:
                    raise CliError(f"{path}, line {number} is no JSON: {problem}") from None


def place(identifier: str) -> str:
    """Returns the name that the exporter gives to what has this id."""
    return quote(identifier, safe="").replace(".", "%2E")
