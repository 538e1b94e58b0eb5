"""`python -m workers.serving`: the sampler process, as `cherry up` and `cherry sampler` start it."""

from __future__ import annotations

import argparse
import socket

import uvicorn

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.db import limit_statements
from app.logs import configure_logging
from app.settings import get_settings
from workers.devices.sampler_part import take_part
from workers.serving.server import create_sampler

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open. Chosen, not measured."""
GRACE_SECONDS = 5
"""How long open requests may go on once the process is to end. Chosen, not measured."""


def main() -> None:
    """Starts the sampler process with the options of the command line."""
    parser = argparse.ArgumentParser(prog="workers.serving", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--fd", type=int, help="serve an open listening socket")
    given = parser.parse_args()
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    kept = take_part(settings)
    config = uvicorn.Config(
        create_sampler(settings),
        host=given.host,
        port=given.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    sockets = None if given.fd is None else [socket.socket(fileno=given.fd)]
    uvicorn.Server(config).run(sockets=sockets)
    del kept  # until here


if __name__ == "__main__":
    main()
