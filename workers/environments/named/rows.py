"""Writes an environment's own data set as rows of a job: `python -m ... NAME OUT ARGS LIMIT`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.logs import configure_logging
from app.settings import get_settings
from workers.environments.named.environment import NamedEnvironment
from workers.environments.named.surroundings import hidden_paths
from workers.training.episodes.environment import EpisodeLost

PAGE = 100
"""Rows that are asked for at a time. Chosen, not measured."""


def main() -> None:
    name, out, args, limit = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    entry = settings.environments.get(name)
    if entry is None:
        known = ", ".join(sorted(settings.environments)) or "none"
        sys.exit(f"cherry: CHERRY_ENVIRONMENTS has no '{name}'. It has: {known}.")
    environment = NamedEnvironment(name, entry, args, hidden_paths(settings))
    try:
        with out.open("w", encoding="utf-8") as file:
            n_rows = 0
            for row in rows_of(environment, limit):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                n_rows += 1
    except EpisodeLost as lost:
        sys.exit(f"cherry: {lost}")
    finally:
        environment.close()
    print(f"{out} has {n_rows} rows of '{name}'.")


def rows_of(environment: NamedEnvironment, limit: int) -> Iterator[dict[str, Any]]:
    """Yields the rows of an environment's data set, up to a limit. Raises `EpisodeLost`."""
    for offset in range(0, limit, PAGE):
        found = environment.rows(offset, min(PAGE, limit - offset))
        yield from found
        if len(found) < PAGE:
            return


if __name__ == "__main__":
    main()
