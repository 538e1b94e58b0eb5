"""What memory a model takes: to be trained by a method, and to be served. The one place of this arithmetic.

What a run holds for its whole length follows from sizes (weights, sampling copy, gradient, moments) and is
certain. The rest is estimated from the shapes of a step; docs/models.md holds both to measured peaks.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeVar, get_args

from methods.hyperparameters import Method
from methods.model_files.precision import QUANTISED, BasePrecision
from methods.sizes import activations, sampler
from methods.sizes.activations import Adapter, Kind
from methods.sizes.model_size import ModelSize
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig

Device = Literal["cpu", "cuda"]
T = TypeVar("T")

FLOAT32, HALF = 4, 2
"""Bytes of a number."""
QUANTISED_BYTES = {"int8": 1.0, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes of a number of a quantised matrix; in nf4 with a byte for each 64 and four for each 256 of these."""
MOMENTS = 2
"""Numbers that AdamW keeps for each trained one."""
LIBRARIES = {"cpu": 700 << 20, "cuda": 700 << 20}
"""What a training process takes before it has a model: on the machine torch, transformers, PEFT and compiled
kernels, on a GPU the driver's context. Measured with the built-in model (cpu); chosen (cuda).
"""
CACHE_BYTES = 1 << 30
"""The most that the sampler gives to keys and values on a CPU (workers/training/sampling/rollout.py)."""
SLOTS = 256
"""Completions that are sampled side by side at most on a CPU (the same module)."""
SERVED_BYTES = {"cpu": CACHE_BYTES, "cuda": 16 << 30}
"""The most keys and values for which memory of serving is shown. On a GPU a sampler that serves takes what
there is, up to its share (sampling/graphed/shapes.py): chosen.
"""
LEAN_BYTES = 1 << 30
"""The largest fp32 weights of which a CPU's sampler keeps a second copy (sampling/lean_decoder.py)."""
LOGIT_BYTES = 3 * (128 << 20)
"""Logits of a pass and what is made of them, in pieces of 128 MiB (passes/token_logprobs.py)."""
STATES_KEPT, INNER_KEPT = 6, 2
"""Numbers that a layer keeps of each token for its backward pass, in widths of model and MLP. By the
measured peaks of SmolLM2-135M and the built-in model (docs/models.md).
"""
USUAL_RANK, USUAL_GROUPS, USUAL_SAMPLES, USUAL_TOKENS = 16, 8, 8, 512
"""A step for which memory is shown: adapter and numbers of "auto", and lengths that were chosen."""
USUAL_STREAMS = 64
"""Sequences of the whole context for which memory of serving is shown. Chosen."""
PASS_TOKENS = 16_384
"""The largest pass that is chosen (`micro_batch_tokens` "auto"): always on a CPU, on a GPU if it fits."""
SENSIBLE_TOKENS = 4_096
"""Tokens of a pass on a GPU below which layers are run again instead (`gradient_checkpointing` "auto"), and
for which memory is shown. Chosen, not measured: a product of so many rows keeps a GPU busy.
"""


class Use(NamedTuple):
    """One thing that takes memory. `is_certain` says that it takes so much for the whole run."""

    what: str
    bytes: int
    is_certain: bool = False


class Need(NamedTuple):
    """What a run takes, on each device or, on CPUs, on the machine."""

    uses: tuple[Use, ...]

    @property
    def certain(self) -> int:
        """Returns what no run of this kind does without, in bytes."""
        return sum(use.bytes for use in self.uses if use.is_certain)

    @property
    def total(self) -> int:
        """Returns what it is expected to take at its peak, in bytes."""
        return sum(use.bytes for use in self.uses)


