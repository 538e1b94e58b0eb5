"""Notes what a training is made of, for the job's card: hashes of data and base, and where it runs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from app.cards import service as cards
from app.cards.canonical import digest, digest_of_rows
from app.db import unit_of_work
from app.devices import facts
from app.events import service as events
from app.jobs import status
from app.jobs.status import Claim
from methods.model_files.precision import QUANTISED
from methods.rows import Row
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from workers.jobs.job_data import DataFile
from workers.training.base.distributed import World
from workers.training.checkpoints import versions
from workers.training.folders import sha256

CPU_FACTS = Path("/proc/cpuinfo")


def note(
    claim: Claim,
    config: TrainConfig | TuneConfig,
    data: Sequence[tuple[DataFile | None, Sequence[Row] | None]],
) -> None:
    """Keeps what this attempt reads, of files that it has, and where it runs. Raises `LeaseLost`."""
    made_of = {
        "data": {file.param: _data_facts(file, rows) for file, rows in data if file and rows is not None},
        "base_model": base_facts(config.model, Path(config.model_path)),
    }
    place = place_facts(config)
    attempt = {"attempt": claim.attempt, **place}
    with unit_of_work() as db:
        status.update_held(db, claim)
        cards.note_facts(db, claim.job_id, attempt, made_of)
        events.append(db, claim.job_id, f"device-{claim.attempt}", sentence(place))


def base_facts(name: str, folder: Path) -> dict[str, Any]:
    """Returns a model's files with their hashes, and one hash of all of them."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = {path.name: sha256(path) for path in paths}
    return {"name": name, "files": files, "sha256": digest(files)}


def place_facts(config: TrainConfig | TuneConfig) -> dict[str, Any]:
    """Returns where a run computes and with what: all on which its last bit may depend."""
    device = World().device(config.device).type
    quantised = config.base_precision in QUANTISED
    return {
        **({"base_precision": config.base_precision} if quantised else {}),
        "device": device,
        **(gpu_facts() if device == "cuda" else {"device_name": cpu_name()}),
        "processes": config.processes,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {**versions(config), "cherry": version("cherry-rft")},
    }


def gpu_facts() -> dict[str, Any]:
    """Returns what this process's first GPU is, by the driver: asking torch would open a context on it."""
    told = facts.of_gpus()
    if not told:
        return {"device_name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    name, memory_bytes, driver = told[0]
    memory = {"device_memory_bytes": memory_bytes, "driver": driver}
    return {"device_name": name, **memory, "cuda": torch.version.cuda}


def sentence(place: Mapping[str, Any]) -> str:
    """Returns where a run computes, for its events."""
    several = f"{place['processes']} x " if place["processes"] > 1 else ""
    what = [f"{several}{place['device_name']}"]
    if "device_memory_bytes" in place:
        what[0] += f" ({place['device_memory_bytes'] / 2**30:.0f} GiB)"
        what.append(f"driver {place['driver']}")
    if place.get("cuda"):
        what.append(f"CUDA {place['cuda']}")
    return f"Training on {', '.join([*what, 'torch ' + place['versions']['torch']])}"


def cpu_name() -> str:
    """Returns what the processor calls itself, or its architecture where the system does not tell."""
    try:
        lines = CPU_FACTS.read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _data_facts(file: DataFile, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "name": file.shown,
        "sha256": file.sha256,
        "rows": len(rows),
        "rows_sha256": digest_of_rows(row.item for row in rows),
    }
