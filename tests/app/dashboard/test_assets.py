"""What browsers load: outside code is what npm has published, and a page's scripts and styles are small."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import httpx2 as httpx
import pytest

from app.dashboard import assets, shown

BUDGET = 80_000
"""Bytes of all that one page loads, compressed."""
VENDOR = assets.FOLDER / "vendor"
TEMPLATES = Path(shown.__file__).parent / "templates"
LOADED = re.compile(r"/dashboard/static/([\w./-]+)")
IMPORTED = re.compile(r"""\b(?:from|import)\s*\(?["']\./([\w./-]+)["']""")


def loaded_by(template: Path) -> set[str]:
    """The files that a page made from a template loads, with what they import."""
    text = template.read_text() + (TEMPLATES / "page.html").read_text()
    waiting, found = set(LOADED.findall(text)), set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name.endswith(".js") and not name.startswith("vendor/"):
            script = assets.FOLDER / name
            beside = {
                str((script.parent / other).relative_to(assets.FOLDER))
                for other in IMPORTED.findall(script.read_text())
            }
            waiting |= beside - found
    return found


def test_outside_code_is_what_was_published() -> None:
    versions = json.loads((VENDOR / "versions.json").read_text())
    assert {path.name for path in VENDOR.iterdir() if path.suffix in (".js", ".css")} == set(versions)
    for name, told in versions.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == told["sha256"], name


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_a_page_loads_at_most_its_budget(template: Path) -> None:
    sizes = {name: len(gzip.compress((assets.FOLDER / name).read_bytes(), 9)) for name in loaded_by(template)}
    assert sum(sizes.values()) <= BUDGET, sizes


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_no_template_holds_a_script_a_style_or_a_handler(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|\|\s*safe\b|javascript:", text)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", text), "loads something from elsewhere"


def test_assets_come_compressed_and_are_asked_for_anew(server_url: str) -> None:
    url = f"{server_url}/dashboard/static/vendor/htmx.min.js"
    first = httpx.get(url)
    assert first.headers["content-encoding"] == "gzip"
    assert first.headers["cache-control"] == "no-cache"
    assert httpx.get(url, headers={"if-none-match": first.headers["etag"]}).status_code == 304
