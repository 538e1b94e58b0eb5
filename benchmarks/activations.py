"""What a training pass keeps of a token on a GPU, counted without one: methods/sizes/activations.py.

    OMP_NUM_THREADS=1 python -m benchmarks.activations            # counts beside estimates
    OMP_NUM_THREADS=1 python -m benchmarks.activations --table    # the table, anew
    OMP_NUM_THREADS=1 python -m benchmarks.activations --write    # the same, into that module

A model of made-up weights (fake tensors: shapes and no numbers) runs a packed pass forward and backward, as
the engine does on a GPU. Every storage that an operation makes is counted while it is alive. What a layer
keeps is linear in its widths, so its coefficients follow from shapes that differ in one width. Attention
stands for a fused kernel: it keeps queries, keys, values, what it gave and a sum for each row.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from methods.sizes import activations
from methods.sizes.activations import Adapter, Kept, Kind, Layout
from methods.sizes.model_size import ModelSize
from workers.training.base.types import Completion, Prompt
from workers.training.model import attention
from workers.training.model.adapter import add_adapter
from workers.training.model.arithmetic import compute_in
from workers.training.model.gates import remake_gates
from workers.training.model.merged_lora import train_through_sum
from workers.training.model.recompute import recompute_layers
from workers.training.passes.packing import Batch, PackedCompletion, make_batches
from workers.training.passes.path import states_by_modules
from workers.training.passes.token_logprobs import token_logprobs

RANK = 16
PROMPTS, SAMPLES, TOKENS = 4, 8, 512
"""Of the pass that is counted: 18,400 tokens, so that layers and not logits make its peak."""


class Shape(NamedTuple):
    """Is a model as its config says it: `heads` of `width` numbers each, `kv` of them for keys and values."""

    family: str
    hidden: int
    inner: int
    layers: int
    heads: int
    kv: int
    width: int
    vocabulary: int
    is_tied: bool = False


SHAPES = {
    "SmolLM2-135M": Shape("llama", 576, 1536, 30, 9, 3, 64, 49_152, is_tied=True),
    "Qwen2.5-0.5B": Shape("qwen2", 896, 4864, 24, 14, 2, 64, 151_936, is_tied=True),
    "Qwen3-0.6B": Shape("qwen3", 1024, 3072, 28, 16, 8, 128, 151_936, is_tied=True),
    "Llama-3.2-1B": Shape("llama", 2048, 8192, 16, 32, 8, 64, 128_256, is_tied=True),
    "Qwen2.5-1.5B": Shape("qwen2", 1536, 8960, 28, 12, 2, 128, 151_936, is_tied=True),
    "Qwen2.5-7B": Shape("qwen2", 3584, 18_944, 28, 28, 4, 128, 152_064),
    "Qwen3-8B": Shape("qwen3", 4096, 12_288, 36, 32, 8, 128, 151_936),
    "Qwen2.5-14B": Shape("qwen2", 5120, 13_824, 48, 40, 8, 128, 152_064),
    "Qwen2.5-32B": Shape("qwen2", 5120, 27_648, 64, 40, 8, 128, 152_064),
    "Llama-3.1-70B": Shape("llama", 8192, 28_672, 80, 64, 8, 128, 128_256),
}
"""Published models, by the numbers in their configs."""


class Counted(NamedTuple):
    """Holds bytes of one pass, which another one of the same update has left its gradients to.

    Attributes:
        tokens: that went through the model.
        kept: for the backward pass, when the forward pass through the decoder is over.
        peak: the most beside weights and gradients.
        copies: of weights in the dtype of the arithmetic, which both hold.
    """

    tokens: int
    kept: int
    peak: int
    copies: int


def size_of_shape(shape: Shape) -> ModelSize:
    """Returns a shape as the arithmetic of memory takes it."""
    queries, keys = shape.heads * shape.width, shape.kv * shape.width
    attended = [(queries, shape.hidden), (keys, shape.hidden), (keys, shape.hidden), (shape.hidden, queries)]
    matrices = [*attended, *[(shape.inner, shape.hidden)] * 3]
    layer = sum(rows * columns for rows, columns in matrices)
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.is_tied else 2)
    return ModelSize(
        parameters=embeddings + shape.layers * layer,
        matrices=shape.layers * layer,
        adapted=shape.layers * sum(rows + columns for rows, columns in matrices),
        layers=shape.layers,
        hidden=shape.hidden,
        intermediate=shape.inner,
        cached=2 * shape.layers * keys,
        vocabulary=shape.vocabulary,
        context=4096,
        stored_bytes=2,
        queries=queries,
        has_normed_heads=shape.family == "qwen3",
    )


@cache
def count(shape: Shape, kind: Kind, *, recomputes: bool = False) -> Counted:
    """Counts one pass of a model of this shape."""
    model = _on_meta(shape, kind)
    with FakeTensorMode():
        _make_fake(model)
        if kind.adapter == "full" and kind.number_bytes == 2:
            compute_in(model, torch.bfloat16)
        if recomputes:
            recompute_layers(model)
        return _counted(model.eval(), _batch(), kind, recomputes=recomputes)


def fit(kind: Kind) -> Kept:
    """Returns what each width costs a token, in bytes, by shapes that differ in one of them."""
    kept = {width: _slope(_of_a_layer, BASE, kind, width) for width in STEPS}
    normed = BASE._replace(family="qwen3")
    more = {width: _slope(_of_a_layer, normed, kind, width) - kept[width] for width in ("heads", "kv")}
    wide, narrow = BASE._replace(inner=8192), BASE._replace(inner=64)
    return Kept(
        hidden=_rounded(kept["hidden"]),
        inner=_rounded(kept["inner"]),
        queries=_rounded(kept["heads"]),
        keys=_rounded(kept["kv"]),
        normed_queries=_rounded(more["heads"]),
        normed_keys=_rounded(more["kv"]),
        ends=_rounded(_slope(_outside_of_layers, BASE, kind, "hidden")),
        hidden_beside=_rounded(_slope(_beside, wide, kind, "hidden")),
        inner_beside=_rounded(_slope(_beside, wide, kind, "inner")),
        ends_beside=_rounded(_slope(_beside, narrow, kind, "hidden")),
    )


BASE = Shape("llama", 1024, 2048, 1, 16, 4, 64, 1024, is_tied=True)
STEPS = {"hidden": (512, 512), "inner": (1024, 1024), "heads": (16, 16 * 64), "kv": (4, 4 * 64)}
"""Widths of a shape, by how much a second one has more, and numbers that this is."""


def _slope(measure: Callable[[Shape, Kind], float], shape: Shape, kind: Kind, width: str) -> float:
    step, numbers = STEPS[width]
    there = shape._replace(**{width: getattr(shape, width) + step})
    return (measure(there, kind) - measure(shape, kind)) / numbers


def _of_a_layer(shape: Shape, kind: Kind) -> float:
    """Returns the bytes a token that one layer keeps."""
    one, two = (count(shape._replace(layers=n), kind) for n in (1, 2))
    return (two.kept - two.copies - one.kept + one.copies) / one.tokens


def _outside_of_layers(shape: Shape, kind: Kind) -> float:
    """Returns the bytes a token that are kept beside those of a layer."""
    one = count(shape, kind)
    return (one.kept - one.copies) / one.tokens - _of_a_layer(shape, kind)


def _beside(shape: Shape, kind: Kind) -> float:
    """Returns the bytes a token that the backward pass takes beside what is kept."""
    one = count(shape, kind)
    return (one.peak - one.kept) / one.tokens


def _rounded(slope: float) -> float:
    return round(max(slope, 0.0), 1) + 0.0


def estimated(shape: Shape, kind: Kind, counted: Counted, *, recomputes: bool) -> int:
    """Returns what methods/sizes/activations.py says of the peak of the same pass."""
    size = size_of_shape(shape)
    found = activations.of_pass(size, kind, counted.tokens, recomputes=recomputes)
    return found + activations.of_copies(size, kind, recomputes=recomputes)


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations make inside, while they are alive."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes = {id(tensor.untyped_storage()): 0 for tensor in known}
        self.now = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return True  # there are no numbers; what asks is whether positions are one sequence's
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
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


class _Fused:
    """Attends as a fused kernel does, as far as memory goes."""

    def __init__(self, *, repeats_keys: bool) -> None:
        self._repeats_keys = repeats_keys

    def __call__(self, _: nn.Module, query: Tensor, key: Tensor, value: Tensor, __: float | None) -> Tensor:
        if self._repeats_keys:
            times = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
        operands = (operand.contiguous() for operand in (query, key, value))
        found: Tensor = _FusedNode.apply(*operands)  # type: ignore[no-untyped-call]
        return found.transpose(1, 2)


class _FusedNode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class _Head:
    """Is an output layer, and none that a CPU's kernel takes for its own (passes/token_logprobs.py)."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight = layer.weight
        self._layer = layer

    def __call__(self, states: Tensor) -> Tensor:
        found: Tensor = self._layer(states)
        return found


