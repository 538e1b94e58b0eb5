"""Chunked log-probabilities, entropy and KL against torch's own, and the memory they need."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from scripts.gpu.as_if_cuda import as_if_cuda
from workers.training.base.divergences import kl_exact
from workers.training.model.grammar import Allowed
from workers.training.passes import token_logprobs as module
from workers.training.passes.token_logprobs import token_kl, token_logprobs


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that was made."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def saved_bytes(run):
    """Bytes kept for the backward pass of what `run` returns, weights left out."""
    kept = {}

    def keep(tensor):
        if not (tensor.is_leaf and tensor.requires_grad):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run()
    return sum(kept.values()), out


def make_case(n=50, width=8, vocabulary=31, bias=False, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(width, vocabulary, bias=bias).to(dtype)
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    states = torch.randn(n, width, generator=generator, dtype=dtype).requires_grad_()
    return states, head, torch.randint(vocabulary, (n,), generator=generator)


def plain(states, head, targets, temperature):
    logprobs = torch.log_softmax(head(states).float() / temperature, -1)
    entropy = torch.distributions.Categorical(logits=logprobs).entropy()
    return logprobs.gather(-1, targets[:, None])[:, 0], entropy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_bytes", [10**9, 31 * 4 * 7, 1], ids=["whole", "sevens", "ones"])
def test_values_and_gradients_are_those_of_log_softmax(temperature, bias, chunk_bytes):
    states, head, targets = make_case(bias=bias)
    weights = torch.linspace(-1, 1, len(targets))
    inputs = [states, *head.parameters()]
    logprobs, entropy = token_logprobs(states, head, targets, temperature, logit_bytes=chunk_bytes)
    expected, expected_entropy = plain(states, head, targets, temperature)
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    found = torch.autograd.grad((logprobs * weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_frozen_output_layer_gives_the_same_values_and_gradient(temperature, rows, threads):
    chunks = {"logit_bytes": 31 * 4 * rows}
    states, head, targets = make_case()
    weights = torch.linspace(-1, 1, len(targets))
    expected, expected_entropy = plain(states, head, targets, temperature)
    wanted = torch.autograd.grad((expected * weights).sum(), states)[0]
    head.requires_grad_(False)
    assert module._is_frozen(states, head)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logprobs, entropy = token_logprobs(states, head, targets, temperature, **chunks)
        found = torch.autograd.grad((logprobs * weights).sum(), states)[0]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    with torch.no_grad():
        assert torch.equal(token_logprobs(states, head, targets, temperature, **chunks)[0], logprobs)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_frozen_layer_in_fp64_gives_the_values_and_gradient_of_log_softmax(temperature, rows):
    states, head, targets = make_case(dtype=torch.float64)
    head.requires_grad_(False)
    assert module._is_product(states, head)
    logits = head(states) / temperature
    expected = torch.log_softmax(logits, -1)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    values = expected.gather(-1, targets[:, None])[:, 0]
    weights = torch.linspace(-1, 1, len(targets), dtype=torch.float64)
    chunks = {"logit_bytes": 31 * 4 * rows}
    logprobs, entropies = token_logprobs(states, head, targets, temperature, **chunks)
    torch.testing.assert_close(logprobs, values)
    torch.testing.assert_close(entropies, entropy)
    assert not entropies.requires_grad
    found = torch.autograd.grad((logprobs * weights).sum(), states)[0]
    torch.testing.assert_close(found, torch.autograd.grad((values * weights).sum(), states)[0])


def test_a_frozen_layer_in_bf16_is_as_near_the_exact_gradient_as_one_that_is_computed_again():
    states, head, targets = make_case(200, 64, 997, dtype=torch.bfloat16)
    wide = head.weight.detach().double()
    exact = states.detach().double().requires_grad_()
    logprobs = torch.log_softmax(exact @ wide.T, -1).gather(-1, targets[:, None])[:, 0]
    weights = torch.linspace(-1, 1, len(targets))
    slope = torch.autograd.grad((logprobs * weights).sum(), exact)[0]
    errors = []
    for is_trained in (True, False):
        head.requires_grad_(is_trained)
        found, _ = token_logprobs(states, head, targets, 1.0, logit_bytes=997 * 4 * 50)
        assert found.dtype == torch.float32
        gradient = torch.autograd.grad((found * weights).sum(), states)[0]
        assert gradient.dtype == torch.bfloat16
        errors.append(float((gradient - slope).norm() / slope.norm()))
    recomputed, at_hand = errors
    assert at_hand < 1.5 * recomputed
    assert at_hand < 1e-2


def test_a_frozen_layer_keeps_no_logits_in_bf16():
    states, head, targets = make_case(500, 8, 997, dtype=torch.bfloat16)
    head.requires_grad_(False)
    kept, _ = saved_bytes(lambda: token_logprobs(states, head, targets, 1.0))
    assert kept <= 2 * states.numel()


def test_no_states_give_no_logprobs_in_bf16():
    states, head, targets = make_case(0, dtype=torch.bfloat16)
    head.requires_grad_(False)
    assert [len(values) for values in token_logprobs(states, head, targets, 1.0)] == [0, 0]


def test_a_chunk_on_a_gpu_is_three_kernels_and_as_large_as_free_memory_allows():
    gib = 2**30
    with as_if_cuda(total=64 * gib) as device:
        gpu = torch.device("cuda", 0)
        assert module.bytes_at_a_time(gpu) == 2 * gib
        states, head, targets = make_case(40, 8, 997, dtype=torch.bfloat16)
        states, head, targets = states.detach().to(gpu), head.requires_grad_(False).to(gpu), targets.to(gpu)
        states.requires_grad_()
        device.counts.clear()
        logprobs, _ = token_logprobs(states, head, targets, 1.0)
        assert dict(device.counts.kernels) == {"mm": 2, "cherry::softmax_step": 1, "cat": 2}
        assert not device.counts.waits
        logprobs.sum().backward()
        assert states.grad.isfinite().all()
    with as_if_cuda(total=4 * gib):
        assert module.bytes_at_a_time(gpu) == gib // 2
        assert module.bytes_at_a_time(gpu, spared=2 * gib) == gib // 4
    with as_if_cuda(total=gib // 2):
        assert module.bytes_at_a_time(gpu) == module.LOGIT_BYTES
    assert module.bytes_at_a_time(torch.device("cpu")) == module.LOGIT_BYTES


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_mask_is_renormalised_over(is_trained):
    states, head, targets = make_case()
    head.requires_grad_(is_trained)
    targets = targets % 16
    masks = torch.tensor([[255, 255, 0, 0], [255, 255, 255, 255]], dtype=torch.uint8)
    allowed = Allowed(masks, torch.arange(len(targets)) % 2)
    logits = head(states).detach()
    logits[::2, 16:] = -torch.inf
    expected = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]
    found, entropy = token_logprobs(states, head, targets, 1.0, allowed)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (entropy[::2] < math.log(16)).all()
    assert torch.autograd.grad(found.sum(), states)[0].isfinite().all()


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_logits_of_minus_infinity_have_no_probability(is_trained, width):
    head = torch.nn.Linear(width, 3, bias=False)
    head.weight.data = torch.tensor([[0.0], [1.0], [-torch.inf]]).repeat(1, width)
    head.requires_grad_(is_trained)
    logprobs, _ = token_logprobs(torch.ones(3, width), head, torch.tensor([0, 1, 2]), 1.0)
    expected = torch.log_softmax(torch.tensor([0.0, width, -torch.inf]), -1)
    torch.testing.assert_close(logprobs, expected)


@pytest.mark.parametrize("is_trained", [False, True])
def test_the_gradient_of_a_gradient_step_can_be_taken_twice(is_trained):
    states, head, targets = make_case()
    head.requires_grad_(is_trained)
    logprobs, _ = token_logprobs(states, head, targets, 0.5)
    first = torch.autograd.grad(logprobs.sum(), states, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(logprobs.sum(), states)[0])


def test_entropy_of_a_uniform_prediction_is_the_log_of_the_vocabulary():
    head = torch.nn.Linear(4, 8, bias=False)
    torch.nn.init.zeros_(head.weight)
    logprobs, entropy = token_logprobs(torch.randn(3, 4), head, torch.tensor([0, 5, 7]), 1.0)
    torch.testing.assert_close(logprobs, torch.full((3,), -math.log(8)), atol=1e-6, rtol=0)
    torch.testing.assert_close(entropy, torch.full((3,), math.log(8)), atol=1e-6, rtol=0)


def test_an_impossible_token_has_no_infinite_entropy():
    head = torch.nn.Linear(1, 3, bias=False)
    head.weight.data = torch.tensor([[0.0], [0.0], [-500.0]])
    _, entropy = token_logprobs(torch.ones(1, 1), head, torch.tensor([0]), 1.0)
    torch.testing.assert_close(entropy, torch.tensor([math.log(2)]))


def test_the_softmax_of_bfloat16_logits_is_in_fp32():
    states, head, targets = make_case(dtype=torch.bfloat16)
    logprobs, entropy = token_logprobs(states, head, targets, 1.0)
    expected, _ = plain(states, head, targets, 1.0)
    assert logprobs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logprobs, expected)
    assert torch.autograd.grad(logprobs.sum(), states)[0].dtype == torch.bfloat16


def test_kl_in_chunks_is_kl_over_the_whole():
    states, head, _ = make_case()
    ref_states, ref_head, _ = make_case(bias=True)
    expected = kl_exact(head(states), ref_head(ref_states * 0.5))
    found = token_kl(states, head, ref_states * 0.5, ref_head, logit_bytes=31 * 4 * 7)
    torch.testing.assert_close(found, expected)


def test_a_vocabulary_of_150_000_never_has_all_its_logits_at_once():
    most = 2**25
    n, vocabulary = 200, 150_000
    states, head, targets = make_case(n, 4, vocabulary)
    head.requires_grad_(False)
    with LargestTensor() as largest:
        kept, (logprobs, _) = saved_bytes(
            lambda: token_logprobs(states, head, targets, 1.0, logit_bytes=most)
        )
        logprobs.sum().backward()
    assert largest.bytes <= most < n * vocabulary * 4 / 3
    assert kept < 2**16
    assert states.grad.isfinite().all()