class Run(NamedTuple):
    """Holds the numbers of a run that its memory follows from.

    Attributes:
        number_bytes: of a number in the arithmetic.
        groups: prompts of a step; each has `samples` completions.
        pass_tokens: most tokens in one forward and backward pass; None where free memory decides.
        recomputes: whether layers are run again in the backward pass; None where free memory decides.
        has_copy: whether what samples is a copy of its own where every weight is trained.
        precision: of the frozen base's matrices; of "auto" and "bf16" they are in the arithmetic's dtype.
        is_of_rows: whether a pass holds a row for each example, and its logits whole on a CPU.
        keeps_good: whether the last good state is kept in memory for the guard.
        processes: that share one machine's memory; on GPUs each has its own.
        free: bytes of a GPU beside the model before the first update, of which sampling has a share; None
            where that is not known.
    """

    adapter: Adapter
    rank: int
    device: Device
    number_bytes: int
    groups: int
    samples: int
    prompt_tokens: int
    answer_tokens: int
    pass_tokens: int | None = PASS_TOKENS
    recomputes: bool | None = False
    has_copy: bool = False
    keeps_good: bool = False
    is_of_rows: bool = False
    processes: int = 1
    is_sharded: bool = False
    precision: BasePrecision = "auto"
    free: int | None = None

    @property
    def step_tokens(self) -> int:
        """Returns the tokens of a step, as passes read them."""
        if self.is_of_rows:
            return self.groups * self.samples * self.prompt_tokens
        return self.groups * (self.prompt_tokens + self.samples * self.answer_tokens)

    @property
    def longest(self) -> int:
        """Returns the tokens of the longest sequence."""
        return self.prompt_tokens + self.answer_tokens

    @property
    def kind(self) -> Kind:
        """Returns what its passes are like."""
        is_wide = self.adapter == "lora" and self.number_bytes == HALF and self.is_sharded
        return Kind("rows" if self.is_of_rows else "packed", self.adapter, self.number_bytes, is_wide)


def run_of(config: TrainConfig | TuneConfig, size: ModelSize, longest: int, device: Device) -> Run:
    """Returns the numbers of a resolved run. `longest` is its longest prompt, or example, in tokens."""
    shared: dict[str, Any] = {
        "adapter": config.adapter,
        "rank": config.lora_rank,
        "device": device,
        "number_bytes": bytes_beside(config.base_precision, config.dtype, size, device),
        "precision": config.base_precision,
        "prompt_tokens": longest,
        "pass_tokens": _asked(config.micro_batch_tokens, PASS_TOKENS, device),
        "recomputes": _asked(config.gradient_checkpointing, False, device),
    }
    if isinstance(config, TuneConfig):
        pair = 2 if config.method == "dpo" else 1
        return Run(groups=config.batch_size, samples=pair, answer_tokens=0, is_of_rows=True, **shared)
    return Run(
        groups=config.prompts_per_step,
        samples=config.group_size,
        answer_tokens=config.max_completion_tokens,
        has_copy=config.async_steps > 0,
        keeps_good=config.guard == "act",
        processes=config.processes,
        is_sharded=config.sharding == "fsdp",
        **shared,
    )


def _asked(asked: T | Literal["auto"], on_cpu: T, device: Device) -> T | None:
    """Returns what a config asks for, None for "auto" on a GPU."""
    if asked != "auto":
        return asked
    return on_cpu if device == "cpu" else None


