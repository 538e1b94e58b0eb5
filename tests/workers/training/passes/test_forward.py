"""The packed forward against one plain row per completion: same numbers, whatever the packing."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.properties import examples
from tests.workers.training.families import PACKED, VOCABULARY, add_lora, make_family
from tests.workers.training.support import group_of
from workers.training.base.types import Prompt
from workers.training.model import attention
from workers.training.passes import forward, packed_attention
from workers.training.passes.forward import (
    PackedCompletion,
    completion_states,
    make_batches,
    per_completion,
    token_logprobs,
    why_general,
)

CPU = torch.device("cpu")
TEMPERATURE = 0.7


def make_completions(seed=0, n_prompts=3, group=4, longest_prompt=20, longest=9):
    """Prompts and completions of very different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def length(most):
        return int(torch.randint(1, most + 1, (), generator=generator))

    groups = [(length(longest_prompt), [length(longest) for _ in range(group)]) for _ in range(n_prompts)]
    return completions_of(groups, 256, generator)


def completions_of(groups, vocabulary, generator):
    """Random tokens for groups given as (tokens of the prompt, tokens of each completion)."""

    def tokens(n):
        return tuple(torch.randint(0, vocabulary, (n,), generator=generator).tolist())

    packed = []
    for row, (n, lengths) in enumerate(groups):
        prompt = Prompt(row, {}, tokens(n))
        group = group_of(prompt, *[tokens(length) for length in lengths])
        packed += [PackedCompletion(prompt, completion) for completion in group.completions]
    return packed


def plain_logprobs(model, one, temperature=1.0):
    """One row, one ordinary forward, no padding, no cache."""
    prompt, completion = list(one.prompt.tokens), list(one.completion.tokens)
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits.float() / temperature, -1)
    return logprobs.gather(-1, torch.tensor(completion)[:, None])[:, 0]


def shared_logprobs(model, packed, budget=10**6, temperature=1.0):
    """By completion, in the order of `packed`."""
    found = {}
    for batch in make_batches(packed, budget, CPU):
        states = completion_states(model, batch)
        logprobs, _ = token_logprobs(states, model.get_output_embeddings(), batch.targets, temperature)
        found |= dict(zip(batch.indices, per_completion(logprobs, batch), strict=True))
    return [found[i] for i in range(len(packed))]


