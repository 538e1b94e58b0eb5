"""Our loss and gradient against TRL's GRPOTrainer on the same batch. TRL is the oracle, nothing else."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.workers.training.support import make_config
from tests.workers.training.test_forward import make_answers
from workers.training.advantages import group_advantages
from workers.training.forward import completion_states, make_batches, token_logprobs
from workers.training.losses import grpo_loss
from workers.training.policy import Policy

CLIP_LOW, CLIP_HIGH, TEMPERATURE = 0.2, 0.27, 0.8


def make_trl(sharp, tmp_path, beta):
    """A trainer that is never run: only its `_compute_loss` is called."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(sharp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(sharp),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                per_device_train_batch_size=4,
                num_generations=4,
                loss_type="dapo",
                beta=beta,
                epsilon=CLIP_LOW,
                epsilon_high=CLIP_HIGH,
                temperature=TEMPERATURE,
                use_bias_correction_kl=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": "a"}]),
            processing_class=tokenizer,
        )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()  # TRL normalises differently in eval; this model has no dropout
    return trainer


def padded(rows, *, left=False):
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width).long()
    for i, row in enumerate(rows):
        at = slice(width - len(row), None) if left else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    return ids, mask


def trl_inputs(answers, rollout, ref):
    """The dictionary TRL hands to its loss: prompts padded left, completions right."""
    prompt_ids, prompt_mask = padded([answer.prompt.tokens for answer in answers], left=True)
    completion_ids, completion_mask = padded([answer.completion.tokens for answer in answers])

    def aligned(values):
        out = torch.zeros(completion_ids.shape)
        out[completion_mask.bool()] = torch.cat(values)
        return out

    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([answer.advantage for answer in answers]),
        "old_per_token_logps": aligned(rollout),
        "ref_per_token_logps": aligned(ref),
        "num_items_in_batch": completion_mask.sum(),
    }


def our_loss(policy, answers, noise, ref_noise, beta, budget):
    """Sampling and reference logprobs are the policy's own, moved by fixed noise (a dict by completion)."""
    n_tokens = sum(len(answer.completion.tokens) for answer in answers)
    total = torch.zeros(())
    for batch in make_batches(answers, budget, torch.device("cpu")):
        states = completion_states(policy.model, batch)
        head = policy.model.get_output_embeddings()
        logprobs, _ = token_logprobs(states, head, batch.targets, TEMPERATURE)
        rows = [tuple(row[:n].tolist()) for row, n in zip(batch.completions, batch.lengths, strict=True)]
        tokens = grpo_loss(
            logprobs,
            torch.cat([noise[row] for row in rows]),
            torch.cat([ref_noise[row] for row in rows]),
            batch.advantages,
            clip_low=CLIP_LOW,
            clip_high=CLIP_HIGH,
            beta=beta,
        )
        total = total + tokens.loss.sum() / n_tokens
    return total


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("budget", [10**6, 100], ids=["one-batch", "micro-batches"])
def test_loss_and_gradient_equal_trls(sharp, tmp_path, beta, budget):
    answers = make_answers(seed=11, n_prompts=4, group=4)
    policy = Policy.load(make_config(sharp, adapter="full"))
    generator = torch.Generator().manual_seed(5)
    rollout, ref = [], []
    for answer in answers:  # far enough from the policy that clips and KL matter
        ids = torch.tensor([[*answer.prompt.tokens, *answer.completion.tokens]])
        logits = policy.model(input_ids=ids).logits[0, len(answer.prompt.tokens) - 1 : -1] / TEMPERATURE
        targets = torch.tensor(answer.completion.tokens)[:, None]
        logprobs = torch.log_softmax(logits, -1).gather(-1, targets)[:, 0].detach()
        rollout.append(logprobs + 0.3 * torch.randn(logprobs.shape, generator=generator))
        ref.append(logprobs + 0.5 * torch.randn(logprobs.shape, generator=generator))
    keys = [answer.completion.tokens for answer in answers]
    ours = our_loss(
        policy,
        answers,
        dict(zip(keys, rollout, strict=True)),
        dict(zip(keys, ref, strict=True)),
        beta,
        budget,
    )
    ours.backward()

    trainer = make_trl(sharp, tmp_path, beta)
    theirs = trainer._compute_loss(trainer.model, trl_inputs(answers, rollout, ref))
    theirs.backward()

    assert len(set(keys)) == len(keys)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    mine = dict(policy.model.named_parameters())
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(mine[name].grad, weight.grad, atol=1e-5, rtol=1e-4)
    norms = [weight.grad.norm() for weight in mine.values()]
    assert sum(norms) > 0.1


@pytest.mark.slow
def test_advantages_equal_trls_but_for_its_epsilon():
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(1))
    ours = group_advantages(rewards.double(), torch.ones(5, 8, dtype=torch.bool), scale_by_std=True)
    centred = rewards - rewards.mean(1, keepdim=True)
    theirs = centred / (rewards.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
