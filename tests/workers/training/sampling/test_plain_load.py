"""What loading a delivered model in the dtype of its weights costs, beside what was validated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from workers.training.base.types import ScoredText
from workers.training.model.base_model import compute_dtype, load_base
from workers.training.sampling.plain_load import check_loaded
from workers.training.sampling.scored_texts import logprobs_by_steps, write_scored

NANO = Path(__file__).parents[4] / "workers" / "models" / "cherry_nano"
TEXT = (5, 300, 77, 41, 900, 12, 13, 650, 3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the built-in model, which is stored in bf16 and was validated in fp32."""
    folder = tmp_path_factory.mktemp("checkpoint")
    shutil.copytree(NANO, folder / "model")
    (logprobs,) = logprobs_by_steps(load_base(NANO), [TEXT])
    write_scored(folder, [ScoredText(TEXT, tuple(logprobs))])
    return folder


def predictions(dtype: torch.dtype) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(NANO, dtype=dtype)
    with torch.inference_mode():
        return model(torch.tensor([TEXT[:-1]])).logits[0].double().log_softmax(-1)


def test_it_is_the_kl_and_the_largest_difference_of_a_plain_load(delivered: Path) -> None:
    found = check_loaded(delivered, torch.float32, CPU)
    assert found is not None
    validated, now = predictions(torch.float32), predictions(torch.bfloat16)
    own = torch.tensor(TEXT[1:])[:, None]
    assert (found.load_dtype, found.load_tokens) == ("bfloat16", len(TEXT) - 1)
    assert found.load_difference == pytest.approx(
        float((validated - now).gather(1, own).abs().max()), abs=1e-3
    )
    assert found.load_kl == pytest.approx(
        float((validated.exp() * (validated - now)).sum(-1).mean()), rel=0.02
    )
    assert found.load_kl > 1e-6


def test_a_load_in_the_dtype_of_the_training_has_no_kl(delivered: Path) -> None:
    found = check_loaded(delivered, torch.bfloat16, CPU)
    assert found is not None
    assert found.load_kl == 0


@pytest.mark.parametrize(
    ("adapter", "dtype", "device", "computed"),
    [
        ("lora", "auto", "cpu", torch.float32),
        ("full", "auto", "cpu", torch.float32),
        ("lora", "bfloat16", "cpu", torch.bfloat16),
        ("lora", "auto", "cuda", torch.bfloat16),
        ("full", "float32", "cuda", torch.float32),
    ],
)
def test_the_arithmetic_of_a_training_is_known_without_its_model(
    adapter: str, dtype: str, device: str, computed: torch.dtype
) -> None:
    assert compute_dtype(NANO, torch.device(device), adapter, dtype) is computed  # type: ignore[arg-type]
    if device == "cpu":
        assert load_base(NANO, CPU, adapter, dtype).compute_dtype is computed  # type: ignore[arg-type]


def test_a_checkpoint_without_texts_is_not_checked(tmp_path: Path) -> None:
    assert check_loaded(tmp_path, torch.float32, CPU) is None
