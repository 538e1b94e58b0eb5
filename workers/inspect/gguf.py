"""Makes a model folder of a GGUF file: its weights without quantisation, its config, its tokenizer.

transformers reads the weights. Of the config it leaves out what the file says of positions, heads and biases,
and its tokenizers split text by rules of their own, so both are read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GenerationConfig,
    GgufConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from workers.inspect.gguf_tokenizer import TokenizerUnknown, tokenizer_of

CONFIGS: Mapping[str, Callable[..., Any]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
}
"""By `general.architecture`. transformers reads no weights of the first Gemma."""
GLOBAL_EVERY = {"gemma2": 2, "gemma3": 6}
"""Of so many layers the last attends to everything, the others to a window."""
SIZED_SCALE = {"gemma2": 46, "gemma3": 62}
"""Layers of the sizes (27B) whose scores are divided by the root of `hidden_size / heads`."""
LLAMA3_FACTORS = (8.0, 32.0)
"""By what the published models with positions of Llama 3.1 (and 3.3) and 3.2 are scaled."""
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
ROPE_FACTORS = "rope_freqs.weight"
CLOSE = 1e-4
"""How far, relatively, stored factors may be from computed ones: they are in fp32."""
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
TOKENS = {"bos": "bos", "eos": "eos", "pad": "padding"}
"""What a config calls tokens, and what the file does."""
DEFAULT_WINDOW = 4096
"""What llama.cpp takes for Gemma 2 where the file does not say."""


class GgufUnreadable(Exception):
    """Says why no model folder can be made of a file."""


def inspect(file: str, place: str) -> dict[str, Any]:
    """Writes the folder `place`, and returns `fault`, why there is none, or None."""
    try:
        _convert(Path(file), Path(place))
    except (GgufUnreadable, TokenizerUnknown) as problem:
        return {"fault": str(problem)}
    return {"fault": None}


def _convert(file: Path, place: Path) -> None:
    reader = _read(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer, ends = tokenizer_of(fields)
    config = config_of(fields, reader)
    kept = {kind.tensor_type.name for kind in reader.tensors if len(kind.shape) > 1}
    dtype = DTYPES.get(kept.pop(), torch.float32) if len(kept) == 1 else torch.float32
    how: dict[str, Any] = {"output_loading_info": True, "local_files_only": True, "dtype": dtype}
    read: Any = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        **how,
    )
    model, found = read
    odd = [*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])]
    if odd:
        raise GgufUnreadable(
            f"transformers finds other weights in it than its head says: {', '.join(odd[:5])}"
        )
    said = {"eos_token_id": ends if len(ends) > 1 else ends[0], "pad_token_id": config.pad_token_id}
    model.generation_config = GenerationConfig.from_dict(said)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


def _read(file: Path) -> GGUFReader:
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as problem:
        raise GgufUnreadable(f"it is no GGUF file that can be read: {problem}") from None


def config_of(fields: Mapping[str, Any], reader: GGUFReader) -> Any:
    """Returns the config that a file's head describes. Raises `GgufUnreadable`."""
    if fields.get("general.type", "model") != "model":
        raise GgufUnreadable(f"it holds no model but '{fields['general.type']}'")
    kind = fields["general.architecture"]
    if kind not in CONFIGS:
        raise GgufUnreadable(f"its architecture is '{kind}'; read are {', '.join(sorted(CONFIGS))}")
    said = {
        name.removeprefix(f"{kind}."): value for name, value in fields.items() if name.startswith(f"{kind}.")
    }
    if said.get("expert_count"):
        raise GgufUnreadable("it is a mixture of experts")
    names = {tensor.name for tensor in reader.tensors}
    heads = said["attention.head_count"]
    head = said.get("attention.key_length", said["embedding_length"] // heads)
    values = {
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": said["embedding_length"],
        "intermediate_size": said["feed_forward_length"],
        "num_hidden_layers": said["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": said.get("attention.head_count_kv", heads),
        "head_dim": head,
        "max_position_embeddings": said["context_length"],
        "rms_norm_eps": said["attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": "output.weight" not in names,
        "rope_parameters": _positions(kind, said, reader, head),
        **{f"{name}_token_id": fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in TOKENS.items()},
    }
    if kind == "llama":
        values["attention_bias"] = "blk.0.attn_q.bias" in names
        values["mlp_bias"] = "blk.0.ffn_up.bias" in names
    if kind in GLOBAL_EVERY:
        values |= _of_gemma(kind, said, values)
    return CONFIGS[kind](**values)


def _positions(kind: str, said: Mapping[str, Any], reader: GGUFReader, head: int) -> dict[str, Any]:
    """Returns how positions are rotated: what transformers leaves out of what the file says."""
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": said.get("rope.freq_base", 10000.0)}
    scaling, factor = said.get("rope.scaling.type", "none"), said.get("rope.scaling.factor", 1.0)
    if scaling == "linear":
        found |= {"rope_type": "linear", "factor": factor}
    elif scaling != "none":
        raise GgufUnreadable(f"its positions are scaled by '{scaling}'")
    if said.get("rope.dimension_count", head) != head:
        raise GgufUnreadable("only a part of each head is rotated")
    stored = next((tensor for tensor in reader.tensors if tensor.name == ROPE_FACTORS), None)
    if stored is not None:
        found = _llama3(found["rope_theta"], torch.tensor(stored.data), head)
    if kind == "gemma3":
        own = {"rope_type": "default", "rope_theta": said.get("rope.freq_base_swa", 10000.0)}
        return {"full_attention": found, "sliding_attention": own}
    return found


def _llama3(theta: float, stored: torch.Tensor, head: int) -> dict[str, Any]:
    """Returns the published parameters whose factors are those of the file."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = theta ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    for factor in LLAMA3_FACTORS:
        parameters = {**LLAMA3, "rope_theta": theta, "factor": factor}
        config = LlamaConfig(head_dim=head, max_position_embeddings=131072, rope_parameters=parameters)
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        if torch.allclose((plain / scaled.double()).float(), stored.float(), rtol=CLOSE):
            return parameters
    raise GgufUnreadable("its positions are scaled by factors of no published Llama")


def _of_gemma(kind: str, said: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    layers, period = values["num_hidden_layers"], GLOBAL_EVERY[kind]
    is_sized = layers == SIZED_SCALE[kind]
    scalar = values["hidden_size"] // values["num_attention_heads"] if is_sized else values["head_dim"]
    own = {
        "sliding_window": said.get("attention.sliding_window", DEFAULT_WINDOW),
        "query_pre_attn_scalar": scalar,
        "final_logit_softcapping": said.get("final_logit_softcapping"),
        "layer_types": [
            "full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(layers)
        ],
    }
    return own if kind == "gemma3" else {**own, "attn_logit_softcapping": said.get("attn_logit_softcapping")}