def gradient(model, losses):
    """Of a loss in which every token has another weight, over all trained weights."""
    loss = sum(
        (values * torch.linspace(-1, 2, len(values))).sum() * (i + 1) for i, values in enumerate(losses)
    )
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss / 10, trained, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def assert_same(found, expected, tolerance=1e-5):
    """Equal up to rounding, in proportion to the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * (1 + expected.abs().max())


@cache
def model_of(family, kind):
    model = make_family(family)
    return add_lora(model) if kind == "lora" else model


groups_of_answers = st.lists(
    st.tuples(st.integers(1, 24), st.lists(st.integers(1, 12), min_size=1, max_size=5)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("family", PACKED)
@settings(
    examples(4),
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
@given(groups=groups_of_answers, budget=st.integers(1, 80), rows=st.integers(1, 30), seed=st.integers(0, 99))
def test_packed_padded_micro_batched_and_plain_rows_agree(family, kind, groups, budget, rows, seed):
    """Logprobs and gradient, for every way of running the same completions."""
    model = model_of(family, kind)
    packed = completions_of(groups, VOCABULARY, torch.Generator().manual_seed(seed))
    plain = [plain_logprobs(model, one, TEMPERATURE) for one in packed]
    expected = gradient(model, plain)
    assert why_general(model) is None
    with pytest.MonkeyPatch.context() as patch:
        ways = {"packed": shared_logprobs(model, packed, temperature=TEMPERATURE)}
        ways["micro-batched"] = shared_logprobs(model, packed, budget, TEMPERATURE)
        patch.setitem(packed_attention.ROWS, "cpu", rows)
        patch.setattr(
            packed_attention.PackedAttention, "_by_prefix", packed_attention.PackedAttention._by_tile
        )
        ways["tiles"] = shared_logprobs(model, packed, temperature=TEMPERATURE)
        patch.setattr(forward, "why_general", lambda *_: "for this test")
        ways["padded"] = shared_logprobs(model, packed, temperature=TEMPERATURE)
    for found in ways.values():
        assert_same(torch.cat(found), torch.cat(plain))
        assert_same(gradient(model, found), expected)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_policies_run_packed_and_give_the_gradient_of_plain_rows(kind, request):
    policy = request.getfixturevalue(f"{kind}_policy")
    packed = make_completions()
    shared = shared_logprobs(policy.model, packed, temperature=TEMPERATURE)
    plain = [plain_logprobs(policy.model, one, TEMPERATURE) for one in packed]
    assert why_general(policy.model) is None
    assert_same(torch.cat(shared), torch.cat(plain))
    assert_same(gradient(policy.model, shared), gradient(policy.model, plain))


def test_a_neighbour_in_the_batch_changes_nothing(lora_policy):
    packed = make_completions(seed=3, n_prompts=1)
    alone = shared_logprobs(lora_policy.model, packed)
    beside = make_completions(seed=4, n_prompts=1, longest_prompt=100, longest=40)
    together = shared_logprobs(lora_policy.model, packed + beside)[: len(packed)]
    assert_same(torch.cat(together), torch.cat(alone))


def test_every_token_goes_through_the_model_once_and_no_padding(lora_policy, monkeypatch):
    packed = make_completions(seed=5)
    (batch,) = make_batches(packed, 10**6, CPU)
    why_general(lora_policy.model)
    decoder = lora_policy.model.get_decoder()
    seen = []
    hook = decoder.layers[0].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    completion_states(lora_policy.model, batch)
    hook.remove()
    prompts = {one.prompt.row: len(one.prompt.tokens) for one in packed}
    read = sum(len(one.completion.tokens) - 1 for one in packed)
    assert [shape[:2].numel() for shape in seen] == [sum(prompts.values()) + read]
    assert batch.n_forwarded == sum(prompts.values()) + read


SINKS = {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
UNPACKED = {
    "eager": ("llama", {"implementation": "eager"}, "more than that of the fast path"),
    "alibi": (
        "bloom",
        {"implementation": "eager", "n_layer": 2, "n_head": 4},
        "does not let its attention be replaced",
    ),
    "convolution": (
        "lfm2",
        {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
        "has layers of conv",
    ),
}


@pytest.mark.parametrize(("family", "changes", "reason"), UNPACKED.values(), ids=UNPACKED)
def test_what_cannot_be_packed_is_told_and_takes_the_general_path(family, changes, reason, caplog):
    model = make_family(family, **changes)
    assert reason in why_general(model)
    assert "path_is_general" in caplog.messages
    packed = completions_of([(7, [3, 5, 1]), (2, [4, 4])], VOCABULARY, torch.Generator().manual_seed(0))
    plain = [plain_logprobs(model, one) for one in packed]
    assert_same(torch.cat(shared_logprobs(model, packed)), torch.cat(plain))


def test_a_model_that_ignores_positions_is_found_out():
    model = make_family("llama")
    decoder = model.get_decoder()
    whole = decoder.forward
    decoder.forward = lambda input_ids, position_ids=None, **kwargs: whole(input_ids=input_ids, **kwargs)
    assert "computes other states in a packed batch" in why_general(model)


def test_attention_with_sinks_is_refused_rather_than_computed_without_them():
    model = make_family("gpt_oss", **SINKS)
    with pytest.raises(attention.Unsupported, match="sinks"):
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert "'s_aux' is not supported" in why_general(model)


def test_capped_scores_are_refused():
    model = make_family("gemma2", num_key_value_heads=2, head_dim=8)
    assert "'softcap' is not supported" in why_general(model)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_attention_is_adopted_where_it_computes_the_same(family):
    model = make_family(family, "eager")
    assert attention.adopt(model) is None
    assert why_general(model) is None


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 8}),
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("gpt_oss", SINKS),
    ],
)
def test_a_model_keeps_its_own_attention_where_it_is_more(family, changes):
    model = make_family(family, "eager", **changes)
    ids = torch.arange(3, 20)[None]
    expected = model(input_ids=ids).logits
    assert type(model).__name__ in attention.adopt(model)
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert why_general(model) is not None


def test_rounding_of_a_deep_model_in_sixteen_bits_is_no_other_attention():
    model = make_family("llama", "eager", num_hidden_layers=24).to(torch.bfloat16)
    ids = attention.some_tokens(model)
    expected = model.get_decoder()(input_ids=ids).last_hidden_state.float()
    assert attention.adopt(model) is None
    found = model.get_decoder()(input_ids=ids).last_hidden_state.float()
    assert (found - expected).norm() > attention.ADOPTION_TOLERANCE * expected.norm()


def test_another_attention_in_sixteen_bits_is_no_rounding():
    model = make_family("llama", "eager").to(torch.bfloat16)

    def doubled(module, _, found):
        return found if module.config._attn_implementation == "eager" else (found[0] * 2, *found[1:])

    model.get_decoder().layers[0].self_attn.register_forward_hook(doubled)
    reason = attention.adopt(model)
    assert "computes other states" in reason
    assert why_general(model) == reason


def test_a_sequence_longer_than_the_window_takes_the_general_path():
    model = make_family("mistral", sliding_window=16)
    for length, is_fast in ((7, True), (8, False)):
        packed = completions_of([(10, [length, 2])], VOCABULARY, torch.Generator().manual_seed(0))
        (batch,) = make_batches(packed, 1000, CPU)
        assert (why_general(model, batch.reach) is None) == is_fast
        plain = [plain_logprobs(model, one) for one in packed]
        assert_same(torch.cat(shared_logprobs(model, packed)), torch.cat(plain))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_bfloat16_is_close_to_fp32_and_trains_fp32_weights(kind):
    packed = completions_of([(9, [5, 3, 1]), (4, [6, 2])], VOCABULARY, torch.Generator().manual_seed(6))
    exact = model_of("qwen3", kind)
    logprobs = torch.cat(shared_logprobs(exact, packed))
    slope = gradient(exact, shared_logprobs(exact, packed))
    with torch.autocast("cpu", torch.bfloat16):
        assert why_general(exact) is None
        rounded = shared_logprobs(exact, packed)
    assert torch.cat(rounded).dtype == torch.float32
    assert (torch.cat(rounded) - logprobs).abs().mean() < 0.05
    found = gradient(exact, rounded)
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, slope, dim=0) > 0.99


def test_a_base_in_bfloat16_is_packed_too():
    packed = completions_of([(9, [5, 3, 1]), (4, [6, 2])], VOCABULARY, torch.Generator().manual_seed(6))
    model = add_lora(make_family("qwen3").bfloat16())
    plain = torch.cat([plain_logprobs(model, one) for one in packed])
    found = shared_logprobs(model, packed)
    assert why_general(model) is None
    assert (torch.cat(found) - plain).abs().mean() < 0.05
    assert gradient(model, found).isfinite().all()
