"""Fences of the docs, what each page says of its own, and a run of one page.

A comment in the line above a fence says what it is. Neither GitHub nor the site shows it:

    <!-- run -->             it is run: Python, or a shell's lines; all share variables and a folder
    <!-- run: exit 1 -->     the same, of shell lines that end with that status
    <!-- output -->          what the fence above it printed; `...` stands for anything
    <!-- file NAME -->       it is written to NAME in the page's folder
    <!-- not run: WHY -->    it is not run, for that reason
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(r"^(?:<!--(?P<mark>[^\n]*)-->\n)?```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
KNOWN_MARK = re.compile(r"run|run: exit [1-9]|output|file [\w.-]+|not run: \w.{9,}")
SHELL = ("sh", "bash")


class Fence(NamedTuple):
    """A fence of a page: what is said of it, its language, its code, and the line where it begins."""

    mark: str
    language: str
    code: str
    line: int

    @property
    def is_decided(self) -> bool:
        """Whether the page says that it runs, what it holds, or why it does not run."""
        return KNOWN_MARK.fullmatch(self.mark) is not None


def fences(page: str) -> list[Fence]:
    """All fences of a page, from top to bottom."""
    return [
        Fence(
            (found["mark"] or "").strip(),
            found["language"],
            found["code"],
            page.count("\n", 0, found.start()) + 1,
        )
        for found in FENCE.finditer(page)
    ]


class PageRun:
    """Runs one page's fences in a folder, as a reader would who types them in one after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)
        self.printed = ""
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def take(self, fence: Fence) -> None:
        """Does what the fence's mark says. Raises AssertionError with the page's line."""
        if fence.mark.startswith("file "):
            (self.folder / fence.mark.removeprefix("file ")).write_text(fence.code, "utf-8")
        elif fence.mark == "output":
            assert fits(fence.code, self.printed), (
                f"line {fence.line}: the page says\n{fence.code}\nbut it printed\n{self.printed}"
            )
        elif fence.mark.startswith("run"):
            wanted = int(fence.mark.removeprefix("run: exit ") if ":" in fence.mark else 0)
            self.printed = self._run(fence, wanted)

    def _run(self, fence: Fence, wanted: int) -> str:
        if fence.language == "python":
            with chdir(self.folder), redirect_stdout(io.StringIO()) as printed:
                exec(compile(fence.code, f"fence at line {fence.line}", "exec"), self.names)
            return printed.getvalue()
        assert fence.language in SHELL, f"line {fence.line}: nobody runs {fence.language!r}"
        return self._shell(fence, wanted)

    def _shell(self, fence: Fence, wanted: int) -> str:
        """Runs lines of a shell; variables that they set are there for the page's next fence."""
        kept = self.folder / ".variables"
        code = f"set -eu\n[ ! -f {kept} ] || . {kept}\nset -a\n{fence.code}\nexport -p > {kept}\n"
        done = subprocess.run(
            ["bash", "-c", code],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=900,
        )
        told = done.stdout + done.stderr
        assert done.returncode == wanted, (
            f"line {fence.line}: exit status {done.returncode}\n{fence.code}\n{told}"
        )
        return told


def fits(said: str, printed: str) -> bool:
    """Tells whether the output is what the page says; `...` stands for anything, line ends for nothing."""
    parts = (
        re.escape("\n".join(line.rstrip() for line in part.split("\n"))) for part in said.strip().split("...")
    )
    printed = "\n".join(line.rstrip() for line in printed.strip().split("\n"))
    return re.fullmatch(".*?".join(parts), printed, re.S) is not None
