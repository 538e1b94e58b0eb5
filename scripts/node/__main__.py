"""`python -m scripts.node`: installs OpenAI's client for Node in a folder of its own, starts the service, runs client.mjs.

The exit status is the script's. It needs `node` and `npm`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from app.conformance.seed import API_KEY, BASE_MODELS
from scripts.conformance.__main__ import ROOT, service

VERSION = "6.49.0"
"""Of the package `openai`, pinned so that a run can be repeated."""
SCRIPT = Path(__file__).with_name("client.mjs")


def main() -> int:
    """Returns the exit status of the script."""
    folder = ROOT / ".node-client"
    install(folder)
    with service() as url:
        reset = urllib.request.Request(f"{url}/conformance/reset", b"{}", {"content-type": "application/json"})
        urllib.request.urlopen(reset, timeout=60).close()
        env = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": API_KEY}
        return subprocess.run(["node", SCRIPT.name, BASE_MODELS[0]], cwd=folder, env=env).returncode


def install(folder: Path) -> None:
    """Puts the script and the client side by side, so that the one finds the other."""
    folder.mkdir(exist_ok=True)
    shutil.copy(SCRIPT, folder)
    known = folder / "node_modules" / "openai" / "package.json"
    if not known.exists() or f'"version": "{VERSION}"' not in known.read_text():
        npm = ["npm", "install", "--no-audit", "--no-fund", "--no-save", f"openai@{VERSION}"]
        subprocess.run(npm, cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
