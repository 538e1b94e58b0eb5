"""What the README promises about the tree is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
