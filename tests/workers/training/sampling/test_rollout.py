"""The sampler: the same tokens whatever is beside a row, and exactly the model's probabilities."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.workers.training.passes.test_forward import plain_logprobs
from tests.workers.training.support import make_config
from workers.training.base.types import Prompt
from workers.training.model.policy import Policy
from workers.training.passes.forward import PackedCompletion
from workers.training.sampling import compiled_decoder, decoders
from workers.training.sampling.decode_step import exact_step, spans
from workers.training.sampling.lean_decoder import LeanDecoder
from workers.training.sampling.rollout import SamplerLimits, Sampling, sample_groups
from workers.training.sampling.static_decoder import StaticDecoder

LENGTHS = (3, 90, 17, 1, 40)


@pytest.fixture(scope="module")
def policy(sharp):
    return Policy.load(make_config(sharp))


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(row, {}, tuple(torch.randint(0, 256, (n,), generator=generator).tolist()))
        for row, n in enumerate(LENGTHS)
    ]


SAMPLING = Sampling(samples=4, max_tokens=12, temperature=1.0, key=("train", 1, 5))


def tokens(groups):
    return {group.prompt.row: [c.tokens for c in group.completions] for group in groups}


def test_a_row_samples_the_same_tokens_alone_and_in_any_company_and_order(policy, prompts):
    together = tokens(sample_groups(policy, prompts, SAMPLING))
    assert len({t for row in together.values() for t in row}) == 20
    for prompt in prompts:
        assert tokens(sample_groups(policy, [prompt], SAMPLING)) == {prompt.row: together[prompt.row]}
    assert tokens(sample_groups(policy, prompts[::-1], SAMPLING)) == together


def test_fewer_samples_are_the_first_of_more(policy, prompts):
    four = tokens(sample_groups(policy, prompts, SAMPLING))
    two = tokens(sample_groups(policy, prompts, dataclasses.replace(SAMPLING, samples=2)))
    assert two == {row: found[:2] for row, found in four.items()}


@pytest.mark.parametrize("slots", [4, 9])
def test_waiting_for_a_slot_changes_nothing(policy, prompts, slots):
    expected = tokens(sample_groups(policy, prompts, SAMPLING))
    few = SamplerLimits(slots=slots)
    assert tokens(sample_groups(policy, prompts, SAMPLING, limits=few)) == expected


@pytest.mark.parametrize("way", [decoders.compiled, decoders.lean])
def test_a_cache_that_has_to_grow_changes_nothing(policy, prompts, way):
    expected = tokens(sample_groups(policy, prompts, SAMPLING))
    growing = {"limits": SamplerLimits(first_columns=1), "make_decoder": way}
    assert tokens(sample_groups(policy, prompts, SAMPLING, **growing)) == expected
    assert tokens(sample_groups(policy, prompts[3:4], SAMPLING, **growing)) == {3: expected[3]}


@pytest.fixture
def ending_policy(sharp):
    """One token in thirteen ends a completion."""
    policy = Policy.load(make_config(sharp))
    policy.end_ids = tuple(range(0, 256, 13))
    return policy


LONG = dataclasses.replace(SAMPLING, max_tokens=40)


def test_all_ways_to_decode_sample_the_same_tokens(ending_policy, prompts):
    """Kernels, merged weights, the library's modules, and static tensors as a GPU replays them."""
    chosen = sample_groups(ending_policy, prompts, LONG)
    assert {c.finish_reason for group in chosen for c in group.completions} == {"stop", "length"}
    ways = (decoders.compiled, decoders.lean, decoders.by_modules, decoders.static)
    found = [sample_groups(ending_policy, prompts, LONG, make_decoder=way) for way in ways]
    assert all(tokens(groups) == tokens(chosen) for groups in found)
    expected, *others = [
        torch.tensor([p for group in groups for c in group.completions for p in c.logprobs])
        for groups in found
    ]
    for logprobs in others:
        torch.testing.assert_close(logprobs, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("way", [decoders.compiled, decoders.lean, decoders.static])
def test_few_slots_refilled_sample_what_plenty_of_slots_do(ending_policy, prompts, way):
    expected = tokens(sample_groups(ending_policy, prompts, LONG))
    for slots, columns in ((4, 512), (9, 512), (13, 3)):
        few = SamplerLimits(slots=slots, first_columns=columns)
        found = sample_groups(ending_policy, prompts, LONG, limits=few, make_decoder=way)
        assert tokens(found) == expected


def test_slots_read_in_spans_of_different_width_sample_the_same(ending_policy, prompts):
    cut = []

    def in_many_spans(model, size, *_):
        cache, lean = decoders.slot_cache(model, size), LeanDecoder(model)

        def decode(active, ids):
            cut.append(spans(active.counts, cost=0))
            of_prompts = spans(active.prompt_lengths, cost=0)
            step = dataclasses.replace(
                exact_step(active, ids), completion_spans=cut[-1], prompt_spans=of_prompts
            )
            return lean.decode(cache, step)

        return cache, decode

    expected = tokens(sample_groups(ending_policy, prompts, LONG))
    few = SamplerLimits(slots=12)
    found = sample_groups(ending_policy, prompts, LONG, limits=few, make_decoder=in_many_spans)
    assert tokens(found) == expected
    assert max(map(len, cut)) >= 3


@pytest.mark.parametrize("way", [decoders.compiled, decoders.lean, decoders.by_modules])
def test_only_active_completions_are_run(ending_policy, prompts, way, monkeypatch):
    """Every token sampled but the last is read once; prompts are read once, here without padding."""
    reads = []
    kernel = compiled_decoder.decode
    monkeypatch.setattr(
        compiled_decoder,
        "decode",
        lambda first, last, *rest: (reads.append(last - first), kernel(first, last, *rest)),
    )
    embedding = ending_policy.rollout_model.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, args: reads.append(args[0].numel()))
    same_length = [dataclasses.replace(prompt, tokens=prompts[1].tokens[-20:]) for prompt in prompts]
    unpadded = SamplerLimits(prefill_padding=0)
    groups = sample_groups(ending_policy, same_length, LONG, limits=unpadded, make_decoder=way)
    hook.remove()
    sampled = [len(c.tokens) for group in groups for c in group.completions]
    assert min(sampled) < 5 < 35 < max(sampled)
    one_token_probe, prompts_read, *decoded = reads
    assert (one_token_probe, prompts_read) == (1, 5 * 20)
    assert decoded == [sum(n > step for n in sampled) for step in range(1, max(sampled))]


