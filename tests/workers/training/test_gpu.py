"""The sampler on a GPU: CUDA graphs change nothing, and bf16 works."""

import pytest
import torch

from tests.workers.training.support import make_config
from workers.training.base.types import Prompt
from workers.training.model.policy import Policy
from workers.training.sampling import decoders
from workers.training.sampling.graphed.graphs import CudaGraph, Graphs
from workers.training.sampling.graphed.kept import release
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.sampling.static_decoder import StaticDecoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SAMPLING = Sampling(samples=4, max_tokens=40, temperature=1.0, key=("train", 1, 5))


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(row, {}, tuple(torch.randint(0, 256, (n,), generator=generator).tolist()))
        for row, n in enumerate((3, 90, 17, 1, 40))
    ]


def tokens(groups):
    return [[c.tokens for c in group.completions] for group in groups]


def test_graphs_sample_the_tokens_that_single_kernels_do(sharp, prompts):
    policy = Policy.load(make_config(sharp, device="cuda", dtype="float32"))
    policy.end_ids = tuple(range(0, 256, 13))
    captured = []

    def counted(*args):
        captured.append(CudaGraph(*args))
        return captured[-1]

    def way(capture):
        def make(model, size, samples, _):
            cache = decoders.slot_cache(model, size)
            return cache, StaticDecoder(model, cache, samples, capture)

        return make

    with_graphs = sample_groups(policy, prompts, SAMPLING, make_decoder=way(counted))
    assert captured
    assert tokens(sample_groups(policy, prompts, SAMPLING)) == tokens(with_graphs)
    one_by_one = sample_groups(policy, prompts, SAMPLING, make_decoder=way(None))
    assert tokens(one_by_one) == tokens(with_graphs)


def test_kept_graphs_follow_the_weights_and_sample_what_one_by_one_does(sharp, prompts):
    policy = Policy.load(make_config(sharp, device="cuda", dtype="float32"))
    policy.end_ids = tuple(range(0, 256, 13))
    for factor in (1.0, 1.5, 0.8):
        with torch.no_grad():
            for weight in policy.trained().values():
                weight.add_(0.01 * factor)
        policy.sync_rollout()
        one_by_one = sample_groups(policy, prompts, SAMPLING, make_decoder=decoders.by_modules)
        assert tokens(sample_groups(policy, prompts, SAMPLING)) == tokens(one_by_one)
    assert release(policy.rollout_model)


def test_a_capture_that_fails_leaves_stream_and_allocator_as_they_were():
    x = torch.ones(1024, device="cuda")
    stream = torch.cuda.current_stream()
    graphs = Graphs(CudaGraph)

    def look():
        return x * float((x * 2).sum())

    assert graphs.of(look) is look
    assert not graphs.is_on
    assert torch.cuda.current_stream() == stream
    torch.cuda.empty_cache()
    held = torch.ones(1 << 26, device="cuda")
    del held
    torch.cuda.empty_cache()
    replay = Graphs(CudaGraph).of(lambda: x * 3)
    assert float(replay().sum()) == 3 * 1024


def test_bf16_rollouts_stay_near_the_trainers_logprobs(sharp, prompts):
    policy = Policy.load(make_config(sharp, device="cuda", dtype="bfloat16"))
    gaps = []
    for group in sample_groups(policy, prompts, SAMPLING):
        for completion in group.completions:
            ids = torch.tensor([group.prompt.tokens + completion.tokens], device="cuda")
            with torch.no_grad():
                logprobs = torch.log_softmax(policy.model(input_ids=ids).logits.float(), -1)
            n = len(completion.tokens)
            trained = logprobs[0, -n - 1 : -1].gather(-1, ids[0, -n:, None])[:, 0].cpu()
            gaps.append((trained - torch.tensor(completion.logprobs)).abs())
    assert 0 < torch.cat(gaps).mean() < 0.06
