"""`python -m scripts.gpu.checks.one_process DEVICE FOLDER`: NCCL and FSDP2 in a world of one process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tests.tiny_model import make_tiny_model
from workers.training.base.distributed import World
from workers.training.model import sharding
from workers.training.model.base_model import load_base

ALONE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512", "RANK": "0", "WORLD_SIZE": "1"}


def main(name: str, folder: Path) -> None:
    """Sums over processes, shards a model, runs it backward, clips its gradients and gathers its weights."""
    os.environ.update(ALONE, LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    device = torch.device(name, 0) if name == "cuda" else torch.device(name)
    if name == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    flat = torch.ones(1 << 20, device=device)
    dist.all_reduce(flat)
    print("all_reduce", float(flat.sum()))
    sharded(device, folder)
    dist.destroy_process_group()
    print("closed")


def sharded(device: torch.device, folder: Path) -> None:
    """Trains nothing, but goes through all that a sharded step does."""
    base = load_base(make_tiny_model(folder / "tiny"), device, "full", "bfloat16", is_straight=True)
    model = base.model.requires_grad_(True)
    weights = sharding.shard(model, device, World(), torch.bfloat16)
    ids = torch.arange(8, device=device)[None]
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    model.get_output_embeddings()(states).float().square().mean().backward()
    sharding.close(model)
    print("norm", sharding.clip_gradients(weights.values(), 1.0), {w.device.type for w in weights.values()})
    gathered = sharding.gather_whole(dict(list(weights.items())[:2]), World())
    print({name: (weight.device.type, tuple(weight.shape)) for name, weight in gathered.items()})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
