"""Copies the pages, with the files of the repository that they link to."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")


class Stage:
    """A folder that holds `docs/`, and below `source/` what its pages link to outside of it."""

    def __init__(self, root: Path, pages: Path) -> None:
        self.root, self.docs, self.pages = root, root / "docs", pages

    def fill(self) -> None:
        """Copies every page and file of `docs/`, and what they lead to."""
        for path in sorted(self.docs.rglob("*")):
            if path.is_file():
                self._copy(path)
        (self.pages / "decisions").mkdir(exist_ok=True)
        (self.pages / "decisions" / "index.md").write_text(list_of_decisions(self.docs), "utf-8")

    def place(self, source: Path) -> Path:
        """Returns where the copy of a file of the repository lies."""
        if source.is_relative_to(self.docs):
            return self.pages / source.relative_to(self.docs)
        return self.pages / "source" / source.relative_to(self.root)

    def _copy(self, source: Path) -> None:
        target = self.place(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(
                LINK.sub(lambda link: self._led(link, source), source.read_text("utf-8")), "utf-8"
            )
        else:
            shutil.copyfile(source, target)

    def _led(self, link: re.Match[str], page: Path) -> str:
        """Returns a link of a page as it is in its copy; one to a folder leads to that folder's README."""
        named = (page.parent / link[2]).resolve()
        source = named / "README.md" if named.is_dir() else named
        if not source.is_relative_to(self.docs) and not self.place(source).exists():
            self._copy(source)
        return link[1] + os.path.relpath(self.place(source), self.place(page).parent)


def list_of_decisions(docs: Path) -> str:
    """Returns a page that names every decision record, by the heading of each."""
    lines = [
        "# Decisions",
        "",
        "What would surprise a newcomer, with its context and what else was thought of.",
        "",
    ]
    for record in sorted((docs / "decisions").glob("*.md")):
        heading = record.read_text("utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{heading}]({record.name})")
    return "\n".join(lines) + "\n"
