"""Writes the list of every module, with its phrase, into docs/architecture.md.

    python -m scripts.lint.module_map

The phrase is the first sentence of the module's docstring. A test holds the list to the tree.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("methods", "app", "workers", "graders")
BEGIN, END = "<!-- modules: begin -->", "<!-- modules: end -->"


def module_map() -> str:
    """Returns a Markdown list of packages, their rooms and modules, each with its phrase."""
    lines = []
    for package in PACKAGES:
        for folder in sorted({path.parent for path in (ROOT / package).rglob("*.py")}):
            init = folder / "__init__.py"
            room = str(folder.relative_to(ROOT))
            lines.append(f"\n**`{room}/`** {phrase(init)}\n")
            modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
            lines += [f"- `{path.name}`: {phrase(path)}" for path in modules]
    return "\n".join(lines).strip()


def phrase(path: Path) -> str:
    """Returns the first sentence of a module's docstring."""
    paragraph = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return re.split(r"(?<=\.) (?=[A-Z`])", " ".join(paragraph.split()), maxsplit=1)[0]


def with_map(page: str) -> str:
    """Returns the page with the list between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{module_map()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
