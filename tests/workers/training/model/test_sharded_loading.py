"""A sharded policy is loaded without a second copy of the model: shards are cut from the one that samples.

The process group is torch's fake one: this process is one of four, and calls to the others come back at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM

from methods.train_config import TrainConfig
from tests.tiny_model import byte_tokenizer, make_tiny_model
from tests.workers.training.support import make_config
from workers.training.base.distributed import World
from workers.training.model.policy import Policy

RANK, SIZE = 1, 4


@pytest.fixture
def one_of_four(sharp: Path, deep: Path, tied_half: Path) -> Iterator[World]:
    """The models are written before: of several processes transformers lets the first one alone write."""
    dist.init_process_group("fake", store=FakeStore(), rank=RANK, world_size=SIZE)  # type: ignore[no-untyped-call]
    world = World(RANK, SIZE)
    world.is_grouped = True
    yield world
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model most of whose weights are in its layers."""
    return make_tiny_model(tmp_path_factory.mktemp("deep"), hidden=64, layers=12, scale=0.1)


@pytest.fixture(scope="module")
def tied_half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in bf16 whose output layer is its embedding."""
    folder = tmp_path_factory.mktemp("tied")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def sharded(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"sharding": "fsdp", "processes": SIZE})


def rows_of_this_process(weight: Tensor) -> Tensor:
    rows = -(-len(weight) // SIZE)
    return weight[RANK * rows : (RANK + 1) * rows]


def assert_is_split(split: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    assert split.keys() == whole.keys()
    assert any(isinstance(weight, DTensor) for weight in split.values())
    for name, weight in whole.items():
        mine, wanted = split[name], weight
        if isinstance(mine, DTensor):
            mine, wanted = mine.to_local(), rows_of_this_process(weight)
        assert mine.dtype == wanted.dtype
        assert torch.equal(mine, wanted), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("kind", ["sharp", "tied_half"])
def test_each_process_has_the_bits_of_its_rows_and_a_whole_copy_to_sample_from(
    one_of_four: World, kind: str, adapter: str, dtype: str, request: pytest.FixtureRequest
) -> None:
    config = make_config(request.getfixturevalue(kind), adapter=adapter, dtype=dtype)
    alone, split = Policy.load(config), Policy.load(sharded(config), one_of_four)
    assert_is_split(split._weights, dict(alone.model.named_parameters()))
    pairs = zip(split.rollout_model.named_parameters(), alone.rollout_model.named_parameters(), strict=True)
    for (name, mine), (other, wanted) in pairs:
        assert name == other
        assert (mine.dtype, mine.requires_grad) == (wanted.dtype, wanted.requires_grad and mine is wanted)
        assert torch.equal(mine, wanted), name
    if adapter == "full":
        reference = {
            name: weight for name, weight in split._reference.named_parameters() if "borrowed" not in name
        }
        wanted_reference = dict(alone._reference.named_parameters())
        assert_is_split(reference, {name: wanted_reference[name] for name in reference})
    for (name, mine), (_, wanted) in zip(
        split.model.named_buffers(), alone.model.named_buffers(), strict=True
    ):
        assert mine.dtype == wanted.dtype
        assert torch.equal(mine, wanted), name


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations read and make inside, while they are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, found)):
            # What is split has a storage of its own; the wrapper's is as long as the whole and holds nothing.
            is_real = isinstance(tensor, Tensor) and not isinstance(tensor, DTensor)
            if is_real and tensor.device.type != "meta":
                self._note(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


@pytest.mark.parametrize(
    ("adapter", "dtype", "shards"),
    [
        pytest.param("lora", "float32", 1, id="lora"),
        pytest.param("full", "float32", 2, id="full-beside-its-reference"),
        pytest.param("full", "bfloat16", 0, id="full-whose-copy-becomes-half-as-large"),
    ],
)
def test_loading_takes_the_whole_copy_and_shards_and_no_second_model(
    one_of_four: World,
    deep: Path,
    adapter: str,
    dtype: str,
    shards: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`shards` are of fp32 weights, beside the copy at its largest: in bf16 it shrinks as they are made."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # what is counted has to be made in this thread
    config = sharded(make_config(deep, adapter=adapter, dtype=dtype, lora_rank=1))
    with LiveBytes() as live:
        policy = Policy.load(config, one_of_four)
    numbers = sum(weight.numel() for weight in policy.rollout_model.parameters())
    layer = sum(weight.numel() for weight in policy.rollout_model.model.layers[0].parameters())
    head = policy.vocabulary * 64
    assert live.peak >= 4 * numbers, "the whole copy is counted"
    assert live.peak <= 4 * (numbers * (1 + shards / SIZE) + 2 * layer + 2 * head)