@pytest.mark.parametrize("way", [decoders.compiled, decoders.lean])
def test_a_prompt_is_stored_once_for_its_group(ending_policy, prompts, way):
    caches = []

    def kept(*args):
        caches.append(way(*args))
        return caches[-1]

    sample_groups(ending_policy, prompts, LONG, make_decoder=kept)
    ((cache, _),) = caches
    key_columns, value_columns = 5 * max(LENGTHS) + 5 * 4 * LONG.max_tokens, 5 * 96 + 5 * 4 * 48
    per_head = 2 * 8 * key_columns  # keys and values, 8 wide
    if way is decoders.compiled:  # in whole panels of 16
        per_head = 8 * value_columns + 16 * key_columns
    assert cache.nbytes == 2 * 2 * per_head * 4  # layers, heads, fp32


def test_completions_are_told_as_they_end_each_once(ending_policy, prompts):
    told = []
    groups = sample_groups(
        ending_policy, prompts, LONG, lambda prompt, sample, found: told.append((prompt, sample, found))
    )
    assert sorted(entry[:2] for entry in told) == [(p, s) for p in range(5) for s in range(4)]
    for prompt, sample, found in told:
        assert groups[prompt].completions[sample] == found
    lengths = [len(found.tokens) for _, _, found in told]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_what_is_told_is_told_before_the_sampling_goes_on(ending_policy, prompts):
    class Enough(Exception):
        pass

    reads = []
    embedding = ending_policy.rollout_model.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, args: reads.append(args[0].numel()))

    def stop(_, __, found):
        raise Enough(len(found.tokens))

    together = SamplerLimits(prefill_padding=10**6)
    with pytest.raises(Enough) as first:
        sample_groups(ending_policy, prompts, LONG, stop, limits=together, make_decoder=decoders.lean)
    hook.remove()
    probe = prefill = 1
    assert len(reads) == probe + prefill + first.value.args[0] - 1


