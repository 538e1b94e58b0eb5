"""What a response format costs: `python -m benchmarks.response_format`.

Sampling and the trainer's masks with cherry-nano, then masks alone over a vocabulary as large as those of
current models (made-up tokens: only their number and lengths matter). CPU time, one thread.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.engine.models import NANO
from methods.response_format import grammar_of
from methods.rows import read_rows
from methods.train_config import TrainConfig
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.grammar import Grammar, compile_grammar
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.sampling.rollout import Sampling, sample_groups

SCHEMA = {
    "type": "object",
    "properties": {
        "university": {"type": "string"},
        "programming_languages": {"type": "array", "items": {"type": "string"}},
        "city": {"type": "string"},
        "state": {"type": "string"},
    },
    "required": ["university", "programming_languages", "city", "state"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "profile", "schema": SCHEMA}}
ROUNDS = 5
LARGE = 151_936
END = "<end>"
ANSWER = (
    '{"university": "Rensselaer", "programming_languages": ["C#", "Perl"], "city": "Bangor", "state": "ME"}'
)


def main() -> None:
    torch.set_num_threads(1)
    policy, prompts = _nano()
    made = time.process_time()
    grammar = compile_grammar(FORMAT, policy.tokenizer, policy.rollout_model, policy.end_ids)
    assert grammar is not None
    print(f"nano: grammar compiled in {1e3 * (time.process_time() - made):.0f} ms")
    ratios: list[float] = []
    groups: list[Group] = []
    for round_ in range(ROUNDS):
        free, _ = _sampled(policy, prompts, round_, None)
        held, groups = _sampled(policy, prompts, round_, grammar)
        ratios.append(held / free)
    print(f"nano: sampling with / without: {_spread(ratios)} (CPU time for each token)")
    tokens = [completion.tokens for group in groups for completion in group.completions]
    _report("nano", "masks again for the trainer", grammar, tokens)
    _large()


def _nano() -> tuple[Policy, list[Prompt]]:
    config = TrainConfig(
        model="cherry-nano",
        model_path=str(NANO),
        seed=1,
        n_epochs=1,
        prompts_per_step=8,
        group_size=8,
        max_completion_tokens=96,
        learning_rate=1e-3,
        eval_interval=1,
        device="cpu",
    )
    policy = Policy.load(config)
    rows = read_rows(Path(__file__).parents[1] / "examples/people/train.jsonl")[:8]
    return policy, make_prompts(rows, policy.tokenizer, policy.context, "training")


def _sampled(
    policy: Policy, prompts: Sequence[Prompt], round_: int, grammar: Grammar | None
) -> tuple[float, list[Group]]:
    """CPU seconds for each token, and what was sampled."""
    sampling = Sampling(8, 96, 1.0, ("bench", round_), grammar=grammar)
    seconds, groups = _timed(lambda: sample_groups(policy, prompts, sampling))
    return seconds / sum(len(c.tokens) for group in groups for c in group.completions), groups


def _large() -> None:
    """The same over a large vocabulary, for one completion at a time and for 32 side by side."""
    tokenizer = _made_up_tokenizer(LARGE)
    made = time.process_time()
    grammar = Grammar(grammar_of(FORMAT) or "", tokenizer, LARGE, [tokenizer.eos_token_id])
    print(f"{LARGE} tokens: grammar compiled in {1e3 * (time.process_time() - made):.0f} ms")
    characters = [tokenizer.convert_tokens_to_ids("Ġ" if c == " " else c) for c in ANSWER]
    answer = (*characters, tokenizer.eos_token_id)
    _report(f"{LARGE} tokens", "masks, first time", grammar, [answer])
    _report(f"{LARGE} tokens", "masks, from then on", grammar, [answer] * 20)
    matchers = grammar.matchers()
    logits = torch.zeros(32, LARGE)
    matchers.apply(logits, range(32))
    seconds, _ = _timed(lambda: [matchers.apply(logits, range(32)) for _ in range(10)])
    print(f"{LARGE} tokens: mask and apply for 32 rows: {1e3 * seconds / 10:.1f} ms a step")


def _made_up_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Bytes, and words of 2 to 10 letters with and without a space before them."""
    draw = random.Random(1)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words: dict[str, int] = {byte: i for i, byte in enumerate(alphabet)}
    while len(words) < size - 1:
        letters = "".join(draw.choices("etaoinshrdlucmfwypvbgkjqxz", k=draw.randint(2, 10)))
        words.setdefault(draw.choice(("", "Ġ")) + letters, len(words))
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)  # type: ignore[no-untyped-call]
    return made


def _report(name: str, what: str, grammar: Grammar, tokens: Sequence[tuple[int, ...]]) -> None:
    completions = [Completion(each, (0.0,) * len(each), text="", finish_reason="stop") for each in tokens]
    seconds, allowed = _timed(lambda: grammar.allowed(completions, torch.device("cpu")))
    each = 1e6 * seconds / len(allowed.which)
    print(f"{name}: {what}: {each:.0f} us a token ({len(allowed.masks)} different masks)")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


if __name__ == "__main__":
    main()
