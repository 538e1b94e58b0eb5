"""The site is built strictly and has every page; its API reference is that of the service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.site.api import KNOWN, PAGES, pages, service_document
from scripts.site.pages import Stage

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text("utf-8")


def test_every_page_is_in_the_navigation_but_for_decisions() -> None:
    named = {DOCS / name for name in re.findall(r"[\w/-]+\.md", CONFIG)}
    pages = {path for path in DOCS.rglob("*.md") if path.parent.name != "decisions"}
    assert pages == named - {DOCS / "decisions" / "index.md"}


def test_the_api_reference_is_that_of_the_service() -> None:
    made = pages(service_document(), json.loads(KNOWN.read_text("utf-8")))
    stored = {path.name: path.read_text("utf-8") for path in PAGES.glob("*.md")}
    assert stored == made, "run `python -m scripts.site.api`"


def test_a_link_out_of_the_docs_leads_to_a_copy(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "docs" / "a").mkdir(parents=True)
    (root / "code").mkdir()
    (root / "docs" / "a" / "page.md").write_text(
        "[code](../../code) [other](../other.md#x) [site](https://x.y)"
    )
    (root / "docs" / "other.md").write_text("# Other")
    (root / "code" / "README.md").write_text("[back](../docs/other.md)")
    Stage(root, tmp_path / "pages").fill()
    page = (tmp_path / "pages" / "a" / "page.md").read_text()
    assert page == "[code](../source/code/README.md) [other](../other.md#x) [site](https://x.y)"
    assert (tmp_path / "pages" / "source" / "code" / "README.md").read_text() == "[back](../../other.md)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "ends_well"),
    [("[there](other.md#end)", True), ("[gone](gone.md)", False), ("[no heading](other.md#start)", False)],
    ids=["whole", "no-page", "no-heading"],
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, text: str, ends_well: bool) -> None:
    pytest.importorskip("zensical")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n{text}\n")
    (tmp_path / "docs" / "other.md").write_text("# Other\n\n## End\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: Tried\n")
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    shutil.rmtree(tmp_path / "site", ignore_errors=True)
    assert (done.returncode == 0) is ends_well, done.stdout + done.stderr
