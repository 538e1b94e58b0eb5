"""The shared-prompt forward against one plain row per completion."""

import pytest
import torch

from tests.workers.training.support import group_of
from workers.training import forward
from workers.training.forward import Answer, completion_states, make_batches, per_completion, token_logprobs
from workers.training.types import Prompt

CPU = torch.device("cpu")


def make_answers(seed=0, n_prompts=3, group=4, longest_prompt=20, longest=9):
    """Prompts and completions of very different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(most):
        n = int(torch.randint(1, most + 1, (), generator=generator))
        return tuple(torch.randint(0, 256, (n,), generator=generator).tolist())

    answers = []
    for row in range(n_prompts):
        prompt = Prompt(row, {}, tokens(longest_prompt))
        for completion in group_of(prompt, *[tokens(longest) for _ in range(group)]).completions:
            answers.append(Answer(prompt, completion, float(torch.randn((), generator=generator))))
    return answers


def plain_logprobs(model, answer, temperature=1.0):
    """One row, one ordinary forward, no padding, no cache."""
    prompt, completion = list(answer.prompt.tokens), list(answer.completion.tokens)
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits.float() / temperature, -1)
    return logprobs.gather(-1, torch.tensor(completion)[:, None])[:, 0]


def shared_logprobs(model, answers, budget=10**6, temperature=1.0):
    """By completion, in the order of `answers`."""
    found = {}
    for batch in make_batches(answers, budget, CPU):
        states = completion_states(model, batch)
        logprobs, _ = token_logprobs(states, model.get_output_embeddings(), batch.targets, temperature)
        ids = zip(per_completion(batch.targets, batch), per_completion(logprobs, batch), strict=True)
        found |= {tuple(tokens.tolist()): values for tokens, values in ids}
    return [found[answer.completion.tokens] for answer in answers]


def gradient(policy, losses):
    loss = sum(values.sum() * (i + 1) for i, values in enumerate(losses)) / 10
    found = torch.autograd.grad(loss, list(policy.trained().values()), allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_shared_prompts_give_the_logprobs_and_gradient_of_plain_rows(kind, request):
    policy = request.getfixturevalue(f"{kind}_policy")
    answers = make_answers()
    shared = shared_logprobs(policy.model, answers, temperature=0.7)
    plain = [plain_logprobs(policy.model, answer, 0.7) for answer in answers]
    for mine, theirs in zip(shared, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(policy, shared), gradient(policy, plain), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("budget", [1, 60, 150])
def test_micro_batching_changes_neither_logprobs_nor_gradient(lora_policy, budget):
    answers = make_answers(seed=1)
    whole, split = (shared_logprobs(lora_policy.model, answers, b) for b in (10**6, budget))
    assert len(make_batches(answers, budget, CPU)) > 1
    for mine, theirs in zip(split, whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        gradient(lora_policy, split), gradient(lora_policy, whole), atol=1e-5, rtol=1e-4
    )


def test_a_batch_stays_within_its_budget_and_loses_nothing():
    answers = make_answers(seed=2, n_prompts=6, group=5)
    batches = make_batches(answers, 120, CPU)
    assert sum(len(batch.lengths) for batch in batches) == 30
    for batch in batches:
        assert batch.prompts.numel() + batch.completions.numel() <= 120 or len(batch.lengths) == 1


def test_padding_beside_a_long_prompt_changes_nothing(lora_policy):
    answers = make_answers(seed=3, n_prompts=1)
    alone = shared_logprobs(lora_policy.model, answers)
    beside = make_answers(seed=4, n_prompts=1, longest_prompt=100, longest=40)
    together = shared_logprobs(lora_policy.model, answers + beside)[: len(answers)]
    for mine, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_chunks_of_logits_change_nothing(lora_policy, monkeypatch):
    answers = make_answers(seed=5)
    whole = shared_logprobs(lora_policy.model, answers)
    expected = gradient(lora_policy, whole)
    monkeypatch.setattr(forward, "CHUNK", 7)
    chunked = shared_logprobs(lora_policy.model, answers)
    torch.testing.assert_close(torch.cat(chunked), torch.cat(whole), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient(lora_policy, chunked), expected, atol=1e-5, rtol=1e-4)


def test_entropy_of_a_uniform_prediction_is_the_log_of_the_vocabulary():
    head = torch.nn.Linear(4, 8, bias=False)
    torch.nn.init.zeros_(head.weight)
    logprobs, entropy = token_logprobs(torch.randn(3, 4), head, torch.tensor([0, 5, 7]), 1.0)
    torch.testing.assert_close(logprobs, torch.full((3,), -2.0794415), atol=1e-6, rtol=0)
    torch.testing.assert_close(entropy, torch.full((3,), 2.0794415), atol=1e-6, rtol=0)
    assert not entropy.requires_grad
