"""What a GGUF file holds, read back with the format's own reader and with transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, GgufConfig

from tests.tiny_model import byte_tokenizer
from tests.workers.exports.gguf.small_models import config_of, make
from workers.exports.gguf import GgufRefused, tensors
from workers.exports.gguf.architectures import architecture_of
from workers.exports.gguf.vocabulary import vocabulary_of
from workers.exports.gguf.write import read_model, write_gguf, write_model

PROMPT = torch.arange(20, 60)[None]


def written(folder: Path, out: Path | None = None) -> Path:
    out = out or folder
    out.mkdir(exist_ok=True)
    return write_model(read_model(folder), "gpt-2", out, lambda share: None)


def fields_of(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def test_transformers_reads_the_same_model_from_the_file(tmp_path: Path) -> None:
    for kind in ("llama", "qwen2"):
        folder = tmp_path / kind
        model = make(folder, kind)
        file = written(folder)
        read = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True)
        )
        assert torch.allclose(model(PROMPT).logits, read(PROMPT).logits, atol=1e-5), kind


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path)
    first, again = (written(tmp_path, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == again


def test_16_bit_weights_are_written_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(tmp_path, dtype=torch.bfloat16)
    wide = GGUFReader(written(tmp_path, tmp_path / "wide"))
    monkeypatch.setattr(tensors, "WIDENED", 0)
    file = written(tmp_path, tmp_path / "as stored")
    assert file.name == "model-bf16.gguf"
    expected = model.model.layers[1].mlp.up_proj.weight
    for reader, read in ((wide, lambda data: data), (GGUFReader(file), from_bf16)):
        found = next(each for each in reader.tensors if each.name == "blk.1.ffn_up.weight")
        assert torch.equal(read(torch.tensor(found.data)), expected.float())
    kinds = {each.name: each.tensor_type.name for each in GGUFReader(file).tensors}
    assert (kinds["blk.0.attn_q.weight"], kinds["output_norm.weight"]) == ("BF16", "F32")


def from_bf16(data: torch.Tensor) -> torch.Tensor:
    return data.view(torch.bfloat16).float()


def test_end_tokens_beyond_the_first_and_templates_are_in_the_file(tmp_path: Path) -> None:
    make(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "T", "rag": "R"}
    tokenizer.save_pretrained(tmp_path)
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    fields = fields_of(written(tmp_path))
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert fields["tokenizer.ggml.eot_token_id"] == tokenizer.pad_token_id
    assert fields["tokenizer.chat_template"] == "{{ messages }}"
    assert fields["tokenizer.chat_templates"] == ["rag", "tool_use"]
    assert fields["tokenizer.chat_template.tool_use"] == "T"
    assert fields["tokenizer.ggml.add_bos_token"] is False


def test_rows_without_a_token_are_unused_and_tokens_without_a_row_go() -> None:
    tokenizer = byte_tokenizer()
    n = len(tokenizer)
    more = vocabulary_of(tokenizer, n + 2, [tokenizer.eos_token_id])
    assert more.tokens[n:] == (f"[PAD{n}]", f"[PAD{n + 1}]")
    assert [kind.name for kind in more.types[n:]] == ["UNUSED", "UNUSED"]
    assert len(vocabulary_of(tokenizer, n - 1, [tokenizer.eos_token_id]).tokens) == n - 1


REFUSED = {
    "another activation": ("llama", {"hidden_act": "relu"}, "its MLP uses 'relu', not 'silu'"),
    "scaled positions": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
        "its positions are scaled by 'yarn'",
    ),
    "a window": ("mistral", {"sliding_window": 64}, "its attention ends after a window of 64 tokens"),
    "other layers with windows": (
        "gemma3",
        {"layer_types": ["full_attention"] * 7},
        "not every 6th of its layers, and no other, attends to everything",
    ),
    "another scale": (
        "gemma2",
        {"query_pre_attn_scalar": 64},
        "its scores are divided by the root of 64, not of 32",
    ),
}


@pytest.mark.parametrize(("kind", "changed", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    kind: str, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(GgufRefused, match=reason):
        architecture_of(config_of(kind, **changed))


def test_other_architectures_are_refused_by_name() -> None:
    from transformers import GPT2Config

    with pytest.raises(GgufRefused, match="of the type 'gpt2' is not written as GGUF"):
        architecture_of(GPT2Config())


def test_a_weight_that_llama_cpp_has_no_place_for_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "model.layers.0.extra.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(GgufRefused, match=r"no weight such as 'model\.layers\.0\.extra\.weight'"):
        read_model(tmp_path)


def test_without_llama_cpp_nothing_is_written_and_the_reason_says_what_to_install(tmp_path: Path) -> None:
    make(tmp_path / "model")
    nobody = tmp_path / "python"
    nobody.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'llama_cpp'\" >&2; exit 1\n")
    nobody.chmod(0o755)
    (tmp_path / "out").mkdir()
    with pytest.raises(GgufRefused, match=r"pip install 'cherry-rft\[gguf\]'"):
        write_gguf(tmp_path, tmp_path / "model", tmp_path / "out", lambda *_: None, str(nobody))
    assert not list((tmp_path / "out").iterdir())
