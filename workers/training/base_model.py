"""Load a base model's folder: weights, tokenizer, end tokens, context. Refuses what it would get wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from workers.training import attention
from workers.training.errors import ModelInvalid

_MARK = "xCherryMarkx"


@dataclass(frozen=True)
class BaseModel:
    """An untouched model, ready to be trained.

    Attributes:
        end_ids: every token id that ends a completion.
        context: most tokens of prompt and completion together.
        stored_dtype: of the weights on disk; checkpoints are written in it.
    """

    folder: Path
    model: Any
    tokenizer: Any
    end_ids: tuple[int, ...]
    context: int
    device: torch.device
    stored_dtype: torch.dtype


def load_base(
    folder: Path, device: Literal["auto", "cpu", "cuda"] = "cpu", adapter: Literal["lora", "full"] = "lora"
) -> BaseModel:
    """Read a model folder; nothing outside it is read and no code in it is run. Raises `ModelInvalid`.

    Weights are held in fp32, except for a frozen base on a GPU, which keeps its own dtype.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if not any(folder.glob("*.safetensors")):
        raise ModelInvalid(f"The model folder '{folder.name}' holds no safetensors weights.")
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        dtype: Any = "auto" if place.type == "cuda" and adapter == "lora" else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, attn_implementation=attention.NAME, **offline
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelInvalid(f"The model folder '{folder.name}' cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise ModelInvalid(f"The model '{folder.name}' has no chat template.")
    model = model.to(place).eval().requires_grad_(False)
    _check_plain_head(model, folder.name)
    return BaseModel(
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        end_ids=end_ids(model.generation_config, tokenizer),
        context=_context(model.config.get_text_config(decoder=True), folder.name),
        device=place,
        stored_dtype=_stored_dtype(model.config),
    )


def end_ids(generation_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """All ids that end a completion: generation config's, tokenizer's, and the chat template's.

    They differ in practice: a model may end its texts with a token that its tokenizer does not call `eos`,
    and a chat model ends an answer with the token that its template puts after one.
    """
    configured = generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured])
    ids |= {tokenizer.eos_token_id, _template_end_id(tokenizer)}
    return tuple(sorted(ids - {None}))


def _template_end_id(tokenizer: Any) -> int | None:
    """The special token that follows an assistant's text in the chat template, if there is one."""
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
    except Exception:  # a template is a program of its own and may refuse this conversation in any way
        return None
    after = text.rpartition(_MARK)[2].strip()
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    starts = [token for token in special if token and after.startswith(token)]
    return special[max(starts, key=len)] if starts else None


def _context(config: Any, name: str) -> int:
    """Positions the model can use. A sliding window is a limit too: within it all layers see everything."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise ModelInvalid(f"The model '{name}' has layers of a kind that is not supported: {sorted(kinds)}.")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        raise ModelInvalid(f"The config of '{name}' does not say how many positions it has.")
    window = getattr(config, "sliding_window", None)
    has_window = window is not None and getattr(config, "use_sliding_window", True)
    return min(positions, window) if has_window else int(positions)


def _stored_dtype(config: Any) -> torch.dtype:
    dtype = config.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


@torch.no_grad()
def _check_plain_head(model: Any, name: str) -> None:
    """The engine computes logits as the output embedding of the decoder's last state; the model must too."""
    ids = torch.arange(4, device=model.device)[None]
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    if not torch.allclose(model.get_output_embeddings()(hidden), model(input_ids=ids).logits, atol=1e-3):
        raise ModelInvalid(f"The model '{name}' changes its logits after the output layer: not supported.")