def _on_meta(shape: Shape, kind: Kind) -> Any:
    config = AutoConfig.for_model(
        shape.family,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv,
        head_dim=shape.width,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.is_tied,
    )
    held = torch.bfloat16 if kind.adapter == "lora" and kind.number_bytes == 2 else torch.float32
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=held, attn_implementation="eager"
        )
    model.config._attn_implementation = attention.NAME
    model.requires_grad_(kind.adapter == "full")
    if kind.adapter == "lora":
        _adapt(model, kind)
    if kind.number_bytes == 2:
        remake_gates(model)
    return model


def _adapt(model: Any, kind: Kind) -> None:
    """Adds an adapter whose layers compute as those of a policy do (model/policy.py)."""
    add_adapter(model, SimpleNamespace(lora_rank=RANK, lora_alpha=2 * RANK, model="m"))  # type: ignore[arg-type]
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and not kind.has_wide_branch:
            train_through_sum(layer, layer.get_base_layer())  # type: ignore[arg-type]


def _make_fake(model: Any) -> None:
    """Gives the model fake weights of the same shapes, on a CPU: autocast knows no meta device."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                made = torch.empty(weight.shape, dtype=weight.dtype)
                setattr(module, name, nn.Parameter(made, requires_grad=weight.requires_grad))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    model.tie_weights()


def _batch() -> Batch:
    completion = Completion((1,) * TOKENS, (0.0,) * TOKENS, "", "length")
    prompts = [Prompt(row, {}, (1,) * TOKENS) for row in range(PROMPTS)]
    packed = [PackedCompletion(prompt, completion) for prompt in prompts for _ in range(SAMPLES)]
    (batch,) = make_batches(packed, sys.maxsize, torch.device("cpu"))
    return batch


def _counted(model: Any, batch: Batch, kind: Kind, *, recomputes: bool) -> Counted:
    attend = _Fused(repeats_keys=kind.layout == "rows")
    head = _Head(model.get_output_embeddings())
    kept = peak = 0
    for _ in range(2):  # the first pass leaves the gradients that the second one adds to
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        live = Live([*model.parameters(), *model.buffers(), *gradients])
        with live:
            states = states_by_modules(model, batch, attend)
            kept = live.now
            logprobs, _ = token_logprobs(states, head, batch.targets, 1.0)
            torch.autograd.backward(logprobs.sum())
            del states, logprobs
        peak = live.peak
    return Counted(batch.n_forwarded, kept, peak, _copies(model, kind, recomputes=recomputes))


def _copies(model: Any, kind: Kind, *, recomputes: bool) -> int:
    if kind.adapter == "lora" or kind.number_bytes != 2 or recomputes:
        return 0
    layers = [module for module in model.model.modules() if isinstance(module, nn.Linear)]
    return sum(2 * layer.weight.numel() for layer in layers)


KINDS = [
    Kind(layout, adapter, n, is_wide)
    for layout in get_args(Layout)
    for adapter in get_args(Adapter)
    for n in (2, 4)
    for is_wide in (False, True)
    if not is_wide or (adapter == "lora" and n == 2)
]
BEGIN, END = "# table: begin\n", "# table: end\n"


def table() -> str:
    """Returns the table of methods/sizes/activations.py, as it is written there."""
    lines = ["TABLE: Mapping[Kind, Kept] = {"]
    for kind in KINDS:
        numbers = ", ".join(f"{number:g}" if number % 1 else f"{number:.1f}" for number in fit(kind))
        wide = ", True" if kind.has_wide_branch else ""
        key = f'Kind("{kind.layout}", "{kind.adapter}", {kind.number_bytes}{wide})'
        lines.append(f"    {key}: Kept({numbers}),")
    return "\n".join([*lines, "}"]) + "\n"


def write(file: Path) -> None:
    """Puts the table into the module."""
    before, rest = file.read_text().split(BEGIN)
    file.write_text(before + BEGIN + table() + END + rest.split(END)[1])


def compare() -> None:
    """Prints estimates of published models beside counts."""
    print(f"| model | adapter | recomputed | tokens | counted | estimated | apart |\n|{'---|' * 7}")
    for name, shape in SHAPES.items():
        for adapter in get_args(Adapter):
            for recomputes in (False, True):
                kind = Kind("packed", adapter, 2)
                counted = count(shape, kind, recomputes=recomputes)
                found = estimated(shape, kind, counted, recomputes=recomputes)
                row = (name, adapter, str(recomputes).lower(), f"{counted.tokens:,}")
                sizes = (f"{counted.peak / 2**30:,.2f} GiB", f"{found / 2**30:,.2f} GiB")
                print("|", " | ".join([*row, *sizes, f"{found / counted.peak - 1:+.0%}"]), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the table anew")
    parser.add_argument("--write", action="store_true", help="write it into methods/sizes/activations.py")
    asked = parser.parse_args()
    if asked.table:
        print(table())
    elif asked.write:
        write(Path(activations.__file__))
    else:
        compare()
