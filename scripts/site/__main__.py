"""Builds the site into `.site/html`, strictly: a link that leads nowhere fails the build.

    python -m scripts.site            builds it
    python -m scripts.site serve      shows it on http://127.0.0.1:8001

A page of `docs/` may link to a file of the repository, which no site has. So pages are copied to
`.site/pages`, together with the files that they link to (below `source/`), and are built from there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.site.pages import Stage

ROOT = Path(__file__).parents[2]
PAGES = ROOT / ".site" / "pages"


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["serve"]):
        print(__doc__)
        return 2
    shutil.rmtree(PAGES, ignore_errors=True)
    Stage(ROOT, PAGES).fill()
    do = ["serve", "--dev-addr", "127.0.0.1:8001"] if arguments else ["build", "--strict", "--clean"]
    command = [sys.executable, "-m", "zensical", *do, "--config-file", str(ROOT / "mkdocs.yml")]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
