"""Train cherry-nano from nothing: `python -m scripts.nano.train --out FOLDER`.

Tokenizer, then the phases of `data.PHASES`, then the shipped files. Seeded throughout. The learning rate
warms up, stays flat, and falls to a twentieth over the last phase. A checkpoint is written every 200
steps and at the end of each phase; `--resume FILE` goes on from one.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Protocol

import torch
import torch.distributed
import torch.nn.functional as F
from torch.multiprocessing.spawn import spawn
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from scripts.nano import data
from scripts.nano.packing import (
    ROW_TOKENS,
    Batch,
    Encoded,
    Encoder,
    encoded_conversations,
    make_batch,
    packed_rows,
)
from scripts.nano.tokenizer import END, END_OF_TEXT, PAD, train_tokenizer

ROWS_PER_STEP = 20
PEAK_LR = 3e-3
WARMUP_STEPS = 100
FINAL_LR_FRACTION = 0.05
PROMPT_WEIGHT = 0.1
CHECKPOINT_STEPS = 200


class Phase(Protocol):
    """One stretch of training."""

    name: str
    tokens: int


@dataclass(frozen=True)
class Recipe:
    """What a built-in model is made of. Functions are module-level ones, since processes are handed them."""

    shape: Mapping[str, int]
    tokenizer: Callable[[int], Any]
    phases: Sequence[Any]
    conversations: Callable[[Random, Any, Any], Iterator[Encoded]]
    """(random numbers, phase, tokenizer) to the endless stream of the phase."""
    row_tokens: int
    rows_per_step: int

    @property
    def step_tokens(self) -> int:
        return self.row_tokens * self.rows_per_step


def _conversations(rng: Random, phase: data.Phase, tokenizer: Any) -> Iterator[Encoded]:
    return encoded_conversations(rng, phase, Encoder(tokenizer, PROMPT_WEIGHT))


NANO = Recipe(
    shape={"num_hidden_layers": 5, "max_position_embeddings": 1024},
    tokenizer=train_tokenizer,
    phases=data.PHASES,
    conversations=_conversations,
    row_tokens=ROW_TOKENS,
    rows_per_step=ROWS_PER_STEP,
)


def build_model(tokenizer: Any, shape: Mapping[str, int]) -> LlamaForCausalLM:
    """A Llama, 256 wide."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        **shape,
    )
    return LlamaForCausalLM(config)


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outer = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(inner, lr=PEAK_LR, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def answer_loss(model: Any, batch: Batch, total_weight: float) -> torch.Tensor:
    """Weighted cross-entropy of the next token, as a share of `total_weight`."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=batch.ids,
            position_ids=batch.positions,
            attention_mask=batch.attention_mask,
            use_cache=False,
        ).logits
    targets, weights = batch.ids[:, 1:].reshape(-1), batch.weights[:, 1:].reshape(-1)
    losses = F.cross_entropy(logits[:, :-1].float().reshape(-1, logits.shape[-1]), targets, reduction="none")
    return (losses * weights).sum() / total_weight


def learning_rate(step: int, phase_progress: float, is_last: bool) -> float:
    """Warm up, stay, and in the last phase fall linearly."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    fall = 1.0 - (1.0 - FINAL_LR_FRACTION) * phase_progress if is_last else 1.0
    return PEAK_LR * warm * fall


@dataclass(frozen=True)
class Crew:
    """The processes that share one training: each computes the gradient of its part of every batch.

    One thread each and one meeting per step is much steadier on a busy machine than several threads that
    meet in every operation. Up to rounding the result does not depend on the number of processes.
    """

    rank: int
    size: int

    def part(self, rows: list[list[Encoded]]) -> list[list[Encoded]]:
        return rows[self.rank :: self.size]

    def sum(self, tensor: torch.Tensor) -> None:
        if self.size > 1:
            torch.distributed.all_reduce(tensor)


class Training:
    """Model, optimizers and counters of one run."""

    def __init__(self, recipe: Recipe, tokenizer: Any, out: Path, seed: int, crew: Crew) -> None:
        torch.manual_seed(seed)
        self.recipe, self.tokenizer, self.out, self.seed, self.crew = recipe, tokenizer, out, seed, crew
        self.model = build_model(tokenizer, recipe.shape)
        self.optimizers = build_optimizers(self.model)
        self.step = 0
        self._forward = torch.compile(self.model, dynamic=False)

    def run(self) -> None:
        """All phases, from wherever the step counter stands."""
        first_step = 0
        for phase in self.recipe.phases:
            steps = phase.tokens // self.recipe.step_tokens
            if self.step < first_step + steps:
                self._run_phase(phase, first_step, steps)
            first_step += steps

    def _run_phase(self, phase: Phase, first_step: int, steps: int) -> None:
        recipe = self.recipe
        stream = recipe.conversations(Random(f"{self.seed}/{phase.name}"), phase, self.tokenizer)
        rows = packed_rows(stream, recipe.row_tokens)
        for _ in range(recipe.rows_per_step * (self.step - first_step)):
            next(rows)
        began, losses = time.monotonic(), list[float]()
        while (index := self.step - first_step) < steps:
            lr = learning_rate(self.step, index / steps, is_last=phase is recipe.phases[-1])
            losses.append(self._update([next(rows) for _ in range(recipe.rows_per_step)], lr))
            if len(losses) == 50:
                rate = 50 * recipe.step_tokens / (time.monotonic() - began)
                self._say(f"{phase.name} {index + 1}/{steps} loss {fmean(losses):.4f} {rate:.0f} tokens/s")
                began, losses = time.monotonic(), []
            if self.step % CHECKPOINT_STEPS == 0:
                self.save_state("latest.pt")
        self.save_state(f"{phase.name}.pt")

    def _update(self, rows: list[list[Encoded]], lr: float) -> float:
        total_weight = sum(weight for row in rows for encoded in row for weight in encoded.weights)
        batch = make_batch(self.crew.part(rows), self.tokenizer.pad_token_id, self.recipe.row_tokens)
        loss = answer_loss(self._forward, batch, total_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return float(loss.detach()) * self.crew.size

    def _share_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.view(-1) for gradient in gradients])
        self.crew.sum(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
        for gradient, total in zip(gradients, parts, strict=True):
            gradient.copy_(total.view_as(gradient))

    def _say(self, line: str) -> None:
        if self.crew.rank == 0:
            print(line, flush=True)

    def save_state(self, name: str) -> None:
        """Everything that a later start needs."""
        if self.crew.rank:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        torch.save(state, self.out / f"{name}.tmp")
        (self.out / f"{name}.tmp").rename(self.out / name)

    def load_state(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]


def export(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Write the files that ship: bfloat16 weights, tokenizer, template, generation settings."""
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (END, END_OF_TEXT)]
    pad = tokenizer.convert_tokens_to_ids(PAD)
    copy: Any = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy = copy.to(torch.bfloat16)
    settings: Any = GenerationConfig
    copy.generation_config = settings(eos_token_id=ends, pad_token_id=pad)
    copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def begun_tokenizer(recipe: Recipe, arguments: argparse.Namespace) -> Any:
    """The tokenizer that a run was begun with, or a new one; it is kept with the checkpoints."""
    folder = arguments.out / "tokenizer"
    if arguments.resume and folder.is_dir():
        return AutoTokenizer.from_pretrained(folder)
    tokenizer = recipe.tokenizer(arguments.seed)
    tokenizer.save_pretrained(folder)
    return tokenizer


def work(rank: int, arguments: argparse.Namespace, recipe: Recipe) -> None:
    """One process of the crew."""
    torch.set_num_threads(1)
    crew = Crew(rank, arguments.processes)
    if crew.size > 1:
        meeting_point = f"file://{arguments.out.resolve()}/crew"
        torch.distributed.init_process_group("gloo", meeting_point, rank=rank, world_size=crew.size)
    began = time.monotonic()
    tokenizer = begun_tokenizer(recipe, arguments)
    training = Training(recipe, tokenizer, arguments.out, arguments.seed, crew)
    if arguments.resume:
        training.load_state(arguments.resume)
    training.run()
    if rank == 0:
        export(training.model, tokenizer, arguments.out / "model")
        print(json.dumps({"steps": training.step, "seconds": round(time.monotonic() - began)}))


def main(recipe: Recipe = NANO, description: str | None = __doc__) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the model")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "crew").unlink(missing_ok=True)
    spawn(work, (arguments, recipe), nprocs=arguments.processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
