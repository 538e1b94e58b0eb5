"""What the README promises about the tree is there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

OURS = ("app", "benchmarks", "examples", "graders", "methods", "migrations", "scripts", "tests", "workers")
MOST_MODULES = 27
"""Python modules of one folder. More are not taken in at a glance: make a room for what belongs together."""

MOST_PATCHES = 0.07
"""`setattr` of `monkeypatch`, for each test function. The aim is 0.05."""


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=str)
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_readme_tree_names_what_exists() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    folder = ROOT
    for line in tree.strip().splitlines():
        names, indented = line[:22].split(), line.startswith("  ")
        if line.startswith("    "):
            continue
        for name in names:
            if not re.fullmatch(r"[\w/-]+(/|\.\w+)|Makefile|Dockerfile", name):
                continue  # a word of the description
            place = (folder if indented else ROOT) / name
            assert place.exists(), f"README names {name}"
            if name.endswith("/") and not indented:
                folder = place


def modules() -> Iterator[Path]:
    for package in OURS:
        yield from (ROOT / package).rglob("*.py")


def test_no_folder_holds_more_modules_than_one_takes_in() -> None:
    counts = Counter(path.parent for path in modules())
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_tests_pass_fakes_in_and_hardly_ever_replace_what_is_ours() -> None:
    tests = patches = 0
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    tests += name.startswith("test_")
                case ast.Call(func=ast.Attribute(attr="setattr")):
                    patches += 1
    assert patches / tests <= MOST_PATCHES, f"{patches} patches in {tests} tests: pass a fake in instead"
