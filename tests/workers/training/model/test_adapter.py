"""What LoRA adapts of a model, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.tiny_model import byte_tokenizer
from tests.workers.training.conftest import moved
from tests.workers.training.families import make_family
from tests.workers.training.support import make_config
from workers.training.model.adapter import Share, what_is_adapted
from workers.training.model.policy import Policy

MLA = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}
SMALL = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "vocab_size": 259}
HAS_LINEAR_ROUTER = tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23)
"""Whether Jamba's router is a linear layer, as in transformers 5.17."""
MIXTURES: dict[str, tuple[dict[str, Any], dict[str, Share]]] = {
    "granitemoe": (
        {"num_local_experts": 4, "num_key_value_heads": 2},
        {"attention": Share(8, 8), "experts": Share(4, 4), "router": Share(0, 2)},
    ),
    "deepseek_v3": (
        MLA | {"n_routed_experts": 4, "first_k_dense_replace": 1},
        {
            "attention": Share(10, 10),
            "experts": Share(5, 5),
            "mlp": Share(3, 3),
            "router": Share(1, 1),
        },
    ),
    "phimoe": (
        {"num_local_experts": 4, "num_key_value_heads": 2},
        {"attention": Share(8, 8), "experts": Share(4, 4), "router": Share(0, 2)},
    ),
    "laguna": (  # PEFT would not find the adapters of its shared experts again
        {"num_experts": 4, "head_dim": 8, "num_key_value_heads": 2},
        {"attention": Share(10, 10), "experts": Share(2, 5), "mlp": Share(3, 3), "router": Share(0, 1)},
    ),
    "jamba": (  # it multiplies by the weight of dt_proj itself, past any adapter
        {
            "num_experts": 4,
            "num_key_value_heads": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "use_mamba_kernels": False,
        },
        {
            "attention": Share(4, 4),
            "experts": Share(2, 2),
            "mixer": Share(3, 4),
            "mlp": Share(3, 3),
            "router": Share(int(HAS_LINEAR_ROUTER), 1),
        },
    ),
    "deepseek_v4": (  # its grouped projections are linear layers by their class alone
        {
            "q_lora_rank": 8,
            "o_lora_rank": 8,
            "o_groups": 2,
            "head_dim": 16,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "num_key_value_heads": 1,
            "n_routed_experts": 4,
            "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"],
        },
        {
            "attention": Share(16, 20),
            "experts": Share(10, 10),
            "mlp": Share(0, 2),
            "other": Share(0, 1),
            "router": Share(0, 2),
        },
    ),
}


def write(family: str, folder: Path, **changes: Any) -> Path:
    model = make_family(family, "eager", **SMALL, **changes)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, of transformers
@pytest.mark.filterwarnings(
    "ignore:.*_pattern keys did not match:RuntimeWarning"
)  # PEFT's, of names that it has replaced
@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_adapted_and_come_back_with_plain_peft(family: str, tmp_path: Path) -> None:
    changes, expected = MIXTURES[family]
    base = write(family, tmp_path / "base", **changes)
    policy = moved(Policy.load(make_config(base)))
    assert policy.adapted == expected
    policy.save_adapter(tmp_path / "adapter")
    policy.save_model(tmp_path / "merged")
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        trained = policy.model(input_ids=ids).logits
        start: Any = AutoModelForCausalLM.from_pretrained(base)
        assert not torch.allclose(start(input_ids=ids).logits, trained, atol=1e-2)
        adapted = PeftModel.from_pretrained(start, tmp_path / "adapter").eval()
        torch.testing.assert_close(adapted(input_ids=ids).logits, trained, atol=1e-4, rtol=1e-4)
        merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(input_ids=ids).logits, trained, atol=1e-4, rtol=1e-4)


def test_what_is_left_out_is_warned_of_but_for_routers() -> None:
    assert what_is_adapted({"attention": Share(8, 8), "mlp": Share(6, 6)}) is None
    assert what_is_adapted({}) is None
    told = what_is_adapted({"attention": Share(8, 8), "experts": Share(4, 4), "router": Share(0, 2)})
    assert told is not None
    assert told[0] == "info"
    assert "attention 8 of 8, experts 4 of 4, router 0 of 2" in told[1]
    warned = what_is_adapted({"mixer": Share(2, 4)})
    assert warned is not None
    assert warned[0] == "warn"


def test_rounded_experts_are_measured_as_they_are_delivered(tmp_path: Path) -> None:
    base = write("granitemoe", tmp_path / "base", num_local_experts=4, num_key_value_heads=2)
    stored: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    stored.save_pretrained(base)
    policy = moved(Policy.load(make_config(base)))
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        exact = policy.model(input_ids=ids).logits
        with policy.as_delivered() as error:
            measured = policy.measured_model(input_ids=ids).logits
            policy.save_model(tmp_path / "merged")
        assert error is not None
        assert 0 < error < 1
        merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
        torch.testing.assert_close(merged(input_ids=ids).logits, measured)
        assert not torch.equal(measured, exact)
        torch.testing.assert_close(policy.rollout_model(input_ids=ids).logits, exact, atol=1e-4, rtol=1e-4)