def test_another_model_may_be_sampled_from(lora_policy, prompts, sharp):
    base = tokens(sample_groups(Policy.load(make_config(sharp)), prompts, SAMPLING))
    assert tokens(sample_groups(lora_policy, prompts, SAMPLING)) != base
    with lora_policy.reference() as reference:
        assert tokens(sample_groups(lora_policy, prompts, SAMPLING, model=reference)) == base


def test_another_thread_samples_the_same(policy, prompts):
    expected = sample_groups(policy, prompts, SAMPLING)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(sample_groups, policy, prompts, SAMPLING) for _ in range(2)]
    assert [run.result() for run in runs] == [expected, expected]


def test_no_prompts_give_no_groups(policy):
    assert sample_groups(policy, [], SAMPLING) == []


def stops_of(groups):
    """Stop strings of several kinds that occur in these texts."""
    texts = [c.text for group in groups for c in group.completions]
    clean = [text for text in texts if len(text) >= 4 and "\N{REPLACEMENT CHARACTER}" not in text[:4]]
    first, second = clean[0], clean[-1]
    return {
        "one": (first[2],),
        "split over tokens": (first[1:4],),
        "at the first token": (first[0],),
        "overlapping": (first[1:3], first[2], second[1:4]),
        "none": ("this is in no text",),
    }


@pytest.mark.parametrize("kind", ["one", "split over tokens", "at the first token", "overlapping", "none"])
def test_a_stop_string_ends_a_completion_where_it_is_complete(policy, prompts, kind):
    uncut = sample_groups(policy, prompts, LONG)
    stop = stops_of(uncut)[kind]
    decode = policy.tokenizer.decode
    n_cut = 0
    for group, long in zip(
        sample_groups(policy, prompts, dataclasses.replace(LONG, stop=stop)), uncut, strict=True
    ):
        for found, whole in zip(group.completions, long.completions, strict=True):
            for n in range(1, len(whole.tokens) + 1):
                text = decode(whole.tokens[:n])
                ends = [text.index(s) for s in stop if s in text]
                if ends:
                    assert (found.text, found.finish_reason) == (text[: min(ends)], "stop")
                    n_cut += 1
                    break
            else:
                assert (found.text, found.finish_reason) == (whole.text, whole.finish_reason)
            assert found.tokens == whole.tokens[:n]
            assert found.logprobs == pytest.approx(whole.logprobs[:n], abs=1e-5)
    assert (n_cut > 0) == (kind != "none")


def test_what_was_written_is_told_with_special_tokens_but_for_the_end(policy, prompts):
    marks = policy.tokenizer.all_special_ids
    policy.end_ids = (*range(0, 256, 13), policy.tokenizer.eos_token_id)
    written = [c for group in sample_groups(policy, prompts, LONG) for c in group.completions]
    assert any(set(c.tokens[:-1]) & set(marks) for c in written)
    for completion in written:
        is_over = completion.tokens[-1] in policy.end_ids
        assert completion.text == policy.tokenizer.decode(completion.tokens[: -1 if is_over else None])


