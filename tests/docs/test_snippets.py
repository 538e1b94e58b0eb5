"""Every fence of the pages for readers runs, or says why it does not."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.snippets import Fence, PageRun, fences, fits
from tests.e2e.service import Service, environment, running_service

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LOCAL = ("row-formats", "choosing-graders")
"""Pages that need no service. Those with many commands wait for the long tests."""
MANY_COMMANDS = ("choosing-graders",)
SERVED = ("tutorial", "moving-from-openai", "operations")
"""Pages that are tried with a whole service; the first one trains for minutes."""
SAID_ONLY = ("index", "recipes", "reading-curves", "small-data", "sizing", "troubleshooting", "glossary")
"""Pages of which each fence says why it is not run."""


def page_fences(name: str) -> list[Fence]:
    return fences((DOCS / f"{name}.md").read_text("utf-8"))


@pytest.mark.parametrize("name", [*LOCAL, *SERVED, *SAID_ONLY])
def test_every_fence_runs_or_says_why_not(name: str) -> None:
    undecided = [f"{name}.md:{fence.line}" for fence in page_fences(name) if not fence.is_decided]
    assert undecided == []


@pytest.mark.parametrize("name", [*LOCAL, *SERVED])
def test_a_page_that_is_run_has_something_to_run(name: str) -> None:
    assert any(fence.mark.startswith("run") for fence in page_fences(name))


@pytest.mark.parametrize("name", SAID_ONLY)
def test_a_page_that_nobody_runs_marks_nothing_to_be_run(name: str) -> None:
    assert [fence.line for fence in page_fences(name) if fence.mark.startswith("run")] == []


@pytest.mark.parametrize("page", sorted([*DOCS.glob("*.md"), ROOT / "README.md"]), ids=lambda page: page.name)
def test_python_and_json_of_every_page_can_be_read(page: Path) -> None:
    for fence in fences(page.read_text("utf-8")):
        if fence.language == "python":
            compile(fence.code, f"{page.name}:{fence.line}", "exec")
        elif fence.language == "json":
            assert is_json(fence.code) or all(map(is_json, fence.code.splitlines())), fence


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in MANY_COMMANDS)) for name in LOCAL]
)
def test_a_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    run = PageRun(tmp_path, reader())
    for fence in page_fences(name):
        run.take(fence)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0") as started,
    ):
        yield started


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.filterwarnings(  # a page opens files in the line that sends them, as readers do
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("name", SERVED)
def test_a_page_does_with_a_service_what_it_says(
    name: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"PATH": reader()["PATH"], **served(service)}.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run = PageRun(tmp_path, reader() | served(service))
    for fence in page_fences(name):
        run.take(fence)


def reader() -> dict[str, str]:
    """A shell in which `cherry` and this Python are found, and whose lines are as wide as a page."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, COLUMNS="100", NO_COLOR="1", PYTHONPATH=str(ROOT))


def served(service: Service) -> dict[str, str]:
    """What the tutorial has its reader export."""
    return {
        "CHERRY_DATA_DIR": str(service.folder),
        "OPENAI_BASE_URL": f"{service.url}/v1",
        "OPENAI_API_KEY": service.api_key,
    }


def test_an_output_fits_with_gaps_and_not_otherwise() -> None:
    assert fits("a ...\nend\n", "a 12 s\nmore\nend")
    assert not fits("a\nend", "a\nmore\nend")


def test_a_fence_without_a_mark_or_with_an_unknown_one_is_undecided() -> None:
    found = fences("```sh\nls\n```\n<!-- not run -->\n```sh\nls\n```\n<!-- run -->\n```sh\nls\n```\n")
    assert [fence.is_decided for fence in found] == [False, False, True]


def test_a_shell_that_ends_otherwise_than_said_is_told(tmp_path: Path) -> None:
    run = PageRun(tmp_path, {})
    run.take(Fence("run", "sh", "A=1\n", 1))
    run.take(Fence("run: exit 3", "sh", 'exit "$((A + 2))"\n', 2))
    with pytest.raises(AssertionError, match="line 9: exit status 1"):
        run.take(Fence("run", "sh", "false\n", 9))
