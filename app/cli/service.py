"""`cherry up`, and the single processes it is made of."""

from __future__ import annotations

import gc
import os
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.connect import DEFAULT_FOLDER
from app.cli.output import AsJson, CliError, console, errors, print_json

if TYPE_CHECKING:
    import uvicorn

    from app.embedded.supervisor import Running
    from app.http.connections import Connections
    from app.settings import Settings

KEEP_ALIVE_SECONDS = 75
"""This is longer than pollers wait between two requests, so that they never meet a connection just closed."""
GRACE_SECONDS = 4
"""How long requests that are under way may go on when the service stops."""
Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]


class QueueName(StrEnum):
    train = "train"
    validate = "validate"
    evaluate = "evaluate"


def up(
    data: Annotated[
        Path, typer.Option("--data", help="Folder that holds all state.", envvar="CHERRY_DATA_DIR")
    ] = DEFAULT_FOLDER,
    host: Host = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the API.", show_default="8000 or the next free one", min=0, max=65535),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            help="Devices of trainings: 0,1 or UUIDs of GPUs, cpu:0,cpu:1 for seats on the CPU.",
            show_default="CHERRY_DEVICES, or all GPUs",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Trainings side by side.", show_default="one for each device", min=1, max=64),
    ] = None,
    vllm: Annotated[
        str,
        typer.Option(
            help="Base model whose jobs get their rollouts from a vLLM server, which is started with"
            " CHERRY_VLLM_PYTHON.",
            metavar="MODEL",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Run the whole service on this machine: database, broker, API and workers."""
    from app.embedded.supervisor import Given, Supervisor

    def say(sentence: str) -> None:
        errors.print(sentence, markup=False, soft_wrap=True)

    def tell(running: Running) -> None:
        if as_json:
            print_json(running._asdict())
            return
        for name, value in summary(running).items():
            console.print(f"{name:10} {value}", markup=False, soft_wrap=True)
        console.print(
            "Ready. Stop with Ctrl-C. Projects are managed with an admin key: cherry keys create --admin"
        )

    if devices is not None:
        os.environ["CHERRY_DEVICES"] = devices
    if workers is not None:
        os.environ["CHERRY_TRAIN_WORKERS"] = str(workers)
    given = Given()
    Supervisor(given, data, host=host or given.host, port=port, say=say, vllm=vllm).run(tell)


def summary(running: Running) -> dict[str, str]:
    """Returns what a person needs of a service that has just started; the URL is what clients are given."""
    return {
        "URL": running.base_url,
        "API key": running.api_key,
        "Dashboard": running.dashboard,
        "Data": str(running.data_dir),
    }


def api(
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="8000")] = None,
    fd: Annotated[int | None, typer.Option(help="Serve an open listening socket.", hidden=True)] = None,
) -> None:
    """Run the API alone (needs DATABASE_URL and CHERRY_BROKER_URL)."""
    from app.http.connections import Connections, places
    from app.http.processes import serve_in_processes
    from app.http.server import HttpServer
    from app.logs import configure_logging
    from app.settings import get_settings

    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    if fd is None and settings.api_processes > 1:
        with socket.create_server(
            (host or settings.host, settings.port if port is None else port)
        ) as listener:
            serve_in_processes(settings.api_processes, listener, grace=GRACE_SECONDS + 2)
        return
    sockets = None if fd is None else [socket.socket(fileno=fd)]
    connections = Connections(places(), settings.max_connections_per_address, settings.trusted_networks())
    server = HttpServer(server_config(settings, connections, host, port), connections=connections)
    sys.setswitchinterval(0.0005)
    gc.freeze()  # what is there now stays: to look through it again stops all requests for 0.2 s
    server.run(sockets=sockets)


def server_config(
    settings: Settings, connections: Connections, host: str | None = None, port: int | None = None
) -> uvicorn.Config:
    """Returns how the API is served; `connections` limits its connections."""
    import uvicorn

    from app.http.connections import limited_protocol
    from app.main import create_app

    return uvicorn.Config(
        create_app(settings),
        http=limited_protocol(connections),
        backlog=connections.most.waiting,
        forwarded_allow_ips=list(settings.trusted_proxies) or None,
        host=host or settings.host,
        port=settings.port if port is None else port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def worker(
    queue: Annotated[
        QueueName | None,
        typer.Option(
            help="What to work on: trainings, the validation of new jobs, or runs of evals.",
            show_default="all, one thing at a time",
        ),
    ] = None,
) -> None:
    """Run a worker alone (needs DATABASE_URL and CHERRY_BROKER_URL)."""
    from app.devices.claims import DevicesUnusable, claims_of
    from app.devices.listing import DeviceUnknown, of_service
    from app.queue import QUEUES, worker_command
    from app.settings import get_settings

    settings = get_settings()  # say what is missing here rather than in Celery's words
    try:
        of_service(settings), claims_of(settings)
    except (DeviceUnknown, DevicesUnusable) as problem:
        raise CliError(str(problem)) from None
    if queue is None and settings.training_memory_gib == "unknown":  # what it checks is trained here
        os.environ["CHERRY_TRAINING_MEMORY_GIB"] = "auto"
    command = worker_command(*([queue.value] if queue else QUEUES))
    os.execv(command[0], command)  # noqa: S606  # becomes the worker: signals reach it directly


def sampler(
    host: Host = None,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8001,
) -> None:
    """Run a sampler alone (needs DATABASE_URL, CHERRY_BROKER_URL and CHERRY_SAMPLER_TOKEN)."""
    from app.queue import sampler_command
    from app.settings import get_settings

    if not get_settings().sampler_token.get_secret_value():
        raise CliError("set CHERRY_SAMPLER_TOKEN, the same for the sampler and for all who ask it")
    command = sampler_command("--host", host or "127.0.0.1", "--port", str(port))
    os.execv(command[0], command)  # noqa: S606  # becomes the sampler: signals reach it directly


def relay() -> None:
    """Run the sender of webhooks alone (needs DATABASE_URL and CHERRY_SECRET_KEY)."""
    import signal
    import threading

    import app.tables  # noqa: F401  # foreign keys are found by table name
    from app.db import limit_statements
    from app.logs import configure_logging
    from app.settings import get_settings
    from app.webhooks.relay import Relay

    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    stopping = threading.Event()
    relay = Relay(settings, stopping)

    def stop(*_: object) -> None:
        # the main thread may hold the event's lock right now: only another can set it
        threading.Thread(target=stopping.set).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    relay.run()


def migrate() -> None:
    """Bring the database of DATABASE_URL to the schema of this version, with the built-in model."""
    from app.embedded import first_run
    from app.settings import get_settings

    first_run.migrate(get_settings())
    console.print("The database is up to date.")