def test_a_small_nucleus_is_greedy_with_the_whole_distributions_logprobs(policy, prompts):
    nucleus = dataclasses.replace(SAMPLING, samples=1, top_p=1e-6)
    greedy = dataclasses.replace(SAMPLING, samples=1, temperature=0.0)
    found, expected = sample_groups(policy, prompts, nucleus), sample_groups(policy, prompts, greedy)
    assert tokens(found) == tokens(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.completions[0].logprobs == pytest.approx(other.completions[0].logprobs, abs=1e-5)
        assert min(one.completions[0].logprobs) < -0.1


def test_a_size_is_run_then_captured_then_replayed_until_the_cache_moves(ending_policy, prompts):
    class Graph:
        """Replays only what it was made for, as a CUDA graph does."""

        pool = None
        made = replayed = 0

        def __init__(self, run, pool):
            self.run, self.memory = run, caches[-1].completions[0].keys.data_ptr()
            Graph.made += 1

        def __call__(self):
            assert self.memory == caches[-1].completions[0].keys.data_ptr()
            Graph.replayed += 1
            return self.run()

    def captured(model, size, samples, _):
        caches.append(decoders.slot_cache(model, size))
        return caches[-1], StaticDecoder(model, caches[-1], samples, Graph)

    # As long as each other, so that sizes from before the cache moved come again after it.
    prompts = [dataclasses.replace(prompt, tokens=prompts[1].tokens[-20:]) for prompt in prompts]
    expected = tokens(sample_groups(ending_policy, prompts, LONG))
    caches = []
    few = SamplerLimits(slots=4, first_columns=32)
    found = sample_groups(ending_policy, prompts, LONG, limits=few, make_decoder=captured)
    assert tokens(found) == expected
    assert 0 < Graph.made < Graph.replayed


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("way", [decoders.by_modules, decoders.make_decoder])
def test_bf16_rollouts_stay_near_the_trainers_logprobs(sharp, prompts, adapter, way):
    policy = Policy.load(make_config(sharp, adapter=adapter, dtype="bfloat16"))
    assert policy.rollout_model.dtype == torch.bfloat16
    gaps = []
    for group in sample_groups(policy, prompts, SAMPLING, make_decoder=way):
        for completion in group.completions:
            with torch.no_grad():
                trained = plain_logprobs(policy.model, PackedCompletion(group.prompt, completion), 1.0)
            gaps.append((trained.float() - torch.tensor(completion.logprobs)).abs())
    assert 0 < torch.cat(gaps).mean() < 0.06


def test_completions_that_end_early_leave_and_the_others_go_on(sharp, prompts):
    """With half of the vocabulary as end tokens, slots are freed at every step."""
    policy = Policy.load(make_config(sharp))
    long = tokens(sample_groups(policy, prompts, SAMPLING))
    policy.end_ids = tuple(range(0, 256, 2))
    groups = sample_groups(policy, prompts, SAMPLING)
    for group in groups:
        for completion, uncut in zip(group.completions, long[group.prompt.row], strict=True):
            ends = [i for i, token in enumerate(uncut) if token % 2 == 0 and token < 256]
            assert completion.tokens == (uncut[: ends[0] + 1] if ends else uncut)
            assert completion.finish_reason == ("stop" if ends else "length")
    assert len({len(c.tokens) for group in groups for c in group.completions}) > 3


def test_steps_and_seeds_sample_differently_and_repeat_exactly(policy, prompts):
    first = sample_groups(policy, prompts, SAMPLING)
    assert sample_groups(policy, prompts, SAMPLING) == first
    other_step = dataclasses.replace(SAMPLING, key=("train", 1, 6))
    other_seed = dataclasses.replace(SAMPLING, key=("train", 2, 5))
    for other in (other_step, other_seed):
        assert tokens(sample_groups(policy, prompts, other)) != tokens(first)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampling_logprobs_equal_the_trainers(kind, temperature, prompts, request):
    policy = request.getfixturevalue(f"{kind}_policy")
    gaps = []
    for group in sample_groups(policy, prompts, dataclasses.replace(SAMPLING, temperature=temperature)):
        for completion in group.completions:
            trained = plain_logprobs(policy.model, PackedCompletion(group.prompt, completion), temperature)
            gaps.append((trained - torch.tensor(completion.logprobs)).abs())
    assert torch.cat(gaps).mean() <= 1e-5
    assert torch.cat(gaps).max() <= 3e-5


def test_greedy_equals_the_librarys_own_generation(policy, prompts):
    groups = sample_groups(policy, prompts, dataclasses.replace(SAMPLING, samples=1, temperature=0.0))
    for prompt, group in zip(prompts, groups, strict=True):
        ids = torch.tensor([prompt.tokens])
        expected = policy.rollout_model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=258
        )[0, len(prompt.tokens) :]
        assert group.completions[0].tokens == tuple(expected.tolist())


def test_a_completion_stops_where_the_context_ends(policy, prompts):
    nearly_full = dataclasses.replace(prompts[0], tokens=tuple(range(253)))
    groups = sample_groups(policy, [nearly_full, prompts[1]], SAMPLING)
    assert policy.context == 256
    assert {len(c.tokens) for c in groups[0].completions} == {3}
    assert max(len(c.tokens) for c in groups[1].completions) == 12


def test_end_tokens_are_not_part_of_the_text(sharp, prompts):
    policy = Policy.load(make_config(sharp))
    every_token = tuple(range(256))
    policy.end_ids = every_token
    completion = sample_groups(policy, prompts[:1], SAMPLING)[0].completions[0]
    assert (len(completion.tokens), completion.text, completion.finish_reason) == (1, "", "stop")
