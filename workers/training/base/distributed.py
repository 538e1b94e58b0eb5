"""The processes that share a run. A process alone gets back from every call what it gave.

Each process samples and grades its share of a step's prompts, is given all groups, and computes the gradient
of its share of the completions; gradients are added up. Clipping and the optimizer's step are then the same
everywhere, so the weights stay equal without ever being sent.

Calls are collective: every process makes them in the same order, and never from two threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from workers.training.base.errors import DeviceMissing, ProcessesDiffer

T = TypeVar("T")

TIMEOUT = timedelta(hours=1)
"""The longest wait for another process. One that ends is noticed at once; this is for one that hangs. An
hour was chosen, not measured: it has to be longer than any step, validation or save.
"""

BUCKET = 1 << 25
"""Gradients that are summed in one call (fp32 numbers: 128 MiB). Chosen, not measured: it bounds the copy
that is sent.
"""


class World:
    """Stands for one process among `size`; `rank` 0 is the main one, which alone records and writes files.

    `local_rank` is its number among the `local_size` on this machine: with GPUs, the number of its GPU.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.local_size = local_size
        self.is_grouped = False
        """Whether it has a process group of torch's. A process alone may have one, as under torchrun."""
        self._objects: dist.ProcessGroup | None = None
        """For Python objects, which have no business on a GPU."""

    @classmethod
    def from_environment(
        cls, device: Literal["auto", "cpu", "cuda"] = "auto", environment: Mapping[str, str] = os.environ
    ) -> World:
        """Returns the world that torchrun's environment variables name; without them, the process is alone.

        Under torchrun one process has a process group too, NCCL's on a GPU, so that what several do can be
        tried with one. Waits for the others. Raises `DeviceMissing`.
        """
        if environment.get("WORLD_SIZE", "1") == "1" and "LOCAL_RANK" not in environment:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        world = cls(*(int(environment[name]) for name in names))
        world.is_grouped = True
        place = world.device(device)
        if place.type == "cuda":
            torch.cuda.set_device(place)
            dist.init_process_group("nccl", timeout=TIMEOUT, device_id=place)
            world._objects = dist.new_group(backend="gloo", timeout=TIMEOUT)
        else:
            dist.init_process_group("gloo", timeout=TIMEOUT)
            world._objects = dist.group.WORLD
        return world

    @property
    def is_main(self) -> bool:
        """Says whether this is the process that records and writes."""
        return self.rank == 0

    def device(self, wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
        """Returns the device on which this process computes. Raises `DeviceMissing`."""
        if wanted == "cpu":  # whose runs ask nothing of CUDA
            return torch.device("cpu")
        n_gpus = torch.cuda.device_count()
        if wanted == "auto" and n_gpus == 0:
            return torch.device("cpu")
        if self.local_size > n_gpus:
            raise DeviceMissing(
                f"The run needs {self.local_size} GPUs on this machine; PyTorch finds {n_gpus} there."
            )
        return torch.device("cuda", self.local_rank)

    def gather(self, value: T) -> list[T]:
        """Returns every process's value, by rank, in every process."""
        if self.size == 1:
            return [value]
        found: list[T] = [value] * self.size
        dist.all_gather_object(found, value, group=self._objects)
        return found

    def broadcast(self, value: T) -> T:
        """Returns the main process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._objects)
        return box[0]

    def wait(self) -> None:
        """Returns when every process has come here."""
        self.gather(None)

    def most(self, count: int) -> int:
        """Returns the largest of the processes' numbers."""
        return max(self.gather(count))

    def slice(self, items: Sequence[T]) -> Sequence[T]:
        """Returns this process's share of a list, every `size`-th item; `merge` puts the shares together."""
        return items[self.rank :: self.size]

    def merge(self, share: Sequence[T]) -> list[T]:
        """Returns, in every process, the list whose slices the processes bring."""
        shares = self.gather(list(share))
        total = sum(map(len, shares))
        return [shares[i % self.size][i // self.size] for i in range(total)]

    def share(
        self,
        sizes: Sequence[int],
        owners: Sequence[Hashable] = (),
        owner_sizes: Mapping[Hashable, int] | None = None,
    ) -> list[int]:
        """Returns the indices of this process's items: balanced, and split alike in every process.

        Args:
            sizes: work of each item, such as tokens of a completion.
            owners: what each item belongs to, such as its prompt; by default, each stands for itself. Items
                of one owner stay together as long as that owner is not more than a process's fair share.
            owner_sizes: work of an owner, done by every process that has an item of it.
        """
        shares = share_out(sizes, owners or range(len(sizes)), owner_sizes or {}, self.size)
        return shares[self.rank]

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Adds up the gradients of weights of any shape over the processes, in place and in fp32.

        A missing gradient counts as zeros. Sharded weights are left out: FSDP has added theirs up
        (sharding.py).
        """
        if self.size == 1:
            return
        for bucket in _buckets(weight for weight in weights if not isinstance(weight, DTensor)):
            flat = torch.cat(
                [
                    (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten().float()
                    for weight in bucket
                ]
            )
            dist.all_reduce(flat)
            for weight, total in zip(bucket, torch.split(flat, [w.numel() for w in bucket]), strict=True):
                weight.grad = total.view_as(weight).to(weight.dtype)

    def check_same(self, weights: Iterable[Tensor]) -> None:
        """Compares weights of any shape.

        Raises `ProcessesDiffer` in every process unless all hold the same bits.
        """
        sums = [_bits(weight) for weight in weights if not isinstance(weight, DTensor)]
        mine = torch.stack(sums).tolist() if sums else []
        if any(other != mine for other in self.gather(mine)):
            raise ProcessesDiffer(
                f"The {self.size} processes of this run no longer hold the same weights:"
                " a fault of the hardware, or machines that compute differently."
            )

    def close(self) -> None:
        """Leaves the others in good order; called at the end of a run that went well."""
        if self.is_grouped:
            dist.destroy_process_group()


ALONE = World()


def share_out(
    sizes: Sequence[int], owners: Sequence[Hashable], owner_sizes: Mapping[Hashable, int], processes: int
) -> list[list[int]]:
    """Returns the items of each process: the largest piece goes to whoever has least so far.

    Source: longest processing time first, Graham 1969 (doi:10.1137/0117039).
    """
    members: dict[Hashable, list[int]] = {}
    for i, owner in enumerate(owners):
        members.setdefault(owner, []).append(i)
    total = sum(sizes) + sum(owner_sizes.get(owner, 0) for owner in members)
    pieces: list[tuple[int, list[int]]] = []
    for owner, items in members.items():
        own = owner_sizes.get(owner, 0)
        work = own + sum(sizes[i] for i in items)
        n_pieces = min(len(items), -(-work * processes // max(total, 1)), processes)
        for piece in _evenly(items, sizes, max(n_pieces, 1)):
            pieces.append((own + sum(sizes[i] for i in piece), piece))
    pieces.sort(key=lambda piece: -piece[0])
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for work, piece in pieces:
        least = loads.index(min(loads))
        shares[least] += piece
        loads[least] += work
    return [sorted(share) for share in shares]


def _evenly(items: Sequence[int], sizes: Sequence[int], n: int) -> list[list[int]]:
    """Splits items into n pieces of about the same work, none of them empty (n is at most their number)."""
    pieces: list[list[int]] = [[] for _ in range(n)]
    loads = [0] * n
    for i in sorted(items, key=lambda i: -sizes[i]):
        least = min(range(n), key=lambda k: (loads[k], len(pieces[k])))
        pieces[least].append(i)
        loads[least] += sizes[i]
    return pieces


def _buckets(weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yields lists of weights of about `BUCKET` numbers, in their order."""
    bucket: list[Tensor] = []
    left = BUCKET
    for weight in weights:
        if bucket and weight.numel() > left:
            yield bucket
            bucket, left = [], BUCKET
        bucket.append(weight)
        left -= weight.numel()
    if bucket:
        yield bucket


def _bits(weight: Tensor) -> Tensor:
    """Returns a checksum, a scalar: the sum of a weight's bit patterns, read as integers."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    return weight.detach().contiguous().view(integers).sum(dtype=torch.int64).cpu()
