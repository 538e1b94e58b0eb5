"""What the README promises about the tree is there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.lint.module_map import PACKAGES, module_map, phrase

ROOT = Path(__file__).parents[1]

OURS = ("app", "benchmarks", "examples", "graders", "methods", "migrations", "scripts", "tests", "workers")
MOST_MODULES = 27
"""Python modules of one folder. More are not taken in at a glance: make a room for what belongs together."""

MOST_PATCHES = 0.05
"""`setattr` of `monkeypatch`, for each test function."""


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


def test_the_architecture_page_names_every_module_with_its_phrase() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert module_map() in page, "run `python -m scripts.lint.module_map`"


def test_every_module_says_in_a_sentence_what_it_is_for() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert phrase(path).endswith("."), f"{path.relative_to(ROOT)} does not begin with a sentence"


def test_every_room_is_in_the_readme() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    for package in PACKAGES:
        for init in (ROOT / package).rglob("__init__.py"):
            assert f"{init.parent.name}/" in tree, f"README's tree lacks {init.parent.relative_to(ROOT)}"


def test_what_the_architecture_page_names_is_there() -> None:
    table = (
        (ROOT / "docs" / "architecture.md").read_text().split("## Where it is decided")[1].split("\n## ")[0]
    )
    named = re.findall(r"`(\w[\w.]*)`(?: and [^`]*)? in `([\w/]+\.py)`", table)
    assert len(named) >= 9
    for name, path in named:
        assert name.rpartition(".")[2] in (ROOT / path).read_text(), f"{path} has no {name}"


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
