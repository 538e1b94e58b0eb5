"""An adapter's GGUF file: each layer's product is what PEFT adds, and what does more is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model

from tests.workers.exports.gguf.small_models import config_of, make
from workers.exports.gguf import GgufRefused
from workers.exports.gguf.adapter import write_adapter
from workers.exports.gguf.architectures import architecture_of
from workers.exports.gguf.tensors import in_pairs

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
LAYER = "model.layers.1.{}_proj"


def tuned_in(folder: Path, **odd: Any) -> Any:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}
    tuned = get_peft_model(make(folder / "base"), LoraConfig(**{**settings, **odd}))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return tuned


def write(folder: Path) -> GGUFReader:
    config = config_of("llama")
    write_adapter(folder / "adapter", folder / "adapter.gguf", config, architecture_of(config))
    return GGUFReader(folder / "adapter.gguf")


def added_by(reader: GGUFReader, name: str) -> torch.Tensor:
    """What llama.cpp adds to a weight: alpha over the rank, times the product."""
    of = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    down, up = of[f"{name}.lora_a"], of[f"{name}.lora_b"]
    alpha = float(reader.fields["adapter.lora.alpha"].contents()) or len(down)
    return up @ down * (alpha / len(down))


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({}, id="plain"),
        pytest.param({"use_rslora": True}, id="rslora"),
        pytest.param({"alpha_pattern": {"up_proj": 24, r"0\.self_attn\.q_proj": 1}}, id="alphas"),
        pytest.param({"rank_pattern": {"up_proj": 2}}, id="ranks"),
        pytest.param({"lora_alpha": 0}, id="no strength"),
    ],
)
def test_what_is_added_is_what_peft_adds(tmp_path: Path, odd: dict[str, Any]) -> None:
    tuned = tuned_in(tmp_path, **odd)
    reader = write(tmp_path)
    for ours, theirs in (("self_attn.q", "attn_q"), ("mlp.up", "ffn_up")):
        layer = tuned.get_base_model().get_submodule(LAYER.format(ours))
        expected = layer.get_delta_weight("default").detach()
        expected = in_pairs(expected, 4) if theirs == "attn_q" else expected
        torch.testing.assert_close(added_by(reader, f"blk.1.{theirs}.weight"), expected)


def test_a_plain_adapter_keeps_its_alpha_and_matrices(tmp_path: Path) -> None:
    tuned = tuned_in(tmp_path)
    reader = write(tmp_path)
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.lora.alpha"].contents() == 8.0
    up = next(torch.tensor(each.data) for each in reader.tensors if each.name == "blk.1.ffn_up.weight.lora_b")
    layer = tuned.get_base_model().get_submodule(LAYER.format("mlp.up"))
    assert torch.equal(up, layer.lora_B["default"].weight)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        pytest.param({"use_dora": True}, "sets use_dora", id="dora"),
        pytest.param({"modules_to_save": ["lm_head"]}, "sets modules_to_save", id="whole modules"),
        pytest.param({"bias": "all"}, "trains biases", id="biases"),
        pytest.param({"target_modules": ["embed_tokens"]}, "holds '.*embed_tokens", id="embedding"),
    ],
)
def test_what_llama_cpp_does_not_know_is_refused(tmp_path: Path, odd: dict[str, Any], reason: str) -> None:
    tuned_in(tmp_path, **odd)
    with pytest.raises(GgufRefused, match=reason):
        write(tmp_path)


def test_an_adapter_of_an_output_layer_that_is_the_embedding_is_refused(tmp_path: Path) -> None:
    tuned_in(tmp_path, target_modules=["lm_head"])
    config = config_of("llama", tie_word_embeddings=True)
    with pytest.raises(GgufRefused, match="changes the output layer"):
        write_adapter(tmp_path / "adapter", tmp_path / "a.gguf", config, architecture_of(config))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    tuned_in(tmp_path)
    config = config_of("llama", num_attention_heads=8)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    config.num_attention_heads, config.head_dim = 8, 16
    with pytest.raises(GgufRefused, match="has 64 rows, its base 128"):
        write_adapter(tmp_path / "adapter", tmp_path / "a.gguf", config, architecture_of(config))
