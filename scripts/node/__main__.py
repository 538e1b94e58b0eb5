"""`python -m scripts.node`: installs OpenAI's client for Node, starts the service, and runs client.mjs.

The exit status is the script's. It needs `node` and `npm`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.conformance.__main__ import ROOT, service
from tests.scripted_model import make_scripted_model

VERSION = "6.30.1"
"""Of the package `openai`, pinned so that a run can be repeated. Version 7 needs Node 22."""
KEY = "a key for the client for Node"
PREPARE = f"""
from pathlib import Path
from app.db import unit_of_work
from app.embedded.first_run import built_in_model
from app.migrate import upgrade
from app.models import service as models
from app.settings import get_settings
from app.tenants import service as tenants
upgrade(get_settings().database_url)
with unit_of_work() as db:
    tenants.create_key(db, tenants.ensure_default_tenant(db).id, "node", plaintext={KEY!r})
    models.add_base_model(db, "cherry-nano", built_in_model())
    models.add_base_model(db, "thinker", Path({{folder!r}}))
"""
THINKER = (
    "<think>", "\nWhich ", "city?", "\n\n ", "</think>", "\n\nLet me see.", "\n\n\n",
    "<tool_call>", '\n{"name": ', '"get_weather", ', '"arguments": ', '{"city": "Os', 'lo"}}\n',
    "</tool_call>",
)  # fmt: skip
"""What the other model writes, whatever it is asked."""
SCRIPT = Path(__file__).with_name("client.mjs")


def main() -> int:
    """Returns the exit status of the script."""
    folder = ROOT / ".node-client"
    install(folder)
    thinker = make_scripted_model(folder / "thinker", THINKER)
    with service(PREPARE.format(folder=str(thinker)), {"CHERRY_CONFORMANCE": "0"}) as url:
        env = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": KEY}
        command = ["node", SCRIPT.name, "cherry-nano", "thinker"]
        return subprocess.run(command, cwd=folder, env=env).returncode


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
