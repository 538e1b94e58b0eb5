"""Sampling by a model's own cache, beside the fast path and beside plain `generate`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tests.tiny_model import byte_tokenizer
from tests.workers.training.families import VOCABULARY, make_family
from workers.training.base.types import Prompt
from workers.training.passes.path import why_general
from workers.training.sampling import decoders, general_decoder
from workers.training.sampling.general_decoder import GeneralDecoder, bytes_kept, way_of
from workers.training.sampling.rollout import SamplerLimits, Sampling, sample_groups
from workers.training.sampling.trials import is_right

LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 8,
    "num_key_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
SINKS = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
    "sliding_window": 16,
}
GENERAL: dict[str, tuple[str, dict[str, Any]]] = {
    "sinks": ("gpt_oss", SINKS),
    "capped": ("gemma2", {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16}),
    "alibi": ("bloom", {"n_layer": 2, "n_head": 4}),
    "convolution": ("lfm2", {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}),
    "linear": ("qwen3_5_text", LINEAR),
    "recurrent": ("mamba", {"state_size": 4}),
    "uncached": ("recurrent_gemma", {"num_hidden_layers": 3}),
    "window": ("mistral", {"num_key_value_heads": 2, "sliding_window": 16}),
}
SAMPLING = Sampling(samples=4, max_tokens=24, temperature=1.0, key=("general",))
PROMPTS = [Prompt(i, {}, tuple(range(2 + i, 2 + i + n))) for i, n in enumerate((9, 1, 30, 9))]


class Sampled:
    """A model as it lies on disk, without end tokens and without text."""

    def __init__(self, model: Any, end_ids: tuple[int, ...] = ()) -> None:
        self.rollout_model = model
        self.tokenizer = byte_tokenizer()
        self.end_ids = end_ids
        self.context = 200
        self.device = torch.device("cpu")


def make_model(name: str) -> Any:
    family, changes = GENERAL[name]
    return make_family(family, "eager" if name != "window" else "cherry", **changes)


def by_whole_rows(model: Any, prompt: Prompt, tokens: tuple[int, ...]) -> torch.Tensor:
    """The log-probability of each token, by one plain forward."""
    ids = torch.tensor([[*prompt.tokens, *tokens]])
    logprobs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), -1)
    places = torch.arange(len(prompt.tokens) - 1, ids.shape[1] - 1)
    return logprobs[places, torch.tensor(tokens)]


@pytest.mark.parametrize("name", GENERAL)
@torch.no_grad()
def test_logprobs_are_those_of_whole_rows(name: str) -> None:
    model = make_model(name)
    assert why_general(model, reach=54) is not None
    for group in sample_groups(Sampled(model), PROMPTS, SAMPLING):
        for completion in group.completions:
            expected = by_whole_rows(model, group.prompt, completion.tokens)
            assert (torch.tensor(completion.logprobs) - expected).abs().max() < 2e-5


def test_each_model_gets_the_fastest_way_that_is_right() -> None:
    expected = {"recurrent": "equal lengths", "uncached": "whole sequences"}
    assert {name: way_of(make_model(name)) for name in GENERAL} == {
        name: expected.get(name, "padded") for name in GENERAL
    }


def test_a_cache_that_answers_wrongly_is_found_out() -> None:
    model = make_model("alibi")

    def prefill(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return GeneralDecoder(model, 2, 4, 2, "padded").prefill(0, ids, lengths)

    assert not is_right(model, prefill, lambda active, _: torch.zeros(len(active.group), VOCABULARY))


def tokens_of(model: Any, **changes: Any) -> dict[int, list[tuple[int, ...]]]:
    ends = tuple(range(0, VOCABULARY, 12))
    how = {"sampling": SAMPLING} | changes
    groups = sample_groups(Sampled(model, ends), PROMPTS, **how)
    return {group.prompt.row: [each.tokens for each in group.completions] for group in groups}


@pytest.mark.parametrize("way", ["padded", "equal lengths", "whole sequences"])
def test_all_ways_and_the_fast_path_draw_the_same_tokens(way: general_decoder.Way) -> None:
    model = make_family("llama", num_key_value_heads=2)
    expected = tokens_of(model)
    lengths = {len(tokens) for group in expected.values() for tokens in group}
    assert len(lengths) > 4  # rows leave one after the other
    assert why_general(model) is None
    setattr(model, general_decoder.WAY, way)
    assert tokens_of(model, make_decoder=decoders.general) == expected
    few = SamplerLimits(slots=8)
    assert tokens_of(model, make_decoder=decoders.general, limits=few) == expected


def test_what_is_sampled_beside_a_completion_does_not_change_it() -> None:
    model = make_model("recurrent")
    together = tokens_of(model)
    two = tokens_of(model, sampling=dataclasses.replace(SAMPLING, samples=2))
    assert {row: group[:2] for row, group in together.items()} == two


def test_memory_is_counted_by_what_the_cache_holds() -> None:
    assert bytes_kept(make_family("llama", num_key_value_heads=2)) == (0, 2 * 2 * 2 * 8 * 4)
    always, each = bytes_kept(make_model("recurrent"))
    assert (always > 0, each) == (True, 0)