def usual_run(size: ModelSize, method: Method, adapter: Adapter, device: Device) -> Run:
    """Returns a run like those of "auto", with prompts and answers of `USUAL_TOKENS` each."""
    tokens = min(USUAL_TOKENS, size.context // 2)
    shared: dict[str, Any] = {
        "adapter": adapter,
        "rank": USUAL_RANK,
        "device": device,
        "number_bytes": number_bytes("auto", size, device),
        "pass_tokens": PASS_TOKENS if device == "cpu" else SENSIBLE_TOKENS,
        "groups": USUAL_GROUPS,
    }
    if method == "reinforcement":
        return Run(
            samples=USUAL_SAMPLES, prompt_tokens=tokens, answer_tokens=tokens, keeps_good=True, **shared
        )
    examples: dict[str, Any] = {
        "samples": 2 if method == "dpo" else 1,
        "prompt_tokens": 2 * tokens,
        "answer_tokens": 0,
    }
    return Run(**shared, **examples, is_of_rows=True)


def by_use(size: ModelSize, device: Device) -> dict[str, Need]:
    """Returns what a model takes on a device: to be trained, by method and adapter, and to be served."""
    found = {
        f"{method} {adapter}": of_training(size, usual_run(size, method, adapter, device))
        for method in get_args(Method)
        for adapter in get_args(Adapter)
    }
    for precision in QUANTISED:
        each = bytes_beside(precision, "auto", size, device)
        for method in get_args(Method):
            run = usual_run(size, method, "lora", device)._replace(precision=precision, number_bytes=each)
            found[f"{method} lora {precision}"] = of_training(size, run)
    return found | {"serving": of_serving(size, device, USUAL_STREAMS)}


def number_bytes(dtype: str, size: ModelSize, device: Device) -> int:
    """Returns the bytes of a number in the arithmetic of a run."""
    if dtype == "auto":
        return size.stored_bytes if device == "cuda" and size.stored_bytes == HALF else FLOAT32
    return HALF if dtype == "bfloat16" else FLOAT32


def bytes_beside(precision: BasePrecision, dtype: str, size: ModelSize, device: Device) -> int:
    """Returns the bytes of a number in the arithmetic of a run whose base has this precision."""
    if precision == "auto" or (dtype != "auto" and precision != "bf16"):
        return number_bytes(dtype, size, device)
    return HALF if precision == "bf16" or device == "cuda" else FLOAT32


def of_training(size: ModelSize, run: Run) -> Need:
    """Returns what a training takes: on one GPU, or on CPUs in all its processes together."""
    uses = [*_weights(size, run), *_estimated(size, run)]
    times = run.processes if run.device == "cpu" else 1
    return Need(tuple(use._replace(bytes=use.bytes * times) for use in uses))


def of_serving(size: ModelSize, device: Device, streams: int = SLOTS) -> Need:
    """Returns what serving a model takes, with so many sequences of its whole context."""
    each = number_bytes("auto", size, device)
    cache = min(SERVED_BYTES[device], streams * size.context * size.cached * each)
    return Need(
        (
            Use("weights", size.parameters * each, is_certain=True),
            *_second_copy(size, device),
            Use("keys and values", cache),
            Use("libraries", LIBRARIES[device]),
        )
    )


def _weights(size: ModelSize, run: Run) -> list[Use]:
    shards = run.processes if run.is_sharded else 1
    if run.adapter == "lora":
        trained = run.rank * size.adapted * FLOAT32
        adapter = Use("adapter, its gradient and moments", trained * (2 + MOMENTS), is_certain=True)
        if run.precision in QUANTISED:
            return [*_quantised(size, run), adapter]
        copied = size.parameters if run.is_sharded else size.matrices  # a sharded base shares nothing
        return [
            Use("weights of the base", size.parameters * run.number_bytes // shards, is_certain=True),
            Use("sampling copy of what LoRA adapts", copied * run.number_bytes, is_certain=True),
            adapter,
        ]
    trained = size.parameters * FLOAT32
    copied = size.parameters * run.number_bytes
    uses = [
        Use("weights in fp32", trained // shards, is_certain=True),
        Use("gradient and moments in fp32", trained * (1 + MOMENTS) // shards, is_certain=True),
        Use("reference", copied // shards, is_certain=True),
    ]
    if run.number_bytes != FLOAT32 or run.has_copy or run.is_sharded:
        uses.append(Use("sampling copy", copied, is_certain=True))
    return uses


def _quantised(size: ModelSize, run: Run) -> list[Use]:
    """Returns what a quantised base takes: trainer, reference and sampler share one.

    A matrix that is multiplied is there in the arithmetic's dtype. One that is merged, to be measured as it
    is delivered, takes up to 10 bytes a number, but then no pass has activations, which take more.
    """
    rest = (size.parameters - size.matrices) * run.number_bytes
    packed = int(size.matrices * QUANTISED_BYTES[run.precision])
    widest = size.hidden * max(size.intermediate, size.queries or size.hidden)
    return [
        Use(f"matrices of the base in {run.precision}", packed, is_certain=True),
        Use("embeddings, output layer and norms", rest, is_certain=True),
        Use("a matrix while it is multiplied", widest * run.number_bytes, is_certain=True),
        Use("adapter as the sampler adds it", run.rank * size.adapted * FLOAT32, is_certain=True),
    ]


def _estimated(size: ModelSize, run: Run) -> list[Use]:
    """Returns what is taken for a while, or as much as the step's tokens need."""
    uses = [
        *_second_copy(size, run.device, run.precision),
        Use("keys and values", cache(size, run)),
        *of_pass(size, run),
        Use("libraries", LIBRARIES[run.device]),
    ]
    kept = size.parameters if run.adapter == "full" else run.rank * size.adapted
    if run.keeps_good and run.device == "cpu":
        uses.append(Use("last good state", kept * FLOAT32 * (1 + MOMENTS)))
    return uses


def _second_copy(size: ModelSize, device: Device, precision: BasePrecision = "auto") -> list[Use]:
    """Returns the weights as a CPU's sampler lays them out, where they are few enough for that."""
    if precision in QUANTISED:  # the lean decoder reads plain weights
        return []
    copy = size.parameters * FLOAT32
    return [Use("weights laid out for sampling", copy)] if device == "cpu" and copy <= LEAN_BYTES else []


def cache(size: ModelSize, run: Run) -> int:
    """Returns keys and values of the completions that are sampled side by side; on a GPU logits with them."""
    if run.device == "cuda":
        return _cache_on_gpu(size, run)
    groups = min(run.groups, max(1, SLOTS // run.samples))
    per_group = min(run.samples, 2) * run.prompt_tokens + run.samples * run.answer_tokens
    return min(CACHE_BYTES, groups * per_group * size.cached * run.number_bytes)


def _cache_on_gpu(size: ModelSize, run: Run) -> int:
    """Returns what the sampler of a GPU takes for a step, whose rows it makes fewer where memory is short."""
    groups = min(run.groups, max(1, sampler.MOST_SLOTS // run.samples))
    rows = groups * run.samples
    slots_of_prompts = min(run.groups, min(run.samples, 2) * groups)
    needs = sampler.Needs(rows, slots_of_prompts, run.samples, run.prompt_tokens, max(1, run.answer_tokens))
    costs = sampler.Costs(size.cached * run.number_bytes, size.vocabulary * sampler.LOGIT_BYTES)
    budget = None if run.free is None else int(sampler.CACHE_SHARE * run.free)
    return costs.of(sampler.plan(needs, costs, budget))


def of_pass(size: ModelSize, run: Run) -> list[Use]:
    """Returns what the largest pass takes: what its backward pass needs, its logits, copies of weights."""
    tokens = min(run.pass_tokens or SENSIBLE_TOKENS, run.step_tokens)
    if run.device == "cpu":
        return [Use("activations of a pass", _on_cpu(size, run, tokens))]
    recomputes = bool(run.recomputes)
    taken = activations.of_pass(size, run.kind, tokens, recomputes=recomputes)
    uses = [Use("activations of a pass", taken)]
    if run.is_sharded:
        layer = size.matrices // size.layers
        at_once = 2 * layer + size.parameters - size.matrices  # one is used while the next one comes
        return [*uses, Use("gathered weights of a pass", at_once * run.number_bytes)]
    copies = activations.of_copies(size, run.kind, recomputes=recomputes)
    return [*uses, Use("weights as a pass computes with them", copies)] if copies else uses


def _on_cpu(size: ModelSize, run: Run, tokens: int) -> int:
    """Returns what a pass takes on a CPU, where compiled kernels keep less (docs/models.md)."""
    layer = STATES_KEPT * size.hidden + INNER_KEPT * size.intermediate
    kept = layer + size.layers * size.hidden if run.recomputes else size.layers * layer
    logits = tokens * size.vocabulary * FLOAT32
    return tokens * kept * run.number_bytes + (2 * logits if run.is_of_rows else min(LOGIT_BYTES, logits))
